//! Parses a settings text against the table of keys.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Settings;
use super::keys::{KEYS, Key, Slot, TABLES};
use crate::config::address::{Address, Network};
use crate::config::applications::Applications;
use crate::config::name::{HostName, UserName};
use crate::config::named_services::NamedServices;
use crate::config::subsystems::Subsystems;
use crate::config::tables::{Mistake, with_article};
use crate::config::words::{did_you_mean, nearest, quoted};
use crate::fault::Fault;
use crate::sys::socket::LISTENERS;

/// The table of applications.
const GUI: &str = "gui";
/// The table of subsystems.
const SUBSYSTEM: &str = "subsystem";
/// The table of named services.
const SERVICE: &str = "service";

/// Returns the text of a file. TOML is UTF-8, but a comment may be in any encoding: invalid bytes
/// in it become replacement characters.
///
/// Returns the first line that is not UTF-8 outside a comment. If there is another mistake in the
/// TOML, [`apply`] reports that one.
pub(super) fn text_of(bytes: &[u8]) -> Result<Cow<'_, str>, usize> {
    let e = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(Cow::Borrowed(text)),
        Err(e) => e,
    };
    // If another character of the same length in those places changes nothing, all are in comments.
    let replaced = |sign: &str| -> String {
        let chunks = bytes.utf8_chunks();
        let text = |c: std::str::Utf8Chunk<'_>| {
            let sign = if c.invalid().is_empty() { "" } else { sign };
            [c.valid(), sign].concat()
        };
        chunks.map(text).collect()
    };
    let (one, other) = (replaced("\u{fffd}"), replaced("\u{fffc}"));
    let read = |text| DeTable::parse(text).map(|table| format!("{table:?}"));
    match (read(&one), read(&other)) {
        (Ok(one_table), Ok(other)) if one_table == other => Ok(Cow::Owned(one)),
        (Err(mistake), _) => {
            let at = mistake.span().map_or(one.len(), |at| at.start);
            let before = one.get(..at).unwrap_or("");
            let line = before.rsplit('\n').next().unwrap_or(before);
            let next = one.get(at..).and_then(|rest| rest.chars().next());
            // If its line has no replacement character up to there, the mistake is another one.
            if line.chars().chain(next).any(|c| c == '\u{fffd}') {
                return Err(line_of(&one, at));
            }
            Ok(Cow::Owned(one))
        }
        _ => {
            let before = bytes.iter().take(e.valid_up_to());
            Err(before.filter(|b| **b == b'\n').count() + 1)
        }
    }
}

/// Applies the text to the settings. Returns the table and the name of each key that it sets.
pub(super) fn apply(
    settings: &mut Settings,
    text: &str,
    file: &Path,
) -> Result<Vec<(&'static str, &'static str)>, Fault> {
    let told = |(at, words): Mistake| Fault::at(file, line_of(text, at), words);
    let document = DeTable::parse(text).map_err(|e| told(syntax(&e, text)))?;
    let mut given = Vec::new();
    let mut mistakes: Vec<Mistake> = Vec::new();
    for (key, value) in document.get_ref() {
        let name: &str = key.get_ref();
        match (name, value.get_ref().as_table()) {
            (GUI, Some(inner)) => settings.gui = Applications::read(inner, &mut mistakes),
            (SUBSYSTEM, Some(inner)) => settings.subsystem = Subsystems::read(inner, &mut mistakes),
            (SERVICE, Some(inner)) => {
                let line_of = |at| line_of(text, at);
                settings.service = NamedServices::read(inner, &line_of, &mut mistakes);
            }
            (GUI | SERVICE, None) => {
                mistakes.push((key.span().start, no_key(name, &format!("{name}.NAME"))));
            }
            _ => other(settings, key, value, &mut given, &mut mistakes),
        }
    }
    match mistakes.into_iter().min_by_key(|(at, _)| *at) {
        Some(first) => Err(told(first)),
        None => Ok(given),
    }
}

/// Applies a table with known keys, or a key before the first table.
fn other<'i>(
    settings: &mut Settings,
    key: &Spanned<Cow<'i, str>>,
    value: &Spanned<DeValue<'i>>,
    given: &mut Vec<(&'static str, &'static str)>,
    mistakes: &mut Vec<Mistake>,
) {
    let name: &str = key.get_ref();
    let tables = || TABLES.iter().map(|t| t.name).filter(|t| !t.is_empty());
    let table = tables().chain([SUBSYSTEM]).find(|t| *t == name);
    match (table, value.get_ref().as_table()) {
        (Some(table), Some(inner)) => {
            for (key, value) in inner {
                one(settings, table, key, value, given, mistakes);
            }
        }
        (Some(_), None) => mistakes.push((key.span().start, no_key(name, name))),
        (None, Some(_)) if find("", name).is_none() => {
            let hint = nearest(name, tables().chain([GUI, SUBSYSTEM, SERVICE]));
            let hint = hint.map_or_else(String::new, |t| format!("; did you mean [{t}]?"));
            let words = format!("unknown table [{}]{hint}", name.escape_debug());
            mistakes.push((key.span().start, words));
        }
        (None, _) => one(settings, "", key, value, given, mistakes),
    }
}

/// Describes a key that should be a table with this header.
fn no_key(name: &str, header: &str) -> String {
    format!(
        "{name} is a table, not a key; write [{header}] on a line of its own and its keys below"
    )
}

/// Finds, checks and sets one key, or returns its mistake.
fn one<'i>(
    settings: &mut Settings,
    table: &str,
    key: &Spanned<Cow<'i, str>>,
    value: &Spanned<DeValue<'i>>,
    given: &mut Vec<(&'static str, &'static str)>,
    mistakes: &mut Vec<Mistake>,
) {
    let name: &str = key.get_ref();
    let Some(known) = find(table, name) else {
        mistakes.push((key.span().start, unknown(table, name)));
        return;
    };
    match set(settings, known, value.get_ref()) {
        Ok(()) => given.push((known.table, known.name)),
        Err(Wrong::Type) => {
            let is = value.get_ref().type_str();
            mistakes.push((
                value.span().start,
                format!(
                    "{name} must be {}, and this is {}",
                    known.bounds(),
                    with_article(is)
                ),
            ));
        }
        Err(Wrong::Range) => {
            mistakes.push((
                value.span().start,
                format!("{name} must be {}", known.bounds()),
            ));
        }
        Err(Wrong::Words(words)) => mistakes.push((value.span().start, format!("{name}: {words}"))),
    }
}

fn find(table: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.table == table && key.name == name)
}

/// Describes an unknown key: it may belong to another table, or be a typing error.
fn unknown(table: &str, name: &str) -> String {
    let place = |table: &str| {
        if table.is_empty() {
            "before the first [table]".to_owned()
        } else {
            format!("in [{table}]")
        }
    };
    let told = format!("unknown key {} {}", quoted(name), place(table));
    if let Some(elsewhere) = KEYS.iter().find(|key| key.name == name) {
        return format!("{told}; it belongs {}", place(elsewhere.table));
    }
    let here = did_you_mean(
        name,
        KEYS.iter()
            .filter(|key| key.table == table)
            .map(|key| key.name),
    );
    if !here.is_empty() {
        return told + &here;
    }
    match nearest(name, KEYS.iter().map(|key| key.name))
        .and_then(|near| KEYS.iter().find(|key| key.name == near))
    {
        Some(key) => format!(
            "{told}; did you mean \"{}\"? It belongs {}",
            key.name,
            place(key.table)
        ),
        None => told,
    }
}

enum Wrong {
    Type,
    Range,
    Words(String),
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Words(fault.to_string())
    }
}

fn set(settings: &mut Settings, key: &Key, value: &DeValue<'_>) -> Result<(), Wrong> {
    match key.slot {
        Slot::Seconds(at, least, most) => {
            *at(settings) = Duration::from_secs(number(value, least, most)?)
        }
        Slot::Count(at, least, most) => {
            *at(settings) =
                usize::try_from(number(value, least, most)?).map_err(|_| Wrong::Range)?;
        }
        Slot::Port(at) => {
            *at(settings) =
                u16::try_from(number(value, 0, u16::MAX.into())?).map_err(|_| Wrong::Range)?;
        }
        Slot::Host(at) => *at(settings) = HostName::parse(text(value)?)?,
        Slot::User(at) => *at(settings) = UserName::parse(text(value)?)?,
        Slot::Folders(at) => {
            let folders = text(value)?;
            if !folders.split(':').all(|f| f.starts_with('/')) || folders.contains(char::is_control)
            {
                return Err(Wrong::Words(
                    "every folder in it must be absolute: an empty or relative one would run programs in the working folder".into(),
                ));
            }
            folders.clone_into(at(settings));
        }
        Slot::Switch(at) => *at(settings) = value.as_bool().ok_or(Wrong::Type)?,
        Slot::Addresses(at) => {
            let list = list(value, |item| Ok(Address::parse(item)?))?;
            if list.is_empty() {
                return Err(Wrong::Words("at least one address is needed".into()));
            }
            if list.len() > LISTENERS {
                let words = format!(
                    "{LISTENERS} addresses at most; 0.0.0.0 and :: are all that the host has"
                );
                return Err(Wrong::Words(words));
            }
            *at(settings) = list;
        }
        Slot::Networks(at) => *at(settings) = list(value, |item| Ok(Network::parse(item)?))?,
    }
    Ok(())
}

fn number(value: &DeValue<'_>, least: u64, most: u64) -> Result<u64, Wrong> {
    let integer = value.as_integer().ok_or(Wrong::Type)?;
    let number =
        u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| Wrong::Range)?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(Wrong::Range)
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Wrong> {
    value.as_str().ok_or(Wrong::Type)
}

fn list<T>(value: &DeValue<'_>, parse: impl Fn(&str) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    let array = value.as_array().ok_or(Wrong::Type)?;
    array
        .iter()
        .map(|item| parse(text(item.get_ref())?))
        .collect()
}

/// Describes a TOML syntax error in one line.
fn syntax(error: &toml::de::Error, text: &str) -> Mistake {
    let at = error
        .span()
        .unwrap_or(Range {
            start: text.len(),
            end: text.len(),
        })
        .start;
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    if message == "duplicate key" {
        return (at, format!("{} is set twice", key_or_header(text, at)));
    }
    (at, message)
}

/// Returns what begins at this offset: a key, or the whole `[header]` that it is part of.
fn key_or_header(text: &str, at: usize) -> String {
    let begin = text
        .get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |newline| newline + 1);
    let line = text.get(begin..).unwrap_or("");
    let line = line.lines().next().unwrap_or("").trim();
    match line.split_once(if line.starts_with('[') { ']' } else { '=' }) {
        Some((header, _)) if line.starts_with('[') => {
            format!("[{}]", header.trim_matches('[').escape_debug())
        }
        Some((key, _)) => quoted(key.trim()),
        None => quoted(line),
    }
}

/// Returns the line number of an offset in the text; 1 is the first.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}
