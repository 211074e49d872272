//! The text of a registry file: what its lines mean, and how a changed file is written. Pure.
//!
//! The first line is `cosserver NAME VERSION`. The lines after it hold the number of changes, the
//! mark that the machines are sorted, the settings, the hashed passwords, and the machines, one a
//! line, sorted by ID. Comments (`#`) and blank lines may stand anywhere. A line that is wrong
//! allows nothing, and one that begins with an ID denies that machine.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::io::{BufRead, Read};

use super::id::{Id, Name, Occurred};
use crate::fault::Fault;
use crate::secret::{from_hex, to_hex};

/// The version of the format that this program reads and writes.
const VERSION: u32 = 1;

/// Longest line, bytes. The longest that is written is a welcome message or a folder.
pub(super) const LINE: usize = 8_192;

/// The setting that names the folder of the inner door.
pub(super) const FOLDER: &str = "folder";

/// The first word of a line with a password.
const PASSWORD: &str = "password";

/// Tells whether a setting can have this value.
type IsRight = fn(&[u8]) -> bool;

/// What one of the two files holds.
pub(super) struct Format {
    /// What the file is, for errors.
    pub(super) what: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// The names of its settings, in the order in which they are written, and what tells whether a
    /// value is right.
    pub(super) settings: &'static [(&'static str, IsRight)],
    /// What it says of a machine.
    pub(super) kinds: &'static [Kind],
    /// What a wrong line says of its machine.
    pub(super) denial: Kind,
    /// Whether it holds passwords.
    pub(super) has_passwords: bool,
    /// Whether it says one thing of a machine at a time.
    pub(super) is_exclusive: bool,
}

/// What a line says of a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// `include`: it is on the include list.
    Include,
    /// `exclude`: it is on the exclude list.
    Exclude,
    /// `remote`: it is authorized, and registered from another host.
    Remote,
    /// `local`: it is authorized, and registered from this host.
    Local,
    /// `deleted`: the administrator has deleted it.
    Deleted,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Include => "include",
            Self::Exclude => "exclude",
            Self::Remote => "remote",
            Self::Local => "local",
            Self::Deleted => "deleted",
        }
    }

    /// Whether the machine must have a name.
    const fn is_named(self) -> bool {
        matches!(self, Self::Remote | Self::Local)
    }
}

/// A machine's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) id: Id,
    pub(super) kind: Kind,
    /// When it was put on the list, authorized or deleted.
    pub(super) at: Occurred,
    pub(super) name: Option<Name>,
}

impl Row {
    /// Returns the line, with its end.
    fn text(&self) -> String {
        let Self { id, kind, at, name } = self;
        let name = name.as_ref().map_or_else(String::new, |n| format!(" {n}"));
        format!("{id} {} {at}{name}\n", kind.word())
    }
}

/// A hashed one-time password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hashed {
    pub(super) hash: [u8; 32],
    /// What a generated password is found by; a chosen one is found by its hash.
    pub(super) selector: Option<[u8; 5]>,
    pub(super) made: Occurred,
    /// The name that its machine will get.
    pub(super) name: Name,
}

impl Hashed {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(5, ' ').skip(1);
        let hash = from_hex(words.next()?)?;
        let selector = match words.next()? {
            "chosen" => None,
            digits => Some(from_hex(digits)?),
        };
        Some(Self {
            hash,
            selector,
            made: Occurred::parse(words.next()?)?,
            name: Name::parse(words.next()?).ok()?,
        })
    }

    fn text(&self) -> String {
        let found_by = self.selector.map_or("chosen".to_owned(), |s| to_hex(&s));
        let (hash, made, name) = (to_hex(&self.hash), self.made, &self.name);
        format!("{PASSWORD} {hash} {found_by} {made} {name}\n")
    }
}

/// Returns the part of a line that counts, without the blanks before it: a reader that keeps only
/// the beginning of a line must see the same as one that has the whole.
fn beginning(line: &[u8]) -> &[u8] {
    line.get(..=LINE).unwrap_or(line).trim_ascii_start()
}

/// Returns the ID with which a machine's line begins; blanks before it are ignored.
fn id_of(line: &[u8]) -> Option<Id> {
    let line = beginning(line);
    let (digits, rest) = line.split_at_checked(32)?;
    if rest.first().is_some_and(|b| !b.is_ascii_whitespace()) {
        return None;
    }
    from_hex(std::str::from_utf8(digits).ok()?).map(Id)
}

/// Where a line belongs in a sorted file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    /// A setting.
    Setting,
    /// A password.
    Password,
    /// A machine.
    Machine(Id),
}

/// Returns where a line belongs; `None`: anywhere.
pub(super) fn place(line: &[u8]) -> Option<Place> {
    if let Some(id) = id_of(line) {
        return Some(Place::Machine(id));
    }
    let is_password = beginning(line)
        .strip_prefix(PASSWORD.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&b' '));
    if is_password {
        return Some(Place::Password);
    }
    (!is_nothing(line)).then_some(Place::Setting)
}

/// Returns whether a line is a comment or blank.
fn is_nothing(line: &[u8]) -> bool {
    matches!(beginning(line).first(), None | Some(b'#'))
}

/// What a line says.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Line<'a> {
    /// A comment, or a blank line.
    Nothing,
    /// The number of changes.
    Changes(u64),
    /// The time and the size of a sorted file.
    Sorted(i64, u64),
    Setting(&'static str, &'a [u8]),
    Password(Hashed),
    Machine(Row),
    /// It is wrong, for this reason. It may deny a machine.
    Wrong(&'static str, Option<Row>),
}

impl Line<'_> {
    /// Returns the machine's line, if it counts.
    pub(super) fn row(self) -> Option<Row> {
        match self {
            Self::Machine(row) | Self::Wrong(_, Some(row)) => Some(row),
            Self::Nothing
            | Self::Changes(_)
            | Self::Sorted(..)
            | Self::Setting(..)
            | Self::Password(_)
            | Self::Wrong(_, None) => None,
        }
    }
}

impl Format {
    fn is_right(&self, name: &str, value: &[u8]) -> bool {
        let mut known = self.settings.iter();
        known.any(|(other, is_right)| *other == name && is_right(value))
    }

    /// Parses a line without its end, which may be that of another system.
    pub(super) fn line<'a>(&self, line: &'a [u8]) -> Line<'a> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_long = line.len() > LINE;
        let line = beginning(line);
        if is_nothing(line) && !(is_long && line.is_empty()) {
            return Line::Nothing;
        }
        if let Some(id) = id_of(line) {
            return self.machine(id, line, is_long);
        }
        if is_long {
            return Line::Wrong("it is too long", None);
        }
        let mut words = line.splitn(2, |b| *b == b' ');
        let (word, value) = (words.next().unwrap_or_default(), words.next());
        let value = value.unwrap_or_default();
        let text = std::str::from_utf8(value).unwrap_or_default();
        match word {
            b"changes" => match text.parse() {
                Ok(count) => Line::Changes(count),
                Err(_) => Line::Wrong("it is no number of changes", None),
            },
            b"sorted" => {
                let numbers = text.split_once(' ');
                let numbers = numbers.and_then(|(t, s)| t.parse().ok().zip(s.parse().ok()));
                numbers.map_or(
                    Line::Wrong("it has no time and size", None),
                    |(time, size)| Line::Sorted(time, size),
                )
            }
            b"password" if self.has_passwords => {
                let parsed = std::str::from_utf8(line).ok().and_then(Hashed::parse);
                parsed.map_or(Line::Wrong("it is no password", None), Line::Password)
            }
            _ => {
                let mut known = self.settings.iter();
                match known.find(|(name, _)| name.as_bytes() == word) {
                    // Without the folder that is named, another registry would be read.
                    Some((name, is_right)) if is_right(value) || *name == FOLDER => {
                        Line::Setting(name, value)
                    }
                    Some(_) => Line::Wrong("the setting has no such value", None),
                    None => Line::Wrong("it is no setting, password or machine", None),
                }
            }
        }
    }

    fn machine<'a>(&self, id: Id, line: &'a [u8], is_long: bool) -> Line<'a> {
        let mut row = Row {
            id,
            kind: self.denial,
            at: Occurred(0),
            name: None,
        };
        let Some(text) = std::str::from_utf8(line).ok().filter(|_| !is_long) else {
            return Line::Wrong("it is too long, or not UTF-8", Some(row));
        };
        let first = |text: &'a str| -> (&'a str, &'a str) {
            let text = text.trim();
            text.split_once(|c: char| c.is_ascii_whitespace())
                .unwrap_or((text, ""))
        };
        let (word, rest) = first(text.get(32..).unwrap_or_default());
        let (at, name) = first(rest);
        let Some(kind) = self.kinds.iter().copied().find(|k| k.word() == word) else {
            return Line::Wrong("it does not say what the machine is", Some(row));
        };
        let name = match name.trim() {
            "" => Ok(None),
            name => Name::parse(name).map(Some),
        };
        let why = match (Occurred::parse(at), &name) {
            (None, _) => "it has no time of the form 2026-11-30T19:00:00Z",
            (_, Err(_)) => "its name cannot be shown, or is too long",
            (_, Ok(None)) if kind.is_named() => "it has no name",
            (Some(at), Ok(name)) => {
                let name = name.clone();
                return Line::Machine(Row { id, kind, at, name });
            }
        };
        row.name = name.ok().flatten();
        // An inclusion that does not count denies nothing at a level that does not ask for it.
        let denies = self.is_exclusive || kind == self.denial;
        Line::Wrong(why, denies.then_some(row))
    }

    /// Checks the first line.
    pub(super) fn check_first(&self, line: &[u8]) -> Result<(), String> {
        let what = self.what;
        if line.trim_ascii().is_empty() {
            return Err(format!("{what} is empty; put a copy back"));
        }
        let foreign = || format!("it is not {what}; if it was put here by mistake, move it away");
        let text = std::str::from_utf8(line).map_err(|_| foreign())?;
        let version = text.strip_prefix("cosserver ").ok_or_else(foreign)?;
        let version = version.strip_prefix(self.name).ok_or_else(foreign)?;
        let version: u32 = version.trim().parse().map_err(|_| foreign())?;
        if version == VERSION {
            return Ok(());
        }
        Err(format!(
            "it was written by another version of cosserver (form {version}; this one has form {VERSION})"
        ))
    }
}

/// Reads the next line, without its end, into `line`. Returns how many bytes it takes in the file;
/// 0 at the end. Of a line that is too long only the beginning is kept, which is too long as well.
pub(super) fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<u64> {
    line.clear();
    let most = u64::try_from(LINE).unwrap_or(u64::MAX) + 2;
    let mut length = from.by_ref().take(most).read_until(b'\n', line)?;
    if length > LINE + 1 && line.last() != Some(&b'\n') {
        length += from.skip_until(b'\n')?;
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(u64::try_from(length).unwrap_or(u64::MAX))
}

/// Settings by name.
pub(super) type Settings = BTreeMap<&'static str, Vec<u8>>;

/// A machine's line in a [`Document`].
struct Entry {
    id: Id,
    kind: Option<Kind>,
    /// The comments before it, the line, and its end.
    text: Vec<u8>,
    line: usize,
    /// The number of the line in the file that was parsed; 0: it is new.
    number: usize,
    /// Whether the line is wrong.
    is_wrong: bool,
}

/// Most wrong lines of a file that are described where it is not edited; the others are counted. A
/// host that shares the file may have written millions.
pub(super) const DESCRIBED: usize = 1_000;

/// A wrong line: its number, and the reason.
type WrongLine = (usize, &'static str);

/// The wrong lines of a file.
#[derive(Default)]
pub(super) struct WrongLines {
    first: Vec<WrongLine>,
    count: usize,
    /// How many are described at most.
    most: usize,
}

impl WrongLines {
    /// Adds a line that is behind all others.
    fn add(&mut self, number: usize, why: &'static str) {
        self.count += 1;
        if self.first.len() < self.most {
            self.first.push((number, why));
        }
    }

    /// Adds lines from anywhere.
    fn add_all(&mut self, lines: Vec<WrongLine>) {
        self.count += lines.len();
        self.first.extend(lines);
        self.first.sort_unstable();
        self.first.truncate(self.most);
        self.first.shrink_to_fit();
    }

    /// Returns the first of them, in the order of the file.
    pub(super) fn first(&self) -> &[WrongLine] {
        &self.first
    }

    /// Returns how many there are.
    pub(super) const fn count(&self) -> usize {
        self.count
    }
}

/// The content of a whole file, for writing it again. Comments and wrong lines stay in it.
pub(super) struct Document {
    format: &'static Format,
    changes: u64,
    settings: Settings,
    /// The comments before each setting.
    comments: Settings,
    passwords: Vec<Hashed>,
    rows: Vec<Entry>,
    /// Comments and wrong lines that belong to no setting and no machine.
    others: Vec<u8>,
    /// Wrong lines that were to be passwords.
    wrong_passwords: Vec<u8>,
    /// Comments after the last machine.
    tail: Vec<u8>,
    /// The lines that set a setting again: the comments before each, and the line.
    repeated: BTreeMap<&'static str, Vec<[Vec<u8>; 2]>>,
    wrong: WrongLines,
    is_changed: bool,
}

impl Document {
    /// Returns the content of a new file.
    pub(super) fn new(format: &'static Format) -> Self {
        Self {
            format,
            changes: 0,
            settings: Settings::new(),
            comments: Settings::new(),
            passwords: Vec::new(),
            rows: Vec::new(),
            others: Vec::new(),
            wrong_passwords: Vec::new(),
            tail: Vec::new(),
            repeated: BTreeMap::new(),
            wrong: WrongLines::default(),
            is_changed: true,
        }
    }

    /// Parses a file. At most so many wrong lines are described.
    ///
    /// # Errors
    /// The first line is that of another file, or of another version.
    pub(super) fn parse(
        text: &[u8],
        format: &'static Format,
        described: usize,
    ) -> Result<Self, String> {
        let mut all = Self::new(format);
        (all.is_changed, all.wrong.most) = (false, described);
        // Comments, of which it is not known yet whether a machine follows.
        let mut before = Vec::new();
        let mut hashes = BTreeSet::new();
        let mut lines = (1..).zip(text.split_inclusive(|b| *b == b'\n'));
        let (_, first) = lines.next().unwrap_or_default();
        format.check_first(first)?;
        for (number, line) in lines {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            all.take(number, line, &mut before, &mut hashes);
        }
        all.tail = before;
        // Keeps the order of two lines of one machine.
        all.rows.sort_by_key(|entry| entry.id);
        all.find_doubles();
        Ok(all)
    }

    fn take(
        &mut self,
        number: usize,
        line: &[u8],
        before: &mut Vec<u8>,
        hashes: &mut BTreeSet<[u8; 32]>,
    ) {
        let parsed = self.format.line(line);
        if let Some(id) = id_of(line) {
            let wrong = match &parsed {
                Line::Wrong(why, _) => Some(*why),
                Line::Nothing
                | Line::Changes(_)
                | Line::Sorted(..)
                | Line::Setting(..)
                | Line::Password(_)
                | Line::Machine(_) => None,
            };
            let kind = parsed.row().map(|row| row.kind);
            if let Some(why) = wrong {
                self.wrong.add(number, why);
            }
            let start = before.len();
            let mut text = std::mem::take(before);
            text.extend_from_slice(line);
            text.push(b'\n');
            self.rows.push(Entry {
                id,
                kind,
                text,
                line: start,
                number,
                is_wrong: wrong.is_some(),
            });
            return;
        }
        if parsed == Line::Nothing {
            before.extend_from_slice(line);
            before.push(b'\n');
            return;
        }
        if let Line::Setting(name, value) = parsed {
            let comments = std::mem::take(before);
            if self.settings.contains_key(name) {
                self.wrong.add(number, "duplicate setting");
                let line = [line, b"\n"].concat();
                let repeated = self.repeated.entry(name).or_default();
                repeated.push([comments, line]);
                return;
            }
            if !self.format.is_right(name, value) {
                self.wrong.add(number, "its folder is not an absolute path");
            }
            self.settings.insert(name, value.to_owned());
            self.comments.insert(name, comments);
            return;
        }
        self.others.append(before);
        match parsed {
            Line::Changes(count) => self.changes = count,
            Line::Password(password) => {
                if !hashes.insert(password.hash) {
                    self.wrong.add(number, "duplicate password");
                }
                self.passwords.push(password);
            }
            Line::Wrong(why, _) => self.keep(number, line, why),
            Line::Nothing | Line::Sorted(..) | Line::Setting(..) | Line::Machine(_) => {}
        }
    }

    /// Finds the machines' lines that say again what an earlier one says. The lines are sorted.
    fn find_doubles(&mut self) {
        let is_exclusive = self.format.is_exclusive;
        let mut doubles = Vec::new();
        for of_one in self.rows.chunk_by(|a, b| a.id == b.id) {
            let mut seen = 0_u8;
            for entry in of_one {
                let Some(kind) = entry.kind else {
                    continue;
                };
                let bit = 1 << kind as u8;
                let is_double = seen & bit != 0 || is_exclusive && seen != 0;
                seen |= bit;
                if is_double && !entry.is_wrong {
                    doubles.push((entry.number, "the machine has such a line already"));
                }
            }
        }
        self.wrong.add_all(doubles);
    }

    fn keep(&mut self, number: usize, line: &[u8], why: &'static str) {
        self.wrong.add(number, why);
        let kept = match place(line) {
            Some(Place::Password) => &mut self.wrong_passwords,
            Some(Place::Setting | Place::Machine(_)) | None => &mut self.others,
        };
        kept.extend_from_slice(line);
        kept.push(b'\n');
    }

    /// Returns the wrong lines.
    pub(super) const fn wrong(&self) -> &WrongLines {
        &self.wrong
    }

    /// Returns the settings.
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sets a setting, or removes it, with the lines that set it again: one of them would count
    /// after it.
    ///
    /// # Errors
    /// The value has more than one line, ends with a carriage return, or is too long.
    pub(super) fn set(&mut self, name: &'static str, value: Option<&[u8]>) -> Result<(), Fault> {
        let most = LINE.saturating_sub(name.len() + 1);
        if value.is_some_and(|v| v.contains(&b'\n') || v.len() > most) {
            let words = format!("{name}: a value is one line of at most {most} bytes");
            return Err(Fault::new(words));
        }
        if value.is_some_and(|v| v.ends_with(b"\r")) {
            let words = format!("{name}: a value may not end with a carriage return");
            return Err(Fault::new(words));
        }
        for [comments, _] in self.repeated.remove(name).unwrap_or_default() {
            self.is_changed = true;
            self.others.extend(comments);
        }
        if self.settings.get(name).map(Vec::as_slice) != value {
            self.is_changed = true;
            self.settings.remove(name);
            self.settings
                .extend(value.map(|value| (name, value.to_owned())));
            // The comments of a setting that is removed stay.
            if value.is_none() {
                let comments = self.comments.remove(name).unwrap_or_default();
                self.others.extend(comments);
            }
        }
        Ok(())
    }

    /// Returns the passwords.
    pub(super) fn passwords(&self) -> &[Hashed] {
        &self.passwords
    }

    /// Adds a password.
    pub(super) fn add_password(&mut self, password: Hashed) {
        self.is_changed = true;
        self.passwords.push(password);
    }

    /// Removes the passwords that `is` names, and returns the first: there may be duplicates.
    pub(super) fn take_passwords(&mut self, is: impl Fn(&Hashed) -> bool) -> Option<Hashed> {
        let all = std::mem::take(&mut self.passwords).into_iter();
        let (taken, left) = all.partition::<Vec<_>, _>(is);
        self.passwords = left;
        self.is_changed |= !taken.is_empty();
        taken.into_iter().next()
    }

    /// Returns the lines that count, in the order of their IDs.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.rows.iter().filter_map(|entry| self.parsed(entry))
    }

    /// Returns the lines that count of one machine.
    pub(super) fn rows_of(&self, id: &Id) -> Vec<Row> {
        let from = self.rows.partition_point(|entry| entry.id < *id);
        let rows = self.rows.get(from..).unwrap_or_default().iter();
        let rows = rows.take_while(|entry| entry.id == *id);
        rows.filter_map(|entry| self.parsed(entry)).collect()
    }

    fn parsed(&self, entry: &Entry) -> Option<Row> {
        let line = entry.text.get(entry.line..)?.strip_suffix(b"\n")?;
        self.format.line(line).row()
    }

    /// Writes a machine's line. It replaces one that says the same, or whatever the file says of
    /// the machine if it says one thing at a time.
    pub(super) fn put(&mut self, row: &Row) {
        let text = row.text();
        let at = self.rows.partition_point(|entry| entry.id < row.id);
        let from = self.rows.get(at..).unwrap_or_default();
        let is_exclusive = self.format.is_exclusive;
        let own = from.iter().take_while(|entry| entry.id == row.id);
        let own = own.filter(|entry| is_exclusive || entry.kind == Some(row.kind));
        let mut own = own.map(|entry| entry.text.get(entry.line..).unwrap_or_default());
        if own.next() == Some(text.as_bytes()) && own.next().is_none() {
            return;
        }
        let mut before = self.remove_where(&row.id, |kind| is_exclusive || kind == Some(row.kind));
        let line = before.len();
        before.extend_from_slice(text.as_bytes());
        self.is_changed = true;
        let at = self
            .rows
            .partition_point(|entry| (entry.id, entry.kind) < (row.id, Some(row.kind)));
        let entry = Entry {
            id: row.id,
            kind: Some(row.kind),
            text: before,
            line,
            number: 0,
            is_wrong: false,
        };
        self.rows.insert(at, entry);
    }

    /// Removes what the file says of a machine. Returns whether there was something.
    pub(super) fn remove(&mut self, id: &Id, kind: Kind) -> bool {
        let count = self.rows.len();
        let comments = self.remove_where(id, |other| other == Some(kind));
        let at = self.rows.partition_point(|entry| entry.id < *id);
        // The comments before it stay.
        match self.rows.get_mut(at) {
            Some(next) => {
                next.line += comments.len();
                next.text.splice(..0, comments);
            }
            None => drop(self.tail.splice(..0, comments)),
        }
        self.rows.len() < count
    }

    /// Removes lines of a machine, and returns the comments before them.
    fn remove_where(&mut self, id: &Id, is: impl Fn(Option<Kind>) -> bool) -> Vec<u8> {
        let from = self.rows.partition_point(|entry| entry.id < *id);
        let to = self.rows.partition_point(|entry| entry.id <= *id);
        let own = self.rows.drain(from..to);
        let (removed, kept): (Vec<_>, Vec<_>) = own.partition(|entry| is(entry.kind));
        self.rows.splice(from..from, kept);
        self.is_changed |= !removed.is_empty();
        let comments = |entry: Entry| entry.text.into_iter().take(entry.line);
        removed.into_iter().flat_map(comments).collect()
    }

    /// Replaces all lines of this kind. A machine that has one already keeps its time.
    pub(super) fn replace_all(&mut self, kind: Kind, rows: impl Iterator<Item = Row>) {
        self.is_changed = true;
        let all = std::mem::take(&mut self.rows).into_iter();
        let (old, mut rest): (Vec<_>, Vec<_>) = all.partition(|entry| entry.kind == Some(kind));
        let mut left: BTreeMap<Id, Entry> = BTreeMap::new();
        for entry in old {
            // Of two lines of one machine the first stays.
            let second = match left.entry(entry.id) {
                btree_map::Entry::Occupied(_) => Some(entry),
                btree_map::Entry::Vacant(place) => {
                    place.insert(entry);
                    None
                }
            };
            let comments = second
                .iter()
                .filter_map(|entry| entry.text.get(..entry.line));
            comments.for_each(|comments| self.others.extend_from_slice(comments));
        }
        let mut old = left;
        for mut row in rows {
            let before = old.remove(&row.id);
            let same = before.as_ref().and_then(|entry| self.parsed(entry));
            row.at = same.map_or(row.at, |same| same.at);
            let mut text = before.map_or_else(Vec::new, |mut entry| {
                entry.text.truncate(entry.line);
                entry.text
            });
            let line = text.len();
            text.extend_from_slice(row.text().as_bytes());
            rest.push(Entry {
                id: row.id,
                kind: Some(kind),
                text,
                line,
                number: 0,
                is_wrong: false,
            });
        }
        for entry in old.into_values() {
            self.others
                .extend_from_slice(entry.text.get(..entry.line).unwrap_or_default());
        }
        rest.sort_by_key(|entry| (entry.id, entry.kind));
        self.rows = rest;
    }

    /// Takes over the number of changes of an older version, whatever this one says.
    pub(super) const fn follow(&mut self, older: &Self) {
        self.changes = older.changes;
    }

    /// Returns whether it has to be written.
    pub(super) const fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Returns the text of the next version, which has this modification time (seconds).
    pub(super) fn text(&self, time: i64) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, _) in self.format.settings {
            if let Some(value) = self.settings.get(name) {
                body.extend_from_slice(self.comments.get(name).map_or(&[], Vec::as_slice));
                body.extend_from_slice(name.as_bytes());
                body.push(b' ');
                body.extend_from_slice(value);
                body.push(b'\n');
            }
        }
        let repeated = self.repeated.values().flatten().flatten().flatten();
        body.extend(repeated.chain(&self.others).chain(&self.wrong_passwords));
        for password in &self.passwords {
            body.extend_from_slice(password.text().as_bytes());
        }
        for entry in &self.rows {
            body.extend_from_slice(&entry.text);
        }
        body.extend_from_slice(&self.tail);
        let (name, changes, size) = (self.format.name, self.changes.saturating_add(1), body.len());
        let head = format!("cosserver {name} {VERSION}\nchanges {changes}\nsorted {time} {size}\n");
        let mut text = head.into_bytes();
        text.append(&mut body);
        text
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
