//! The destination of an invitation card or a one-time password: standard output, or a new file
//! (`-o FILE`).
//!
//! Runs in `cosadm host invite`, `cosadm host rotate` and `cosadm otp add`. A file is written
//! completely, with mode 0600, and removed again unless the command succeeds, so no empty or
//! useless card remains. An invitation is written before anything else changes. A password is
//! written after it was stored, and withdrawn if it cannot be written. Must never replace an
//! existing file.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::call::Call;
use super::out::{Failure, Out};
use crate::cli::{Flag, flag};
use crate::fault::Fault;

/// The flag of the commands that print a card.
pub(super) const OUTPUT: Flag = flag(
    "-o, --output FILE",
    "write the card to FILE, a new file of mode 0600, not to standard output",
);

/// The flag of the command that prints a one-time password.
pub(super) const PASSWORD_OUTPUT: Flag = Flag {
    help: "write the password to FILE, a new file of mode 0600, not to standard output",
    ..OUTPUT
};

/// The destination of a command's card.
pub(super) enum CardOutput {
    Stdout,
    File(PathBuf),
}

impl CardOutput {
    /// Reads `-o`, and checks that a card can be written there.
    ///
    /// # Errors
    /// Returns an error if the file exists, or if standard output cannot take a secret.
    pub(super) fn of(call: &Call, out: &Out) -> Result<Self, Failure> {
        let file = call.value("output").filter(|file| file != "-");
        let Some(file) = file.map(PathBuf::from) else {
            out.takes_secrets()?;
            return Ok(Self::Stdout);
        };
        if fs::symlink_metadata(&file).is_ok() {
            return Err(exists(&file).into());
        }
        Ok(Self::File(file))
    }

    /// Writes the card if the destination is a file.
    ///
    /// # Errors
    /// Returns an error if the file exists or cannot be written. In the second case it is removed.
    pub(super) fn write(&self, card: &str) -> Result<WrittenCard, Fault> {
        let Self::File(path) = self else {
            return Ok(WrittenCard(None));
        };
        let wrong = |e: std::io::Error| {
            if e.kind() == ErrorKind::AlreadyExists {
                return exists(path);
            }
            Fault::of(path, format!("not written: {e}"))
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(wrong)?;
        let written = WrittenCard(Some(path.clone()));
        // The umask may have taken the owner's bits away.
        file.set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| file.write_all(card.as_bytes()))
            .and_then(|()| file.sync_all())
            .map_err(wrong)?;
        Ok(written)
    }
}

fn exists(file: &Path) -> Fault {
    Fault::of(file, "the file exists already; nothing was changed")
}

/// A card's file, removed when dropped unless it is kept.
pub(super) struct WrittenCard(Option<PathBuf>);

impl WrittenCard {
    /// Keeps the file and returns its path; `None`: the card goes to standard output.
    pub(super) fn keep(mut self) -> Option<PathBuf> {
        self.0.take()
    }
}

impl Drop for WrittenCard {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Its cookie was not stored, so the card is useless.
            let _ = fs::remove_file(path);
        }
    }
}
