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

    use super::*;

    const SECTIONS: [Section; 11] = [
        Section::Install,
        Section::Registry,
        Section::Offer,
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

    /// Reasons in the arms of a match, like `Self::Drain => "InvalidDrain"`.
    fn reasons_in(source: &str) -> BTreeSet<&str> {
        let arms = source.lines().filter_map(|line| line.split_once(" => "));
        let words = arms.flat_map(|(_, given)| given.split('"').skip(1).step_by(2));
        let is_reason = |word: &&str| {
            word.starts_with(char::is_uppercase)
                && word.chars().all(char::is_alphabetic)
                && word.len() > 3
        };
        words.filter(is_reason).collect()
    }

    #[test]
    fn operations_page_explains_every_reason() {
        let page = include_str!("../../../docs/operations.md");
        let sources = [
            include_str!("../../../src/ledger/freeze.rs"),
            include_str!("../../../src/ledger/money.rs"),
            include_str!("../../../src/reconcile/findings.rs"),
            include_str!("../../../src/reconcile/registry/status.rs"),
            include_str!("../../../src/reconcile/registry/trouble.rs"),
            include_str!("../../../src/registration/identity.rs"),
            include_str!("../../../src/registration/standing.rs"),
        ];
        for source in sources {
            let reasons = reasons_in(source);
            assert!(reasons.len() > 3, "{reasons:?}");
            for reason in reasons {
                assert!(
                    page.contains(&format!("`{reason}`")),
                    "docs/operations.md does not explain {reason}"
                );
            }
        }
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
