//! Tests that need root, namespaces, accounts or init programs. For other users most of them do
//! nothing.
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
mod login;
mod machine;
mod program;
#[path = "login/seat.rs"]
mod seat;
#[path = "gatekeeper/taken.rs"]
mod taken;
mod tree;

mod accounts;
mod apart;
mod awaited;
mod bashrc;
mod degraded;
mod doors_excluded;
mod enrol;
mod example_scripts;
mod examples;
mod faults;
mod gatekeeper;
mod init;
mod logins;
mod look_ups;
mod sandbox;
mod signer;
mod superserver;
