//! State, size and end of the job's pipes, and of the sockets that stand for them.
//!
//! Runs in the relay, in a session's thread. Must never read or write them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

/// Size of a busy pipe, bytes: the kernel's limit for unprivileged users.
#[cfg(target_os = "linux")]
const LARGE: libc::c_int = 1 << 20;

/// Whether a pipe has hung up and has nothing to read. Poll would report data as well. Some systems
/// report readable at the end too; there a read shows it.
pub(super) fn is_at_its_end(fds: &[PollFd<'_>], at: usize) -> bool {
    fds.get(at).and_then(PollFd::revents) == Some(PollFlags::POLLHUP)
}

/// Whether no process reads this pipe any more.
pub(super) fn reader_is_gone(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

/// Closes one direction of a socket, whose other direction has a descriptor of its own. A pipe has
/// one direction, which ends when its descriptor is closed.
pub(super) fn shut(end: &OwnedFd, how: Shutdown) {
    let _ = shutdown(end.as_raw_fd(), how);
}

/// Enlarges a busy pipe, where the system can.
pub(super) fn widen(pipe: &OwnedFd) {
    #[cfg(target_os = "linux")]
    let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(LARGE));
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}
