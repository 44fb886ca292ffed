//! Logs: text for a person at a terminal, JSON for everything else, at a level that can be changed while running.
//!
//! Whatever the level, other crates say no more than `info`: at `debug` an HTTP client shows URLs, and a URL may hold a
//! credential.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, Filtered, filter_fn};
use tracing_subscriber::fmt::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One line of text for each event.
    Text,
    /// One JSON object for each event.
    Json,
}

/// A level or filter that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a log level: write error, warn, info, debug or trace, or directives like serviceoffer::leader=debug"
)]
pub struct FilterError(String);

/// What is logged. All clones are the same filter.
#[derive(Clone)]
pub struct LogFilter {
    set: Arc<dyn Fn(EnvFilter) + Send + Sync>,
    current: Arc<Mutex<String>>,
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.current()).finish()
    }
}

impl LogFilter {
    /// What stands.
    #[must_use]
    pub fn current(&self) -> String {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes it, from this moment on.
    ///
    /// # Errors
    /// If it cannot be read; then nothing changes.
    pub fn set(&self, directives: &str) -> Result<(), FilterError> {
        (self.set)(parse(directives)?);
        directives.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

fn parse(directives: &str) -> Result<EnvFilter, FilterError> {
    let unreadable = || FilterError(directives.to_owned());
    if directives.is_empty() {
        return Err(unreadable());
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|_| unreadable())
}

/// An error with everything that led to it, in one line: `the API server did not do as asked: connection refused`.
///
/// A cause that its effect already spells out is not said twice.
pub fn causes(error: &dyn std::error::Error) -> impl fmt::Display {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}

/// Sets up logs for the whole process.
///
/// # Errors
/// If the level cannot be read.
pub fn init(level: &str, format: LogFormat) -> Result<LogFilter, FilterError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let json = match format {
        LogFormat::Auto => !std::io::stdout().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let layer = Layer::default().with_target(true);
    let layer = if json {
        layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed()
    } else {
        layer.boxed()
    };
    let discreet = filter_fn(is_discreet);
    let filtered: Filtered<_, _, Registry> = layer.with_filter(filter.and(discreet));
    // A second set-up, as in a test, leaves the first in place.
    let _ = tracing_subscriber::registry().with(filtered).try_init();
    let set = move |filter| {
        // The handle outlives the subscriber only while the process ends.
        let _ = handle.reload(filter);
    };
    Ok(LogFilter {
        set: Arc::new(set),
        current: Arc::new(Mutex::new(level.to_owned())),
    })
}

/// Whether an event cannot hold more of another crate's insides than it should.
fn is_discreet(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("serviceoffer") || *metadata.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Fault {
        words: &'static str,
        #[source]
        cause: Option<Box<Fault>>,
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_nothing_twice() {
        let fault = |words, cause: Option<Fault>| Fault {
            words,
            cause: cause.map(Box::new),
        };
        let refused = fault("connection refused", None);
        let request = fault("request: connection refused", Some(refused));
        let error = fault("not answered", Some(request));
        assert_eq!(
            causes(&error).to_string(),
            "not answered: request: connection refused"
        );
        assert_eq!(causes(&fault("alone", None)).to_string(), "alone");
    }

    #[test]
    fn levels_and_directives_are_read_and_nonsense_is_refused_by_name() {
        for directives in ["info", "debug", "warn,serviceoffer::leader=trace"] {
            assert!(parse(directives).is_ok(), "{directives}");
        }
        for directives in ["", "loud==", "info,=="] {
            let error = parse(directives).unwrap_err().to_string();
            assert!(error.contains("is not a log level"), "{error}");
        }
    }
}
