//! The values of the client's flags, each parsed into what it means. Pure: runs in the client while
//! it reads its command line.

use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::name::{HOST_MAX, UserName};
use crate::config::words;
use crate::fault::Fault;
use crate::protocol::limits::FORMATS;
use crate::protocol::name::is_service_name;
use crate::sys::socket::KEEP_ALIVE_MOST;

/// `--display`: GUI_HOST, if given, and GUI_PORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Display {
    /// An address or a name; `None`: the address that the connection comes from.
    pub host: Option<String>,
    /// The port.
    pub port: NonZeroU16,
}

impl Display {
    /// Parses `HOST:PORT`, `[ADDRESS]:PORT` or `:PORT`.
    ///
    /// # Errors
    /// It has no port.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::new(format!(
                "{text:?} is not a display; give HOST:PORT, [ADDRESS]:PORT or :PORT"
            ))
        };
        let (host, digits) = text.rsplit_once(':').ok_or_else(wrong)?;
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if inner.is_none() && host.contains(':') {
            return Err(wrong());
        }
        let host = inner.unwrap_or(host);
        Ok(Self {
            host: (!host.is_empty()).then(|| host.to_owned()),
            port: port(digits, "--display")?,
        })
    }
}

/// A host in ssh's form: `[USER@]HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The remote user, if given.
    pub user: Option<UserName>,
    /// The host.
    pub host: String,
    /// The port, if given.
    pub port: Option<NonZeroU16>,
}

impl Destination {
    /// Parses a host of the command line, `[USER@]HOST`. `may_be_uri`: also
    /// `ssh://[USER@]HOST[:PORT]`.
    ///
    /// # Errors
    /// It has no host, or the user is invalid.
    pub(super) fn of_host(text: &str, may_be_uri: bool) -> Result<Self, Fault> {
        match text.strip_prefix("ssh://").filter(|_| may_be_uri) {
            Some(rest) => Self::parse(rest.strip_suffix('/').unwrap_or(rest), "ssh://"),
            None => Self::with_user(text, |host| Ok((host, None)), "before @"),
        }
    }

    /// Parses `[USER@]HOST[:PORT]`, with an IPv6 address in brackets.
    pub(super) fn parse(text: &str, whence: &str) -> Result<Self, Fault> {
        let split = |text| {
            let (host, digits) = host_and_port(text);
            let port = digits.map(|digits| port(digits, whence)).transpose()?;
            Ok((host, port))
        };
        Self::with_user(text, split, whence)
    }

    fn with_user<'a>(
        text: &'a str,
        split: impl Fn(&'a str) -> Result<(&'a str, Option<NonZeroU16>), Fault>,
        whence: &str,
    ) -> Result<Self, Fault> {
        let (user, host) = match text.rsplit_once('@') {
            Some((user_there, host)) => (Some(user(user_there, whence)?), host),
            None => (None, text),
        };
        let (host, port) = split(host)?;
        if host.is_empty() {
            return Err(Fault::new("the host has no name"));
        }
        Ok(Self {
            user,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// Splits `HOST[:PORT]` or `[ADDRESS][:PORT]`. An address with colons can have a port only in
/// brackets.
fn host_and_port(text: &str) -> (&str, Option<&str>) {
    let bracketed = text.strip_prefix('[').and_then(|t| t.split_once(']'));
    match (bracketed, text.split_once(':')) {
        (Some((host, "")), _) => (host, None),
        (Some((host, rest)), _) if rest.starts_with(':') => (host, rest.get(1..)),
        (None, Some((host, port))) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

/// The most hosts to connect through.
const JUMPS: usize = 8;

/// Parses the hosts of `-J`, separated by commas. `none` is an empty list.
pub(super) fn jumps(text: &str, whence: &str) -> Result<Vec<Destination>, Fault> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let one = |text| {
        let text = str::strip_prefix(text, "ssh://").unwrap_or(text);
        Destination::parse(text, whence).map_err(|e| e.while_doing(whence))
    };
    let all: Vec<Destination> = text.split(',').map(one).collect::<Result<_, _>>()?;
    if all.len() > JUMPS {
        return Err(Fault::new(format!("{whence}: more than {JUMPS} hosts")));
    }
    Ok(all)
}

/// Parses `HOST:PORT` of `-W`.
pub(super) fn stdio_to(text: &str) -> Result<Destination, Fault> {
    let target = Destination::parse(text, "-W")?;
    // It becomes part of a shell command.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
    let is_plain = target.host.chars().all(plain) && !target.host.starts_with('-');
    if target.user.is_some() || target.port.is_none() || !is_plain {
        return Err(Fault::new(format!("-W {text:?} is not HOST:PORT")));
    }
    Ok(target)
}

/// Parses a program's name or path, which a shell on another host must take as one word.
pub(super) fn program(text: &str) -> Result<String, Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
        let words = format!("-o JumpProgram={text}: not the name or path of a program");
        return Err(Fault::new(words));
    }
    Ok(text.to_owned())
}

/// Parses a file's name. If getopts could not read it as text, it contains the replacement
/// character.
pub(super) fn file(text: &str, whence: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Fault::new(format!("{whence} takes a file's name in UTF-8")));
    }
    Ok(text.into())
}

/// Parses a folder's name. If getopts could not read it as text, it contains the replacement
/// character.
pub(super) fn folder(text: &str) -> Result<PathBuf, Fault> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Fault::new(
            "-C takes a folder's name in UTF-8; give another one in COS_CONFIG_DIR",
        ));
    }
    Ok(text.into())
}

pub(super) fn user(text: &str, whence: &str) -> Result<UserName, Fault> {
    UserName::parse(text).map_err(|e| e.while_doing(whence))
}

/// Parses the name of a machine for a host's allow list: 1 to 251 bytes of printable characters.
/// Surrounding blanks are removed.
pub(super) fn machine_name(text: &str, whence: &str) -> Result<String, Fault> {
    let name = text.trim();
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > HOST_MAX {
        "it is longer than 251 bytes"
    } else if name.contains(char::REPLACEMENT_CHARACTER) {
        "it is not UTF-8"
    } else if !name.chars().all(words::is_shown) {
        "it has characters that cannot be shown"
    } else {
        return Ok(name.to_owned());
    };
    let name = words::quoted(name);
    Err(Fault::new(format!("{whence} {name} is not valid: {why}")))
}

/// Parses a descriptor's number. Standard output and standard error are rejected: they are the
/// application's.
pub(super) fn descriptor(text: &str) -> Result<i32, Fault> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| digits && *n != 1 && *n != 2);
    number.ok_or_else(|| {
        Fault::new(format!(
            "--password-fd {text:?} is not a descriptor to read from"
        ))
    })
}

/// Parses the formats of a result.
pub(super) fn formats(text: &str) -> Result<Vec<String>, Fault> {
    let all: Vec<String> = text.split(',').map(str::to_owned).collect();
    let wrong = all.iter().find(|name| !is_service_name(name.as_bytes()));
    if let Some(wrong) = wrong {
        let wrong = words::quoted(wrong);
        return Err(Fault::new(format!("--format: {wrong} is no format's name")));
    }
    if all.len() > FORMATS {
        return Err(Fault::new(format!("--format: at most {FORMATS} formats")));
    }
    Ok(all)
}

pub(super) fn port(text: &str, whence: &str) -> Result<NonZeroU16, Fault> {
    words::port(text)
        .ok_or_else(|| Fault::new(format!("{whence} {text:?} is not a port; give 1 to 65535")))
}

/// The default of `-o ServerAliveInterval`, seconds.
pub(super) const KEEP_ALIVE: u32 = 60;

/// Parses ssh's ServerAliveInterval. none and 0 mean no keep-alive, and a value above the system's
/// maximum becomes that maximum.
pub(super) fn keep_alive(text: &str) -> Result<u32, Fault> {
    let interval = seconds(text, "ServerAliveInterval")?.unwrap_or_default();
    let seconds = interval.as_secs().min(KEEP_ALIVE_MOST);
    Ok(u32::try_from(seconds).unwrap_or(KEEP_ALIVE))
}

/// Parses a time in ssh's form: seconds, or a number with s, m or h. none and 0 mean the default.
pub(super) fn seconds(text: &str, of: &str) -> Result<Option<Duration>, Fault> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((i, 's' | 'S')) => (text.get(..i), 1),
        Some((i, 'm' | 'M')) => (text.get(..i), 60),
        Some((i, 'h' | 'H')) => (text.get(..i), 3600),
        _ => (Some(text), 1),
    };
    if text == "none" {
        return Ok(None);
    }
    let number: Option<u32> = digits.and_then(|d| d.parse().ok());
    let seconds = number
        .map(|n| u64::from(n).saturating_mul(unit))
        .ok_or_else(|| {
            Fault::new(format!(
                "-o {of}={text}: neither a number of seconds nor none"
            ))
        })?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}
