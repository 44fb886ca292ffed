//! Draws the results.

use std::path::Path;

use anyhow::Result;
use scale::bars::{self, Bar, Group, Side};
use scale::replicas::{Contender, Role};

use crate::report::{AGENT_P99, LEADER_MEMORY, LISTING_P99, Results, STANDBY_MEMORY, State};
use crate::serving::Document;

/// Writes the plot as SVG.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(file: &Path, results: &Results) -> Result<()> {
    let title = "Operator and a controller-runtime reconciler; less is better, except for registrations per second (line: target)";
    bars::draw(file, title, &groups(results))
}

fn groups(results: &Results) -> Vec<Group> {
    let most_offers = results.work.iter().map(|work| work.offers).max();
    let largest = || {
        let work = results.work.iter();
        work.filter(|work| Some(work.offers) == most_offers)
    };
    let of_work = |title: &str, unit, value: fn(&crate::report::Work) -> f64| Group {
        title: format!("{} offers: {title}", most_offers.unwrap_or_default()),
        unit,
        bars: largest()
            .map(|work| Bar {
                label: work.contender.name().to_owned(),
                side: side(work.contender),
                value: value(work),
            })
            .collect(),
        bound: None,
    };
    let memory = |title: &str, role: Role, bound| Group {
        title: title.to_owned(),
        unit: "MB",
        bars: results
            .memory
            .iter()
            .filter(|memory| memory.role == role)
            .map(|memory| Bar {
                label: match memory.state {
                    State::Offers => memory.contender.name().to_owned(),
                    state => format!("{}, {}", memory.contender.name(), state.name()),
                },
                side: side(memory.contender),
                value: memory.resident,
            })
            .collect(),
        bound: Some(bound),
    };
    let serving = |title: &str, document: Document, bound| Group {
        title: title.to_owned(),
        unit: "ms",
        bars: results
            .serving
            .iter()
            .filter(|serving| serving.document == document)
            .map(|serving| Bar {
                label: serving.role.name().to_owned(),
                side: Side::Operator,
                value: serving.p99,
            })
            .collect(),
        bound: Some(bound),
    };
    let changes = Group {
        title: "CPU per change of an offer".to_owned(),
        unit: "ms",
        bars: results
            .changes
            .iter()
            .map(|change| Bar {
                label: format!("{}, {} offers", change.contender.name(), change.offers),
                side: side(change.contender),
                value: change.milliseconds,
            })
            .collect(),
        bound: None,
    };
    let rates = Group {
        title: "registrations per second".to_owned(),
        unit: "",
        bars: results
            .rates()
            .into_iter()
            .flat_map(|(first, last)| [first, last])
            .map(|part| Bar {
                label: format!("{} to {}", part.from, part.to),
                side: Side::Operator,
                value: part.per_second,
            })
            .collect(),
        bound: None,
    };
    vec![
        of_work("time", "s", |work| work.seconds),
        of_work("CPU of the leader", "s", |work| work.cost.leader),
        of_work("CPU of the API server", "s", |work| work.cost.api_server),
        of_work("API requests", "", |work| f64::from(work.requests.total())),
        changes,
        memory("memory of the leader", Role::Leader, LEADER_MEMORY),
        memory("memory of the standby", Role::Standby, STANDBY_MEMORY),
        rates,
        serving("/agents/<key>.json, p99", Document::Agent, AGENT_P99),
        serving("listing, p99", Document::Listing, LISTING_P99),
    ]
}

const fn side(contender: Contender) -> Side {
    match contender {
        Contender::Operator => Side::Operator,
        Contender::ControllerRuntime => Side::Peer,
    }
}
