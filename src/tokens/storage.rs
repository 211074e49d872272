//! The opened file: reads and writes its records, and takes its locks.
//!
//! Runs in each process that uses the tokens. A lock is on one byte of the file ([`locks`]), so the
//! kernel releases it when its holder dies. Byte 0 is the lock of the lists, byte n + 1 that of
//! slot n. A process that takes both takes that of the lists first. A free slot is changed under the lock
//! of the lists, a live or ended one under its own, and one that is freed under both.

use std::cell::Cell;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::layout::{self, RECORD, RECORDS, SLOTS};
use super::record::{self, Record};
use super::token::NotDone;
use crate::fault::Fault;
use crate::sys::locks;

/// How often a lock is tried. Between two tries other processes run, and a holder needs
/// microseconds.
const TRIES: usize = 64;

/// How often a record is read that does not verify: it may be one that is written just now.
const READS: usize = 8;

/// Records that are read at a time.
const CHUNK: u32 = 16;

/// The opened file. Not for several threads: see [`super::TokenFile`].
pub(super) struct Storage {
    file: File,
    path: PathBuf,
    /// The first generation of each slot.
    pub(super) first_generation: u32,
    one_thread: PhantomData<Cell<()>>,
    #[cfg(test)]
    pub(super) meter: super::meter::Meter,
}

/// The lock of the lists, until it is dropped.
pub(super) struct ListsLock<'a>(pub(super) &'a Storage);

/// The lock of a slot, until it is dropped.
pub(super) struct SlotLock<'a> {
    storage: &'a Storage,
    slot: u32,
}

impl Drop for ListsLock<'_> {
    fn drop(&mut self) {
        locks::release(&self.0.file, 0);
    }
}

impl Drop for SlotLock<'_> {
    fn drop(&mut self) {
        locks::release(&self.storage.file, byte(self.slot));
    }
}

impl SlotLock<'_> {
    /// Returns the slot's record.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn record(&self) -> Result<Record, Fault> {
        self.storage.record(self.slot)
    }

    /// Writes the slot's record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, record: &record::Bytes) -> Result<(), Fault> {
        self.storage.write_record(self.slot, record)
    }
}

/// Returns the byte of a slot's lock.
const fn byte(slot: u32) -> u32 {
    slot.saturating_add(1)
}

impl Storage {
    pub(super) fn new(file: File, path: &Path) -> Self {
        Self {
            file,
            path: path.to_owned(),
            first_generation: 1,
            one_thread: PhantomData,
            #[cfg(test)]
            meter: super::meter::Meter::default(),
        }
    }

    /// Takes the lock of the lists.
    ///
    /// # Errors
    /// Another process holds it, or the file system does not support locks.
    pub(super) fn lock_lists(&self) -> Result<ListsLock<'_>, NotDone> {
        self.take(0)?;
        Ok(ListsLock(self))
    }

    /// Takes the lock of a slot.
    ///
    /// # Errors
    /// Another process holds it, or the file system does not support locks.
    pub(super) fn lock_slot(&self, slot: u32) -> Result<SlotLock<'_>, NotDone> {
        self.take(byte(slot))?;
        Ok(SlotLock {
            storage: self,
            slot,
        })
    }

    fn take(&self, byte: u32) -> Result<(), NotDone> {
        for _ in 0..TRIES {
            if locks::take(&self.file, byte).map_err(|e| self.fault(e))? {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(NotDone::Busy)
    }

    /// Returns what a slot has.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn record(&self, slot: u32) -> Result<Record, Fault> {
        let mut bytes = record::blank();
        for _ in 0..READS {
            bytes.fill(0);
            self.read(layout::record(slot), &mut bytes)?;
            let record = record::decode(slot, &bytes);
            if !matches!(record, Record::Damaged) {
                return Ok(record);
            }
            std::thread::yield_now();
        }
        Ok(Record::Damaged)
    }

    /// Writes a slot's record. Its lock, or that of the lists if it is free, must be held.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write_record(&self, slot: u32, record: &record::Bytes) -> Result<(), Fault> {
        self.write(layout::record(slot), record)
    }

    /// Calls `each` with the bytes of so many slots from one on, which are not verified.
    ///
    /// # Errors
    /// The file cannot be read, or what `each` returns.
    pub(super) fn scan(
        &self,
        from: u32,
        count: u32,
        mut each: impl FnMut(u32, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let end = self.slots()?.min(from.saturating_add(count));
        let mut bytes = Zeroizing::new(Vec::new());
        let mut next = from;
        while next < end {
            let now = CHUNK.min(end - next);
            bytes.clear();
            bytes.resize(usize::try_from(now).unwrap_or(0) * RECORD, 0);
            self.read(layout::record(next), &mut bytes)?;
            for (slot, bytes) in (next..).zip(bytes.chunks_exact(RECORD)) {
                each(slot, bytes)?;
            }
            next += now;
        }
        Ok(())
    }

    /// Returns how many slots the file has.
    ///
    /// # Errors
    /// The file system does not answer.
    pub(super) fn slots(&self) -> Result<u32, Fault> {
        let length = self.file.metadata().map_err(|e| self.fault(e))?.len();
        let slots = length
            .saturating_sub(RECORDS)
            .div_ceil(layout::record(1) - RECORDS);
        Ok(u32::try_from(slots).unwrap_or(SLOTS).min(SLOTS))
    }

    /// Reads as many of the bytes as the file has; the others are left as they are.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, mut at: u64, mut bytes: &mut [u8]) -> Result<(), Fault> {
        #[cfg(test)]
        self.meter.read(bytes.len());
        while !bytes.is_empty() {
            match self.file.read_at(bytes, at) {
                Ok(0) => break,
                Ok(count) => {
                    at = at.saturating_add(u64::try_from(count).unwrap_or(0));
                    bytes = bytes.get_mut(count..).unwrap_or_default();
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fault(e)),
            }
        }
        Ok(())
    }

    /// Writes bytes that do not cross a border of pages.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
        #[cfg(test)]
        if let Some(part) = self.meter.write(bytes) {
            let _ = self.file.write_all_at(part, at);
            return Err(Fault::new("killed"));
        }
        self.file.write_all_at(bytes, at).map_err(|e| self.fault(e))
    }

    /// Returns whether the path leads to this file.
    pub(super) fn is_in_place(&self) -> bool {
        let which = |about: std::fs::Metadata| (about.dev(), about.ino());
        let own = self.file.metadata().map(which);
        let there = self.path.symlink_metadata().map(which);
        own.is_ok_and(|own| there.is_ok_and(|there| own == there))
    }

    fn fault(&self, e: impl Into<Error>) -> Fault {
        Fault::of(&self.path, e.into())
    }
}
