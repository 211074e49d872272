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

use crate::config::name::HostName;
use crate::daemon::sources::Source;
use crate::ipc::gate::Connection;

/// Most connections that wait for one name.
const EACH_NAME: usize = 8;

/// Most connections of one source that wait.
const EACH_SOURCE: usize = 8;

/// Most connections that wait in all.
const ALL: usize = 64;

/// The connections that wait for a name, the oldest first.
#[derive(Default)]
pub(super) struct Awaited(Vec<Waiting>);

/// A connection that waits for a name, and until when.
struct Waiting {
    connection: Connection,
    name: HostName,
    source: Source,
    until: Instant,
}

impl Awaited {
    /// Adds one.
    pub(super) fn add(
        &mut self,
        connection: Connection,
        name: HostName,
        peer: IpAddr,
        until: Instant,
    ) {
        self.0.push(Waiting {
            connection,
            name,
            source: Source::of(peer),
            until,
        });
    }

    /// Keeps those that still wait. If there are too many of these, removes and returns the one
    /// that must continue without its name.
    pub(super) fn take_surplus(
        &mut self,
        waits: impl Fn(Connection) -> bool,
    ) -> Option<Connection> {
        self.0.retain(|a| waits(a.connection));
        let surplus = first_surplus(&self.0)?;
        self.0.retain(|a| a.connection != surplus);
        Some(surplus)
    }

    /// Removes and returns those that wait for this name.
    pub(super) fn take_named(&mut self, name: &HostName) -> Vec<Connection> {
        self.take(|a| a.name == *name)
    }

    /// Removes and returns those that have waited long enough.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<Connection> {
        self.take(|a| a.until <= now)
    }

    fn take(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<Connection> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(which);
        self.0 = left;
        let taken: Vec<Waiting> = taken;
        taken.into_iter().map(|a| a.connection).collect()
    }

    /// Returns when the next of them has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|a| a.until).min()
    }
}

/// Returns the connection that must continue without its name if there are too many. `all` has the
/// oldest first.
fn first_surplus(all: &[Waiting]) -> Option<Connection> {
    let last = all.last()?;
    let named = |a: &&Waiting| a.name == last.name;
    let near = |a: &&Waiting| a.source == last.source;
    if all.iter().filter(near).count() > EACH_SOURCE {
        return all.iter().find(near).map(|a| a.connection);
    }
    if all.iter().filter(named).count() > EACH_NAME {
        return oldest_of_largest_source(all.iter().filter(named));
    }
    oldest_of_largest_source(all.iter()).filter(|_| all.len() > ALL)
}

fn oldest_of_largest_source<'a>(
    all: impl Iterator<Item = &'a Waiting> + Clone,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_waiting_connection_of_the_largest_source_is_evicted() {
        let now = Instant::now();
        let mut all: Vec<Waiting> = Vec::new();
        let mut come = |name: usize, source: usize| {
            let connection = all.last().map_or(0, |a| a.connection + 1);
            let source = format!("192.0.2.{source}").parse().unwrap();
            all.push(Waiting {
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
