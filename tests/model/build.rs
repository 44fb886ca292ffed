//! Generates one module tree per core in `$OUT_DIR/cores.rs`: the shipped one word for word, and
//! each variant with its edits.
//!
//! It owns how the operator's sources become modules of this package, so that they need no hook for
//! it. It must not change a word of the shipped core. All trees share the shipped `lease`, `time`
//! and [`SHARED`], so that one world can drive each of them.

#[allow(dead_code, reason = "only the edits are needed here")]
#[path = "src/variants.rs"]
mod variants;

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use variants::{VARIANTS, Variant};

/// Modules of the core that the world uses as well. No variant may edit them.
const SHARED: [&str; 3] = ["action", "config", "input"];
/// What ends the core in its `mod.rs`.
const TESTS: &str = "\n#[cfg(test)]\nmod tests;\n";

fn main() {
    if let Err(error) = build() {
        // One line, because cargo shows only one line of an error.
        println!(
            "cargo::error={}",
            format!("{error:#}").trim().replace('\n', " | ")
        );
    }
}

fn build() -> Result<()> {
    let leader = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../src/leader");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/variants.rs");
    let (lease, time) = (
        read(&leader.join("lease.rs"))?,
        read(&leader.join("time.rs"))?,
    );
    let core = Core::read(&leader.join("candidate"))?;

    let mut cores = format!(
        "pub mod shipped {{ pub mod lease {{\n{lease}\n}} pub mod time {{\n{time}\n}} pub mod candidate {{\n{}\n}} }}\n",
        core.text()?
    );
    let mut names = "shipped".to_owned();
    for variant in VARIANTS {
        let name = variant.name;
        let edited = core
            .edited(&variant)
            .and_then(|core| core.text())
            .with_context(|| format!("variant {name}"))?;
        writeln!(
            cores,
            "pub mod {name} {{ pub use super::shipped::{{lease, time}}; pub mod candidate {{\n{edited}\n}} }}"
        )?;
        write!(names, " {name}")?;
    }
    writeln!(
        cores,
        "macro_rules! for_each_core {{ ($make:ident) => {{ $make! {{ {names} }} }} }}"
    )?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("cores.rs"), cores)?;
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read_to_string(path).with_context(|| format!("{} is unreadable", path.display()))
}

/// The text of a core.
#[derive(Clone)]
struct Core {
    /// Its `mod.rs`, without the tests.
    root: String,
    /// The modules that it declares, by name.
    modules: Vec<(String, String)>,
}

impl Core {
    /// Reads a folder. Each of its files must be declared in `mod.rs`, and each declaration must
    /// have its file.
    fn read(folder: &Path) -> Result<Self> {
        // The folder's own time stamp changes when a file is added or removed.
        println!("cargo::rerun-if-changed={}", folder.display());
        let root = replace(&read(&folder.join("mod.rs"))?, TESTS, "").context("mod.rs")?;
        let declared = root
            .lines()
            .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        let modules = declared
            .map(|name| Ok((name.to_owned(), read(&folder.join(format!("{name}.rs")))?)))
            .collect::<Result<Vec<_>>>()?;
        let mut files = 0;
        for entry in fs::read_dir(folder)? {
            files += usize::from(entry?.path().extension().is_some_and(|end| end == "rs"));
        }
        ensure!(
            files == modules.len() + 1,
            "{} holds {files} files, and mod.rs declares {} modules",
            folder.display(),
            modules.len()
        );
        Ok(Self { root, modules })
    }

    /// The same core with a variant's edits, and with the shipped core's [`SHARED`] modules in
    /// place of its own.
    fn edited(&self, variant: &Variant) -> Result<Self> {
        let mut core = self.clone();
        for edit in variant.edits {
            let text = core
                .file(edit.file)
                .with_context(|| format!("{} is not a file to edit", edit.file))?;
            *text = replace(text, edit.find, edit.replacement).context(edit.file)?;
        }
        for (name, text) in &mut core.modules {
            if SHARED.contains(&name.as_str()) {
                *text = "pub use super::super::super::shipped::candidate::*;".into();
            }
        }
        Ok(core)
    }

    /// The text of a file that a variant may edit.
    fn file(&mut self, file: &str) -> Option<&mut String> {
        if file == "mod.rs" {
            return Some(&mut self.root);
        }
        let name = file.strip_suffix(".rs")?;
        let mut own = self
            .modules
            .iter_mut()
            .filter(|(module, _)| !SHARED.contains(&module.as_str()));
        own.find(|(module, _)| module == name).map(|(_, text)| text)
    }

    /// One text: `mod.rs` with each module in place of its declaration.
    fn text(&self) -> Result<String> {
        self.modules
            .iter()
            .try_fold(self.root.clone(), |text, (name, module)| {
                replace(
                    &text,
                    &format!("\nmod {name};\n"),
                    &format!("\nmod {name} {{\n{module}\n}}\n"),
                )
            })
    }
}

/// Replaces a text that occurs exactly once in another.
fn replace(text: &str, find: &str, replacement: &str) -> Result<String> {
    match text.matches(find).count() {
        1 => Ok(text.replacen(find, replacement, 1)),
        count => bail!("occurs {count} times, and not once: {find}"),
    }
}
