//! One parsed line of the host table. Pure.

use std::fmt;
use std::net::IpAddr;

use super::line;
use super::users::Users;
use super::variables::variable;
use super::{about, unknown};
use crate::config::address::{Address, Network};
use crate::config::command::CommandPattern;
use crate::config::linger::Linger;
use crate::config::name::{HostName, UserName};
use crate::config::subsystems::check_name;
use crate::config::words::{self, did_you_mean, quoted};
use crate::fault::Fault;
use crate::secret::PublicKey;

/// One host of the table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in this table.
    pub name: HostName,
    /// The number of its line; 1 is the first.
    pub line: usize,
    /// How this host reaches it.
    pub method: Method,
    /// The addresses that it may connect from, and at which it is dialed (`addr=`).
    pub addresses: Addresses,
    /// The users that its commands may run as here (`run-as=`); if empty, it may request nothing.
    pub run_as: Vec<UserName>,
    /// The local users that its users may run as, if its signer vouches for them (`users=`).
    pub users: Users,
    /// The commands it may run here (`commands=`); `None`: any.
    pub commands: Option<Vec<CommandPattern>>,
    /// The subsystems it may ask for (`subsystems=`); `None`: any if it may run any command, else
    /// none.
    pub subsystems: Option<Vec<String>>,
    /// The only machine key it may have (`machine-key=`).
    pub machine_key: Option<PublicKey>,
    /// Variables it may pass in addition to `LANG`, `LC_*` and `GIT_PROTOCOL` (`accept-env=`).
    pub accept_env: Vec<String>,
    /// The TCP port at which it is dialed (`port=`).
    pub port: Option<u16>,
    /// The name by which it knows this host (`as=`).
    pub as_name: Option<HostName>,
    /// Its own name for itself, if different (`server=`).
    pub server: Option<HostName>,
    /// The remote user, if the caller names none (`user=`).
    pub user: Option<UserName>,
    /// The most sessions that it and its users may have here at the same time (`sessions=`).
    pub sessions: Option<usize>,
    /// The quiet time after the end of what it starts here, if its request has none (`linger=`).
    pub linger: Option<Linger>,
}

impl Entry {
    /// Returns the entry of a host of which only the name is known.
    pub const fn named(name: HostName) -> Self {
        Self {
            name,
            line: 0,
            method: Method::Cos,
            addresses: Addresses::ByName,
            run_as: Vec::new(),
            users: Users::SameName,
            commands: None,
            subsystems: None,
            machine_key: None,
            accept_env: Vec::new(),
            port: None,
            as_name: None,
            server: None,
            user: None,
            sessions: None,
            linger: None,
        }
    }
}

/// How this host reaches another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// By this program.
    Cos,
    /// By `ssh`.
    Ssh,
    /// By `rsh`.
    Rsh,
}

impl Method {
    const ALL: [Self; 3] = [Self::Cos, Self::Ssh, Self::Rsh];

    /// Returns the method as it is written in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cos => "cos",
            Self::Ssh => "ssh",
            Self::Rsh => "rsh",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The addresses of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// The addresses that `addr=` lists, in that order.
    Listed(Vec<Network>),
    /// The addresses that its name resolves to.
    ByName,
}

impl Addresses {
    /// Returns whether a listed address or network contains the peer's; `None` if the name must be
    /// resolved to know.
    pub fn contains(&self, peer: IpAddr) -> Option<bool> {
        match self {
            Self::Listed(networks) => Some(networks.iter().any(|n| n.contains(peer))),
            Self::ByName => None,
        }
    }

    /// Returns the listed plain addresses at which the host is dialed, in order. If empty, its name
    /// is resolved.
    pub fn plain(&self) -> Vec<Address> {
        match self {
            Self::Listed(networks) => networks.iter().filter_map(Network::single).collect(),
            Self::ByName => Vec::new(),
        }
    }
}

/// An option of a line.
#[derive(Debug)]
pub struct OptionName {
    /// Its name, before the `=`.
    pub name: &'static str,
    /// The form of its value.
    pub value: &'static str,
    /// Its meaning, in one line.
    pub meaning: &'static str,
    /// Whether it may occur on a line more than once.
    pub repeats: bool,
    set: fn(&mut Entry, &str) -> Result<(), Fault>,
}

/// Every option that a line may have.
pub const OPTIONS: &[OptionName] = &[
    OptionName {
        name: "addr",
        value: "192.0.2.1,10.0.0.0/8,…",
        meaning: "from where the host may ask; the plain addresses, in order, are where it is dialled",
        repeats: false,
        set: |e, v| {
            let networks = list(v, Network::parse)?;
            e.addresses = Addresses::Listed(networks);
            Ok(())
        },
    },
    OptionName {
        name: "port",
        value: "9002",
        meaning: "the TCP port at which it is dialled",
        repeats: false,
        set: |e, v| {
            let wrong = || Fault::new(format!("{} is no port from 1 to 65535", quoted(v)));
            e.port = Some(words::port(v).ok_or_else(wrong)?.get());
            Ok(())
        },
    },
    OptionName {
        name: "as",
        value: "NAME",
        meaning: "the name by which that host knows this one",
        repeats: false,
        set: |e, v| {
            e.as_name = Some(HostName::parse(v)?);
            Ok(())
        },
    },
    OptionName {
        name: "server",
        value: "NAME",
        meaning: "the name that the host has for itself, where it is another",
        repeats: false,
        set: |e, v| {
            e.server = Some(HostName::parse(v)?);
            Ok(())
        },
    },
    OptionName {
        name: "user",
        value: "USER",
        meaning: "the user to be there, where the caller names none",
        repeats: false,
        set: |e, v| {
            e.user = Some(UserName::parse(v)?);
            Ok(())
        },
    },
    OptionName {
        name: "run-as",
        value: "USER,…",
        meaning: "the users its commands may run as here; without it, it may ask nothing",
        repeats: false,
        set: |e, v| {
            e.run_as = list(v, UserName::parse)?;
            Ok(())
        },
    },
    OptionName {
        name: "users",
        value: "USER,THERE:HERE,…",
        meaning: "which of its users get which account here; without it, each the one of the same name and never root; -: none",
        repeats: false,
        set: |e, v| {
            e.users = Users::parse(v)?;
            Ok(())
        },
    },
    OptionName {
        name: "commands",
        value: "\"/path argument…\"",
        meaning: "a command it may run here: a path and a pattern for each argument; without it, any",
        repeats: true,
        set: |e, v| {
            e.commands
                .get_or_insert_default()
                .push(CommandPattern::parse(v)?);
            Ok(())
        },
    },
    OptionName {
        name: "subsystems",
        value: "NAME,…",
        meaning: "the subsystems it may ask for; without it, any where it has no commands=, else none; -: none",
        repeats: false,
        set: |e, v| {
            let names = match v {
                "-" => Vec::new(),
                _ => list(v, |name| check_name(name).map(|()| name.to_owned()))?,
            };
            e.subsystems = Some(names);
            Ok(())
        },
    },
    OptionName {
        name: "machine-key",
        value: "HEX64",
        meaning: "the only machine key that the host may have",
        repeats: false,
        set: |e, v| {
            let key = PublicKey::from_hex(v).ok_or_else(|| {
                Fault::new(format!(
                    "a key is 64 hexadecimal digits, and this has {} characters",
                    v.chars().count()
                ))
            });
            e.machine_key = Some(key?);
            Ok(())
        },
    },
    OptionName {
        name: "accept-env",
        value: "NAME,…",
        meaning: "variables it may pass, beside LANG, LC_* and GIT_PROTOCOL",
        repeats: false,
        set: |e, v| {
            e.accept_env = list(v, variable)?;
            Ok(())
        },
    },
    OptionName {
        name: "sessions",
        value: "64",
        meaning: "how many sessions it and its users may have here at the same time",
        repeats: false,
        set: |e, v| {
            let wrong = || Fault::new(format!("{} is no number from 1 to 1000000", quoted(v)));
            let number = v
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| v.parse().ok());
            let number = number.flatten().filter(|n| (1..=1_000_000).contains(n));
            e.sessions = Some(number.ok_or_else(wrong)?);
            Ok(())
        },
    },
    OptionName {
        name: "linger",
        value: "SECONDS",
        meaning: "how long output must be quiet after a command's end while another process holds it; none: until it is closed",
        repeats: false,
        set: |e, v| {
            e.linger = Some(Linger::parse(v)?);
            Ok(())
        },
    },
];

impl Entry {
    /// Parses a line without its line end; `None` for a blank one or a comment. `number` becomes
    /// [`Entry::line`].
    ///
    /// # Errors
    /// Returns what is wrong with the line, without file and number.
    pub fn parse(line: &[u8], number: usize) -> Result<Option<Self>, Fault> {
        let words = line::words(line)?;
        let mut words = words.iter().map(|word| word.text.as_str());
        let Some(name) = words.next() else {
            return Ok(None);
        };
        if let Some(option) = OPTIONS
            .iter()
            .find(|o| name.split_once('=').is_some_and(|(key, _)| key == o.name))
        {
            return Err(Fault::new(format!(
                "a line begins with a host's name, not with {}=",
                option.name
            )));
        }
        let name = HostName::parse(name)?;
        let Some(method) = words.next() else {
            return Err(Fault::new("after the name comes a method: cos, ssh or rsh"));
        };
        let Some(method) = Method::ALL.into_iter().find(|m| m.as_str() == method) else {
            let hint = did_you_mean(method, Method::ALL.iter().map(|m| m.as_str()));
            let known = if hint.is_empty() {
                "; the methods are cos, ssh and rsh"
            } else {
                &hint
            };
            return Err(unknown("method", method, known));
        };
        let mut entry = Self {
            line: number,
            method,
            ..Self::named(name)
        };
        let mut seen: Vec<&str> = Vec::new();
        for word in words {
            let names = || OPTIONS.iter().map(|o| o.name);
            let Some((key, value)) = word.split_once('=') else {
                let hint = if names().any(|name| name == word) {
                    format!("; write {word}=…")
                } else {
                    did_you_mean(word, names())
                };
                return Err(Fault::new(format!(
                    "options are written key=value, and {} has no ={hint}",
                    quoted(word)
                )));
            };
            let Some(option) = OPTIONS.iter().find(|o| o.name == key) else {
                return Err(unknown("option", key, &did_you_mean(key, names())));
            };
            if !option.repeats && seen.contains(&option.name) {
                return Err(about(option.name, "it is on the line twice"));
            }
            seen.push(option.name);
            (option.set)(&mut entry, value).map_err(|why| about(option.name, why))?;
        }
        Ok(Some(entry))
    }

    /// Returns whether the host may request commands as that user.
    pub fn may_run_as(&self, user: &UserName) -> bool {
        self.run_as.contains(user)
    }

    /// Returns whether it may request anything here at all, for itself or for its users. A line
    /// with neither `run-as=` nor `users=` serves only the other direction.
    pub fn may_ask(&self) -> bool {
        let pairs = matches!(&self.users, Users::Pairs(pairs) if !pairs.is_empty());
        !self.run_as.is_empty() || pairs
    }

    /// Returns the local user for its user `there`, who asks for `asked` and is vouched for by its
    /// signer. `None`: denied.
    pub fn user_for(&self, there: &UserName, asked: &UserName) -> Option<UserName> {
        self.may_ask()
            .then(|| self.users.map_user(there, asked))
            .flatten()
    }

    /// Returns whether the host may run that argument vector, the program first.
    pub fn may_run(&self, argv: &[Vec<u8>]) -> bool {
        self.commands
            .as_ref()
            .is_none_or(|commands| commands.iter().any(|c| c.allows(argv)))
    }

    /// Returns whether the host and its users may ask for a subsystem. A host that may run any
    /// command could start its program anyway, by the user's shell.
    pub fn may_ask_subsystem(&self, name: &str) -> bool {
        match &self.subsystems {
            Some(names) => names.iter().any(|n| n == name),
            None => self.commands.is_none(),
        }
    }

    /// Returns whether the host may pass a variable of that name: `LANG`, `LC_*`, `GIT_PROTOCOL`
    /// and what `accept-env=` lists.
    pub fn may_pass(&self, variable: &str) -> bool {
        let locale = variable.strip_prefix("LC_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        locale
            || matches!(variable, "LANG" | "GIT_PROTOCOL")
            || self.accept_env.iter().any(|v| v == variable)
    }

    /// Returns the host's own name for itself: `server=`, else its name here.
    pub fn server_name(&self) -> &HostName {
        self.server.as_ref().unwrap_or(&self.name)
    }
}

/// Parses a comma-separated list: at least one item, none empty, none twice.
pub(super) fn list<T: PartialEq>(
    value: &str,
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut items = Vec::new();
    for item in value.split(',') {
        if item.is_empty() {
            return Err(Fault::new(
                "something is missing before, between or after the commas",
            ));
        }
        let item_read = parse(item)?;
        if items.contains(&item_read) {
            return Err(Fault::new(format!("{} is in it twice", quoted(item))));
        }
        items.push(item_read);
    }
    Ok(items)
}
