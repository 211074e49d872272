//! The outer door: `sestab.db`, the session table of this host (seed 002, SESTAB). Two
//! lists of machines, "I" (included) and "E" (excluded), the security level, and in which
//! folder the inner door stands.
//!
//! Looked at by the daemon, written by `cosadm` alone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::file::{self, File, Schema, Use};
use super::id::{Id, Name, Occurred};
use crate::config::place::Place;
use crate::config::secure::Created;
use crate::fault::Fault;

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

/// A machine on one of the lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Which machine.
    pub id: Id,
    /// Its name, as the manager knows it; may be empty.
    pub name: String,
    /// Since when it is on the list.
    pub since: Occurred,
}

/// Takes one machine.
pub type Taking<'a> = dyn FnMut(&Id, &Name) -> Result<(), Fault> + 'a;

/// Gives machines, one after the other.
pub type Giving<'a> = dyn FnMut(&mut Taking<'_>) -> Result<(), Fault> + 'a;

/// The outer door, open as a file.
pub struct Outer(File);

impl Outer {
    /// Where its file is.
    pub fn path(place: &Place) -> PathBuf {
        place.state.join("sestab.db")
    }

    /// Makes the file where there is none: closed, with no machine on either list.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(place: &Place) -> Result<Created, Fault> {
        File::create(&Self::path(place), &SCHEMA)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// It is missing, or not to be trusted, damaged, or newer than this program.
    pub fn open(place: &Place) -> Result<Self, Fault> {
        Self::open_to(place, Use::Work)
    }

    pub(super) fn open_to(place: &Place, to: Use) -> Result<Self, Fault> {
        File::open(&Self::path(place), &SCHEMA, to).map(Self)
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

    // ---- the lists ----

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

    /// At most so many machines on a list in the order of their names: the first ones, or
    /// those behind `after`. Nobody who writes waits between one call and the next.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn items_after(
        &self,
        list: List,
        after: Option<&Item>,
        most: u32,
    ) -> Result<Vec<Item>, Fault> {
        let Some(after) = after else {
            return self.items_from(list, 0, most);
        };
        let query = format!(
            "SELECT id, name, since FROM {} WHERE (name, id) > (?1, ?2)
             ORDER BY name, id LIMIT ?3",
            list.table()
        );
        self.some(&query, params![after.name, after.id.0, most])
    }

    /// At most so many machines on a list in the order of their names, without the first
    /// `skipped`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn items_from(&self, list: List, skipped: u64, most: u32) -> Result<Vec<Item>, Fault> {
        let query = format!(
            "SELECT id, name, since FROM {} ORDER BY name, id LIMIT ?2 OFFSET ?1",
            list.table()
        );
        self.some(&query, params![file::number(skipped), most])
    }

    fn some(&self, query: &str, given: &[&dyn rusqlite::ToSql]) -> Result<Vec<Item>, Fault> {
        let read = || {
            let mut query = self.0.db.prepare_cached(query)?;
            let rows = query.query_map(given, item)?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|e| self.tell(&e))
    }

    /// A machine on a list.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, list: List, id: &Id) -> Result<Option<Item>, Fault> {
        let query = format!("SELECT id, name, since FROM {} WHERE id = ?1", list.table());
        let found = self.0.db.query_row(&query, [id.0], item);
        found.optional().map_err(|e| self.tell(&e))
    }

    /// How many machines are on a list.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self, list: List) -> Result<u64, Fault> {
        let query = format!("SELECT count(*) FROM {}", list.table());
        let found = self.0.db.query_row(&query, [], |row| row.get(0));
        found.map_err(|e| self.tell(&e))
    }

    /// Puts a machine on a list. `false`: it was there, and has this name now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(&mut self, list: List, id: &Id, name: &str) -> Result<bool, Fault> {
        let there = self.get(list, id)?.is_some();
        let query = format!(
            "INSERT INTO {} (id, name, since) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            list.table()
        );
        let done = self
            .0
            .db
            .execute(&query, params![id.0, name, Occurred::now().0]);
        done.map_err(|e| self.tell(&e))?;
        Ok(!there)
    }

    /// Takes a machine off a list. `false`: it was not there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn delete(&mut self, list: List, id: &Id) -> Result<bool, Fault> {
        let query = format!("DELETE FROM {} WHERE id = ?1", list.table());
        let done = self.0.db.execute(&query, [id.0]);
        done.map(|n| n > 0).map_err(|e| self.tell(&e))
    }

    /// Closes the outer door: the include list becomes these machines, which `machines`
    /// gives one after the other, in the order of their IDs. How many they are. What is as
    /// it was is not written again, so that others do not wait long for a long list.
    ///
    /// # Errors
    /// There are none, which would lock everybody out; or the file cannot be written.
    /// Nothing has changed then.
    pub fn close(&mut self, machines: &mut Giving<'_>) -> Result<u64, Fault> {
        self.0.keep_writes_back(true)?;
        let count = self.take_over(machines);
        self.0.keep_writes_back(false)?;
        count
    }

    fn take_over(&mut self, machines: &mut Giving<'_>) -> Result<u64, Fault> {
        let path = self.0.path().to_owned();
        let tell = |e: rusqlite::Error| file::told(&path, WHAT, &e);
        let t = self.0.write(WHAT)?;
        let mut count = 0;
        let since = Occurred::now().0;
        // Every ID is behind the empty one.
        let mut last = Vec::new();
        {
            let mut put = t
                .prepare(
                    "INSERT INTO include (id, name, since) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET name = excluded.name
                     WHERE name <> excluded.name COLLATE BINARY",
                )
                .map_err(tell)?;
            let mut drop_between = t
                .prepare("DELETE FROM include WHERE id > ?1 AND id < ?2")
                .map_err(tell)?;
            machines(&mut |id, name| {
                if id.0.as_slice() <= last.as_slice() {
                    return Err(Fault::new("the machines are not in the order of their IDs"));
                }
                count += 1;
                drop_between.execute(params![last, id.0]).map_err(tell)?;
                put.execute(params![id.0, name.as_str(), since])
                    .map_err(tell)?;
                last = id.0.to_vec();
                Ok(())
            })?;
        }
        t.execute("DELETE FROM include WHERE id > ?1", [&last])
            .map_err(tell)?;
        if count == 0 {
            return Err(Fault::new(
                "there is no authorized machine: closing the outer door now would lock everybody out",
            ));
        }
        t.execute(
            "INSERT OR REPLACE INTO setting (name, value) VALUES ('level', ?1)",
            [[Level::Closed.number()]],
        )
        .map_err(tell)?;
        t.commit().map_err(tell)?;
        Ok(count)
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

fn item(row: &rusqlite::Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item {
        id: Id(row.get(0)?),
        name: row.get(1)?,
        since: Occurred(row.get(2)?),
    })
}
