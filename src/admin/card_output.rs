//! Where an invitation card or a one-time password goes: standard output, or a new file
//! (`-o FILE`).
//!
//! Run by `cosadm host invite`, `cosadm host rotate` and `cosadm otp add`. A file is created
//! whole, mode 0600, and is removed again unless the command succeeds, so that no empty or
//! useless card is left. An invitation's is written before anything else is changed; a
//! password's after it was stored, and who cannot write it withdraws the password. Must never
//! replace a file that exists.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::call::{Call, Flag, flag};
use super::out::{Failure, Out};
use crate::fault::Fault;

/// The flag of the commands that print a card.
pub(super) const OUTPUT: Flag = Flag {
    short: "o",
    ..flag(
        "output",
        "FILE",
        false,
        "write the card to FILE, a new file of mode 0600, not to standard output",
    )
};

/// The flag of the command that prints a one-time password.
pub(super) const PASSWORD_OUTPUT: Flag = Flag {
    meaning: "write the password to FILE, a new file of mode 0600, not to standard output",
    ..OUTPUT
};

/// Where the card of a command goes.
pub(super) enum CardOutput {
    Stdout,
    File(PathBuf),
}

impl CardOutput {
    /// Reads `-o`, and checks that a card can be written there.
    ///
    /// # Errors
    /// The file exists, or standard output cannot keep a secret.
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

    /// Writes the card, where it goes to a file.
    ///
    /// # Errors
    /// The file exists, or it cannot be written; then there is none.
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
            // Its cookie was not stored, so the card is of no use to anybody.
            let _ = fs::remove_file(path);
        }
    }
}
