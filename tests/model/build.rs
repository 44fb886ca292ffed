//! Makes one module tree per core in `$OUT_DIR/cores.rs`: the shipped one word for word, and each variant with its edits.
//!
//! It owns how the operator's sources become modules of this package, so that they need no hook for it. It must not change
//! a word of the shipped core. All trees share the shipped record and the words in which a core is spoken to, so that one
//! world can drive each of them.

#[allow(dead_code, reason = "only the edits are needed here")]
#[path = "src/variants.rs"]
mod variants;

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use variants::{VARIANTS, Variant};

/// What of the core is spoken by the world as well.
const SHARED: [&str; 5] = [
    "pub struct Attempt(",
    "pub enum Input {",
    "pub enum AsOf {",
    "pub enum Action {",
    "pub enum Exit {",
];
/// What ends the core in its file.
const TESTS: &str = "\n#[cfg(test)]\nmod tests;\n";

fn main() {
    if let Err(error) = build() {
        // One line, because cargo shows no more than that of an error.
        println!(
            "cargo::error={}",
            format!("{error:#}").trim().replace('\n', " | ")
        );
    }
}

fn build() -> Result<()> {
    let leader = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../src/leader");
    let read = |name: &str| {
        let path = leader.join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read_to_string(&path).with_context(|| format!("{} is unreadable", path.display()))
    };
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/variants.rs");
    let record = read("record.rs")?;
    let lease = replace(&read("lease.rs")?, TESTS, "").context("lease.rs")?;

    let mut cores = format!(
        "pub mod shipped {{ pub mod record {{\n{record}\n}} pub mod lease {{\n{lease}\n}} }}\n"
    );
    let mut names = "shipped".to_owned();
    let body = without_shared(&lease)?;
    for variant in VARIANTS {
        let name = variant.name;
        let edited = edit(&body, &variant).with_context(|| format!("variant {name}"))?;
        write!(
            cores,
            "pub mod {name} {{ pub use super::shipped::record; pub mod lease {{\n{edited}\n\
             pub use super::super::shipped::lease::{{Action, AsOf, Attempt, Exit, Input}};\n}} }}\n"
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

fn edit(text: &str, variant: &Variant) -> Result<String> {
    variant
        .edits
        .iter()
        .try_fold(text.to_owned(), |text, (find, replacement)| {
            replace(&text, find, replacement)
        })
}

/// Replaces a text that stands in another exactly once.
fn replace(text: &str, find: &str, replacement: &str) -> Result<String> {
    match text.matches(find).count() {
        1 => Ok(text.replacen(find, replacement, 1)),
        count => bail!("stands {count} times in the core, and not once: {find}"),
    }
}

/// The core without the words that all cores share.
fn without_shared(lease: &str) -> Result<String> {
    SHARED.iter().try_fold(lease.to_owned(), |text, item| {
        let at = text
            .find(item)
            .with_context(|| format!("no such item: {item}"))?;
        // Formatted items are set apart by an empty line, and end where their first line began.
        let begin = text[..at].rfind("\n\n").map_or(0, |gap| gap + 1);
        let close = if item.ends_with('{') { "\n}\n" } else { ";\n" };
        let end = text[at..]
            .find(close)
            .map(|end| at + end + close.len())
            .context("an item without an end")?;
        ensure!(end > begin, "an item that ends before it begins: {item}");
        Ok(format!("{}{}", &text[..begin], &text[end..]))
    })
}
