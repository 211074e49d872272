//! Tests that take long or repeat much: races, kills at every write, replays, real programs. `make
//! test` omits them; continuous integration runs them with short counts, `make soak` with long
//! ones.
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

mod daemon;
mod door;
mod machine;
mod tool;

mod doors_killed;
mod doors_race;
mod real_programs;
mod released;
mod replays;
