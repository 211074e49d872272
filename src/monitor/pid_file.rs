//! The pid file, and the lock by which of two daemons on one folder one has it. Run by
//! the monitor when it starts and when it ends; inetd's have none.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Monitor;
use crate::config::place::Place;
use crate::config::secure;
use crate::fault::Fault;
use crate::log::Level;

impl Monitor {
    /// Writes the pid file, unless another daemon that runs on this folder has it.
    pub(super) fn take_pid_file(&mut self) -> Result<(), Fault> {
        let lock = self.place.daemon_lock();
        let taken = std::fs::File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&lock)
            .map_err(|e| Fault::of(&lock, e))?;
        let file = self.place.pid_file();
        match Flock::lock(taken, FlockArg::LockExclusiveNonblock) {
            Ok(taken) => {
                let pid = format!("{}\n", std::process::id());
                // Nothing of an old one is kept.
                secure::remove(&file)?;
                secure::replace(&file, pid.as_bytes(), 0o644)?;
                self.pid_lock = Some(taken);
            }
            Err((_, e)) => {
                let why = why_not_locked(&lock, e);
                let pairs: [(&str, &dyn std::fmt::Display); 2] =
                    [("file", &file.display()), ("why", &why)];
                self.log.say(Level::Warning, "no-pid-file", &pairs);
            }
        }
        Ok(())
    }
}

fn why_not_locked(lock: &Path, e: Errno) -> String {
    if e == Errno::EWOULDBLOCK {
        return "another daemon runs on this folder".into();
    }
    Fault::from(e)
        .while_doing(format_args!("locking {}", lock.display()))
        .to_string()
}

/// Removes it, if it is ours.
pub(super) fn remove(place: &Place, is_ours: bool) {
    if is_ours {
        let _ = std::fs::remove_file(place.pid_file());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system that cannot lock is not another daemon.
    #[test]
    fn only_a_lock_that_is_held_means_another_daemon() {
        let lock = Path::new("/run/cosserver/cosserver.lock");
        let held = why_not_locked(lock, Errno::EWOULDBLOCK);
        assert_eq!(held, "another daemon runs on this folder");
        let other = why_not_locked(lock, Errno::ENOLCK);
        assert_eq!(
            other,
            "locking /run/cosserver/cosserver.lock: No locks available (os error 37)"
        );
    }
}
