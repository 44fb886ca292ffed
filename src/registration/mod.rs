//! What an offer means for a registry: which agent it uses, whether it may be listed, and what the
//! document says. Pure.
//!
//! - [`identity`]: which registry an offer uses, and the key of its agent
//! - [`eligibility`]: whether an offer may be listed, and why not
//! - [`document`]: the registration file of an agent (ERC-8004), and the well-known document
//!
//! Objects come from the cache, and the time is passed in. Nothing here knows the state of a chain:
//! that is [`crate::ledger`]. Used by both loops ([`crate::reconcile`]) and by
//! [`crate::http::documents`].

pub(crate) mod document;
pub(crate) mod eligibility;
pub(crate) mod identity;

#[cfg(test)]
pub(crate) mod fixtures;
