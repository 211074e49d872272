//! The logins of all monitors: who is under way, and whose turn with PAM it is.

use std::io::Result;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::{TURN, TURNS, TURNS_AT, Table, WAITING, byte, place};
use crate::daemon::sources::Source;
use crate::sys::locks::{self, Holder};

/// Bytes of a record: the peer's source and its family.
pub(super) const SIZE: usize = 24;

/// How many turns one source may have of so many: the last is for none that has all
/// the others, so that whoever guesses from one place makes nobody else wait.
pub(in super::super) fn for_one(most: usize) -> usize {
    most.saturating_sub(1).max(1)
}

impl Table {
    /// Takes a place among so many logins under way; its number.
    ///
    /// # Errors
    /// The file system cannot lock.
    pub(in super::super) fn take_login_slot(&self, most: usize) -> Result<Option<usize>> {
        for number in 0..most {
            if locks::take(&self.file, byte(WAITING, number))? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Gives that place back.
    pub(in super::super) fn release_login_slot(&self, number: usize) {
        locks::release(&self.file, byte(WAITING, number));
    }

    /// Takes one of so many turns with PAM, if there is one for this peer; its number.
    /// What its source has guessed wrong and was not told yet counts as turns of it.
    ///
    /// # Errors
    /// The table cannot be written.
    pub(in super::super) fn take_pam_slot(
        &self,
        peer: IpAddr,
        most: usize,
        now: Duration,
    ) -> Result<Option<usize>> {
        let own = compose(peer);
        self.locked(|table| {
            let (mut same, mut free) = (table.untold(Source::of(peer), now)?, None);
            for number in 0..most.min(TURNS) {
                if locks::holder(&table.file, byte(TURN, number))? == Holder::Nobody {
                    free = free.or(Some(number));
                } else if table.read(place(TURNS_AT, number, SIZE))? == own {
                    same += 1;
                }
            }
            let Some(number) = free.filter(|_| same < for_one(most)) else {
                return Ok(None);
            };
            if !locks::take(&table.file, byte(TURN, number))? {
                return Ok(None);
            }
            table
                .file
                .write_all_at(&own, place(TURNS_AT, number, SIZE))?;
            Ok(Some(number))
        })
    }

    /// Gives that turn back.
    pub(in super::super) fn release_pam_slot(&self, number: usize) {
        locks::release(&self.file, byte(TURN, number));
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
