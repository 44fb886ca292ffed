//! Generates one module tree per core in `$OUT_DIR/cores.rs`: the shipped one word for word, and
//! each variant with its edits. `$OUT_DIR/ledger_cores.rs` gets the variants of the ledger's core,
//! whose shipped one is the operator's library.
//!
//! It owns how the operator's sources become modules of this package, so that they need no hook for
//! it. It must not change a word of the shipped core. All trees share the shipped `lease`, `time`
//! and [`SHARED`], so that one world can drive each of them.

#[allow(dead_code, reason = "only the edits are needed here")]
#[path = "src/variants.rs"]
mod variants;

#[allow(dead_code, reason = "only the edits are needed here")]
#[path = "src/ledger"]
mod ledger {
    mod flaws;
    pub(crate) mod variants;
}

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use ledger::variants as ledger_variants;
use variants::{VARIANTS, Variant};

/// Modules of the core that the world uses as well. No variant may edit them.
const SHARED: [&str; 3] = ["action", "config", "input"];
/// What ends the core in its `mod.rs`.
const TESTS: &str = "\n#[cfg(test)]\nmod tests;\n";

fn main() {
    if let Err(error) = build().and_then(|()| build_ledger_cores()) {
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

/// Modules of the ledger's core that variants edit, and their sources.
const LEDGER_MODULES: [(&str, &str); 3] = [
    ("protocol", "ledger/protocol/mod.rs"),
    ("registrants", "ledger/registrants.rs"),
    ("plan", "reconcile/registry/ledger/plan/mod.rs"),
];

/// Writes the variants of the ledger's core. Each has its own text of [`LEDGER_MODULES`] and its own
/// copy of the shell, and shares everything else with the operator's library.
fn build_ledger_cores() -> Result<()> {
    let package = env::var("CARGO_MANIFEST_DIR")?;
    let sources = Path::new(&package).join("../../src");
    let pass = Path::new(&package).join("src/ledger/pass.rs");
    println!("cargo::rerun-if-changed=src/ledger/variants.rs");
    println!("cargo::rerun-if-changed=src/ledger/flaws.rs");
    let shipped = LEDGER_MODULES
        .iter()
        .map(|(module, file)| Ok((*module, without_tests(&read(&sources.join(file))?))))
        .collect::<Result<Vec<_>>>()?;
    let (mut cores, mut names) = (String::new(), String::new());
    for variant in ledger_variants::VARIANTS {
        let (ledger_variants::Change::Core(edits) | ledger_variants::Change::Both(edits, _)) =
            variant.change
        else {
            continue;
        };
        let mut modules = shipped.clone();
        for edit in edits {
            let mut texts = modules.iter_mut();
            let (_, text) = texts
                .find(|(module, _)| *module == edit.module)
                .with_context(|| format!("{} is not a module to edit", edit.module))?;
            *text = replace(text, edit.find, edit.replacement)
                .with_context(|| format!("variant {}", variant.name))?;
        }
        let name = variant.name;
        writeln!(cores, "pub mod {name} {{ #[path = {pass:?}] pub mod pass;")?;
        for (module, text) in modules {
            writeln!(cores, "pub mod {module} {{\n{}\n}}", rerouted(&text))?;
        }
        writeln!(cores, "}}")?;
        write!(names, " {name}")?;
    }
    writeln!(
        cores,
        "macro_rules! for_each_ledger_core {{ ($make:ident) => {{ $make! {{ {names} }} }} }}"
    )?;
    fs::write(
        Path::new(&env::var("OUT_DIR")?).join("ledger_cores.rs"),
        cores,
    )?;
    Ok(())
}

/// A module without its unit tests.
fn without_tests(text: &str) -> String {
    let (code, _) = text.split_once("\n#[cfg(test)]\n").unwrap_or((text, ""));
    code.to_owned()
}

/// A module whose paths lead to the edited modules, and else to the operator's library.
fn rerouted(text: &str) -> String {
    let mut text = text.to_owned();
    for (from, to) in [
        ("crate::ledger::protocol", "super::protocol"),
        ("crate::ledger::", "serviceoffer::decisions::"),
        ("crate::chain::", "serviceoffer::decisions::"),
        ("crate::api::", "serviceoffer::api::"),
        ("super::evidence", "serviceoffer::decisions::evidence"),
        ("super::foreign", "serviceoffer::decisions::foreign"),
        ("super::freeze", "serviceoffer::decisions"),
        ("super::index", "serviceoffer::decisions::index"),
        ("super::money", "serviceoffer::decisions::money"),
        ("super::rollback", "serviceoffer::decisions::rollback"),
        ("super::sweep", "serviceoffer::decisions::sweep"),
        ("super::unreadable", "serviceoffer::decisions::unreadable"),
    ] {
        text = text.replace(from, to);
    }
    text
}
