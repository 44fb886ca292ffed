//! The rules of `docs/glossary.md` that a machine can check: one name for one thing, reasons that
//! are documented, and plain English.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use sources::{Source, contains_word, files, is_word, repository, sources};

/// Type names that more than one room may define.
const SHARED_NAMES: [&str; 1] = ["Error"];

/// Where prose is checked.
const PROSE: [&str; 5] = ["README.md", "charts", "crdgen", "docs", "src"];

/// Words of translated prose, each with a better one.
const TRANSLATED: [(&str, &str); 38] = [
    ("all the same", "still"),
    ("anew", "again, or recreate, restart"),
    ("anybody", "anyone, any client"),
    ("as it stands", "as it is"),
    ("carry on", "continue"),
    ("coin", "native token"),
    ("coins", "native tokens"),
    ("come to rest", "drain, finish"),
    ("comes to rest", "drains, finishes"),
    ("coming to rest", "draining"),
    ("dear", "expensive"),
    ("enrol", "plan records, create a record"),
    ("enrolled", "has a record"),
    ("enrols", "creates a record"),
    ("everybody", "every client, everyone"),
    ("for ever", "indefinitely"),
    ("goes on", "continues"),
    ("gone round", "looped"),
    ("it stands", "it is"),
    ("meanwhile", "concurrently, in the meantime"),
    ("mended", "fixed"),
    ("nobody", "no one, no replica, no client"),
    ("purse", "budget"),
    ("quarrel", "conflict"),
    ("relic", "legacy"),
    ("relics", "legacy"),
    ("somebody", "another client, someone"),
    ("standing", "eligibility, recorded"),
    ("standstill", "stall"),
    ("stood still", "stalled"),
    ("tale", "report, event"),
    ("tales", "reports, events"),
    ("the world", "say which"),
    ("to be had", "available"),
    ("told", "notified, reported"),
    ("under way", "in flight, running"),
    ("weightiest", "most urgent"),
    ("whoever", "the leader, the caller, the client"),
];

/// Names of the types that a file defines, those of the `label!` macro included.
fn defined_types(source: &Source) -> BTreeSet<&str> {
    let mut types = BTreeSet::new();
    let mut after_label = false;
    for line in source.code.lines() {
        let mut words = line
            .split(|letter| !is_word(letter))
            .filter(|word| !word.is_empty());
        if after_label {
            types.extend(words.next());
        } else {
            let is_visibility = |word: &&str| ["pub", "crate", "super", "in"].contains(word);
            let mut item = words.skip_while(is_visibility);
            if matches!(item.next(), Some("struct" | "enum" | "trait" | "union")) {
                types.extend(
                    item.next()
                        .filter(|name| name.starts_with(char::is_uppercase)),
                );
            }
        }
        after_label = line == "label!(";
    }
    types
}

/// Every line of prose that is checked, with its file and number.
fn prose() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for place in PROSE {
        let path = repository().join(place);
        let paths = if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        };
        for path in paths {
            let name = path.strip_prefix(repository()).unwrap();
            let name = name.to_str().unwrap();
            // Pictures and archives have no prose.
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            for (number, line) in text.lines().enumerate() {
                let at = format!("{name}:{}", number + 1);
                lines.push((at, line.to_owned()));
            }
        }
    }
    lines
}

#[test]
fn no_type_name_is_defined_in_two_rooms() {
    let sources = sources();
    let mut rooms: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in &sources {
        for name in defined_types(source) {
            rooms.entry(name).or_default().insert(source.room());
        }
    }
    assert!(rooms.len() > 100, "found only {} types", rooms.len());
    rooms.retain(|name, rooms| rooms.len() > 1 && !SHARED_NAMES.contains(name));
    assert!(rooms.is_empty(), "defined in several rooms: {rooms:#?}");
}

// That `docs/operations.md` explains every reason is checked beside the README, in
// `tests/demo/src/readme.rs`.
#[test]
fn reasons_are_the_names_of_variants() {
    for source in sources() {
        for (signature, body) in source.functions() {
            if signature.starts_with("fn reason(") {
                assert!(
                    !body.contains('"'),
                    "{}: reason() spells out a text; derive it from the variant",
                    source.path
                );
            }
        }
        for line in source.code.lines().map(str::trim) {
            let path = &source.path;
            let renames = line.starts_with("#[strum(") && line != "#[strum(const_into_str)]";
            assert!(!renames, "{path}: {line} may rename variants");
        }
    }
}

#[test]
fn prose_has_no_translated_words() {
    let mut found = Vec::new();
    for (at, line) in prose() {
        // The name of a token.
        let line = line.to_lowercase().replace("usd coin", "usdc");
        for (word, better) in TRANSLATED {
            if contains_word(&line, word) {
                found.push(format!("{at}: {word:?}; say: {better}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Whether a name exists: `file.rs`, `room/file.rs:function`, `room/folder`, `room::Type`,
/// `Type::item`, `item()` or `Type`.
fn exists(name: &str, sources: &[Source]) -> bool {
    let root = repository();
    if let Some((file, item)) = name.split_once(".rs:") {
        let path = root.join("src").join(format!("{file}.rs"));
        let text = fs::read_to_string(path).unwrap_or_default();
        return text.contains(&format!("fn {item}(")) || text.contains(&format!("fn {item}<"));
    }
    if name.contains('/') || name.ends_with(".rs") {
        let folders = ["", "src", "tests"].map(|folder| root.join(folder));
        return folders.iter().any(|folder| folder.join(name).exists());
    }
    let name = name.trim_end_matches("()");
    let is_root = |part: &&str| ["crate", "serviceoffer"].contains(part);
    let mut parts = name.split("::").skip_while(is_root);
    // Every part is a folder or file of the same source, or a word in its code.
    let is_part = |source: &Source, part: &str| {
        let mut path = source.path.trim_end_matches(".rs").split('/');
        path.any(|own| own == part) || source.names(part)
    };
    let parts: Vec<&str> = parts.by_ref().collect();
    let holds_all = |source: &Source| parts.iter().all(|part| is_part(source, part));
    sources.iter().any(holds_all)
}

/// Whether a text in backticks names something in the sources, and is not a command, a value or a
/// field.
fn is_source_name(text: &str) -> bool {
    let is_path = |letter: char| is_word(letter) || "/.:-".contains(letter);
    if !text.trim_end_matches("()").chars().all(is_path) {
        return false;
    }
    let first = text.split(['/', ':', '.']).next().unwrap_or_default();
    let is_room = ["", ".rs"].iter().any(|end| {
        let path = repository().join("src").join(format!("{first}{end}"));
        !first.is_empty() && path.exists()
    });
    let is_type = text.starts_with(char::is_uppercase) && text.chars().all(is_word);
    text.contains("::")
        || text.contains(".rs")
        || text.ends_with("()")
        || is_type
        || text.contains('/') && is_room
}

#[test]
fn names_in_architecture_exist() {
    let page = fs::read_to_string(repository().join("docs/architecture.md")).unwrap();
    let sources = sources();
    let (mut checked, mut missing) = (0, Vec::new());
    let mut is_block = false;
    for (number, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            is_block = !is_block;
        }
        if is_block {
            continue;
        }
        for name in line.split('`').skip(1).step_by(2) {
            if is_source_name(name) {
                checked += 1;
                if !exists(name, &sources) {
                    missing.push(format!("docs/architecture.md:{}: `{name}`", number + 1));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in src:\n{}", missing.join("\n"));
    assert!(checked > 20, "found only {checked} names");
}
