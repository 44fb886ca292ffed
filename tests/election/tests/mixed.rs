//! Candidates of the operator and of client-go on the same Lease, as during a migration: each takes
//! over from the other, and no two lead at the same time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use election::group::NewLeader;
use election::term::{BelievedTerm, overlaps};
use election::{
    CandidateGroup, CandidateOptions, ElectionNamespace, EventKind, Implementation, LeaseWrites,
    Timing,
};
use futures::{StreamExt, TryStreamExt};
use harness::wait::eventually;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testbed::{Cluster, Signal};
use tokio::task::JoinHandle;

const TIMING: Timing = Timing::QUICK;
const DEATHS: usize = 30;
/// Allowance for half of the takeovers beyond the time at which each is allowed. A candidate that
/// only polls takes over a second later on average.
const USUAL_DELAY: Duration = Duration::from_millis(300);
/// Allowance for each takeover. How long a busy machine delays a single one says nothing about the
/// elector; `make bench-election` measures that beside client-go.
const LONGEST_DELAY: Duration = TIMING.period;
/// Timeout for what should happen at once.
const LIMIT: Duration = Duration::from_secs(20);
const LEASE: &str = "mixed";

#[test]
fn operator_and_client_go_take_over_and_never_lead_together() {
    testbed::test(async |cluster| {
        let seed = std::env::var("SEED").map_or_else(
            |_| rand::random(),
            |seed| seed.parse().expect("SEED is a number"),
        );
        println!("SEED={seed}");
        let mut trial = Trial::begin(&cluster, seed).await;
        for death in 1..=DEATHS {
            trial.end_leader(death).await;
        }
        trial.judge().await;
    });
}

/// The end of a leader, and its successor.
#[derive(Debug)]
struct Death {
    leader: Leader,
    signal: Signal,
    at: Timestamp,
    /// Whether an operator candidate was there to take over.
    watched: bool,
    next: NewLeader,
}

#[derive(Clone, Debug)]
struct Leader {
    identity: String,
    user: String,
    kind: Implementation,
    /// When it reported that it stopped leading; none if it was killed.
    stopped: Option<Timestamp>,
}

struct Trial {
    group: CandidateGroup,
    random: StdRng,
    writes: LeaseWrites,
    records: Records,
    deaths: Vec<Death>,
}

impl Trial {
    async fn begin(cluster: &Cluster, seed: u64) -> Self {
        let namespace = Arc::new(ElectionNamespace::new(cluster, "mixed").await.unwrap());
        let writes = LeaseWrites::from_now(&namespace).unwrap();
        let records = Records::watch(namespace.leases());
        let kinds = [
            Implementation::Operator,
            Implementation::ClientGo,
            Implementation::Operator,
            Implementation::ClientGo,
        ];
        let specs = kinds.map(|kind| CandidateOptions::new(kind, TIMING));
        let group = CandidateGroup::start(&namespace, LEASE, &specs)
            .await
            .unwrap();
        Self {
            group,
            random: StdRng::seed_from_u64(seed),
            writes,
            records,
            deaths: Vec::new(),
        }
    }

    /// Ends the leader, and sometimes all operator candidates with it, so that either
    /// implementation takes over.
    async fn end_leader(&mut self, death: usize) {
        let leader = self.group.leader(LIMIT).await.unwrap();
        // Wait until each has seen the leader renew: a candidate counts from its own observation,
        // and one that started after the last renewal would count from later.
        tokio::time::sleep(
            TIMING.period * 2 + TIMING.period.mul_f64(self.random.random_range(0.0..2.0)),
        )
        .await;
        let signal = if self.random.random_bool(0.5) {
            Signal::Kill
        } else {
            Signal::Term
        };
        let others = if self.random.random_bool(0.5) {
            Some(Implementation::Operator)
        } else {
            None
        };
        let mut victims = vec![leader.member];
        for member in 0..self.group.members().len() {
            if member != leader.member && Some(self.group.members()[member].kind()) == others {
                // Killed before the leader, or it could become the next one.
                self.group.member(member).signal(Signal::Kill).unwrap();
                self.group.member(member).wait(LIMIT).await.unwrap();
                victims.push(member);
            }
        }
        let survivors = (0..self.group.members().len()).filter(|member| !victims.contains(member));
        let watched = survivors
            .into_iter()
            .any(|member| self.group.members()[member].kind() == Implementation::Operator);
        let at = self.group.member(leader.member).signal(signal).unwrap();
        let next = self
            .group
            .successor(at, TIMING.lease + TIMING.longest_poll() * 2 + LIMIT)
            .await
            .unwrap();
        let status = self.group.member(leader.member).wait(LIMIT).await.unwrap();
        if signal == Signal::Term {
            assert_eq!(status.code(), Some(0), "{} exited cleanly", leader.identity);
        }
        let stopped = self.stopped(&leader, signal).await;
        let candidate = &self.group.members()[leader.member];
        let (user, kind) = (candidate.user().to_owned(), candidate.kind());
        let took = next.at.duration_since(at).as_secs_f64();
        println!(
            "{death:2}: {} ends by {signal:?}, after {took:.3} s {} leads",
            leader.identity, next.identity
        );
        self.group
            .agrees(&next.identity, at, TIMING.longest_poll() + LIMIT)
            .await
            .unwrap();
        let leader = Leader {
            identity: leader.identity,
            user,
            kind,
            stopped,
        };
        self.deaths.push(Death {
            leader,
            signal,
            at,
            watched,
            next,
        });
        for victim in victims {
            self.group.replace(victim).await.unwrap();
        }
        for member in self.group.members() {
            member.joined(LIMIT).await.unwrap();
        }
    }

    async fn stopped(&self, leader: &NewLeader, signal: Signal) -> Option<Timestamp> {
        if signal == Signal::Kill {
            return None;
        }
        let candidate = &self.group.members()[leader.member];
        let stopped = candidate
            .until(LIMIT, |event| {
                event.at > leader.at && event.kind == EventKind::StoppedLeading
            })
            .await;
        Some(stopped.unwrap().at)
    }

    async fn judge(mut self) {
        self.writes.read().unwrap();
        self.records.caught_up().await;
        let mut late = Vec::new();
        let mut delays = Vec::new();
        let mut terms = Vec::new();
        for death in &self.deaths {
            let Death { leader, next, .. } = death;
            let last = self
                .writes
                .last_before(LEASE, &leader.user, next.at)
                .expect("the leader wrote")
                .clone();
            let allowed = match death.signal {
                Signal::Term => last.answered,
                _ => last.answered + TIMING.lease,
            };
            let polls = match (death.watched, death.signal) {
                (true, _) => Duration::ZERO,
                (false, Signal::Term) => TIMING.longest_poll(),
                // It may see the last renewal only at its next poll, and the expiry only at the one
                // after.
                (false, _) => TIMING.longest_poll() * 2,
            };
            if death.watched {
                delays.push(next.at.duration_since(allowed));
            }
            let latest = allowed + polls + LONGEST_DELAY;
            if next.at > latest {
                late.push(format!(
                    "{death:?} was allowed at {allowed}, expected by {latest}"
                ));
            }
            let early = allowed.duration_since(next.at);
            // Standbys may see a release before its answer is sent.
            assert!(
                early < SignedDuration::from_millis(50),
                "{death:?} was allowed only at {allowed}"
            );
            let begun = self
                .writes
                .first(LEASE, &leader.user)
                .expect("the leader took the Lease")
                .received;
            let ended = match (leader.kind, leader.stopped) {
                (_, None) => death.at,
                // Its fence closes before the release is sent.
                (Implementation::Operator, Some(_)) => last.received,
                (_, Some(stopped)) => stopped,
            };
            terms.push(BelievedTerm {
                leader: leader.identity.clone(),
                begun,
                ended,
            });
        }
        assert!(
            late.is_empty(),
            "{} of {DEATHS} takeovers were late: {late:#?}",
            late.len()
        );
        delays.sort_unstable();
        let usual = delays[delays.len() / 2];
        println!("half of the takeovers came within {usual:#}");
        assert!(
            usual <= SignedDuration::try_from(USUAL_DELAY).unwrap(),
            "{delays:#?}"
        );
        self.judge_overlaps(&terms);
        let count = self.records.judge();
        self.judge_variety();
        println!("{count} records, all valid for both implementations");
    }

    /// client-go stops its work only after it has released the Lease. No other overlap is allowed.
    fn judge_overlaps(&self, terms: &[BelievedTerm]) {
        let is_known = |overlap: &&election::term::ConcurrentTerms| {
            let death = self
                .deaths
                .iter()
                .find(|death| death.leader.identity == overlap.earlier);
            death.is_some_and(|death| {
                death.leader.kind == Implementation::ClientGo && death.signal == Signal::Term
            })
        };
        let all = overlaps(terms);
        let (known, unknown): (Vec<_>, Vec<_>) = all.iter().partition(is_known);
        assert!(unknown.is_empty(), "two leaders: {unknown:#?}");
        let longest = known
            .iter()
            .map(|overlap| overlap.duration)
            .max()
            .unwrap_or_default();
        println!(
            "{} overlaps after releases of client-go, the longest of {longest:?}; no others",
            known.len()
        );
        assert!(
            longest < SignedDuration::from_secs(1),
            "client-go took too long to stop its work: {known:#?}"
        );
    }

    /// Random choices must have covered both implementations.
    fn judge_variety(&self) {
        let kind = |identity: &str| {
            if identity.contains("-o") {
                Implementation::Operator
            } else {
                Implementation::ClientGo
            }
        };
        for next in [Implementation::Operator, Implementation::ClientGo] {
            let took = self
                .deaths
                .iter()
                .filter(|death| kind(&death.next.identity) == next)
                .count();
            assert!(took >= 3, "{} took over only {took} times", next.name());
        }
        for signal in [Signal::Kill, Signal::Term] {
            for from in [Implementation::Operator, Implementation::ClientGo] {
                for to in [Implementation::Operator, Implementation::ClientGo] {
                    let deaths = self.deaths.iter().filter(|death| {
                        death.signal == signal
                            && death.leader.kind == from
                            && kind(&death.next.identity) == to
                    });
                    println!(
                        "{signal:?}: {} by {} {} times",
                        from.name(),
                        to.name(),
                        deaths.count()
                    );
                }
            }
        }
    }
}

/// Every stored record of the Lease.
struct Records {
    seen: Arc<Mutex<Vec<LeaseSpec>>>,
    watch: JoinHandle<()>,
}

impl Records {
    fn watch(leases: Api<Lease>) -> Self {
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let records = Arc::clone(&seen);
        let watch = tokio::spawn(async move {
            let parameters = WatchParams::default().fields(&format!("metadata.name={LEASE}"));
            let mut version = "0".to_owned();
            loop {
                // A watch that the API server refuses is tried again; `caught_up` limits how long.
                let Ok(events) = leases.watch(&parameters, &version).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let mut events = events.boxed();
                while let Ok(Some(event)) = events.try_next().await {
                    if let WatchEvent::Added(lease) | WatchEvent::Modified(lease) = event {
                        version = lease.metadata.resource_version.expect("a version");
                        records.lock().unwrap().push(lease.spec.expect("a record"));
                    }
                }
            }
        });
        Self { seen, watch }
    }

    /// Waits until the watch has shown the leader after the last death.
    async fn caught_up(&self) {
        eventually("the watch has delivered every leader", LIMIT, async || {
            let seen = self.seen.lock().unwrap();
            let transitions = seen.last().and_then(|record| record.lease_transitions);
            let deaths = i32::try_from(DEATHS).unwrap();
            match transitions {
                Some(count) if count >= deaths => Ok(()),
                _ => Err(format!("{transitions:?} transitions")),
            }
        })
        .await;
    }

    /// A change of holder counts one transition, a release or renewal none. Every field is set.
    fn judge(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        let mut holder = String::new();
        let mut transitions = None;
        for record in seen.iter() {
            let now = record.holder_identity.clone().unwrap_or_default();
            let count = record.lease_transitions.expect("transitions are counted");
            assert!(
                record.acquire_time.is_some() && record.renew_time.is_some(),
                "{record:?}"
            );
            let is_new = !now.is_empty() && now != holder;
            let expected = transitions.map_or(0, |before: i32| before + i32::from(is_new));
            assert_eq!(
                count, expected,
                "{holder} was the last holder before {record:?}"
            );
            let seconds = if now.is_empty() {
                1
            } else {
                i32::try_from(TIMING.lease.as_secs()).unwrap()
            };
            assert_eq!(record.lease_duration_seconds, Some(seconds), "{record:?}");
            if !now.is_empty() {
                holder = now;
            }
            transitions = Some(count);
        }
        assert_eq!(
            transitions,
            Some(i32::try_from(DEATHS).unwrap()),
            "each death made one new leader"
        );
        seen.len()
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
