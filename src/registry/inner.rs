//! The inner door: `idfile`, the authorized machines (seed 002, IDFILE). Its folder may be shared
//! by several hosts; a lock serializes their writers.
//!
//! The daemon reads it. The registry worker and `cosadm` write it. Each change replaces the file,
//! so it is complete or absent even if the writer is killed.

mod passwords;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::edit::Edit;
use super::file::Table;
use super::id::{Id, Name, Occurred};
use super::text::{Document, Format, Kind, Row};
use crate::config::paths::Paths;
use crate::config::secure::{Checker, Created};
use crate::fault::Fault;
pub use passwords::{Generated, Pending};
pub use settings::{Setting, Settings, WELCOME};

pub(super) const FORMAT: Format = Format {
    what: "the inner door",
    name: "idfile",
    settings: &[
        ("build-mode", settings::is_word),
        ("remote-only", settings::is_word),
        ("welcome", settings::is_welcome),
        ("salt", |v| passwords::hex::<16>(v).is_some()),
        ("backdoor", |v| passwords::hex::<32>(v).is_some()),
    ],
    kinds: &[Kind::Remote, Kind::Local, Kind::Deleted],
    denial: Kind::Deleted,
    has_passwords: true,
    is_exclusive: true,
};

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
}

/// What the file says of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing.
    Never,
    /// The administrator has deleted it.
    Deleted,
    /// It is authorized.
    Authorized,
}

/// Checks whether a machine may still register.
pub type Still<'a> = &'a mut dyn FnMut() -> Result<bool, Fault>;

/// The inner door.
pub struct Inner(Table);

impl Inner {
    /// Returns the path of the file in this folder, or in the state folder.
    pub fn path(paths: &Paths, folder: Option<&Path>) -> PathBuf {
        folder.unwrap_or(&paths.state).join(FORMAT.name)
    }

    /// Creates the file, without a machine, if it does not exist.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> Result<Created, Fault> {
        Table::create(path, &FORMAT)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// The file is missing, not trusted, damaged, or newer than this program.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let mut inner = Self::of(path, Arc::default());
        inner.0.look(&Id([0; 16]))?;
        Ok(inner)
    }

    /// Returns the inner door, whose file is opened when it is asked.
    pub(super) fn of(path: &Path, folders: Arc<Checker>) -> Self {
        Self(Table::of(path, &FORMAT, folders))
    }

    /// Has the file read whole only up to this size, bytes.
    pub(super) fn read_at_most(self, most: u64) -> Self {
        Self(self.0.read_at_most(most))
    }

    /// Returns the path of the file.
    pub fn file(&self) -> &Path {
        self.0.path()
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

    /// Changes the file if `still` allows it once the lock is held. Returns `None` if it does not.
    fn change_if<T>(
        &mut self,
        still: Still<'_>,
        work: impl FnOnce(&mut Document) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        self.0
            .change(|all| if still()? { Ok(work(all)) } else { Ok(None) })
    }

    // ---- used by the daemon ----

    /// Returns the state of a machine, the settings, and whether a one-time password is pending.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn look(&mut self, id: &Id) -> Result<(State, Settings, bool), Fault> {
        let (head, rows) = self.0.look(id)?;
        Ok((
            state(&rows),
            settings::of(&head.settings),
            head.has_passwords,
        ))
    }

    /// Registers a machine without an entry, after its host has proven its cookie. Returns `false`,
    /// and changes nothing, if the file has an entry.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn introduce(&mut self, id: &Id, name: &Name, remote: bool) -> Result<bool, Fault> {
        self.0.change_always(|all| {
            let is_new = state(&all.rows_of(id)) == State::Never;
            if is_new {
                put(all, id, name, remote);
            }
            Ok(is_new)
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
        self.change_if(still, |all| {
            if let Some(known) = known_as(all, id) {
                return Some(known);
            }
            if !settings::of(all.settings()).build_mode {
                return None;
            }
            put(all, id, name, remote);
            Some(name.clone())
        })
    }

    // ---- used by the administrator ----

    /// Returns the authorized machines, in the order of their IDs.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn machines(&self) -> Result<Vec<Machine>, Fault> {
        let all = self.0.read()?;
        let rows: Vec<Row> = all.rows().collect();
        // A machine that a file says two things of was edited by hand.
        let of_one = rows.chunk_by(|a, b| a.id == b.id);
        Ok(of_one.filter_map(authorized).collect())
    }

    /// Returns the same in the order of their names.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn machines_by_name(&self) -> Result<Vec<Machine>, Fault> {
        let mut all = self.machines()?;
        all.sort_by_cached_key(|m| (m.name.as_str().to_ascii_lowercase(), m.id));
        Ok(all)
    }

    /// Returns whether the file has never held anything: no machine, no setting, no password.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_untouched(&self) -> Result<bool, Fault> {
        let all = self.0.read()?;
        let is_empty = all.settings().is_empty() && all.passwords().is_empty();
        Ok(is_empty && all.rows().next().is_none())
    }

    /// Returns the number of authorized machines.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self) -> Result<u64, Fault> {
        Ok(u64::try_from(self.machines()?.len()).unwrap_or(u64::MAX))
    }

    /// Returns an authorized machine.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn machine(&self, id: &Id) -> Result<Option<Machine>, Fault> {
        Ok(authorized(&self.0.read()?.rows_of(id)))
    }

    /// Authorizes a machine on the administrator's behalf. Returns `false` if it was already
    /// authorized; it then has the new name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, id: &Id, name: &Name, remote: bool) -> Result<bool, Fault> {
        self.0.change_always(|all| {
            let is_renamed = rename(all, id, name);
            if !is_renamed {
                put(all, id, name, remote);
            }
            Ok(!is_renamed)
        })
    }

    /// Renames a machine. Returns `false` if there is no such machine.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rename(&mut self, id: &Id, name: &Name) -> Result<bool, Fault> {
        self.0.change_always(|all| Ok(rename(all, id, name)))
    }

    /// Deletes a machine. The deletion is recorded, so that a host's cookie does not register it
    /// again. Returns `false` if there is no such machine.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn delete(&mut self, id: &Id) -> Result<bool, Fault> {
        self.0.change_always(|all| {
            let Some(name) = known_as(all, id) else {
                return Ok(false);
            };
            all.put(&Row {
                id: *id,
                kind: Kind::Deleted,
                at: Occurred::now(),
                name: Some(name),
            });
            Ok(true)
        })
    }
}

fn state(rows: &[Row]) -> State {
    if rows.iter().any(|row| row.kind == Kind::Deleted) {
        return State::Deleted;
    }
    rows.first().map_or(State::Never, |_| State::Authorized)
}

/// Returns the machine of these lines, if it is authorized.
fn authorized(rows: &[Row]) -> Option<Machine> {
    let row = rows.first().filter(|_| state(rows) == State::Authorized)?;
    Some(Machine {
        id: row.id,
        name: row.name.clone()?,
        authorized: row.at,
        remote: row.kind == Kind::Remote,
    })
}

/// Returns the name of a machine that is authorized.
fn known_as(all: &Document, id: &Id) -> Option<Name> {
    authorized(&all.rows_of(id)).map(|machine| machine.name)
}

/// Authorizes a machine, even if it was deleted.
fn put(all: &mut Document, id: &Id, name: &Name, remote: bool) {
    all.put(&Row {
        id: *id,
        kind: if remote { Kind::Remote } else { Kind::Local },
        at: Occurred::now(),
        name: Some(name.clone()),
    });
}

fn rename(all: &mut Document, id: &Id, name: &Name) -> bool {
    let rows = all.rows_of(id);
    let row = rows.first().filter(|_| state(&rows) == State::Authorized);
    let renamed = row.map(|row| {
        let name = Some(name.clone());
        all.put(&Row {
            name,
            ..row.clone()
        });
    });
    renamed.is_some()
}

#[cfg(test)]
#[path = "inner/tests.rs"]
mod tests;
