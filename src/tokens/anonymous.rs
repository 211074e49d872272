//! The table of anonymous tokens, by which they are counted, in all and for each source.
//!
//! Runs in each process that uses the tokens, under the lock of the lists. An entry has the index
//! of a token, its source, and when it expires. It counts until then, or until its token ends or is
//! upgraded. A token that becomes a user's keeps its slot and its index, and loses its entry: so
//! upgrades use up nothing that anonymous tokens need. An entry is written before its token. A
//! process that is killed in between leaves an entry without a token, which the sweep removes.
//!
//! An entry decides nothing but whether there may be one more anonymous token: which tokens there
//! are is in their records only.

use super::Limits;
use super::layout::{ANONYMOUS_MOST, ENTRY, entry, get, number, put};
use super::storage::ListsLock;
use super::token::{Index, NotDone, Token};
use crate::fault::Fault;
use crate::source::Source;

// The places of an entry's fields.
const INDEX: usize = 0;
const SOURCE: usize = 8;
const EXPIRES: usize = 16;
const IS_V6: usize = 24;

/// An entry that is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) index: Index,
    source: Source,
    pub(super) expires: u64,
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        put(&mut bytes, INDEX, &self.index.number().to_le_bytes());
        put(&mut bytes, SOURCE, &self.source.number().to_le_bytes());
        put(&mut bytes, EXPIRES, &self.expires.to_le_bytes());
        put(&mut bytes, IS_V6, &[u8::from(self.source.is_v6())]);
        bytes
    }

    /// Returns `None` if it is not in use: no index is 0.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let index = number(bytes, INDEX);
        let is_v6 = get(bytes, IS_V6) != [0];
        (index != 0).then(|| Self {
            index: Index::of(index),
            source: Source::numbered(number(bytes, SOURCE), is_v6),
            expires: number(bytes, EXPIRES),
        })
    }
}

/// Returns the number of an entry that one more anonymous token of a source may have.
///
/// # Errors
/// The source, or all, have as many as they may; or the file cannot be read.
pub(super) fn claim(
    lock: &ListsLock<'_>,
    source: Source,
    now: u64,
    limits: &Limits,
) -> Result<u16, NotDone> {
    let all = read(lock, 0, ANONYMOUS_MOST)?;
    let (mut total, mut of_source, mut free) = (0, 0, None);
    for (number, entry) in (0..).zip(all) {
        match entry.filter(|entry| entry.expires > now) {
            Some(entry) => {
                total += 1;
                of_source += u32::from(entry.source == source);
            }
            None => free = free.or(Some(number)),
        }
    }
    if of_source >= limits.anonymous_per_source {
        return Err(NotDone::SourceHasTooMany);
    }
    free.filter(|_| total < limits.anonymous)
        .ok_or(NotDone::TooMany)
}

/// Returns so many of the table's entries from one on, or those that there are.
///
/// # Errors
/// The file cannot be read.
pub(super) fn read(
    lock: &ListsLock<'_>,
    from: u16,
    count: u32,
) -> Result<Vec<Option<Entry>>, Fault> {
    let count = count.min(ANONYMOUS_MOST.saturating_sub(from.into()));
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * ENTRY];
    lock.0.read(entry(from), &mut bytes)?;
    Ok(bytes.chunks_exact(ENTRY).map(Entry::decode).collect())
}

/// Writes the entry of a token, if it has one.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(lock: &ListsLock<'_>, token: &Token) -> Result<(), Fault> {
    let Some(number) = token.entry else {
        return Ok(());
    };
    let own = Entry {
        index: token.info.index,
        source: Source::of(token.info.origin.address),
        expires: token.info.expires,
    };
    lock.0.write(entry(number), &own.encode())
}

/// Returns whether an entry is that of a token. Once it has expired another token may have it.
///
/// # Errors
/// The file cannot be read.
pub(super) fn is_of(lock: &ListsLock<'_>, number: u16, index: Index) -> Result<bool, Fault> {
    let there = read(lock, number, 1)?.into_iter().flatten().next();
    Ok(there.is_some_and(|entry| entry.index == index))
}

/// Frees an entry if it is that of a token.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn remove(lock: &ListsLock<'_>, number: u16, index: Index) -> Result<(), Fault> {
    if is_of(lock, number, index)? {
        lock.0.write(entry(number), &[0; ENTRY])?;
    }
    Ok(())
}
