//! The registry note: the configuration folder's record that there is a machine registry, and how
//! many changes its files have had.
//!
//! The registry is in the state folder, often on a file system of its own. The note reveals if that
//! folder is lost, not mounted, or restored from an old copy. Each file has the count of its
//! changes. `cosadm` writes the note after its changes, and the daemon's registry worker when the
//! daemon starts; never at a connection. The note decides nothing by itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::inner::Inner;
use super::outer::Outer;
use crate::config::paths::Paths;
use crate::config::secure::{self, Kind};
use crate::fault::Fault;

/// The note's longest content, bytes: the paths and their numbers.
const LONGEST: usize = 16 * 1024;

/// Most files that are noted: an inner door may have been in several folders.
const FILES: usize = 16;

const HEAD: &str = "\
# This host has a machine registry. Its files, and how many changes each has seen
# (of the folder: how many keys are in it). Written by cosserver(8) and cosadm(8).
";

/// The files of the registry, and the count of each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Noted(Vec<(PathBuf, u64)>);

impl Noted {
    /// Returns whether there is a note, so that this host had a registry.
    pub fn is_there(paths: &Paths) -> bool {
        paths.registry_note().symlink_metadata().is_ok()
    }

    /// Returns the note; `None`: there is none.
    ///
    /// # Errors
    /// The note is not trusted, or cannot be read.
    pub fn read(paths: &Paths) -> Result<Option<Self>, Fault> {
        let path = paths.registry_note();
        let Some(bytes) = paths.read_if_there(&path, Kind::Policy, LONGEST)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let parsed = lines.filter_map(|line| {
            let (path, count) = line.rsplit_once(' ')?;
            Some((PathBuf::from(path), count.parse().ok()?))
        });
        Ok(Some(Self(parsed.collect())))
    }

    /// Returns the current counts. A file that cannot be read is left out.
    pub fn now(paths: &Paths) -> Self {
        let folder = Outer::open(paths).and_then(|o| o.folder());
        let inner = folder.map(|folder| Inner::path(paths, folder.as_deref()));
        Self::with(paths, inner.ok().as_deref())
    }

    /// Returns the same without the inner door. Its folder may be shared, and may hang.
    pub fn own(paths: &Paths) -> Self {
        Self::with(paths, None)
    }

    fn with(paths: &Paths, inner: Option<&Path>) -> Self {
        let mut all = Vec::new();
        let outer = Outer::path(paths);
        let count = Outer::of(paths).changes();
        all.extend(count.map(|count| (outer, count)));
        let inner = inner.map(|path| (path.to_owned(), Inner::of(path, paths.checker())));
        all.extend(inner.and_then(|(path, mut inner)| Some((path, inner.changes()?))));
        let keys = paths.machines();
        all.extend(recorded(&keys).map(|count| (keys, count)));
        Self(all)
    }

    /// Writes the note, unless it is the same already.
    ///
    /// # Errors
    /// The configuration folder cannot be written.
    pub fn write(&self, paths: &Paths) -> Result<(), Fault> {
        if Self::read(paths)?.as_ref() == Some(self) {
            return Ok(());
        }
        let mut text = HEAD.to_owned();
        for (path, count) in &self.0 {
            let _ = writeln!(text, "{} {count}", path.display());
        }
        secure::replace(&paths.registry_note(), text.as_bytes(), 0o600)
    }

    /// Returns the files that are older now than in the note, each with a fault that says so.
    pub fn is_newer_than(&self, now: &Self, paths: &Paths) -> Vec<(PathBuf, Fault)> {
        let remedy = format!("to accept it as it is: {}", paths.cosadm("init"));
        let older = |(path, noted): &(PathBuf, u64)| {
            let (_, count) = now.0.iter().find(|(other, _)| other == path)?;
            (count < noted).then(|| {
                let words = format!(
                    "an older copy ({count} of {noted} changes): later exclusions and deletions are lost"
                );
                (path.clone(), Fault::of(path, words).with_remedy(&remedy))
            })
        };
        self.0.iter().filter_map(older).collect()
    }

    /// Returns the note with the current counts, for a registry that is not an older copy. A
    /// missing file stays noted.
    #[must_use]
    pub fn as_of(&self, now: &Self) -> Self {
        self.merged(now, |_, now| now)
    }

    /// Returns the note with the greater of both counts of each file. A missing file stays noted.
    #[must_use]
    pub fn at_least(&self, now: &Self) -> Self {
        self.merged(now, u64::max)
    }

    fn merged(&self, now: &Self, pick: fn(u64, u64) -> u64) -> Self {
        let count = |all: &Self, path: &Path| {
            let mut all = all.0.iter();
            all.find(|(other, _)| other == path).map(|(_, n)| *n)
        };
        // Keep the note's order, so that another order alone does not rewrite it.
        let noted = self.0.iter().map(|(path, noted)| {
            let now = count(now, path).map_or(*noted, |now| pick(*noted, now));
            (path.clone(), now)
        });
        let new = now.0.iter().filter(|(path, _)| count(self, path).is_none());
        let mut all: Vec<_> = noted.chain(new.cloned()).collect();
        // If there are too many, drop files that are missing now.
        let mut too_many = all.len().saturating_sub(FILES);
        all.retain(|(path, _)| {
            let goes = too_many > 0 && count(now, path).is_none();
            too_many -= usize::from(goes);
            !goes
        });
        Self(all)
    }
}

/// Compares the registry with the note, and updates the note. Returns a fault for each file that is
/// older than noted.
///
/// # Errors
/// The note cannot be read.
pub fn compare(paths: &Paths) -> Result<Vec<Fault>, Fault> {
    let now = Noted::now(paths);
    let noted = Noted::read(paths)?.unwrap_or_default();
    let older = noted.is_newer_than(&now, paths).into_iter();
    let mut older: Vec<Fault> = older.map(|(_, fault)| fault).collect();
    // Report what was found, whether or not the note can be written.
    older.extend(noted.at_least(&now).write(paths).err());
    Ok(older)
}

/// Returns the number of machine keys that are recorded in a folder.
fn recorded(folder: &Path) -> Option<u64> {
    let all = std::fs::read_dir(folder).ok()?.flatten();
    let keys = all.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    u64::try_from(keys.count()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;
    use crate::registry::{Doors, Id, List};

    /// A restored copy is told apart from its original.
    #[test]
    fn an_older_copy_of_the_registry_is_found() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        assert!(!Noted::is_there(&paths));
        Doors::make(&paths).unwrap();
        assert!(Noted::is_there(&paths));
        let path = Outer::path(&paths);
        let copy = std::fs::read(&path).unwrap();
        let exclude = |id| {
            let mut outer = Outer::open(&paths).unwrap();
            outer.put(List::Exclude, &Id([id; 16]), "gone").unwrap();
        };
        exclude(7);
        assert_eq!(compare(&paths), Ok(Vec::new()));
        std::fs::write(&path, copy).unwrap();
        let older = compare(&paths).unwrap();
        assert_eq!(older.len(), 1);
        assert!(older[0].to_string().contains("older copy"), "{older:?}");
        let shown = older[0].to_string().replace(&*path.to_string_lossy(), "");
        assert!(shown.len() < 120, "room for the path: {shown}");
        assert!(older[0].remedy().is_some_and(|r| r.contains("init")));
        // The fault is reported each time until the administrator accepts the copy.
        assert_eq!(compare(&paths).unwrap().len(), 1);
        Noted::now(&paths).write(&paths).unwrap();
        assert_eq!(compare(&paths), Ok(Vec::new()));
        // A recorded machine key that is gone is found as well.
        std::fs::create_dir_all(paths.machines()).unwrap();
        let key = paths.machines().join("hosta");
        std::fs::write(&key, "").unwrap();
        assert_eq!(compare(&paths), Ok(Vec::new()));
        std::fs::remove_file(&key).unwrap();
        assert_eq!(compare(&paths).unwrap().len(), 1);
    }
}
