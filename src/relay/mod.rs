//! The relay: a blocking thread for each proven connection, which encrypts and
//! moves bytes between the peer's socket and the job.
//!
//! Runs as `_cosserver` in an empty root. It owns sockets, traffic keys and pipe
//! ends that the monitor gave it. It must never decide anything, open a file,
//! or speak for another session than the thread's own.

mod incoming;
mod outgoing;
mod session;

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use crate::channel::relay::{SESSION_DESCRIPTORS, Session};
use crate::channel::{self, Channel, Incoming, cell};
use crate::sys::memory::Crowd;
use crate::sys::process::CHANNEL;
use crate::sys::sandbox::Role;
use crate::sys::{memory, process, signals, socket};

/// Stack of a session's thread, bytes: four times what a debug build was seen
/// to use.
const STACK: usize = 256 * 1024;

/// The sessions that are served.
static CROWD: Crowd = Crowd::new();

/// The relay's life: into the cell, then a thread for every session that comes.
/// It ends when the monitor does.
pub fn main() -> ExitCode {
    process::set_name("cos: relay");
    process::keep_private();
    memory::keep_small();
    let Ok(channel) = socket::inherited(CHANNEL) else {
        return ExitCode::FAILURE;
    };
    let mut channel = Channel::new(channel);
    if signals::ignore_sigpipe().is_err() || cell::enter(Role::Relay, &mut channel).is_err() {
        return ExitCode::FAILURE;
    }
    let mut buffer = vec![0; channel::MESSAGE];
    loop {
        match channel.receive(&mut buffer) {
            Ok(Incoming::Message(message, fds)) => begin(&message, fds),
            Ok(Incoming::Nothing) => channel.wait(),
            Ok(Incoming::Gone) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

/// Gives a session its thread. A message that is none, or a thread that cannot
/// be had, drops the descriptors, and the monitor sees the session's end.
fn begin(message: &[u8], fds: Vec<OwnedFd>) {
    let Some(session) = Session::decode(message) else {
        return;
    };
    let Ok(fds) = <[OwnedFd; SESSION_DESCRIPTORS]>::try_from(fds) else {
        return;
    };
    let Ok(thread) = session::Serving::new(&session, fds) else {
        return;
    };
    CROWD.enter();
    let begun = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            thread.run();
            CROWD.leave();
        });
    if begun.is_err() {
        CROWD.leave();
    }
}
