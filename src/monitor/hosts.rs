//! HOSTINFO as the monitor has it: loaded, loaded anew when the file changes,
//! and the names in it resolved by a child of its own.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::config::address::Network;
use crate::config::hostinfo::{Addresses, Entry, HostTable};
use crate::config::name::HostName;
use crate::config::place::Place;
use crate::fault::Fault;
use crate::sys::account::{self, Helper};

/// How long the look-up of all names may take.
const RESOLVING: Duration = Duration::from_secs(60);
/// Look-ups at the same time, in the child.
const AT_ONCE: usize = 16;

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
    helper: Option<(Helper, Vec<u8>, Instant)>,
}

/// What [`Hosts::refresh`] found.
pub(super) enum Refreshed {
    /// Nothing has changed.
    Same,
    /// The table is another one now.
    New,
}

/// What [`Hosts::hear_helper`] heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Nothing yet.
    Same,
    /// The names have their addresses, as far as they resolve.
    New,
    /// The helper did not come to its end: what was known stays.
    Lost,
}

impl Hosts {
    /// Loads the table. A table that cannot be read denies everybody.
    pub(super) fn load(place: &Place) -> Self {
        let mut hosts = Self {
            table: Err(Fault::new("hostinfo was not read yet")),
            seen: [None, None],
            resolved: HashMap::new(),
            helper: None,
        };
        // There is no helper yet, so none is left to be reaped.
        hosts.reload(place, &mut Vec::new());
        hosts
    }

    /// Loads the table anew whatever its stamp says, and has its names resolved.
    /// A helper that is still to be reaped joins `corpses`.
    pub(super) fn reload(&mut self, place: &Place, corpses: &mut Vec<Pid>) {
        self.seen = [stamp(&place.hostinfo()), stamp(&place.dir)];
        self.table = HostTable::load(place);
        self.resolve(corpses);
    }

    /// Loads the table anew if the file, or its folder, has changed.
    pub(super) fn refresh(&mut self, place: &Place, corpses: &mut Vec<Pid>) -> Refreshed {
        if [stamp(&place.hostinfo()), stamp(&place.dir)] == self.seen {
            return Refreshed::Same;
        }
        self.reload(place, corpses);
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

    /// Starts resolving the names that have no addresses listed.
    fn resolve(&mut self, corpses: &mut Vec<Pid>) {
        self.stop_helper(corpses);
        let names: Vec<HostName> = self
            .callers()
            .filter(|e| matches!(e.addresses, Addresses::ByName))
            .map(|e| e.name.clone())
            .collect();
        // What was known of those that are still there stays until the new answer comes.
        let mut known = std::mem::take(&mut self.resolved);
        let still = |n: &HostName| Some((n.clone(), known.remove(n)?));
        self.resolved = names.iter().filter_map(still).collect();
        if names.is_empty() {
            return;
        }
        if let Ok(helper) = account::in_child(|| look_up_all(&names)) {
            self.helper = Some((helper, Vec::new(), Instant::now() + RESOLVING));
        }
    }

    /// The descriptor on which the names' addresses come.
    pub(super) fn helper(&self) -> Option<&Helper> {
        self.helper.as_ref().map(|(h, ..)| h)
    }

    /// When the helper must be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.helper.as_ref().map(|(.., until)| *until)
    }

    /// Reads on what the helper says.
    pub(super) fn hear_helper(&mut self, now: Instant, corpses: &mut Vec<Pid>) -> Names {
        let Some((helper, answer, until)) = &mut self.helper else {
            return Names::Same;
        };
        let found = match account::read_answer(&helper.answer, answer) {
            Ok(false) if now < *until => return Names::Same,
            Ok(true) => parse(answer),
            Ok(false) | Err(_) => None,
        };
        self.stop_helper(corpses);
        match found {
            Some(found) => {
                // A name server that is away for once takes no host's address away.
                self.resolved.extend(found);
                Names::New
            }
            None => Names::Lost,
        }
    }

    fn stop_helper(&mut self, corpses: &mut Vec<Pid>) {
        if let Some((helper, ..)) = self.helper.take() {
            corpses.extend(helper.end());
        }
    }
}

/// The last line of a whole answer: no host has that name.
const END: &[u8] = b".\n";

/// In the child: a line for each name that resolves, `name address address…`, as they
/// come, and [`END`].
fn look_up_all(names: &[HostName]) -> Vec<u8> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let lines = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(names.len()) {
            scope.spawn(|| {
                while let Some(name) =
                    names.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let Ok(found) = (name.as_str(), 0).to_socket_addrs() else {
                        continue;
                    };
                    let mut line = name.to_string();
                    for a in found {
                        line = format!("{line} {}", a.ip().to_canonical());
                    }
                    if let Ok(mut lines) = lines.lock() {
                        lines.extend_from_slice(format!("{line}\n").as_bytes());
                    }
                }
            });
        }
    });
    let mut lines = lines.into_inner().unwrap_or_default();
    lines.extend_from_slice(END);
    lines
}

/// `None`: the answer has no end, because its child had another one than its own.
fn parse(answer: &[u8]) -> Option<HashMap<HostName, Vec<IpAddr>>> {
    let lines = answer.strip_suffix(END)?;
    let text = String::from_utf8_lossy(lines);
    let parse_line = |line: &str| {
        let (name, addresses) = line.split_once(' ')?;
        let addresses = addresses
            .split(' ')
            .filter_map(|a| a.parse().ok())
            .collect();
        Some((HostName::parse(name).ok()?, addresses))
    };
    Some(text.lines().filter_map(parse_line).collect())
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

    /// A table, what was known of its names, and what a child says of them.
    fn heard(table: &str, answer: &'static [u8]) -> (Hosts, Names) {
        let scratch = Scratch::new();
        scratch.file("hostinfo", table, 0o600);
        let mut hosts = Hosts {
            table: HostTable::load(&scratch.place()),
            seen: [None, None],
            resolved: HashMap::from([
                (name("one"), vec![ip("192.0.2.1")]),
                (name("two"), vec![ip("192.0.2.2")]),
            ]),
            helper: None,
        };
        let now = Instant::now();
        let helper = account::in_child(|| answer.to_vec()).unwrap();
        hosts.helper = Some((helper, Vec::new(), now + RESOLVING));
        let mut corpses = Vec::new();
        let names = loop {
            let names = hosts.hear_helper(now, &mut corpses);
            if names != Names::Same {
                break names;
            }
            std::thread::yield_now();
        };
        for pid in corpses {
            let _ = nix::sys::wait::waitpid(pid, None);
        }
        (hosts, names)
    }

    const TABLE: &str = "one cos run-as=root\ntwo cos run-as=root\n";

    /// The child was killed, or its pipe was cut: that some names are in what it said
    /// does not mean that the others have no address.
    #[test]
    fn an_answer_without_its_end_changes_nothing() {
        for answer in [&b""[..], b"one 192.0.2.9\n", b"one 192.0.2.9\ntwo 19"] {
            let (hosts, names) = heard(TABLE, answer);
            assert_eq!(names, Names::Lost);
            assert_eq!(
                hosts.addresses_of(&name("one")),
                Some(vec![ip("192.0.2.1")])
            );
            assert_eq!(
                hosts.addresses_of(&name("two")),
                Some(vec![ip("192.0.2.2")])
            );
        }
        assert_eq!(parse(&look_up_all(&[])), Some(HashMap::new()));
    }

    #[test]
    fn a_name_that_does_not_resolve_for_once_keeps_its_addresses() {
        let (mut hosts, names) = heard(TABLE, b"one 192.0.2.9 192.0.2.10\n.\n");
        assert_eq!(names, Names::New);
        let new = [ip("192.0.2.9"), ip("192.0.2.10")];
        assert_eq!(hosts.addresses_of(&name("one")), Some(new.to_vec()));
        assert_eq!(
            hosts.addresses_of(&name("two")),
            Some(vec![ip("192.0.2.2")])
        );
        // One that is no longer in the table has none.
        hosts.table = Ok(HostTable::parse(b"", Path::new("hostinfo")));
        hosts.resolve(&mut Vec::new());
        assert_eq!(hosts.addresses_of(&name("two")), None);
    }

    /// No slot is reserved, and no penalty softened, for a host that may ask nothing.
    #[test]
    fn a_line_without_run_as_reserves_nothing() {
        let table = "one cos run-as=root\ntwo cos\nthree cos addr=192.0.2.0/28\n\
                     four cos addr=198.51.100.0/24 run-as=root\n";
        let (hosts, _) = heard(table, b".\n");
        let reserved = hosts.networks();
        assert_eq!(reserved, [(ip("192.0.2.1"), 32), (ip("198.51.100.0"), 24)]);
    }
}
