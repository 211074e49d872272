//! What the configuration folder knows of the machine registry: that there is one, and how
//! many changes its files have seen.
//!
//! The registry lies in the state folder, often on a file system of its own. Should that
//! be lost, not mounted, or put back from an old copy, the note in the configuration folder
//! tells. SQLite counts the changes of a file in its header. Written by `cosadm` after its
//! changes, and by the daemon's registry process when the daemon starts; never at a
//! connection. It decides nothing by itself.

use std::fmt::Write as _;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::inner::Inner;
use super::outer::Outer;
use crate::config::paths::Paths;
use crate::config::secure::{self, Kind};
use crate::fault::Fault;

/// The note's longest content, bytes: three paths and their numbers.
const LONGEST: usize = 16 * 1024;

/// Files that are noted: an inner door may have stood in several folders.
const FILES: usize = 16;

const HEAD: &str = "\
# This host has a machine registry. Its files, and how many changes each has seen
# (of the folder: how many keys are in it). Written by cosserver(8) and cosadm(8).
";

/// Where SQLite's header has the count of a file's changes.
const CHANGES: u64 = 24;

/// The files of the registry, and what was counted in each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Noted(Vec<(PathBuf, u64)>);

impl Noted {
    /// Whether there is a note: this host had a registry.
    pub fn is_there(paths: &Paths) -> bool {
        paths.registry_note().symlink_metadata().is_ok()
    }

    /// What is noted; `None`: nothing.
    ///
    /// # Errors
    /// The note is not to be trusted, or cannot be read.
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

    /// What there is now. A file that cannot be read is left out.
    pub fn now(paths: &Paths) -> Self {
        let folder = Outer::open(paths).and_then(|o| o.folder());
        let inner = folder.map(|folder| Inner::path(paths, folder.as_deref()));
        Self::with(paths, inner.ok())
    }

    /// The same without the inner door, whose folder others may share, and which may hang.
    pub fn own(paths: &Paths) -> Self {
        Self::with(paths, None)
    }

    fn with(paths: &Paths, inner: Option<PathBuf>) -> Self {
        let mut all = Vec::new();
        for path in [Some(Outer::path(paths)), inner].into_iter().flatten() {
            all.extend(changes(&path).map(|count| (path, count)));
        }
        let keys = paths.machines();
        all.extend(recorded(&keys).map(|count| (keys, count)));
        Self(all)
    }

    /// Writes this down, unless it is noted already.
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

    /// Returns the files that are older now than they were noted, each with what that means.
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

    /// This note with the counts of now, for a registry that is no older copy. A file that
    /// is not there now stays noted.
    #[must_use]
    pub fn as_of(&self, now: &Self) -> Self {
        self.merged(now, |_, now| now)
    }

    /// This note with the greater of both counts of each file. A file that is not there now
    /// stays noted.
    #[must_use]
    pub fn at_least(&self, now: &Self) -> Self {
        self.merged(now, u64::max)
    }

    fn merged(&self, now: &Self, pick: fn(u64, u64) -> u64) -> Self {
        let count = |all: &Self, path: &Path| {
            let mut all = all.0.iter();
            all.find(|(other, _)| other == path).map(|(_, n)| *n)
        };
        // In the order of the note, which is not written again for another.
        let noted = self.0.iter().map(|(path, noted)| {
            let now = count(now, path).map_or(*noted, |now| pick(*noted, now));
            (path.clone(), now)
        });
        let new = now.0.iter().filter(|(path, _)| count(self, path).is_none());
        let mut all: Vec<_> = noted.chain(new.cloned()).collect();
        // What is there now is noted before what was elsewhere once.
        let mut too_many = all.len().saturating_sub(FILES);
        all.retain(|(path, _)| {
            let goes = too_many > 0 && count(now, path).is_none();
            too_many -= usize::from(goes);
            !goes
        });
        Self(all)
    }
}

/// Compares the registry with the note, and brings the note up to date. What is older than
/// it was noted.
///
/// # Errors
/// The note cannot be read.
pub fn compare(paths: &Paths) -> Result<Vec<Fault>, Fault> {
    let now = Noted::now(paths);
    let noted = Noted::read(paths)?.unwrap_or_default();
    let older = noted.is_newer_than(&now, paths).into_iter();
    let mut older: Vec<Fault> = older.map(|(_, fault)| fault).collect();
    // What was found is told, whether or not the note can be written.
    older.extend(noted.at_least(&now).write(paths).err());
    Ok(older)
}

/// How many changes a file of SQLite's has seen. Not to be called while this process has a
/// transaction open: closing any descriptor of a file gives up the locks on it.
fn changes(path: &Path) -> Option<u64> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut count = [0; 4];
    file.seek(SeekFrom::Start(CHANGES)).ok()?;
    file.read_exact(&mut count).ok()?;
    Some(u32::from_be_bytes(count).into())
}

/// How many machine keys are recorded in a folder.
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

    /// A copy that was put back is told from the file that it was made of.
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
        // Saying so once changes nothing: it is said until somebody accepts it.
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
