//! Named services: the tables `[service.NAME]` of `cosserver.toml` (seed 003). Read by the monitor
//! and by `cosadm`. Must not decide who may use one: `auth::rules` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::Address;
use super::command::ArgsPattern;
use super::name::{HostName, UserName};
use super::rules::{Condition, Rules, read_list};
use super::tables::{Family, Member, Mistake, command, must_be, name_of, one_of, texts};
use super::words::{did_you_mean, port, quoted};
use crate::fault::Fault;
use crate::protocol::limits::FORMATS;
use crate::protocol::name::is_service_name;
use crate::sys::account::NAMED_GROUPS;

/// The longest path of a Unix socket, in bytes (unix(7): 108 with its NUL).
const SOCKET_PATH: usize = 107;

/// The user of a service whose program belongs to its caller.
const CALLER: &str = "@caller";

/// One key of a `[service.NAME]` table, for the check of the documents.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The kinds of services that may have it.
    pub kinds: &'static [KindName],
    /// Its allowed values, and its default.
    pub bounds: &'static str,
    /// Its meaning, in one line.
    pub meaning: &'static str,
}

/// The values of `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KindName {
    /// `"command"`.
    Command,
    /// `"forward"`.
    Forward,
    /// `"inetd"`.
    Inetd,
}

const KINDS: &[(&str, KindName)] = &[
    ("command", KindName::Command),
    ("forward", KindName::Forward),
    ("inetd", KindName::Inetd),
];

impl KindName {
    const ALL: &[Self] = &[Self::Command, Self::Forward, Self::Inetd];

    /// Returns its name in the settings.
    pub fn name(self) -> &'static str {
        name_of(&self, KINDS)
    }
}

/// Every key of a `[service.NAME]` table.
pub const KEYS: &[Key] = &[
    Key {
        name: "kind",
        kinds: KindName::ALL,
        bounds: "\"command\", \"forward\" or \"inetd\"; it must be given",
        meaning: "What it does: run a command, connect to a backend, or start a program as inetd does.",
    },
    Key {
        name: "command",
        kinds: &[KindName::Command, KindName::Inetd],
        bounds: "a list of words, the first an absolute path; it must be given",
        meaning: "The program and its arguments, run without a shell.",
    },
    Key {
        name: "args",
        kinds: &[KindName::Command],
        bounds: "a list of patterns; default []: no arguments",
        meaning: "The arguments that a caller may add: what one of the patterns allows.",
    },
    Key {
        name: "formats",
        kinds: &[KindName::Command, KindName::Inetd],
        bounds: "a list of at most 16 names; default []: it has one format, without a name",
        meaning: "The formats of its result. COS_FORMAT tells it which one the caller takes.",
    },
    Key {
        name: "to",
        kinds: &[KindName::Forward],
        bounds: "\"unix:/PATH\" or \"tcp:HOST:PORT\"; it must be given",
        meaning: "The backend.",
    },
    Key {
        name: "wait",
        kinds: &[KindName::Inetd],
        bounds: "true or false; default false",
        meaning: "Whether one process serves all connections.",
    },
    Key {
        name: "as",
        kinds: KindName::ALL,
        bounds: "\"@caller\" or a user name; default \"@caller\"",
        meaning: "The user that its program, or the connection to its backend, belongs to.",
    },
    Key {
        name: "allow",
        kinds: KindName::ALL,
        bounds: "a list of rules; default []: nobody",
        meaning: "Who may use it.",
    },
    Key {
        name: "deny",
        kinds: KindName::ALL,
        bounds: "a list of rules; default []: nobody",
        meaning: "Who may not use it, even if allow has a rule that applies.",
    },
];

/// The tables `[service.NAME]`.
const FAMILY: Family = Family {
    header: "service",
    noun: "service",
    keys: || KEYS.iter().map(|key| key.name).collect(),
};

/// A named service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedService {
    /// What it does.
    pub kind: Kind,
    /// The user that its program, or the connection to its backend, belongs to.
    pub runs_as: ServiceUser,
    /// The formats of its result, the usual one first; empty: one without a name.
    pub formats: Vec<String>,
    /// Who may use it.
    pub rules: Rules,
}

/// What a named service does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Runs a program, without a shell.
    Command {
        /// The program's absolute path and its arguments.
        command: Vec<String>,
        /// The arguments that a caller may add: what one of these allows. Empty: none.
        args: Vec<ArgsPattern>,
    },
    /// Connects to a backend.
    Forward {
        /// The backend.
        to: Backend,
    },
    /// Starts a program with the connection on its descriptors, as inetd does.
    Inetd {
        /// The program's absolute path and its arguments.
        command: Vec<String>,
        /// Whether one process serves all connections: it gets a listening socket, not a
        /// connection.
        wait: bool,
    },
}

impl Kind {
    /// Returns the value of `kind`.
    pub fn name(&self) -> &'static str {
        let kind = match self {
            Self::Command { .. } => KindName::Command,
            Self::Forward { .. } => KindName::Forward,
            Self::Inetd { .. } => KindName::Inetd,
        };
        kind.name()
    }
}

/// The backend of a forward service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A Unix socket, an absolute path.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// A host's name or an address; an IPv6 address has no brackets.
        host: String,
        /// The port, not 0.
        port: u16,
    },
}

impl Backend {
    /// Parses `unix:/PATH` or `tcp:HOST:PORT`. An IPv6 address is in brackets.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| Fault::new(format!("{} is no backend: {why}", quoted(text)));
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(wrong("the path must be absolute"));
            }
            if path.contains('\0') {
                return Err(wrong("a NUL byte in it"));
            }
            if path.len() > SOCKET_PATH {
                return Err(wrong("the path is longer than 107 bytes"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let form = "it must be unix:/PATH or tcp:HOST:PORT";
        let rest = text.strip_prefix("tcp:").ok_or_else(|| wrong(form))?;
        let (host, number) = rest.rsplit_once(':').ok_or_else(|| wrong(form))?;
        let number = port(number).ok_or_else(|| wrong("its port must be from 1 to 65535"))?;
        let address = |text: &str| Address::parse(text).map_err(|_| wrong("its address is none"));
        let numeric = |b: u8| b.is_ascii_digit() || b == b'.';
        let host = match host.strip_prefix('[').map(|h| h.strip_suffix(']')) {
            Some(inner) => address(inner.unwrap_or_default())?.to_string(),
            None if host.contains(':') => {
                return Err(wrong(
                    "an IPv6 address must be in brackets, as in tcp:[::1]:80",
                ));
            }
            // Not a name: a resolver would read 127.1 as 127.0.0.1.
            None if host.bytes().all(numeric) => address(host)?.to_string(),
            None => HostName::parse(host)?.to_string(),
        };
        let port = number.get();
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// The user that a service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceUser {
    /// `"@caller"`: the user that the caller is here, never root.
    Caller,
    /// This user; root only if it is named.
    User(UserName),
}

impl ServiceUser {
    /// Parses `@caller` or the name of a user.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text == CALLER {
            return Ok(Self::Caller);
        }
        if text.starts_with('@') {
            let hint = did_you_mean(text, [CALLER]);
            return Err(Fault::new(format!("{} is no user{hint}", quoted(text))));
        }
        UserName::parse(text).map(Self::User)
    }
}

impl fmt::Display for ServiceUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str(CALLER),
            Self::User(user) => f.write_str(user.as_str()),
        }
    }
}

/// All named services, by their names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedServices {
    all: BTreeMap<String, NamedService>,
    /// The groups that their rules name, each once.
    groups: Vec<String>,
    /// Whether a rule names a hardware address.
    names_hardware: bool,
}

impl NamedServices {
    /// Returns whether a rule names a hardware address.
    pub const fn names_hardware(&self) -> bool {
        self.names_hardware
    }

    /// Returns the service of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&NamedService> {
        self.all.get(&name.to_ascii_lowercase())
    }

    /// Returns the groups that their rules name, each once.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// Returns all of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &NamedService)> {
        self.all
            .iter()
            .map(|(name, service)| (name.as_str(), service))
    }

    /// Parses the table `service`, which holds a table for each service. `line_of` returns the line
    /// of an offset.
    pub(super) fn read(
        table: &DeTable<'_>,
        line_of: &dyn Fn(usize) -> usize,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut all = BTreeMap::new();
        let mut members = FAMILY.members(table, mistakes);
        members.sort_unstable_by_key(|member| member.at);
        let all_at = members.first().map(|member| member.at);
        let mut seen: BTreeMap<String, Member<'_, '_>> = BTreeMap::new();
        for member in members {
            let name = member.name.to_ascii_lowercase();
            if let Some(first) = seen.get(&name) {
                let words = format!(
                    "[service.{}] is the same as [service.{}] in line {}: a name matches in any case",
                    member.name,
                    first.name,
                    line_of(first.at)
                );
                mistakes.push((member.at, words));
                continue;
            }
            if let Some(service) = read_one(&member, line_of, mistakes) {
                all.insert(name.clone(), service);
            }
            seen.insert(name, member);
        }
        let groups = groups(&all);
        if groups.len() > NAMED_GROUPS {
            let words = format!(
                "the rules name {} groups; at most {NAMED_GROUPS} are allowed",
                groups.len()
            );
            let first = all_at.unwrap_or(0);
            mistakes.push((first, words));
        }
        let is_hardware = |condition: &Condition| matches!(condition, Condition::Hardware(_));
        let names_hardware = conditions(&all).any(is_hardware);
        Self {
            all,
            groups,
            names_hardware,
        }
    }
}

/// Returns all conditions of services.
fn conditions(all: &BTreeMap<String, NamedService>) -> impl Iterator<Item = &Condition> {
    let rules = all
        .values()
        .flat_map(|s| s.rules.allow.iter().chain(&s.rules.deny));
    rules.flat_map(|rule| rule.conditions())
}

/// Returns the groups that the rules of services name, each once.
fn groups(all: &BTreeMap<String, NamedService>) -> Vec<String> {
    let mut groups = BTreeSet::new();
    for condition in conditions(all) {
        if let Condition::Group(group) = condition {
            groups.insert(group.to_string());
        }
    }
    groups.into_iter().collect()
}

/// The values of a table before it is known that none is missing.
#[derive(Default)]
struct Draft {
    kind: Option<KindName>,
    command: Vec<String>,
    args: Vec<ArgsPattern>,
    to: Option<Backend>,
    wait: bool,
    runs_as: Option<ServiceUser>,
    formats: Vec<String>,
    rules: Rules,
}

/// Parses a service. Returns `None` if it has a mistake, which is added.
fn read_one(
    table: &Member<'_, '_>,
    line_of: &dyn Fn(usize) -> usize,
    mistakes: &mut Vec<Mistake>,
) -> Option<NamedService> {
    let before = mistakes.len();
    // The kind first: it says which other keys there may be.
    let kind = table
        .keys
        .get("kind")
        .and_then(|kind| kind.get_ref().as_str());
    let mut draft = Draft {
        kind: kind.and_then(|kind| one_of(kind, KINDS).ok()),
        ..Draft::default()
    };
    for (key, value) in table.keys {
        let name: &str = key.get_ref();
        let Some(known) = KEYS.iter().find(|known| known.name == name) else {
            let words = FAMILY.unknown_key(name, value.get_ref());
            mistakes.push((key.span().start, words));
            continue;
        };
        if let Some(kind) = draft.kind.filter(|kind| !known.kinds.contains(kind)) {
            mistakes.push((key.span().start, belongs_elsewhere(known, kind)));
            continue;
        }
        match name {
            "allow" => draft.rules.allow = read_list(name, value, line_of, mistakes),
            "deny" => draft.rules.deny = read_list(name, value, line_of, mistakes),
            _ => {
                if let Err(why) = draft.set(known, value) {
                    mistakes.push((value.span().start, format!("{name}: {why}")));
                }
            }
        }
    }
    // A key that is missing may be one that is misspelled.
    if mistakes.len() > before {
        return None;
    }
    draft
        .finish()
        .map_err(|why| mistakes.push((table.at, why)))
        .ok()
}

/// Describes a key that a service of this kind cannot have.
fn belongs_elsewhere(key: &Key, kind: KindName) -> String {
    let kinds: Vec<String> = key.kinds.iter().map(|k| quoted(k.name())).collect();
    let (name, kinds) = (key.name, kinds.join(" or "));
    format!(
        "{name} belongs to kind = {kinds}; this is kind = {}",
        quoted(kind.name())
    )
}

impl Draft {
    fn set(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
        let must_be = || must_be(key.bounds);
        let text = || value.get_ref().as_str().ok_or_else(must_be);
        match key.name {
            "kind" => self.kind = Some(one_of(text()?, KINDS)?),
            "command" => self.command = command(value)?.ok_or_else(must_be)?,
            "args" => {
                let texts = texts(value).ok_or_else(must_be)?;
                let args: Result<_, _> = texts.iter().map(|t| ArgsPattern::parse(t)).collect();
                self.args = args.map_err(|e: Fault| e.to_string())?;
            }
            "formats" => {
                let names = texts(value).ok_or_else(must_be)?;
                if names.len() > FORMATS {
                    return Err(must_be());
                }
                if let Some(wrong) = names.iter().find(|n| !is_service_name(n.as_bytes())) {
                    return Err(format!("{} is no format's name", quoted(wrong)));
                }
                self.formats = names;
            }
            "to" => self.to = Some(Backend::parse(text()?).map_err(|e| e.to_string())?),
            "wait" => self.wait = value.get_ref().as_bool().ok_or_else(must_be)?,
            _ => self.runs_as = Some(ServiceUser::parse(text()?).map_err(|e| e.to_string())?),
        }
        Ok(())
    }

    fn finish(self) -> Result<NamedService, String> {
        let Some(kind) = self.kind else {
            return Err("a service needs a kind = \"command\", \"forward\" or \"inetd\"".into());
        };
        if kind != KindName::Forward && self.command.is_empty() {
            return Err(format!(
                "a service of kind = {} needs a command = [\"/path\", …]",
                quoted(kind.name())
            ));
        }
        let (command, args, wait) = (self.command, self.args, self.wait);
        let kind = match (kind, self.to) {
            (KindName::Command, _) => Kind::Command { command, args },
            (KindName::Inetd, _) if wait && !matches!(self.runs_as, Some(ServiceUser::User(_))) => {
                let words = "wait = true needs as = \"USER\": one process serves all callers";
                return Err(words.into());
            }
            (KindName::Inetd, _) => Kind::Inetd { command, wait },
            (KindName::Forward, Some(to)) => Kind::Forward { to },
            (KindName::Forward, None) => {
                let words = "a service of kind = \"forward\" needs a to = \"unix:/PATH\" or \"tcp:HOST:PORT\"";
                return Err(words.into());
            }
        };
        Ok(NamedService {
            kind,
            runs_as: self.runs_as.unwrap_or(ServiceUser::Caller),
            formats: self.formats,
            rules: self.rules,
        })
    }
}

#[cfg(test)]
#[path = "named_services_tests.rs"]
mod tests;
