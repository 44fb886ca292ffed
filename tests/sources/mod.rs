//! The sources of the operator as text, for the tests that hold rules over them.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of `src`, as it is compiled into the operator: without comments and without tests.
pub struct Source {
    /// Path below `src`.
    pub path: String,
    pub code: String,
}

impl Source {
    fn new(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        let lines: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
        let path = path.strip_prefix(root).unwrap();
        Self {
            path: path.to_str().unwrap().to_owned(),
            code: without_tests(&lines.join("\n")),
        }
    }

    /// Top-level module that the file belongs to.
    pub fn room(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Whether the code contains a path or a word that is not part of a longer one.
    pub fn names(&self, word: &str) -> bool {
        contains_word(&self.code, word)
    }

    /// Every function, as its signature and its body.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &str)> {
        let starts = self.code.match_indices("fn ").filter(|(at, _)| {
            let line = self.code[..*at].rsplit('\n').next().unwrap();
            line.split_whitespace()
                .all(|word| word == "async" || word == "const" || word.starts_with("pub"))
        });
        starts.map(|(at, _)| {
            let item = item_at(&self.code, at);
            item.split_once('{').unwrap_or((item, ""))
        })
    }
}

pub fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

pub fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The item that starts on the line of `at`. In formatted code, an item ends at the indentation at
/// which it started.
pub fn item_at(code: &str, at: usize) -> &str {
    let line = code[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let depth = code[line..].len() - code[line..].trim_start_matches(' ').len();
    let first = code[line..].find('\n').map_or(code.len(), |end| line + end);
    if code[line..first].ends_with([';', '}']) {
        return &code[at..first];
    }
    let closing = format!("\n{}}}", " ".repeat(depth));
    let end = code[line..]
        .find(&closing)
        .map_or(code.len(), |end| line + end + closing.len());
    &code[at..end]
}

fn without_tests(text: &str) -> String {
    const MARK: &str = "#[cfg(test)]\n";
    let Some(at) = text.find(MARK) else {
        return text.to_owned();
    };
    let item = item_at(text, at + MARK.len());
    let rest = &text[at + MARK.len() + item.len()..];
    format!("{}{}", &text[..at], without_tests(rest))
}

/// Every file below a folder of the repository.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that is compiled into the operator.
pub fn sources() -> Vec<Source> {
    let root = repository().join("src");
    let is_for_tests = |name: &str| ["tests.rs", "tests", "fixtures.rs"].contains(&name);
    let is_compiled = |path: &&PathBuf| {
        let mut names = path.strip_prefix(&root).unwrap().iter();
        !names.any(|name| is_for_tests(name.to_str().unwrap()))
    };
    let files = files(&root);
    let sources: Vec<Source> = files
        .iter()
        .filter(is_compiled)
        .map(|path| Source::new(&root, path))
        .collect();
    assert!(sources.len() > 40, "src is not at {}", root.display());
    sources
}
