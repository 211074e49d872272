//! Forks the client, which has one thread: a process for each connection that it accepts. Runs only
//! in the client.

use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

/// Forks. Returns the child's process ID, or `None` in the child, which gets SIGTERM when its parent
/// ends (on Linux).
///
/// # Errors
/// The process could not be created. Returned only in the parent.
pub fn fork_connection() -> nix::Result<Option<Pid>> {
    let parent = getpid();
    // SAFETY: this process has one thread, so the child is complete.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            #[cfg(target_os = "linux")]
            let is_bound = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).is_ok();
            #[cfg(not(target_os = "linux"))]
            let is_bound = true;
            if !is_bound || getppid() != parent {
                // An error would make this process accept connections, as its parent does.
                // SAFETY: ends this process without running its parent's exit handlers.
                unsafe { libc::_exit(128 + Signal::SIGTERM as libc::c_int) };
            }
            Ok(None)
        }
    }
}
