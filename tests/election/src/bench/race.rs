//! Ends leaders of groups of bare processes, and measures how long it takes until the next one leads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rand::RngExt as _;
use testbed::Signal;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::report::{Contender, Sample};
use super::screen::Track;
use crate::candidate::{Kind, Spec, Timing};
use crate::group::Group;
use crate::place::Place;
use crate::writes::Writes;

/// How many candidates each group has.
pub const CANDIDATES: usize = 3;
/// How long a process may take for what takes no time.
const LIMIT: Duration = Duration::from_secs(60);

/// The end of one leader.
#[derive(Clone, Debug)]
pub struct Death {
    lease: String,
    user: String,
    at: Timestamp,
    next: Timestamp,
}

impl Death {
    /// What it measured; with the leader's last renewal if it is known.
    pub fn sample(&self, writes: Option<&Writes>) -> Sample {
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
    place: &Arc<Place>,
    lease: &str,
    contender: Contender,
    turns: &Semaphore,
) -> Result<Group> {
    let _turn = turns.acquire().await?;
    let spec = Spec {
        release: contender.release,
        ..Spec::new(contender.kind, contender.timing)
    };
    let group = Group::start(place, lease, &vec![spec; CANDIDATES]).await?;
    group.leader(LIMIT).await?;
    for member in group.members() {
        member.ready(LIMIT).await?;
    }
    Ok(group)
}

/// Ends the leader of a group that many times.
///
/// # Errors
/// If nobody follows, or nobody takes the place of the dead.
pub async fn run(
    group: &mut Group,
    signal: Signal,
    times: usize,
    track: &Track,
) -> Result<Vec<Death>> {
    let mut deaths = Vec::new();
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
        let death = Death {
            lease: group.lease().to_owned(),
            user,
            at,
            next: next.at,
        };
        track.step(&format!("{:.3} s", death.sample(None).seconds));
        deaths.push(death);
        group.member(leader.member).wait(LIMIT).await?;
        group.replace(leader.member).await?.ready(LIMIT).await?;
    }
    Ok(deaths)
}

/// How long a group is left alone before its leader ends: long enough for the youngest candidate to have seen a renewal, and
/// then any part of what repeats, so that no moment of it is preferred.
fn rest(kind: Kind, timing: Timing, signal: Signal) -> Duration {
    let repeats = match kind {
        Kind::Ours => timing.period,
        Kind::ClientGo | Kind::ControllerRuntime => timing.longest_poll(),
    };
    let chance = rand::rng().random_range(0.0..1.0);
    match (kind, signal) {
        // A release is seen at once, whenever it comes.
        (Kind::Ours, Signal::Term) => Duration::from_millis(100).mul_f64(chance),
        (_, Signal::Term) => repeats.mul_f64(chance),
        _ => timing.period + repeats + timing.period.mul_f64(chance),
    }
}
