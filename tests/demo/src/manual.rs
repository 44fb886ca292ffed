//! The README as a script: its commands are run as they stand there, and its manifests applied, so that what people are told
//! to do is what was tried.
//!
//! Commands are the lines of `sh` blocks; files are `yaml` blocks whose first line is a comment with their name. Commands
//! under a heading that is a [`Chapter`] are run by the demo, all others must be targets of the Makefile.

use anyhow::{Context, Result};

/// A heading of the README whose commands the demo runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chapter {
    /// The chart is installed.
    Install,
    /// The signer's key and the IdentityRegistry.
    Registry,
    /// The first offer.
    Offer,
    /// The documents are exposed.
    Expose,
    /// Status is read.
    Status,
    /// Metrics are read.
    Metrics,
    /// More replicas.
    Scale,
    /// Records are saved.
    Backup,
    /// Records are restored into a cluster that has lost them.
    Restore,
    /// The release is removed.
    Uninstall,
    /// Everything that outlives the release is removed.
    Remove,
}

impl Chapter {
    /// The heading.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Install => "Install the chart",
            Self::Registry => "Name the chain and the signer",
            Self::Offer => "Make the first offer",
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

/// A manual in Markdown.
#[derive(Debug)]
pub struct Manual {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    heading: String,
    language: String,
    lines: Vec<String>,
}

impl Manual {
    /// The README of this checkout.
    pub fn readme() -> Self {
        Self::parse(include_str!("../../../README.md"))
    }

    fn parse(text: &str) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let mut heading = String::new();
        let mut open = false;
        for line in text.lines() {
            match (line.strip_prefix("```"), open) {
                (Some(language), false) => {
                    blocks.push(Block {
                        heading: heading.clone(),
                        language: language.to_owned(),
                        lines: Vec::new(),
                    });
                    open = true;
                }
                (Some(_), true) => open = false,
                (None, true) => blocks
                    .iter_mut()
                    .last()
                    .into_iter()
                    .for_each(|block| block.lines.push(line.to_owned())),
                (None, false) if line.starts_with('#') => {
                    heading = line.trim_start_matches('#').trim().to_owned()
                }
                (None, false) => {}
            }
        }
        Self { blocks }
    }

    /// The commands under a chapter's heading.
    ///
    /// # Errors
    /// If there are none.
    pub fn commands(&self, chapter: Chapter) -> Result<Vec<String>> {
        let heading = chapter.heading();
        let commands: Vec<String> = self
            .scripts()
            .filter(|block| block.heading == heading)
            .flat_map(commands_of)
            .collect();
        Some(commands).filter(|commands| !commands.is_empty()).with_context(|| {
            format!("README.md has no commands under the heading {heading:?}: put the heading back, or change Chapter")
        })
    }

    /// A file that the README shows.
    ///
    /// # Errors
    /// If it does not.
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

/// Commands of a block; one that ends in a backslash goes on in the next line.
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

    const CHAPTERS: [Chapter; 11] = [
        Chapter::Install,
        Chapter::Registry,
        Chapter::Offer,
        Chapter::Expose,
        Chapter::Status,
        Chapter::Metrics,
        Chapter::Scale,
        Chapter::Backup,
        Chapter::Restore,
        Chapter::Uninstall,
        Chapter::Remove,
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
    fn every_command_of_the_readme_is_run_by_the_demo_or_is_a_make_target() {
        let manual = Manual::readme();
        let targets = makefile_targets();
        for block in manual.scripts() {
            if CHAPTERS
                .iter()
                .any(|chapter| chapter.heading() == block.heading)
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
    fn every_chapter_has_commands() {
        let manual = Manual::readme();
        for chapter in CHAPTERS {
            assert!(manual.commands(chapter).is_ok(), "{chapter:?}");
        }
    }

    #[test]
    fn every_block_of_the_readme_says_what_it_is() {
        for block in &Manual::readme().blocks {
            let known = ["sh", "yaml", "text", "mermaid"];
            assert!(
                known.contains(&block.language.as_str()),
                "```{} under {:?}",
                block.language,
                block.heading
            );
        }
    }

    /// Words that arms of a match give, like `Self::Drain => "InvalidDrain"`.
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
    fn the_operations_page_knows_every_reason_that_the_operator_gives() {
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
                    "docs/operations.md says nothing about {reason}"
                );
            }
        }
    }

    #[test]
    fn commands_are_read_line_by_line_with_what_they_go_on_in() {
        let manual = Manual::parse(
            "## Uninstall\ntext\n```sh\none \\\n  --two\n\nthree\n```\n## Other\n```sh\nno\n```\n",
        );
        assert_eq!(
            manual.commands(Chapter::Uninstall).unwrap(),
            ["one --two", "three"]
        );
        let error = manual.commands(Chapter::Backup).unwrap_err().to_string();
        assert!(error.contains("Back up"), "{error}");
    }

    #[test]
    fn a_file_is_found_by_the_name_in_its_first_line() {
        let manual =
            Manual::parse("```yaml\n# a.yaml\nkey: 1\n```\n```yaml\n# b.yaml\nkey: 2\n```\n");
        assert_eq!(manual.file("b.yaml").unwrap(), "# b.yaml\nkey: 2\n");
        assert!(manual.file("c.yaml").is_err());
    }
}
