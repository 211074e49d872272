//! What a daemon owns in its run folder: the lock, the pid file, and the sockets for users and the
//! administrator. Of two daemons on one folder one has them; inetd's have none.
//!
//! Run by the monitor when it starts, and again from its event loop until it has all of them: its
//! predecessor may still be ending, or the file system be full. Owns the lock. Without it, must not
//! touch the pid file or the sockets: they are another daemon's.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::ground::Ground;
use super::own_file::OwnFile;
use crate::config::paths::Paths;
use crate::config::secure;
use crate::fault::Fault;
use crate::log::log;

/// First and longest delay before what is missing is tried again.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What this daemon owns in the run folder.
#[derive(Default)]
pub(super) struct Claim {
    lock: Option<Flock<File>>,
    pid_file: Option<OwnFile>,
    /// When what is missing is tried again.
    due: Option<Instant>,
    pause: Duration,
    /// What was logged as missing.
    told: Vec<Missing>,
}

/// What of the run folder is missing, and why.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    PidFile(String),
    Socket(String),
}

impl Claim {
    /// Returns when what is missing is tried again.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Stops trying.
    pub(super) const fn give_up(&mut self) {
        self.due = None;
    }

    /// Removes the pid file, if it is ours.
    pub(super) fn remove_pid_file(&mut self) {
        if let Some(file) = self.pid_file.take() {
            file.remove();
        }
    }

    fn lock(&mut self, paths: &Paths) -> Result<(), Fault> {
        if self.lock.is_some() {
            return Ok(());
        }
        // It was not created at the start, or has been lost since.
        secure::make_folder(&paths.run, 0o755)?;
        let path = paths.daemon_lock();
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|e| Fault::of(&path, e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                self.lock = Some(lock);
                Ok(())
            }
            Err((_, e)) => Err(Fault::new(why_not_locked(&path, e))),
        }
    }

    fn write_pid_file(&mut self, paths: &Paths) -> Result<(), Fault> {
        if self.pid_file.is_none() {
            let pid = format!("{}\n", std::process::id());
            let file = paths.pid_file();
            // Nothing of an old one is kept.
            secure::remove(&file)?;
            secure::replace(&file, pid.as_bytes(), 0o644)?;
            self.pid_file = Some(OwnFile::of(&file));
        }
        Ok(())
    }
}

impl Claim {
    /// Takes what is missing of the run folder; `open_sockets` opens the sockets that are not open.
    /// Logs what cannot be taken, which is tried again later.
    pub(super) fn take(
        &mut self,
        ground: &mut Ground,
        open_sockets: impl FnOnce(&Ground) -> Vec<Fault>,
        now: Instant,
    ) {
        self.due = None;
        let wrong = self.take_missing(ground, open_sockets);
        let file = ground.paths.pid_file();
        let file = file.display();
        for missing in wrong.iter().filter(|missing| !self.told.contains(missing)) {
            match missing {
                Missing::PidFile(why) => {
                    log!(ground.log, Warning, "no-pid-file", file, why);
                }
                Missing::Socket(why) => log!(ground.log, Error, "no-socket", why),
            }
        }
        if !wrong.is_empty() {
            self.pause = self.pause.saturating_mul(2).clamp(PAUSE, LONGEST_PAUSE);
            self.due = Some(now + self.pause);
        } else if !self.told.is_empty() {
            log!(ground.log, Info, "claimed", file);
        }
        self.told = wrong;
    }

    /// Returns what is missing, if anything.
    pub(super) fn lack(&self) -> Option<&str> {
        self.told.first().map(|missing| match missing {
            Missing::PidFile(why) | Missing::Socket(why) => why.as_str(),
        })
    }

    /// Without the lock nothing else is taken: the folder is another daemon's.
    fn take_missing(
        &mut self,
        ground: &Ground,
        open_sockets: impl FnOnce(&Ground) -> Vec<Fault>,
    ) -> Vec<Missing> {
        if let Err(why) = self.lock(&ground.paths) {
            return vec![Missing::PidFile(why.to_string())];
        }
        let pid_file = self.write_pid_file(&ground.paths).err();
        let pid_file = pid_file.map(|why| Missing::PidFile(why.to_string()));
        let sockets = open_sockets(ground).into_iter();
        let sockets = sockets.map(|why| Missing::Socket(why.to_string()));
        pid_file.into_iter().chain(sockets).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    /// Regression: it removed that of the daemon that had claimed a new folder.
    #[test]
    fn the_pid_file_of_another_daemon_is_not_removed() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let mut claim = Claim::default();
        claim.lock(&paths).unwrap();
        claim.write_pid_file(&paths).unwrap();
        std::fs::remove_dir_all(&paths.run).unwrap();
        let mut other = Claim::default();
        other.lock(&paths).unwrap();
        other.write_pid_file(&paths).unwrap();
        claim.remove_pid_file();
        assert!(paths.pid_file().exists());
        other.remove_pid_file();
        assert!(!paths.pid_file().exists());
    }

    /// A file system that does not support locks is not another daemon.
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
