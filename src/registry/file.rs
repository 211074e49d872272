//! A registry file: opened with care, searched without a lock, and replaced under one.
//!
//! Runs in the monitor, the registry worker and `cosadm`. A reader never waits and keeps nothing in
//! memory but the settings: the machines of a sorted file are searched by halving. It sees a file
//! that is replaced either as it was or as it is. A writer replaces the whole file, so a killed one
//! leaves the old file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::geteuid;

use super::id::Id;
use super::lock::Lock;
use super::text::{self, Document, Format, Hashed, Line, Place, Row, Settings};
use crate::config::secure::{self, Checker, Created};
use crate::fault::Fault;

/// Largest file, bytes: more than a million machines.
pub(super) const LARGEST: u64 = 128 << 20;

/// Largest file that a process reads whole if it must not wait, bytes: a few milliseconds.
pub(super) const QUICK: u64 = 1 << 20;

/// What is searched line by line, bytes.
const WINDOW: u64 = 4_096;

/// Most wrong lines that are reported one by one.
const WRONG: usize = 20;

/// How often a file is read that changes while it is read.
const ATTEMPTS: u32 = 10;

/// What tells whether a file is as it was: device and inode number, size, and the times of the last
/// modification and change. A copy that was restored into the same file has another time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(about: &Metadata) -> Self {
        Self {
            file: (about.dev(), about.ino()),
            size: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        }
    }
}

/// What is in a file besides the machines.
#[derive(Default)]
pub(super) struct Head {
    pub(super) settings: Settings,
    pub(super) has_passwords: bool,
    /// How many changes the file has had.
    pub(super) changes: u64,
    /// The offset of the first password or machine, if the file is sorted.
    sorted_from: Option<u64>,
}

/// A registry file.
pub(super) struct Table {
    path: PathBuf,
    format: &'static Format,
    /// The folders that were found trustworthy when the file was first opened.
    folders: Option<Arc<Checker>>,
    /// Largest file that is read whole.
    most: u64,
    known: Option<(Identity, Head)>,
}

impl Table {
    /// Returns a file that is opened when it is asked.
    pub(super) fn of(path: &Path, format: &'static Format, folders: Arc<Checker>) -> Self {
        Self {
            path: path.to_owned(),
            format,
            folders: Some(folders),
            most: LARGEST,
            known: None,
        }
    }

    /// Has the file read whole only up to this size, bytes.
    pub(super) fn read_at_most(self, most: u64) -> Self {
        Self { most, ..self }
    }

    /// Creates the file without a machine, atomically, unless it exists.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn create(path: &Path, format: &'static Format) -> Result<Created, Fault> {
        if path.symlink_metadata().is_ok() {
            return Ok(Created::There);
        }
        let (time, modified) = time(0);
        let text = Document::new(format).text(time);
        secure::create_new_of(path, &text, 0o600, Some(modified))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the file holds besides the machines, and the lines of one machine that count.
    ///
    /// # Errors
    /// The file is missing, not trusted, foreign, newer than this program, or cut short; or it
    /// changes while it is read.
    pub(super) fn look(&mut self, id: &Id) -> Result<(&Head, Vec<Row>), Fault> {
        for _ in 0..ATTEMPTS {
            let (file, before) = self.open()?;
            let known = self.known.take().filter(|(known, _)| *known == before);
            let head = known.map_or_else(|| self.head(&file, &before), |(_, head)| Ok(head));
            let found = head.and_then(|head| {
                let rows = self.search(&file, &before, &head, id)?;
                Ok((head, rows))
            });
            let after = file.metadata().map(|about| Identity::of(&about));
            if after.is_ok_and(|after| after == before) {
                let (head, rows) = found?;
                let (_, head) = self.known.insert((before, head));
                return Ok((head, rows));
            }
        }
        Err(self.busy())
    }

    fn busy(&self) -> Fault {
        Fault::of(&self.path, "it changes all the time; try again")
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub(super) fn read(&self) -> Result<Document, Fault> {
        let text = self.read_text(text::DESCRIBED);
        text.map(|(_, document)| document)
    }

    /// Reads the whole file, and returns its text as well. At most so many wrong lines are
    /// described.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub(super) fn read_text(&self, described: usize) -> Result<(Vec<u8>, Document), Fault> {
        self.unchanged(|file, about| {
            let size = usize::try_from(about.size).unwrap_or(usize::MAX);
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(size)
                .map_err(|e| Fault::of(&self.path, e))?;
            let read = At { file, offset: 0 }
                .take(about.size)
                .read_to_end(&mut bytes);
            read.map_err(|e| Fault::of(&self.path, e))?;
            let parsed = Document::parse(&bytes, self.format, described);
            let parsed = parsed.map_err(|why| Fault::of(&self.path, why))?;
            self.head_of_sorted(file, about)?;
            Ok((bytes, parsed))
        })
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub(super) fn settings(&self) -> Result<Settings, Fault> {
        self.unchanged(|file, about| Ok(self.head(file, about)?.settings))
    }

    /// Reads the settings and the passwords.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub(super) fn passwords(&self) -> Result<(Settings, Vec<Hashed>), Fault> {
        self.unchanged(|file, about| {
            let head = self.head(file, about)?;
            let mut all = Vec::new();
            self.scan(file, head.sorted_from.unwrap_or(0), |_, line| {
                if let Line::Password(password) = self.format.line(line) {
                    all.push(password);
                }
                let is_machine = matches!(text::place(line), Some(Place::Machine(_)));
                !is_machine || head.sorted_from.is_none()
            })?;
            Ok((head.settings, all))
        })
    }

    /// Reads of a file that does not change in the meantime.
    fn unchanged<T>(
        &self,
        read: impl Fn(&File, &Identity) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        for _ in 0..ATTEMPTS {
            let (file, before) = self.checked()?;
            let done = read(&file, &before);
            let after = file.metadata().map(|about| Identity::of(&about));
            if after.is_ok_and(|after| after == before) {
                return done;
            }
        }
        Err(self.busy())
    }

    /// Changes the file: `work` gets its content under the lock. The file is replaced if `work`
    /// returns a value and has changed something.
    ///
    /// # Errors
    /// `work` fails, another process has been writing for long, or the file cannot be read or
    /// written. It is then unchanged.
    pub(super) fn change<T>(
        &mut self,
        work: impl FnOnce(&mut Document) -> Result<Option<T>, Fault>,
    ) -> Result<Option<T>, Fault> {
        let _lock = Lock::take(&self.path)?;
        let mut document = self.read()?;
        let done = work(&mut document)?;
        if done.is_some() && document.is_changed() {
            self.replace(&document)?;
        }
        Ok(done)
    }

    /// Changes the file as [`Self::change`] does.
    ///
    /// # Errors
    /// The same.
    pub(super) fn change_always<T>(
        &mut self,
        work: impl FnOnce(&mut Document) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let done = self.change(|all| work(all).map(Some))?;
        done.ok_or_else(|| Fault::of(&self.path, "it was not changed"))
    }

    /// Returns a fault for each line that is wrong, or for the first ones and their number.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub(super) fn wrong_lines(&self) -> Result<Vec<Fault>, Fault> {
        let all = self.read()?;
        let told = |(line, why): &(usize, &str)| Fault::at(&self.path, *line, why);
        let wrong = all.wrong();
        let mut faults: Vec<Fault> = wrong.first().iter().take(WRONG).map(told).collect();
        let more = wrong.count().saturating_sub(faults.len());
        if more > 0 {
            faults.push(Fault::of(
                &self.path,
                format!("{more} more lines are wrong"),
            ));
        }
        Ok(faults)
    }

    /// Parses a text that may replace the file.
    ///
    /// # Errors
    /// Its first line is that of another file, or of another version.
    pub(super) fn parse(&self, text: &[u8]) -> Result<Document, String> {
        Document::parse(text, self.format, usize::MAX)
    }

    /// Replaces the file. The caller holds the lock.
    ///
    /// # Errors
    /// It would be too long, or it cannot be written. It is then unchanged.
    pub(super) fn replace(&self, document: &Document) -> Result<(), Fault> {
        // Later than the old one: what compares files by size and time sees two changes of one
        // second.
        let old = self.path.metadata().map_or(0, |about| about.mtime());
        let (time, modified) = time(old.saturating_add(1));
        let text = document.text(time);
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > LARGEST {
            let words = format!("it would have more than {LARGEST} bytes; nothing was changed");
            return Err(Fault::of(&self.path, words));
        }
        secure::replace_of(&self.path, &text, 0o600, Some(modified))
    }

    /// Opens the file if no other user can have written it.
    fn open(&mut self) -> Result<(File, Identity), Fault> {
        if let Some((known, _)) = &self.known {
            // The same file was found trustworthy.
            let (file, about) = self.open_at(&self.path)?;
            if Identity::of(&about) == *known {
                return Ok((file, *known));
            }
        }
        let opened = self.checked();
        // The next file may be in another folder.
        self.folders = None;
        opened
    }

    fn checked(&self) -> Result<(File, Identity), Fault> {
        let path = &self.path;
        let missing = || Fault::of(path, "there is no such file");
        let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(missing)?;
        let folders = self.folders.clone().unwrap_or_default();
        let (file, about) = self.open_at(&folders.check_folder(folder)?.join(name))?;
        if !about.is_file() {
            return Err(Fault::of(path, "it is no plain file"));
        }
        if about.mode() & 0o077 != 0 {
            let words = format!("others may read or write it; chmod 600 {}", path.display());
            return Err(Fault::of(path, words));
        }
        if about.uid() != 0 && about.uid() != geteuid().as_raw() {
            let uid = about.uid();
            let words = format!("it belongs to user {uid}, not to this one or root");
            return Err(Fault::of(path, words));
        }
        if about.len() > LARGEST {
            let words = format!("it has more than {LARGEST} bytes");
            return Err(Fault::of(path, words));
        }
        Ok((file, Identity::of(&about)))
    }

    fn open_at(&self, real: &Path) -> Result<(File, Metadata), Fault> {
        let mut options = OpenOptions::new();
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let opened = options.read(true).custom_flags(flags).open(real);
        let opened = opened.and_then(|file| file.metadata().map(|about| (file, about)));
        opened.map_err(|e| {
            if e.kind() == ErrorKind::NotFound {
                return Fault::of(&self.path, "there is no such file");
            }
            if e.raw_os_error() == Some(libc::ELOOP) {
                return Fault::of(&self.path, "it is no plain file");
            }
            Fault::of(&self.path, e)
        })
    }

    /// Reads what is in the file besides the machines.
    fn head(&self, file: &File, about: &Identity) -> Result<Head, Fault> {
        if let Some(head) = self.head_of_sorted(file, about)? {
            return Ok(head);
        }
        if about.size > self.most {
            let words = "it was edited by hand, and is too long to be read whole here";
            return Err(Fault::of(&self.path, words));
        }
        let (mut head, mut last, mut is_sorted) = (Head::default(), Place::Setting, true);
        self.scan(file, 0, |offset, line| {
            let place = text::place(line);
            is_sorted &= place.is_none_or(|place| place >= last);
            last = place.unwrap_or(last);
            if place.is_some_and(|place| place > Place::Setting) && head.sorted_from.is_none() {
                head.sorted_from = Some(offset);
            }
            self.take(&mut head, line);
            true
        })?;
        head.sorted_from = is_sorted.then_some(head.sorted_from.unwrap_or(about.size));
        Ok(head)
    }

    /// Reads the same of a file that has a valid mark that it is sorted; `None`: it has none.
    ///
    /// # Errors
    /// The mark is that of a longer file: it was cut short.
    fn head_of_sorted(&self, file: &File, about: &Identity) -> Result<Option<Head>, Fault> {
        let (mut head, mut mark) = (Head::default(), None);
        self.scan(file, 0, |offset, line| {
            let place = text::place(line);
            if place.is_some_and(|place| place > Place::Setting) {
                head.sorted_from.get_or_insert(offset);
                self.take(&mut head, line);
                // A wrong password is none: there may be a right one.
                return place == Some(Place::Password) && !head.has_passwords;
            }
            if let Line::Sorted(time, size) = self.format.line(line) {
                let rest = about.size.saturating_sub(offset + length(line));
                mark = (about.modified == (time, 0)).then_some((size, rest));
            }
            self.take(&mut head, line);
            mark.is_some() || offset < WINDOW
        })?;
        let Some((size, rest)) = mark else {
            return Ok(None);
        };
        if rest < size {
            let what = self.format.what;
            let words = format!(
                "{what} is damaged: it was cut short by {} bytes",
                size - rest
            );
            return Err(Fault::of(&self.path, words).with_remedy("put a copy back"));
        }
        // Another program has appended to it within the second, where times have no fractions.
        if rest > size {
            return Ok(None);
        }
        head.sorted_from = Some(head.sorted_from.unwrap_or(about.size));
        Ok(Some(head))
    }

    fn take(&self, head: &mut Head, line: &[u8]) {
        match self.format.line(line) {
            Line::Changes(count) => head.changes = count,
            Line::Setting(name, value) => {
                let value = || value.to_owned();
                head.settings.entry(name).or_insert_with(value);
            }
            Line::Password(_) => head.has_passwords = true,
            Line::Nothing | Line::Sorted(..) | Line::Machine(_) | Line::Wrong(..) => {}
        }
    }

    /// Passes the lines from this offset on, with their offsets, as long as `each` returns true.
    /// The first line of the file is checked, and not passed.
    fn scan(
        &self,
        file: &File,
        from: u64,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), Fault> {
        let window = usize::try_from(WINDOW).unwrap_or(usize::MAX);
        let mut lines = BufReader::with_capacity(window, At { file, offset: from });
        let (mut offset, mut line) = (from, Vec::new());
        loop {
            let length = text::next_line(&mut lines, &mut line);
            let length = length.map_err(|e| Fault::of(&self.path, e))?;
            if offset == 0 {
                let first = self.format.check_first(&line);
                first.map_err(|why| Fault::of(&self.path, why))?;
            } else if length == 0 || !each(offset, &line) {
                return Ok(());
            }
            offset += length;
        }
    }

    /// Returns the lines of one machine that count.
    fn search(
        &self,
        file: &File,
        about: &Identity,
        head: &Head,
        id: &Id,
    ) -> Result<Vec<Row>, Fault> {
        let own = Place::Machine(*id);
        let from = match head.sorted_from {
            Some(first) => self.halve(file, first, about.size, own)?,
            None => None,
        };
        if from.is_none() && about.size > self.most {
            let words = "it was edited by hand, and is too long to be read whole here";
            return Err(Fault::of(&self.path, words));
        }
        let mut rows = Vec::new();
        self.scan(file, from.unwrap_or(0), |_, line| {
            let place = text::place(line);
            if place == Some(own) {
                rows.extend(self.format.line(line).row());
            }
            from.is_none() || place.is_none_or(|place| place <= own)
        })?;
        Ok(rows)
    }

    /// Returns an offset shortly before the first line that belongs at `own` or after it. `None`:
    /// the lines are not sorted after all.
    fn halve(&self, file: &File, first: u64, size: u64, own: Place) -> Result<Option<u64>, Fault> {
        // Every line that starts before `from` belongs before the machine's, and none that starts
        // at `to` or after it does.
        let (mut from, mut to) = (first, size);
        let (mut least, mut most) = (Place::Password, None);
        while to.saturating_sub(from) > WINDOW {
            let middle = from + (to - from) / 2;
            let mut found = None;
            let mut is_first = true;
            // The line that ends here or later is a part of one, or nothing.
            self.scan(file, middle - 1, |offset, line| {
                let is_whole = !std::mem::take(&mut is_first);
                let place = text::place(line).filter(|place| is_whole && *place > Place::Setting);
                found = place.map(|place| (offset, place));
                found.is_none() && offset < to
            })?;
            let Some((offset, place)) = found.filter(|(offset, _)| *offset < to) else {
                to = middle;
                continue;
            };
            if place < least || most.is_some_and(|most| place > most) {
                return Ok(None);
            }
            if place < own {
                (from, least) = (offset, place);
            } else {
                (to, most) = (offset, Some(place));
            }
        }
        Ok(Some(from))
    }
}

fn length(line: &[u8]) -> u64 {
    u64::try_from(line.len()).unwrap_or(u64::MAX) + 1
}

/// Returns the time, but at least this one, in seconds and as a file's modification time. Every
/// file system keeps whole seconds.
fn time(least: i64) -> (i64, SystemTime) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.unwrap_or(Duration::ZERO).as_secs();
    let seconds = seconds.max(u64::try_from(least).unwrap_or(0));
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    (i64::try_from(seconds).unwrap_or(i64::MAX), time)
}

/// Reads a file from an offset on, without the file's own position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }
}
