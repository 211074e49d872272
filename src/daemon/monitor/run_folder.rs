//! The folders that a daemon needs when it starts, and the empty root of gate and relay.
//!
//! Run by the monitor at its start. A folder that a full or read-only file system does not let it
//! create is reported, and the daemon does without it. One that is not to be trusted is an error.

use std::path::{Path, PathBuf};

use crate::config::paths::Paths;
use crate::fault::Fault;

/// Folders that systems keep empty, for use if the run folder cannot have one.
const EMPTY: [&str; 4] = [
    "/var/empty",
    "/run/sshd",
    "/usr/share/empty",
    "/var/lib/empty",
];

/// Creates the state and run folders; adds to `degraded` what could not be created, and why.
///
/// # Errors
/// Fails if a folder exists and is not to be trusted.
pub(super) fn make(paths: &Paths, degraded: &mut Vec<Fault>) -> Result<(), Fault> {
    make_or_note(paths, &paths.state, 0o700, degraded)?;
    make_or_note(paths, &paths.machines(), 0o700, degraded)?;
    make_or_note(paths, &paths.run, 0o755, degraded)
}

/// Returns the root for gate and relay: an empty folder to which no other user can write. `None`:
/// there is none, which is added to `degraded`.
///
/// # Errors
/// Fails if the folder exists and is not to be trusted.
pub(super) fn empty_root(
    paths: &Paths,
    degraded: &mut Vec<Fault>,
) -> Result<Option<PathBuf>, Fault> {
    let own = paths.run.join("empty");
    let before = degraded.len();
    make_or_note(paths, &own, 0o755, degraded)?;
    let other = paths.state.join("empty");
    if degraded.len() > before {
        make_or_note(paths, &other, 0o755, &mut Vec::new())?;
    }
    let all = [own.as_path(), other.as_path()].into_iter();
    let mut all = all.chain(EMPTY.map(Path::new));
    let found = all.find(|folder| is_empty(paths, folder));
    if found.is_none() {
        let words = "gate and relay run without an empty root: there is no empty folder";
        degraded.push(Fault::of(&own, words));
    }
    Ok(found.map(Path::to_owned))
}

fn is_empty(paths: &Paths, folder: &Path) -> bool {
    let is_safe = paths.check_folder(folder).is_ok();
    is_safe && std::fs::read_dir(folder).is_ok_and(|mut all| all.next().is_none())
}

fn make_or_note(
    paths: &Paths,
    folder: &Path,
    mode: u32,
    degraded: &mut Vec<Fault>,
) -> Result<(), Fault> {
    let Err(why) = paths.make_folder(folder, mode) else {
        return Ok(());
    };
    // A folder that exists was rejected because it is not to be trusted.
    if folder.symlink_metadata().is_ok() {
        return Err(why);
    }
    let above = folder.ancestors().find(|above| above.exists());
    above.map_or(Ok(PathBuf::new()), |above| paths.check_folder(above))?;
    degraded.push(why);
    Ok(())
}
