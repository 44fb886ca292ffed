//! What an offer means for a registry: which agent it uses, whether it may be listed, and what the
//! document says. Each question has one answer here, for both loops and for the documents.
//!
//! - [`address`]: whether an address fails its own checksum
//! - [`view`]: one view of an offer of the cache, made of the answers below
//! - [`contract`]: which IdentityRegistry speaks for a contract
//! - [`signers`]: which IdentityRegistry holds a signer
//! - [`identity`]: which registry an offer uses, and the key of its agent
//! - [`eligibility`]: whether an offer may be listed, and why not
//! - [`adoption`]: which namespace may use an agent, if an admin decided it
//! - [`document`]: the registration file of an agent (ERC-8004), and the well-known document
//!
//! Objects come from the cache, and the time is passed in. Nothing here knows the state of a chain:
//! that is [`crate::ledger`]. Used by both loops ([`crate::reconcile`]) and by
//! [`crate::http::documents`].

pub(crate) mod address;
pub(crate) mod adoption;
pub(crate) mod contract;
pub(crate) mod document;
pub(crate) mod eligibility;
pub(crate) mod identity;
pub(crate) mod signers;
pub(crate) mod view;

#[cfg(test)]
pub(crate) mod fixtures;
