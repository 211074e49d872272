//! The one table of settings: name, type, bounds, default, unit and meaning
//! of every key of `cosserver.toml`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::Settings;
use crate::config::address::Network;
use crate::config::name::{HostName, UserName};

/// A table of the settings file.
#[derive(Debug)]
pub struct Table {
    /// Its name; empty for the keys before the first `[table]`.
    pub name: &'static str,
    /// What its keys are about, in a line.
    pub meaning: &'static str,
}

/// One key of the settings file.
#[derive(Debug)]
pub struct Key {
    /// The table it belongs to; empty for the keys before the first `[table]`.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its default as TOML; where it depends on the machine, an example.
    pub default: &'static str,
    /// In which words the default is told when it depends on the machine.
    pub depends: Option<&'static str>,
    /// The unit of its value; empty where it has none.
    pub unit: &'static str,
    /// What it means, in a line.
    pub meaning: &'static str,
    pub(super) slot: Slot,
}

/// Where a value goes and what it may be.
#[derive(Debug)]
pub(super) enum Slot {
    /// Whole seconds, from and to.
    Seconds(fn(&mut Settings) -> &mut Duration, u64, u64),
    /// A number, from and to.
    Count(fn(&mut Settings) -> &mut usize, u64, u64),
    /// A TCP port, 0 to 65535.
    Port(fn(&mut Settings) -> &mut u16),
    /// A host's name.
    Host(fn(&mut Settings) -> &mut HostName),
    /// A user's name.
    User(fn(&mut Settings) -> &mut UserName),
    /// Absolute folders with colons between them.
    Folders(fn(&mut Settings) -> &mut String),
    /// At least one address.
    Addresses(fn(&mut Settings) -> &mut Vec<IpAddr>),
    /// Addresses and networks, or none.
    Networks(fn(&mut Settings) -> &mut Vec<Network>),
}

const DAY: u64 = 24 * 60 * 60;
const MANY: u64 = 1_000_000;

/// The tables of the file, in the order in which they are written.
pub const TABLES: &[Table] = &[
    Table {
        name: "",
        meaning: "Where the daemon listens, and by which name it is known.",
    },
    Table {
        name: "limits",
        meaning: "How long strangers may take, and how many there may be.",
    },
    Table {
        name: "penalties",
        meaning: "For how long a source is kept small after a failure, like PerSourcePenalties of OpenSSH.",
    },
    Table {
        name: "exec",
        meaning: "How commands run.",
    },
    Table {
        name: "daemon",
        meaning: "The daemon itself.",
    },
];

/// Every key of the settings file, in the order in which they are written.
pub const KEYS: &[Key] = &[
    Key {
        table: "",
        name: "name",
        default: "\"hostb\"",
        depends: Some("the machine's own name"),
        unit: "",
        meaning: "The name by which this host is known to others; it stands on its invitations.",
        slot: Slot::Host(|s| &mut s.name),
    },
    Key {
        table: "",
        name: "listen",
        default: "[\"0.0.0.0\", \"::\"]",
        depends: Some("every address in /etc/cosserver, loopback in a folder of one's own"),
        unit: "",
        meaning: "The addresses to listen on.",
        slot: Slot::Addresses(|s| &mut s.listen),
    },
    Key {
        table: "",
        name: "port",
        default: "9002",
        depends: Some("what /etc/services says for cosserver, else 9002"),
        unit: "",
        meaning: "The TCP port to listen on; 0 lets the system choose.",
        slot: Slot::Port(|s| &mut s.port),
    },
    seconds(
        "limits",
        "hello",
        "10",
        (1, DAY),
        "From a new connection to its whole hello.",
        |s| &mut s.limits.hello,
    ),
    seconds(
        "limits",
        "handshake",
        "20",
        (1, DAY),
        "From the hello to the whole handshake with its request.",
        |s| &mut s.limits.handshake,
    ),
    count(
        "limits",
        "silent",
        "16384",
        (2, MANY),
        "Connections without a proof, in all.",
        |s| &mut s.limits.silent,
    ),
    count(
        "limits",
        "silent-per-source",
        "1024",
        (1, MANY),
        "Connections without a proof from one source; in IPv6 a source is a /64.",
        |s| &mut s.limits.silent_per_source,
    ),
    count(
        "limits",
        "reserved",
        "1024",
        (0, MANY),
        "Of the silent connections, how many are kept for addresses that hostinfo lists.",
        |s| &mut s.limits.reserved,
    ),
    count(
        "limits",
        "refusals",
        "4096",
        (1, MANY),
        "Refused connections that wait for their answer.",
        |s| &mut s.limits.refusals,
    ),
    count(
        "limits",
        "sessions",
        "4096",
        (1, MANY),
        "Commands that run at the same time.",
        |s| &mut s.limits.sessions,
    ),
    seconds(
        "penalties",
        "authfail",
        "5",
        (0, DAY),
        "After a wrong proof.",
        |s| &mut s.penalties.authfail,
    ),
    seconds(
        "penalties",
        "noauth",
        "1",
        (0, DAY),
        "After a connection that ended, or broke the protocol, without a proof.",
        |s| &mut s.penalties.noauth,
    ),
    seconds(
        "penalties",
        "grace-exceeded",
        "10",
        (0, DAY),
        "After a connection that let a deadline pass.",
        |s| &mut s.penalties.grace_exceeded,
    ),
    seconds(
        "penalties",
        "max",
        "600",
        (0, DAY),
        "The most that a source can collect.",
        |s| &mut s.penalties.max,
    ),
    seconds(
        "penalties",
        "min",
        "15",
        (0, DAY),
        "What a source must have collected before it counts.",
        |s| &mut s.penalties.min,
    ),
    count(
        "penalties",
        "sources",
        "65536",
        (1, MANY),
        "How many sources are remembered, for IPv4 and for IPv6 each.",
        |s| &mut s.penalties.sources,
    ),
    Key {
        table: "penalties",
        name: "exempt",
        default: "[]",
        depends: None,
        unit: "",
        meaning: "Addresses and networks that are never penalised.",
        slot: Slot::Networks(|s| &mut s.penalties.exempt),
    },
    Key {
        table: "exec",
        name: "path",
        default: "\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"",
        depends: None,
        unit: "",
        meaning: "PATH of the commands.",
        slot: Slot::Folders(|s| &mut s.exec.path),
    },
    seconds(
        "exec",
        "linger",
        "2",
        (0, DAY),
        "How long the outputs of a command that has ended may stay quiet while a child of it holds them open.",
        |s| &mut s.exec.linger,
    ),
    seconds(
        "exec",
        "hup-to-kill",
        "5",
        (0, DAY),
        "From SIGHUP to SIGKILL when the client is gone.",
        |s| &mut s.exec.hup_to_kill,
    ),
    seconds(
        "daemon",
        "grace",
        "30",
        (0, DAY),
        "How long running commands may go on after SIGTERM.",
        |s| &mut s.daemon.grace,
    ),
    seconds(
        "daemon",
        "keep-alive",
        "60",
        (1, DAY),
        "How often a peer that says nothing is asked whether it is there.",
        |s| &mut s.daemon.keep_alive,
    ),
    seconds(
        "daemon",
        "refusal-interval",
        "2",
        (1, 60),
        "Refusals are answered at a multiple of this after the request, whatever their cause.",
        |s| &mut s.daemon.refusal_interval,
    ),
    Key {
        table: "daemon",
        name: "user",
        default: "\"_cosserver\"",
        depends: None,
        unit: "",
        meaning: "The account of the processes that speak with the network, when started by root.",
        slot: Slot::User(|s| &mut s.daemon.user),
    },
];

const fn seconds(
    table: &'static str,
    name: &'static str,
    default: &'static str,
    range: (u64, u64),
    meaning: &'static str,
    at: fn(&mut Settings) -> &mut Duration,
) -> Key {
    Key {
        table,
        name,
        default,
        depends: None,
        unit: "seconds",
        meaning,
        slot: Slot::Seconds(at, range.0, range.1),
    }
}

const fn count(
    table: &'static str,
    name: &'static str,
    default: &'static str,
    range: (u64, u64),
    meaning: &'static str,
    at: fn(&mut Settings) -> &mut usize,
) -> Key {
    Key {
        table,
        name,
        default,
        depends: None,
        unit: "",
        meaning,
        slot: Slot::Count(at, range.0, range.1),
    }
}

impl Key {
    /// The value in force, as TOML.
    pub fn value(&self, settings: &Settings) -> String {
        let mut copy = settings.clone();
        let s = &mut copy;
        match self.slot {
            Slot::Seconds(at, ..) => at(s).as_secs().to_string(),
            Slot::Count(at, ..) => at(s).to_string(),
            Slot::Port(at) => at(s).to_string(),
            Slot::Host(at) => string(at(s).as_str()),
            Slot::User(at) => string(at(s).as_str()),
            Slot::Folders(at) => string(at(s)),
            Slot::Addresses(at) => array(at(s).iter().map(ToString::to_string)),
            Slot::Networks(at) => array(at(s).iter().map(ToString::to_string)),
        }
    }

    /// What it may be, in words.
    pub fn bounds(&self) -> String {
        match self.slot {
            Slot::Seconds(_, least, most) => format!("whole seconds from {least} to {most}"),
            Slot::Count(_, least, most) => format!("a whole number from {least} to {most}"),
            Slot::Port(_) => "a port from 0 to 65535".into(),
            Slot::Host(_) => "a host name in quotes".into(),
            Slot::User(_) => "a user name in quotes".into(),
            Slot::Folders(_) => "absolute folders with colons between them, in quotes".into(),
            Slot::Addresses(_) => {
                "addresses in quotes, in brackets: [\"192.0.2.1\", \"::1\"]".into()
            }
            Slot::Networks(_) => {
                "addresses or networks in quotes, in brackets: [\"10.0.0.0/8\"]".into()
            }
        }
    }
}

/// The defaults that do not depend on the machine, as a settings file.
pub(super) fn defaults() -> String {
    let mut out = String::new();
    for table in TABLES {
        if !table.name.is_empty() {
            let _ = writeln!(out, "[{}]", table.name);
        }
        for key in KEYS
            .iter()
            .filter(|key| key.table == table.name && key.depends.is_none())
        {
            let _ = writeln!(out, "{} = {}", key.name, key.default);
        }
    }
    out
}

pub(super) fn template() -> String {
    let mut out = String::from(
        "# Settings of cosserver(8). Every key stands here with its default; take the # away to\n\
         # change one. `cosserver -t` checks this file, `cosserver -T` prints what is in force.\n",
    );
    for table in TABLES {
        let _ = write!(out, "\n# {}\n", table.meaning);
        if !table.name.is_empty() {
            let _ = writeln!(out, "[{}]", table.name);
        }
        for key in KEYS.iter().filter(|key| key.table == table.name) {
            let unit = if key.unit.is_empty() {
                String::new()
            } else {
                format!(" In {}.", key.unit)
            };
            let depends = key
                .depends
                .map(|words| format!(" Default: {words}."))
                .unwrap_or_default();
            let _ = writeln!(
                out,
                "# {}{unit}{depends}\n#{} = {}",
                key.meaning, key.name, key.default
            );
        }
    }
    out
}

/// A TOML basic string.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!(
        "[{}]",
        items
            .map(|item| string(&item))
            .collect::<Vec<_>>()
            .join(", ")
    )
}
