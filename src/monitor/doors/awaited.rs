//! Connections whose host HOSTINFO has by its name alone, and whose address is not known to be
//! that name's: the name is looked up while they wait, in a process of its own.
//!
//! They wait no longer than until a refusal would leave, so that waiting tells no more than
//! a refusal does.

use std::net::IpAddr;
use std::time::Instant;

use super::visit::{Step, Visit};
use crate::channel::gate::Connection;
use crate::config::name::HostName;
use crate::credential::{Opened, hash};
use crate::door::{Admitted, asked::Question};
use crate::monitor::Monitor;
use crate::monitor::answer::{Halt, Stranger};

/// A connection that waits for a name, and until when.
pub(in crate::monitor) struct Awaited {
    connection: Connection,
    name: HostName,
    until: Instant,
}

impl Monitor {
    /// The name that is to be looked up before this handshake's proof is looked at, and is.
    pub(super) fn name_to_await(
        &mut self,
        admitted: &Admitted<Opened>,
        peer: IpAddr,
        now: Instant,
    ) -> Option<HostName> {
        self.refresh_hosts();
        if !self.hosts.have_names() {
            return None;
        }
        let table = self.hosts.table().ok()?;
        let resolved = |name: &HostName| self.hosts.addresses_of(name);
        let name = hash::unknown_by_name(admitted, table, &resolved, peer)?;
        if !self.hosts.want(&name, now) {
            return None;
        }
        self.resolve_names(now);
        Some(name)
    }

    /// Notes who waits for a name.
    pub(super) fn await_name(&mut self, connection: Connection, name: HostName, now: Instant) {
        self.step("name", &[("connection", &connection), ("host", &name)]);
        let interval = self.settings.daemon.refusal_interval;
        let until = now + interval - interval / 10;
        self.awaited.push(Awaited {
            connection,
            name,
            until,
        });
    }

    /// When the next of them has waited long enough.
    pub(in crate::monitor) fn awaited_deadline(&self) -> Option<Instant> {
        self.awaited.iter().map(|a| a.until).min()
    }

    /// The look-up of a name has ended: who waits for it goes on.
    pub(in crate::monitor) fn name_is_known(&mut self, name: &HostName, now: Instant) {
        self.resume(now, |awaited| awaited.name == *name);
    }

    /// Who has waited long enough goes on, with what is known.
    pub(in crate::monitor) fn tend_awaited(&mut self, now: Instant) {
        self.resume(now, |awaited| awaited.until <= now);
    }

    fn resume(&mut self, now: Instant, which: impl Fn(&Awaited) -> bool) {
        let all = std::mem::take(&mut self.awaited);
        let (these, rest) = all.into_iter().partition(which);
        self.awaited = rest;
        for Awaited { connection: c, .. } in these {
            // It may have left meanwhile.
            match self.strangers.remove(&c) {
                Some(Stranger::AtDoor(visit)) if visit.awaits_name() => {
                    let peer = visit.peer;
                    let outcome = self.prove_awaited(c, *visit, now);
                    let outcome = outcome.map_err(|halt| match halt {
                        Halt::Refused(r) if r.peer.is_none() => {
                            Halt::Refused(r.of(peer).of_stranger(true))
                        }
                        Halt::Refused(_) | Halt::Closed(..) | Halt::Left(_) => halt,
                    });
                    self.conclude(c, outcome);
                }
                other => self.strangers.extend(other.map(|s| (c, s))),
            }
        }
    }

    /// The proof is looked at; then the doors once more, which may have changed meanwhile.
    fn prove_awaited(&mut self, c: Connection, visit: Visit, now: Instant) -> Result<(), Halt> {
        let Visit { step, peer, .. } = visit;
        let Step::AwaitsName(admitted) = step else {
            return Ok(());
        };
        self.refresh_hosts();
        let visitor = self.recognise(c, *admitted, peer)?;
        let machine = visitor.machine();
        let visit = Visit {
            step: Step::VouchedFor(visitor),
            ..visit
        };
        self.ask_doors(c, Box::new(visit), Question::Look(machine), now)
    }
}
