//! Looks asked ahead: about the machine that came last from an address, while the next client from
//! there computes its ClientHello. Most often it is the same machine.
//!
//! Runs in the monitor. A result must not be used for long: what the registry allows may have
//! changed by then.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Reply, Ticket};
use crate::registry::Id;
use crate::registry::asked::Answer;

/// The longest time from the question to the ClientHello that it is used for.
pub(super) const FRESH: Duration = Duration::from_millis(100);

/// Most addresses whose machine is remembered.
const ADDRESSES: usize = 1024;

/// The machine that the worker was asked about last, by the address that it came from.
#[derive(Default)]
pub(super) struct LastMachines(HashMap<IpAddr, Id>);

impl LastMachines {
    pub(super) fn remember(&mut self, peer: IpAddr, id: Id) {
        if self.0.len() >= ADDRESSES && !self.0.contains_key(&peer) {
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
pub(in super::super) struct LookAhead(Option<Box<Look>>);

struct Look {
    id: Id,
    ticket: Ticket,
    at: Instant,
    answer: Option<Answer>,
}

impl LookAhead {
    pub(super) fn asked(id: Id, ticket: Ticket, at: Instant) -> Self {
        Self(Some(Box::new(Look {
            id,
            ticket,
            at,
            answer: None,
        })))
    }

    /// Keeps an answer of the worker. Returns it if it is to another question.
    pub(in super::super) fn note(&mut self, ticket: Ticket, answer: Answer) -> Option<Answer> {
        match self.0.as_mut().filter(|look| look.ticket == ticket) {
            Some(look) => {
                look.answer = Some(answer);
                None
            }
            None => Some(answer),
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
