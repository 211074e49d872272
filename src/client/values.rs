//! The values of the client's flags, each parsed into what it means. Pure: run by the
//! client while it reads its command line.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::name::{HOST_MAX, UserName};
use crate::config::words;
use crate::fault::Fault;
use crate::sys::socket::KEEP_ALIVE_MOST;

/// `--display`: GUI_HOST, where it was said, and GUI_PORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Display {
    /// An address or a name; `None`: the address that we come from.
    pub host: Option<String>,
    /// The port.
    pub port: NonZeroU16,
}

impl Display {
    /// `HOST:PORT`, `[ADDRESS]:PORT` or `:PORT`.
    ///
    /// # Errors
    /// It has no port.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::new(format!(
                "{text:?} is no display; give HOST:PORT, [ADDRESS]:PORT or :PORT"
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

/// A folder that getopts could not read as text has its replacement sign in it.
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

/// The name of a machine, for the list of those that a host lets in: 1 to 251 bytes that
/// can be shown, without the blanks around them.
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
    Err(Fault::new(format!("{whence} {name} is no name: {why}")))
}

/// A descriptor's number: not standard output, which is the application's.
pub(super) fn descriptor(text: &str) -> Result<i32, Fault> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| digits && *n != 1 && *n != 2);
    number.ok_or_else(|| {
        Fault::new(format!(
            "--password-fd {text:?} is no descriptor to read from"
        ))
    })
}

pub(super) fn port(text: &str, whence: &str) -> Result<NonZeroU16, Fault> {
    words::port(text)
        .ok_or_else(|| Fault::new(format!("{whence} {text:?} is no port; give 1 to 65535")))
}

/// Without `-o ServerAliveInterval`, seconds.
pub(super) const KEEP_ALIVE: u32 = 60;

/// An interval of ssh's ServerAliveInterval: none and 0 are no keep-alive, and what the system
/// cannot take is the most that it takes.
pub(super) fn keep_alive(text: &str) -> Result<u32, Fault> {
    let interval = seconds(text, "ServerAliveInterval")?.unwrap_or_default();
    let seconds = interval.as_secs().min(KEEP_ALIVE_MOST);
    Ok(u32::try_from(seconds).unwrap_or(KEEP_ALIVE))
}

/// A time as ssh takes it: seconds, or a number with s, m or h; none and 0 are
/// the default.
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
