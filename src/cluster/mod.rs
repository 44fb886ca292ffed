//! The cluster's API server: the one room through which everything but the elector speaks to it.
//!
//! - [`client`] builds clients: no retries behind anybody's back, every request counted, no write through a closed fence
//! - [`cache`] holds a copy of every kind that decisions and documents need, on every replica
//! - [`read`] asks for the state of this moment, where a copy is not enough
//! - [`mod@write`] changes things; each of its functions takes a [`crate::leader::Leading`]
//!
//! [`kube::Client`] stays inside: whoever holds a [`Reader`] cannot write, and whoever holds a [`Writer`] cannot write
//! without proof of leadership.

pub mod cache;
pub mod client;
pub mod read;
pub mod write;

pub use cache::{Cache, CacheChange};
pub use read::Reader;
pub use write::{EventDraft, Writer};

use crate::leader::NotLeading;

/// The API server did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else wrote first: whatever was decided was decided on something older.
    #[error("the object has been changed meanwhile")]
    Conflict,
    /// An object of that name exists.
    #[error("an object of that name exists")]
    Exists,
    /// This replica must not write, or does not know whether it has.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// The API server refused, or did not answer.
    #[error("the API server did not do as asked")]
    Kubernetes(#[source] Box<kube::Error>),
}

impl Error {
    /// One word for labels.
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
