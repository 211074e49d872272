//! Forks the client, which has one thread: a process for each connection that it accepts. Runs only
//! in the client.

use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

/// Forks. Returns the child's process ID, or `None` in the child, which gets SIGTERM when its parent
/// ends (on Linux).
///
/// # Errors
/// The process could not be created.
pub fn fork_connection() -> nix::Result<Option<Pid>> {
    let parent = getpid();
    // SAFETY: this process has one thread, so the child is complete.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            #[cfg(target_os = "linux")]
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            if getppid() != parent {
                nix::sys::signal::raise(Signal::SIGTERM)?;
            }
            Ok(None)
        }
    }
}
