//! The table of settings: name, type, bounds, default, unit and meaning of every key of
//! `cosserver.toml`.

use std::time::Duration;

use super::Settings;
use crate::config::address::{Address, Network};
use crate::config::name::{HostName, UserName};
use crate::sys::socket::KEEP_ALIVE_MOST;

/// A table of the settings file.
#[derive(Debug)]
pub struct Table {
    /// Its name; empty for the keys before the first `[table]`.
    pub name: &'static str,
    /// The subject of its keys, in one line.
    pub meaning: &'static str,
}

/// One key of the settings file.
#[derive(Debug)]
pub struct Key {
    /// The table it belongs to; empty for the keys before the first `[table]`.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its default as TOML; an example if it depends on the machine.
    pub default: &'static str,
    /// Describes the default if it depends on the machine.
    pub depends: Option<&'static str>,
    /// Whether it takes effect only at the daemon's start, and not at SIGHUP.
    pub at_start: bool,
    /// Its meaning, in one line.
    pub meaning: &'static str,
    pub(super) slot: Slot,
}

/// The field that a value sets, and its allowed values.
#[derive(Debug)]
pub(super) enum Slot {
    /// Whole seconds, least and most.
    Seconds(fn(&mut Settings) -> &mut Duration, u64, u64),
    /// A number, least and most.
    Count(fn(&mut Settings) -> &mut usize, u64, u64),
    /// A TCP port, 0 to 65535.
    Port(fn(&mut Settings) -> &mut u16),
    /// A host's name.
    Host(fn(&mut Settings) -> &mut HostName),
    /// A user's name.
    User(fn(&mut Settings) -> &mut UserName),
    /// Absolute folders, separated by colons.
    Folders(fn(&mut Settings) -> &mut String),
    /// Yes or no.
    Switch(fn(&mut Settings) -> &mut bool),
    /// At least one address.
    Addresses(fn(&mut Settings) -> &mut Vec<Address>),
    /// Addresses and networks, or none.
    Networks(fn(&mut Settings) -> &mut Vec<Network>),
}

const DAY: u64 = 24 * 60 * 60;
const MANY: u64 = 1_000_000;
/// In MiB: more than all possible sessions can use.
const WINDOWS: u64 = 65_536;

/// The tables of the file, in the order in which they are written.
pub const TABLES: &[Table] = &[
    Table {
        name: "",
        meaning: "Where the daemon listens, and by which name it is known.",
    },
    Table {
        name: "limits",
        meaning: "Limits of time and number for connections that have not authenticated.",
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
        name: "login",
        meaning: "How people log in, with what PAM asks.",
    },
    Table {
        name: "daemon",
        meaning: "The daemon itself.",
    },
];

/// Every key of the settings file, in the order in which they are written.
pub const KEYS: &[Key] = &[
    Key {
        depends: Some("the machine's own name"),
        ..key(
            "",
            "name",
            "\"hostb\"",
            "The name by which this host is known to others; it is on its invitations.",
            Slot::Host(|s| &mut s.name),
        )
    },
    Key {
        depends: Some("every address in /etc/cosserver, loopback in a folder of one's own"),
        at_start: true,
        ..key(
            "",
            "listen",
            "[\"0.0.0.0\", \"::\"]",
            "The addresses to listen on, 63 at most.",
            Slot::Addresses(|s| &mut s.listen),
        )
    },
    Key {
        depends: Some("what /etc/services says for cosserver, else 9002"),
        at_start: true,
        ..key(
            "",
            "port",
            "9002",
            "The TCP port to listen on; 0 lets the system choose.",
            Slot::Port(|s| &mut s.port),
        )
    },
    key(
        "limits",
        "hello",
        "10",
        "From a new connection to its whole hello.",
        Slot::Seconds(|s| &mut s.limits.hello, 1, DAY),
    ),
    key(
        "limits",
        "handshake",
        "20",
        "From the hello to the whole handshake with its request.",
        Slot::Seconds(|s| &mut s.limits.handshake, 1, DAY),
    ),
    key(
        "limits",
        "silent",
        "16384",
        "Connections without a proof, in all.",
        Slot::Count(|s| &mut s.limits.silent, 2, MANY),
    ),
    key(
        "limits",
        "silent-per-source",
        "1024",
        "Connections without a proof from one source; in IPv6 a source is a /64.",
        Slot::Count(|s| &mut s.limits.silent_per_source, 1, MANY),
    ),
    key(
        "limits",
        "reserved",
        "1024",
        "Of the silent connections, how many are kept for addresses that hostinfo lists.",
        Slot::Count(|s| &mut s.limits.reserved, 0, MANY),
    ),
    key(
        "limits",
        "refusals",
        "4096",
        "Refused connections that wait for their answer.",
        Slot::Count(|s| &mut s.limits.refusals, 1, MANY),
    ),
    key(
        "limits",
        "sessions",
        "4096",
        "Commands that run at the same time.",
        Slot::Count(|s| &mut s.limits.sessions, 1, MANY),
    ),
    key(
        "limits",
        "sessions-per-host",
        "0",
        "Of them, those of one host and its users; 0: three quarters, or all where no other host may ask.",
        Slot::Count(|s| &mut s.limits.sessions_per_host, 0, MANY),
    ),
    key(
        "limits",
        "sessions-per-user",
        "0",
        "Of them, those of one user who has logged in, or whom a host vouches for; 0: three quarters.",
        Slot::Count(|s| &mut s.limits.sessions_per_user, 0, MANY),
    ),
    key(
        "limits",
        "windows",
        "64",
        "MiB by which the windows of all sessions together may grow, for input from afar; 0: none grows.",
        Slot::Count(|s| &mut s.limits.windows, 0, WINDOWS),
    ),
    key(
        "penalties",
        "authfail",
        "5",
        "After a wrong proof.",
        Slot::Seconds(|s| &mut s.penalties.authfail, 0, DAY),
    ),
    key(
        "penalties",
        "noauth",
        "1",
        "After a connection that ended, or broke the protocol, without a proof.",
        Slot::Seconds(|s| &mut s.penalties.noauth, 0, DAY),
    ),
    key(
        "penalties",
        "grace-exceeded",
        "10",
        "After a connection that let a deadline pass.",
        Slot::Seconds(|s| &mut s.penalties.grace_exceeded, 0, DAY),
    ),
    key(
        "penalties",
        "max",
        "600",
        "The most that a source can collect.",
        Slot::Seconds(|s| &mut s.penalties.max, 0, DAY),
    ),
    key(
        "penalties",
        "min",
        "15",
        "What a source must have collected before it counts.",
        Slot::Seconds(|s| &mut s.penalties.min, 0, DAY),
    ),
    key(
        "penalties",
        "sources",
        "65536",
        "How many sources are remembered, for IPv4 and for IPv6 each.",
        Slot::Count(|s| &mut s.penalties.sources, 1, MANY),
    ),
    key(
        "penalties",
        "exempt",
        "[]",
        "Addresses and networks that are never penalised.",
        Slot::Networks(|s| &mut s.penalties.exempt),
    ),
    key(
        "exec",
        "path",
        "\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"",
        "PATH of the commands.",
        Slot::Folders(|s| &mut s.exec.path),
    ),
    key(
        "exec",
        "linger",
        "2",
        "How long the outputs of a command that has ended may stay quiet while a child of it holds them open.",
        Slot::Seconds(|s| &mut s.exec.linger, 0, DAY),
    ),
    key(
        "exec",
        "hup-to-kill",
        "5",
        "From SIGHUP to SIGKILL when the client is gone.",
        Slot::Seconds(|s| &mut s.exec.hup_to_kill, 0, DAY),
    ),
    key(
        "exec",
        "ssh-client",
        "true",
        "Whether shells find SSH_CLIENT, so that bash reads ~/.bashrc as under sshd and rshd.",
        Slot::Switch(|s| &mut s.exec.ssh_client),
    ),
    key(
        "login",
        "time",
        "120",
        "From the request to the last answer.",
        Slot::Seconds(|s| &mut s.login.time, 1, 600),
    ),
    key(
        "login",
        "check",
        "30",
        "What PAM may take between two questions; a module that takes longer is taken for hung.",
        Slot::Seconds(|s| &mut s.login.check, 1, 100),
    ),
    key(
        "login",
        "checks",
        "4",
        "Logins that PAM checks at the same time; the others wait for a slot.",
        Slot::Count(|s| &mut s.login.checks, 1, 256),
    ),
    key(
        "login",
        "waiting",
        "64",
        "Logins in progress, in all, those that wait for an answer among them.",
        Slot::Count(|s| &mut s.login.waiting, 1, 4096),
    ),
    key(
        "daemon",
        "grace",
        "30",
        "How long running commands may go on after SIGTERM.",
        Slot::Seconds(|s| &mut s.daemon.grace, 0, DAY),
    ),
    key(
        "daemon",
        "keep-alive",
        "60",
        "A peer that has become unreachable is noticed within twice this time.",
        Slot::Seconds(|s| &mut s.daemon.keep_alive, 1, KEEP_ALIVE_MOST),
    ),
    key(
        "daemon",
        "refusal-interval",
        "2",
        "Refusals are answered at a multiple of this after the request, whatever their cause.",
        Slot::Seconds(|s| &mut s.daemon.refusal_interval, 1, 60),
    ),
    Key {
        at_start: true,
        ..key(
            "daemon",
            "user",
            "\"_cosserver\"",
            "The account of the processes that speak with the network, when started by root.",
            Slot::User(|s| &mut s.daemon.user),
        )
    },
];

const fn key(
    table: &'static str,
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
    slot: Slot,
) -> Key {
    Key {
        table,
        name,
        default,
        depends: None,
        at_start: false,
        meaning,
        slot,
    }
}

impl Key {
    /// Returns the unit of its value; empty if it has none.
    pub const fn unit(&self) -> &'static str {
        if matches!(self.slot, Slot::Seconds(..)) {
            "seconds"
        } else {
            ""
        }
    }

    /// Returns its allowed values, in words.
    pub fn bounds(&self) -> String {
        match self.slot {
            Slot::Seconds(_, least, most) => format!("whole seconds from {least} to {most}"),
            Slot::Count(_, least, most) => format!("a whole number from {least} to {most}"),
            Slot::Port(_) => "a port from 0 to 65535".into(),
            Slot::Host(_) => "a host name in quotes".into(),
            Slot::User(_) => "a user name in quotes".into(),
            Slot::Folders(_) => "absolute folders with colons between them, in quotes".into(),
            Slot::Switch(_) => "true or false".into(),
            Slot::Addresses(_) => {
                "addresses in quotes, in brackets: [\"192.0.2.1\", \"::1\"]".into()
            }
            Slot::Networks(_) => {
                "addresses or networks in quotes, in brackets: [\"10.0.0.0/8\"]".into()
            }
        }
    }
}
