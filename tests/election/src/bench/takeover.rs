//! Ends leaders of groups of bare processes, and measures how long it takes until the next one leads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rand::RngExt as _;
use testbed::Signal;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::progress::ProgressTrack;
use super::report::{BenchCase, Sample};
use crate::candidate::{CandidateOptions, Implementation, Timing};
use crate::group::CandidateGroup;
use crate::lease_writes::LeaseWrites;
use crate::namespace::ElectionNamespace;

/// How many candidates each group has.
pub const CANDIDATES: usize = 3;
/// How long a process may take for what takes no time.
const LIMIT: Duration = Duration::from_secs(60);

/// The end of one leader.
#[derive(Clone, Debug)]
pub struct Takeover {
    lease: String,
    user: String,
    at: Timestamp,
    next: Timestamp,
}

impl Takeover {
    /// What it measured; with the leader's last renewal if it is known.
    pub fn sample(&self, writes: Option<&LeaseWrites>) -> Sample {
        let last = writes.and_then(|writes| writes.last_before(&self.lease, &self.user, self.next));
        Sample {
            seconds: self.next.duration_since(self.at).as_secs_f64(),
            since_renewal: last.map(|write| self.next.duration_since(write.received).as_secs_f64()),
        }
    }
}

/// Starts a group, when it is its turn.
///
/// # Errors
/// If a candidate does not start, or none leads.
pub async fn start(
    namespace: &Arc<ElectionNamespace>,
    lease: &str,
    case: BenchCase,
    starts: &Semaphore,
) -> Result<CandidateGroup> {
    let _turn = starts.acquire().await?;
    let spec = CandidateOptions {
        release: case.release,
        ..CandidateOptions::new(case.kind, case.timing)
    };
    let group = CandidateGroup::start(namespace, lease, &vec![spec; CANDIDATES]).await?;
    group.leader(LIMIT).await?;
    for member in group.members() {
        member.ready(LIMIT).await?;
    }
    Ok(group)
}

/// Ends the leader of a group that many times.
///
/// # Errors
/// If nobody follows, or nobody replaces the dead.
pub async fn run(
    group: &mut CandidateGroup,
    signal: Signal,
    times: usize,
    track: &ProgressTrack,
) -> Result<Vec<Takeover>> {
    let mut takeovers = Vec::new();
    for _ in 0..times {
        let leader = group.leader(LIMIT).await?;
        let spec = group.members()[leader.member].spec();
        let timing = spec.timing;
        sleep(rest(spec.kind, timing, signal)).await;
        let user = group.members()[leader.member].user().to_owned();
        let at = group.member(leader.member).signal(signal)?;
        let longest = timing.lease + timing.longest_poll() * 2 + LIMIT;
        let next = group
            .successor(at, longest)
            .await
            .with_context(|| format!("after the end of {}", leader.identity))?;
        let takeover = Takeover {
            lease: group.lease().to_owned(),
            user,
            at,
            next: next.at,
        };
        track.step(&format!("{:.3} s", takeover.sample(None).seconds));
        takeovers.push(takeover);
        group.member(leader.member).wait(LIMIT).await?;
        group.replace(leader.member).await?.ready(LIMIT).await?;
    }
    Ok(takeovers)
}

/// How long a group is left alone before its leader ends: long enough for the youngest candidate to have seen a renewal, and
/// then any part of what repeats, so that no moment of it is preferred.
fn rest(kind: Implementation, timing: Timing, signal: Signal) -> Duration {
    let repeats = match kind {
        Implementation::Operator => timing.period,
        Implementation::ClientGo | Implementation::ControllerRuntime => timing.longest_poll(),
    };
    let chance = rand::rng().random_range(0.0..1.0);
    match (kind, signal) {
        // A release is seen at once, whenever it comes.
        (Implementation::Operator, Signal::Term) => Duration::from_millis(100).mul_f64(chance),
        (_, Signal::Term) => repeats.mul_f64(chance),
        _ => timing.period + repeats + timing.period.mul_f64(chance),
    }
}
