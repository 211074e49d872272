//! The state that inetd's monitors share: `run/inetd.table`. It belongs to root (or to the user, in
//! the user's own folder), has a fixed size, and does not survive a reboot.
//!
//! Runs in each monitor that inetd started. The table holds the penalties; the holders of slots
//! (silent connections, logins under way, PAM checks); and wrong guesses until their refusals are
//! sent. A slot is a lock on a byte beyond the file's end ([`locks`]), so the kernel releases it
//! when its monitor dies. A slot's record is valid while that lock is held.
//!
//! Must not trust impossible contents: a file that is short, old, from another boot or of another
//! owner is replaced. A writer holds byte 0 of the locks, for microseconds. No monitor waits for it
//! longer than [`PATIENCE`].

mod failures;
mod making;
mod pam_slots;
mod penalties;
mod preauth;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::ipc::inetd;
use crate::sys::{boot, locks};

pub(super) use pam_slots::for_one;
pub(super) use preauth::{Admission, PreauthStage};

/// How long a monitor waits for the others to release the table: they need microseconds, unless one
/// of them was stopped.
const PATIENCE: Duration = Duration::from_millis(500);
/// Delay between two tries.
const PAUSE: Duration = Duration::from_micros(200);

/// Most sources of each family with a penalty.
const SOURCES: usize = 65_536;
/// Most wrong guesses of each family that are remembered until their refusals are sent.
const GUESSES: usize = 4_096;
/// Most silent connections, whatever the settings allow: each takes three processes.
const PREAUTH_SLOTS: usize = 16_384;
/// Most logins checked at the same time: the maximum of the setting.
const PAM_SLOTS: usize = 256;

/// Where the parts of the file begin, bytes.
const HEADER: u64 = 64;
const PENALTIES: [u64; 2] = [HEADER, HEADER + (SOURCES * penalties::SIZE) as u64];
const PREAUTH_AT: u64 = PENALTIES[1] + (SOURCES * penalties::SIZE) as u64;
const PAM_SLOTS_AT: u64 = PREAUTH_AT + (PREAUTH_SLOTS * preauth::SIZE) as u64;
const FAILURES: [u64; 2] = [
    FAILURES_AT,
    FAILURES_AT + (GUESSES * penalties::SIZE) as u64,
];
const FAILURES_AT: u64 = PAM_SLOTS_AT + (PAM_SLOTS * pam_slots::SIZE) as u64;
const LENGTH: u64 = FAILURES[1] + (GUESSES * penalties::SIZE) as u64;

/// The meaning of the lock bytes, far beyond the file's end.
const LOCKS: u32 = 1 << 30;
const WHOLE: u32 = LOCKS;
const PREAUTH_LOCK: u32 = LOCKS + (1 << 20);
const PAM_SLOT_LOCK: u32 = LOCKS + (2 << 20);
const WAITING: u32 = LOCKS + (3 << 20);

/// Offsets of the header's counts: penalties of IPv4 and of IPv6, one more than the highest slot in
/// use by an unauthenticated connection, and wrong guesses of IPv4 and of IPv6.
const COUNTS: [u64; 5] = [40, 44, 48, 52, 56];
const HIGHEST: usize = 2;
const GUESSED: usize = 3;

/// The table, opened.
pub(super) struct Table {
    file: File,
    /// Whether it could not be read or written, and is used no more.
    is_lost: Cell<bool>,
}

impl Table {
    const fn of(file: File) -> Self {
        Self {
            file,
            is_lost: Cell::new(false),
        }
    }

    /// Has everyone who shares it do without it.
    pub(super) fn lose(&self) {
        self.is_lost.set(true);
    }

    /// Whether it is used no more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    /// Opens the table, and creates it if it is missing or invalid.
    ///
    /// # Errors
    /// Fails if the folder cannot be written, or if its file system does not support locks.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        making::open(path, &boot::id()).map_err(|e| Fault::of(path, e))
    }

    /// Makes this monitor visible to `cosadm`.
    ///
    /// # Errors
    /// Fails if the file system does not support locks.
    pub(super) fn be_found(&self) -> std::io::Result<bool> {
        Ok(inetd::be_found(&self.file)?)
    }

    /// Runs `work` while no other monitor writes.
    fn locked<T>(&self, work: impl FnOnce(&Self) -> std::io::Result<T>) -> std::io::Result<T> {
        lock(&self.file)?;
        let done = work(self);
        locks::release(&self.file, WHOLE);
        done
    }

    /// Returns one of the header's counts, at most the capacity.
    fn count(&self, which: usize) -> std::io::Result<usize> {
        let at = COUNTS.get(which).copied().unwrap_or(LENGTH);
        let count = usize::try_from(u32::from_le_bytes(self.read(at)?)).unwrap_or(usize::MAX);
        Ok(count.min(match which {
            HIGHEST => PREAUTH_SLOTS,
            GUESSED.. => GUESSES,
            _ => SOURCES,
        }))
    }

    fn set_count(&self, which: usize, count: usize) -> std::io::Result<()> {
        let at = COUNTS.get(which).copied().unwrap_or(LENGTH);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.file.write_all_at(&count.to_le_bytes(), at)
    }

    fn read<const N: usize>(&self, at: u64) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Reads a number of records of one size.
    fn read_many(&self, at: u64, count: usize, size: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count * size];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

/// Takes the lock of the whole table.
fn lock(file: &File) -> std::io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !locks::take(file, WHOLE)? {
        if Instant::now() >= until {
            let words = "another daemon holds it and does not go on";
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, words));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Returns the number of a slot's lock.
fn byte(of: u32, slot: usize) -> u32 {
    of.saturating_add(u32::try_from(slot).unwrap_or(u32::MAX))
}

/// Returns the offset of a record.
fn place(first: u64, slot: usize, size: usize) -> u64 {
    first.saturating_add(u64::try_from(slot * size).unwrap_or(u64::MAX))
}
