//! Ends the leader of a group of bare processes, and measures the time until the next one leads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::bench::ProgressTrack;
use jiff::Timestamp;
use rand::RngExt as _;
use testbed::Signal;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::report::{BenchCase, Sample};
use crate::candidate::{CandidateOptions, Implementation, Timing};
use crate::group::CandidateGroup;
use crate::lease_writes::LeaseWrites;
use crate::namespace::ElectionNamespace;

/// Candidates per group.
pub const CANDIDATES: usize = 3;
/// Timeout for what should happen at once.
const LIMIT: Duration = Duration::from_secs(60);

/// One leader's end and the next leader's start.
#[derive(Clone, Debug)]
pub struct Takeover {
    lease: String,
    user: String,
    at: Timestamp,
    next: Timestamp,
}

impl Takeover {
    /// The sample; includes the time since the last renewal if the writes are known.
    pub fn sample(&self, writes: Option<&LeaseWrites>) -> Sample {
        let last = writes.and_then(|writes| writes.last_before(&self.lease, &self.user, self.next));
        Sample {
            seconds: self.next.duration_since(self.at).as_secs_f64(),
            since_renewal: last.map(|write| self.next.duration_since(write.received).as_secs_f64()),
        }
    }
}

/// Starts a group once a permit is free, and waits until all candidates are ready.
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

/// Ends the leader of a group `times` times.
///
/// # Errors
/// If no candidate takes over, or a replacement does not start.
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
        sleep(settle_time(spec.kind, timing, signal)).await;
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

/// How long to wait before the leader is ended: until the newest candidate has seen a renewal, plus
/// a random part of the repeating period, so that samples are spread over it.
fn settle_time(kind: Implementation, timing: Timing, signal: Signal) -> Duration {
    let repeats = match kind {
        Implementation::Operator => timing.period,
        Implementation::ClientGo | Implementation::ControllerRuntime => timing.longest_poll(),
    };
    let jitter = rand::rng().random_range(0.0..1.0);
    match (kind, signal) {
        // Standbys see a release at once, at any time.
        (Implementation::Operator, Signal::Term) => Duration::from_millis(100).mul_f64(jitter),
        (_, Signal::Term) => repeats.mul_f64(jitter),
        _ => timing.period + repeats + timing.period.mul_f64(jitter),
    }
}
