//! The sweep: ends expired tokens, and completes what a killed process has left half done.
//!
//! Runs in each process that uses the tokens, a bounded number of records at a time. Where to go on
//! is in the file, so that inetd's many short-lived monitors sweep all of it together. Must not wait
//! for a lock: what is locked is looked at when the sweep comes there again.

use super::TokenFile;
use super::anonymous;
use super::free_list::{self, Slots};
use super::layout::{ANONYMOUS_MOST, CURSOR, put, short};
use super::record::{self, Glance, Record};
use super::storage::{ListsLock, Storage};
use super::token::{Ended, Index, NotDone};
use crate::config::rules::TokenKind;
use crate::fault::Fault;

/// Entries of the table of anonymous tokens that are checked in each sweep: each takes a read.
const ENTRIES: u16 = 16;

/// What may have to be done with a slot. The record is not verified yet.
enum Due {
    Expired(Index),
    Ended(Index),
    /// Free, and in no list.
    Unlisted(u32),
}

impl TokenFile {
    /// Looks at `budget` records, from where the last sweep has stopped. Returns the tokens that
    /// have expired by now, and those that had ended before with a session folder that is still to
    /// be removed: remove it, and then call [`Self::release`]. Another process may get the same
    /// ones.
    ///
    /// # Errors
    /// The file cannot be read or written. What has ended is returned by another sweep then, if it
    /// has a session folder.
    pub fn sweep(&self, now: u64, budget: u32) -> Result<Vec<Ended>, Fault> {
        let storage = &self.storage;
        let (slots, epoch) = (storage.slots()?, free_list::epoch(storage)?);
        let cursor = Cursor::read(storage)?;
        let from = if cursor.slot < slots { cursor.slot } else { 0 };
        let mut all = Vec::new();
        storage.scan(from, budget, |slot, bytes| {
            all.extend(match record::glance(bytes) {
                Glance::Live(index, expires) if expires <= now => Some(Due::Expired(index)),
                Glance::Ended(index) => Some(Due::Ended(index)),
                Glance::Free(its) if epoch.is_some_and(|epoch| epoch != its) => {
                    Some(Due::Unlisted(slot))
                }
                Glance::Live(..) | Glance::Free(_) | Glance::Other => None,
            });
            Ok(())
        })?;
        let next = Cursor {
            slot: from.saturating_add(budget),
            entry: cursor.entry.saturating_add(ENTRIES),
        };
        next.write(storage)?;
        if let Some(lock) = not_busy(storage.lock_lists())? {
            check_entries(&lock, cursor.entry, now)?;
        }
        let mut ended = Vec::new();
        for due in all {
            ended.extend(not_busy(self.complete(&due, now))?.flatten());
        }
        Ok(ended)
    }

    /// Does what is due. Returns the token that has ended, if its end is to be returned.
    fn complete(&self, due: &Due, now: u64) -> Result<Option<Ended>, NotDone> {
        match due {
            Due::Expired(index) => {
                let ended = self.end_if(*index, |info| info.expires <= now)?;
                if ended.is_some() {
                    let _ = self.settle(*index, false);
                }
                Ok(ended)
            }
            Due::Ended(index) => {
                self.settle(*index, false)?;
                let Record::Ended(record) = self.storage.record(index.slot())? else {
                    return Ok(None);
                };
                Ok(Some(record.ended).filter(|ended| ended.index == *index))
            }
            Due::Unlisted(slot) => {
                let lock = self.storage.lock_lists()?;
                let slot = self.storage.lock_slot(*slot)?;
                let slots = Slots::of(&lock)?;
                if let Record::Free(free) = slot.record()? {
                    if slots.lacks(&free) {
                        slots.put(&slot, free.index)?;
                    }
                }
                Ok(None)
            }
        }
    }
}

/// Frees the entries that count but have no token. The lists are locked, so none is just being
/// issued.
fn check_entries(lock: &ListsLock<'_>, from: u16, now: u64) -> Result<(), Fault> {
    let storage = lock.0;
    let entries = anonymous::read(lock, from, ENTRIES.into())?;
    for (number, entry) in (from..).zip(entries) {
        let Some(entry) = entry.filter(|entry| entry.expires > now) else {
            continue;
        };
        let token = storage.record(entry.index.slot())?.live(entry.index);
        let is_own = token.is_some_and(|token| {
            token.info.identity.kind == TokenKind::Anonymous && token.entry == Some(number)
        });
        if !is_own {
            anonymous::remove(lock, number, entry.index)?;
        }
    }
    Ok(())
}

/// Where the next sweep goes on. Any number is valid, and processes that sweep at the same time may
/// overwrite each other's.
struct Cursor {
    slot: u32,
    entry: u16,
}

impl Cursor {
    fn read(storage: &Storage) -> Result<Self, Fault> {
        let mut bytes = [0; 8];
        storage.read(CURSOR, &mut bytes)?;
        let entry = short(&bytes, 4);
        let entry = u16::try_from(entry).ok().filter(|_| entry < ANONYMOUS_MOST);
        Ok(Self {
            slot: short(&bytes, 0),
            entry: entry.unwrap_or(0),
        })
    }

    fn write(&self, storage: &Storage) -> Result<(), Fault> {
        let mut bytes = [0; 8];
        put(&mut bytes, 0, &self.slot.to_le_bytes());
        put(&mut bytes, 4, &u32::from(self.entry).to_le_bytes());
        storage.write(CURSOR, &bytes)
    }
}

/// Returns `None` if another process holds a lock, or has changed the token.
fn not_busy<T>(done: Result<T, NotDone>) -> Result<Option<T>, Fault> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(NotDone::Fault(fault)) => Err(fault),
        Err(
            NotDone::Busy
            | NotDone::Gone
            | NotDone::Changed
            | NotDone::SourceHasTooMany
            | NotDone::TooMany,
        ) => Ok(None),
    }
}
