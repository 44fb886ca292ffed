//! Turns an audit log and recorded transactions into the values to judge.
//!
//! It knows how a request carries its precondition, and which requests belong to the election and
//! are not a leader's work. Pure: [`super::recorder`] records transactions, `testbed` reads the
//! log.

use std::collections::BTreeMap;

use alloy::primitives::{Bytes, TxHash, keccak256};
use jiff::Timestamp;
use serde_json::Value;
use testbed::AuditEntry;

use super::recorder::SentTransaction;
use super::verdict::{CandidateEffect, LeaseChange, Precondition};

/// Verbs of writes.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
/// Resources that the election itself writes besides its Lease. None of this is a leader's work.
const OWN: [(&str, &str); 3] = [("", "pods"), ("", "events"), ("events.k8s.io", "events")];

/// The Lease changes and effects of all candidates so far.
#[derive(Clone, Debug)]
pub struct AuditHistory {
    /// Prefix of every candidate's user name.
    candidates: String,
    lease: String,
    /// Writes of candidates that changed the Lease.
    pub changes: Vec<LeaseChange>,
    /// Side effects of candidates.
    pub effects: Vec<CandidateEffect>,
    /// When each transaction was first stored in a record, by hash.
    stored: BTreeMap<TxHash, Timestamp>,
    /// When an unanswered write that contains the transaction arrived. It may have been committed.
    doubtful: BTreeMap<TxHash, Timestamp>,
}

impl AuditHistory {
    /// The history of the candidates of a Lease whose user names have this prefix.
    #[must_use]
    pub fn of(candidates: &str, lease: &str) -> Self {
        let (changes, effects, stored, doubtful) = Default::default();
        Self {
            candidates: candidates.to_owned(),
            lease: lease.to_owned(),
            changes,
            effects,
            stored,
            doubtful,
        }
    }

    /// Adds entries of an audit log.
    pub fn read(&mut self, entries: &[AuditEntry]) {
        let writes = entries
            .iter()
            .filter(|entry| WRITES.contains(&entry.verb.as_str()));
        let own = writes.filter(|entry| {
            entry.user.starts_with(&self.candidates) && entry.stage != "ResponseStarted"
        });
        for entry in own.collect::<Vec<_>>() {
            let done = (200..300).contains(&entry.code);
            if entry.resource == "leases" {
                if done && entry.response_object["metadata"]["name"] == self.lease.as_str() {
                    let holder = entry.response_object["spec"]["holderIdentity"]
                        .as_str()
                        .unwrap_or_default();
                    let holds = !holder.is_empty();
                    self.changes.push(LeaseChange {
                        at: entry.received,
                        writer: entry.user.clone(),
                        holds,
                    });
                }
                continue;
            }
            if OWN.contains(&(entry.group.as_str(), entry.resource.as_str())) {
                continue;
            }
            if done {
                // If an unanswered write contained it before, that write stored it.
                for hash in signed(&entry.response_object).into_iter().map(keccak256) {
                    let since = self.doubtful.get(&hash).copied().unwrap_or(entry.time);
                    self.stored.entry(hash).or_insert(since);
                }
            } else if !(400..500).contains(&entry.code) {
                for hash in signed(&entry.request_object).into_iter().map(keccak256) {
                    self.doubtful.entry(hash).or_insert(entry.received);
                }
            }
            self.effects.push(CandidateEffect {
                at: entry.received,
                writer: entry.user.clone(),
                object: object(entry),
                precondition: precondition(entry),
                done,
            });
        }
    }

    /// The last Lease change, if it holds the Lease: the current leader.
    #[must_use]
    pub fn leader(&self) -> Option<&LeaseChange> {
        self.changes
            .iter()
            .max_by_key(|change| change.at)
            .filter(|change| change.holds)
    }

    /// Whether the last two writes to the Lease are by its holder: the second one is conditional on
    /// the answer to the first.
    #[must_use]
    pub fn leader_has_renewed(&self) -> bool {
        let mut changes: Vec<&LeaseChange> = self.changes.iter().collect();
        changes.sort_by_key(|change| change.at);
        match changes.as_slice() {
            [.., acquired, renewed] => {
                acquired.holds && renewed.holds && acquired.writer == renewed.writer
            }
            _ => false,
        }
    }

    /// All effects, including recorded transactions.
    #[must_use]
    pub fn effects_with(&self, transactions: &[SentTransaction]) -> Vec<CandidateEffect> {
        let effect = |SentTransaction { at, writer, raw }: &SentTransaction| {
            let hash = keccak256(raw);
            let stored = self.stored.get(&hash).is_some_and(|stored| stored <= at);
            CandidateEffect {
                at: *at,
                writer: writer.clone(),
                object: format!("transaction {hash}"),
                precondition: if stored {
                    Precondition::StoredBytes
                } else {
                    Precondition::None
                },
                done: true,
            }
        };
        self.effects
            .iter()
            .cloned()
            .chain(transactions.iter().map(effect))
            .collect()
    }
}

fn object(entry: &AuditEntry) -> String {
    let AuditEntry {
        verb,
        resource,
        subresource,
        namespace,
        name,
        ..
    } = entry;
    let name = if name.is_empty() {
        entry.request_object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
    } else {
        name
    };
    let path = [resource, subresource, namespace, name]
        .into_iter()
        .filter(|part| !part.is_empty());
    format!(
        "{verb} {} ({})",
        path.collect::<Vec<_>>().join("/"),
        entry.code
    )
}

fn precondition(entry: &AuditEntry) -> Precondition {
    let version = entry.request_object["metadata"]["resourceVersion"]
        .as_str()
        .or(entry.request_object["preconditions"]["resourceVersion"].as_str());
    match (entry.verb.as_str(), version) {
        ("create", _) => Precondition::Name,
        ("update" | "patch" | "delete", Some(version)) if !version.is_empty() => {
            Precondition::Version
        }
        _ => Precondition::None,
    }
}

/// Every signed transaction anywhere in an object.
fn signed(object: &Value) -> Vec<Bytes> {
    match object {
        Value::Array(items) => items.iter().flat_map(signed).collect(),
        Value::Object(fields) => {
            let own = fields
                .get("raw")
                .and_then(Value::as_str)
                .and_then(|raw| raw.parse().ok());
            own.into_iter()
                .chain(fields.values().flat_map(signed))
                .collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::verdict::{Allowance, Breach, judge};
    use super::*;

    fn entry(
        at: i64,
        user: &str,
        verb: &str,
        resource: &str,
        request_object: Value,
        response_object: Value,
    ) -> AuditEntry {
        let received = Timestamp::from_second(at).unwrap();
        AuditEntry {
            user: format!("test:{user}"),
            pod: String::new(),
            user_agent: String::new(),
            verb: verb.into(),
            group: "obol.org".into(),
            resource: resource.into(),
            subresource: String::new(),
            namespace: String::new(),
            name: "one".into(),
            uri: String::new(),
            stage: "ResponseComplete".into(),
            code: 200,
            received,
            time: received,
            request_object,
            response_object,
        }
    }

    fn lease(at: i64, user: &str, holder: &str) -> AuditEntry {
        let response_object =
            json!({ "metadata": { "name": "lease" }, "spec": { "holderIdentity": holder } });
        entry(at, user, "update", "leases", Value::Null, response_object)
    }

    fn history(entries: &[AuditEntry]) -> AuditHistory {
        let mut history = AuditHistory::of("test:", "lease");
        history.read(entries);
        history
    }

    fn preconditions(entries: &[AuditEntry]) -> Vec<Precondition> {
        history(entries)
            .effects
            .iter()
            .map(|effect| effect.precondition)
            .collect()
    }

    #[test]
    fn writing_a_holder_holds_the_lease_and_erasing_it_releases() {
        let other = json!({ "metadata": { "name": "other" }, "spec": { "holderIdentity": "a" } });
        let refused = AuditEntry {
            code: 409,
            ..lease(2, "b", "b")
        };
        let entries = [
            lease(1, "a", "same-name"),
            refused,
            entry(3, "b", "update", "leases", Value::Null, other),
            lease(4, "a", ""),
            lease(5, "b", "same-name"),
            AuditEntry {
                user: "somebody".into(),
                ..lease(6, "b", "c")
            },
        ];
        let history = history(&entries);
        let found: Vec<_> = history
            .changes
            .iter()
            .map(|change| (change.writer.as_str(), change.holds))
            .collect();
        assert_eq!(
            found,
            [("test:a", true), ("test:a", false), ("test:b", true)]
        );
        assert_eq!(history.leader(), history.changes.last());
    }

    #[test]
    fn leader_has_renewed_after_its_second_write() {
        let renewed = |entries: &[AuditEntry]| history(entries).leader_has_renewed();
        let acquired = [lease(1, "b", "b"), lease(2, "a", "a")];
        assert!(!renewed(&acquired[1..]));
        assert!(
            !renewed(&acquired),
            "the write before is another candidate's"
        );
        let [earlier, acquired] = acquired;
        assert!(renewed(&[earlier, acquired.clone(), lease(3, "a", "a")]));
        assert!(
            !renewed(&[acquired, lease(3, "a", "")]),
            "it released the Lease"
        );
    }

    #[test]
    fn precondition_is_read_from_the_request() {
        let version = json!({ "metadata": { "resourceVersion": "7" } });
        let none = json!({ "metadata": { "uid": "u" } });
        let empty = json!({ "metadata": { "resourceVersion": "" } });
        let entries = [
            entry(
                1,
                "a",
                "create",
                "agentregistrations",
                none.clone(),
                Value::Null,
            ),
            entry(
                2,
                "a",
                "update",
                "signerledgers",
                version.clone(),
                Value::Null,
            ),
            entry(3, "a", "patch", "serviceoffers", version, Value::Null),
            entry(4, "a", "patch", "serviceoffers", none, Value::Null),
            entry(5, "a", "update", "signerledgers", empty, Value::Null),
            entry(
                6,
                "a",
                "deletecollection",
                "serviceoffers",
                Value::Null,
                Value::Null,
            ),
        ];
        use Precondition::{Name, None, Version};
        assert_eq!(
            preconditions(&entries),
            [Name, Version, Version, None, None, None]
        );
    }

    #[test]
    fn reads_other_users_and_election_writes_are_no_effects() {
        let event = AuditEntry {
            group: "events.k8s.io".into(),
            ..entry(1, "a", "create", "events", Value::Null, Value::Null)
        };
        let mark = AuditEntry {
            group: String::new(),
            ..entry(2, "a", "patch", "pods", Value::Null, Value::Null)
        };
        let entries = [
            event,
            mark,
            entry(3, "a", "get", "serviceoffers", Value::Null, Value::Null),
            AuditEntry {
                user: "admin".into(),
                ..entry(4, "", "patch", "serviceoffers", Value::Null, Value::Null)
            },
        ];
        assert_eq!(preconditions(&entries), []);
    }

    #[test]
    fn late_transaction_is_safe_only_if_stored_before() {
        let record = json!({ "spec": { "attempts": [{ "nonce": 0, "raw": "0x0102" }] } });
        let entries = [
            lease(1, "a", "a"),
            entry(3, "a", "update", "agentregistrations", Value::Null, record),
            lease(5, "b", "b"),
        ];
        let sending = |at, raw: &'static [u8]| SentTransaction {
            at: Timestamp::from_second(at).unwrap(),
            writer: "test:a".into(),
            raw: Bytes::from_static(raw),
        };
        let breaches = |transactions: &[SentTransaction]| {
            let history = history(&entries);
            judge(
                history.changes.clone(),
                history.effects_with(transactions),
                Allowance::OneEach,
            )
            .overlaps
            .iter()
            .map(|overlap| overlap.breach)
            .collect::<Vec<_>>()
        };
        assert_eq!(breaches(&[sending(6, &[1, 2])]), []);
        assert_eq!(breaches(&[sending(6, &[1, 3])]), [Breach::Unconditional]);
        let early = history(&entries).effects_with(&[sending(2, &[1, 2])]);
        assert_eq!(
            early.last().unwrap().precondition,
            Precondition::None,
            "it was stored only later"
        );
    }

    #[test]
    fn unanswered_write_counts_as_stored_once_it_is_read_back() {
        let record = |raw: &str| json!({ "spec": { "attempts": [{ "nonce": 0, "raw": raw }] } });
        let write = |at, code, raw, response_object| {
            let entry = entry(
                at,
                "a",
                "update",
                "agentregistrations",
                record(raw),
                response_object,
            );
            AuditEntry { code, ..entry }
        };
        let sent = |entries: &[AuditEntry]| {
            let sending = SentTransaction {
                at: Timestamp::from_second(4).unwrap(),
                writer: "test:b".into(),
                raw: Bytes::from_static(&[1, 2]),
            };
            history(entries)
                .effects_with(&[sending])
                .last()
                .unwrap()
                .precondition
        };
        let timeout = write(3, 504, "0x0102", Value::Null);
        let conflict = write(3, 409, "0x0102", Value::Null);
        let shown = write(5, 200, "0x0102", record("0x0102"));
        let other = write(5, 200, "0x0103", record("0x0103"));
        assert_eq!(
            sent(&[timeout.clone(), shown.clone()]),
            Precondition::StoredBytes
        );
        assert_eq!(
            sent(&[timeout.clone(), other]),
            Precondition::None,
            "it was never stored"
        );
        assert_eq!(sent(&[timeout]), Precondition::None);
        assert_eq!(
            sent(&[conflict, shown]),
            Precondition::None,
            "it was refused first and stored only later"
        );
    }
}
