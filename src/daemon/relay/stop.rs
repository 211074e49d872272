//! Why a session ends early.
//!
//! Run by the session's thread. Must not take an error for an end: only `EPIPE` means that
//! the reader of a pipe is gone, only an error of the network that the client is.

use nix::errno::Errno;

use crate::ipc::relay::{Failure, Part};
use crate::protocol::Malformed;
use crate::sys::socket;

/// Why a session stops before the job's end was told.
pub(super) enum Stop {
    /// The client is gone.
    Gone,
    /// The client broke the protocol.
    Violation,
    /// The monitor says so.
    Dismissed,
    /// A system call failed.
    Failed(Failure),
}

impl Stop {
    /// A system call on this part failed.
    pub(super) fn failed(part: Part, e: Errno) -> Self {
        Self::Failed(Failure::new(part, e))
    }

    /// What an error of the client's socket comes to.
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
