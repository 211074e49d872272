//! Messages by themselves: no program is started. Some look at the memory of their process, so
//! that nothing else may run in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a test panics where something is not as it should be, starts programs, and says what it leaves out"
)]

mod mutants;
mod vectors;
