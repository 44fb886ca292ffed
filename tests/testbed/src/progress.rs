//! Progress output while a testbed is built, started or removed.
//!
//! On a terminal: one line per step with a spinner and the elapsed time. Otherwise: one plain line
//! when a slow step starts, and one when it is done.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Prints steps.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: Option<MultiProgress>,
    detail: Detail,
}

/// Which steps are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Every step.
    All,
    /// Only steps that did something.
    Changes,
}

impl Progress {
    pub(crate) fn new(detail: Detail) -> Self {
        Self {
            terminal: stderr().is_terminal().then(MultiProgress::new),
            detail,
        }
    }

    /// A new step. It prints nothing yet.
    pub(crate) fn step(&self, name: impl Into<String>) -> Step<'_> {
        Step {
            progress: self,
            name: name.into(),
            begun: Instant::now(),
            bar: None,
        }
    }

    /// Prints a line.
    pub(crate) fn print(&self, line: &str) {
        match &self.terminal {
            // Fails if the terminal is gone; then nothing can be printed.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }
}

/// A step that takes time and has an outcome.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    name: String,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Step<'_> {
    /// Prints what the step does now.
    pub(crate) fn update(&mut self, what: &str) {
        let Some(bars) = &self.progress.terminal else {
            return eprintln!("{}: {what}", self.name);
        };
        let bar = self.bar.get_or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix:<24} {msg} ({elapsed})")
            {
                bar.set_style(style);
            }
            bar.set_prefix(self.name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(what.to_owned());
    }

    /// Ends a step that had nothing to do. Printed only with [`Detail::All`].
    pub(crate) fn skipped(self, why: &str) {
        if self.progress.detail == Detail::All {
            self.done(why);
        }
    }

    /// Ends the step and prints its outcome.
    pub(crate) fn done(mut self, outcome: &str) {
        let seconds = self.begun.elapsed().as_secs_f32();
        match self.bar.take() {
            Some(bar) => {
                if let Ok(style) = ProgressStyle::with_template("  {prefix:<24} {msg}") {
                    bar.set_style(style);
                }
                bar.finish_with_message(format!("{outcome} ({seconds:.1} s)"));
            }
            None => self
                .progress
                .print(&format!("{}: {outcome} ({seconds:.1} s)", self.name)),
        }
    }
}

impl Drop for Step<'_> {
    /// A step that is dropped before it ended has failed. The error says why.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon_with_message("failed");
        }
    }
}
