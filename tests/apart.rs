//! What gate, relay and monitor keep from each other, and how they come through
//! what hits one of them: signals, a back-off, a broken listener, crowds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::undocumented_unsafe_blocks,
    unsafe_code,
    reason = "a test panics where something is not as it should be, starts programs, and does what an attacker would"
)]

mod daemon;
#[allow(dead_code, unused_imports, reason = "each test file uses a part")]
#[path = "gatekeeper/taken.rs"]
mod taken;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use cosserver::wire::record::{self, Kind};
use cosserver::wire::request::{Command, Request};
use cosserver::wire::seal::{Opener, Sealer};
use cosserver::wire::stream::{End, Message, Stream};
use daemon::hostile::{Caller, Session, Stranger};
use daemon::session::{Fifo, Gate, lives};
use daemon::{Daemon, PATIENCE, needs_root, until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{Shutdown, SockType, shutdown};
use nix::unistd::Pid;

/// Not dumpable: what /proc shows of them is root's alone, and no other process of
/// their user can trace them. And their standard error is not the monitor's log.
#[test]
fn gate_and_relay_are_closed_to_their_user_and_cannot_write_the_log() {
    if !needs_root() {
        return;
    }
    let d = Daemon::start();
    for name in ["gate", "relay"] {
        let pid = d.process(name);
        let about = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(about.uid(), 0, "{name}");
        for number in 0..3 {
            let to = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(to.to_str(), Some("/dev/null"), "{name} {number}");
        }
    }
}
