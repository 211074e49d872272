//! A file that this daemon has made in its run folder, and removes when it ends.
//!
//! Runs in the monitor. Must not remove another daemon's file: the folder may have been replaced.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that this daemon has made.
pub(super) struct OwnFile {
    path: PathBuf,
    /// Device and inode number; `None`: it was gone at once.
    identity: Option<(u64, u64)>,
}

impl OwnFile {
    /// Returns the file at this path, which was just made.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
        }
    }

    /// Removes it, unless another is there by now.
    pub(super) fn remove(self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // The daemon ends: the next one replaces what cannot be removed.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    /// Regression: a daemon whose run folder had been replaced removed the socket and the pid file
    /// of the next one.
    #[test]
    fn the_file_of_another_daemon_is_not_removed() {
        let folder = Scratch::new();
        let path = folder.path().join("socket");
        std::fs::write(&path, "").unwrap();
        let file = OwnFile::of(&path);
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        std::fs::write(&path, "").unwrap();
        file.remove();
        assert!(path.exists());
        OwnFile::of(&path).remove();
        assert!(!path.exists());
    }
}
