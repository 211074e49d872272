//! The lock that a writer of a registry file holds: a POSIX lock (fcntl(2)) on a file beside it. NFS
//! has it, so it works between hosts, and it ends with its process.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::config::secure;
use crate::fault::Fault;
use crate::sys::locks;

/// How long to wait for another writer.
const BUSY: Duration = Duration::from_secs(5);

/// How long to wait between two attempts, at first and at last.
const PAUSE: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

/// Excludes the other threads of this process, which a POSIX lock does not.
static THREADS: Mutex<()> = Mutex::new(());

/// The lock of a file's writers, until it is dropped.
pub(super) struct Lock {
    _file: File,
    _threads: MutexGuard<'static, ()>,
}

impl Lock {
    /// Returns the path of the file that is locked for the writers of a file.
    fn path(of: &Path) -> PathBuf {
        let mut name = of.as_os_str().to_owned();
        name.push(".lock");
        PathBuf::from(name)
    }

    /// Waits until no other process writes the file.
    ///
    /// # Errors
    /// The folder is not trusted, the lock cannot be made, or another process holds it for long.
    pub(super) fn take(of: &Path) -> Result<Self, Fault> {
        let path = Self::path(of);
        if let Some(folder) = path.parent() {
            secure::check_folder(folder)?;
        }
        let until = Instant::now() + BUSY;
        let mut pause = PAUSE.0;
        loop {
            let threads = match THREADS.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(threads) = threads {
                let file = open(&path).map_err(|e| unchanged(&path, &e))?;
                let taken = locks::take(&file, 0).map_err(|e| Fault::of(&path, e))?;
                if taken && is_at(&file, &path) {
                    let _threads = threads;
                    return Ok(Self {
                        _file: file,
                        _threads,
                    });
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

fn unchanged(path: &Path, e: &std::io::Error) -> Fault {
    Fault::of(path, format!("{e}; nothing was changed"))
}
