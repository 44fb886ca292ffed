//! Selling: buyers and facilitators of the reference implementation trade through the gate, and the
//! chain says what was paid.

mod failure;
mod purchase;
mod shop;
