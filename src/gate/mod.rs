//! Parts of the payment gate: the reverse proxy that is to stand between a buyer and the upstream of
//! an offer. The operator uses what asks facilitators; the rest is not joined yet.
//!
//! - [`path`] reads the target of a request into one view of its path (pure)
//! - [`limit`] decides how much load an offer and a client address may cause (pure)
//! - [`headers`] decides which fields a request and a response keep (pure)
//! - [`proxy`] carries requests to upstreams, and holds the start of a response until it is paid
//! - [`facilitator`] asks a facilitator to verify and to settle a payment, and what it supports
//! - [`answer`] reads what it answers, and believes little of it (pure)
//! - [`token`] signs the tokens that one kind of facilitator asks for
//!
//! It writes nothing to the cluster. Objects come from [`crate::cluster::cache`]; the operator
//! reports on facilitators in [`crate::reconcile`].

mod answer;
mod facilitator;
pub(crate) mod headers;
pub(crate) mod limit;
pub(crate) mod path;
pub(crate) mod proxy;
mod token;

pub(crate) use answer::Supported;
pub(crate) use facilitator::{FacilitatorClient, FacilitatorEndpoint, FacilitatorError};
