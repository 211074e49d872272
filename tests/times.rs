//! Tests that compare times, and long distances: each needs the machine for itself, so they run one
//! by one. They are omitted and run like those of `soak.rs`.
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
mod program;

mod distance;
mod doors_times;
mod login_times;
mod service_times;
