//! Who wrote a Lease, and when, as the API server's audit log has it.
//!
//! The log tells no content: whether a write renewed, took over or released the Lease follows from who wrote before and after.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use testbed::{Audit, AuditEntry};

/// One write that the API server carried out. It was committed between the two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose request it was.
    pub user: String,
    /// When the request arrived.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
}

/// The writes to all Leases of a namespace, oldest first.
#[derive(Debug)]
pub struct Writes {
    audit: Audit,
    namespace: String,
    by_lease: BTreeMap<String, Vec<Write>>,
}

impl Writes {
    /// Those from this moment on.
    ///
    /// # Errors
    /// If there is no audit log.
    pub fn from_now(place: &crate::Place) -> Result<Self> {
        let audit = place.cluster().audit()?;
        Ok(Self { audit, namespace: place.namespace().to_owned(), by_lease: BTreeMap::new() })
    }

    /// Reads what has come since the last time.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn read(&mut self) -> Result<()> {
        for entry in self.audit.read()?.into_iter().filter(|entry| entry.namespace == self.namespace) {
            if let Some(write) = write_of(&entry) {
                self.by_lease.entry(lease_of(&entry)).or_default().push(write);
            }
        }
        for writes in self.by_lease.values_mut() {
            writes.sort_by_key(|write| write.received);
        }
        Ok(())
    }

    /// The writes to a Lease.
    pub fn of(&self, lease: &str) -> &[Write] {
        self.by_lease.get(lease).map_or(&[], Vec::as_slice)
    }

    /// The first write of a user to a Lease.
    pub fn first(&self, lease: &str, user: &str) -> Option<&Write> {
        self.of(lease).iter().find(|write| write.user == user)
    }

    /// The last write of a user to a Lease that arrived before a moment.
    pub fn last_before(&self, lease: &str, user: &str, moment: Timestamp) -> Option<&Write> {
        self.of(lease).iter().rev().find(|write| write.user == user && write.received <= moment)
    }
}

fn write_of(entry: &AuditEntry) -> Option<Write> {
    let writes = matches!(entry.verb.as_str(), "create" | "update" | "patch");
    let done = entry.stage == "ResponseComplete" && (200..300).contains(&entry.code);
    let lease = entry.resource == "leases" && entry.subresource.is_empty();
    (lease && writes && done).then(|| Write {
        user: entry.user.clone(),
        received: entry.received,
        answered: entry.time,
    })
}

/// A created object may be named only by what the server answered.
fn lease_of(entry: &AuditEntry) -> String {
    entry.name.clone()
}

#[cfg(test)]
mod tests {
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
            namespace: "place".to_owned(),
            name: "lease".to_owned(),
            uri: String::new(),
            stage: "ResponseComplete".to_owned(),
            code,
            received: Timestamp::constant(1, 0),
            time: Timestamp::constant(2, 0),
            sent: serde_json::Value::Null,
            answered: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_write_is_one_that_was_carried_out_on_a_lease() {
        let (received, answered) = (Timestamp::constant(1, 0), Timestamp::constant(2, 0));
        let write = Write { user: "a".to_owned(), received, answered };
        assert_eq!(write_of(&entry("update", "leases", 200)), Some(write.clone()));
        assert_eq!(write_of(&entry("create", "leases", 201)), Some(write));
        assert_eq!(write_of(&entry("update", "leases", 409)), None);
        assert_eq!(write_of(&entry("get", "leases", 200)), None);
        assert_eq!(write_of(&entry("patch", "events", 200)), None);
    }
}
