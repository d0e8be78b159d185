//! Tests by topic. Everything here runs on ink!'s off-chain engine, which has no revert: that a
//! refused message changed nothing is therefore shown by comparing the whole state, see `world`.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "numbers in tests are small, and a panic is a failed test"
)]

mod access;
mod accounts;
mod cancelling;
mod completing;
mod coverage;
mod ending;
mod holes;
mod keys;
mod life_model;
mod lifecycle;
mod marking;
mod original;
mod parameters;
mod reading;
mod recorded;
mod recording;
mod reference;
mod rows;
mod rules;
mod submitting;
mod trust;
mod vectors;
mod workers;
mod world;
