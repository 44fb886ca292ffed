//! API requests by user, from the audit log.
//!
//! The API server logs what every contender sends, whatever its client counts.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::bench::ProgressTrack;
use jiff::Timestamp;
use serde::Serialize;
use testbed::{Audit, AuditEntry, Cluster};
use tokio::time::sleep;

/// Time between two reads of the log.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long nothing that is waited for may happen.
const STALLED: Duration = Duration::from_secs(180);
/// What the status of a registered offer contains.
const AGENT_ID: &str = r#""agentId":""#;

/// Requests of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Writes to the status of offers.
    pub offer_statuses: u32,
    /// Writes to Leases.
    pub lease_writes: u32,
    /// Writes to AgentRegistrations.
    pub records: u32,
    /// Writes to SignerLedgers.
    pub ledgers: u32,
    /// Other writes, Events included.
    pub other_writes: u32,
    /// Requests for an object or a list.
    pub reads: u32,
    /// Watches that started.
    pub watches: u32,
    /// How many of these failed.
    pub failed: u32,
}

impl Requests {
    /// All requests.
    pub const fn total(&self) -> u32 {
        self.writes() + self.lease_writes + self.reads + self.watches
    }

    /// Writes besides those to Leases.
    pub const fn writes(&self) -> u32 {
        self.offer_statuses + self.records + self.ledgers + self.other_writes
    }

    fn count(&mut self, entry: &AuditEntry) {
        let counter = match (entry.verb.as_str(), entry.stage.as_str()) {
            // A watch is logged when it starts and again when it ends.
            ("watch", "ResponseStarted") => &mut self.watches,
            ("watch", _) | (_, "ResponseStarted") => return,
            ("get" | "list" | "head", _) => &mut self.reads,
            _ if entry.resource == "leases" => &mut self.lease_writes,
            _ if is_offer_status(entry) => &mut self.offer_statuses,
            _ if entry.resource == "agentregistrations" => &mut self.records,
            _ if entry.resource == "signerledgers" => &mut self.ledgers,
            _ => &mut self.other_writes,
        };
        *counter += 1;
        if entry.code >= 400 {
            self.failed += 1;
        }
    }
}

impl AddAssign for Requests {
    fn add_assign(&mut self, other: Self) {
        self.offer_statuses += other.offer_statuses;
        self.lease_writes += other.lease_writes;
        self.records += other.records;
        self.ledgers += other.ledgers;
        self.other_writes += other.other_writes;
        self.reads += other.reads;
        self.watches += other.watches;
        self.failed += other.failed;
    }
}

fn is_offer_status(entry: &AuditEntry) -> bool {
    entry.resource == "serviceoffers" && entry.subresource == "status"
}

/// A status of an offer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferStatus {
    /// Namespace and name of the offer.
    pub offer: (String, String),
    /// Whether the status names an agent.
    pub is_registered: bool,
    /// When the API server answered.
    pub at: Timestamp,
}

/// The log from one moment on.
pub struct RequestLog {
    audit: Audit,
    users: BTreeMap<String, Requests>,
}

impl RequestLog {
    /// Requests from now on.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn from_now(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            audit: cluster.audit()?,
            users: BTreeMap::new(),
        })
    }

    /// Counts the requests since the last call, and returns the statuses of offers that a user
    /// wrote among them.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn read(&mut self, user: &str) -> Result<Vec<OfferStatus>> {
        let mut written = Vec::new();
        for (entry, is_registered) in self.audit.read_marked(AGENT_ID)? {
            if entry.user == user && is_offer_status(&entry) && (200..300).contains(&entry.code) {
                written.push(OfferStatus {
                    offer: (entry.namespace.clone(), entry.name.clone()),
                    is_registered,
                    at: entry.time,
                });
            }
            if let Some(requests) = self.users.get_mut(&entry.user) {
                requests.count(&entry);
            } else {
                let mut requests = Requests::default();
                requests.count(&entry);
                self.users.insert(entry.user, requests);
            }
        }
        Ok(written)
    }

    /// Requests of a user that were counted so far.
    pub fn of(&self, user: &str) -> Requests {
        self.users.get(user).copied().unwrap_or_default()
    }

    /// Waits until `count` accepted that many statuses that a user wrote, and returns when the last
    /// of them was written.
    ///
    /// # Errors
    /// If the log cannot be read, or no status is accepted for long.
    pub async fn until(
        &mut self,
        user: &str,
        goal: usize,
        track: &ProgressTrack,
        mut count: impl FnMut(OfferStatus) -> bool,
    ) -> Result<Timestamp> {
        let (mut done, mut progressed) = (0, Instant::now());
        let begun = Instant::now();
        loop {
            for status in self.read(user)? {
                let at = status.at;
                if !count(status) {
                    continue;
                }
                done += 1;
                progressed = Instant::now();
                if done == goal {
                    track.reach(done, &format!("{:.1} s", begun.elapsed().as_secs_f64()));
                    return Ok(at);
                }
            }
            track.reach(done, &format!("{:.0} s", begun.elapsed().as_secs_f64()));
            ensure!(
                progressed.elapsed() < STALLED,
                "only {done} of {goal} statuses, and none for {STALLED:?}"
            );
            sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(verb: &str, resource: &str, subresource: &str, stage: &str, code: u16) -> AuditEntry {
        AuditEntry {
            user: "a".to_owned(),
            pod: String::new(),
            user_agent: String::new(),
            verb: verb.to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: String::new(),
            name: String::new(),
            uri: String::new(),
            stage: stage.to_owned(),
            code,
            received: Timestamp::UNIX_EPOCH,
            time: Timestamp::UNIX_EPOCH,
            request_object: serde_json::Value::Null,
            response_object: serde_json::Value::Null,
        }
    }

    #[test]
    fn requests_are_counted_by_what_they_do() {
        let mut requests = Requests::default();
        for entry in [
            entry("watch", "serviceoffers", "", "ResponseStarted", 200),
            entry("watch", "serviceoffers", "", "ResponseComplete", 200),
            entry("list", "services", "", "ResponseComplete", 200),
            entry("update", "leases", "", "ResponseComplete", 200),
            entry("patch", "serviceoffers", "status", "ResponseComplete", 200),
            entry("patch", "serviceoffers", "status", "ResponseComplete", 409),
            entry("create", "agentregistrations", "", "ResponseComplete", 201),
            entry("update", "signerledgers", "", "ResponseComplete", 200),
            entry("create", "events", "", "ResponseComplete", 201),
        ] {
            requests.count(&entry);
        }
        let expected = Requests {
            offer_statuses: 2,
            lease_writes: 1,
            records: 1,
            ledgers: 1,
            other_writes: 1,
            reads: 1,
            watches: 1,
            failed: 1,
        };
        assert_eq!(requests, expected);
        assert_eq!((requests.total(), requests.writes()), (8, 5));
    }
}
