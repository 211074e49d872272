//! The wire protocol: records, suites, messages, streams, limits.
//!
//! Used by every process and by the client; `docs/PROTOCOL.md` describes it. This module is pure:
//! bytes in, values or bytes out. It must do no I/O and read no clock, and uses no other module of
//! the crate but `secret`, `curve` and `fault`.
//!
//! In the order of a connection: `hello` (the client's and the server's) in the clear; `noise`
//! around `opening` (mechanism, request, proof); `answer` (accepted, to be continued, denied) with
//! `prompt`; then `seal`, `stream` and `batch` for the data, with `window`, `budget` and `backlog`
//! on the reading side.
#![deny(
    clippy::arithmetic_side_effects,
    reason = "lengths here come from peers"
)]
#![forbid(unsafe_code)]

pub mod answer;
pub mod backlog;
pub mod batch;
pub mod budget;
pub mod cbor;
mod cipher;
pub mod hello;
mod key_agreement;
pub mod limits;
pub mod name;
pub mod noise;
pub mod opening;
mod primitives;
pub mod prompt;
pub mod proof;
pub mod record;
pub mod request;
pub mod rest;
pub mod seal;
pub mod stream;
pub(crate) mod wanted;
pub mod window;

use std::fmt;

/// Bytes that break the protocol, with the reason for the log. The reason never reaches the peer,
/// and contains no byte from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<minicbor::decode::Error> for Malformed {
    fn from(_: minicbor::decode::Error) -> Self {
        Self("CBOR of another shape than the message has")
    }
}
