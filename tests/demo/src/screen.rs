//! What the person at the terminal sees.

use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::summary::Step;

/// The steps that were shown, with their times.
#[derive(Debug, Default)]
pub struct Screen {
    steps: Vec<Step>,
}

impl Screen {
    /// Shows a step, carries it out, and shows how long it took.
    ///
    /// # Errors
    /// Whatever keeps it from being carried out.
    pub async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let begun = begin(name);
        let outcome = work.await;
        self.end(name, begun, outcome)
    }

    /// The same for a step that is not asynchronous.
    ///
    /// # Errors
    /// Whatever keeps it from being carried out.
    pub fn shown<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = begin(name);
        let outcome = work();
        self.end(name, begun, outcome)
    }

    fn end<T>(&mut self, name: &str, begun: Instant, outcome: Result<T>) -> Result<T> {
        let value = outcome.with_context(|| name.to_owned())?;
        let seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        say(&styled(DIM, &format!("  {seconds:.1} s")));
        self.steps.push(Step {
            name: name.to_owned(),
            seconds,
        });
        Ok(value)
    }

    /// The steps so far.
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

fn begin(name: &str) -> Instant {
    say(&format!("\n{}", styled(BOLD, name)));
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

/// A line. Nobody listening is no reason to stop: the exit code and the summary tell as well.
pub fn say(line: &str) {
    clear_passing();
    let _ = writeln!(stdout(), "{line}");
}

/// A command that is run.
pub fn command(line: &str) {
    say(&format!("  {}", styled(BOLD, &format!("$ {line}"))));
}

/// What a command said.
pub fn output(text: &str) {
    for line in text.lines() {
        say(&format!("  {line}"));
    }
}

/// A line that the next one replaces; only a terminal can do that.
pub fn passing(line: &str) {
    let mut out = stdout();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[2K  {}", styled(DIM, line));
        let _ = out.flush();
    }
}

fn clear_passing() {
    let mut out = stdout();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[2K");
    }
}

/// Rows below headings, each column as wide as it must be.
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
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    output(&styled(DIM, &line(&mut headings.iter().copied())));
    for row in rows {
        output(&line(&mut row.iter().map(String::as_str)));
    }
}

/// A promise, and whether it was kept.
pub fn verdict(kept: bool, line: &str) {
    let (style, word) = if kept { (GREEN, "ok") } else { (RED, "BROKEN") };
    say(&format!(
        "  {}  {line}",
        styled(style, &format!("{word:<6}"))
    ));
}
