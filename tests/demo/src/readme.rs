//! The README as a script: the demo runs its commands and applies its manifests, so that they are
//! known to work.
//!
//! Commands are the lines of `sh` blocks; files are `yaml` blocks whose first line is a comment
//! with their name. The demo runs the commands under the headings that are a [`Section`]; all
//! others must be targets of the Makefile.

use anyhow::{Context, Result, ensure};

/// A heading of the README whose commands the demo runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Install,
    /// The signer's key and the IdentityRegistry.
    Registry,
    /// The first offer.
    Offer,
    /// A facilitator, and the sale of the first offer.
    Sell,
    /// Documents.
    Expose,
    Status,
    Metrics,
    /// More replicas.
    Scale,
    Backup,
    /// Into a cluster that has lost its records.
    Restore,
    Uninstall,
    /// Everything that outlives the release.
    Remove,
}

impl Section {
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Install => "Install the chart",
            Self::Registry => "Configure the chain and the signer",
            Self::Offer => "Create an offer",
            Self::Sell => "Sell it",
            Self::Expose => "Expose the documents",
            Self::Status => "Read the status",
            Self::Metrics => "Metrics",
            Self::Scale => "Upgrade and high availability",
            Self::Backup => "Back up",
            Self::Restore => "Restore",
            Self::Uninstall => "Uninstall",
            Self::Remove => "Remove the records as well",
        }
    }
}

/// A text in Markdown with commands and files.
#[derive(Debug)]
pub struct Readme {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    heading: String,
    language: String,
    lines: Vec<String>,
}

impl Readme {
    /// The README of this checkout.
    pub fn load() -> Self {
        Self::parse(include_str!("../../../README.md"))
    }

    fn parse(text: &str) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let mut heading = String::new();
        let mut open = false;
        for line in text.lines() {
            if let Some(language) = line.strip_prefix("```") {
                if !open {
                    blocks.push(Block {
                        heading: heading.clone(),
                        language: language.to_owned(),
                        lines: Vec::new(),
                    });
                }
                open = !open;
            } else if open {
                if let Some(block) = blocks.last_mut() {
                    block.lines.push(line.to_owned());
                }
            } else if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().to_owned();
            }
        }
        Self { blocks }
    }

    /// The commands under a section's heading. No commands are an error.
    pub fn commands(&self, section: Section) -> Result<Vec<String>> {
        let heading = section.heading();
        let commands: Vec<String> = self
            .scripts()
            .filter(|block| block.heading == heading)
            .flat_map(commands_of)
            .collect();
        ensure!(
            !commands.is_empty(),
            "README.md has no commands under {heading:?}: restore it, or change Section::heading"
        );
        Ok(commands)
    }

    /// A file that the README shows.
    pub fn file(&self, name: &str) -> Result<String> {
        let mut files = self.blocks.iter().filter(|block| block.language == "yaml");
        let file = files.find(|block| {
            block
                .lines
                .first()
                .is_some_and(|line| *line == format!("# {name}"))
        });
        let file = file
            .with_context(|| format!("README.md has no yaml block that begins with `# {name}`"))?;
        Ok(file.lines.join("\n") + "\n")
    }

    fn scripts(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| block.language == "sh")
    }
}

/// Commands of a block. A command that ends in a backslash continues on the next line.
fn commands_of(block: &Block) -> Vec<String> {
    let text = block.lines.join("\n").replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines()
        .map(words)
        .filter(|line| !line.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    const SECTIONS: [Section; 12] = [
        Section::Install,
        Section::Registry,
        Section::Offer,
        Section::Sell,
        Section::Expose,
        Section::Status,
        Section::Metrics,
        Section::Scale,
        Section::Backup,
        Section::Restore,
        Section::Uninstall,
        Section::Remove,
    ];

    fn makefile_targets() -> BTreeSet<&'static str> {
        let lines = include_str!("../../../Makefile").lines();
        lines
            .filter_map(|line| {
                line.split_once(": ")
                    .map(|(target, _)| target)
                    .or(line.strip_suffix(':'))
            })
            .collect()
    }

    #[test]
    fn every_command_is_run_by_the_demo_or_is_a_make_target() {
        let readme = Readme::load();
        let targets = makefile_targets();
        for block in readme.scripts() {
            if SECTIONS
                .iter()
                .any(|section| section.heading() == block.heading)
            {
                continue;
            }
            for command in commands_of(block) {
                let target = command
                    .strip_prefix("make ")
                    .and_then(|rest| rest.split_whitespace().next());
                assert!(
                    target.is_some_and(|target| targets.contains(target)),
                    "nothing runs `{command}` under {:?}",
                    block.heading
                );
            }
        }
    }

    #[test]
    fn every_section_has_commands() {
        let readme = Readme::load();
        for section in SECTIONS {
            assert!(readme.commands(section).is_ok(), "{section:?}");
        }
    }

    #[test]
    fn every_block_names_its_language() {
        for block in &Readme::load().blocks {
            let known = ["sh", "yaml", "text", "mermaid"];
            assert!(
                known.contains(&block.language.as_str()),
                "```{} under {:?}",
                block.language,
                block.heading
            );
        }
    }

    /// Variants whose reason is that of another enum, or that become no condition.
    const DELEGATED: [&str; 9] = [
        "Freeze",
        "Logs",
        "NotLeading",
        "Premise",
        "Rpc",
        "Shortage",
        "Unacceptable",
        "Unpayable",
        "Unverified",
    ];

    /// Rust sources below a directory, without tests.
    fn sources(directory: &Path) -> Vec<PathBuf> {
        let mut sources = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if path.is_dir() {
                sources.extend(self::sources(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
        sources
    }

    /// Condition reasons in a source: the variants of enums from which `reason()` is derived, and
    /// the words that arms of a match give, like `Self::Drain => "InvalidDrain"`.
    fn reasons_in(source: &str) -> BTreeSet<String> {
        let mut reasons = BTreeSet::new();
        let mut derived = false;
        let mut inside = false;
        for line in source.lines() {
            if line.starts_with("#[derive(") {
                derived = line.contains("IntoStaticStr");
            } else if line.contains("enum ") && line.ends_with('{') {
                inside = derived;
            } else if line == "}" {
                (derived, inside) = (false, false);
            }
            if inside
                && let Some(variant) = line.strip_prefix("    ")
                && variant.starts_with(char::is_uppercase)
            {
                let end = variant.find(|letter: char| !letter.is_alphanumeric());
                reasons.insert(variant[..end.unwrap_or(variant.len())].to_owned());
            }
            if let Some((arm, given)) = line.split_once(" => ")
                && arm.contains("Self::")
            {
                reasons.extend(literals_in(given));
            }
        }
        reasons.retain(|reason| !DELEGATED.contains(&reason.as_str()));
        reasons
    }

    /// Condition types and reasons in the literals of a source, without the action of an Event.
    fn literals_in(source: &str) -> BTreeSet<String> {
        let literals = source.split('"').skip(1).step_by(2);
        let words = literals.filter(|word| {
            word.len() > 3
                && word.starts_with(char::is_uppercase)
                && word.chars().all(char::is_alphabetic)
                && *word != "Reconcile"
        });
        words.map(str::to_owned).collect()
    }

    #[test]
    fn operations_page_explains_every_reason() {
        let page = include_str!("../../../docs/operations.md");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
        let mut reasons = BTreeSet::new();
        for room in ["chain", "gate", "ledger", "reconcile", "registration"] {
            for path in sources(&root.join(room)) {
                let source = std::fs::read_to_string(&path).unwrap();
                reasons.extend(reasons_in(&source));
                // Some statuses are written in literals.
                let path = path.to_string_lossy();
                if path.contains("reconcile/registry/status")
                    || path.ends_with("reconcile/facilitator/plan.rs")
                {
                    reasons.extend(literals_in(&source));
                }
            }
        }
        assert!(reasons.len() > 50, "{reasons:?}");
        reasons.retain(|reason| !page.contains(&format!("`{reason}`")));
        assert!(
            reasons.is_empty(),
            "docs/operations.md does not explain {reasons:?}"
        );
    }

    #[test]
    fn reasons_are_read_from_derived_enums_and_from_arms() {
        let source = "#[derive(Debug, strum::IntoStaticStr)]\npub enum Derived {\n    /// Doc.\n    \
                      One {\n        two: u8,\n    },\n    Rpc(u8),\n    Three,\n}\n\
                      enum Plain {\n    Four,\n}\n            Self::Four => \"Five\",\n";
        let expected = ["Five", "One", "Three"].map(str::to_owned);
        assert_eq!(reasons_in(source), expected.into());
    }

    #[test]
    fn command_continues_after_a_backslash() {
        let readme = Readme::parse(
            "## Uninstall\ntext\n```sh\none \\\n  --two\n\nthree\n```\n## Other\n```sh\nno\n```\n",
        );
        assert_eq!(
            readme.commands(Section::Uninstall).unwrap(),
            ["one --two", "three"]
        );
        let error = readme.commands(Section::Backup).unwrap_err().to_string();
        assert!(error.contains("Back up"), "{error}");
    }

    #[test]
    fn file_is_found_by_the_name_in_its_first_line() {
        let readme =
            Readme::parse("```yaml\n# a.yaml\nkey: 1\n```\n```yaml\n# b.yaml\nkey: 2\n```\n");
        assert_eq!(readme.file("b.yaml").unwrap(), "# b.yaml\nkey: 2\n");
        assert!(readme.file("c.yaml").is_err());
    }
}
