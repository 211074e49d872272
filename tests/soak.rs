//! What takes long or repeats much: races, kills at every write, replays, times that are
//! compared, real programs. `make test` leaves it out; continuous integration runs it with short
//! counts, `make soak` with long ones.
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

mod client_host;
mod daemon;
mod door;
mod login;
mod machine;
mod program;
mod tool;

mod distance;
mod doors_killed;
mod doors_race;
mod doors_times;
mod login_times;
mod real_programs;
mod replays;
