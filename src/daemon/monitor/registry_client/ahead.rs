//! Looks asked ahead: about the machine that came last from an address, while the next client from
//! there computes its ClientHello. Most often it is the same machine.
//!
//! Runs in the monitor. Must not be used for long: what is allowed or denied by then may have
//! changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Reply, Ticket};
use crate::registry::Id;
use crate::registry::asked::Answer;

/// How old a look that was asked ahead may be: a client on the same network has answered by then.
pub(super) const FRESH: Duration = Duration::from_millis(100);

/// Most addresses whose machine is remembered.
const ADDRESSES: usize = 1024;

/// The machine that the worker was asked about last, by the address that it came from.
#[derive(Default)]
pub(super) struct Machines(HashMap<IpAddr, Id>);

impl Machines {
    pub(super) fn remember(&mut self, peer: IpAddr, id: Id) {
        if self.0.len() >= ADDRESSES {
            self.0.clear();
        }
        self.0.insert(peer, id);
    }

    pub(super) fn get(&self, peer: IpAddr) -> Option<Id> {
        self.0.get(&peer).copied()
    }
}

/// The look that was asked ahead for a connection, if one was.
#[derive(Default)]
pub(in super::super) struct Ahead(Option<Look>);

struct Look {
    id: Id,
    ticket: Ticket,
    at: Instant,
    answer: Option<Answer>,
}

impl Ahead {
    pub(super) const fn asked(id: Id, ticket: Ticket, at: Instant) -> Self {
        Self(Some(Look {
            id,
            ticket,
            at,
            answer: None,
        }))
    }

    /// Keeps an answer of the worker, if it is to this look.
    pub(in super::super) fn note(&mut self, ticket: Ticket, answer: Answer) {
        let look = self.0.as_mut().filter(|look| look.ticket == ticket);
        if let Some(look) = look {
            look.answer = Some(answer);
        }
    }

    /// Drops what is known of this machine: it has been excluded.
    pub(in super::super) fn forget(&mut self, machine: Id) {
        self.0.take_if(|look| look.id == machine);
    }

    /// Returns its result, if it is about this machine, and is fresh. A fault is asked again.
    pub(super) fn result(self, id: Id, now: Instant) -> Option<Reply> {
        let is_fresh = |look: &Look| now.saturating_duration_since(look.at) <= FRESH;
        let look = self.0.filter(|look| look.id == id && is_fresh(look))?;
        match look.answer {
            Some(answer @ Answer::MachineStatus(_)) => Some(Reply::Ready(answer)),
            None => Some(Reply::Pending(look.ticket)),
            Some(Answer::RegistrationOutcome(_) | Answer::Done | Answer::Fault(_)) => None,
        }
    }
}
