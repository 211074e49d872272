//! Checks whether a daemon runs on a folder whose socket does not answer. Only if none runs is
//! there nothing to hang up. Runs in `cosadm`.

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
/// Returns an error if one runs but cannot be reached (`why`), or if that cannot be determined.
pub(super) fn confirm(paths: &Paths, why: &std::io::Error) -> Result<(), Fault> {
    if !is_locked(paths)? {
        return Ok(());
    }
    let pid = fs::read_to_string(paths.pid_file()).unwrap_or_default();
    let number = pid.trim().parse::<u32>();
    let which = number.map_or_else(|_| String::new(), |pid| format!(" (process {pid})"));
    let words = format!("the daemon{which} runs and cannot be reached: {why}");
    let remedy = "to hang up its sessions: restart the daemon";
    Err(Fault::of(&paths.control(), words).with_remedy(remedy))
}

/// Returns whether a daemon holds the lock of this folder.
fn is_locked(paths: &Paths) -> Result<bool, Fault> {
    let path = paths.daemon_lock();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(is_open_though_removed(paths)),
        Err(e) => return Err(Fault::of(&path, e)),
    };
    // The lock is held only for a moment. A daemon that starts at that moment tries again.
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, e)) => Err(Fault::from(e).while_doing(format_args!("locking {}", path.display()))),
    }
}

/// Returns whether a process has the lock's file open although the file was removed, for example
/// by a cleanup of the folder.
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
