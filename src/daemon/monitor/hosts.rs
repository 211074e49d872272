//! HOSTINFO as the monitor has it: loaded, loaded anew when the file changes,
//! and the names in it resolved by a look-up process.
//!
//! Runs in the monitor. Owns the host table, the addresses of its names, and the queue of
//! names to be looked up. Must never resolve a name itself, or wait for an answer.

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

/// While names are being resolved, those that are known are told this often.
const TOLD: Duration = Duration::from_secs(1);

/// A name that did not resolve is asked for again after this time, then after twice that, and
/// so on up to [`SELDOM`].
const AGAIN: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(300);
/// A name is asked for at most this often because a connection needs it.
const ON_DEMAND: Duration = Duration::from_secs(1);

/// First and longest pause before names are asked for again for which no look-up process was
/// to be had.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
    /// Names that are being looked up. One that has left the table stays until its answer
    /// comes: the process still has the question, and has no more room than that.
    looking: HashMap<LookUp, HostName>,
    /// The table's names that are to be resolved.
    names: HashSet<HostName>,
    /// How often in a row no look-up process was to be had, and when the next try is.
    failures: u32,
    retry: Option<Instant>,
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

    /// Loads the table anew whatever its stamp says.
    pub(super) fn reload(&mut self, paths: &Paths) {
        self.seen = [stamp(&paths.hostinfo()), stamp(&paths.dir)];
        self.table = HostTable::load(paths);
        self.list_names();
    }

    /// Loads the table anew if the file, or its folder, has changed.
    pub(super) fn refresh(&mut self, paths: &Paths) -> Refreshed {
        if [stamp(&paths.hostinfo()), stamp(&paths.dir)] == self.seen {
            return Refreshed::Same;
        }
        self.reload(paths);
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

    /// Lists all names that are to be resolved, but for those that are being looked up.
    fn list_names(&mut self) {
        let names: HashSet<HostName> = self
            .callers()
            .filter(|e| matches!(e.addresses, Addresses::ByName))
            .map(|e| e.name.clone())
            .collect();
        // What was known of those that are still there stays until the new answer comes.
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

    /// Has the names looked up that are still to be, as many at a time as one process takes.
    /// Those that cannot be asked for now stay in the queue.
    ///
    /// # Errors
    /// No process is to be had, and that is new. It is tried again at [`Self::deadline`].
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

    /// The queue whose first name is asked for next, if one more may be asked for now.
    fn next_queue(&mut self) -> Option<&mut VecDeque<HostName>> {
        let slots = HOSTS.saturating_sub(self.looking.len());
        if slots > 0 && !self.wanted.is_empty() {
            return Some(&mut self.wanted);
        }
        (slots > KEPT && !self.waiting.is_empty()).then_some(&mut self.waiting)
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

    /// When a name that did not resolve, or could not be asked for, is to be asked for again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.retry).min()
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
        if !self.names.contains(&name) {
            return (Names::Same, None);
        }
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
        if !self.is_looking() && !self.has_queued() {
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
