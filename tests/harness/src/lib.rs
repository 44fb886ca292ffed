//! What flows, demo, campaigns and election tests share.
//!
//! [`wait`] is the only way to look at a running cluster: whatever a cluster reaches only a moment later is waited for, with a
//! message that names it.

pub mod wait;
