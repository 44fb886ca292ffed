//! The rules that `src/lib.rs` states: code that decides is pure, dependencies point one way, and
//! nothing writes without proof of leadership.
//!
//! The tests read the sources as text, without comments and without code that only tests compile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod sources;

use std::fs;

use sources::{Source, files, is_word, repository, sources};

/// Code that decides: files, and folders with all files in them.
const PURE: [&str; 53] = [
    "api",
    "chain/abi.rs",
    "chain/decode.rs",
    "chain/envelope.rs",
    "chain/error.rs",
    "chain/health.rs",
    "chain/key.rs",
    "chain/refusal.rs",
    "chain/scan.rs",
    "chain/transaction.rs",
    "gate/answer.rs",
    "gate/breaker.rs",
    "gate/check.rs",
    "gate/headers.rs",
    "gate/health.rs",
    "gate/limit.rs",
    "gate/page.rs",
    "gate/path.rs",
    "gate/payment.rs",
    "gate/route.rs",
    "gate/table.rs",
    "gate/table/former.rs",
    "gate/terms.rs",
    "gate/wire.rs",
    "leader/candidate",
    "leader/elector/lease_object.rs",
    "leader/lease.rs",
    "leader/time.rs",
    "ledger/evidence.rs",
    "ledger/filler.rs",
    "ledger/foreign.rs",
    "ledger/freeze.rs",
    "ledger/index.rs",
    "ledger/money.rs",
    "ledger/protocol",
    "ledger/registrants.rs",
    "ledger/rollback.rs",
    "ledger/sweep.rs",
    "ledger/unreadable.rs",
    "reconcile/facilitator/plan.rs",
    "reconcile/legacy.rs",
    "reconcile/offer/plan",
    "reconcile/registry/adoption.rs",
    "reconcile/registry/blocked.rs",
    "reconcile/registry/ledger/plan",
    "reconcile/registry/ledger/questions",
    "reconcile/registry/outcome.rs",
    "reconcile/registry/records/claims.rs",
    "reconcile/registry/records/mod.rs",
    "reconcile/registry/schedule.rs",
    "reconcile/registry/status",
    "reconcile/triggers/matter.rs",
    "registration",
];

/// What pure code must not use: clients, clocks, tasks, randomness, and the process it runs in.
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

/// Files that use a Kubernetes API client, and those of them that write.
const API_CLIENTS: [&str; 8] = [
    "cluster/cache/watch.rs",
    "cluster/endpoints.rs",
    "cluster/read.rs",
    "cluster/write.rs",
    "leader/elector/mod.rs",
    "leader/elector/pods.rs",
    "leader/elector/read.rs",
    "leader/elector/write.rs",
];
const API_WRITERS: [&str; 3] = [
    "cluster/write.rs",
    "leader/elector/pods.rs",
    "leader/elector/write.rs",
];

/// Methods of `kube::Api` that write.
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

/// Whether a file is `place`, or in the folder of that name.
fn is_in(source: &Source, place: &str) -> bool {
    source.path == place || source.path.starts_with(&format!("{place}/"))
}

/// How many modules a file is below the root of the crate: 1 for a room itself.
fn depth(source: &Source) -> usize {
    let path = source.path.trim_end_matches(".rs");
    path.trim_end_matches("/mod").split('/').count()
}

/// Rooms that the code names in paths.
fn rooms_used_by(source: &Source) -> impl Iterator<Item = &str> {
    let paths = source.code.split("crate::").skip(1);
    paths.map(|rest| rest.split(|letter| !is_word(letter)).next().unwrap())
}

/// Whether code contains a chain of calls, however it is broken into lines.
fn calls(code: &str, chain: &str) -> bool {
    let code: String = code.split_whitespace().collect();
    code.contains(chain)
}

fn source(path: &str) -> Source {
    let found = sources().into_iter().find(|source| source.path == path);
    found.unwrap_or_else(|| panic!("src/{path} does not exist"))
}

/// The order of dependencies that `src/lib.rs` states.
fn order() -> Vec<String> {
    let text = fs::read_to_string(repository().join("src/lib.rs"))
        .unwrap()
        .replace("\n//!", "");
    let (_, rest) = text
        .split_once("Dependencies point down the list ")
        .expect("src/lib.rs states the order of dependencies");
    let sentence = rest.split('.').next().unwrap();
    sentence
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn pure_code_uses_no_client_clock_or_task() {
    let sources = sources();
    for place in PURE {
        let mut found = sources
            .iter()
            .filter(|source| is_in(source, place))
            .peekable();
        assert!(found.peek().is_some(), "{place} does not exist");
        for source in found {
            let impure: Vec<_> = IMPURE.iter().filter(|word| source.names(word)).collect();
            assert!(
                impure.is_empty(),
                "{} must be pure, but uses {impure:?}",
                source.path
            );
        }
    }
}

#[test]
fn code_that_claims_to_be_pure_is_checked() {
    let root = repository().join("src");
    for path in files(&root) {
        let text = fs::read_to_string(&path).unwrap();
        let claims = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.ends_with("Pure."));
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let checked = PURE.iter().any(|place| path.starts_with(place));
        assert!(
            !claims || checked,
            "{path} claims to be pure and is not in PURE"
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
            .unwrap_or_else(|| panic!("src/lib.rs does not order the room of {}", source.path));
        for used in rooms_used_by(source) {
            let other = rank(used).unwrap_or_else(|| {
                panic!("{} uses crate::{used}, which is not a room", source.path)
            });
            assert!(
                own <= other,
                "{} uses crate::{used}, which is above it in the order",
                source.path
            );
        }
        let leaves = "super::".repeat(depth(source));
        assert!(
            !source.code.contains(&leaves),
            "{} leaves its room by {leaves}; use crate:: instead",
            source.path
        );
    }
}

#[test]
fn kubernetes_api_is_used_and_written_to_only_in_listed_files() {
    for source in sources() {
        let path = &*source.path;
        // `kube::Error::Api` has the same name as the client.
        let uses = source.code.match_indices("Api").count()
            > source.code.match_indices("Error::Api").count();
        assert_eq!(uses, API_CLIENTS.contains(&path), "{path}");
        let writes = uses && API_WRITES.iter().any(|write| source.code.contains(write));
        assert_eq!(writes, API_WRITERS.contains(&path), "{path}");
    }
}

#[test]
fn every_write_takes_proof_of_leadership() {
    let writer = source("cluster/write.rs");
    let writes: Vec<_> = writer
        .functions()
        .filter(|(signature, _)| !signature.starts_with("fn object_key("))
        .collect();
    let (constructors, writes): (Vec<_>, Vec<_>) = writes
        .into_iter()
        .partition(|(signature, _)| signature.starts_with("fn new("));
    assert!(
        constructors.len() == 1 && writes.len() >= 6,
        "found too few functions in cluster/write.rs"
    );
    for (signature, body) in writes {
        assert!(
            signature.contains("leading: &Leading"),
            "cluster/write.rs: {signature}"
        );
        assert!(
            calls(body, "leading.guard(Effect::Kubernetes"),
            "cluster/write.rs: this write does not call the guard: {signature}"
        );
    }
    let store = source("ledger/store.rs");
    let writes: Vec<_> = store
        .functions()
        .filter(|(_, body)| calls(body, "self.writer"))
        .collect();
    assert!(writes.len() >= 4, "found too few writes in ledger/store.rs");
    for (signature, _) in writes {
        assert!(
            signature.contains("leading: &Leading"),
            "ledger/store.rs: {signature}"
        );
    }
}

#[test]
fn only_a_quarantine_needs_no_leadership() {
    let name_it = |word: &str| -> Vec<String> {
        let sources = sources().into_iter();
        let found = sources.filter(|source| source.names(word));
        found.map(|source| source.path).collect()
    };
    assert_eq!(
        name_it("StopsOnly"),
        [
            "cluster/quarantine.rs",
            "leader/fence/layer.rs",
            "leader/fence/mod.rs"
        ]
    );
    let writer = source("cluster/quarantine.rs");
    let writes: Vec<_> = writer
        .functions()
        .filter(|(signature, _)| !signature.starts_with("fn new("))
        .collect();
    assert_eq!(writes.len(), 1, "cluster/quarantine.rs writes once");
    assert!(calls(writes[0].1, "state:LedgerState::Quarantine,"));
    let store = source("ledger/store.rs");
    let uses: Vec<_> = store
        .functions()
        .filter(|(_, body)| calls(body, "self.quarantine_writer"))
        .map(|(signature, _)| signature)
        .collect();
    assert_eq!(uses.len(), 1, "{uses:?}");
    assert!(uses[0].contains("suspicion: &Suspicion"), "{uses:?}");
}

#[test]
fn every_send_takes_proof_of_leadership() {
    let mut sends = 0;
    for source in sources() {
        for (signature, body) in source
            .functions()
            .filter(|(_, body)| body.contains("RpcMethod::Send"))
        {
            assert_eq!(source.path, "chain/rpc.rs", "{signature}");
            assert!(signature.contains("leading: &Leading"), "{signature}");
            assert!(calls(body, "leading.guard(Effect::Chain"), "{signature}");
            sends += 1;
        }
        for (signature, _) in source
            .functions()
            .filter(|(_, body)| calls(body, "endpoint.send("))
        {
            assert_eq!(
                source.path, "ledger/sender/mod.rs",
                "only the sender may send: {signature}"
            );
            assert!(signature.contains("leading: &Leading"), "{signature}");
            sends += 1;
        }
    }
    assert_eq!(
        sends, 2,
        "expected one function that checks and one that sends"
    );
}

#[test]
fn chain_and_facilitators_are_reached_through_one_file_each() {
    let files_with = |word: &str| -> Vec<String> {
        let sources = sources().into_iter();
        let found = sources.filter(|source| source.code.contains(word));
        found.map(|source| source.path).collect()
    };
    // The entry point has a client for its own health endpoint.
    assert_eq!(
        files_with("reqwest"),
        [
            "chain/transport.rs",
            "gate/facilitator.rs",
            "gate/report.rs",
            "main.rs"
        ]
    );
    // A method has one name, so that every send is found by it.
    assert_eq!(files_with("eth_sendRawTransaction"), ["metrics/chain.rs"]);
}

#[test]
fn private_keys_are_used_in_one_file_only() {
    let holders: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.names("PrivateKeySigner") || source.names("SigningKey"))
        .map(|source| source.path)
        .collect();
    assert_eq!(holders, ["chain/transaction.rs"]);
}

#[test]
fn only_main_may_panic() {
    for source in sources().iter().filter(|source| source.path != "main.rs") {
        for word in [
            ".unwrap()",
            ".expect(",
            "panic!(",
            "todo!(",
            "unreachable!(",
            "clippy::unwrap_used",
            "clippy::expect_used",
        ] {
            assert!(
                !source.code.contains(word),
                "{} contains {word}",
                source.path
            );
        }
    }
}
