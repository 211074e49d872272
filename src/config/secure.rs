//! Opens the administrator's files with care, and writes them atomically. Used by every program
//! that reads them.
//!
//! A file is trusted only if no user but root and the effective user could have written or replaced
//! it: the file and every folder above it are owned by one of the two and not writable by group or
//! others. A sticky folder (`/tmp`) may be, because users cannot replace each other's files in it.
//! A secret must not be readable by group or others either. The check walks down from `/`, so that
//! what was checked cannot be changed afterwards, and the file itself is judged by its open
//! descriptor.
//!
//! The same walk follows symbolic links: a link, its folder and every folder on the way to its
//! target must be as trustworthy as the rest. The last open refuses a link, so none can be swapped
//! in.
//!
//! Only regular files are read. They are opened so that a FIFO or a device cannot block, and never
//! more bytes are read than the caller's limit.

mod writing;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::unistd::geteuid;
use zeroize::Zeroizing;

pub use writing::{
    Created, DRAFT, create_new, create_new_of, make_folder, make_folders, not_written, remove,
    replace, replace_of,
};

use crate::fault::Fault;

/// Most symbolic links that one path may lead through; the kernel's number.
const LINKS: usize = 40;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// The kind of a file, which determines who may read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A key or a cookie: no other user may read it.
    Secret,
    /// Settings, the host table, pins: every user may read it.
    Policy,
}

/// Reads a file with care.
///
/// # Errors
/// It is missing, not a regular file, longer than `limit` bytes, unreadable,
/// or it or a folder above it can be changed by others.
pub fn read(path: &Path, kind: Kind, limit: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    read_if_there(path, kind, limit)?.ok_or_else(|| Fault::of(path, "there is no such file"))
}

/// Reads a file with care; `None` if it is missing.
///
/// # Errors
/// As [`read`], except for a missing file.
pub fn read_if_there(
    path: &Path,
    kind: Kind,
    limit: usize,
) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    Checker::new().read_if_there(path, kind, limit)
}

/// A memory of the folders that were found trustworthy. A program that reads five files of one
/// folder checks the folders above it once.
#[derive(Debug, Default)]
pub struct Checker {
    /// Maps a folder as named to the folder without links. Not a hash map: that takes random
    /// numbers, and panics if getrandom(2) fails.
    folders: Mutex<BTreeMap<PathBuf, PathBuf>>,
}

impl Checker {
    /// Returns one that remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file with care; `None` if it, or a folder above it, is missing.
    ///
    /// # Errors
    /// As [`read`], except for a missing file.
    pub fn read_if_there(
        &self,
        path: &Path,
        kind: Kind,
        limit: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        let Some((mut file, about)) = self.open(path)? else {
            return Ok(None);
        };
        judge_file(&about, geteuid().as_raw(), kind).map_err(|why| why.told(path))?;
        let size = usize::try_from(about.len()).unwrap_or(usize::MAX);
        if size > limit {
            return Err(Fault::of(
                path,
                format!("it is {size} bytes long; {limit} are the most that are read"),
            ));
        }
        // One byte more than the size shows whether the file has grown since. The buffer never
        // moves, so that no copy of a secret is left behind.
        let mut bytes = Zeroizing::new(vec![0; size + 1]);
        let mut filled = 0;
        while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
            match file.read(room) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Fault::of(path, e)),
            }
        }
        if filled > size {
            return Err(Fault::of(path, "it grew while it was read; try again"));
        }
        bytes.truncate(filled);
        Ok(Some(bytes))
    }

    /// Opens the file that a path leads to, through trustworthy folders only.
    fn open(&self, path: &Path) -> Result<Option<(File, Metadata)>, Fault> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Fault::of(path, "it is no file"));
        };
        let Some(folder) = self.folder(parent).map_err(|why| why.told(path))? else {
            return Ok(None);
        };
        let mut target = folder.join(name);
        for _ in 0..2 {
            let opened = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(&target);
            match opened {
                Ok(file) => {
                    let about = file.metadata().map_err(|e| Fault::of(path, e))?;
                    return Ok(Some((file, about)));
                }
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                // It is a link: walk it with the same care, then open its target.
                Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
                    match walk(&target, geteuid().as_raw()).map_err(|why| why.told(path))? {
                        Some(real) => target = real,
                        None => return Ok(None),
                    }
                }
                Err(e) => return Err(Fault::of(path, e)),
            }
        }
        Err(Fault::of(path, "it changed while it was opened; try again"))
    }

    /// Opens a secret file for reading and writing, in a trustworthy folder; `None` if it is
    /// missing. For a file that several processes change in place.
    ///
    /// # Errors
    /// It is a link, not a regular file, or cannot be opened; or other users can read or change it
    /// or a folder above it.
    pub fn open_to_change(&self, path: &Path) -> Result<Option<File>, Fault> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Fault::of(path, "it is no file"));
        };
        let Some(folder) = self.folder(parent).map_err(|why| why.told(path))? else {
            return Ok(None);
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(folder.join(name));
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
                return Err(Fault::of(path, "it is a symbolic link"));
            }
            Err(e) => return Err(Fault::of(path, e)),
        };
        let about = file.metadata().map_err(|e| Fault::of(path, e))?;
        judge_file(&about, geteuid().as_raw(), Kind::Secret).map_err(|why| why.told(path))?;
        Ok(Some(file))
    }

    /// Checks a folder as [`check_folder`] does, unless it was already found trustworthy.
    ///
    /// # Errors
    /// The same.
    pub fn check_folder(&self, folder: &Path) -> Result<PathBuf, Fault> {
        let missing = || Fault::of(folder, "there is no such folder");
        let found = self.folder(folder).map_err(|why| why.told(folder))?;
        found.ok_or_else(missing)
    }

    /// Forgets the folders, so that each is checked again.
    pub fn forget(&self) {
        let mut seen = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clear();
    }

    /// Returns the folder without links if it and all folders above it are trustworthy.
    fn folder(&self, folder: &Path) -> Result<Option<PathBuf>, Unsafe> {
        let mut seen = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(real) = seen.get(folder) {
            return Ok(Some(real.clone()));
        }
        let me = geteuid().as_raw();
        let above = folder.parent().and_then(|above| seen.get(above));
        let real = match (above, folder.file_name()) {
            (Some(above), Some(name)) => walk_on(above.clone(), Path::new(name), me)?,
            _ => walk(&std::path::absolute(folder).map_err(Unsafe::Io)?, me)?,
        };
        match &real {
            // Without links, every folder above it was walked as well.
            Some(real) if real == folder => {
                for above in folder.ancestors() {
                    seen.insert(above.to_owned(), above.to_owned());
                }
            }
            Some(real) => drop(seen.insert(folder.to_owned(), real.clone())),
            None => {}
        }
        Ok(real)
    }
}

/// Checks that only root and the effective user can create or replace files in a folder and in
/// every folder above it. Returns the folder without symbolic links.
///
/// # Errors
/// It is missing, or other users can write it or one above it.
pub fn check_folder(folder: &Path) -> Result<PathBuf, Fault> {
    Checker::new().check_folder(folder)
}

/// Why a file is not trusted: the file or folder, and what is wrong.
enum Unsafe {
    Folder(PathBuf, String),
    File(String),
    Io(std::io::Error),
}

impl Unsafe {
    fn told(self, path: &Path) -> Fault {
        match self {
            Self::Folder(folder, why) if folder == path => Fault::of(path, format!("it {why}")),
            Self::Folder(folder, why) => Fault::of(
                path,
                format!("not trusted, since {} {why}", folder.display()),
            ),
            Self::File(why) => Fault::of(path, why),
            Self::Io(e) => Fault::of(path, e),
        }
    }
}

/// Walks an absolute path from the root, link by link, and returns it without links; `None` if
/// something on it is missing.
fn walk(path: &Path, me: u32) -> Result<Option<PathBuf>, Unsafe> {
    let root = PathBuf::from("/");
    let about = fs::symlink_metadata(&root).map_err(Unsafe::Io)?;
    judge_folder(&about, me).map_err(|why| Unsafe::Folder(root.clone(), why))?;
    walk_on(root, path, me)
}

/// Walks on from a trustworthy folder that has no links in its path.
fn walk_on(mut done: PathBuf, path: &Path, me: u32) -> Result<Option<PathBuf>, Unsafe> {
    let mut links = 0;
    let mut ahead: Vec<OsString> = Vec::new();
    let push = |ahead: &mut Vec<OsString>, path: &Path| {
        for part in path.components().rev() {
            match part {
                Component::Normal(name) => ahead.push(name.to_owned()),
                Component::ParentDir => ahead.push("..".into()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
    };
    push(&mut ahead, path);
    while let Some(name) = ahead.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        let about = match fs::symlink_metadata(&next) {
            Ok(about) => about,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Unsafe::Folder(next, format!("cannot be looked at: {e}"))),
        };
        if about.is_symlink() {
            judge_owner(&about, me).map_err(|why| Unsafe::Folder(next.clone(), why))?;
            links += 1;
            if links > LINKS {
                return Err(Unsafe::Folder(
                    next,
                    "leads through too many symbolic links".into(),
                ));
            }
            let target = fs::read_link(&next).map_err(Unsafe::Io)?;
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            push(&mut ahead, &target);
        } else if about.is_dir() {
            judge_folder(&about, me).map_err(|why| Unsafe::Folder(next.clone(), why))?;
            done = next;
        } else if ahead.is_empty() {
            return Ok(Some(next)); // the file at the end, judged when open
        } else {
            return Err(Unsafe::Folder(next, "is no folder".into()));
        }
    }
    Ok(Some(done))
}

fn judge_owner(about: &Metadata, me: u32) -> Result<(), String> {
    if about.uid() == 0 || about.uid() == me {
        return Ok(());
    }
    let whom = if me == 0 {
        "root".to_owned()
    } else {
        format!("root or user {me}")
    };
    Err(format!("is owned by user {}, not by {whom}", about.uid()))
}

fn judge_folder(about: &Metadata, me: u32) -> Result<(), String> {
    judge_owner(about, me)?;
    let mode = about.mode() & 0o7777;
    if mode & (GROUP_WRITES | OTHERS_WRITE) != 0 && mode & STICKY == 0 {
        return Err(writable(mode));
    }
    Ok(())
}

fn judge_file(about: &Metadata, me: u32, kind: Kind) -> Result<(), Unsafe> {
    let mode = about.mode() & 0o7777;
    if !about.is_file() {
        return Err(Unsafe::File("it is no regular file".into()));
    }
    judge_owner(about, me).map_err(|why| Unsafe::File(format!("it {why}")))?;
    if mode & (GROUP_WRITES | OTHERS_WRITE) != 0 {
        return Err(Unsafe::File(format!("it {}", writable(mode))));
    }
    if kind == Kind::Secret && mode & 0o077 != 0 {
        return Err(Unsafe::File(format!(
            "it is a secret and others can read it (mode {mode:04o}); replace it, or chmod 600 it"
        )));
    }
    Ok(())
}

fn writable(mode: u32) -> String {
    let who = if mode & OTHERS_WRITE != 0 {
        "all users"
    } else {
        "its group"
    };
    format!("can be written by {who} (mode {mode:04o}); chmod go-w makes it safe")
}

#[cfg(test)]
#[path = "secure_tests.rs"]
mod tests;
