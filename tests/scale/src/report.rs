//! The results of a run, compared with their targets. Values and text only.

use harness::bench::{Environment, Target, table, target};
use jiff::Timestamp;
use scale::cost::Cost;
use scale::replicas::{Contender, Role};
use scale::requests::Requests;
use serde::Serialize;

use crate::Plan;
use crate::bench::total;
use crate::serving::{Document, Serving};

/// Resident memory of the leader, in megabytes.
pub const LEADER_MEMORY: f64 = 96.0;
/// Resident memory of a standby, in megabytes.
pub const STANDBY_MEMORY: f64 = 64.0;
/// The 99th percentile of an agent's document, in milliseconds.
pub const AGENT_P99: f64 = 5.0;
/// The 99th percentile of the listing, in milliseconds.
pub const LISTING_P99: f64 = 25.0;

/// What exists while something is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Offers without a registration.
    Offers,
    /// The same, and all registrations.
    Registrations,
    /// The same, after documents were requested.
    Documents,
}

impl State {
    /// Display name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offers => "offers",
            Self::Registrations => "registrations",
            Self::Documents => "documents",
        }
    }
}

/// How a contender wrote the statuses of new offers.
#[derive(Clone, Debug, Serialize)]
pub struct Work {
    pub contender: Contender,
    pub offers: usize,
    /// From the start of the process until the last status was written.
    pub seconds: f64,
    /// From the start of the process until it led, with everything listed.
    pub until_leading: f64,
    pub cost: Cost,
    pub requests: Requests,
}

/// How a contender followed changes of offers.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeCost {
    pub contender: Contender,
    /// Offers that exist.
    pub offers: usize,
    pub changes: usize,
    /// Processor time of the leader per change.
    pub milliseconds: f64,
    pub cost: Cost,
    pub requests: Requests,
}

/// A replica in a minute in which nothing changes.
#[derive(Clone, Debug, Serialize)]
pub struct SteadyMinute {
    pub contender: Contender,
    pub state: State,
    pub role: Role,
    pub requests: Requests,
    /// Its processor time in seconds.
    pub cpu: f64,
    /// The API server's processor time in seconds, for all clients.
    pub api_server: f64,
}

/// Memory of a replica, in megabytes of 1,000,000 bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    pub contender: Contender,
    pub state: State,
    pub role: Role,
    pub resident: f64,
    /// The most it has had so far.
    pub most_resident: f64,
}

/// Registrations while so many exist.
#[derive(Clone, Debug, Serialize)]
pub struct Registrations {
    /// Registrations before.
    pub from: usize,
    /// Registrations after.
    pub to: usize,
    /// From the creation of the first offer until the last one has its agent id.
    pub seconds: f64,
    pub per_second: f64,
    pub cost: Cost,
    pub requests: Requests,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    pub work: Vec<Work>,
    pub changes: Vec<ChangeCost>,
    pub steady: Vec<SteadyMinute>,
    pub memory: Vec<Memory>,
    /// Statuses of the peer that the operator wrote again.
    pub corrected: Option<u32>,
    pub registrations: Vec<Registrations>,
    pub serving: Vec<Serving>,
}

/// A run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub begun: Timestamp,
    pub seconds: f64,
    pub environment: Environment,
    pub plan: Plan,
    pub targets: Vec<Target>,
    #[serde(flatten)]
    pub results: Results,
}

impl Results {
    /// The run of a contender with the most offers.
    fn work_of(&self, contender: Contender) -> Option<&Work> {
        let own = self.work.iter().filter(|work| work.contender == contender);
        own.max_by_key(|work| work.offers)
    }

    /// The most memory that a replica of the operator had in any state.
    fn memory_of(&self, role: Role) -> impl Iterator<Item = &Memory> {
        self.memory
            .iter()
            .filter(move |memory| memory.contender == Contender::Operator && memory.role == role)
    }

    /// The second and the last part of the registrations.
    pub fn rates(&self) -> Option<(&Registrations, &Registrations)> {
        let last = self.registrations.last()?;
        Some((self.registrations.get(1)?, last))
    }

    /// Compares the results with their targets.
    pub fn targets(&self) -> Vec<Target> {
        let mut targets = vec![
            self.memory_target("leader's resident memory", Role::Leader, LEADER_MEMORY),
            self.memory_target("standby's resident memory", Role::Standby, STANDBY_MEMORY),
            self.speed_target(),
            self.correction_target(),
            self.steady_target(),
        ];
        targets.push(self.rate_target());
        targets.push(self.change_target());
        targets.push(self.serving_target("agent's document p99", Document::Agent, AGENT_P99));
        targets.push(self.serving_target("listing p99", Document::Listing, LISTING_P99));
        targets
    }

    fn memory_target(&self, measure: &'static str, role: Role, most: f64) -> Target {
        let all: Vec<_> = self.memory_of(role).collect();
        let measured = all
            .iter()
            .map(|memory| memory.resident)
            .reduce(f64::max)
            .map(rounded);
        let facts = all.iter().map(|memory| {
            format!(
                "{} {:.1} MB (most so far {:.1})",
                memory.state.name(),
                memory.resident,
                memory.most_resident
            )
        });
        Target::at_most(measure, most, "MB", measured).because(join(facts))
    }

    fn speed_target(&self) -> Target {
        let ours = self.work_of(Contender::Operator);
        let peer = self.work_of(Contender::ControllerRuntime);
        let ratio = ours
            .zip(peer)
            .map(|(ours, peer)| rounded(peer.seconds / ours.seconds));
        let facts = ours.into_iter().chain(peer).map(|work| {
            let Cost {
                leader,
                api_server,
                machine,
                seconds,
            } = work.cost;
            format!(
                "{} {:.1} s: its CPU {leader:.1} s, the API server's {api_server:.1} s, all of the machine's {machine:.1} s in {seconds:.1} s",
                work.contender.name(),
                work.seconds,
            )
        });
        Target::at_least("offers, seconds of the peer / operator", 2.0, "", ratio)
            .because(join(facts))
    }

    fn correction_target(&self) -> Target {
        Target::at_most(
            "peer's statuses that the operator changes",
            0.0,
            "",
            self.corrected.map(f64::from),
        )
    }

    fn steady_target(&self) -> Target {
        let own = || {
            let steady = self.steady.iter();
            steady.filter(|steady| steady.contender == Contender::Operator)
        };
        let writes = total(own().map(|steady| steady.requests)).writes();
        let measured = (own().count() > 0).then(|| f64::from(writes));
        let facts = own().map(|steady| {
            format!(
                "{} {}: {} statuses, {} others",
                steady.state.name(),
                steady.role.name(),
                steady.requests.offer_statuses,
                steady.requests.writes() - steady.requests.offer_statuses
            )
        });
        let measure = "steady minute, writes besides the Lease's";
        Target::at_most(measure, 0.0, "", measured).because(join(facts))
    }

    fn rate_target(&self) -> Target {
        let rates = self.rates();
        let ratio = rates.map(|(first, last)| rounded(last.per_second / first.per_second));
        let facts = rates
            .into_iter()
            .flat_map(|(first, last)| [first, last])
            .map(|part| {
                let count = (part.to - part.from) as f64;
                let per_registration = |seconds: f64| seconds * 1000.0 / count;
                format!(
                    "{} to {}: {:.2} per second; per registration {:.1} requests, CPU {:.1} ms, the API server's {:.1} ms",
                    part.from,
                    part.to,
                    part.per_second,
                    f64::from(part.requests.total()) / count,
                    per_registration(part.cost.leader),
                    per_registration(part.cost.api_server),
                )
            });
        let measure = "registrations per second, last / first";
        Target::at_least(measure, 0.8, "", ratio).because(join(facts))
    }

    fn change_target(&self) -> Target {
        let own = || {
            let changes = self.changes.iter();
            changes.filter(|change| change.contender == Contender::Operator)
        };
        let few = own().min_by_key(|change| change.offers);
        let many = own().max_by_key(|change| change.offers);
        let ratio = few.zip(many).and_then(|(few, many)| {
            let is_measured = few.offers < many.offers && few.milliseconds > 0.0;
            is_measured.then(|| rounded(many.milliseconds / few.milliseconds))
        });
        let facts = self.changes.iter().map(|change| {
            format!(
                "{} at {} offers: {:.3} ms",
                change.contender.name(),
                change.offers,
                change.milliseconds
            )
        });
        let measure = "CPU per change, all offers / a tenth of them";
        Target::at_most(measure, 1.2, "", ratio).because(join(facts))
    }

    fn serving_target(&self, measure: &'static str, document: Document, most: f64) -> Target {
        let own = || {
            let serving = self.serving.iter();
            serving.filter(move |serving| serving.document == document)
        };
        let measured = own()
            .map(|serving| serving.p99)
            .reduce(f64::max)
            .map(rounded);
        let facts = own().map(|serving| {
            format!(
                "{}: p50 {:.1} ms, p99 {:.1} ms, {} bytes",
                serving.role.name(),
                serving.p50,
                serving.p99,
                serving.bytes
            )
        });
        Target::at_most(measure, most, "ms", measured).because(join(facts))
    }
}

fn join(facts: impl Iterator<Item = String>) -> String {
    facts.collect::<Vec<_>>().join("; ")
}

/// As it is shown, so that a value and its verdict agree.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Report {
    /// Whether every target was met.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }

    /// The report as text tables, and what explains the targets that were missed.
    pub fn text(&self) -> String {
        let results = &self.results;
        let mut text = [
            work_table(&results.work),
            change_table(&results.changes),
            steady_table(&results.steady),
            memory_table(&results.memory),
            registration_table(&results.registrations),
            serving_table(&results.serving),
            target::table(&self.targets),
        ]
        .join("\n");
        for missed in self.targets.iter().filter(|target| !target.met) {
            let because = missed.because.as_deref().unwrap_or_default();
            text.push_str(&format!("\nMISSED {}: {because}\n", missed.measure));
        }
        text
    }
}

fn head<const N: usize>(names: [&str; N]) -> Vec<[String; N]> {
    vec![names.map(str::to_owned)]
}

fn decimal(value: f64) -> String {
    format!("{value:.1}")
}

fn work_table(all: &[Work]) -> String {
    let mut rows = head([
        "NEW OFFERS",
        "OFFERS",
        "SECONDS",
        "UNTIL LEADING",
        "REQUESTS",
        "STATUSES",
        "FAILED",
        "CPU S",
        "API SERVER S",
        "MACHINE S",
    ]);
    for work in all {
        rows.push([
            work.contender.name().to_owned(),
            work.offers.to_string(),
            decimal(work.seconds),
            decimal(work.until_leading),
            work.requests.total().to_string(),
            work.requests.offer_statuses.to_string(),
            work.requests.failed.to_string(),
            decimal(work.cost.leader),
            decimal(work.cost.api_server),
            decimal(work.cost.machine),
        ]);
    }
    table(&rows)
}

fn change_table(all: &[ChangeCost]) -> String {
    let mut rows = head([
        "CHANGES",
        "OFFERS",
        "CHANGES",
        "CPU MS EACH",
        "API SERVER MS EACH",
        "REQUESTS EACH",
    ]);
    for change in all {
        let count = change.changes as f64;
        rows.push([
            change.contender.name().to_owned(),
            change.offers.to_string(),
            change.changes.to_string(),
            format!("{:.3}", change.milliseconds),
            format!("{:.3}", change.cost.api_server * 1000.0 / count),
            format!("{:.2}", f64::from(change.requests.total()) / count),
        ]);
    }
    table(&rows)
}

fn steady_table(all: &[SteadyMinute]) -> String {
    let mut rows = head([
        "STEADY MINUTE",
        "ROLE",
        "WITH",
        "LEASE WRITES",
        "OTHER WRITES",
        "READS",
        "WATCHES",
        "CPU MS",
        "API SERVER MS",
    ]);
    for steady in all {
        rows.push([
            steady.contender.name().to_owned(),
            steady.role.name().to_owned(),
            steady.state.name().to_owned(),
            steady.requests.lease_writes.to_string(),
            steady.requests.writes().to_string(),
            steady.requests.reads.to_string(),
            steady.requests.watches.to_string(),
            format!("{:.0}", steady.cpu * 1000.0),
            format!("{:.0}", steady.api_server * 1000.0),
        ]);
    }
    table(&rows)
}

fn memory_table(all: &[Memory]) -> String {
    let mut rows = head(["MEMORY", "ROLE", "WITH", "RSS MB", "MOST SO FAR MB"]);
    for memory in all {
        rows.push([
            memory.contender.name().to_owned(),
            memory.role.name().to_owned(),
            memory.state.name().to_owned(),
            decimal(memory.resident),
            decimal(memory.most_resident),
        ]);
    }
    table(&rows)
}

fn registration_table(all: &[Registrations]) -> String {
    let mut rows = head([
        "REGISTRATIONS",
        "TO",
        "SECONDS",
        "PER SECOND",
        "REQUESTS",
        "FAILED",
        "CPU S",
        "API SERVER S",
        "MACHINE S",
    ]);
    for part in all {
        rows.push([
            format!("from {}", part.from),
            part.to.to_string(),
            decimal(part.seconds),
            format!("{:.2}", part.per_second),
            part.requests.total().to_string(),
            part.requests.failed.to_string(),
            decimal(part.cost.leader),
            decimal(part.cost.api_server),
            decimal(part.cost.machine),
        ]);
    }
    table(&rows)
}

fn serving_table(all: &[Serving]) -> String {
    let mut rows = head([
        "DOCUMENTS",
        "ROLE",
        "REQUESTS",
        "CHANGES",
        "BYTES",
        "P50 MS",
        "P99 MS",
        "MAX MS",
    ]);
    for serving in all {
        rows.push([
            serving.document.name().to_owned(),
            serving.role.name().to_owned(),
            serving.requests.to_string(),
            serving.changes.to_string(),
            serving.bytes.to_string(),
            format!("{:.2}", serving.p50),
            format!("{:.2}", serving.p99),
            format!("{:.2}", serving.max),
        ]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(contender: Contender, offers: usize, seconds: f64) -> Work {
        Work {
            contender,
            offers,
            seconds,
            until_leading: 1.0,
            cost: Cost::default(),
            requests: Requests::default(),
        }
    }

    fn memory(contender: Contender, role: Role, state: State, resident: f64) -> Memory {
        Memory {
            contender,
            state,
            role,
            resident,
            most_resident: resident + 10.0,
        }
    }

    fn change(offers: usize, milliseconds: f64) -> ChangeCost {
        ChangeCost {
            contender: Contender::Operator,
            offers,
            changes: 100,
            milliseconds,
            cost: Cost::default(),
            requests: Requests::default(),
        }
    }

    fn part(from: usize, to: usize, per_second: f64) -> Registrations {
        Registrations {
            from,
            to,
            seconds: 1.0,
            per_second,
            cost: Cost::default(),
            requests: Requests::default(),
        }
    }

    fn verdict(results: &Results, measure: &str) -> (bool, Option<String>) {
        let targets = results.targets();
        let found = targets.iter().find(|target| target.measure == measure);
        let found = found.unwrap();
        (found.met, found.measured.clone())
    }

    #[test]
    fn target_without_a_measurement_is_not_met() {
        let targets = Results::default().targets();
        let is_open = |target: &Target| !target.met && target.measured.is_none();
        assert!(targets.iter().all(is_open), "{targets:?}");
    }

    #[test]
    fn largest_run_of_each_contender_is_compared() {
        let measure = "offers, seconds of the peer / operator";
        let mut results = Results {
            work: vec![
                work(Contender::Operator, 1_000, 1.0),
                work(Contender::Operator, 10_000, 10.0),
                work(Contender::ControllerRuntime, 10_000, 19.0),
            ],
            ..Results::default()
        };
        assert_eq!(verdict(&results, measure), (false, Some("1.900".into())));
        results.work[2].seconds = 20.0;
        assert_eq!(verdict(&results, measure), (true, Some("2".into())));
    }

    #[test]
    fn most_memory_of_the_operator_in_any_state_counts() {
        let results = Results {
            memory: vec![
                memory(Contender::Operator, Role::Leader, State::Offers, 80.0),
                memory(Contender::Operator, Role::Leader, State::Documents, 96.5),
                memory(Contender::Operator, Role::Standby, State::Offers, 50.0),
                memory(
                    Contender::ControllerRuntime,
                    Role::Standby,
                    State::Offers,
                    90.0,
                ),
            ],
            ..Results::default()
        };
        let leader = verdict(&results, "leader's resident memory");
        assert_eq!(leader, (false, Some("96.50 MB".into())));
        let standby = verdict(&results, "standby's resident memory");
        assert_eq!(standby, (true, Some("50 MB".into())));
    }

    #[test]
    fn rates_may_fall_and_costs_rise_by_a_fifth() {
        let of = |last: f64, many: f64| {
            let results = Results {
                changes: vec![change(1_000, 1.0), change(10_000, many)],
                registrations: vec![
                    part(0, 100, 1.0),
                    part(100, 500, 10.0),
                    part(500, 3_600, 99.0),
                    part(3_600, 4_000, last),
                ],
                ..Results::default()
            };
            let rate = verdict(&results, "registrations per second, last / first");
            let cost = verdict(&results, "CPU per change, all offers / a tenth of them");
            (rate.0, cost.0)
        };
        assert_eq!(of(8.0, 1.2), (true, true));
        assert_eq!(of(7.9, 1.21), (false, false));
    }
}
