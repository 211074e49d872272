//! A child that a test forks to have another process.

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Such a child process.
pub(crate) struct Forked {
    /// Its process ID.
    pub(crate) pid: Pid,
}

impl Forked {
    /// Forks a child that runs `work` and exits.
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

    /// Kills and reaps it.
    pub(crate) fn end(self) {
        super::process::signal(self.pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}
