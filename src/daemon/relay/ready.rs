//! What a poll of a session's descriptors found. Run by the session's thread.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags};

/// What can be done now.
pub(super) struct Ready {
    /// The monitor has said something.
    pub(super) message: bool,
    /// The client's socket.
    pub(super) socket: bool,
    /// The job's input.
    pub(super) stdin: bool,
    /// The job's outputs.
    pub(super) outputs: [bool; 2],
    /// Outputs that are certainly at their end: they need not be read for it.
    pub(super) ended: [bool; 2],
}

/// Adds a descriptor, if there is one; its place.
pub(super) fn add<'a>(
    fds: &mut Vec<PollFd<'a>>,
    fd: Option<BorrowedFd<'a>>,
    events: PollFlags,
) -> Option<usize> {
    fds.push(PollFd::new(fd?, events));
    Some(fds.len() - 1)
}
