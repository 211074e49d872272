//! Times that are compared, and distances: each test needs the machine for itself, so they run one
//! by one. They are left out and run as those of `soak.rs` are.
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
