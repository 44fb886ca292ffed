//! Selling: buyers and facilitators of the reference implementation trade through the gate, and the
//! chain says what was paid.

mod attack;
mod browser;
mod change;
mod clients;
mod conditions;
mod conflict;
mod crash;
pub mod failure;
mod forward;
mod gateway;
mod legacy;
mod outage;
mod purchase;
pub mod shop;
mod upstream;
