//! Compiles `solidity/` with the npm packages that `package-lock.json` pins, into
//! `$OUT_DIR/artifacts`.
//!
//! It installs, then compiles, and explains what is missing if it can do neither. It must not write
//! outside `OUT_DIR`. `compile.mjs` compiles the contracts, `src/artifact.rs` reads the output.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Files that pin the installed packages.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

fn main() {
    if let Err(error) = build() {
        // One line, because cargo shows only the first line of an error.
        println!(
            "cargo::error={}",
            format!("{error:#}").trim().replace('\n', " | ")
        );
    }
}

fn build() -> Result<()> {
    for input in MANIFESTS
        .iter()
        .chain(&["build.rs", "compile.mjs", "solidity"])
    {
        println!("cargo::rerun-if-changed={input}");
    }
    let source = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    install(&source, &out)?;
    run(Command::new("node")
        .arg(source.join("compile.mjs"))
        .arg(source.join("solidity"))
        .arg(out.join("artifacts"))
        .current_dir(&out))
}

/// Installs the pinned packages, unless the last build did.
fn install(source: &Path, out: &Path) -> Result<()> {
    let done = out.join("installed");
    let mut wanted = String::new();
    for name in MANIFESTS {
        let text = fs::read_to_string(source.join(name))
            .with_context(|| format!("{name} is unreadable"))?;
        fs::write(out.join(name), &text)?;
        wanted += &text;
    }
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    run(Command::new("npm")
        .args([
            "ci",
            "--ignore-scripts",
            "--prefer-offline",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ])
        .current_dir(out))?;
    // Written last, so that an interrupted installation does not count as complete.
    fs::write(done, wanted)?;
    Ok(())
}

/// Runs a command that is silent unless it fails.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!("{program}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "`{program}` is missing: the test contracts are compiled with Node.js and npm; install both"
            )
        }
        Err(error) => Err(error).with_context(|| format!("cannot run `{program}`")),
    }
}
