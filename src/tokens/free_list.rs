//! The list of free slots, so that one is found without a search, and the number of slots.
//!
//! Runs in each process that uses the tokens, under the lock of the lists. The head of the list
//! names its first slot and the second one. A free record names the next slot and the one after it.
//! The head is written before a slot becomes free, and after a slot has come into use: in between,
//! the first slot is not free, and the list begins at the second. So a process may be killed between
//! any two writes, and neither loses a slot nor has one in the list that is in use.
//!
//! A slot that is not free is never handed out, whatever the list says. If the list is wrong all
//! the same (the file was damaged), it is given up for an empty one with another number, its epoch.
//! The sweep adds each free slot that has another epoch.

use super::layout::{LISTS_AT, checksum, get, number, put, short};
use super::record::{self, Free, Record};
use super::storage::{ListsLock, SlotLock, Storage};
use super::token::{Index, NotDone};
use crate::fault::Fault;
use crate::secret;

/// The number of no slot.
const NONE: u32 = u32::MAX;

/// Bytes of the head, and how many of them the checksum covers.
const SIZE: usize = 32;
const CHECKED: usize = SIZE - 8;

/// The head of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    /// Slots that were ever used.
    used: u32,
    first: u32,
    second: u32,
    epoch: u64,
}

impl Head {
    fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        put(&mut bytes, 0, &self.used.to_le_bytes());
        put(&mut bytes, 4, &self.first.to_le_bytes());
        put(&mut bytes, 8, &self.second.to_le_bytes());
        put(&mut bytes, 16, &self.epoch.to_le_bytes());
        let sum = checksum(bytes.get(..CHECKED).unwrap_or_default());
        put(&mut bytes, CHECKED, &sum);
        bytes
    }

    fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let sum = checksum(bytes.get(..CHECKED).unwrap_or_default());
        (get(bytes, CHECKED) == sum).then(|| Self {
            used: short(bytes, 0),
            first: short(bytes, 4),
            second: short(bytes, 8),
            epoch: number(bytes, 16),
        })
    }
}

/// Returns the head of a new file.
///
/// # Errors
/// The kernel gave no random bytes.
pub(super) fn new() -> Result<[u8; SIZE], Fault> {
    Ok(empty(0)?.encode())
}

fn empty(used: u32) -> Result<Head, Fault> {
    Ok(Head {
        used,
        first: NONE,
        second: NONE,
        epoch: u64::from_le_bytes(secret::random()?),
    })
}

/// Returns the number of the list, without its lock; `None`: it is just changed, or damaged.
///
/// # Errors
/// The file cannot be read.
pub(super) fn epoch(storage: &Storage) -> Result<Option<u64>, Fault> {
    let mut bytes = [0; SIZE];
    storage.read(LISTS_AT, &mut bytes)?;
    Ok(Head::decode(&bytes).map(|head| head.epoch))
}

/// The slots, while the lists are locked.
pub(super) struct Slots<'a> {
    lock: &'a ListsLock<'a>,
    head: Head,
    /// The record of the first free slot.
    first: Option<Free>,
}

/// A slot that can be used.
pub(super) struct Found {
    /// The index of the token in it.
    pub(super) index: Index,
    /// The head of the list once the slot is in use.
    head: Head,
}

impl<'a> Slots<'a> {
    /// Reads the head of the list, and corrects it if a process was killed before it had done so.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn of(lock: &'a ListsLock<'a>) -> Result<Self, Fault> {
        let mut bytes = [0; SIZE];
        lock.0.read(LISTS_AT, &mut bytes)?;
        let read = Head::decode(&bytes);
        let mut slots = Self {
            lock,
            head: read.map_or_else(|| empty(lock.0.slots()?), Ok)?,
            first: None,
        };
        slots.begin()?;
        // Once more a process may be killed between two writes: first undo what the last one left.
        if read != Some(slots.head) {
            lock.0.write(LISTS_AT, &slots.head.encode())?;
        }
        Ok(slots)
    }

    /// Finds where the list begins. Gives it up if it is wrong.
    fn begin(&mut self) -> Result<(), Fault> {
        for slot in [self.head.first, self.head.second] {
            if slot == NONE {
                (self.head.first, self.head.second) = (NONE, NONE);
                return Ok(());
            }
            self.first = self.free(slot)?;
            if let Some(free) = self.first {
                (self.head.first, self.head.second) = (slot, free.next);
                return Ok(());
            }
        }
        self.head = empty(self.head.used)?;
        Ok(())
    }

    /// Returns a slot's record if it is in the list.
    fn free(&self, slot: u32) -> Result<Option<Free>, Fault> {
        match self.lock.0.record(slot)? {
            Record::Free(free) if free.epoch == self.head.epoch => Ok(Some(free)),
            Record::Free(_)
            | Record::Blank
            | Record::Live(_)
            | Record::Ended(_)
            | Record::Retired
            | Record::Damaged => Ok(None),
        }
    }

    /// Returns a free slot, of at most so many slots.
    ///
    /// # Errors
    /// All are in use, or the file cannot be read.
    pub(super) fn find(&self, most: u32) -> Result<Found, NotDone> {
        let mut head = self.head;
        if let Some(free) = self.first {
            (head.first, head.second) = (free.next, free.after);
            // A slot with no generation left is not in the list: see `put`.
            let index = free.index.next().ok_or(NotDone::TooMany)?;
            return Ok(Found { index, head });
        }
        // A slot may be in use already: a process was killed before it could count it.
        while head.used < most {
            let slot = head.used;
            head.used += 1;
            if let Record::Blank = self.lock.0.record(slot)? {
                let index = Index::at(slot, self.lock.0.first_generation);
                return Ok(Found { index, head });
            }
        }
        Err(NotDone::TooMany)
    }

    /// Takes a slot out of the list, once its record is that of a token.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn take(&self, found: &Found) -> Result<(), Fault> {
        self.lock.0.write(LISTS_AT, &found.head.encode())
    }

    /// Adds a slot to the list, which it must not be in. `index`: its last one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn put(&self, slot: &SlotLock<'_>, index: Index) -> Result<(), Fault> {
        if index.next().is_none() {
            return slot.write(&record::retired(index));
        }
        let mut head = self.head;
        (head.first, head.second) = (index.slot(), self.head.first);
        self.lock.0.write(LISTS_AT, &head.encode())?;
        slot.write(&record::free(&Free {
            index,
            next: self.head.first,
            after: self.head.second,
            epoch: head.epoch,
        }))
    }

    /// Returns whether a free slot is not in the list: it was in one that was given up.
    pub(super) const fn lacks(&self, free: &Free) -> bool {
        free.epoch != self.head.epoch
    }
}

#[cfg(test)]
impl Slots<'_> {
    /// Returns the slots of the list.
    pub(super) fn all(&self) -> Vec<u32> {
        let (mut all, mut next) = (Vec::new(), self.head.first);
        while next != NONE && !all.contains(&next) {
            let free = self.free(next).unwrap();
            all.push(next);
            next = free.unwrap().next;
        }
        assert_eq!(next, NONE, "the list goes round");
        all
    }
}
