//! Messages by themselves: no program is started. Some tests check the memory of their process, so
//! nothing large may run beside them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says so and stops"
)]

mod mutants;
mod vectors;
