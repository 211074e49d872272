//! The outer and the inner door, as the daemon reads them.
//!
//! Every question is answered from the files as they are now. A change therefore applies to the
//! next connection, no matter which process made it. The registry worker reads and writes through
//! [`Doors`]. The monitor reads through it only what does not block, by [`Doors::look_here`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::decision::{AdmissionPass, MachineStatus, RegistrationState};
use super::file::{LARGEST, QUICK};
use super::id::{Id, Name};
use super::inner::{Inner, Settings, State, Still};
use super::noted::{self, Noted};
use super::outer::{Level, Looked, Outer};
use super::seen::Seen;
use crate::config::paths::Paths;
use crate::config::secure;
use crate::fault::Fault;

/// The result of a registration.
pub enum RegistrationOutcome {
    /// The machine is registered, under this name.
    Registered(AdmissionPass, Name),
    /// The password is wrong, or the machine can no longer be registered.
    Wrong(&'static str),
}

/// The content of the file that records that the doors were created.
const MADE: &[u8] =
    b"The doors of this host were made. Without this file, lost ones would be created again, empty.\n";

const GONE: &str = "the outer door is gone, and with it the exclude list";
const INNER_GONE: &str =
    "the inner door is gone, and with it the lists of authorized and deleted machines";

/// Answers of both doors that are read within this time count as one moment.
const SOON: Duration = Duration::from_millis(100);

const CLOSED: &str = "the outer door was closed before the answer came";
const ENDED: &str = "build mode was ended before the answer came";
const WRONG: &str = "the activation password is wrong";

impl RegistrationOutcome {
    /// Returns the reason that the worker sent as `words`.
    pub(super) fn wrong(words: &str) -> &'static str {
        let all = [CLOSED, ENDED, WRONG];
        all.into_iter().find(|why| *why == words).unwrap_or(WRONG)
    }
}

/// The doors of this host.
pub struct Doors {
    paths: Paths,
    /// Largest file that is read whole, bytes.
    most: u64,
    outer: Outer,
    inner: Option<Inner>,
    seen: Seen,
    /// The folder in which the inner door was last looked for.
    looked_in: Option<Option<PathBuf>>,
}

impl Doors {
    /// Opens the doors at the daemon's start.
    ///
    /// Files that were never created are created: a closed outer door, and an inner door without a
    /// machine. Existing files must be sound. The second value lists what the daemon has to start
    /// without. A registry that is lost, or that cannot be created because the file system is full
    /// or read-only, denies.
    ///
    /// # Errors
    /// A file is not trusted, is damaged, or is of another version.
    pub fn start(paths: &Paths) -> Result<(Self, Vec<Fault>), Fault> {
        let mut without: Vec<Fault> = Self::make(paths).err().into_iter().collect();
        let mut doors = Self::of(paths);
        if paths.state.symlink_metadata().is_ok() {
            secure::check_folder(&paths.state)?;
        }
        if Outer::path(paths).symlink_metadata().is_ok() {
            match doors.wrong_lines() {
                Err(why) if Self::lost(paths).is_none() && !is_refused(&paths.state) => {
                    return Err(why);
                }
                Err(why) if without.is_empty() => without.push(why),
                Ok(wrong) if without.is_empty() => {
                    without.extend(wrong);
                    match noted::compare(paths) {
                        Ok(older) => without.extend(older),
                        Err(why) => without.push(why),
                    }
                    if is_refused(&paths.state) {
                        let words = "its file system is full or read-only: no machine can be \
                                     registered, excluded or deleted";
                        without.push(Fault::of(&paths.state, words));
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok((doors, without))
    }

    /// Returns a fault for each wrong line of both files.
    fn wrong_lines(&mut self) -> Result<Vec<Fault>, Fault> {
        let mut all = self.outer.wrong_lines()?;
        let folder = self.folder()?;
        all.extend(self.inner(folder).wrong_lines()?);
        Ok(all)
    }

    /// Creates the files that were never created: a closed outer door, and an inner door without a
    /// machine. An inner door in another folder is created by the administrator only. If it is
    /// missing there, the folder itself is missing.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn make(paths: &Paths) -> Result<(), Fault> {
        secure::make_folder(&paths.state, 0o700)?;
        Self::lost(paths).map_or(Ok(()), Err)?;
        // Keep this order, so that a crash never leaves an outer door without an inner one.
        if !Outer::path(paths).exists() {
            Inner::create(&Inner::path(paths, None))?;
        }
        Outer::create(paths)?;
        Self::are_made(paths)
    }

    /// Records in the state folder and in the configuration folder that this host has its doors, so
    /// that lost ones are not recreated silently.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn are_made(paths: &Paths) -> Result<(), Fault> {
        // Skip this if the file exists: a read-only file system would refuse the write.
        if paths.doors_made().symlink_metadata().is_err() {
            secure::create_new(&paths.doors_made(), MADE, 0o600)?;
        }
        if Noted::is_there(paths) {
            return Ok(());
        }
        Noted::now(paths).write(paths)
    }

    /// Creates the files if there is no outer door yet. Otherwise any fault is reported when the
    /// doors are read.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn make_first(paths: &Paths) -> Result<(), Fault> {
        if Outer::path(paths).exists() {
            return Ok(());
        }
        Self::make(paths)
    }

    /// Returns why a file cannot be recreated: it existed, and its content is lost.
    pub fn lost(paths: &Paths) -> Option<Fault> {
        let (outer, inner) = (Outer::path(paths), Inner::path(paths, None));
        let told = |path: &Path, what: &str| {
            let init = paths.cosadm("init");
            let words = format!("{what}; {init} makes a new one, which is empty");
            Some(Fault::of(path, words))
        };
        if !outer.exists() {
            let was_made = paths.doors_made().exists() || Noted::is_there(paths);
            return was_made.then(|| told(&outer, GONE))?;
        }
        let is_own = Outer::open(paths).and_then(|o| o.folder()).ok()?.is_none();
        (is_own && !inner.exists()).then(|| told(&inner, INNER_GONE))?
    }

    /// Returns the wrong lines of the doors before the daemon starts. Files that were never created
    /// are no faults.
    ///
    /// # Errors
    /// With the doors as they are, the daemon would deny all machines, or would not start.
    pub fn check(paths: &Paths) -> Result<Vec<Fault>, Fault> {
        if let Some(lost) = Self::lost(paths) {
            return Err(lost);
        }
        let path = Outer::path(paths);
        if !path.exists() {
            let inner = Inner::path(paths, None);
            let inner = inner.exists().then(|| Inner::open(&inner));
            return inner.map_or(Ok(Vec::new()), |i| i?.wrong_lines());
        }
        let outer = Outer::open(paths)?;
        let mut wrong = outer.wrong_lines()?;
        let folder = outer.folder()?;
        let path = Inner::path(paths, folder.as_deref());
        if folder.is_some() || path.exists() {
            wrong.extend(Inner::open(&path)?.wrong_lines()?);
        }
        Ok(wrong)
    }

    /// Returns the folder of the inner door; `None` means the state folder.
    ///
    /// # Errors
    /// The outer door cannot be read.
    pub fn folder(&mut self) -> Result<Option<PathBuf>, Fault> {
        let folder = self.outer.folder();
        folder.map_err(|why| lost_or(&self.paths, &Outer::path(&self.paths), why))
    }

    /// Returns the doors while the daemon already runs. Each file is opened when needed.
    pub fn of(paths: &Paths) -> Self {
        Self::reading(paths, LARGEST)
    }

    /// Returns the doors for [`Self::look_here`] in a process that must not block.
    pub fn here(paths: &Paths) -> Self {
        Self::reading(paths, QUICK)
    }

    fn reading(paths: &Paths, most: u64) -> Self {
        Self {
            paths: paths.clone(),
            most,
            outer: Outer::of(paths).read_at_most(most),
            inner: None,
            seen: Seen::of(paths),
            looked_in: None,
        }
    }

    /// Returns the folder in which the inner door was last looked for, if any.
    pub(super) const fn looked_in(&self) -> Option<&Option<PathBuf>> {
        self.looked_in.as_ref()
    }

    /// Opens the files in advance. Faults are reported by the first real question.
    pub fn prepare(&mut self) {
        let _ = self.look(Id([0; 16]));
    }

    /// Returns the status of a machine according to both doors.
    ///
    /// # Errors
    /// A file that is needed cannot be read.
    pub fn look(&mut self, id: Id) -> Result<MachineStatus, Fault> {
        self.again_if_slow(|doors| doors.look_once(id))
    }

    fn again_if_slow<T>(
        &mut self,
        mut look: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let begun = Instant::now();
        let first = look(self)?;
        if begun.elapsed() < SOON {
            return Ok(first);
        }
        // While this waited for the folder of one door, the other door may have changed.
        look(self)
    }

    fn look_once(&mut self, id: Id) -> Result<MachineStatus, Fault> {
        let outer = self.look_outer(&id)?;
        self.look_inner(id, outer)
    }

    fn look_outer(&mut self, id: &Id) -> Result<Looked, Fault> {
        let looked = self.outer.look(id);
        looked.map_err(|why| lost_or(&self.paths, &Outer::path(&self.paths), why))
    }

    /// Returns the status of a machine, or `None` if the caller must ask the registry worker, which
    /// may wait and reports any fault. That is the case if the inner door is in a folder of its
    /// own, which may hang, or if a large file was edited by hand.
    pub fn look_here(&mut self, id: Id) -> Option<MachineStatus> {
        let outer = self.look_outer(&id).ok()?;
        if needs_inner(&outer) && outer.folder.is_some() {
            return None;
        }
        self.look_inner(id, outer).ok()
    }

    /// Returns the status of a machine, given the outer door's answer.
    fn look_inner(&mut self, id: Id, outer: Looked) -> Result<MachineStatus, Fault> {
        let (state, settings, pending) = if needs_inner(&outer) {
            let path = Inner::path(&self.paths, outer.folder.as_deref());
            let looked = self.inner(outer.folder.clone()).look(&id);
            looked.map_err(|why| lost_or(&self.paths, &path, why))?
        } else {
            (State::Never, Settings::default(), false)
        };
        let state = match state {
            State::Never => RegistrationState::Never,
            State::Deleted => RegistrationState::Deleted,
            State::Authorized => RegistrationState::Known {
                unseen: self.seen.is_due(&id),
            },
        };
        let Looked {
            excluded,
            included,
            level,
            folder: _,
        } = outer;
        Ok(MachineStatus {
            id,
            excluded,
            included,
            level,
            state,
            remote_only: settings.remote_only,
            build_mode: settings.build_mode,
            passwords: pending || settings.backdoor,
            welcome: settings.welcome,
        })
    }

    /// Registers the machine of a host that has proven its cookie. Returns `false` if the file
    /// already knows the machine.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn introduce(&mut self, id: Id, name: &Name, remote: bool) -> Result<bool, Fault> {
        let introduced = self.writing(&id)?.1.introduce(&id, name, remote)?;
        if introduced {
            self.record_first_visit(id);
        }
        Ok(introduced)
    }

    /// Records that a machine was seen.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn saw(&self, id: Id) -> Result<(), Fault> {
        self.seen.saw(&id)
    }

    /// Records the visit that has registered a machine.
    fn record_first_visit(&self, id: Id) {
        // Its next visit is to be recorded then, and reports why that fails.
        let _ = self.seen.saw(&id);
    }

    /// Registers a machine under the name that its user typed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn register(
        &mut self,
        id: Id,
        name: Name,
        remote: bool,
    ) -> Result<RegistrationOutcome, Fault> {
        self.register_if_open(id, ENDED, |inner, still| {
            inner.register(&id, &name, remote, still)
        })
    }

    /// Registers a machine by an activation password. The backdoor password registers it under the
    /// name `otherwise`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn activate(
        &mut self,
        id: Id,
        password: &[u8],
        otherwise: &Name,
        remote: bool,
    ) -> Result<RegistrationOutcome, Fault> {
        self.register_if_open(id, WRONG, |inner, still| {
            inner.activate(&id, password, otherwise, remote, still)
        })
    }

    /// Registers a machine if the outer door is open to it. This is checked again once the write
    /// lock is held, because hashing takes time and so may other writers.
    fn register_if_open(
        &mut self,
        id: Id,
        otherwise: &'static str,
        work: impl FnOnce(&mut Inner, Still<'_>) -> Result<Option<Name>, Fault>,
    ) -> Result<RegistrationOutcome, Fault> {
        if !self.writing(&id)?.0 {
            return Ok(RegistrationOutcome::Wrong(CLOSED));
        }
        let (outer, Some(inner)) = (&mut self.outer, &mut self.inner) else {
            return Err(Fault::new("the registry's files are not open"));
        };
        let mut is_open = true;
        let name = work(inner, &mut || {
            is_open = may_register(&outer.look(&id)?);
            Ok(is_open)
        })?;
        Ok(match name {
            Some(name) => {
                self.record_first_visit(id);
                RegistrationOutcome::Registered(AdmissionPass::registered(id), name)
            }
            None if is_open => RegistrationOutcome::Wrong(otherwise),
            None => RegistrationOutcome::Wrong(CLOSED),
        })
    }

    /// Returns whether machines may register now, and the inner door for writing.
    fn writing(&mut self, id: &Id) -> Result<(bool, &mut Inner), Fault> {
        let outer = self.look_outer(id)?;
        let may = may_register(&outer);
        Ok((may, self.inner(outer.folder)))
    }

    fn inner(&mut self, folder: Option<PathBuf>) -> &mut Inner {
        let path = Inner::path(&self.paths, folder.as_deref());
        self.looked_in = Some(folder);
        let open = self.inner.take().filter(|inner| inner.file() == path);
        let new = || Inner::of(&path, self.paths.checker()).read_at_most(self.most);
        self.inner.insert(open.unwrap_or_else(new))
    }
}

/// Returns whether the inner door must be asked. It is not asked about an excluded machine or at
/// level "off".
fn needs_inner(outer: &Looked) -> bool {
    !outer.excluded && outer.level != Level::Off
}

/// Returns the fault "lost" if the file is missing but was once created; otherwise returns `why`.
fn lost_or(paths: &Paths, path: &Path, why: Fault) -> Fault {
    let is_missing = path.symlink_metadata().is_err();
    is_missing
        .then(|| Doors::lost(paths))
        .flatten()
        .unwrap_or(why)
}

/// Returns whether the file system of a folder accepts no writes because it is read-only or full.
fn is_refused(folder: &Path) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    statvfs(folder).is_ok_and(|about| {
        let is_read_only = about.flags().contains(FsFlags::ST_RDONLY);
        // Some blocks may be reserved for root.
        let left = if nix::unistd::geteuid().is_root() {
            about.blocks_free()
        } else {
            about.blocks_available()
        };
        is_read_only || left == 0
    })
}

fn may_register(outer: &Looked) -> bool {
    outer.level == Level::Open && !outer.excluded
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
