//! HOSTINFO as the monitor has it: loaded, loaded anew when the file changes,
//! and the names in it resolved by a child of its own.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::hostinfo::{Addresses, HostTable};
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

impl Hosts {
    /// Loads the table. A table that cannot be read denies everybody.
    pub(super) fn load(place: &Place) -> Self {
        let mut hosts = Self {
            table: Err(Fault::new("hostinfo was not read yet")),
            seen: [None, None],
            resolved: HashMap::new(),
            helper: None,
        };
        hosts.reload(place);
        hosts
    }

    /// Loads the table anew whatever its stamp says, and has its names resolved.
    pub(super) fn reload(&mut self, place: &Place) {
        self.seen = [stamp(&place.hostinfo()), stamp(&place.dir)];
        self.table = HostTable::load(place);
        self.resolve();
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

    /// Every address and network that may call, with its prefix length.
    pub(super) fn networks(&self) -> Vec<(IpAddr, u8)> {
        let mut all = Vec::new();
        for entry in self.table.iter().flat_map(HostTable::entries) {
            if let Addresses::Listed(networks) = &entry.addresses {
                all.extend(networks.iter().map(crate::config::address::Network::parts));
            }
        }
        let one = |a: &IpAddr| (*a, if a.is_ipv4() { 32 } else { 128 });
        all.extend(self.resolved.values().flatten().map(one));
        all
    }

    /// Starts resolving the names that have no addresses listed.
    fn resolve(&mut self) {
        self.stop_helper();
        let names: Vec<HostName> = self
            .table
            .iter()
            .flat_map(HostTable::entries)
            .filter(|e| matches!(e.addresses, Addresses::ByName) && !e.run_as.is_empty())
            .map(|e| e.name.clone())
            .collect();
        if names.is_empty() {
            self.resolved.clear();
            return;
        }
        // What was known stays until the new answer is there.
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

    /// Reads on what the helper says. `true`: the addresses are new.
    pub(super) fn hear_helper(&mut self, now: Instant) -> bool {
        let Some((helper, answer, until)) = &mut self.helper else {
            return false;
        };
        let whole = account::read_answer(&helper.answer, answer);
        match whole {
            Ok(false) if now < *until => false,
            Ok(true) => {
                self.resolved = parse(answer);
                self.stop_helper();
                true
            }
            Ok(false) | Err(_) => {
                self.stop_helper();
                false
            }
        }
    }

    fn stop_helper(&mut self) {
        if let Some((helper, ..)) = self.helper.take() {
            helper.end();
        }
    }
}

/// In the child: a line for each name, `name address address…`, as they come.
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
    lines.into_inner().unwrap_or_default()
}

fn parse(answer: &[u8]) -> HashMap<HostName, Vec<IpAddr>> {
    let text = String::from_utf8_lossy(answer);
    let parse_line = |line: &str| {
        let (name, addresses) = line.split_once(' ')?;
        let addresses = addresses
            .split(' ')
            .filter_map(|a| a.parse().ok())
            .collect();
        Some((HostName::parse(name).ok()?, addresses))
    };
    text.lines().filter_map(parse_line).collect()
}
