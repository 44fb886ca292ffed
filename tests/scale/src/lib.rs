//! What the benchmarks of the operator with many offers share.
//!
//! `bench-scale` (`main.rs`) measures what offers and registrations cost, and `bench-chain`
//! (`chain/main.rs`) how fast registrations reach a chain. [`offers`] writes what sellers and an
//! administrator write, [`replicas`] starts and stops a contender, [`requests`] counts API requests
//! in the audit log, [`cost`] reads processor time, and [`bars`] draws figures.

pub mod bars;
pub mod cost;
pub mod offers;
pub mod replicas;
pub mod requests;
