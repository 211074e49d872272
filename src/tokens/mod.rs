//! The server's tokens (seed 003): who may come back without logging in again, and until when.
//!
//! Owns the file `tokens` in the run folder, which has a record of fixed size for each token. Runs
//! in the monitor: in that of a standalone daemon, in the many that inetd starts at the same time,
//! and in `cosadm token`. A restart keeps the tokens, a reboot ends them.
//!
//! A token's [`Index`] is the number of its record's slot and the slot's generation, which is
//! raised at each use, so no index is used twice. Finding a token takes one read and no lock. A
//! change takes the lock of the record, and one that uses or frees a slot takes the lock of the
//! file's lists as well. Each record is written in one piece and has a checksum; the writes of a
//! change are ordered so that a process that is killed between two of them loses no slot
//! (`free_list.rs`). No operation depends on the number of tokens, except [`TokenFile::all`].
//!
//! Must not decide policy: who gets a token, how long it is valid, and what may be done with it.
//! Must not wait: a lock that another process holds is tried a few times ([`NotDone::Busy`]). Must
//! not ask for the time: each caller passes it in, in seconds since 1970. A token is valid until
//! it expires by that clock, also if the clock was set back and the token seems to be of the
//! future: the clock is the administrator's, and the limits are all counted by it.

mod anonymous;
mod change;
mod free_list;
mod layout;
mod making;
mod record;
mod storage;
mod sweep;
mod token;

use crate::config::paths::Paths;
use crate::config::rules::TokenKind;
use crate::fault::Fault;
use crate::secret::{self, Secret};
use crate::source::Source;

use free_list::Slots;
use record::Record;
use storage::Storage;

use layout::SLOTS;
pub use layout::{ANONYMOUS_MOST, MOST};
pub use token::{
    Ended, FolderId, Identity, Index, NewToken, NotDone, Origin, Token, TokenInfo, Upgrade,
    Upgraded,
};

/// How many tokens there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most tokens of users and hosts; at most [`MOST`]. So many are not refused, whatever
    /// anonymous tokens there are; some more are not while there are few of those. A lower limit
    /// than before takes no slot away.
    pub all: u32,
    /// Most anonymous tokens; at most [`ANONYMOUS_MOST`].
    pub anonymous: u32,
    /// Most anonymous tokens of one source: an IPv4 address or an IPv6 /64.
    pub anonymous_per_source: u32,
}

impl Limits {
    /// Returns how many slots the file may have. Anonymous tokens have slots beyond those of the
    /// others, so they never take the place of a user's token.
    fn slots(&self) -> u32 {
        let anonymous = self.anonymous.min(ANONYMOUS_MOST);
        self.all.min(MOST).saturating_add(anonymous)
    }
}

/// The file of the tokens, opened. A process opens it once and uses it in one thread: its locks do
/// not exclude the process's own threads, and closing the file releases all of them.
pub struct TokenFile {
    storage: Storage,
}

impl TokenFile {
    /// Opens the file, and creates it if it is missing or from another boot.
    ///
    /// # Errors
    /// The run folder is not trusted or cannot be written; or the file is not trusted, or not a
    /// file of tokens. It is then left as it is.
    pub fn open(paths: &Paths) -> Result<Self, Fault> {
        let storage = making::open(paths, &crate::sys::boot::id())?;
        Ok(Self { storage })
    }

    /// Opens the file, if there is one of this boot: for a program that only lists and ends tokens.
    ///
    /// # Errors
    /// The file, or its folder, is not trusted, or it is not a file of tokens.
    pub fn open_existing(paths: &Paths) -> Result<Option<Self>, Fault> {
        let storage = making::open_existing(paths, &crate::sys::boot::id())?;
        Ok(storage.map(|storage| Self { storage }))
    }

    /// Returns whether the file is still at its path. If it was removed, other processes use
    /// another one: open it again.
    pub fn is_in_place(&self) -> bool {
        self.storage.is_in_place()
    }

    /// Returns the token with this index, unless it has ended or expired. A record that is damaged
    /// is no token.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn find(&self, index: Index, now: u64) -> Result<Option<Token>, Fault> {
        let slot = index.slot();
        if slot >= SLOTS {
            return Ok(None);
        }
        let live = self.storage.record(slot)?.live(index);
        Ok(live.filter(|token| token.info.expires > now))
    }

    /// Issues a token with a new index, session key and folder ID.
    ///
    /// # Errors
    /// - [`NotDone::SourceHasTooMany`]: the source has its anonymous tokens already;
    /// - [`NotDone::TooMany`]: there are as many tokens as there may be;
    /// - [`NotDone::Busy`]: another process holds the lock of the lists;
    /// - [`NotDone::Fault`].
    pub fn issue(&self, mut new: NewToken, now: u64, limits: &Limits) -> Result<Token, NotDone> {
        new.origin.address = new.origin.address.to_canonical();
        let (key, folder_id) = (Secret::random()?, FolderId(secret::random()?));
        let lock = self.storage.lock_lists()?;
        let entry = match new.identity.kind {
            TokenKind::Anonymous => {
                let source = Source::of(new.origin.address);
                Some(anonymous::claim(&lock, source, now, limits)?)
            }
            TokenKind::User | TokenKind::Host => None,
        };
        let slots = Slots::of(&lock)?;
        let free = slots.find(limits.slots())?;
        let token = Token {
            info: TokenInfo {
                index: free.index,
                identity: new.identity,
                origin: new.origin,
                created: now,
                expires: new.expires.min(new.renew_until),
                renew_until: new.renew_until,
                folder: None,
            },
            key,
            folder_id,
            revision: 1,
            entry,
        };
        // Entry, record, list: killed after the first, the source has one token less for a short
        // time; after the second, the token has no owner and expires, and `Slots` finds that its
        // slot is in use.
        anonymous::write(&lock, &token)?;
        self.storage
            .write_record(free.index.slot(), &record::live(&token))?;
        slots.take(&free)?;
        Ok(token)
    }

    /// Returns all tokens that have not expired, without their keys.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn all(&self, now: u64) -> Result<Vec<TokenInfo>, Fault> {
        let mut all = Vec::new();
        self.storage.scan(0, SLOTS, |slot, bytes| {
            let mut record = record::decode(slot, bytes);
            if matches!(record, Record::Damaged) {
                // It may be one that is written just now.
                record = self.storage.record(slot)?;
            }
            if let Record::Live(token) = record {
                all.extend(Some(token.info).filter(|info| info.expires > now));
            }
            Ok(())
        })?;
        Ok(all)
    }
}

#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod meter;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk_tests;
