//! Changes of a token: renewal, upgrade, session folder, end.
//!
//! Runs in each process that uses the tokens. A change states the token as it was found, and fails
//! if its revision is another by now. So of several that race, each sees what the one before it
//! has made of the token, or fails. A change is one write of the record.

use super::anonymous;
use super::free_list::Slots;
use super::layout::SLOTS;
use super::record::{self, EndedRecord, Record};
use super::storage::ListsLock;
use super::token::{Ended, FolderId, Index, NotDone, Token, TokenInfo, Upgrade, Upgraded};
use super::{Limits, TokenFile};
use crate::config::rules::TokenKind;
use crate::secret::{self, Secret};
use crate::source::Source;

impl TokenFile {
    /// Prolongs a token, at most until it can be renewed no more. Never shortens it.
    ///
    /// # Errors
    /// - [`NotDone::Gone`]: it has ended or expired;
    /// - [`NotDone::Changed`]: it has been changed since it was found;
    /// - [`NotDone::Busy`]: another process holds a lock;
    /// - [`NotDone::Fault`].
    pub fn renew(&self, token: &Token, expires: u64, now: u64) -> Result<Token, NotDone> {
        // The entry of an anonymous token is prolonged as well.
        let lock = token.entry.map(|_| self.storage.lock_lists()).transpose()?;
        self.change(token, now, |new| {
            let prolonged = expires.min(new.info.renew_until);
            new.info.expires = new.info.expires.max(prolonged);
            lock.as_ref()
                .map_or(Ok(()), |lock| prolong_entry(lock, new))
        })
    }

    /// Makes a token that of another user or host. It gets another session key and expiration, and
    /// keeps its index and origin. It keeps its session folder if the local user is the same.
    ///
    /// # Errors
    /// As [`Self::renew`]; and [`NotDone::SourceHasTooMany`] or [`NotDone::TooMany`] if the token
    /// becomes an anonymous one. The token is then what it was.
    pub fn upgrade(
        &self,
        token: &Token,
        upgrade: Upgrade,
        now: u64,
        limits: &Limits,
    ) -> Result<Upgraded, NotDone> {
        let (key, folder_id) = (Secret::random()?, FolderId(secret::random()?));
        let is_anonymous = upgrade.identity.kind == TokenKind::Anonymous;
        let lock = if is_anonymous || token.entry.is_some() {
            Some(self.storage.lock_lists()?)
        } else {
            None
        };
        let (mut old_folder, mut old_entry) = (None, None);
        let token = self.change(token, now, |new| {
            if new.info.identity.user != upgrade.identity.user {
                old_folder = new.info.folder.take();
                new.folder_id = folder_id;
            }
            new.info.identity = upgrade.identity;
            new.info.expires = upgrade.expires.min(upgrade.renew_until);
            new.info.renew_until = upgrade.renew_until;
            new.key = key;
            let Some(lock) = lock.as_ref().filter(|_| is_anonymous) else {
                old_entry = new.entry.take();
                return Ok(());
            };
            prolong_entry(lock, new)?;
            if new.entry.is_none() {
                let source = Source::of(new.info.origin.address);
                new.entry = Some(anonymous::claim(lock, source, now, limits)?);
                anonymous::write(lock, new)?;
            }
            Ok(())
        })?;
        if let (Some(lock), Some(number)) = (&lock, old_entry) {
            // If it fails, the entry counts until it expires.
            let _ = anonymous::remove(lock, number, token.info.index);
        }
        Ok(Upgraded { token, old_folder })
    }

    /// Notes that a token's session folder is made. Call it before the folder is made: so that each
    /// folder is named by a token until it is removed.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn note_folder(&self, token: &Token, now: u64) -> Result<Token, NotDone> {
        self.change(token, now, |new| {
            new.info.folder = Some(new.folder_id);
            Ok(())
        })
    }

    /// Ends a token (logout, or by the administrator), whatever its revision. `None`: there is none
    /// with this index. If it has a session folder, remove that, and then call [`Self::release`].
    ///
    /// # Errors
    /// [`NotDone::Busy`]: another process holds its lock; [`NotDone::Fault`].
    pub fn end(&self, index: Index) -> Result<Option<Ended>, NotDone> {
        let ended = self.end_if(index, |_| true)?;
        if ended.is_some() {
            // What is left to do, the sweep does otherwise.
            let _ = self.settle(index, false);
        }
        Ok(ended)
    }

    /// Frees the slot of a token that has ended, once its session folder is removed.
    ///
    /// # Errors
    /// [`NotDone::Busy`]: another process holds a lock, and the sweep returns the token once more;
    /// [`NotDone::Fault`].
    pub fn release(&self, ended: &Ended) -> Result<(), NotDone> {
        self.settle(ended.index, true)
    }

    /// Ends a token if `what` says so, and does not free its slot yet.
    pub(super) fn end_if(
        &self,
        index: Index,
        what: impl FnOnce(&TokenInfo) -> bool,
    ) -> Result<Option<Ended>, NotDone> {
        if index.slot() >= SLOTS {
            return Ok(None);
        }
        let slot = self.storage.lock_slot(index.slot())?;
        let live = slot.record()?.live(index);
        let Some(token) = live.filter(|token| what(&token.info)) else {
            return Ok(None);
        };
        let ended = Ended {
            index,
            kind: token.info.identity.kind,
            user: token.info.identity.user,
            folder: token.info.folder,
        };
        slot.write(&record::ended(&ended, token.entry))?;
        Ok(Some(ended))
    }

    /// Frees the entry of a token that has ended, and its slot, unless its session folder is still
    /// to be removed.
    pub(super) fn settle(&self, index: Index, is_folder_gone: bool) -> Result<(), NotDone> {
        if index.slot() >= SLOTS {
            return Ok(());
        }
        let lock = self.storage.lock_lists()?;
        let slot = self.storage.lock_slot(index.slot())?;
        let Record::Ended(EndedRecord { ended, entry }) = slot.record()? else {
            return Ok(());
        };
        if ended.index != index {
            return Ok(());
        }
        if let Some(number) = entry {
            anonymous::remove(&lock, number, index)?;
        }
        if ended.folder.is_none() || is_folder_gone {
            Slots::of(&lock)?.put(&slot, index)?;
        }
        Ok(())
    }

    /// Changes a token, if it is what it was when it was found, and returns what it is now.
    fn change(
        &self,
        token: &Token,
        now: u64,
        what: impl FnOnce(&mut Token) -> Result<(), NotDone>,
    ) -> Result<Token, NotDone> {
        let index = token.info.index;
        let slot = self.storage.lock_slot(index.slot())?;
        let mut new = slot.record()?.live(index).ok_or(NotDone::Gone)?;
        if new.info.expires <= now {
            return Err(NotDone::Gone);
        }
        if new.revision != token.revision {
            return Err(NotDone::Changed);
        }
        what(&mut new)?;
        new.revision = new.revision.wrapping_add(1);
        slot.write(&record::live(&new))?;
        Ok(new)
    }
}

/// Writes the entry of an anonymous token that has changed. If another token has it by now, this
/// one counts no more.
fn prolong_entry(lock: &ListsLock<'_>, token: &mut Token) -> Result<(), NotDone> {
    if let Some(number) = token.entry {
        if anonymous::is_of(lock, number, token.info.index)? {
            anonymous::write(lock, token)?;
        } else {
            token.entry = None;
        }
    }
    Ok(())
}
