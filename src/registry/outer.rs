//! The outer door: `sestab`, the session table of this host (seed 002, SESTAB). It holds two lists
//! of machines, "I" (included) and "E" (excluded), the security level, and the folder of the inner
//! door.
//!
//! The daemon reads it. Only `cosadm` writes it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::edit::Edit;
use super::file::Table;
use super::id::{Id, Name, Occurred};
use super::text::{Document, FOLDER, Format, Kind, Row, Settings};
use crate::config::paths::Paths;
use crate::config::secure::Created;
use crate::fault::Fault;

pub(super) const FORMAT: Format = Format {
    what: "the outer door",
    name: "sestab",
    settings: &[
        ("level", |v| level_of(v).is_some()),
        (FOLDER, |v| v.starts_with(b"/")),
    ],
    kinds: &[Kind::Include, Kind::Exclude],
    denial: Kind::Exclude,
    has_passwords: false,
    is_exclusive: false,
};

/// The security level of a host (SESTAB's "Set Security Level").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Only the exclude list is checked.
    Off = 0,
    /// The exclude list and the inner door are checked: the outer door is open, and unknown
    /// machines may register.
    Open = 1,
    /// Both doors are checked: the outer one is closed.
    Closed = 2,
}

impl Level {
    /// Every level, the least secure first.
    pub const ALL: [Self; 3] = [Self::Off, Self::Open, Self::Closed];

    /// Returns its number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the level with this number.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.number() == number)
    }
}

/// One of the two lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    /// "I": allowed while the outer door is closed.
    Include,
    /// "E": always denied.
    Exclude,
}

impl List {
    /// Returns the list with this letter.
    pub fn of(letter: &str) -> Option<Self> {
        match letter {
            "I" | "i" => Some(Self::Include),
            "E" | "e" => Some(Self::Exclude),
            _ => None,
        }
    }

    /// Returns its letter.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Include => "I",
            Self::Exclude => "E",
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Include => Kind::Include,
            Self::Exclude => Kind::Exclude,
        }
    }
}

/// A machine on one of the lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The machine's ID.
    pub id: Id,
    /// Its name, as the administrator knows it; may be empty.
    pub name: String,
    /// When it was put on the list.
    pub since: Occurred,
}

impl Item {
    fn of(row: Row) -> Self {
        let name = row.name.map_or_else(String::new, |n| n.as_str().to_owned());
        Self {
            id: row.id,
            name,
            since: row.at,
        }
    }
}

/// The outer door's answer about a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// It is on the exclude list.
    pub excluded: bool,
    /// It is on the include list.
    pub included: bool,
    /// The security level.
    pub level: Level,
    /// The folder of the inner door; `None` means the state folder.
    pub folder: Option<PathBuf>,
}

/// The outer door.
pub struct Outer(Table);

impl Outer {
    /// Returns the path of its file.
    pub fn path(paths: &Paths) -> PathBuf {
        paths.state.join(FORMAT.name)
    }

    /// Creates the file if it does not exist: closed, with no machine on either list.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(paths: &Paths) -> Result<Created, Fault> {
        Table::create(&Self::path(paths), &FORMAT)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// The file is missing, not trusted, damaged, or newer than this program.
    pub fn open(paths: &Paths) -> Result<Self, Fault> {
        let mut outer = Self::of(paths);
        outer.look(&Id([0; 16]))?;
        Ok(outer)
    }

    /// Returns the outer door, whose file is opened when it is asked.
    pub(super) fn of(paths: &Paths) -> Self {
        Self(Table::of(&Self::path(paths), &FORMAT, paths.checker()))
    }

    /// Has the file read whole only up to this size, bytes.
    pub(super) fn read_at_most(self, most: u64) -> Self {
        Self(self.0.read_at_most(most))
    }

    /// Returns how many changes the file has had; `None`: it cannot be read.
    pub(super) fn changes(&mut self) -> Option<u64> {
        let (head, _) = self.0.look(&Id([0; 16])).ok()?;
        Some(head.changes)
    }

    /// Starts an edit of the whole file as text.
    ///
    /// # Errors
    /// Another process has been writing it for long, or the file cannot be read.
    pub fn edit(self) -> Result<Edit, Fault> {
        Edit::begin(self.0)
    }

    /// Returns a fault for each line that is wrong.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn wrong_lines(&self) -> Result<Vec<Fault>, Fault> {
        self.0.wrong_lines()
    }

    // ---- level and folder ----

    /// Returns the security level; the default is [`Level::Closed`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn level(&self) -> Result<Level, Fault> {
        Ok(level(&self.0.settings()?))
    }

    /// Sets the level, and nothing else.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_level(&mut self, level: Level) -> Result<(), Fault> {
        self.change(|all| set_level(all, level))
    }

    /// Returns the folder of the inner door; `None` means the state folder, which no other host
    /// shares.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn folder(&self) -> Result<Option<PathBuf>, Fault> {
        folder(&self.0.settings()?).map_err(|why| Fault::of(self.0.path(), why))
    }

    /// Sets the folder of the inner door.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_folder(&mut self, folder: Option<&Path>) -> Result<(), Fault> {
        let folder = folder.map(|folder| folder.as_os_str().as_bytes());
        self.change(|all| all.set(FOLDER, folder))
    }

    fn change<T>(
        &mut self,
        work: impl FnOnce(&mut Document) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.0.change_always(work)
    }

    // ---- used by the daemon ----

    /// Returns whether a machine is excluded and whether it is included, the level, and the folder
    /// of the inner door, all of one version of the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn look(&mut self, id: &Id) -> Result<Looked, Fault> {
        let (head, rows) = self.0.look(id)?;
        let is_on = |kind| rows.iter().any(|row| row.kind == kind);
        let (level, folder) = (level(&head.settings), folder(&head.settings));
        Ok(Looked {
            excluded: is_on(Kind::Exclude),
            included: is_on(Kind::Include),
            level,
            folder: folder.map_err(|why| Fault::of(self.0.path(), why))?,
        })
    }

    // ---- the lists, used by the administrator ----

    /// Returns the machines on a list, in the order of their IDs.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn items(&self, list: List) -> Result<Vec<Item>, Fault> {
        let all = self.0.read()?;
        let rows = all.rows().filter(|row| row.kind == list.kind());
        Ok(rows.map(Item::of).collect())
    }

    /// Returns the same in the order of their names.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn items_by_name(&self, list: List) -> Result<Vec<Item>, Fault> {
        let mut all = self.items(list)?;
        all.sort_by_cached_key(|item| (item.name.to_ascii_lowercase(), item.id));
        Ok(all)
    }

    /// Returns a machine on a list.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, list: List, id: &Id) -> Result<Option<Item>, Fault> {
        Ok(on(&self.0.read()?, list, id).map(Item::of))
    }

    /// Returns the number of machines on a list.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self, list: List) -> Result<u64, Fault> {
        let all = self.0.read()?;
        let count = all.rows().filter(|row| row.kind == list.kind()).count();
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Puts a machine on a list. Returns `false` if it was already there; it then has the new name.
    ///
    /// # Errors
    /// The name is none, or the file cannot be written.
    pub fn put(&mut self, list: List, id: &Id, name: &str) -> Result<bool, Fault> {
        let name = optional(name)?;
        self.change(|all| {
            let there = on(all, list, id);
            all.put(&Row {
                id: *id,
                kind: list.kind(),
                at: (there.as_ref().map(|row| row.at))
                    .filter(|at| at.0 > 0)
                    .unwrap_or_else(Occurred::now),
                name,
            });
            Ok(there.is_none())
        })
    }

    /// Renames a machine on a list. Returns `false` if it is no longer there.
    ///
    /// # Errors
    /// The name is none, or the file cannot be written.
    pub fn rename(&mut self, list: List, id: &Id, name: &str) -> Result<bool, Fault> {
        let name = optional(name)?;
        self.change(|all| {
            let there = on(all, list, id);
            let renamed = there.map(|row| all.put(&Row { name, ..row }));
            Ok(renamed.is_some())
        })
    }

    /// Takes a machine off a list. Returns `false` if it was not there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn delete(&mut self, list: List, id: &Id) -> Result<bool, Fault> {
        self.change(|all| Ok(all.remove(id, list.kind())))
    }

    /// Closes the outer door: the include list becomes these machines. Returns their number.
    ///
    /// # Errors
    /// There are none, which would lock out every machine; or the file cannot be written. Nothing
    /// has changed then.
    pub fn close(&mut self, machines: Vec<(Id, Name)>) -> Result<u64, Fault> {
        if machines.is_empty() {
            return Err(Fault::new(
                "there is no authorized machine: closing the outer door now would deny every machine",
            ));
        }
        let count = u64::try_from(machines.len()).unwrap_or(u64::MAX);
        self.change(|all| {
            let at = Occurred::now();
            let rows = machines.into_iter().map(|(id, name)| Row {
                id,
                kind: Kind::Include,
                at,
                name: Some(name),
            });
            all.replace_all(Kind::Include, rows);
            set_level(all, Level::Closed)
        })?;
        Ok(count)
    }
}

fn on(all: &Document, list: List, id: &Id) -> Option<Row> {
    let rows = all.rows_of(id).into_iter();
    rows.into_iter().find(|row| row.kind == list.kind())
}

fn optional(name: &str) -> Result<Option<Name>, Fault> {
    let name = Some(name).filter(|name| !name.is_empty());
    name.map(Name::parse).transpose()
}

/// Returns the level. A missing or invalid one counts as closed.
fn level(settings: &Settings) -> Level {
    let value = settings.get("level");
    value.and_then(|v| level_of(v)).unwrap_or(Level::Closed)
}

fn level_of(value: &[u8]) -> Option<Level> {
    Level::of(std::str::from_utf8(value).ok()?.trim().parse().ok()?)
}

fn set_level(all: &mut Document, level: Level) -> Result<(), Fault> {
    all.set("level", Some(level.number().to_string().as_bytes()))
}

/// Returns the folder of the inner door. Processes have different working folders, so a relative
/// path is an error.
fn folder(settings: &Settings) -> Result<Option<PathBuf>, &'static str> {
    let path = settings.get(FOLDER).map(|path| OsStr::from_bytes(path));
    match path.map(PathBuf::from) {
        Some(path) if !path.is_absolute() => Err("its folder is not an absolute path"),
        path => Ok(path),
    }
}
