//! What the demo prints.

use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::summary::Step;

/// The steps so far, with their times.
#[derive(Debug, Default)]
pub struct Steps {
    done: Vec<Step>,
}

impl Steps {
    /// Prints a step's name, runs it, and prints how long it took.
    pub async fn run<T>(&mut self, name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let start = begin(name);
        let outcome = work.await;
        self.end(name, start, outcome)
    }

    /// [`Steps::run`] for a step that blocks.
    pub fn run_blocking<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = begin(name);
        let outcome = work();
        self.end(name, start, outcome)
    }

    fn end<T>(&mut self, name: &str, start: Instant, outcome: Result<T>) -> Result<T> {
        let value = outcome.with_context(|| name.to_owned())?;
        let seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        line(&styled(DIM, &format!("  {seconds:.1} s")));
        self.done.push(Step {
            name: name.to_owned(),
            seconds,
        });
        Ok(value)
    }

    pub fn into_vec(self) -> Vec<Step> {
        self.done
    }
}

fn begin(name: &str) -> Instant {
    line(&format!("\n{}", styled(BOLD, name)));
    Instant::now()
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

fn styled(style: &str, text: &str) -> String {
    if stdout().is_terminal() {
        format!("\x1b[{style}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Prints a line. A closed stdout is no reason to stop: exit code and summary report the outcome as
/// well.
pub fn line(text: &str) {
    clear_progress();
    let _ = writeln!(stdout(), "{text}");
}

/// Prints a command before it runs.
pub fn command(line: &str) {
    self::line(&format!("  {}", styled(BOLD, &format!("$ {line}"))));
}

/// Prints text below a step, indented.
pub fn text(text: &str) {
    for line in text.lines() {
        self::line(&format!("  {line}"));
    }
}

/// Prints a line that the next one replaces. Only a terminal shows it.
pub fn progress(line: &str) {
    let mut out = stdout();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[2K  {}", styled(DIM, line));
        let _ = out.flush();
    }
}

fn clear_progress() {
    let mut out = stdout();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[2K");
    }
}

/// Prints rows below headings, each column as wide as it needs to be.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(String::len);
        cells
            .chain(headings.get(column).map(|heading| heading.len()))
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    text(&styled(DIM, &row(&mut headings.iter().copied())));
    for cells in rows {
        text(&row(&mut cells.iter().map(String::as_str)));
    }
}

/// Prints a promise and whether it was kept.
pub fn verdict(kept: bool, promise: &str) {
    let (style, word) = if kept { (GREEN, "ok") } else { (RED, "BROKEN") };
    line(&format!(
        "  {}  {promise}",
        styled(style, &format!("{word:<6}"))
    ));
}
