//! The relay: a blocking thread for each authenticated connection, which encrypts, decrypts and
//! moves bytes between the peer's socket and the job.
//!
//! Runs as `_cosserver` in an empty root. Owns the sockets, traffic keys and pipe ends that the
//! monitor gave it. Must never make a decision, open a file, or let a thread speak for another
//! session than its own.

mod incoming;
mod lingering_close;
mod outgoing;
mod pipe;
mod pool;
mod ready;
mod session;
mod stop;
#[cfg(test)]
mod tests;

use crate::ipc::{Channel, sandbox_config};
use crate::sys::process::CHANNEL;
use crate::sys::sandbox::Role;
use crate::sys::{memory, process, signals, socket};

/// Runs the relay: enters the sandbox, then serves sessions until the monitor is gone.
pub fn main() -> u8 {
    let served = enter().map(pool::Pool::run);
    match served {
        Some(Ok(())) => process::SUCCESS,
        Some(Err(_)) | None => process::FAILURE,
    }
}

/// Runs the relay for the only session of a monitor that inetd started.
pub fn main_for_one() -> u8 {
    match enter().map(pool::Pool::run_alone) {
        Some(()) => process::SUCCESS,
        None => process::FAILURE,
    }
}

/// Enters the sandbox and returns the channel to the monitor.
fn enter() -> Option<Channel> {
    process::set_name("cos: relay");
    process::keep_private();
    memory::keep_small();
    let channel = socket::inherited(CHANNEL).ok()?;
    socket::block_for(&channel, pool::PATIENCE).ok()?;
    let mut channel = Channel::new(channel);
    signals::leave_to_the_monitor().ok()?;
    sandbox_config::enter(Role::Relay, &mut channel).ok()?;
    Some(channel)
}
