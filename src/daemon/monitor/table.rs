//! What inetd's many monitors know in common: `run/inetd.table`, root's alone (or the
//! user's, in his own folder), of a fixed size, gone with a reboot.
//!
//! Run by a monitor that inetd started. Penalties are remembered in it, and who holds a
//! slot: of silent connections, of logins under way, of PAM's checks; and wrong guesses
//! until they are told. A slot is a lock
//! on a byte beyond the file's end ([`locks`]), so that the kernel frees it when its
//! monitor dies; what stands in the file about a slot counts while that lock is held.
//!
//! Nothing in the file is believed that cannot be so: one that is short, old, of another
//! boot or another's is replaced. Whoever writes holds byte 0 of the locks, for
//! microseconds; nobody waits for it longer than [`PATIENCE`].

mod failures;
mod making;
mod pam_slots;
mod penalties;
mod preauth;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::ipc::inetd;
use crate::sys::locks;

pub(super) use pam_slots::for_one;
pub(super) use preauth::{Admission, PreauthStage};

/// How long a monitor waits for the others to be done with the table: they need
/// microseconds, unless somebody has stopped one of them.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two tries.
const PAUSE: Duration = Duration::from_micros(200);

/// How many sources of each family can have a penalty.
const SOURCES: usize = 65_536;
/// How many wrong guesses of each family are remembered until they are told.
const GUESSES: usize = 4_096;
/// How many silent connections there can be, whatever the settings allow: each is three
/// processes.
const STRANGERS: usize = 16_384;
/// How many logins can be checked at the same time: the most that the settings allow.
const TURNS: usize = 256;

/// Where the parts of the file begin, bytes.
const HEADER: u64 = 64;
const PENALTIES: [u64; 2] = [HEADER, HEADER + (SOURCES * penalties::SIZE) as u64];
const STRANGERS_AT: u64 = PENALTIES[1] + (SOURCES * penalties::SIZE) as u64;
const TURNS_AT: u64 = STRANGERS_AT + (STRANGERS * preauth::SIZE) as u64;
const FAILURES: [u64; 2] = [
    FAILURES_AT,
    FAILURES_AT + (GUESSES * penalties::SIZE) as u64,
];
const FAILURES_AT: u64 = TURNS_AT + (TURNS * pam_slots::SIZE) as u64;
const LENGTH: u64 = FAILURES[1] + (GUESSES * penalties::SIZE) as u64;

/// Which byte of the locks stands for what: far beyond the file's end.
const LOCKS: u32 = 1 << 30;
const WHOLE: u32 = LOCKS;
const STRANGER: u32 = LOCKS + (1 << 20);
const TURN: u32 = LOCKS + (2 << 20);
const WAITING: u32 = LOCKS + (3 << 20);

/// Where the header's numbers stand: penalties of IPv4 and of IPv6, the number
/// after the highest slot of a stranger that is in use, and wrong guesses of IPv4 and of
/// IPv6.
const COUNTS: [u64; 5] = [40, 44, 48, 52, 56];
const HIGHEST: usize = 2;
const GUESSED: usize = 3;

/// The table, opened.
pub(super) struct Table {
    file: File,
}

impl Table {
    /// Opens the table, and makes it where it is missing or cannot be believed.
    ///
    /// # Errors
    /// The folder cannot be written, or its file system cannot lock.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        making::open(path, &making::boot()).map_err(|e| Fault::of(path, e))
    }

    /// Lets `cosadm` find this monitor.
    ///
    /// # Errors
    /// The file system cannot lock.
    pub(super) fn be_found(&self) -> std::io::Result<bool> {
        Ok(inetd::be_found(&self.file)?)
    }

    /// Does something while no other monitor writes.
    fn locked<T>(&self, work: impl FnOnce(&Self) -> std::io::Result<T>) -> std::io::Result<T> {
        lock(&self.file)?;
        let done = work(self);
        locks::release(&self.file, WHOLE);
        done
    }

    /// One of the header's counts, never more than there is room for.
    fn count(&self, which: usize) -> std::io::Result<usize> {
        let at = COUNTS.get(which).copied().unwrap_or(LENGTH);
        let count = usize::try_from(u32::from_le_bytes(self.read(at)?)).unwrap_or(usize::MAX);
        Ok(count.min(match which {
            HIGHEST => STRANGERS,
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

    /// So many records of a size from there on.
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

/// The number of a slot's lock.
fn byte(of: u32, slot: usize) -> u32 {
    of.saturating_add(u32::try_from(slot).unwrap_or(u32::MAX))
}

/// Where a record stands.
fn place(first: u64, slot: usize, size: usize) -> u64 {
    first.saturating_add(u64::try_from(slot * size).unwrap_or(u64::MAX))
}
