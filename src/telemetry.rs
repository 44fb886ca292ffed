//! Logs: text on a terminal, JSON otherwise, at a level that can be changed while running.
//!
//! Other crates log at `info` at most, whatever the level: at `debug` an HTTP client logs URLs, and
//! a URL may hold a credential.

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
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// The log level or filter directives are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a log level: use error, warn, info, debug or trace, or directives such as serviceoffer::leader=debug"
)]
pub struct FilterError(String);

/// Decides what is logged. All clones are the same filter.
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
    /// The directives in effect.
    #[must_use]
    pub fn current(&self) -> String {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the directives.
    ///
    /// # Errors
    /// If they are invalid; then the old ones stay in effect.
    pub fn set(&self, directives: &str) -> Result<(), FilterError> {
        (self.set)(parse(directives)?);
        directives.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

fn parse(directives: &str) -> Result<EnvFilter, FilterError> {
    let invalid = || FilterError(directives.to_owned());
    if directives.is_empty() {
        return Err(invalid());
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|_| invalid())
}

/// An error with all its causes on one line: `Kubernetes API request failed: connection refused`.
///
/// A cause that the text already contains is not repeated.
pub fn causes(error: &dyn std::error::Error) -> impl fmt::Display {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = cause.source();
    }
    text
}

/// Sets up logging for the whole process.
///
/// # Errors
/// If the level is invalid.
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
    let safe = filter_fn(is_safe_to_log);
    let filtered: Filtered<_, _, Registry> = layer.with_filter(filter.and(safe));
    // Fails if a subscriber is installed already, as in tests; that one stays.
    let _ = tracing_subscriber::registry().with(filtered).try_init();
    let set = move |filter| {
        // Fails only if the subscriber is gone, while the process exits.
        let _ = handle.reload(filter);
    };
    Ok(LogFilter {
        set: Arc::new(set),
        current: Arc::new(Mutex::new(level.to_owned())),
    })
}

/// Whether an event cannot contain a credential of another crate's request.
fn is_safe_to_log(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("serviceoffer") || *metadata.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Fault {
        message: &'static str,
        #[source]
        cause: Option<Box<Fault>>,
    }

    #[test]
    fn error_is_shown_with_its_causes_and_no_repetition() {
        let fault = |message, cause: Option<Fault>| Fault {
            message,
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
    fn invalid_log_directives_are_rejected_by_name() {
        for directives in ["info", "debug", "warn,serviceoffer::leader=trace"] {
            assert!(parse(directives).is_ok(), "{directives}");
        }
        for directives in ["", "loud==", "info,=="] {
            let error = parse(directives).unwrap_err().to_string();
            assert!(error.contains("is not a log level"), "{error}");
        }
    }
}
