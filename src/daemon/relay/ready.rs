//! The result of polling a session's descriptors. Pure: runs in the relay, in the session's thread.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags};

/// What can be done now.
pub(super) struct Ready {
    /// The monitor has sent something.
    pub(super) message: bool,
    /// The client's socket.
    pub(super) socket: bool,
    /// The job's input.
    pub(super) stdin: bool,
    /// The job's outputs.
    pub(super) outputs: [bool; 2],
    /// Outputs that are certainly at their end, without a read.
    pub(super) ended: [bool; 2],
}

/// Adds a descriptor, if there is one, and returns its index.
pub(super) fn add<'a>(
    fds: &mut Vec<PollFd<'a>>,
    fd: Option<BorrowedFd<'a>>,
    events: PollFlags,
) -> Option<usize> {
    fds.push(PollFd::new(fd?, events));
    Some(fds.len() - 1)
}
