//! HOSTINFO in the monitor: loaded at the start and when the file changes. A look-up process
//! resolves the names in it.
//!
//! Runs in the monitor. Owns the host table, the addresses of its names, and the queue of names to
//! be looked up. Must never resolve a name itself, or wait for an answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::Registry;

use super::look_ups::{LookUp, LookUps, NotAsked};
use crate::config::address::Network;
use crate::config::hostinfo::{Addresses, Entry, HostTable};
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::ipc::lookup::{HOSTS, Question};

/// While names are being resolved, the known ones are reported this often.
const TOLD: Duration = Duration::from_secs(1);

/// A name that did not resolve is looked up again after this time, then after twice that, and so on
/// up to [`SELDOM`].
const AGAIN: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(300);
/// A name is looked up at most this often because a connection needs it.
const ON_DEMAND: Duration = Duration::from_secs(1);

/// First and longest pause before names are looked up again for which no look-up process was
/// available.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// This many look-ups are reserved for names that a connection needs: a resolver that does not
/// answer for others must not delay it.
const KEPT: usize = 2;

/// The version of a file.
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
    /// Names that are still to be looked up.
    waiting: VecDeque<HostName>,
    /// Names that a connection needs, which are looked up first.
    wanted: VecDeque<HostName>,
    /// Names that are being looked up. One that has left the table stays until its answer comes:
    /// the process still has the question, and no room for more than that.
    looking: HashMap<LookUp, HostName>,
    /// The table's names that are to be resolved.
    names: HashSet<HostName>,
    /// How often in a row no look-up process was available, and when the next try is.
    failures: u32,
    retry: Option<Instant>,
    /// When each name's last look-up ended, and how.
    ended: HashMap<HostName, Ended>,
    /// When the next name that did not resolve is due.
    due: Option<Instant>,
    /// When the resolved names were last reported.
    told: Instant,
}

/// The end of a name's last look-up.
struct Ended {
    at: Instant,
    /// The delay until the next look-up, if it did not resolve.
    again: Option<Duration>,
}

impl Ended {
    fn due(&self) -> Option<Instant> {
        self.at.checked_add(self.again?)
    }
}

/// A name that does not resolve, and why, if that is new.
pub(super) type Unresolved = Option<(HostName, String)>;

/// The result of [`Hosts::refresh`].
pub(super) enum Refreshed {
    /// Nothing has changed.
    Same,
    /// The table was replaced.
    New,
}

/// What the end of a name's look-up means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// No name of ours, or one of many: nothing is to be reported yet.
    Same,
    /// Some names have their addresses; others are still being looked up.
    Some,
    /// Every name that resolves has its addresses.
    All,
}

impl Hosts {
    /// Loads the table. A table that cannot be read denies every host. Its names are not looked up
    /// before [`Self::resolve`].
    pub(super) fn load(paths: &Paths) -> Self {
        let mut hosts = Self {
            table: Err(Fault::new("hostinfo was not read yet")),
            seen: [None, None],
            resolved: HashMap::new(),
            waiting: VecDeque::new(),
            wanted: VecDeque::new(),
            looking: HashMap::new(),
            names: HashSet::new(),
            failures: 0,
            retry: None,
            ended: HashMap::new(),
            due: None,
            told: Instant::now(),
        };
        hosts.reload(paths);
        hosts
    }

    /// Loads the table again, whatever its stamp says.
    pub(super) fn reload(&mut self, paths: &Paths) {
        self.seen = [stamp(&paths.hostinfo()), stamp(&paths.dir)];
        self.table = HostTable::load(paths);
        self.list_names();
    }

    /// Loads the table again if the file, or its folder, has changed.
    pub(super) fn refresh(&mut self, paths: &Paths) -> Refreshed {
        if [stamp(&paths.hostinfo()), stamp(&paths.dir)] == self.seen {
            return Refreshed::Same;
        }
        self.reload(paths);
        Refreshed::New
    }

    /// Returns the table, or why there is none.
    pub(super) const fn table(&self) -> Result<&HostTable, &Fault> {
        self.table.as_ref()
    }

    /// Returns what a host's name resolves to; `None`: it does not, or has not yet.
    pub(super) fn addresses_of(&self, name: &HostName) -> Option<Vec<IpAddr>> {
        self.resolved.get(name).cloned()
    }

    /// Returns the hosts that may make any request at all.
    fn callers(&self) -> impl Iterator<Item = &Entry> {
        let all = self.table.iter().flat_map(HostTable::entries);
        all.filter(|e| e.may_ask())
    }

    /// Returns every address and network that may connect, with its prefix length.
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

    /// Lists all names that are to be resolved, except those that are being looked up.
    fn list_names(&mut self) {
        let names: HashSet<HostName> = self
            .callers()
            .filter(|e| matches!(e.addresses, Addresses::ByName))
            .map(|e| e.name.clone())
            .collect();
        // The known addresses of names that stay are kept until the new answer comes.
        self.resolved.retain(|name, _| names.contains(name));
        self.ended.retain(|name, _| names.contains(name));
        self.find_due();
        self.wanted.retain(|name| names.contains(name));
        let under_way = self.looking.values().chain(&self.wanted);
        let under_way: HashSet<&HostName> = under_way.collect();
        let left = names.iter().filter(|name| !under_way.contains(name));
        self.waiting = left.cloned().collect();
        self.names = names;
        self.retry = None;
    }

    /// Starts the look-ups of the queued names, as many at a time as one process takes. Names that
    /// cannot be looked up now stay in the queue.
    ///
    /// # Errors
    /// Fails if no process is available, and that is new. It is tried again at [`Self::deadline`].
    pub(super) fn resolve(
        &mut self,
        look_ups: &mut LookUps,
        registry: &Registry,
        now: Instant,
    ) -> Result<(), Fault> {
        if self.retry.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.retry = None;
        while let Some(queue) = self.next_queue() {
            let Some(name) = queue.front().cloned() else {
                break;
            };
            match look_ups.ask(registry, Question::Host(name.to_string()), now) {
                Ok(which) => {
                    queue.pop_front();
                    self.looking.insert(which, name);
                    self.failures = 0;
                }
                // The next answer makes room, and this is called again then.
                Err(NotAsked::NoRoom) => break,
                Err(NotAsked::Failed(e)) => {
                    let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
                    self.retry = Some(now + pause.min(LONGEST_PAUSE));
                    self.failures = self.failures.saturating_add(1);
                    return if self.failures == 1 { Err(e) } else { Ok(()) };
                }
            }
        }
        Ok(())
    }

    /// Returns the queue of the name to look up next, if one more may be looked up now.
    fn next_queue(&mut self) -> Option<&mut VecDeque<HostName>> {
        let slots = HOSTS.saturating_sub(self.looking.len());
        if slots > 0 && !self.wanted.is_empty() {
            return Some(&mut self.wanted);
        }
        (slots > KEPT && !self.waiting.is_empty()).then_some(&mut self.waiting)
    }

    /// Returns how many names did not resolve at the last try.
    pub(super) fn unresolved(&self) -> usize {
        let failed = self.ended.values().filter(|ended| ended.again.is_some());
        failed.count()
    }

    /// Looks a name up because a connection needs it. Returns whether that is worth waiting for:
    /// the name is being looked up, or was not looked up a moment ago.
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

    /// Returns when a name that did not resolve, or could not be looked up, is to be looked up
    /// again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.retry).min()
    }

    /// Queues the names that are due again.
    pub(super) fn queue_due_names(&mut self, now: Instant) {
        for (name, ended) in &mut self.ended {
            if ended.due().is_some_and(|due| due <= now) {
                // It is due once: the end of the look-up sets the next time.
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

    /// Notes how a look-up ended. Returns why it failed, if that is new.
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

    /// Whether there is a host that is known by its name only.
    pub(super) fn have_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether names are still being looked up, or will be when there is room.
    pub(super) fn is_resolving(&self) -> bool {
        self.is_looking() || (self.has_queued() && self.retry.is_none())
    }

    fn is_looking(&self) -> bool {
        self.looking.values().any(|name| self.names.contains(name))
    }

    fn has_queued(&self) -> bool {
        !self.waiting.is_empty() || !self.wanted.is_empty()
    }

    /// Returns the name that is being looked up under this number.
    pub(super) fn looked_up(&self, which: LookUp) -> Option<&HostName> {
        self.looking.get(&which)
    }

    /// Handles the end of a name's look-up.
    pub(super) fn look_up_ended(
        &mut self,
        which: LookUp,
        found: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) -> (Resolution, Unresolved) {
        let Some(name) = self.looking.remove(&which) else {
            return (Resolution::Same, None);
        };
        if !self.names.contains(&name) {
            return (Resolution::Same, None);
        }
        // A temporary failure of a name server removes no host's address.
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
        if !self.is_looking() && !self.has_queued() {
            return (Resolution::All, unresolved);
        }
        if now < self.told + TOLD {
            return (Resolution::Same, unresolved);
        }
        self.told = now;
        (Resolution::Some, unresolved)
    }
}

#[cfg(test)]
mod tests;
