//! Writes the administrator's files atomically.
//!
//! The content goes to a temporary file in the same folder, is synced, and is then renamed to the
//! target. The folder is synced last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::unistd::geteuid;

use super::{Checker, check_folder, walk};
use crate::fault::Fault;
use crate::secret;
use crate::sys::acl;

/// The mode bits of group and others.
const OTHERS: u32 = 0o077;

/// Prefix and suffix of a temporary file's name; only a crash leaves one.
pub const DRAFT: (&str, &str) = (".cosserver-", ".tmp");

/// Whether a new file was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// It was created.
    New,
    /// It already existed and was left as it is.
    There,
}

/// Creates a file with all of its content atomically, unless one of that name exists. If two
/// processes race, one creates it and the other gets [`Created::There`].
///
/// # Errors
/// The folder is not trusted, or a system call failed, for example because the disk is full. The
/// file then does not exist, unless the fault says that it was written but not synced.
pub fn create_new(path: &Path, content: &[u8], mode: u32) -> Result<Created, Fault> {
    create_new_of(path, content, mode, None)
}

/// Creates a file as [`create_new`] does, with this modification time.
///
/// # Errors
/// The same.
pub fn create_new_of(
    path: &Path,
    content: &[u8],
    mode: u32,
    modified: Option<SystemTime>,
) -> Result<Created, Fault> {
    let (folder, target) = writing(path, false)?;
    let draft =
        TempFile::write(&folder, content, mode, modified).map_err(|e| not_written(path, e))?;
    match fs::hard_link(&draft.0, &target) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Created::There),
        Err(e) => return Err(not_written(path, e)),
    }
    drop(draft);
    sync_folder(&folder).map_err(|e| not_synced(path, e))?;
    Ok(Created::New)
}

/// Creates or replaces a file atomically: a reader sees either the old or the new file, complete. A
/// symbolic link stays, and its target is replaced.
///
/// A replaced file keeps its owner, group, mode and access control list. `mode` is that of a new
/// file. If `mode` gives nothing to others, the file is a secret, and any access that the old one
/// gave to others is removed.
///
/// # Errors
/// As [`create_new`], or the owner, the group or the list cannot be kept. The old file is then
/// unchanged, with the same exception.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Fault> {
    replace_of(path, content, mode, None)
}

/// Creates or replaces a file as [`replace`] does; it then has this modification time.
///
/// # Errors
/// The same.
pub fn replace_of(
    path: &Path,
    content: &[u8],
    mode: u32,
    modified: Option<SystemTime>,
) -> Result<(), Fault> {
    let (folder, target) = writing(path, true)?;
    let kept = Kept::of(&target, mode).map_err(|e| not_written(path, e))?;
    let draft =
        TempFile::write(&folder, content, 0o600, modified).map_err(|e| not_written(path, e))?;
    kept.give(&draft.0).map_err(|e| not_written(path, e))?;
    fs::rename(&draft.0, &target).map_err(|e| not_written(path, e))?;
    sync_folder(&folder).map_err(|e| not_synced(path, e))
}

/// Removes a file, and returns whether it existed.
///
/// # Errors
/// A system call failed.
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

/// Creates a folder of that mode in a trustworthy folder, if it does not exist.
///
/// # Errors
/// The folder above is missing or not trusted, or a system call failed.
pub fn make_folder(path: &Path, mode: u32) -> Result<Created, Fault> {
    Checker::new().make_folder(path, mode)
}

impl Checker {
    /// Creates a folder as [`make_folder`] does; folders that were already found trustworthy are
    /// not checked again.
    ///
    /// # Errors
    /// The same.
    pub fn make_folder(&self, path: &Path, mode: u32) -> Result<Created, Fault> {
        // An existing one is walked to once, with those above it.
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
        // The umask may have removed bits.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|e| Fault::of(path, e))?;
        Ok(Created::New)
    }
}

/// Creates a folder and the missing ones above it, each in a trustworthy folder. Nothing is created
/// below a folder, or through a link, that other users could replace.
///
/// # Errors
/// As [`make_folder`].
pub fn make_folders(path: &Path, mode: u32) -> Result<Created, Fault> {
    // A dangling link exists, and is rejected as what it is.
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    let mut created = Created::There;
    for folder in missing.into_iter().rev() {
        created = make_folder(folder, mode)?;
    }
    check_folder(path)?;
    Ok(created)
}

/// Returns the trustworthy folder to write in, and the file in it. If the file is to be replaced,
/// links at the end of the path are followed.
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

/// Checks that a missing target is not a dangling link: replacing it would replace the link.
fn not_a_link(path: &Path, target: PathBuf) -> Result<PathBuf, Fault> {
    if target.is_symlink() {
        let words = "it is a symbolic link to a file that does not exist, so nothing was written";
        return Err(Fault::of(path, words));
    }
    Ok(target)
}

/// The attributes that a file keeps when it is replaced.
struct Kept {
    /// Its group, if the file exists.
    group: Option<u32>,
    mode: u32,
    list: Option<Vec<u8>>,
}

impl Kept {
    /// Reads the attributes of the file at this path, which is not a link; `mode` is that of a new
    /// file.
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
        // Owned by another user, the new file would not be trusted; owned by the caller, it would
        // no longer be root's.
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

    /// Applies the attributes to the file that replaces the old one.
    fn give(&self, draft: &Path) -> io::Result<()> {
        // Open it while its mode lets the owner read it.
        let file = File::open(draft)?;
        let about = file.metadata()?;
        if let Some(group) = self.group.filter(|group| *group != about.gid()) {
            chown(draft, None, Some(group))
                .map_err(|e| io::Error::new(e.kind(), format!("its group cannot be kept: {e}")))?;
        }
        if self.group.is_some() {
            // Its folder may have given the new file a default list.
            acl::set_access_list(draft, self.list.as_deref()).map_err(|e| {
                io::Error::new(e.kind(), format!("its access list cannot be kept: {e}"))
            })?;
        }
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        file.sync_all()
    }
}

/// Returns the fault of a file that was not written.
pub fn not_written(path: &Path, e: io::Error) -> Fault {
    let is_one_of = |kinds: [ErrorKind; 2]| kinds.contains(&e.kind());
    let words = if is_one_of([ErrorKind::StorageFull, ErrorKind::QuotaExceeded]) {
        "the disk is full".to_owned()
    } else if is_one_of([ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied]) {
        format!("it cannot be written ({e})")
    } else {
        format!("it was not written: {e}")
    };
    Fault::of(path, format!("{words}; nothing was changed"))
}

fn not_synced(path: &Path, e: io::Error) -> Fault {
    let words = format!("written, but its folder was not synced, so a crash may undo it: {e}");
    Fault::of(path, words)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems cannot sync a folder.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        other => other,
    }
}

/// A complete temporary file, removed when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn write(
        folder: &Path,
        content: &[u8],
        mode: u32,
        modified: Option<SystemTime>,
    ) -> io::Result<Self> {
        let number = secret::random::<8>().map_err(io::Error::other)?;
        let path = folder.join(format!("{}{}{}", DRAFT.0, secret::to_hex(&number), DRAFT.1));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let draft = Self(path);
        file.write_all(content)?;
        modified.map_or(Ok(()), |time| file.set_modified(time))?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename it no longer exists.
        let _ = fs::remove_file(&self.0);
    }
}
