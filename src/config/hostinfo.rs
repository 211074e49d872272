//! The host table, `hostinfo`: one host per line, `name method options…`. It is read in both
//! directions: which hosts may ask this host, and how this host reaches other hosts.
//!
//! The monitor reads it completely, the client searches for its one host ([`find`]), `cosadm` shows
//! and edits it. Nothing is resolved here.
//!
//! - A mistake affects only its host: the host is not in the table, and the fault names the line. A
//!   host on two lines is not in the table.
//! - Words are separated by blanks and may be quoted with `'…'` or `"…"`, inside which only the
//!   same quote has a meaning. `#` at the start of a word begins a comment. There are no
//!   continuation lines.
//! - A line of more than 8 KiB removes its host; it is never read as two.
//! - A file that is missing, not trusted or longer than 16 MiB is a fault as a whole, and then
//!   there is no table.

mod entry;
mod line;
mod users;
mod variables;

use std::collections::HashMap;
use std::path::Path;

use zeroize::Zeroizing;

pub use entry::{Addresses, Entry, Method, OPTIONS, OptionName};
pub use line::{LINE_MAX, Word, quote, words};
pub use users::{UserPair, Users};

use super::name::HostName;
use super::paths::Paths;
use super::secure::Kind;
use super::words::{numbered, quoted};
use crate::fault::Fault;

/// The longest host table that is read, in bytes: 100,000 hosts with pinned keys have some 14 MB.
pub const FILE_MAX: usize = 16 * 1024 * 1024;

/// The host table.
#[derive(Debug, Default)]
pub struct HostTable {
    entries: Vec<Entry>,
    by_name: HashMap<HostName, usize>,
    faults: Vec<Fault>,
}

impl HostTable {
    /// Reads the host table with care.
    ///
    /// # Errors
    /// The file is missing, not trusted, too long or unreadable. Every host is then denied.
    pub fn load(paths: &Paths) -> Result<Self, Fault> {
        Ok(Self::parse(&content(paths)?, &paths.hostinfo()))
    }

    /// Parses the table; `file` is named in faults. A line that is not UTF-8 affects only its host.
    pub fn parse(text: &[u8], file: &Path) -> Self {
        let mut table = Self::default();
        // Where each name was first seen, on a valid or an invalid line.
        let mut lines: HashMap<HostName, usize> = HashMap::new();
        let mut denied: Vec<HostName> = Vec::new();
        for (number, line) in numbered(text) {
            let name = named(line);
            if let Some(name) = &name {
                if let Some(first) = lines.get(name) {
                    let words = format!(
                        "{name} is on line {first} already; neither line counts until one is removed"
                    );
                    table.faults.push(Fault::at(file, number, words));
                    denied.push(name.clone());
                    continue;
                }
                lines.insert(name.clone(), number);
            }
            match Entry::parse(line, number) {
                Ok(Some(entry)) => table.entries.push(entry),
                Ok(None) => {}
                Err(fault) => table.faults.push(at(file, number, name.as_ref(), &fault)),
            }
        }
        if !denied.is_empty() {
            let denied: std::collections::HashSet<HostName> = denied.into_iter().collect();
            table.entries.retain(|entry| !denied.contains(&entry.name));
        }
        table.by_name = table
            .entries
            .iter()
            .enumerate()
            .map(|(i, entry)| (entry.name.clone(), i))
            .collect();
        table
    }

    /// Returns the entry of a host, if it has a valid one.
    pub fn get(&self, name: &HostName) -> Option<&Entry> {
        self.by_name.get(name).and_then(|i| self.entries.get(*i))
    }

    /// Returns every mistake, in the order of the lines, each with file and line.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Returns every valid entry, in the order of the lines.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Searches for one host without parsing the other lines: what a client needs of a long table,
/// quickly. `None`: no line names the host.
///
/// # Errors
/// As [`HostTable::load`]; or the host's own line is wrong, or there are two.
pub fn find(paths: &Paths, host: &HostName) -> Result<Option<Entry>, Fault> {
    find_in(&content(paths)?, &paths.hostinfo(), host)
}

/// Searches for one host in a text.
///
/// # Errors
/// The host's own line is wrong, or there are two.
pub fn find_in(text: &[u8], file: &Path, host: &HostName) -> Result<Option<Entry>, Fault> {
    let mut found: Option<(usize, &[u8])> = None;
    for (number, line) in numbered(text) {
        if !may_name(line, host) || named(line).as_ref() != Some(host) {
            continue;
        }
        if let Some((first, _)) = found {
            let words = format!(
                "{host} is on line {first} already; neither line counts until one is removed"
            );
            return Err(Fault::at(file, number, words));
        }
        found = Some((number, line));
    }
    let Some((number, line)) = found else {
        return Ok(None);
    };
    Entry::parse(line, number).map_err(|fault| at(file, number, Some(host), &fault))
}

/// Returns the file's content, opened with care.
///
/// # Errors
/// The file is missing, not trusted, or too long.
pub fn content(paths: &Paths) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let file = paths.hostinfo();
    paths
        .read_if_there(&file, Kind::Policy, FILE_MAX)?
        .ok_or_else(|| {
            Fault::of(
                &file,
                format!("there is no host table; {} makes one", paths.cosadm("init")),
            )
        })
}

/// Returns the host that a line names, even if the rest of the line is wrong.
pub(crate) fn named(line: &[u8]) -> Option<HostName> {
    let line = line.get(..line.len().min(LINE_MAX))?;
    let line = line.trim_ascii_start();
    let end = line
        .iter()
        .position(|b| matches!(b, b' ' | b'\t'))
        .unwrap_or(line.len());
    let word: Vec<u8> = line
        .get(..end)?
        .iter()
        .copied()
        .filter(|b| !matches!(b, b'"' | b'\''))
        .collect();
    HostName::parse(std::str::from_utf8(&word).ok()?).ok()
}

/// Returns quickly whether a line can be the host's at all.
fn may_name(line: &[u8], host: &HostName) -> bool {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return true;
    }
    let word = line
        .split(|b| matches!(b, b' ' | b'\t'))
        .next()
        .unwrap_or_default();
    word.eq_ignore_ascii_case(host.as_str().as_bytes())
        || word.iter().any(|b| matches!(b, b'"' | b'\''))
}

fn at(file: &Path, number: usize, name: Option<&HostName>, fault: &Fault) -> Fault {
    match name {
        Some(name) => Fault::at(file, number, format!("{name} is denied: {fault}")),
        None => Fault::at(file, number, fault),
    }
}

/// Returns a fault about an option's value, prefixed with the option's name.
pub(crate) fn about(option: &str, why: impl std::fmt::Display) -> Fault {
    Fault::new(format!("{option}=: {why}"))
}

/// Returns a fault about a word that is not one of the expected ones.
pub(crate) fn unknown(what: &str, word: &str, hint: &str) -> Fault {
    Fault::new(format!("unknown {what} {}{hint}", quoted(word)))
}

#[cfg(test)]
#[path = "hostinfo_tests.rs"]
mod tests;
