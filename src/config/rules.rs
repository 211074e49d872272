//! Access rules: the lists `allow` and `deny` of a named service in `cosserver.toml`. Each rule is a
//! table of conditions, all of which must hold. Read by the monitor and by `cosadm`; must not
//! decide: `auth::rules` does.

use std::fmt;

use toml::Spanned;
use toml::de::DeValue;

use super::address::Network;
use super::name::{HostName, UserName};
use super::tables::{Mistake, name_of, one_of, string};
use super::times::Times;
use super::words::{did_you_mean, quoted};
use crate::protocol::hello::Suite;
use crate::secret::{from_hex, to_hex};

/// A machine's ID (`cos key show`).
pub type MachineId = [u8; 16];

/// The hardware address of a peer on the same link (48 bits).
pub type HardwareAddress = [u8; 6];

/// How a caller has authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Not at all.
    Anonymous,
    /// A user, by PAM.
    User,
    /// A host, by its proof; or a user for whom it vouches.
    Host,
}

/// What is done to the data of a connection before it is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// LZ4, each record alone.
    Lz4,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The user that the caller is here.
    User(UserName),
    /// A group of that user.
    Group(UserName),
    /// The calling host.
    Host(HostName),
    /// The calling machine.
    Machine(MachineId),
    /// How the caller has authenticated.
    Token(TokenKind),
    /// The address that the caller connects from.
    Address(Network),
    /// The hardware address of a caller on the same link.
    Hardware(HardwareAddress),
    /// The time on this host's clock.
    Time(Times),
    /// The cipher of the connection.
    Suite(Suite),
    /// The compression of the connection.
    Compression(Compression),
}

/// A key of a rule, for the check of the documents.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its allowed values.
    pub bounds: &'static str,
    /// Its meaning, in one line.
    pub meaning: &'static str,
    read: fn(&str) -> Result<Condition, String>,
}

/// Every key of a rule.
pub const KEYS: &[Key] = &[
    Key {
        name: "user",
        bounds: "a user name",
        meaning: "The user that the caller is here.",
        read: |text| {
            let user = UserName::parse(text).map_err(|e| e.to_string());
            user.map(Condition::User)
        },
    },
    Key {
        name: "group",
        bounds: "a group name",
        meaning: "A group of that user.",
        read: |text| {
            let group = UserName::parse(text).map_err(|e| e.to_string());
            group.map(Condition::Group)
        },
    },
    Key {
        name: "host",
        bounds: "a host name of hostinfo",
        meaning: "The calling host.",
        read: |text| {
            let host = HostName::parse(text).map_err(|e| e.to_string());
            host.map(Condition::Host)
        },
    },
    Key {
        name: "machine",
        bounds: "a machine ID, 32 hexadecimal digits",
        meaning: "The calling machine.",
        read: |text| {
            let id = from_hex(text).map(Condition::Machine);
            id.ok_or_else(|| format!("{} is no machine ID", quoted(text)))
        },
    },
    Key {
        name: "token",
        bounds: "\"anonymous\", \"user\" or \"host\"",
        meaning: "How the caller has authenticated.",
        read: |text| one_of(text, TOKENS).map(Condition::Token),
    },
    Key {
        name: "address",
        bounds: "an address or a network",
        meaning: "Where the caller connects from.",
        read: |text| {
            let network = Network::parse(text).map_err(|e| e.to_string());
            network.map(Condition::Address)
        },
    },
    Key {
        name: "hardware",
        bounds: "a hardware address, as in 02:00:5e:10:00:01",
        meaning: "The network card of a caller on the same link.",
        read: |text| {
            let digits = text.replace(':', "");
            let is_grouped = text.split(':').all(|pair| pair.len() == 2);
            let address = from_hex(&digits).filter(|_| is_grouped);
            let address = address.map(Condition::Hardware);
            address.ok_or_else(|| format!("{} is no hardware address", quoted(text)))
        },
    },
    Key {
        name: "time",
        bounds: "days, a time of day, or both, as in Mon-Fri 07:00-19:00",
        meaning: "The time on this host's clock.",
        read: |text| {
            let times = Times::parse(text).map_err(|e| e.to_string());
            times.map(Condition::Time)
        },
    },
    Key {
        name: "suite",
        bounds: "\"aes-gcm\" or \"chacha-poly\"",
        meaning: "The cipher of the connection.",
        read: |text| one_of(text, SUITES).map(Condition::Suite),
    },
    Key {
        name: "compression",
        bounds: "\"none\" or \"lz4\"",
        meaning: "The compression of the connection.",
        read: |text| one_of(text, COMPRESSIONS).map(Condition::Compression),
    },
];

const TOKENS: &[(&str, TokenKind)] = &[
    ("anonymous", TokenKind::Anonymous),
    ("user", TokenKind::User),
    ("host", TokenKind::Host),
];
const SUITES: &[(&str, Suite)] = &[
    ("aes-gcm", Suite::AesGcm),
    ("chacha-poly", Suite::ChaChaPoly),
];
const COMPRESSIONS: &[(&str, Compression)] =
    &[("none", Compression::None), ("lz4", Compression::Lz4)];

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user = {}", string(user.as_str())),
            Self::Group(group) => write!(f, "group = {}", string(group.as_str())),
            Self::Host(host) => write!(f, "host = \"{host}\""),
            Self::Machine(id) => write!(f, "machine = \"{}\"", to_hex(id)),
            Self::Token(kind) => write!(f, "token = \"{}\"", name_of(kind, TOKENS)),
            Self::Address(network) => write!(f, "address = \"{network}\""),
            Self::Hardware(address) => {
                let pairs = address.map(|byte| format!("{byte:02x}"));
                write!(f, "hardware = \"{}\"", pairs.join(":"))
            }
            Self::Time(times) => write!(f, "time = {}", string(&times.to_string())),
            Self::Suite(suite) => write!(f, "suite = \"{}\"", name_of(suite, SUITES)),
            Self::Compression(how) => {
                write!(f, "compression = \"{}\"", name_of(how, COMPRESSIONS))
            }
        }
    }
}

/// A rule: it applies if all its conditions hold. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    line: usize,
    conditions: Vec<Condition>,
}

impl Rule {
    /// Returns its line in the file.
    pub const fn line(&self) -> usize {
        self.line
    }

    /// Returns its conditions.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Parses a rule. `line_of` returns the line of an offset.
    ///
    /// # Errors
    /// Returns the first mistake.
    pub(super) fn read(
        value: &Spanned<DeValue<'_>>,
        line_of: &dyn Fn(usize) -> usize,
    ) -> Result<Self, Mistake> {
        let at = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            let words = "a rule is a table of conditions, as in { user = \"alice\" }";
            return Err((at, words.into()));
        };
        if table.is_empty() {
            let words =
                "a rule without a condition; { address = \"0.0.0.0/0\" } is every IPv4 address";
            return Err((at, words.into()));
        }
        let conditions: Result<_, _> = table.iter().map(|(k, v)| condition(k, v)).collect();
        Ok(Self {
            line: line_of(at),
            conditions: conditions?,
        })
    }
}

/// Returns the condition of this name and text, or what is wrong with the text. `None`: there is no
/// such name.
pub fn condition_of(name: &str, text: &str) -> Option<Result<Condition, String>> {
    let known = KEYS.iter().find(|known| known.name == name)?;
    Some((known.read)(text))
}

fn condition(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Condition, Mistake> {
    let name: &str = key.get_ref();
    let Some(known) = KEYS.iter().find(|known| known.name == name) else {
        let hint = did_you_mean(name, KEYS.iter().map(|known| known.name));
        let words = format!("unknown condition {}{hint}", quoted(name));
        return Err((key.span().start, words));
    };
    let wrong = |why: String| (value.span().start, format!("{name}: {why}"));
    let text = value.get_ref().as_str();
    let text = text.ok_or_else(|| wrong(format!("it must be {}", known.bounds)))?;
    (known.read)(text).map_err(wrong)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.conditions.iter().map(Condition::to_string).collect();
        write!(f, "{{ {} }}", all.join(", "))
    }
}

/// The lists of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Who may use it.
    pub allow: Vec<Rule>,
    /// Who may not, even if `allow` applies.
    pub deny: Vec<Rule>,
}

/// Parses a list of rules. `line_of` returns the line of an offset. Adds the mistakes, each with its
/// offset.
pub fn read_list(
    name: &str,
    value: &Spanned<DeValue<'_>>,
    line_of: &dyn Fn(usize) -> usize,
    mistakes: &mut Vec<(usize, String)>,
) -> Vec<Rule> {
    let Some(list) = value.get_ref().as_array() else {
        let words = format!("{name}: it must be a list of rules, as in [ {{ user = \"alice\" }} ]");
        mistakes.push((value.span().start, words));
        return Vec::new();
    };
    let mut rules = Vec::new();
    for value in list.iter() {
        match Rule::read(value, line_of) {
            Ok(rule) => rules.push(rule),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    rules
}

#[cfg(test)]
#[path = "rules_tests.rs"]
pub(crate) mod tests;
