//! Slots and penalties per source: how many connections each source has, which is the oldest of the
//! greediest source, and which penalties reduce a source to one slot.
//!
//! Runs in the gate. Owns these counts and penalties. The rules are in [`crate::daemon::sources`].
//! Must not close a connection: the table does.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::daemon::sources::{self, Networks, Source};
use crate::ipc::gate::{Connection, Limits};

/// Slots and penalties of all sources.
#[derive(Default)]
pub(super) struct Sources {
    by_source: HashMap<Source, BTreeSet<Connection>>,
    largest: BTreeSet<(usize, Source)>,
    total: usize,
    penalties: HashMap<Source, Instant>,
    /// When penalties end, IPv4 and IPv6 apart: a peer that owns a large IPv6 network must not push
    /// IPv4 penalties out of memory.
    ends: [BTreeSet<(Instant, Source)>; 2],
    /// Sources that HOSTINFO lists: slots are reserved for them.
    pub(super) listed: Networks,
    /// Sources that are never penalised.
    pub(super) exempt: Networks,
}

impl Sources {
    /// Returns the number of all unauthenticated connections.
    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Returns how many slots a source has now.
    pub(super) fn slots(&self, ip: IpAddr, limits: &Limits, now: Instant) -> usize {
        let left = self.penalties.get(&Source::of(ip));
        let left = left.map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
        sources::slots(self.listed.has(ip), left, limits)
    }

    /// Returns how many connections of this source hold a slot.
    pub(super) fn held(&self, ip: IpAddr) -> usize {
        self.by_source.get(&Source::of(ip)).map_or(0, BTreeSet::len)
    }

    /// Whether the table is full for one more connection from this address. The last slots are for
    /// sources that HOSTINFO lists.
    pub(super) fn is_full(&self, ip: IpAddr, limits: &Limits) -> bool {
        self.total >= sources::room(self.listed.has(ip), limits)
    }

    /// Takes a slot.
    pub(super) fn enter(&mut self, ip: IpAddr, connection: Connection) {
        let source = Source::of(ip);
        let held = self.by_source.entry(source).or_default();
        self.largest.remove(&(held.len(), source));
        if held.insert(connection) {
            self.total += 1;
        }
        self.largest.insert((held.len(), source));
    }

    /// Releases a slot.
    pub(super) fn leave(&mut self, ip: IpAddr, connection: Connection) {
        let source = Source::of(ip);
        let Some(held) = self.by_source.get_mut(&source) else {
            return;
        };
        self.largest.remove(&(held.len(), source));
        if held.remove(&connection) {
            self.total = self.total.saturating_sub(1);
        }
        if held.is_empty() {
            self.by_source.remove(&source);
        } else {
            self.largest.insert((held.len(), source));
        }
    }

    /// Returns the connections of a source, the oldest first.
    pub(super) fn of(&self, ip: IpAddr) -> impl Iterator<Item = Connection> + '_ {
        self.by_source
            .get(&Source::of(ip))
            .into_iter()
            .flatten()
            .copied()
    }

    /// Returns all connections: the greediest sources first, and the oldest first within a source.
    pub(super) fn largest_first(&self) -> impl Iterator<Item = Connection> + '_ {
        self.largest
            .iter()
            .rev()
            .flat_map(|(_, s)| self.by_source.get(s).into_iter().flatten().copied())
    }

    /// Adds to a source's penalty.
    pub(super) fn penalise(&mut self, ip: IpAddr, seconds: u32, limits: &Limits, now: Instant) {
        if seconds == 0 || self.exempt.has(ip) {
            return;
        }
        let source = Source::of(ip);
        let before = self.penalties.remove(&source);
        let [v4, v6] = &mut self.ends;
        let ends = if source.is_v6() { v6 } else { v4 };
        if let Some(end) = before {
            ends.remove(&(end, source));
        }
        let left = before.map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
        let end = now + sources::after(left, seconds, limits);
        self.penalties.insert(source, end);
        ends.insert((end, source));
        // Beyond the limit, forget the penalties that end first.
        while ends.len() > usize::try_from(limits.penalty_sources).unwrap_or(usize::MAX) {
            if let Some((_, first)) = ends.pop_first() {
                self.penalties.remove(&first);
            }
        }
    }

    /// Forgets penalties that have ended.
    pub(super) fn expire_penalties(&mut self, now: Instant) {
        for ends in &mut self.ends {
            while ends.first().is_some_and(|(end, _)| *end <= now) {
                if let Some((_, source)) = ends.pop_first() {
                    self.penalties.remove(&source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn oldest_connection_of_the_largest_source_is_evicted_first() {
        let mut s = Sources::default();
        for (from, c) in [
            ("192.0.2.1", 1),
            ("192.0.2.2", 2),
            ("192.0.2.2", 3),
            ("192.0.2.2", 4),
        ] {
            s.enter(ip(from), c);
        }
        assert!(s.is_full(ip("192.0.2.1"), &Limits::FEW));
        s.leave(ip("192.0.2.2"), 4);
        assert!(
            s.is_full(ip("192.0.2.3"), &Limits::FEW),
            "the last slot is reserved"
        );
        s.listed.add(ip("192.0.2.3"), 32);
        assert!(!s.is_full(ip("192.0.2.3"), &Limits::FEW));
        s.enter(ip("192.0.2.2"), 4);
        assert_eq!(s.largest_first().next(), Some(2));
        s.leave(ip("192.0.2.2"), 2);
        s.leave(ip("192.0.2.2"), 2);
        assert_eq!((s.total(), s.held(ip("192.0.2.2"))), (3, 2));
        assert_eq!(s.largest_first().collect::<Vec<_>>(), [3, 4, 1]);
    }

    #[test]
    fn a_penalised_source_keeps_one_slot_and_a_listed_one_all() {
        let (mut s, l, now) = (Sources::default(), Limits::FEW, Instant::now());
        let (a, neighbour) = (ip("2001:db8::1"), ip("2001:db8::ffff"));
        s.penalise(a, 10, &l, now);
        assert_eq!(s.slots(a, &l, now), 3);
        s.penalise(a, 10, &l, now);
        assert_eq!(s.slots(a, &l, now), 1);
        assert_eq!(
            s.slots(neighbour, &l, now),
            1,
            "the whole /64 is one source"
        );
        assert_eq!(s.slots(ip("2001:db8:0:1::1"), &l, now), 3);
        s.listed.add(a, 128);
        assert_eq!(s.slots(a, &l, now), sources::RESERVED);
        s.listed.add(ip("2001:db8::"), 32);
        assert_eq!(s.slots(neighbour, &l, now), sources::RESERVED);
        let later = now + Duration::from_secs(21);
        s.expire_penalties(later);
        assert!(s.penalties.is_empty() && s.ends.iter().all(BTreeSet::is_empty));
        s.exempt.add(ip("198.51.100.1"), 32);
        s.penalise(ip("198.51.100.1"), 100, &l, now);
        assert!(s.penalties.is_empty());
        for _ in 0..100 {
            s.penalise(a, 100, &l, now);
        }
        s.expire_penalties(now + Duration::from_secs(601));
        assert!(
            s.penalties.is_empty(),
            "a penalty never lasts longer than the maximum"
        );
    }

    #[test]
    fn many_ipv6_networks_do_not_push_an_ipv4_penalty_out_of_memory() {
        let (mut s, l, now) = (Sources::default(), Limits::FEW, Instant::now());
        s.penalise(ip("192.0.2.1"), 20, &l, now);
        for n in 0..1000 {
            s.penalise(ip(&format!("2001:db8:{n:x}::1")), 600, &l, now);
        }
        assert_eq!(s.slots(ip("192.0.2.1"), &l, now), 1);
        assert_eq!(s.penalties.len(), 1 + 100);
    }
}
