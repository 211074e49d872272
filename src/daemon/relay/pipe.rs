//! What the relay asks of the job's pipes besides their bytes. Run by a session's
//! thread; it never reads or writes.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a busy pipe is made to hold: the kernel's limit for ordinary users.
#[cfg(target_os = "linux")]
const LARGE: libc::c_int = 1 << 20;

/// A pipe that has hung up and has nothing to read. Where there is something the
/// poll says that as well; some systems say so at the end too, and then a read shows.
pub(super) fn is_at_its_end(fds: &[PollFd<'_>], at: usize) -> bool {
    fds.get(at).and_then(PollFd::revents) == Some(PollFlags::POLLHUP)
}

/// Whether nobody reads this pipe any more.
pub(super) fn reader_is_gone(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

/// Makes a busy pipe larger, where that can be done.
pub(super) fn widen(pipe: &OwnedFd) {
    #[cfg(target_os = "linux")]
    let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(LARGE));
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}
