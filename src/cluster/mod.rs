//! The Kubernetes API server. Everything but the elector uses it through this room.
//!
//! - [`client`] builds clients: no automatic retries, every request counted, no write through a
//!   closed fence
//! - [`cache`] holds every kind that decisions and documents need, on every replica
//! - [`read`] reads from the API server where the cache is not current enough
//! - [`mod@write`] writes; each of its functions takes a [`crate::leader::Leading`]
//! - [`quarantine`] holds the one write that needs none, because it can only stop
//! - [`endpoints`] counts the Pods behind a Service
//! - [`decode`] keeps objects that cannot be decoded from failing a whole list or watch
//!
//! [`kube::Client`] does not leave this room: a [`Reader`] cannot write, and a [`Writer`] cannot
//! write without proof of leadership.

pub(crate) mod cache;
pub(crate) mod client;
pub(crate) mod decode;
pub(crate) mod endpoints;
pub(crate) mod quarantine;
pub(crate) mod read;
mod write;

pub(crate) use cache::{Cache, CacheChange, CacheScope, SaleEdit};
pub use decode::Lenient;
pub(crate) use decode::{MaybeDecoded, Undecodable};
pub(crate) use quarantine::QuarantineWriter;
pub(crate) use read::{LegacyRead, Reader, SecretRead};
pub use write::{EventDraft, Writer};

use crate::leader::NotLeading;

/// A request to the Kubernetes API failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another client wrote first, so the decision behind this write was based on an older version.
    #[error("object was modified concurrently")]
    Conflict,
    /// An object with this name exists.
    #[error("object already exists")]
    Exists,
    /// This replica must not write, or does not know whether its write succeeded.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The API server rejected the request, or did not answer.
    #[error("Kubernetes API request failed")]
    Kubernetes(#[source] Box<kube::Error>),
}

impl Error {
    /// What went wrong, in the words of the API server if it answered.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Kubernetes(error) => match &**error {
                kube::Error::Api(status) => status.message.clone(),
                error => crate::telemetry::causes(error).to_string(),
            },
            error => error.to_string(),
        }
    }

    /// Whether the API server looked at the request and rejected this object: by its schema, an
    /// admission policy or webhook, or a quota. Other objects may be accepted.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Kubernetes(error) => matches!(
                &**error,
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 413 | 422)
                    || status.message.contains("webhook")
            ),
            Self::Conflict | Self::Exists | Self::NotLeading(_) => false,
        }
    }

    /// Label for metrics.
    #[must_use]
    pub const fn reason(&self) -> crate::metrics::FailureReason {
        use crate::metrics::FailureReason;
        match self {
            Self::Conflict | Self::Exists => FailureReason::Conflict,
            Self::NotLeading(_) => FailureReason::NotLeading,
            Self::Kubernetes(_) => FailureReason::Kubernetes,
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_already_exists() => Self::Exists,
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict,
            error => Self::Kubernetes(Box::new(error)),
        }
    }
}
