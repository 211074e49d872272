//! The table of the connections that are not a session yet.
//!
//! Runs in the monitor. Owns their states, from the ServerHello until they are handed over or
//! rejected. Must not decide what comes next: [`crate::daemon::monitor::pipeline`] does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use super::super::logins::LoginId;
use super::super::look_ups::LookUp;
use super::super::registry_client::{LookAhead, Ticket};
use super::awaited::Awaited;
use super::{AwaitsAccount, AwaitsAddress, Pending, PendingAdmission, Preauth};
use crate::auth::policy::{Connect, Granted};
use crate::config::name::HostName;
use crate::daemon::sources::Source;
use crate::ipc::gate::Connection;
use crate::registry::Id;
use crate::sys::memory::PeakCounter;

/// Most unauthenticated connections that the inner door prompts at the same time: each answer may
/// cost a hash, and they are checked one after the other.
const PROMPTED: usize = 64;

/// What a peer that leaves had sent for a decision.
pub(in super::super) enum Departure {
    /// Nothing, or it is decided already.
    Decided,
    /// The registry still decides about it.
    GoesOn,
    /// This login may go on without it.
    Login(LoginId),
    /// Nothing that is decided without it.
    Ends,
}

/// The connections that are not a session yet.
#[derive(Default)]
pub(in super::super) struct Connections {
    all: HashMap<Connection, Preauth>,
    /// Counts them, to release the memory once a crowd of them has left.
    peak: PeakCounter,
    awaited: Awaited,
}

impl Connections {
    /// Returns how many there are.
    pub(in super::super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is one of this number.
    pub(in super::super) fn has(&self, c: Connection) -> bool {
        self.all.contains_key(&c)
    }

    /// Notes what a connection waits for.
    pub(in super::super) fn insert(&mut self, c: Connection, state: Preauth) {
        self.all.insert(c, state);
    }

    /// Removes a connection: it goes on, or ends.
    pub(in super::super) fn remove(&mut self, c: Connection) -> Option<Preauth> {
        self.all.remove(&c)
    }

    /// Removes all connections, and returns their logins.
    pub(in super::super) fn clear(&mut self) -> Vec<LoginId> {
        let all = std::mem::take(&mut self.all);
        self.awaited = Awaited::default();
        all.values().filter_map(Preauth::login).collect()
    }

    /// Releases the memory of connections that have left.
    pub(in super::super) fn tidy(&mut self) {
        self.peak.is(self.all.len());
        self.peak.tidy();
    }

    /// Returns the look that was asked ahead for a connection that has sent no ClientHello yet.
    pub(in super::super) fn ahead(&mut self, c: Connection) -> Option<&mut LookAhead> {
        if let Some(Preauth::Greeted(_, ahead)) = self.all.get_mut(&c) {
            Some(ahead)
        } else {
            None
        }
    }

    /// Forgets what was looked up ahead of an excluded machine.
    pub(in super::super) fn forget_looks(&mut self, machine: Id) {
        for state in self.all.values_mut() {
            if let Preauth::Greeted(_, ahead) = state {
                ahead.forget(machine);
            }
        }
    }

    /// Removes a connection that waits for this answer of the registry.
    pub(in super::super) fn take_at_door(
        &mut self,
        c: Connection,
        ticket: Ticket,
    ) -> Option<Box<PendingAdmission>> {
        match self.all.remove(&c) {
            Some(Preauth::AtDoor(admission)) if admission.ticket == Some(ticket) => Some(admission),
            // The peer has left, or this is another connection of the same number.
            other => {
                self.all.extend(other.map(|state| (c, state)));
                None
            }
        }
    }

    /// Removes the requests that wait for this look-up of an account, in the order in which their
    /// connections were accepted.
    pub(in super::super) fn take_pending(
        &mut self,
        which: LookUp,
    ) -> Vec<(Connection, AwaitsAccount)> {
        let waits = |state: &Preauth| matches!(state, Preauth::AwaitsAccount(w, _) if *w == which);
        let all = self.all.iter().filter(|(_, state)| waits(state));
        let mut all: Vec<Connection> = all.map(|(c, _)| *c).collect();
        all.sort_unstable();
        let pending = |c| match self.all.remove(&c) {
            Some(Preauth::AwaitsAccount(_, awaits)) => Some((c, awaits)),
            _ => None,
        };
        all.into_iter().filter_map(pending).collect()
    }

    /// Removes the request that waits for this look-up of its backend's host.
    pub(in super::super) fn take_address(
        &mut self,
        which: LookUp,
    ) -> Option<(Connection, Box<AwaitsAddress>)> {
        let waits = |s: &Preauth| matches!(s, Preauth::AwaitsAddress(w, _) if *w == which);
        let c = *self.all.iter().find(|(_, state)| waits(state))?.0;
        match self.all.remove(&c) {
            Some(Preauth::AwaitsAddress(_, waits)) => Some((c, waits)),
            _ => None,
        }
    }

    /// Removes the request that waits for its backend on a connection, unless its peer has left.
    pub(in super::super) fn take_backend(
        &mut self,
        c: Connection,
    ) -> Option<Box<Pending<Granted<Connect>>>> {
        match self.all.remove(&c) {
            Some(Preauth::AwaitsBackend(pending)) => Some(pending),
            other => {
                self.all.extend(other.map(|state| (c, state)));
                None
            }
        }
    }

    /// Whether a request waits for an account, or for its backend.
    pub(in super::super) fn has_pending(&self) -> bool {
        let mut all = self.all.values();
        all.any(|state| {
            matches!(
                state,
                Preauth::AwaitsAccount(..) | Preauth::AwaitsAddress(..) | Preauth::AwaitsBackend(_)
            )
        })
    }

    /// Returns a login that is under way. Under inetd there is one at most.
    pub(in super::super) fn login(&self) -> Option<LoginId> {
        self.all.values().find_map(Preauth::login)
    }

    /// Returns the connections of a machine, without its logins.
    pub(in super::super) fn of_machine(&self, machine: Id) -> Vec<(Connection, IpAddr)> {
        let all = self.all.iter();
        all.filter_map(|(c, state)| Some((*c, state.comes_from(machine)?)))
            .collect()
    }

    /// Notes that a peer has left, and returns what becomes of its request.
    pub(in super::super) fn note_departure(&mut self, c: Connection) -> Departure {
        match self.all.get_mut(&c) {
            // The gate will get the order.
            None => Departure::Decided,
            Some(Preauth::AtDoor(admission)) if admission.is_decided_without_peer() => {
                admission.arrival.has_left = true;
                Departure::GoesOn
            }
            Some(Preauth::LoggingIn(id)) => Departure::Login(*id),
            Some(
                Preauth::AtDoor(_)
                | Preauth::Greeted(..)
                | Preauth::AwaitsCommand(_)
                | Preauth::AwaitsAccount(..)
                | Preauth::AwaitsAddress(..)
                | Preauth::AwaitsBackend(_),
            ) => Departure::Ends,
        }
    }

    // ---- names ----

    /// Notes that a connection waits for its host's name until then.
    pub(in super::super) fn await_name(
        &mut self,
        c: Connection,
        admission: Box<PendingAdmission>,
        name: HostName,
        until: Instant,
    ) {
        self.awaited.add(c, name, admission.arrival.peer, until);
        self.all.insert(c, Preauth::AtDoor(admission));
    }

    /// Removes the one that must go on without its name, if too many wait.
    pub(in super::super) fn take_surplus(&mut self) -> Option<(Connection, Box<PendingAdmission>)> {
        // Those that were evicted or excluded wait no longer.
        let waits = |c| matches!(self.all.get(&c), Some(Preauth::AtDoor(v)) if v.awaits_name());
        let surplus = self.awaited.take_surplus(waits)?;
        self.take_awaited(surplus)
    }

    /// Removes those that wait for this name.
    pub(in super::super) fn take_named(
        &mut self,
        name: &HostName,
    ) -> Vec<(Connection, Box<PendingAdmission>)> {
        let all = self.awaited.take_named(name).into_iter();
        all.filter_map(|c| self.take_awaited(c)).collect()
    }

    /// Removes those that have waited for a name long enough.
    pub(in super::super) fn take_overdue(
        &mut self,
        now: Instant,
    ) -> Vec<(Connection, Box<PendingAdmission>)> {
        let all = self.awaited.take_overdue(now).into_iter();
        all.filter_map(|c| self.take_awaited(c)).collect()
    }

    fn take_awaited(&mut self, c: Connection) -> Option<(Connection, Box<PendingAdmission>)> {
        match self.all.remove(&c) {
            Some(Preauth::AtDoor(admission)) if admission.awaits_name() => Some((c, admission)),
            // Its peer has left.
            other => {
                self.all.extend(other.map(|state| (c, state)));
                None
            }
        }
    }

    /// Returns when the next of them has waited long enough.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        self.awaited.deadline()
    }

    // ---- prompts ----

    /// Returns what makes room for one more prompt of the inner door.
    pub(in super::super) fn room_for_prompt(&self, from: IpAddr) -> RoomForPrompt {
        let at_door = self.all.iter().filter_map(|(c, s)| match s {
            Preauth::AtDoor(admission) => Some((*c, admission)),
            Preauth::Greeted(..)
            | Preauth::AwaitsCommand(_)
            | Preauth::AwaitsAccount(..)
            | Preauth::AwaitsAddress(..)
            | Preauth::AwaitsBackend(_)
            | Preauth::LoggingIn(_) => None,
        });
        let prompted: Vec<_> = at_door.filter(|(_, v)| v.is_prompted()).collect();
        if prompted.len() < PROMPTED {
            return RoomForPrompt::Free;
        }
        let of = |from: IpAddr| {
            let source = Source::of(from);
            let same = prompted
                .iter()
                .filter(|(_, v)| Source::of(v.arrival.peer) == source);
            same.count()
        };
        let unanswered = prompted.iter().filter(|(_, v)| !v.has_answered());
        let largest = unanswered.map(|(c, v)| {
            let peer = v.arrival.peer;
            (of(peer), std::cmp::Reverse(*c), peer)
        });
        match largest.max() {
            Some((held, oldest, peer)) if held > of(from) => RoomForPrompt::Instead(oldest.0, peer),
            _ => RoomForPrompt::Full,
        }
    }
}

/// Whether the inner door may prompt one more connection.
pub(in super::super) enum RoomForPrompt {
    /// It may.
    Free,
    /// It may if this connection, of this peer, is evicted: the one that has waited longest of the
    /// source that has the most. One that has answered is not.
    Instead(Connection, IpAddr),
    /// It may not.
    Full,
}
