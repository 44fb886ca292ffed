//! Usage of idle candidates: requests, processor time and memory.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use harness::bench::ProgressTrack;
use harness::bench::process::{processor_time, resident};
use testbed::AuditEntry;
use tokio::time::{Instant, sleep};

use super::report::{BenchCase, IdleUsage};
use crate::group::CandidateGroup;
use crate::namespace::ElectionNamespace;

/// Time between two progress steps.
const STEP: Duration = Duration::from_secs(5);

/// Requests of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Requests {
    lease_writes: u32,
    lease_reads: u32,
    others: u32,
    watches: u32,
}

/// Measures every candidate of idle groups.
///
/// # Errors
/// If a candidate ends, or the audit log cannot be read.
pub async fn measure(
    namespace: &ElectionNamespace,
    groups: &mut [(BenchCase, CandidateGroup)],
    steps: usize,
    track: &ProgressTrack,
) -> Result<Vec<IdleUsage>> {
    let mut audit = namespace.cluster().audit()?;
    let begun = Instant::now();
    let mut before = BTreeMap::new();
    for (_, group) in groups.iter() {
        for member in group.members() {
            before.insert(member.identity().to_owned(), processor_time(member.pid())?);
        }
    }
    for _ in 0..steps {
        sleep(STEP).await;
        track.step("");
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let requests = count(&audit.read()?);
    let mut usage = Vec::new();
    for (case, group) in groups.iter() {
        for member in group.members() {
            let Requests {
                lease_writes,
                lease_reads,
                others,
                watches,
            } = requests.get(member.user()).copied().unwrap_or_default();
            let [lease_writes, lease_reads, others, watches] =
                [lease_writes, lease_reads, others, watches]
                    .map(|count| f64::from(count) / minutes);
            let spent = processor_time(member.pid())?
                - before.get(member.identity()).copied().unwrap_or_default();
            usage.push(IdleUsage {
                case: *case,
                identity: member.identity().to_owned(),
                leads: member.leading_since().is_some(),
                lease_writes,
                lease_reads,
                others,
                watches,
                cpu: spent * 1000.0 / minutes,
                resident: resident(member.pid())?,
            });
        }
    }
    usage.sort_by_key(|one| (one.case, !one.leads));
    Ok(usage)
}

/// Requests by user.
fn count(entries: &[AuditEntry]) -> BTreeMap<String, Requests> {
    let mut users = BTreeMap::<String, Requests>::new();
    for entry in entries {
        let requests = users.entry(entry.user.clone()).or_default();
        let lease = entry.resource == "leases";
        let counter = match (entry.verb.as_str(), entry.stage.as_str()) {
            // A watch is logged when it starts and again when it ends.
            ("watch", "ResponseStarted") => &mut requests.watches,
            ("watch", _) | (_, "ResponseStarted") => continue,
            ("get" | "list", _) if lease => &mut requests.lease_reads,
            _ if lease => &mut requests.lease_writes,
            _ => &mut requests.others,
        };
        *counter += 1;
    }
    users
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn entry(verb: &str, resource: &str, stage: &str) -> AuditEntry {
        AuditEntry {
            user: "a".to_owned(),
            pod: String::new(),
            user_agent: String::new(),
            verb: verb.to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            uri: String::new(),
            stage: stage.to_owned(),
            code: 200,
            received: Timestamp::UNIX_EPOCH,
            time: Timestamp::UNIX_EPOCH,
            request_object: serde_json::Value::Null,
            response_object: serde_json::Value::Null,
        }
    }

    #[test]
    fn watch_is_counted_once_and_apart_from_other_requests() {
        let entries = [
            entry("watch", "leases", "ResponseStarted"),
            entry("watch", "leases", "ResponseComplete"),
            entry("get", "leases", "ResponseComplete"),
            entry("list", "leases", "ResponseComplete"),
            entry("update", "leases", "ResponseComplete"),
            entry("list", "services", "ResponseComplete"),
            entry("create", "events", "ResponseComplete"),
        ];
        let expected = Requests {
            lease_writes: 1,
            lease_reads: 2,
            others: 2,
            watches: 1,
        };
        assert_eq!(count(&entries).get("a"), Some(&expected));
    }
}
