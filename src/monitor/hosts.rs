//! HOSTINFO as the monitor has it: loaded, loaded anew when the file changes,
//! and the names in it resolved by a look-up process.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::Registry;

use super::look_ups::{LookUp, LookUps};
use crate::channel::lookup::{HOSTS, Question};
use crate::config::address::Network;
use crate::config::hostinfo::{Addresses, Entry, HostTable};
use crate::config::name::HostName;
use crate::config::place::Place;
use crate::fault::Fault;

/// While names are being resolved, those that are known are told this often.
const TOLD: Duration = Duration::from_secs(1);

/// A name that did not resolve is asked for again after this time, then after twice that, and
/// so on up to [`SELDOM`].
const AGAIN: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(300);
/// A name is asked for at most this often because a connection needs it.
const ON_DEMAND: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
type Stamp = Option<(u64, u64, i64, i64, i64, i64, u64, u32, u32)>;

fn stamp(path: &Path) -> Stamp {
    let m = std::fs::metadata(path).ok()?;
    let (size, mode, owner) = (m.size(), m.mode(), m.uid());
    Some((
        m.dev(),
        m.ino(),
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec(),
        size,
        mode,
        owner,
    ))
}

/// The host table and what its names resolve to.
pub(super) struct Hosts {
    table: Result<HostTable, Fault>,
    seen: [Stamp; 2],
    resolved: HashMap<HostName, Vec<IpAddr>>,
    /// Names that are still to be asked for.
    waiting: VecDeque<HostName>,
    /// Names that are being looked up.
    looking: HashMap<LookUp, HostName>,
    /// Whether there are names at all.
    have_names: bool,
    /// When each name's last look-up ended, and how that was.
    ended: HashMap<HostName, Ended>,
    /// When the next name is due that did not resolve.
    due: Option<Instant>,
    /// Since when the others must know of the names that are resolved.
    told: Instant,
}

/// The end of a name's last look-up.
struct Ended {
    at: Instant,
    /// After what time it is asked for again, where it did not resolve.
    again: Option<Duration>,
}

impl Ended {
    fn due(&self) -> Option<Instant> {
        self.at.checked_add(self.again?)
    }
}

/// A name that does not resolve, and why, when that is new.
pub(super) type Unresolved = Option<(HostName, String)>;

/// What [`Hosts::refresh`] found.
pub(super) enum Refreshed {
    /// Nothing has changed.
    Same,
    /// The table is another one now.
    New,
}

/// What the end of a name's look-up means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// No look-up of these, or one of many: nobody needs to know yet.
    Same,
    /// Some names have their addresses; others are still being looked up.
    Some,
    /// Every name has its addresses, as far as it resolves.
    All,
}

impl Hosts {
    /// Loads the table. A table that cannot be read denies everybody. Its names are not asked
    /// for before [`Self::resolve`].
    pub(super) fn load(place: &Place) -> Self {
        let mut hosts = Self {
            table: Err(Fault::new("hostinfo was not read yet")),
            seen: [None, None],
            resolved: HashMap::new(),
            waiting: VecDeque::new(),
            looking: HashMap::new(),
            have_names: false,
            ended: HashMap::new(),
            due: None,
            told: Instant::now(),
        };
        hosts.reload(place);
        hosts
    }

    /// Loads the table anew whatever its stamp says.
    pub(super) fn reload(&mut self, place: &Place) {
        self.seen = [stamp(&place.hostinfo()), stamp(&place.dir)];
        self.table = HostTable::load(place);
        self.list_names();
    }

    /// Loads the table anew if the file, or its folder, has changed.
    pub(super) fn refresh(&mut self, place: &Place) -> Refreshed {
        if [stamp(&place.hostinfo()), stamp(&place.dir)] == self.seen {
            return Refreshed::Same;
        }
        self.reload(place);
        Refreshed::New
    }

    /// The table, or why there is none.
    pub(super) const fn table(&self) -> Result<&HostTable, &Fault> {
        self.table.as_ref()
    }

    /// What a host's name resolves to; `None`: it does not, or has not yet.
    pub(super) fn addresses_of(&self, name: &HostName) -> Option<Vec<IpAddr>> {
        self.resolved.get(name).cloned()
    }

    /// The hosts that may ask for anything at all.
    fn callers(&self) -> impl Iterator<Item = &Entry> {
        let all = self.table.iter().flat_map(HostTable::entries);
        all.filter(|e| e.may_ask())
    }

    /// Every address and network that may call, with its prefix length.
    pub(super) fn networks(&self) -> Vec<(IpAddr, u8)> {
        let mut all = Vec::new();
        for entry in self.callers() {
            match &entry.addresses {
                Addresses::Listed(networks) => all.extend(networks.iter().map(Network::parts)),
                Addresses::ByName => {
                    let known = self.resolved.get(&entry.name).into_iter().flatten();
                    all.extend(known.map(|a| Network::host(*a).parts()));
                }
            }
        }
        all
    }

    /// Lists the names that have no addresses, to be resolved.
    fn list_names(&mut self) {
        let names: HashSet<HostName> = self
            .callers()
            .filter(|e| matches!(e.addresses, Addresses::ByName))
            .map(|e| e.name.clone())
            .collect();
        // What was known of those that are still there stays until the new answer comes.
        self.resolved.retain(|name, _| names.contains(name));
        // Who looks a name up that is no longer there is heard by nobody.
        self.looking.retain(|_, name| names.contains(name));
        self.have_names = !names.is_empty();
        self.ended.retain(|name, _| names.contains(name));
        self.find_due();
        let under_way: HashSet<&HostName> = self.looking.values().collect();
        let left = names.iter().filter(|name| !under_way.contains(name));
        self.waiting = left.cloned().collect();
    }

    /// Has the names looked up that are still to be, as many at a time as one process takes.
    ///
    /// # Errors
    /// There is no process to be had: the names that are left stay as they were.
    pub(super) fn resolve(
        &mut self,
        look_ups: &mut LookUps,
        registry: &Registry,
        now: Instant,
    ) -> Result<(), Fault> {
        while self.looking.len() < HOSTS {
            let Some(name) = self.waiting.pop_front() else {
                return Ok(());
            };
            match look_ups.ask(registry, Question::Host(name.to_string()), now) {
                Ok(which) => {
                    self.looking.insert(which, name);
                }
                Err(e) => {
                    // They are asked for again, as those that did not resolve are.
                    self.waiting.push_front(name);
                    for name in std::mem::take(&mut self.waiting) {
                        let _ = self.note_end(&name, Some(e.to_string()), now);
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// How many names did not resolve at the last try.
    pub(super) fn unresolved(&self) -> usize {
        let failed = self.ended.values().filter(|ended| ended.again.is_some());
        failed.count()
    }

    /// Asks for a name because a connection needs it, and whether that is worth waiting for:
    /// it is being looked up, or was not a moment ago.
    pub(super) fn want(&mut self, name: &HostName, now: Instant) -> bool {
        if self.looking.values().any(|under_way| under_way == name) {
            return true;
        }
        let lately = |ended: &Ended| now < ended.at + ON_DEMAND;
        if self.ended.get(name).is_some_and(lately) {
            return false;
        }
        self.waiting.retain(|waiting| waiting != name);
        self.waiting.push_front(name.clone());
        true
    }

    /// When a name that did not resolve is to be asked for again.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Lists the names that are due again, to be resolved.
    pub(super) fn tend(&mut self, now: Instant) {
        for (name, ended) in &mut self.ended {
            if ended.due().is_some_and(|due| due <= now) {
                // It is due once: its next end says when it is again.
                ended.at = now;
                let under_way = self.looking.values().any(|looking| looking == name);
                if !under_way && !self.waiting.contains(name) {
                    self.waiting.push_back(name.clone());
                }
            }
        }
        self.find_due();
    }

    fn find_due(&mut self) {
        self.due = self.ended.values().filter_map(Ended::due).min();
    }

    /// Takes note of how a look-up ended; why, where that is new.
    fn note_end(&mut self, name: &HostName, why: Option<String>, now: Instant) -> Unresolved {
        let before = self.ended.get(name).and_then(|ended| ended.again);
        let again = why
            .is_some()
            .then(|| before.map_or(AGAIN, |last| last.saturating_mul(2).min(SELDOM)));
        self.ended.insert(name.clone(), Ended { at: now, again });
        self.find_due();
        why.filter(|_| before.is_none())
            .map(|why| (name.clone(), why))
    }

    /// Whether there is a host that is known by its name alone.
    pub(super) const fn have_names(&self) -> bool {
        self.have_names
    }

    /// Whether names are still being looked up.
    pub(super) fn is_resolving(&self) -> bool {
        !self.looking.is_empty() || !self.waiting.is_empty()
    }

    /// The name that is being looked up under this number.
    pub(super) fn looked_up(&self, which: LookUp) -> Option<&HostName> {
        self.looking.get(&which)
    }

    /// The look-up of a name has ended.
    pub(super) fn heard(
        &mut self,
        which: LookUp,
        found: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) -> (Names, Unresolved) {
        let Some(name) = self.looking.remove(&which) else {
            return (Names::Same, None);
        };
        // A name server that is away for once takes no host's address away.
        let unresolved = match found {
            Ok(addresses) if addresses.is_empty() => {
                self.note_end(&name, Some("it has no address".into()), now)
            }
            Ok(addresses) => {
                let unresolved = self.note_end(&name, None, now);
                self.resolved.insert(name, addresses);
                unresolved
            }
            Err(why) => self.note_end(&name, Some(why), now),
        };
        if !self.is_resolving() {
            return (Names::All, unresolved);
        }
        if now < self.told + TOLD {
            return (Names::Same, unresolved);
        }
        self.told = now;
        (Names::Some, unresolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    fn name(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const TABLE: &str = "one cos run-as=root\ntwo cos run-as=root\n";

    /// A table of which this was known, and whose names are being looked up, as 1, 2 and on.
    fn looking(table: &str) -> Hosts {
        let scratch = Scratch::new();
        scratch.file("hostinfo", table, 0o600);
        let mut hosts = Hosts::load(&scratch.place());
        for (n, last) in [("one", "192.0.2.1"), ("two", "192.0.2.2")] {
            hosts.resolved.insert(name(n), vec![ip(last)]);
        }
        let mut waiting: Vec<HostName> = hosts.waiting.drain(..).collect();
        waiting.sort_by_key(ToString::to_string);
        hosts.looking = (1..).zip(waiting).collect();
        hosts
    }

    #[test]
    fn a_name_that_does_not_resolve_for_once_keeps_its_addresses() {
        let mut hosts = looking(TABLE);
        let new = vec![ip("192.0.2.9"), ip("192.0.2.10")];
        let now = hosts.told;
        assert_eq!(hosts.heard(1, Ok(new.clone()), now).0, Names::Same);
        assert_eq!(hosts.addresses_of(&name("one")), Some(new));
        assert!(hosts.is_resolving());
        let (names, unresolved) = hosts.heard(2, Err("away".into()), now);
        assert_eq!(
            (names, unresolved),
            (Names::All, Some((name("two"), "away".into())))
        );
        assert_eq!(
            hosts.addresses_of(&name("two")),
            Some(vec![ip("192.0.2.2")])
        );
        // One that is no longer in the table has none.
        hosts.table = Ok(HostTable::parse(b"", Path::new("hostinfo")));
        hosts.list_names();
        assert_eq!(hosts.addresses_of(&name("two")), None);
    }

    /// One name that takes long was once waited for before the others counted.
    #[test]
    fn a_slow_name_does_not_hold_up_those_that_are_resolved() {
        let mut hosts = looking(TABLE);
        let later = hosts.told + TOLD;
        assert_eq!(
            hosts.heard(2, Ok(vec![ip("192.0.2.9")]), later).0,
            Names::Some
        );
        assert_eq!(
            hosts.addresses_of(&name("two")),
            Some(vec![ip("192.0.2.9")])
        );
        // One that was asked for before the table changed is not asked for twice.
        hosts.list_names();
        assert_eq!(hosts.waiting, [name("two")]);
    }

    /// After 5 s, then twice as long, and so on; and at once where a connection needs it.
    #[test]
    fn a_name_that_does_not_resolve_is_asked_for_again() {
        let mut hosts = looking(TABLE);
        let (two, mut now) = (name("two"), hosts.told);
        let mut which = 2;
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            let (_, unresolved) = hosts.heard(which, Err("away".into()), now);
            // That is told once.
            assert_eq!(unresolved.is_some(), seconds == 5);
            let due = now + Duration::from_secs(seconds);
            assert_eq!(hosts.deadline(), Some(due));
            hosts.tend(due - Duration::from_millis(1));
            assert!(hosts.waiting.is_empty());
            hosts.tend(due);
            assert_eq!(hosts.waiting.pop_front().as_ref(), Some(&two));
            now = due;
            which += 1;
            hosts.looking.insert(which, two.clone());
        }
        assert!(hosts.want(&two, now), "it is being looked up");
        hosts.heard(which, Ok(vec![ip("192.0.2.9")]), now);
        assert_eq!(hosts.deadline(), None);
        assert!(!hosts.want(&two, now), "it was looked up a moment ago");
        assert!(hosts.want(&two, now + ON_DEMAND));
        assert_eq!(hosts.waiting.front(), Some(&two));
    }

    /// No slot is reserved, and no penalty softened, for a host that may ask nothing.
    #[test]
    fn a_line_without_run_as_reserves_nothing() {
        let table = "one cos run-as=root\ntwo cos\nthree cos addr=192.0.2.0/28\n\
                     four cos addr=198.51.100.0/24 run-as=root\n";
        let hosts = looking(table);
        let reserved = hosts.networks();
        assert_eq!(reserved, [(ip("192.0.2.1"), 32), (ip("198.51.100.0"), 24)]);
    }
}
