//! The rules that keep the source what `src/lib.rs` says it is: what decides is pure, dependencies point one way, nothing
//! writes without proof of leadership.
//!
//! They read the text of the sources without comments and without what only tests compile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Everything that decides: files, and rooms with all that is in them.
const PURE: [&str; 20] = [
    "api",
    "chain/abi.rs",
    "chain/scan.rs",
    "chain/transaction.rs",
    "leader/elector/lease_object.rs",
    "leader/lease.rs",
    "leader/record.rs",
    "ledger/evidence.rs",
    "ledger/freeze.rs",
    "ledger/index.rs",
    "ledger/money.rs",
    "ledger/protocol",
    "reconcile/offer/plan.rs",
    "reconcile/registry/adoption.rs",
    "reconcile/registry/enrol.rs",
    "reconcile/registry/plan.rs",
    "reconcile/registry/status.rs",
    "reconcile/registry/trouble.rs",
    "reconcile/relic.rs",
    "registration",
];

/// What no pure module may know: a client, a clock, a task, chance, or the process around it.
const IMPURE: [&str; 20] = [
    "Api",
    "Client",
    "Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "alloy::providers",
    "async fn",
    "async move",
    "await",
    "kube::runtime",
    "rand",
    "reqwest",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tokio",
    "tracing",
];

/// Files that hold a client of the API server; of those, the ones that write.
const API_CLIENTS: [&str; 6] = [
    "cluster/cache.rs",
    "cluster/read.rs",
    "cluster/write.rs",
    "leader/elector/mod.rs",
    "leader/elector/pods.rs",
    "leader/elector/read.rs",
];
const API_WRITERS: [&str; 3] = [
    "cluster/write.rs",
    "leader/elector/mod.rs",
    "leader/elector/pods.rs",
];

/// Methods of `kube::Api` that change something.
const API_WRITES: [&str; 9] = [
    ".create(",
    ".delete(",
    ".delete_collection(",
    ".evict(",
    ".patch(",
    ".patch_metadata(",
    ".patch_status(",
    ".replace(",
    ".replace_status(",
];

/// One file of `src`, as it is compiled into the operator.
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn new(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        let lines: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
        let path = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        Self {
            path,
            code: without_tests(&lines.join("\n")),
        }
    }

    /// Top-level module that the file belongs to.
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    fn is_in(&self, place: &str) -> bool {
        self.path == place || self.path.starts_with(&format!("{place}/"))
    }

    /// Rooms whose paths the code names.
    fn uses(&self) -> impl Iterator<Item = &str> {
        self.code
            .split("crate::")
            .skip(1)
            .map(|rest| rest.split(|letter| !is_word(letter)).next().unwrap())
    }

    /// Whether the code names a path or a word, and not merely one that contains it.
    fn names(&self, word: &str) -> bool {
        let bounded = |at: usize| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        };
        self.code.match_indices(word).any(|(at, _)| bounded(at))
    }

    /// Every function with its signature and its body.
    fn functions(&self) -> impl Iterator<Item = (&str, &str)> {
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

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The item whose first line holds a place. Formatted code closes an item where it opened it: at the same depth.
fn item_at(code: &str, at: usize) -> &str {
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
    format!(
        "{}{}",
        &text[..at],
        without_tests(&text[at + MARK.len() + item.len()..])
    )
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file that is compiled into the operator.
fn sources() -> Vec<Source> {
    let root = root();
    let is_for_tests = |name: &str| ["tests.rs", "tests", "fixtures.rs"].contains(&name);
    let is_compiled = |path: &PathBuf| {
        let mut names = path.strip_prefix(&root).unwrap().iter();
        !names.any(|name| is_for_tests(name.to_str().unwrap()))
    };
    let sources: Vec<Source> = files(&root)
        .into_iter()
        .filter(is_compiled)
        .map(|path| Source::new(&root, &path))
        .collect();
    assert!(
        sources.len() > 40,
        "the sources are not where they are looked for"
    );
    sources
}

fn source(path: &str) -> Source {
    Source::new(&root(), &root().join(path))
}

/// The order of dependencies as `src/lib.rs` states it.
fn order() -> Vec<String> {
    let text = fs::read_to_string(root().join("lib.rs"))
        .unwrap()
        .replace("\n//!", "");
    let (_, rest) = text
        .split_once("Dependencies point down the list ")
        .expect("the rule is stated");
    let sentence = rest.split('.').next().unwrap();
    sentence
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_decides_knows_no_client_no_clock_and_no_task() {
    let sources = sources();
    for place in PURE {
        let mut found = sources
            .iter()
            .filter(|source| source.is_in(place))
            .peekable();
        assert!(found.peek().is_some(), "{place} does not exist");
        for source in found {
            let impure: Vec<_> = IMPURE.iter().filter(|word| source.names(word)).collect();
            assert!(
                impure.is_empty(),
                "{} decides and yet names {impure:?}",
                source.path
            );
        }
    }
}

#[test]
fn what_calls_itself_pure_is_held_to_it() {
    for path in files(&root()) {
        let text = fs::read_to_string(&path).unwrap();
        let claims = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.ends_with("Pure."));
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let held = PURE.iter().any(|place| path.starts_with(place));
        assert!(
            !claims || held,
            "{path} calls itself pure and is not on the list"
        );
    }
}

#[test]
fn dependencies_point_down_the_list_in_lib_rs() {
    let order = order();
    let rank = |room: &str| order.iter().position(|known| known == room);
    for source in sources()
        .iter()
        .filter(|source| !["lib.rs", "main.rs"].contains(&&*source.path))
    {
        let own = rank(source.room())
            .unwrap_or_else(|| panic!("{} has no place in the order", source.path));
        for used in source.uses() {
            let other = rank(used)
                .unwrap_or_else(|| panic!("{} uses crate::{used}, which is no room", source.path));
            assert!(
                own <= other,
                "{} uses crate::{used}, which stands above it",
                source.path
            );
        }
        assert!(
            !source.code.contains("super::super::"),
            "{} leaves its room by the back door",
            source.path
        );
    }
}

#[test]
fn the_api_server_is_spoken_to_in_few_places_and_written_to_in_fewer() {
    for source in sources() {
        let path = &*source.path;
        // The variant of an error shares its name with the client.
        let speaks = source.code.match_indices("Api").count()
            > source.code.match_indices("Error::Api").count();
        assert_eq!(speaks, API_CLIENTS.contains(&path), "{path}");
        let writes = speaks && API_WRITES.iter().any(|write| source.code.contains(write));
        assert_eq!(writes, API_WRITERS.contains(&path), "{path}");
    }
}

#[test]
fn every_write_takes_proof_of_leadership() {
    let writer = source("cluster/write.rs");
    let writes: Vec<_> = writer
        .functions()
        .filter(|(signature, _)| !signature.starts_with("fn place("))
        .collect();
    let (constructors, writes): (Vec<_>, Vec<_>) = writes
        .into_iter()
        .partition(|(signature, _)| signature.starts_with("fn new("));
    assert!(
        constructors.len() == 1 && writes.len() >= 6,
        "the functions of cluster/write.rs are not found"
    );
    for (signature, body) in writes {
        assert!(
            signature.contains("leading: &Leading"),
            "cluster/write.rs: {signature}"
        );
        assert!(
            body.contains("leading.guard(Effect::Kubernetes"),
            "cluster/write.rs is not guarded: {signature}"
        );
    }
    let store = source("ledger/store.rs");
    let writes: Vec<_> = store
        .functions()
        .filter(|(_, body)| body.contains("self.writer"))
        .collect();
    assert!(
        writes.len() >= 4,
        "the writes of ledger/store.rs are not found"
    );
    for (signature, _) in writes {
        assert!(
            signature.contains("leading: &Leading"),
            "ledger/store.rs: {signature}"
        );
    }
}

#[test]
fn every_send_takes_proof_of_leadership() {
    let mut sends = 0;
    for source in sources() {
        for (signature, body) in source
            .functions()
            .filter(|(_, body)| body.contains("send_raw_transaction"))
        {
            assert_eq!(source.path, "chain/rpc.rs", "{signature}");
            assert!(signature.contains("leading: &Leading"), "{signature}");
            assert!(body.contains("leading.guard(Effect::Chain"), "{signature}");
            sends += 1;
        }
        for (signature, _) in source
            .functions()
            .filter(|(_, body)| body.contains("endpoint.send("))
        {
            assert_eq!(
                source.path, "ledger/sender/mod.rs",
                "nothing is sent unchecked: {signature}"
            );
            assert!(signature.contains("leading: &Leading"), "{signature}");
            sends += 1;
        }
    }
    assert_eq!(sends, 2, "the one that checks and the one that sends");
}

#[test]
fn a_private_key_is_held_in_one_file() {
    let holders: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.names("PrivateKeySigner") || source.names("SigningKey"))
        .map(|source| source.path)
        .collect();
    assert_eq!(holders, ["chain/transaction.rs"]);
}

#[test]
fn nothing_but_main_may_give_up() {
    for source in sources().iter().filter(|source| source.path != "main.rs") {
        for word in [
            ".unwrap()",
            ".expect(",
            "panic!(",
            "todo!(",
            "clippy::unwrap_used",
            "clippy::expect_used",
        ] {
            assert!(!source.code.contains(word), "{} holds {word}", source.path);
        }
    }
}
