//! When this host last saw each machine: `seen`, in the state folder.
//!
//! Runs in the monitor, the registry worker and `cosadm`. A record is a line of a fixed length, its
//! place follows from the machine's ID, and it is overwritten in place, so that a visit does not
//! rewrite the registry. Must not decide anything: a lost record costs a time in a list.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::id::{Id, Occurred};
use crate::config::paths::Paths;
use crate::config::secure;
use crate::fault::Fault;
use crate::secret::from_hex;

/// The time after which a machine's record is written again.
const AGE: Duration = Duration::from_secs(3_600);

/// Length of a record: an ID, a blank, a time, and the end of the line, bytes.
const RECORD: usize = 32 + 1 + 20 + 1;

/// Records that are searched for one machine.
const NEAR: usize = 16;

/// Records in a new file, and in the largest. Both are powers of two.
const FEWEST: usize = 64;
const MOST: usize = 1 << 20;

/// The records of this host.
pub struct Seen(PathBuf);

type Record = Option<(Id, Occurred)>;

impl Seen {
    /// Returns the records of this host.
    pub fn of(paths: &Paths) -> Self {
        Self(paths.state.join("seen"))
    }

    /// Returns when a machine was last seen, to the hour.
    pub fn get(&self, id: &Id) -> Option<Occurred> {
        let file = self.open(false).ok().flatten()?;
        let near = near(&file, count(&file)?, id)?;
        let own = near.iter().flatten().find(|(other, _)| other == id);
        own.map(|(_, at)| *at)
    }

    /// Returns whether a visit of the machine is to be recorded now.
    pub fn is_due(&self, id: &Id) -> bool {
        self.get(id).is_none_or(|at| at.is_past(AGE))
    }

    /// Returns all records.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn all(&self) -> Result<BTreeMap<Id, Occurred>, Fault> {
        let file = self.open(false).map_err(|e| Fault::of(&self.0, e))?;
        let Some(file) = file else {
            return Ok(BTreeMap::new());
        };
        let mut bytes = Vec::new();
        let most = u64::try_from(MOST * RECORD).unwrap_or(u64::MAX);
        let read = file.take(most).read_to_end(&mut bytes);
        read.map_err(|e| Fault::of(&self.0, e))?;
        Ok(bytes.chunks(RECORD).filter_map(parse).collect())
    }

    /// Records that a machine is seen now. If another process writes at this moment, the next visit
    /// is recorded.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn saw(&self, id: &Id) -> Result<(), Fault> {
        self.write(id, Occurred::now())
            .map_err(|e| Fault::of(&self.0, e))
    }

    fn write(&self, id: &Id, at: Occurred) -> std::io::Result<()> {
        let Some(file) = self.open(true)? else {
            return Ok(());
        };
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(()),
            Err((_, e)) => return Err(e.into()),
        };
        let which = |about: std::fs::Metadata| (about.dev(), about.ino());
        if file.metadata().map(which)? != self.0.symlink_metadata().map(which)? {
            return Ok(());
        }
        let size = file.metadata()?.len();
        let slots = match count(&file) {
            Some(slots) => slots,
            None if size == 0 => 0,
            None => return Err(std::io::Error::other("it holds something else")),
        };
        let near = near(&file, slots, id).unwrap_or_default();
        let is_own = |r: &Record| r.is_some_and(|(other, _)| other == *id);
        let own = near.iter().position(is_own);
        let place = own.or_else(|| near.iter().position(Option::is_none));
        let time = |n: &usize| near.get(*n).copied().flatten().map_or(0, |(_, at)| at.0);
        let oldest = (0..near.len()).min_by_key(time).filter(|_| slots >= MOST);
        match place.or(oldest) {
            Some(n) => {
                let record = record(id, at);
                file.write_all_at(record.as_bytes(), offset(slots, id, n))
            }
            None => self.grow(slots * 2, id, at),
        }
    }

    /// Replaces the file with one of more records, and one record more.
    fn grow(&self, slots: usize, id: &Id, at: Occurred) -> std::io::Result<()> {
        let mut old = self.all().map_err(std::io::Error::other)?;
        old.insert(*id, at);
        let mut slots = slots.max(FEWEST);
        let all = loop {
            match placed(&old, slots) {
                Some(all) => break all,
                None if slots < MOST => slots *= 2,
                None => return Err(std::io::Error::other("it is full")),
            }
        };
        let blank = format!("{}\n", " ".repeat(RECORD - 1));
        let text = all.iter().map(|r: &Record| {
            let text = r.map(|(id, at)| record(&id, at));
            text.unwrap_or_else(|| blank.clone())
        });
        let text: String = text.collect();
        secure::replace(&self.0, text.as_bytes(), 0o600).map_err(std::io::Error::other)
    }

    fn open(&self, writes: bool) -> std::io::Result<Option<File>> {
        if writes {
            if let Some(folder) = self.0.parent() {
                secure::check_folder(folder).map_err(std::io::Error::other)?;
            }
        }
        let opened = OpenOptions::new()
            .read(true)
            .write(writes)
            .create(writes)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&self.0);
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Gives each record its place in a file of so many; `None`: there is no place for one.
fn placed(old: &BTreeMap<Id, Occurred>, slots: usize) -> Option<Vec<Record>> {
    let mut all = vec![None; slots];
    for (id, at) in old {
        let mut free = (0..NEAR).map(|n| slot(slots, id, n));
        let free = free.find(|n| all.get(*n).is_some_and(Option::is_none))?;
        *all.get_mut(free)? = Some((*id, *at));
    }
    Some(all)
}

/// Returns how many records a file has; `None`: it is none of ours.
fn count(file: &File) -> Option<usize> {
    let about = file.metadata().ok()?;
    let size = usize::try_from(about.len()).ok()?;
    let count = size / RECORD;
    let is_ours = about.is_file() && size % RECORD == 0;
    (is_ours && count.is_power_of_two() && (FEWEST..=MOST).contains(&count)).then_some(count)
}

/// Returns the place of the n-th record that a machine may have.
fn slot(slots: usize, id: &Id, n: usize) -> usize {
    let [a, b, c, d, ..] = id.0;
    let first = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0);
    // The last ones go on beyond the end of a place, at the beginning.
    (first % slots.max(1) + n) % slots.max(1)
}

fn offset(slots: usize, id: &Id, n: usize) -> u64 {
    u64::try_from(slot(slots, id, n) * RECORD).unwrap_or(0)
}

/// Reads the records that a machine may have.
fn near(file: &File, slots: usize, id: &Id) -> Option<Vec<Record>> {
    if slots == 0 {
        return None;
    }
    let mut bytes = [0; NEAR * RECORD];
    let first = slot(slots, id, 0);
    let before_end = NEAR.min(slots - first) * RECORD;
    let (head, tail) = bytes.split_at_mut_checked(before_end)?;
    file.read_exact_at(head, offset(slots, id, 0)).ok()?;
    file.read_exact_at(tail, 0).ok()?;
    Some(bytes.chunks(RECORD).map(parse).collect())
}

fn record(id: &Id, at: Occurred) -> String {
    format!("{id} {at}\n")
}

fn parse(record: &[u8]) -> Record {
    let text = std::str::from_utf8(record).ok()?.strip_suffix('\n')?;
    let (id, at) = text.split_once(' ')?;
    Some((Id(from_hex(id)?), Occurred::parse(at)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    fn id(n: u32) -> Id {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        Id(id)
    }

    #[test]
    fn a_machine_is_found_again_in_a_file_that_grows() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        std::fs::create_dir_all(&paths.state).unwrap();
        let seen = Seen::of(&paths);
        assert!(seen.is_due(&id(1)) && seen.all().unwrap().is_empty());
        for n in 0..1_000 {
            seen.write(&id(n), Occurred(i64::from(n))).unwrap();
        }
        for n in 0..1_000 {
            assert_eq!(seen.get(&id(n)), Some(Occurred(i64::from(n))));
        }
        assert_eq!(seen.all().unwrap().len(), 1_000);
        let size = std::fs::metadata(&seen.0).unwrap().len();
        seen.saw(&id(3)).unwrap();
        assert!(!seen.is_due(&id(3)) && seen.is_due(&id(4)));
        assert_eq!(std::fs::metadata(&seen.0).unwrap().len(), size);
        // A file of another form holds no record, and is not overwritten.
        std::fs::write(&seen.0, "something else").unwrap();
        assert!(seen.is_due(&id(3)) && seen.saw(&id(3)).is_err());
        assert_eq!(std::fs::read(&seen.0).unwrap(), b"something else");
    }
}
