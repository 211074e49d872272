//! The relay: a blocking thread for each proven connection, which encrypts and
//! moves bytes between the peer's socket and the job.
//!
//! Runs as `_cosserver` in an empty root. It owns sockets, traffic keys and pipe
//! ends that the monitor gave it. It must never decide anything, open a file,
//! or speak for another session than the thread's own.

mod farewell;
mod incoming;
mod outgoing;
mod pipe;
mod pool;
mod session;

use crate::channel::{Channel, cell};
use crate::sys::process::CHANNEL;
use crate::sys::sandbox::Role;
use crate::sys::{memory, process, signals, socket};

/// The relay's life: into the cell, then sessions until the monitor is gone.
pub fn main() -> u8 {
    process::set_name("cos: relay");
    process::keep_private();
    memory::keep_small();
    let Ok(channel) = socket::inherited(CHANNEL) else {
        return process::FAILURE;
    };
    if socket::block_for(&channel, pool::PATIENCE).is_err() {
        return process::FAILURE;
    }
    let mut channel = Channel::new(channel);
    if signals::leave_to_the_monitor().is_err() || cell::enter(Role::Relay, &mut channel).is_err() {
        return process::FAILURE;
    }
    match pool::Pool::run(channel) {
        Ok(()) => process::SUCCESS,
        Err(_) => process::FAILURE,
    }
}
