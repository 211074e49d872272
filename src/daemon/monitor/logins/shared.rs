//! What this monitor's logins have of the places and turns of all of inetd's monitors.
//! Where there is no table they have what they want: the daemon's own limits hold.
//!
//! A monitor that inetd started has one login, and at its end perhaps a worker that
//! closes what another has left open: one place and one turn serve them.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::table::Table;
use crate::daemon::sources::Source;
use crate::sys::locks;

/// How long one who found no turn waits until the next try: nobody tells him.
const AGAIN: Duration = Duration::from_millis(20);

/// Place and turn among those of all monitors.
#[derive(Default)]
pub(super) struct Shared {
    table: Option<Rc<Table>>,
    slot: Option<usize>,
    /// It has none yet, and others were made to give one of so many up.
    owed: Option<usize>,
    pam_slot: Option<usize>,
    /// When a turn is tried for again.
    again: Option<Instant>,
}

impl Shared {
    pub(super) fn new(table: Option<Rc<Table>>) -> Self {
        Self {
            table,
            ..Self::default()
        }
    }

    /// Takes a place among so many logins under way, or that of one who only sits in it: it
    /// is free in a moment, and whoever comes next finds out whether it is.
    pub(super) fn take_slot(&mut self, from: IpAddr, most: usize) -> bool {
        let Some(table) = self.table.as_ref().filter(|_| self.slot.is_none()) else {
            return true;
        };
        // What cannot be asked bounds nothing.
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

    /// Takes one of so many turns with PAM.
    pub(super) fn take_pam_slot(&mut self, peer: IpAddr, most: usize, now: Instant) -> bool {
        self.again = None;
        // First the place of the one who was made to go.
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

    /// A source has guessed wrong, and will be told after so long.
    pub(super) fn has_failed(&self, from: IpAddr, told_after: Duration) {
        if let Some(table) = &self.table {
            // What cannot be written bounds nothing.
            let _ = table.has_failed(Source::of(from), told_after, locks::uptime());
        }
    }

    /// Gives back what nobody here needs now.
    pub(super) fn hand_back(&mut self, busy: usize, under_way: usize) {
        let Some(table) = &self.table else { return };
        if let Some(pam_slot) = self.pam_slot.take_if(|_| busy == 0) {
            table.release_pam_slot(pam_slot);
        }
        if let Some(slot) = self.slot.take_if(|_| under_way == 0) {
            table.release_login_slot(slot);
        }
    }

    /// Whether a place is held.
    pub(super) const fn has_slot(&self) -> bool {
        self.slot.is_some()
    }

    /// When a turn is tried for again.
    pub(super) const fn again(&self) -> Option<Instant> {
        self.again
    }
}
