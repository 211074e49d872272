//! The login slots and PAM slots that all monitors share. Runs in the monitor.

use std::io::Result;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::{PAM_SLOT_LOCK, PAM_SLOTS, PAM_SLOTS_AT, Table, WAITING, byte, place};
use crate::daemon::sources::Source;
use crate::sys::locks::{self, Holder};

/// Bytes of a record: the peer's source and its family.
pub(super) const SIZE: usize = 24;

/// Returns how many of this many PAM slots one source may have. It never gets the last one if it
/// holds all the others, so that guesses from one place delay no others.
pub(in super::super) fn for_one(most: usize) -> usize {
    most.saturating_sub(1).max(1)
}

impl Table {
    /// Takes one of this many login slots. Returns its number.
    ///
    /// # Errors
    /// Fails if the file system does not support locks.
    pub(in super::super) fn take_login_slot(&self, most: usize) -> Result<Option<usize>> {
        for number in 0..most {
            if locks::take(&self.file, byte(WAITING, number))? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Releases that login slot.
    pub(in super::super) fn release_login_slot(&self, number: usize) {
        locks::release(&self.file, byte(WAITING, number));
    }

    /// Takes one of this many PAM slots, if there is one for this peer. Returns its number. Wrong
    /// guesses of its source count as slots until their refusals are sent.
    ///
    /// # Errors
    /// Fails if the table cannot be written.
    pub(in super::super) fn take_pam_slot(
        &self,
        peer: IpAddr,
        most: usize,
        now: Duration,
    ) -> Result<Option<usize>> {
        let own = compose(peer);
        self.locked(|table| {
            let (mut same, mut free) = (table.unreported_guesses(Source::of(peer), now)?, None);
            for number in 0..most.min(PAM_SLOTS) {
                if locks::holder(&table.file, byte(PAM_SLOT_LOCK, number))? == Holder::NoOther {
                    free = free.or(Some(number));
                } else if table.read(place(PAM_SLOTS_AT, number, SIZE))? == own {
                    same += 1;
                }
            }
            let Some(number) = free.filter(|_| same < for_one(most)) else {
                return Ok(None);
            };
            if !locks::take(&table.file, byte(PAM_SLOT_LOCK, number))? {
                return Ok(None);
            }
            table
                .file
                .write_all_at(&own, place(PAM_SLOTS_AT, number, SIZE))?;
            Ok(Some(number))
        })
    }

    /// Releases that PAM slot.
    pub(in super::super) fn release_pam_slot(&self, number: usize) {
        locks::release(&self.file, byte(PAM_SLOT_LOCK, number));
    }
}

fn compose(peer: IpAddr) -> [u8; SIZE] {
    let source = Source::of(peer);
    let family = if source.is_v6() { 6 } else { 4 };
    let mut bytes = [0; SIZE];
    let fields = source.number().to_be_bytes().into_iter().chain([family]);
    for (byte, value) in bytes.iter_mut().zip(fields) {
        *byte = value;
    }
    bytes
}
