//! The rooms of cosserver. Arrows point down this list and never up:
//! `gate`, `monitor`, `relay`, `lookup`, `login` are the daemon's processes; `client` and `admin`
//! are the other two programs; `door`, `credential`, `policy` and `service` are what
//! the monitor decides with; `signer` vouches for this host's users to others; `sources` has the rules for where strangers come from; `channel` carries the typed questions between our
//! own processes; `wire` is the language spoken with peers; `config` is the
//! administrator's files; `sys`, `log`, `curve`, `secret`, `refusal` and `fault` are the ground.
//!
//! A newcomer starts with `gate/connection.rs` (the stranger's side) and
//! `monitor/answer.rs` (the verdict), which tell the whole story.

pub mod admin;
pub mod channel;
pub mod client;
pub mod config;
pub mod credential;
pub mod curve;
pub mod door;
pub mod fault;
pub mod gate;
pub mod log;
pub mod login;
pub mod lookup;
pub mod monitor;
pub mod policy;
pub mod refusal;
pub mod relay;
pub mod secret;
pub mod service;
pub mod signer;
pub mod sources;
pub mod sys;
pub mod wire;
