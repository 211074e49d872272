//! The end of a session that its client was told of: who hangs up first.
//!
//! Run by the session's thread, which has nothing else of the session left. It must
//! wait for a client neither for ever nor in any number.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use crate::sys::socket;

/// How long a client that was told the end may take to hang up.
const FAREWELL: Duration = Duration::from_secs(10);

/// Most threads that wait for that at the same time: to the monitor these sessions are
/// over, and its limit does not count them. Beyond it nobody waits, and a client that
/// is still sending may see a reset in place of the last record.
const AT_ONCE: usize = 256;

/// Lets the client read the last record before the socket goes: to close it with bytes
/// unread would reset the connection. `parting` counts the threads that do so.
pub(super) fn farewell(connection: &OwnedFd, parting: &AtomicUsize) {
    let _ = shutdown(connection.as_raw_fd(), Shutdown::Write);
    let others = parting.fetch_add(1, Ordering::Relaxed);
    let patience = if others < AT_ONCE {
        FAREWELL
    } else {
        Duration::ZERO
    };
    wait_for_end(connection, Instant::now() + patience);
    parting.fetch_sub(1, Ordering::Relaxed);
}

fn wait_for_end(connection: &OwnedFd, until: Instant) {
    let mut bytes = [0; 512];
    loop {
        match socket::receive(connection.as_fd(), &mut bytes) {
            Ok(0) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
                if poll(&mut fds, timeout) == Ok(0) {
                    return;
                }
            }
            Err(_) => return,
        }
        if Instant::now() >= until {
            return;
        }
    }
}
