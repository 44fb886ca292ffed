//! A campaign of faults against real candidates: in each, a group competes for one Lease and works, while one kind of fault is
//! injected again and again. What was done is judged by `election::campaign`, from the audit log and from what the chain was
//! sent; what the processes log only explains.
//!
//! - [`ground`] is where it takes place, and how it ends: with its judgement
//! - [`group`] keeps candidates running, each a [`contender`]; [`work`] keeps them busy
//! - [`hole`] cuts one of them off; [`table`] is what came of it
//!
//! Faults: [`freeze`], [`death`], [`outage`], [`partition`], [`meddling`], [`rights`], [`twins`], [`phase`], [`clock`].

mod contender;
mod ground;
mod group;
mod hole;
mod table;
mod work;

mod clock;
mod death;
mod freeze;
mod meddling;
mod outage;
mod partition;
mod phase;
mod rights;
mod twins;
