//! Draws the results: one group of bars per figure, each group with its own scale.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::replicas::{Contender, Role};
use crate::report::{AGENT_P99, LEADER_MEMORY, LISTING_P99, Results, STANDBY_MEMORY, State};
use crate::serving::Document;

const WIDTH: i32 = 960;
const LEFT: i32 = 420;
const RIGHT: i32 = 840;
const TOP: i32 = 60;
const BAR: i32 = 18;
const GAP: i32 = 14;

/// A figure: its bars, and the value that no bar should exceed.
struct Group {
    title: String,
    unit: &'static str,
    bars: Vec<Bar>,
    bound: Option<f64>,
}

struct Bar {
    label: String,
    contender: Contender,
    value: f64,
}

/// Writes the plot as SVG.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(file: &Path, results: &Results) -> Result<()> {
    let groups = groups(results);
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = TOP + BAR * i32::try_from(bars)? + GAP * i32::try_from(groups.len())? + 20;
    let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
    let area = SVGBackend::new(file, size).into_drawing_area();
    let error = |error| anyhow!("{}: {error}", file.display());
    let text = |size: u32, color: &RGBColor, anchor: Pos| {
        ("sans-serif", size).into_font().color(color).pos(anchor)
    };
    let left = Pos::new(HPos::Left, VPos::Center);
    let right = Pos::new(HPos::Right, VPos::Center);
    area.fill(&WHITE).map_err(error)?;
    let title = "Operator and a controller-runtime reconciler; less is better, except for registrations per second (line: target)";
    area.draw(&Text::new(title, (16, 24), text(14, &BLACK, left)))
        .map_err(error)?;
    let mut y = TOP;
    for group in &groups {
        let most = group.bars.iter().map(|bar| bar.value);
        let most = most.chain(group.bound).fold(f64::MIN_POSITIVE, f64::max);
        area.draw(&Text::new(
            group.title.as_str(),
            (16, y),
            text(12, &BLACK, left),
        ))
        .map_err(error)?;
        let first = y;
        for bar in &group.bars {
            let color = color(bar.contender);
            area.draw(&Text::new(
                bar.label.as_str(),
                (LEFT - 10, y),
                text(12, &color, right),
            ))
            .map_err(error)?;
            let end = across(bar.value, most);
            let corners = [(LEFT, y - 6), (end, y + 6)];
            area.draw(&Rectangle::new(corners, color.mix(0.6).filled()))
                .map_err(error)?;
            let value = harness::bench::target::number((bar.value * 1000.0).round() / 1000.0);
            let value = format!("{value} {}", group.unit);
            area.draw(&Text::new(
                value.trim_end(),
                (end + 6, y),
                text(12, &color, left),
            ))
            .map_err(error)?;
            y += BAR;
        }
        if let Some(bound) = group.bound {
            let x = across(bound, most);
            let line = [(x, first - 9), (x, y - BAR + 9)];
            area.draw(&PathElement::new(line, RED.stroke_width(1)))
                .map_err(error)?;
        }
        y += GAP;
    }
    area.present().map_err(error)?;
    Ok(())
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
                contender: work.contender,
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
                contender: memory.contender,
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
                contender: Contender::Operator,
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
                contender: change.contender,
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
                contender: Contender::Operator,
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

/// X coordinate of a value, if `most` is at the right end.
fn across(value: f64, most: f64) -> i32 {
    let share = (value / most).clamp(0.0, 1.0);
    #[allow(clippy::cast_possible_truncation, reason = "a coordinate in the plot")]
    let offset = (share * f64::from(RIGHT - LEFT)).round() as i32;
    LEFT + offset
}

fn color(contender: Contender) -> RGBColor {
    match contender {
        Contender::Operator => RGBColor(0, 110, 60),
        Contender::ControllerRuntime => RGBColor(180, 80, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_end_within_the_axis() {
        assert_eq!((across(0.0, 5.0), across(5.0, 5.0)), (LEFT, RIGHT));
        assert_eq!((across(-1.0, 5.0), across(9.0, 5.0)), (LEFT, RIGHT));
    }
}
