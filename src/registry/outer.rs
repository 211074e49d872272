//! The outer door: `sestab.db`, the session table of this host (seed 002, SESTAB). Two
//! lists of machines, "I" (included) and "E" (excluded), the security level, and in which
//! folder the inner door stands.
//!
//! Looked at by the daemon, written by `cosadm` alone.

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
    /// No list of machines is asked but the excluded ones.
    Off = 0,
    /// The inner door alone: the outer one is open, and unknown machines may register.
    Open = 1,
    /// Both doors: the outer one is closed.
    Closed = 2,
}

impl Level {
    /// Every level, the least secure first.
    pub const ALL: [Self; 3] = [Self::Off, Self::Open, Self::Closed];

    /// Its number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The level of this number.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.number() == number)
    }
}

/// One of the two lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    /// "I": let in while the outer door is closed.
    Include,
    /// "E": kept out, always.
    Exclude,
}

impl List {
    /// The list of this letter.
    pub fn of(letter: &str) -> Option<Self> {
        match letter {
            "I" | "i" => Some(Self::Include),
            "E" | "e" => Some(Self::Exclude),
            _ => None,
        }
    }

    /// Its letter.
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
    /// Where its file is.
    pub fn path(paths: &Paths) -> PathBuf {
        paths.state.join("sestab.db")
    }

    /// Makes the file where there is none: closed, with no machine on either list.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(paths: &Paths) -> Result<Created, Fault> {
        File::create(&Self::path(paths), &SCHEMA)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// It is missing, or not to be trusted, damaged, or newer than this program.
    pub fn open(paths: &Paths) -> Result<Self, Fault> {
        Self::open_to(paths, Use::Work)
    }

    pub(super) fn open_to(paths: &Paths, to: Use) -> Result<Self, Fault> {
        File::open(&Self::path(paths), &SCHEMA, to, &paths.checker()).map(Self)
    }

    /// Whether the file is still the one that was opened.
    pub fn is_current(&self) -> bool {
        self.0.is_current()
    }

    /// Looks whether the whole file is sound.
    ///
    /// # Errors
    /// It is not.
    pub fn check_whole(&self) -> Result<(), Fault> {
        self.0.check_whole(&SCHEMA)
    }

    fn tell(&self, e: &rusqlite::Error) -> Fault {
        self.0.fault(WHAT, e)
    }

    // ---- level and folder ----

    /// The security level; without another it is [`Level::Closed`].
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

    /// The folder of the inner door; `None`: the state folder, which no other host shares.
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

    // ---- the daemon's question ----

    /// Whether a machine is excluded, whether it is included, the level, and where the
    /// inner door stands: all of one moment.
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

/// What the outer door says of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// It is on the exclude list.
    pub excluded: bool,
    /// It is on the include list.
    pub included: bool,
    /// The security level.
    pub level: Level,
    /// The folder of the inner door; `None`: the state folder.
    pub folder: Option<PathBuf>,
}

fn is_on(db: &Connection, list: List, id: &Id) -> rusqlite::Result<bool> {
    let query = match list {
        List::Include => "SELECT 1 FROM include WHERE id = ?1",
        List::Exclude => "SELECT 1 FROM exclude WHERE id = ?1",
    };
    db.prepare_cached(query)?.exists([id.0])
}

/// The level, and in which folder the inner door stands. A level that is not there, or
/// cannot be, closes.
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
