//! The inner door: `idfile.db`, the authorized machines (seed 002, IDFILE). Its folder may be
//! shared by several hosts; SQLite's locks serialize them.
//!
//! The daemon reads it. The registry worker and `cosadm` write it. Each change is one transaction,
//! so it is complete or absent even if the writer is killed.

mod passwords;
mod settings;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::decision::RegistrationState;
use super::file::{self, File, Schema, Use};
use super::id::{Id, Name, Occurred};
use crate::config::paths::Paths;
use crate::config::secure::{Checker, Created};
use crate::fault::Fault;
pub use passwords::{Generated, Pending};
pub use settings::{Setting, Settings, WELCOME};

const WHAT: &str = "the inner door";

const SCHEMA: Schema = Schema {
    what: WHAT,
    application: 0x434f_4944,
    version: 1,
    tables: &[
        "CREATE TABLE setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE machine (id BLOB PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, authorized INTEGER NOT NULL, remote INTEGER NOT NULL, seen INTEGER, deleted INTEGER) WITHOUT ROWID",
        "CREATE TABLE password (hash BLOB PRIMARY KEY, selector BLOB UNIQUE, name TEXT NOT NULL UNIQUE, made INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX machine_by_name ON machine (name, id) WHERE deleted IS NULL",
    ],
};

/// The time after which a machine's last-seen time is written again.
const SEEN: std::time::Duration = std::time::Duration::from_secs(3_600);

/// The number of machines read at once.
const PAGE: u32 = 1_000;

/// An authorized machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The machine's ID.
    pub id: Id,
    /// Its name, or the name of its user.
    pub name: Name,
    /// When it was authorized.
    pub authorized: Occurred,
    /// Whether it registered from another host than the one with this door.
    pub remote: bool,
    /// When it was last seen, to the hour.
    pub seen: Option<Occurred>,
}

/// Checks whether a machine may still register.
pub type Still<'a> = &'a mut dyn FnMut() -> Result<bool, Fault>;

/// The inner door, open as a file.
pub struct Inner(File);

impl Inner {
    /// Returns the path of the file in this folder, or in the state folder.
    pub fn path(paths: &Paths, folder: Option<&Path>) -> PathBuf {
        folder.unwrap_or(&paths.state).join("idfile.db")
    }

    /// Creates the file, without a machine, if it does not exist.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> Result<Created, Fault> {
        File::create(path, &SCHEMA)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// The file is missing, not trusted, damaged, or newer than this program.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        Self::open_to(path, Use::Work, &Checker::new())
    }

    pub(super) fn open_to(path: &Path, to: Use, folders: &Checker) -> Result<Self, Fault> {
        File::open(path, &SCHEMA, to, folders).map(Self)
    }

    /// Returns whether the path still names the file that was opened.
    pub fn is_current(&self) -> bool {
        self.0.is_current()
    }

    /// Returns the path of the file.
    pub fn file(&self) -> &Path {
        self.0.path()
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

    /// Runs one write transaction if `still` allows it once the write lock is held. Returns `None`
    /// if it does not.
    fn change_if<T>(
        &mut self,
        still: Still<'_>,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Option<T>, Fault> {
        let path = self.0.path().to_owned();
        let tell = |e: rusqlite::Error| file::told(&path, WHAT, &e);
        let t = self.0.write(WHAT)?;
        if !still()? {
            return Ok(None);
        }
        let done = work(&t).map_err(tell)?;
        t.commit().map_err(tell)?;
        Ok(done)
    }

    /// Runs one write transaction.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        let path = self.0.path().to_owned();
        let tell = |e: rusqlite::Error| file::told(&path, WHAT, &e);
        let t = self.0.write(WHAT)?;
        let done = work(&t).map_err(tell)?;
        t.commit().map_err(tell)?;
        Ok(done)
    }

    // ---- used by the daemon ----

    /// Returns the state of a machine, the settings, and whether a one-time password is pending.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn look(&mut self, id: &Id) -> Result<(RegistrationState, Settings, bool), Fault> {
        let path = self.0.path().to_owned();
        let look = |db: &mut Connection| {
            let t = db.transaction()?;
            let pending = t
                .prepare_cached("SELECT 1 FROM password LIMIT 1")?
                .exists([])?;
            Ok((state(&t, id)?, settings::read(&t)?, pending))
        };
        look(&mut self.0.db).map_err(|e| file::told(&path, WHAT, &e))
    }

    /// Registers a machine without an entry, after its host has proven its cookie. Returns `false`,
    /// and changes nothing, if the file has an entry.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn introduce(&mut self, id: &Id, name: &Name, remote: bool) -> Result<bool, Fault> {
        let now = Occurred::now().0;
        self.change(|t| {
            let query = "INSERT OR IGNORE INTO machine (id, name, authorized, remote, seen)
                         VALUES (?1, ?2, ?3, ?4, ?3)";
            Ok(t.execute(query, params![id.0, name.as_str(), now, remote])? > 0)
        })
    }

    /// Registers a machine in build mode under the name that its user typed. Returns its current
    /// name, which is an older one if the machine was registered in the meantime. Returns `None` if
    /// build mode is now off.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn register(
        &mut self,
        id: &Id,
        name: &Name,
        remote: bool,
        still: Still<'_>,
    ) -> Result<Option<Name>, Fault> {
        self.change_if(still, |t| {
            if let Some(known) = known_as(t, id)? {
                return Ok(Some(known));
            }
            if !settings::read(t)?.build_mode {
                return Ok(None);
            }
            put(t, id, name, remote, true)?;
            Ok(Some(name.clone()))
        })
    }

    /// Records that a machine was seen.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn saw(&mut self, id: &Id) -> Result<(), Fault> {
        let now = Occurred::now().0;
        self.change(|t| {
            let query = "UPDATE machine SET seen = ?2 WHERE id = ?1 AND deleted IS NULL";
            t.execute(query, params![id.0, now]).map(|_| ())
        })
    }

    // ---- used by the administrator ----

    /// Passes each authorized machine to `each`, in the order of their IDs. Reads in pages, so that
    /// writers do not wait for the whole list.
    ///
    /// # Errors
    /// The file cannot be read, or `each` has failed.
    pub fn machines(
        &self,
        each: &mut dyn FnMut(Machine) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let query = "SELECT id, name, authorized, remote, seen FROM machine
                     WHERE deleted IS NULL AND id > ?1 ORDER BY id LIMIT ?2";
        // Every ID sorts after the empty one.
        let mut last = Vec::new();
        loop {
            let page = self.some(query, params![last, PAGE])?;
            let Some(end) = page.last() else {
                return Ok(());
            };
            last = end.id.0.to_vec();
            for machine in page {
                each(machine)?;
            }
        }
    }

    /// Returns at most `most` authorized machines in the order of their names: the first ones, or
    /// those after `after`. No lock is held between calls, so writers do not wait.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn machines_after(
        &self,
        after: Option<&Machine>,
        most: u32,
    ) -> Result<Vec<Machine>, Fault> {
        let Some(after) = after else {
            return self.machines_from(0, most);
        };
        let query = "SELECT id, name, authorized, remote, seen FROM machine
                     WHERE deleted IS NULL AND (name, id) > (?1, ?2)
                     ORDER BY name, id LIMIT ?3";
        self.some(query, params![after.name.as_str(), after.id.0, most])
    }

    /// Returns at most `most` authorized machines in the order of their names, without the first
    /// `skipped`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn machines_from(&self, skipped: u64, most: u32) -> Result<Vec<Machine>, Fault> {
        let query = "SELECT id, name, authorized, remote, seen FROM machine
                     WHERE deleted IS NULL
                     ORDER BY name, id LIMIT ?2 OFFSET ?1";
        self.some(query, params![file::number(skipped), most])
    }

    fn some(&self, query: &str, given: &[&dyn rusqlite::ToSql]) -> Result<Vec<Machine>, Fault> {
        let read = || {
            let mut query = self.0.db.prepare_cached(query)?;
            let rows = query.query_map(given, machine)?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|e| self.tell(&e))
    }

    /// Returns whether the file has never held anything: no machine, no setting, no password.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_untouched(&self) -> Result<bool, Fault> {
        let query = "SELECT NOT EXISTS (SELECT 1 FROM machine)
                        AND NOT EXISTS (SELECT 1 FROM setting)
                        AND NOT EXISTS (SELECT 1 FROM password)";
        let found = self.0.db.query_row(query, [], |row| row.get(0));
        found.map_err(|e| self.tell(&e))
    }

    /// Returns the number of authorized machines.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self) -> Result<u64, Fault> {
        // Any other query would look up each machine through the index of names.
        let query = "SELECT count(*) - count(deleted) FROM machine";
        let found = self.0.db.query_row(query, [], |row| row.get(0));
        found.map_err(|e| self.tell(&e))
    }

    /// Returns an authorized machine.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn machine(&self, id: &Id) -> Result<Option<Machine>, Fault> {
        let query = "SELECT id, name, authorized, remote, seen FROM machine
                     WHERE id = ?1 AND deleted IS NULL";
        let found = self.0.db.query_row(query, [id.0], machine);
        found.optional().map_err(|e| self.tell(&e))
    }

    /// Authorizes a machine on the administrator's behalf. Returns `false` if it was already
    /// authorized; it then has the new name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, id: &Id, name: &Name, remote: bool) -> Result<bool, Fault> {
        self.change(|t| {
            let known = matches!(state(t, id)?, RegistrationState::Known { .. });
            if known {
                let query = "UPDATE machine SET name = ?2 WHERE id = ?1";
                t.execute(query, params![id.0, name.as_str()])?;
            } else {
                put(t, id, name, remote, false)?;
            }
            Ok(!known)
        })
    }

    /// Renames a machine. Returns `false` if there is no such machine.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rename(&mut self, id: &Id, name: &Name) -> Result<bool, Fault> {
        self.change(|t| {
            let query = "UPDATE machine SET name = ?2 WHERE id = ?1 AND deleted IS NULL";
            Ok(t.execute(query, params![id.0, name.as_str()])? > 0)
        })
    }

    /// Deletes a machine. The deletion is recorded, so that a host's cookie does not register it
    /// again. Returns `false` if there is no such machine.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn delete(&mut self, id: &Id) -> Result<bool, Fault> {
        let now = Occurred::now().0;
        self.change(|t| {
            let query = "UPDATE machine SET deleted = ?2 WHERE id = ?1 AND deleted IS NULL";
            Ok(t.execute(query, params![id.0, now])? > 0)
        })
    }
}

/// Writes the entry of a machine, even if one of this ID was deleted.
fn put(t: &Connection, id: &Id, name: &Name, remote: bool, seen: bool) -> rusqlite::Result<()> {
    let now = Occurred::now().0;
    t.execute(
        "INSERT OR REPLACE INTO machine (id, name, authorized, remote, seen)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id.0, name.as_str(), now, remote, seen.then_some(now)],
    )
    .map(|_| ())
}

fn state(db: &Connection, id: &Id) -> rusqlite::Result<RegistrationState> {
    let query = "SELECT deleted IS NOT NULL, seen FROM machine WHERE id = ?1";
    let row = db.prepare_cached(query)?.query_row([id.0], |row| {
        Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?))
    });
    Ok(match row.optional()? {
        None => RegistrationState::Never,
        Some((true, _)) => RegistrationState::Deleted,
        Some((false, seen)) => RegistrationState::Known {
            unseen: seen.is_none_or(|at| Occurred(at).is_past(SEEN)),
        },
    })
}

/// Returns the name of a machine that is authorized.
fn known_as(db: &Connection, id: &Id) -> rusqlite::Result<Option<Name>> {
    let query = "SELECT name FROM machine WHERE id = ?1 AND deleted IS NULL";
    let mut query = db.prepare_cached(query)?;
    let found = query.query_row([id.0], |row| parsed(0, &row.get::<_, String>(0)?));
    found.optional()
}

/// Parses a name read from a column.
fn parsed(column: usize, name: &str) -> rusqlite::Result<Name> {
    use rusqlite::Error::FromSqlConversionFailure;
    let wrong = |e: Fault| FromSqlConversionFailure(column, rusqlite::types::Type::Text, e.into());
    Name::parse(name).map_err(wrong)
}

fn machine(row: &rusqlite::Row<'_>) -> rusqlite::Result<Machine> {
    Ok(Machine {
        id: Id(row.get(0)?),
        name: parsed(1, &row.get::<_, String>(1)?)?,
        authorized: Occurred(row.get(2)?),
        remote: row.get(3)?,
        seen: row.get::<_, Option<i64>>(4)?.map(Occurred),
    })
}

#[cfg(test)]
#[path = "inner/tests.rs"]
mod tests;
