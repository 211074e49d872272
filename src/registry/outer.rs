//! The outer door: `sestab.db`, the session table of this host (seed 002, SESTAB). It holds two
//! lists of machines, "I" (included) and "E" (excluded), the security level, and the folder of the
//! inner door.
//!
//! The daemon reads it. Only `cosadm` writes it.

mod lists;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::file::{self, File, Schema, Use};
use super::id::Id;
use crate::config::paths::Paths;
use crate::config::secure::Created;
use crate::fault::Fault;
pub use lists::{Giving, Item, Taking};

const WHAT: &str = "the outer door";

const SCHEMA: Schema = Schema {
    what: WHAT,
    application: 0x434f_5345,
    version: 1,
    tables: &[
        "CREATE TABLE setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE include (id BLOB PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, since INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE exclude (id BLOB PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, since INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX include_by_name ON include (name, id)",
        "CREATE INDEX exclude_by_name ON exclude (name, id)",
    ],
};

/// The security level of a host (SESTAB's "Set Security Level").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Only the exclude list is checked.
    Off = 0,
    /// Only the inner door is checked: the outer one is open, and unknown machines may register.
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

    const fn table(self) -> &'static str {
        match self {
            Self::Include => "include",
            Self::Exclude => "exclude",
        }
    }
}

/// The outer door, open as a file.
pub struct Outer(File);

impl Outer {
    /// Returns the path of its file.
    pub fn path(paths: &Paths) -> PathBuf {
        paths.state.join("sestab.db")
    }

    /// Creates the file if it does not exist: closed, with no machine on either list.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(paths: &Paths) -> Result<Created, Fault> {
        File::create(&Self::path(paths), &SCHEMA)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// The file is missing, not trusted, damaged, or newer than this program.
    pub fn open(paths: &Paths) -> Result<Self, Fault> {
        Self::open_to(paths, Use::Work)
    }

    pub(super) fn open_to(paths: &Paths, to: Use) -> Result<Self, Fault> {
        File::open(&Self::path(paths), &SCHEMA, to, &paths.checker()).map(Self)
    }

    /// Returns whether the path still names the file that was opened.
    pub fn is_current(&self) -> bool {
        self.0.is_current()
    }

    /// Checks the whole file.
    ///
    /// # Errors
    /// The file is not sound.
    pub fn check_whole(&self) -> Result<(), Fault> {
        self.0.check_whole(&SCHEMA)
    }

    fn tell(&self, e: &rusqlite::Error) -> Fault {
        self.0.fault(WHAT, e)
    }

    // ---- level and folder ----

    /// Returns the security level; the default is [`Level::Closed`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn level(&self) -> Result<Level, Fault> {
        let found = settings(&self.0.db).map_err(|e| self.tell(&e))?;
        Ok(found.0)
    }

    /// Sets the level, and nothing else.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_level(&mut self, level: Level) -> Result<(), Fault> {
        self.set("level", &[level.number()])
    }

    /// Returns the folder of the inner door; `None` means the state folder, which no other host
    /// shares.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn folder(&self) -> Result<Option<PathBuf>, Fault> {
        let found = settings(&self.0.db).map_err(|e| self.tell(&e))?;
        Ok(found.1)
    }

    /// Sets the folder of the inner door.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_folder(&mut self, folder: Option<&Path>) -> Result<(), Fault> {
        match folder {
            Some(folder) => self.set("folder", folder.as_os_str().as_bytes()),
            None => {
                let done = self
                    .0
                    .db
                    .execute("DELETE FROM setting WHERE name = 'folder'", []);
                done.map(|_| ()).map_err(|e| self.tell(&e))
            }
        }
    }

    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Fault> {
        let done = self.0.db.execute(
            "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)",
            params![name, value],
        );
        done.map(|_| ()).map_err(|e| self.tell(&e))
    }

    // ---- used by the daemon ----

    /// Returns whether a machine is excluded and whether it is included, the level, and the folder
    /// of the inner door, all read in one transaction.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn look(&mut self, id: &Id) -> Result<Looked, Fault> {
        let path = self.0.path().to_owned();
        let look = |db: &mut Connection| {
            let t = db.transaction()?;
            let (level, folder) = settings(&t)?;
            Ok(Looked {
                excluded: is_on(&t, List::Exclude, id)?,
                included: is_on(&t, List::Include, id)?,
                level,
                folder,
            })
        };
        look(&mut self.0.db).map_err(|e| file::told(&path, WHAT, &e))
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

fn is_on(db: &Connection, list: List, id: &Id) -> rusqlite::Result<bool> {
    let query = match list {
        List::Include => "SELECT 1 FROM include WHERE id = ?1",
        List::Exclude => "SELECT 1 FROM exclude WHERE id = ?1",
    };
    db.prepare_cached(query)?.exists([id.0])
}

/// Reads the level and the folder of the inner door. A missing or invalid level counts as closed.
fn settings(db: &Connection) -> rusqlite::Result<(Level, Option<PathBuf>)> {
    let (mut level, mut folder) = (Level::Closed, None);
    file::settings(db, |name, value| match name {
        "level" => {
            let number = value.first().copied();
            level = number.and_then(Level::of).unwrap_or(Level::Closed);
        }
        "folder" => folder = Some(PathBuf::from(OsStr::from_bytes(value))),
        _ => {}
    })?;
    Ok((level, folder))
}
