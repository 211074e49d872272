//! Writing the administrator's files: at once or not at all.
//!
//! What is written goes to a draft of its own in the same folder, is synced,
//! and then takes its name; the folder is synced last.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::{check_folder, walk};
use crate::fault::Fault;
use crate::secret;

/// How the name of a draft begins and ends; one is left only by a crash.
pub const DRAFT: (&str, &str) = (".cosserver-", ".tmp");

/// Whether a new file could be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// It was made.
    New,
    /// There was one already, which was left as it is.
    There,
}

/// Makes a file with all of its content at once, unless there is one of that
/// name: of two that race, one makes it and the other is told so.
///
/// # Errors
/// The folder is not to be trusted, or the system refused, for example
/// because the disk is full; then there is no file, unless the fault says that it
/// was written but not synced.
pub fn create_new(path: &Path, content: &[u8], mode: u32) -> Result<Created, Fault> {
    let (folder, target) = writing(path, false)?;
    let draft = Draft::write(&folder, content, mode).map_err(|e| not_written(path, e))?;
    match fs::hard_link(&draft.0, &target) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Created::There),
        Err(e) => return Err(not_written(path, e)),
    }
    drop(draft);
    sync_folder(&folder).map_err(|e| not_synced(path, e))?;
    Ok(Created::New)
}

/// Makes a file or puts another in its place, at once: whoever opens it sees
/// the old one or the new one whole. A symbolic link stays, and its target is
/// replaced.
///
/// # Errors
/// As [`create_new`]; then the old file is as it was, with the same exception.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Fault> {
    let (folder, target) = writing(path, true)?;
    let draft = Draft::write(&folder, content, mode).map_err(|e| not_written(path, e))?;
    fs::rename(&draft.0, &target).map_err(|e| not_written(path, e))?;
    sync_folder(&folder).map_err(|e| not_synced(path, e))
}

/// Removes a file; whether there was one.
///
/// # Errors
/// The system refused.
pub fn remove(path: &Path) -> Result<bool, Fault> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Fault::of(path, format!("not removed: {e}"))),
    }
    if let Some(folder) = path.parent() {
        sync_folder(folder).map_err(|e| {
            let words =
                format!("removed, but its folder was not synced, so a crash may undo it: {e}");
            Fault::of(path, words)
        })?;
    }
    Ok(true)
}

/// Makes a folder of that mode, where there is none, in a trustworthy one.
///
/// # Errors
/// The folder above is missing or not to be trusted, or the system refused.
pub fn make_folder(path: &Path, mode: u32) -> Result<Created, Fault> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    check_folder(parent)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return check_folder(path).map(|_| Created::There);
        }
        Err(e) => return Err(Fault::of(path, format!("not made: {e}"))),
    }
    // The umask may have taken bits away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| Fault::of(path, e))?;
    Ok(Created::New)
}

/// Makes a folder and those above it that are missing, each in a trustworthy one: nothing is
/// made below a folder, or through a link, that others could put another in the place of.
///
/// # Errors
/// As [`make_folder`].
pub fn make_folders(path: &Path, mode: u32) -> Result<Created, Fault> {
    // A link that leads nowhere is there, and is refused as what it is.
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    let mut created = Created::There;
    for folder in missing.into_iter().rev() {
        created = make_folder(folder, mode)?;
    }
    check_folder(path)?;
    Ok(created)
}

/// Where to write: the trustworthy folder, and the file in it. When the file
/// is to be replaced, links at the end of the path are followed.
fn writing(path: &Path, follow: bool) -> Result<(PathBuf, PathBuf), Fault> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Fault::of(path, "it is no file"));
    };
    let folder = check_folder(parent)?;
    let target = folder.join(name);
    if !follow {
        return Ok((folder, target));
    }
    let target = walk(&target, geteuid().as_raw())
        .map_err(|why| why.told(path))?
        .unwrap_or(target);
    let folder = target.parent().map_or(folder, Path::to_owned);
    Ok((folder, target))
}

fn not_written(path: &Path, e: std::io::Error) -> Fault {
    Fault::of(path, format!("not written, so it is as it was: {e}"))
}

fn not_synced(path: &Path, e: std::io::Error) -> Fault {
    let words = format!("written, but its folder was not synced, so a crash may undo it: {e}");
    Fault::of(path, words)
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems have no way to sync a folder.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        other => other,
    }
}

/// A whole file under a name of its own, gone when dropped.
struct Draft(PathBuf);

impl Draft {
    fn write(folder: &Path, content: &[u8], mode: u32) -> std::io::Result<Self> {
        let number = secret::random::<8>().map_err(std::io::Error::other)?;
        let path = folder.join(format!("{}{}{}", DRAFT.0, secret::to_hex(&number), DRAFT.1));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let draft = Self(path);
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_file(&self.0);
    }
}

/// The permission bits of a file that is about to be replaced, so that it
/// keeps them; those given, where there is none.
pub fn mode_of(path: &Path, otherwise: u32) -> u32 {
    fs::metadata(path).map_or(otherwise, |about| about.mode() & 0o777)
}
