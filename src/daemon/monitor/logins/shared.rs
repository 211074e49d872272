//! What this monitor's logins hold of the login slots and PAM slots that all of inetd's monitors
//! share. Without a table only the daemon's own limits apply.
//!
//! Runs in the monitor. A monitor that inetd started has one login, and at its end perhaps a
//! cleanup worker: one login slot and one PAM slot serve both.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::inetd_table::Table;
use crate::daemon::sources::Source;
use crate::sys::locks;

/// The delay before the next try for a PAM slot: a freed slot is not signalled.
const AGAIN: Duration = Duration::from_millis(20);

/// The login slot and the PAM slot, among those of all monitors.
#[derive(Default)]
pub(super) struct Shared {
    table: Option<Rc<Table>>,
    slot: Option<usize>,
    /// Set if it has no login slot yet, after another was evicted for it: the number of slots.
    owed: Option<usize>,
    pam_slot: Option<usize>,
    /// When to try again for a PAM slot.
    again: Option<Instant>,
}

impl Shared {
    pub(super) fn new(table: Option<Rc<Table>>) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// Forgets a table that was lost, which releases what is held in it.
    fn forget_lost(&mut self) {
        if self.table.as_ref().is_some_and(|table| table.is_lost()) {
            *self = Self::default();
        }
    }

    /// Takes one of this many login slots, or evicts an idle login. The slot of that is free in a
    /// moment; [`Self::take_pam_slot`] takes it.
    pub(super) fn take_slot(&mut self, from: IpAddr, most: usize) -> bool {
        self.forget_lost();
        let Some(table) = self.table.as_ref().filter(|_| self.slot.is_none()) else {
            return true;
        };
        // A table that cannot be read limits nothing.
        let Ok(slot) = table.take_login_slot(most) else {
            return true;
        };
        self.slot = slot;
        if slot.is_some() {
            return true;
        }
        self.owed = Some(most);
        table.make_slot(Source::of(from)).unwrap_or(true)
    }

    /// Takes one of this many PAM slots.
    pub(super) fn take_pam_slot(&mut self, peer: IpAddr, most: usize, now: Instant) -> bool {
        self.forget_lost();
        self.again = None;
        // First the slot of the evicted login.
        if let (Some(table), Some(owed)) = (&self.table, self.owed) {
            self.slot = table.take_login_slot(owed).unwrap_or_default();
            if self.slot.is_none() {
                self.again = Some(now + AGAIN);
                return false;
            }
            self.owed = None;
        }
        let Some(table) = self.table.as_ref().filter(|_| self.pam_slot.is_none()) else {
            return true;
        };
        let Ok(pam_slot) = table.take_pam_slot(peer, most, locks::uptime()) else {
            return true;
        };
        self.pam_slot = pam_slot;
        if pam_slot.is_none() {
            self.again = Some(now + AGAIN);
        }
        pam_slot.is_some()
    }

    /// Notes a wrong guess of a source, whose refusal is sent after this time.
    pub(super) fn note_failed_guess(&mut self, from: IpAddr, refusal_in: Duration) {
        self.forget_lost();
        if let Some(table) = &self.table {
            // A table that cannot be written limits nothing.
            let _ = table.note_failed_guess(Source::of(from), refusal_in, locks::uptime());
        }
    }

    /// Releases what this monitor does not need now.
    pub(super) fn hand_back(&mut self, busy: usize, under_way: usize) {
        self.forget_lost();
        let Some(table) = &self.table else { return };
        if let Some(pam_slot) = self.pam_slot.take_if(|_| busy == 0) {
            table.release_pam_slot(pam_slot);
        }
        if let Some(slot) = self.slot.take_if(|_| under_way == 0) {
            table.release_login_slot(slot);
        }
    }

    /// Whether a login slot is held.
    pub(super) fn has_slot(&self) -> bool {
        let is_lost = self.table.as_ref().is_some_and(|table| table.is_lost());
        self.slot.is_some() && !is_lost
    }

    /// Returns when to try again for a PAM slot.
    pub(super) const fn again(&self) -> Option<Instant> {
        self.again
    }
}
