//! Opens the inetd table so that no other user's file is mistaken for it, and creates it.
//!
//! Runs in the monitor. A table is created under a temporary name and then put in place whole. Of
//! two that race one wins: the other finds, once it has the lock, that its path leads to another
//! file. Must not touch what a link, or another user's file, leads to.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{HEADER, LENGTH, Table, WHOLE, lock};
use crate::config::secure::DRAFT;
use crate::secret;
use crate::sys::{boot, locks};

/// The start of a table: identifies the file and its format.
const MAGIC: &[u8; 16] = b"cosserver-inetd1";
/// Length of the boot ID that follows, so that no time of an earlier boot is taken for one of this.
/// Without an ID a time can at most be implausibly late.
const BOOT: usize = boot::LENGTH;
/// Tries, in case others create the table at the same time.
const TRIES: usize = 16;

pub(super) fn open(path: &Path, boot: &[u8; BOOT]) -> Result<Table> {
    for _ in 0..TRIES {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let file = match opened {
            Ok(file) if is_ours(&file)? => file,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                make(path, boot, Place::Free)?;
                continue;
            }
            // A link, a device, another user's file: what it leads to is not touched.
            Ok(_) | Err(_) => {
                make(path, boot, Place::Taken)?;
                continue;
            }
        };
        lock(&file)?;
        if !is_at(&file, path)? {
            continue;
        }
        if is_valid(&file, boot)? {
            locks::release(&file, WHOLE);
            return Ok(Table::of(file));
        }
        // Those that wait for its lock will find that the path leads elsewhere.
        make(path, boot, Place::Taken)?;
    }
    Err(Error::other("it changes all the time"))
}

/// Whether only this user can have written it.
fn is_ours(file: &File) -> Result<bool> {
    let about = file.metadata()?;
    let private = about.mode() & 0o7177 == 0;
    Ok(about.is_file() && about.uid() == geteuid().as_raw() && private)
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let (here, about) = (file.metadata()?, fs::symlink_metadata(path));
    Ok(about.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())))
}

fn is_valid(file: &File, boot: &[u8; BOOT]) -> Result<bool> {
    if file.metadata()?.len() != LENGTH {
        return Ok(false);
    }
    let mut head = [0; MAGIC.len() + BOOT];
    file.read_exact_at(&mut head, 0)?;
    Ok(head.split_at(MAGIC.len()) == (MAGIC.as_slice(), boot.as_slice()))
}

/// Whether something is at the table's path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Taken,
}

/// Creates an empty table. If another monitor was faster, its table stays.
fn make(path: &Path, boot: &[u8; BOOT], place: Place) -> Result<()> {
    let draft = TempFile::new(path)?;
    draft.write(boot)?;
    match place {
        Place::Free => match fs::hard_link(&draft.0, path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        },
        Place::Taken => fs::rename(&draft.0, path),
    }
}

/// A table under a temporary name, removed when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(path: &Path) -> Result<Self> {
        let number = secret::random::<8>().map_err(Error::other)?;
        let name = format!("{}{}{}", DRAFT.0, secret::to_hex(&number), DRAFT.1);
        Ok(Self(path.with_file_name(name)))
    }

    fn write(&self, boot: &[u8; BOOT]) -> Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.0)?;
        let mut head = [MAGIC.as_slice(), boot].concat();
        head.resize(usize::try_from(HEADER).unwrap_or_default(), 0);
        file.write_all_at(&head, 0)?;
        // The rest takes no disk space until it is written.
        file.set_len(LENGTH)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_file(&self.0);
    }
}
