//! Draws figures as SVG: one group of bars per figure, each group with its own scale.

use std::path::Path;

use anyhow::{Result, anyhow};
use harness::bench::target::number;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: i32 = 960;
const LEFT: i32 = 420;
const RIGHT: i32 = 840;
const TOP: i32 = 60;
const BAR: i32 = 18;
const GAP: i32 = 14;

/// Whose figure a bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The operator's.
    Operator,
    /// That of what it is compared with.
    Peer,
}

/// A figure: its bars, and the value that bars are compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What is shown.
    pub title: String,
    /// Unit of the values; may be empty.
    pub unit: &'static str,
    /// From top to bottom.
    pub bars: Vec<Bar>,
    /// Where the line of the target is.
    pub bound: Option<f64>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What is left of it.
    pub label: String,
    /// Its color.
    pub side: Side,
    /// Its length.
    pub value: f64,
}

/// Writes the plot as SVG.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(file: &Path, title: &str, groups: &[Group]) -> Result<()> {
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
    area.draw(&Text::new(title, (16, 24), text(14, &BLACK, left)))
        .map_err(error)?;
    let mut y = TOP;
    for group in groups {
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
            let color = color(bar.side);
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
            let value = number((bar.value * 1000.0).round() / 1000.0);
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

/// X coordinate of a value, if `most` is at the right end.
fn across(value: f64, most: f64) -> i32 {
    let share = (value / most).clamp(0.0, 1.0);
    #[allow(clippy::cast_possible_truncation, reason = "a coordinate in the plot")]
    let offset = (share * f64::from(RIGHT - LEFT)).round() as i32;
    LEFT + offset
}

fn color(side: Side) -> RGBColor {
    match side {
        Side::Operator => RGBColor(0, 110, 60),
        Side::Peer => RGBColor(180, 80, 0),
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
