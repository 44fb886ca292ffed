//! Usage of idle candidates: requests, processor time and memory.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::AuditEntry;
use tokio::time::{Instant, sleep};

use super::progress::ProgressTrack;
use super::report::{BenchCase, IdleUsage};
use crate::candidate::Candidate;
use crate::group::CandidateGroup;
use crate::namespace::ElectionNamespace;

/// Clock ticks per second in `/proc/PID/stat`: 100 on every Linux that the testbed supports.
const TICKS: f64 = 100.0;
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
            before.insert(member.identity().to_owned(), processor_time(member)?);
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
            let spent = processor_time(member)?
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
                resident: resident(member)?,
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

/// Processor time used so far, in seconds.
fn processor_time(candidate: &Candidate) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", candidate.pid()))?;
    let ticks = ticks(&stat).with_context(|| format!("statistics of {}", candidate.identity()))?;
    Ok(f64::from(ticks) / TICKS)
}

/// User and system time. The command name may contain anything, so fields are counted from its last
/// bracket.
fn ticks(stat: &str) -> Option<u32> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..]
        .split_ascii_whitespace()
        .collect();
    Some(fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?)
}

/// Resident memory in megabytes.
fn resident(candidate: &Candidate) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", candidate.pid()))?;
    let bytes =
        resident_bytes(&status).with_context(|| format!("memory of {}", candidate.identity()))?;
    Ok(bytes / 1e6)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u32 = value.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(f64::from(kibibytes) * 1024.0)
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

    #[test]
    fn processor_time_and_memory_are_read_from_proc() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 31 11 0 0 20 0 5 0 4242 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(
            resident_bytes("VmHWM:\t   20 kB\nVmRSS:\t   12345 kB\n"),
            Some(12_641_280.0)
        );
        assert_eq!(resident_bytes("VmHWM:\t   20 kB\n"), None);
    }
}
