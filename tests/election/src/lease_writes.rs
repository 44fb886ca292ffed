//! Who wrote a Lease, and when, according to the API server's audit log.
//!
//! Whether a write renewed, took over or released the Lease follows from who wrote before and
//! after. A write whose process was killed before the answer may have been committed: the version
//! that the next write replaced shows it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;
use testbed::{Audit, AuditEntry};

/// A committed write. It was committed between `received` and `answered`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWrite {
    /// User that sent it.
    pub user: String,
    /// When the request arrived.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
}

/// A write in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    write: LeaseWrite,
    /// Version that it replaces; empty for a create.
    found: String,
    /// Version that it created, if known.
    made: Option<String>,
}

/// The writes to all Leases of a namespace, oldest first.
#[derive(Debug)]
pub struct LeaseWrites {
    audit: Audit,
    namespace: String,
    entries: BTreeMap<String, Vec<Entry>>,
    by_lease: BTreeMap<String, Vec<LeaseWrite>>,
}

impl LeaseWrites {
    /// Writes from now on.
    ///
    /// # Errors
    /// If there is no audit log.
    pub fn from_now(namespace: &crate::ElectionNamespace) -> Result<Self> {
        let audit = namespace.cluster().audit()?;
        let (entries, by_lease) = Default::default();
        Ok(Self {
            audit,
            namespace: namespace.name().to_owned(),
            entries,
            by_lease,
        })
    }

    /// Reads the log since the last call.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn read(&mut self) -> Result<()> {
        for entry in self
            .audit
            .read()?
            .into_iter()
            .filter(|entry| entry.namespace == self.namespace)
        {
            if let Some(write) = write_of(&entry) {
                self.entries.entry(entry.name).or_default().push(write);
            }
        }
        for (lease, entries) in &mut self.entries {
            entries.sort_by_key(|entry| entry.write.received);
            self.by_lease.insert(lease.clone(), carried_out(entries));
        }
        Ok(())
    }

    /// The writes to a Lease.
    pub fn of(&self, lease: &str) -> &[LeaseWrite] {
        self.by_lease.get(lease).map_or(&[], Vec::as_slice)
    }

    /// The first write of a user to a Lease.
    pub fn first(&self, lease: &str, user: &str) -> Option<&LeaseWrite> {
        self.of(lease).iter().find(|write| write.user == user)
    }

    /// The last write of a user to a Lease that arrived before a moment.
    pub fn last_before(&self, lease: &str, user: &str, moment: Timestamp) -> Option<&LeaseWrite> {
        self.of(lease)
            .iter()
            .rev()
            .find(|write| write.user == user && write.received <= moment)
    }
}

/// Parses a write that was not refused.
fn write_of(entry: &AuditEntry) -> Option<Entry> {
    let writes = matches!(entry.verb.as_str(), "create" | "update" | "patch");
    let lease = entry.resource == "leases" && entry.subresource.is_empty();
    let refused = (300..500).contains(&entry.code);
    let done = entry.stage == "ResponseComplete" && (200..300).contains(&entry.code);
    let version = |object: &Value| {
        object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (lease && writes && !refused).then(|| Entry {
        write: LeaseWrite {
            user: entry.user.clone(),
            received: entry.received,
            answered: entry.time,
        },
        found: version(&entry.request_object),
        made: done.then(|| version(&entry.response_object)),
    })
}

/// Writes that created a version: the answer says so, or the next write replaced a version that no
/// other write created.
fn carried_out(entries: &[Entry]) -> Vec<LeaseWrite> {
    let made: BTreeSet<_> = entries
        .iter()
        .filter_map(|entry| entry.made.as_deref())
        .collect();
    let was_found = |later: &[Entry]| {
        let next = later.iter().find(|entry| entry.made.is_some());
        next.is_some_and(|next| !next.found.is_empty() && !made.contains(next.found.as_str()))
    };
    let done = entries
        .iter()
        .enumerate()
        .filter(|(at, entry)| entry.made.is_some() || was_found(&entries[at + 1..]));
    done.map(|(_, entry)| entry.write.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(verb: &str, resource: &str, code: u16) -> AuditEntry {
        AuditEntry {
            user: "a".to_owned(),
            pod: String::new(),
            user_agent: String::new(),
            verb: verb.to_owned(),
            group: "coordination.k8s.io".to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: "namespace".to_owned(),
            name: "lease".to_owned(),
            uri: String::new(),
            stage: "ResponseComplete".to_owned(),
            code,
            received: Timestamp::constant(1, 0),
            time: Timestamp::constant(2, 0),
            request_object: json!({ "metadata": { "resourceVersion": "7" } }),
            response_object: json!({ "metadata": { "resourceVersion": "8" } }),
        }
    }

    #[test]
    fn write_is_committed_and_to_a_lease() {
        let (received, answered) = (Timestamp::constant(1, 0), Timestamp::constant(2, 0));
        let write = LeaseWrite {
            user: "a".to_owned(),
            received,
            answered,
        };
        let done = |verb, resource, code| {
            carried_out(&Vec::from_iter(write_of(&entry(verb, resource, code))))
        };
        assert_eq!(done("update", "leases", 200), std::slice::from_ref(&write));
        assert_eq!(done("create", "leases", 201), [write]);
        assert_eq!(done("update", "leases", 409), []);
        assert_eq!(
            done("update", "leases", 504),
            [],
            "no later write proves it"
        );
        assert_eq!(done("get", "leases", 200), []);
        assert_eq!(done("patch", "events", 200), []);
    }

    #[test]
    fn unanswered_write_counts_if_the_next_replaced_its_version() {
        let write = |user: &str, found: &str, made: Option<&str>| Entry {
            write: LeaseWrite {
                user: user.into(),
                received: Timestamp::MIN,
                answered: Timestamp::MIN,
            },
            found: found.into(),
            made: made.map(str::to_owned),
        };
        let writers = |last: Entry| {
            let entries = [write("a", "1", Some("2")), write("b", "2", None), last];
            carried_out(&entries)
                .into_iter()
                .map(|write| write.user)
                .collect::<Vec<_>>()
        };
        assert_eq!(writers(write("c", "3", Some("4"))), ["a", "b", "c"]);
        assert_eq!(writers(write("c", "2", Some("3"))), ["a", "c"]);
        assert_eq!(
            writers(write("c", "", Some("3"))),
            ["a", "c"],
            "a recreated Lease proves nothing"
        );
        assert_eq!(writers(write("c", "3", None)), ["a"]);
    }
}
