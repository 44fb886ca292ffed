//! Plots the distributions: one row per series, one dot per sample.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::{Measure, Series};
use crate::candidate::Implementation;

/// Seconds at the ends of the axis.
const AXIS: (f64, f64) = (0.005, 100.0);
/// Marks on the axis.
const MARKS: [(f64, &str); 9] = [
    (0.01, "10 ms"),
    (0.03, ""),
    (0.1, "0.1 s"),
    (0.3, ""),
    (1.0, "1 s"),
    (3.0, ""),
    (10.0, "10 s"),
    (30.0, "30 s"),
    (100.0, ""),
];
const WIDTH: i32 = 960;
const LEFT: i32 = 330;
const RIGHT: i32 = 900;
const TOP: i32 = 60;
const ROW: i32 = 26;
const GAP: i32 = 16;

/// Writes the plot as SVG.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(file: &Path, series: &[Series]) -> Result<()> {
    let rows = rows(series);
    let bottom = rows.last().map_or(TOP, |(_, y)| y + ROW);
    let size = (u32::try_from(WIDTH)?, u32::try_from(bottom + 50)?);
    let area = SVGBackend::new(file, size).into_drawing_area();
    let error = |error| anyhow!("{}: {error}", file.display());
    let text = |size: u32, color: &RGBColor, anchor: Pos| {
        ("sans-serif", size).into_font().color(color).pos(anchor)
    };
    let left = Pos::new(HPos::Left, VPos::Center);
    let right = Pos::new(HPos::Right, VPos::Center);
    let middle = Pos::new(HPos::Center, VPos::Center);
    area.fill(&WHITE).map_err(error)?;
    let title = "Time from the end of a leader to the start of the next (dot: sample, bar: median)";
    area.draw(&Text::new(title, (16, 24), text(15, &BLACK, left)))
        .map_err(error)?;
    for (seconds, label) in MARKS {
        let x = across(seconds);
        let line = [(x, TOP - 12), (x, bottom)];
        area.draw(&PathElement::new(
            line,
            RGBColor(225, 225, 225).stroke_width(1),
        ))
        .map_err(error)?;
        area.draw(&Text::new(
            label,
            (x, bottom + 14),
            text(12, &BLACK, middle),
        ))
        .map_err(error)?;
    }
    for (one, y) in &rows {
        let color = color(one.case.kind);
        let name = format!("{}: {}", one.measure.name(), one.case);
        area.draw(&Text::new(name, (LEFT - 14, *y), text(12, &color, right)))
            .map_err(error)?;
        for (at, sample) in one.samples.iter().enumerate() {
            let dot = Circle::new(
                (across(sample.seconds), y + spread(at)),
                3,
                color.mix(0.35).filled(),
            );
            area.draw(&dot).map_err(error)?;
        }
        if let Some(median) = one.distribution().quantile(0.5) {
            let x = across(median);
            let bar = Rectangle::new([(x - 1, y - 11), (x + 1, y + 11)], color.filled());
            area.draw(&bar).map_err(error)?;
        }
    }
    area.present().map_err(error)?;
    Ok(())
}

/// Each series and the y coordinate of its row, with a gap between measures.
fn rows(series: &[Series]) -> Vec<(&Series, i32)> {
    let mut y = TOP;
    let mut last: Option<Measure> = None;
    let mut rows = Vec::new();
    for one in series {
        if last.is_some_and(|last| last != one.measure) {
            y += GAP;
        }
        last = Some(one.measure);
        rows.push((one, y));
        y += ROW;
    }
    rows
}

/// X coordinate of a time on the logarithmic axis.
fn across(seconds: f64) -> i32 {
    let (first, last) = AXIS;
    let share = (seconds.clamp(first, last) / first).ln() / (last / first).ln();
    #[allow(clippy::cast_possible_truncation, reason = "a coordinate in the plot")]
    let offset = (share * f64::from(RIGHT - LEFT)).round() as i32;
    LEFT + offset
}

/// Vertical offset that separates dots of similar times.
fn spread(at: usize) -> i32 {
    [0, -6, 6, -3, 3, -8, 8][at % 7]
}

fn color(kind: Implementation) -> RGBColor {
    match kind {
        Implementation::Operator => RGBColor(0, 110, 60),
        Implementation::ClientGo => RGBColor(0, 90, 180),
        Implementation::ControllerRuntime => RGBColor(180, 80, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_is_logarithmic_and_clamps_values() {
        assert_eq!((across(AXIS.0), across(AXIS.1)), (LEFT, RIGHT));
        assert_eq!((across(0.0), across(1000.0)), (LEFT, RIGHT));
        let steps = [across(0.1) - across(0.01), across(10.0) - across(1.0)];
        assert!((steps[0] - steps[1]).abs() <= 1, "{steps:?}");
    }
}
