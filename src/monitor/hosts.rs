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

/// So many look-ups at a time are kept for names that a connection needs: a resolver that does
/// not answer for others must not keep it waiting.
const KEPT: usize = 2;

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
    /// Those that a connection needs, which are asked for first.
    wanted: VecDeque<HostName>,
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
            wanted: VecDeque::new(),
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
        self.wanted.retain(|name| names.contains(name));
        let under_way = self.looking.values().chain(&self.wanted);
        let under_way: HashSet<&HostName> = under_way.collect();
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
        while let Some(name) = self.next() {
            match look_ups.ask(registry, Question::Host(name.to_string()), now) {
                Ok(which) => {
                    self.looking.insert(which, name);
                }
                Err(e) => {
                    // They are asked for again, as those that did not resolve are.
                    let mut left = vec![name];
                    left.extend(self.wanted.drain(..).chain(self.waiting.drain(..)));
                    for name in left {
                        let _ = self.note_end(&name, Some(e.to_string()), now);
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// The next name to ask for, if one more may be asked for now.
    fn next(&mut self) -> Option<HostName> {
        let slots = HOSTS.saturating_sub(self.looking.len());
        if slots > 0 && !self.wanted.is_empty() {
            return self.wanted.pop_front();
        }
        (slots > KEPT).then(|| self.waiting.pop_front()).flatten()
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
        if !self.wanted.contains(name) {
            self.wanted.push_back(name.clone());
        }
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
                let is_wanted = self.wanted.contains(name);
                if !under_way && !is_wanted && !self.waiting.contains(name) {
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
        !self.looking.is_empty() || !self.waiting.is_empty() || !self.wanted.is_empty()
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
mod tests;
