//! Progress output: on a terminal one bar per series, elsewhere one line per quarter.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The progress output.
#[derive(Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

/// The progress of one series.
#[derive(Debug)]
pub struct ProgressTrack {
    name: String,
    total: usize,
    done: AtomicUsize,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Bars if stderr is a terminal, lines otherwise.
    pub fn new() -> Self {
        Self {
            bars: stderr().is_terminal().then(MultiProgress::new),
        }
    }

    /// Prints a line.
    pub fn say(&self, line: &str) {
        match &self.bars {
            // An error means that there is no terminal any more.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }

    /// Starts a series of `total` steps.
    pub fn track(&self, name: impl Into<String>, total: usize) -> ProgressTrack {
        let name = name.into();
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX)));
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix:<48} {bar:30} {pos:>4}/{len:<4} {elapsed:>5} {msg}",
            ) {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        ProgressTrack {
            name,
            total,
            done: AtomicUsize::new(0),
            bar,
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl ProgressTrack {
    /// Reports a finished step and its outcome.
    pub fn step(&self, outcome: &str) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.report(done - 1, done, outcome);
    }

    /// Reports that this many steps are finished, and the outcome of the last.
    pub fn reach(&self, done: usize, outcome: &str) {
        let before = self.done.swap(done, Ordering::Relaxed);
        if done > before {
            self.report(before, done, outcome);
        }
    }

    fn report(&self, before: usize, done: usize, outcome: &str) {
        match &self.bar {
            Some(bar) => {
                bar.inc(u64::try_from(done - before).unwrap_or(0));
                bar.set_message(outcome.to_owned());
                if done == self.total {
                    bar.finish();
                }
            }
            None if done * 4 / self.total > before * 4 / self.total => {
                eprintln!("{}: {done} of {}, {outcome}", self.name, self.total);
            }
            None => {}
        }
    }
}
