//! What an offer means for a registry: whose agent it is, whether it stands, and what the agent's document says. Pure.
//!
//! - [`identity`]: which registry an offer uses, and the key of its agent
//! - [`eligibility`]: whether an offer may be listed, and why not
//! - [`document`]: the registration file of an agent (ERC-8004), and the well-known one
//!
//! Values in, values out: objects come from the cache, time is passed in. Nothing here knows what stands on a chain; that is
//! [`crate::ledger`].

pub mod document;
pub mod eligibility;
pub mod identity;

#[cfg(test)]
pub(crate) mod fixtures;
