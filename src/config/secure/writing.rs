//! Writing the administrator's files: at once or not at all.
//!
//! What is written goes to a draft of its own in the same folder, is synced,
//! and then takes its name; the folder is synced last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::{Checker, check_folder, walk};
use crate::fault::Fault;
use crate::secret;
use crate::sys::acl;

/// The bits of a mode that are for others than the owner.
const OTHERS: u32 = 0o077;

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
    let draft = TempFile::write(&folder, content, mode).map_err(|e| not_written(path, e))?;
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
/// A file that is replaced keeps its owner, group, mode and access control list. `mode` is
/// that of a new one; where it gives nothing to others the file is a secret, and what an old
/// one gave them is taken away.
///
/// # Errors
/// As [`create_new`], or the owner, the group or the list cannot be kept; then the old file is
/// as it was, with the same exception.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Fault> {
    let (folder, target) = writing(path, true)?;
    let kept = Kept::of(&target, mode).map_err(|e| not_written(path, e))?;
    let draft = TempFile::write(&folder, content, 0o600).map_err(|e| not_written(path, e))?;
    kept.give(&draft.0).map_err(|e| not_written(path, e))?;
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
    Checker::new().make_folder(path, mode)
}

impl Checker {
    /// Makes a folder as [`make_folder`] does; folders that were already found trustworthy are
    /// not checked again.
    ///
    /// # Errors
    /// The same.
    pub fn make_folder(&self, path: &Path, mode: u32) -> Result<Created, Fault> {
        // One that is there is walked to once, with those above it.
        if self.folder(path).map_err(|why| why.told(path))?.is_some() {
            return Ok(Created::There);
        }
        let parent = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        self.check_folder(parent)?;
        match fs::DirBuilder::new().mode(mode).create(path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                return self.check_folder(path).map(|_| Created::There);
            }
            Err(e) => return Err(Fault::of(path, format!("not made: {e}"))),
        }
        // The umask may have taken bits away.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|e| Fault::of(path, e))?;
        Ok(Created::New)
    }
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
        .map_or_else(|| not_a_link(path, target), Ok)?;
    let folder = target.parent().map_or(folder, Path::to_owned);
    Ok((folder, target))
}

/// A file that does not exist, unless a link leads to it: replacing it would replace the link.
fn not_a_link(path: &Path, target: PathBuf) -> Result<PathBuf, Fault> {
    if target.is_symlink() {
        let words = "it is a symbolic link to a file that does not exist, so nothing was written";
        return Err(Fault::of(path, words));
    }
    Ok(target)
}

/// What a file keeps when it is replaced.
struct Kept {
    /// Its group, where it exists.
    group: Option<u32>,
    mode: u32,
    list: Option<Vec<u8>>,
}

impl Kept {
    /// What the file at this path has, which is no link; `mode` is that of a new one.
    fn of(path: &Path, mode: u32) -> io::Result<Self> {
        let about = match fs::symlink_metadata(path) {
            Ok(about) => about,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Ok(Self {
                    group: None,
                    mode,
                    list: None,
                });
            }
            Err(e) => return Err(e),
        };
        if !about.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let me = geteuid();
        // As another user's, the new file would not be trusted; as ours, it was root's.
        if about.uid() == 0 && !me.is_root() {
            return Err(io::Error::other(
                "it is owned by root, and a new one would not be; root can change it",
            ));
        }
        let old = about.mode() & 0o7777;
        if mode & OTHERS == 0 && old & OTHERS != 0 {
            return Ok(Self {
                group: Some(about.gid()),
                mode: old & !OTHERS,
                list: None,
            });
        }
        Ok(Self {
            group: Some(about.gid()),
            mode: old,
            list: acl::access_list(path)?,
        })
    }

    /// Gives it to the file that is to take the old one's place.
    fn give(&self, draft: &Path) -> io::Result<()> {
        // While its mode lets the owner read it.
        let file = File::open(draft)?;
        let about = file.metadata()?;
        if let Some(group) = self.group.filter(|group| *group != about.gid()) {
            chown(draft, None, Some(group))
                .map_err(|e| io::Error::new(e.kind(), format!("its group cannot be kept: {e}")))?;
        }
        if self.group.is_some() {
            // Its folder may have given the new file a list of its own.
            acl::set_access_list(draft, self.list.as_deref()).map_err(|e| {
                io::Error::new(e.kind(), format!("its access list cannot be kept: {e}"))
            })?;
        }
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        file.sync_all()
    }
}

fn not_written(path: &Path, e: io::Error) -> Fault {
    Fault::of(path, format!("not written, so it is as it was: {e}"))
}

fn not_synced(path: &Path, e: io::Error) -> Fault {
    let words = format!("written, but its folder was not synced, so a crash may undo it: {e}");
    Fault::of(path, words)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems have no way to sync a folder.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        other => other,
    }
}

/// A whole file under a name of its own, gone when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn write(folder: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        let number = secret::random::<8>().map_err(io::Error::other)?;
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

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_file(&self.0);
    }
}
