//! Connections whose host HOSTINFO lists by its name only, and whose address is not known for that
//! name. They wait while a look-up process resolves the name.
//!
//! They wait at most until a refusal would be sent, so that waiting reveals no more than a refusal
//! does. They have not authenticated, so the gate may evict them, and their number is limited.
//! Beyond the limit the oldest one of the source that has the most stops waiting, and is refused at
//! the same time as the others. Each holds a descriptor of the monitor. Runs in the monitor.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::auth::{Opened, hash};
use crate::config::name::HostName;
use crate::daemon::monitor::Monitor;
use crate::daemon::monitor::preauth::{Preauth, Reject};
use crate::daemon::sources::Source;
use crate::ipc::gate::{Connection, Order};
use crate::log::log;
use crate::registry::Admitted;

/// Most connections that wait for one name.
const EACH_NAME: usize = 8;

/// Most connections of one source that wait.
const EACH_SOURCE: usize = 8;

/// Most connections that wait in all.
const ALL: usize = 64;

/// A connection that waits for a name, and until when.
pub(in crate::daemon::monitor) struct Awaited {
    connection: Connection,
    name: HostName,
    source: Source,
    until: Instant,
}

/// Returns the connection that must continue without its name if there are too many. `all` has the
/// oldest first.
fn first_surplus(all: &[Awaited]) -> Option<Connection> {
    let last = all.last()?;
    let named = |a: &&Awaited| a.name == last.name;
    let near = |a: &&Awaited| a.source == last.source;
    if all.iter().filter(near).count() > EACH_SOURCE {
        return all.iter().find(near).map(|a| a.connection);
    }
    if all.iter().filter(named).count() > EACH_NAME {
        return oldest_of_largest_source(all.iter().filter(named));
    }
    oldest_of_largest_source(all.iter()).filter(|_| all.len() > ALL)
}

fn oldest_of_largest_source<'a>(
    all: impl Iterator<Item = &'a Awaited> + Clone,
) -> Option<Connection> {
    let mut held: HashMap<Source, usize> = HashMap::new();
    for a in all.clone() {
        *held.entry(a.source).or_default() += 1;
    }
    let most = held.values().max().copied();
    all.into_iter()
        .find(|a| held.get(&a.source).copied() == most)
        .map(|a| a.connection)
}

impl Monitor {
    /// Returns the name to look up before this handshake's proof is verified, if it is being looked
    /// up.
    pub(super) fn pending_name(
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

    /// Notes a connection that waits for a name, and its source.
    pub(super) fn await_name(
        &mut self,
        connection: Connection,
        name: HostName,
        peer: IpAddr,
        now: Instant,
    ) {
        log!(self.log, Debug, "name", connection, host = name);
        let interval = self.settings.daemon.refusal_interval;
        let until = now + interval - interval / 10;
        self.awaited.push(Awaited {
            connection,
            name,
            source: Source::of(peer),
            until,
        });
        self.send_to_gate(Order::MayGo(connection, true).encode());
        // Those that were evicted or excluded wait no longer.
        let waits =
            |c| matches!(self.unauthenticated.get(&c), Some(Preauth::AtDoor(v)) if v.awaits_name());
        self.awaited.retain(|a| waits(a.connection));
        if let Some(c) = first_surplus(&self.awaited) {
            self.resume(now, |awaited| awaited.connection == c);
        }
    }

    /// Returns when the next of them has waited long enough.
    pub(in crate::daemon::monitor) fn awaited_deadline(&self) -> Option<Instant> {
        self.awaited.iter().map(|a| a.until).min()
    }

    /// Continues with the connections that waited for a name whose look-up has ended.
    pub(in crate::daemon::monitor) fn name_is_known(&mut self, name: &HostName, now: Instant) {
        self.resume(now, |awaited| awaited.name == *name);
    }

    /// Continues with connections that have waited long enough, with the addresses known so far.
    pub(in crate::daemon::monitor) fn continue_overdue_awaited(&mut self, now: Instant) {
        self.resume(now, |awaited| awaited.until <= now);
    }

    fn resume(&mut self, now: Instant, which: impl Fn(&Awaited) -> bool) {
        let all = std::mem::take(&mut self.awaited);
        let (these, rest) = all.into_iter().partition(which);
        self.awaited = rest;
        for Awaited { connection: c, .. } in these {
            // Its peer may have left.
            match self.unauthenticated.remove(&c) {
                Some(Preauth::AtDoor(admission)) if admission.awaits_name() => {
                    let peer = admission.peer;
                    self.send_to_gate(Order::MayGo(c, false).encode());
                    let outcome = self.after_name(c, *admission, now);
                    let outcome = outcome.map_err(|reject| match reject {
                        Reject::Refused(r) if r.peer.is_none() => {
                            Reject::Refused(r.of(peer).from_unauthenticated(true))
                        }
                        Reject::Refused(_) | Reject::Closed(..) | Reject::Left(_) => reject,
                    });
                    self.conclude(c, outcome);
                }
                other => self.unauthenticated.extend(other.map(|s| (c, s))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_waiting_connection_of_the_largest_source_is_evicted() {
        let now = Instant::now();
        let mut all: Vec<Awaited> = Vec::new();
        let mut come = |name: usize, source: usize| {
            let connection = all.last().map_or(0, |a| a.connection + 1);
            let source = format!("192.0.2.{source}").parse().unwrap();
            all.push(Awaited {
                connection,
                name: HostName::parse(&format!("host{name}")).unwrap(),
                source: Source::of(source),
                until: now,
            });
            let gone = first_surplus(&all);
            all.retain(|a| Some(a.connection) != gone);
            gone
        };
        // One source, whatever the names; then one name.
        let first: Vec<_> = (0..EACH_SOURCE).map(|n| come(n, 0)).collect();
        assert!(first.iter().all(Option::is_none), "{first:?}");
        assert_eq!(come(9, 0), Some(0));
        for source in 1..EACH_NAME {
            assert_eq!(come(9, source), None);
        }
        assert_eq!(come(9, 1), Some(9), "the first of source 1");
        // And all: the oldest of the source that has the most.
        let mut gone = None;
        for n in 0..ALL {
            gone = gone.or(come(100 + n, 100 + n));
        }
        assert_eq!(gone, Some(1));
    }
}
