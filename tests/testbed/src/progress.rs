//! What the person at the terminal sees while something is built, started or taken down.
//!
//! On a terminal: one line per step with a spinner and the elapsed time. Anywhere else: one plain line when a step begins
//! something slow, and one when it is done.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shows steps.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: Option<MultiProgress>,
    detail: Detail,
}

/// Which steps are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Every step.
    All,
    /// Only steps that had something to do.
    Changes,
}

impl Progress {
    pub(crate) fn new(detail: Detail) -> Self {
        Self {
            terminal: stderr().is_terminal().then(MultiProgress::new),
            detail,
        }
    }

    /// A step that has not said anything yet.
    pub(crate) fn step(&self, name: impl Into<String>) -> Step<'_> {
        Step {
            progress: self,
            name: name.into(),
            begun: Instant::now(),
            bar: None,
        }
    }

    /// A line of its own.
    pub(crate) fn say(&self, line: &str) {
        match &self.terminal {
            // Without a terminal to draw on there is nothing to tell and nobody to tell it to.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }
}

/// Something that takes time and has an outcome.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    name: String,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Step<'_> {
    /// Says what the step is doing from now on.
    pub(crate) fn doing(&mut self, what: &str) {
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

    /// Says that there was nothing to do, to those who want to know.
    pub(crate) fn unneeded(self, why: &str) {
        if self.progress.detail == Detail::All {
            self.done(why);
        }
    }

    /// Says how the step ended.
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
                .say(&format!("{}: {outcome} ({seconds:.1} s)", self.name)),
        }
    }
}

impl Drop for Step<'_> {
    /// A step that was dropped half-way failed; the error says why.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon_with_message("failed");
        }
    }
}
