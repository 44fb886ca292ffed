//! Selling: buyers and facilitators of the reference implementation trade through the gate, and the
//! chain says what was paid.

mod browser;
mod change;
mod clients;
mod conditions;
mod failure;
mod gateway;
mod legacy;
mod outage;
mod purchase;
mod shop;
mod upstream;
