//! The lock that a writer of a registry file holds: a POSIX lock (fcntl(2)) on a file beside it.
//! NFS has it, so it works between hosts, and it ends with its process.
//!
//! A reader takes no lock, and the registry worker reads in a thread of its own. So a login of a
//! registered machine never waits for a lock. A registration is a write: it waits for the lock for
//! 5 s, and fails at once while `cosadm edit` holds it. The client is then denied (cause
//! `registry`), without a penalty, and its activation password stays valid. What is noted of a
//! machine that is admitted (its first proof) is lost then, with a line in the log, and noted at
//! its next visit. The registry worker makes one change after the other, so several registrations
//! wait in turn; under inetd the connection's own monitor writes.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::secure;
use crate::fault::Fault;
use crate::sys::locks::{self, Holder};

/// How long to wait for another writer.
const BUSY: Duration = Duration::from_secs(5);

/// How long to wait between two attempts, at first and at last. Short, because other writers may
/// take the lock again at once.
const PAUSE: (Duration, Duration) = (Duration::from_micros(250), Duration::from_millis(4));

/// The bytes of the lock file: locked by each writer, and by an editor as well.
const WRITER: u32 = 0;
const EDITOR: u32 = 1;

/// The files that this process writes now: a POSIX lock does not exclude its own threads.
static OWN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The lock of a file's writers, until it is dropped.
pub(super) struct Lock {
    _file: File,
    _own: Own,
}

/// A file that this process writes, until it is dropped.
struct Own(PathBuf);

impl Own {
    /// Returns `None` if another thread writes the file.
    fn take(path: &Path) -> Option<Self> {
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        own.insert(path.to_owned()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        own.remove(&self.0);
    }
}

impl Lock {
    /// Waits until no other process writes the file.
    ///
    /// # Errors
    /// The folder is not trusted, the lock cannot be made, or another process holds it for long.
    pub(super) fn take(of: &Path) -> Result<Self, Fault> {
        Self::take_for(of, false)
    }

    /// Takes the lock for an edit by a person, for which other writers do not wait.
    ///
    /// # Errors
    /// The same.
    pub(super) fn take_for_edit(of: &Path) -> Result<Self, Fault> {
        Self::take_for(of, true)
    }

    fn take_for(of: &Path, is_edit: bool) -> Result<Self, Fault> {
        let mut path = of.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        if let Some(folder) = path.parent() {
            secure::check_folder(folder)?;
        }
        let until = Instant::now() + BUSY;
        let mut pause = PAUSE.0;
        loop {
            if let Some(_own) = Own::take(&path) {
                let file = open(&path).map_err(|e| secure::not_written(of, e))?;
                let failed = |e| Fault::of(&path, e);
                let taken = locks::take(&file, WRITER).map_err(failed)?;
                if taken && is_at(&file, &path) {
                    if is_edit {
                        locks::take(&file, EDITOR).map_err(failed)?;
                    }
                    return Ok(Self { _file: file, _own });
                }
                if !taken {
                    match locks::holder(&file, EDITOR).map_err(failed)? {
                        Holder::NoOther => {}
                        Holder::Other(pid) => return Err(edited(of, &format!(" (process {pid})"))),
                        Holder::Elsewhere => return Err(edited(of, " on another host")),
                    }
                }
            }
            if Instant::now() >= until {
                let words = format!(
                    "another process has been writing it for {} s; nothing was changed",
                    BUSY.as_secs()
                );
                return Err(Fault::of(of, words));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

/// Returns the fault of a file that a person edits.
fn edited(path: &Path, who: &str) -> Fault {
    let words = format!("cosadm edit{who} holds it; nothing was changed: end that editor first");
    Fault::of(path, words)
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Returns whether the path still names the file that is locked.
fn is_at(file: &File, path: &Path) -> bool {
    let which = |about: std::fs::Metadata| (about.dev(), about.ino());
    let (own, there) = (
        file.metadata().map(which),
        path.symlink_metadata().map(which),
    );
    own.is_ok_and(|own| there.is_ok_and(|there| own == there))
}
