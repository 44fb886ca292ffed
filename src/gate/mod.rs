//! The payment gate: what stands between a buyer and the upstream of an offer.
//!
//! - [`facilitator`] asks a facilitator to verify and to settle a payment, and what it supports
//! - [`answer`] reads what it answers, and believes little of it (pure)
//! - [`token`] signs the tokens that one kind of facilitator asks for
//!
//! It writes nothing to the cluster. Objects come from [`crate::cluster::cache`]; the operator
//! reports on facilitators in [`crate::reconcile`].

mod answer;
mod facilitator;
mod token;

pub(crate) use answer::Supported;
pub(crate) use facilitator::{FacilitatorClient, FacilitatorEndpoint, FacilitatorError};
