//! Why a session ends early.
//!
//! Runs in the relay, in the session's thread. Must not mistake an error for an end: only `EPIPE`
//! means that the reader of a pipe is gone, and only a network error that the client is.

use nix::errno::Errno;

use crate::ipc::relay::{Failure, Part};
use crate::protocol::Malformed;
use crate::sys::socket;

/// Why a session stops before the client was sent the job's end.
pub(super) enum Stop {
    /// The client is gone.
    Gone,
    /// The client broke the protocol.
    Violation,
    /// The monitor orders it.
    Dismissed,
    /// A system call failed.
    Failed(Failure),
}

impl Stop {
    /// Returns the reason for a system call that failed on this part.
    pub(super) fn failed(part: Part, e: Errno) -> Self {
        Self::Failed(Failure::new(part, e))
    }

    /// Returns the reason for an error of the client's socket.
    pub(super) fn of_socket(e: Errno) -> Self {
        if socket::is_lost(e) {
            Self::Gone
        } else {
            Self::failed(Part::Connection, e)
        }
    }
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Violation
    }
}
