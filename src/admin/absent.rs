//! Whether a daemon runs on a folder where nothing answers at its socket: only then is it
//! true that there is nothing to hang up. Run by `cosadm`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::config::paths::Paths;
use crate::fault::Fault;

/// Confirms that no daemon runs in the background on this folder.
///
/// # Errors
/// One does, though it cannot be reached (`why`), or that cannot be known.
pub(super) fn confirm(paths: &Paths, why: &std::io::Error) -> Result<(), Fault> {
    if !is_locked(paths)? {
        return Ok(());
    }
    let pid = fs::read_to_string(paths.pid_file()).unwrap_or_default();
    let number = pid.trim().parse::<u32>();
    let which = number.map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
    let words = format!("the daemon{which} runs and cannot be reached: {why}");
    let remedy = "to hang up what it runs: restart the daemon";
    Err(Fault::of(&paths.control(), words).with_remedy(remedy))
}

/// Whether a daemon holds the lock of this folder.
fn is_locked(paths: &Paths) -> Result<bool, Fault> {
    let path = paths.daemon_lock();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(is_open_though_removed(paths)),
        Err(e) => return Err(Fault::of(&path, e)),
    };
    // Held for a moment alone: a daemon that starts just then tries again.
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, e)) => Err(Fault::from(e).while_doing(format_args!("locking {}", path.display()))),
    }
}

/// Whether a process has the lock's file open though it was removed, as those who tidy
/// folders up may do.
fn is_open_though_removed(paths: &Paths) -> bool {
    let mut name = paths.daemon_lock().into_os_string();
    name.push(" (deleted)");
    let descriptors = |process: fs::DirEntry| fs::read_dir(process.path().join("fd")).ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|p| p.file_name().as_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(descriptors)
        .flatten()
        .flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|file| *file == *name))
}
