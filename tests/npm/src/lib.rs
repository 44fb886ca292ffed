//! For build scripts: installs the npm packages that a `package-lock.json` pins into `OUT_DIR`, and
//! runs programs that are silent unless they fail.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Files that pin the installed packages.
pub const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// Runs a build script: tells cargo why it failed.
pub fn main(build: impl FnOnce() -> Result<()>) {
    if let Err(error) = build() {
        // One line, because cargo shows only the first line of an error.
        println!(
            "cargo::error={}",
            format!("{error:#}").trim().replace('\n', " | ")
        );
    }
}

/// The folder of the package that is built, and `OUT_DIR`.
pub fn folders() -> Result<(PathBuf, PathBuf)> {
    let source = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    Ok((source, PathBuf::from(env::var("OUT_DIR")?)))
}

/// Installs the packages that `source` pins into `out`, unless the last build did.
pub fn install(source: &Path, out: &Path) -> Result<()> {
    let done = out.join("installed");
    let mut wanted = String::new();
    for name in MANIFESTS {
        println!("cargo::rerun-if-changed={name}");
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
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!("{program}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("`{program}` is missing: the tests use Node.js and npm; install both")
        }
        Err(error) => Err(error).with_context(|| format!("cannot run `{program}`")),
    }
}
