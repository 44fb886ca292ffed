//! Installs the npm packages that `package-lock.json` pins, with the scripts that use them.
//!
//! It must not write outside `OUT_DIR`.

use std::fs;

/// Programs that import the packages, which Node.js looks for beside them.
const SCRIPTS: [&str; 2] = ["facilitator.mjs", "buyer.mjs"];

fn main() {
    npm::main(|| {
        println!("cargo::rerun-if-changed=build.rs");
        let (source, out) = npm::folders()?;
        npm::install(&source, &out)?;
        for script in SCRIPTS {
            println!("cargo::rerun-if-changed={script}");
            fs::copy(source.join(script), out.join(script))?;
        }
        Ok(())
    });
}
