//! cosserver's library: everything but the entry points in `main.rs` and `bin/`.
//!
//! Imports point down this list and never up (`tests/house.rs`):
//!
//! - `daemon`: the daemon's processes (monitor, gate, relay, login, lookup);
//! - `client` and `admin`: the other two programs;
//! - `services`: what an authorized request starts;
//! - `auth`: what the monitor decides with, authentication and policy;
//! - `registry`: the machines that are known, the outer and the inner door;
//! - `tokens`: who may come back without logging in again;
//! - `signer`: vouches for this host's users to other hosts;
//! - `ipc`: the messages between our own processes;
//! - `config`: the administrator's files;
//! - `cli` and `tty`: command lines, their help, the output of `--json`; the terminal;
//! - `protocol`: what is spoken with peers, without I/O;
//! - `sys`, `log`, `curve`, `secret`, `source`, `refusal` and `fault`: the base.
//!
//! Start with `daemon/gate/connection.rs` (an unauthenticated connection) and
//! `daemon/monitor/pipeline.rs` (the decision).

pub mod admin;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod curve;
pub mod daemon;
pub mod fault;
pub mod ipc;
pub mod log;
pub mod protocol;
pub mod refusal;
pub mod registry;
pub mod secret;
pub mod services;
pub mod signer;
pub mod source;
pub mod sys;
pub mod tokens;
pub mod tty;
