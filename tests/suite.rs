//! All other tests: daemon, clients and protocol, for root and for an ordinary user.
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
#[path = "doors_admin/host.rs"]
mod host;
mod login;
mod machine;
mod program;
#[path = "login/seat.rs"]
mod seat;
mod tool;

mod admin;
mod attack;
mod client_doors;
mod client_gui;
mod client_refused;
mod client_run;
mod client_streams;
mod config_daemon;
mod cosrsh;
mod doors;
mod doors_admin;
mod doors_shared;
mod ecosystem;
mod exec;
mod fallbacks;
mod guards;
mod hangups;
mod idmaint;
mod independent;
mod jump;
mod leaks;
mod life;
mod named_services;
mod processes;
mod seed_walk;
mod sftp;
mod signals;
mod slots;
mod ssh_face;
mod ssh_tools;
mod starting;
mod streams;
mod subsystems;
mod who;
