//! Compiles `solidity/` with the npm packages that `package-lock.json` pins, into
//! `$OUT_DIR/artifacts`.
//!
//! It must not write outside `OUT_DIR`. `compile.mjs` compiles the contracts, `src/artifact.rs`
//! reads the output.

use std::process::Command;

fn main() {
    npm::main(|| {
        for input in ["build.rs", "compile.mjs", "solidity"] {
            println!("cargo::rerun-if-changed={input}");
        }
        let (source, out) = npm::folders()?;
        npm::install(&source, &out)?;
        npm::run(
            Command::new("node")
                .arg(source.join("compile.mjs"))
                .arg(source.join("solidity"))
                .arg(out.join("artifacts"))
                .current_dir(&out),
        )
    });
}
