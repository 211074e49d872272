//! A child that a test forks to be another process.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Such a child.
pub(crate) struct Forked {
    /// Its number.
    pub(crate) pid: Pid,
}

impl Forked {
    /// Starts one that does this work.
    pub(crate) fn start(work: impl FnOnce()) -> nix::Result<Self> {
        let parent = nix::unistd::getpid();
        if let Some(pid) = super::job::fork_quietly()? {
            return Ok(Self { pid });
        }
        super::job::die_with(parent.as_raw());
        work();
        // SAFETY: ends the child without running what its parent would run at exit.
        unsafe { libc::_exit(0) }
    }

    /// Ends it, if it has not ended.
    pub(crate) fn end(self) {
        super::process::signal(self.pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}
