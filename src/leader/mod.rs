//! Leader election: at most one replica acts, and a fence closes before another may.

pub mod lease;
pub mod record;
