//! Both doors as the daemon looks at them: each question is answered by the files as they
//! are now, so that a change counts for the next who calls, whoever made it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::decision::{AdmissionPass, MachineStatus, RegistrationState};
use super::file::Use;
use super::id::{Id, Name};
use super::inner::{Inner, Settings, Still};
use super::noted::{self, Noted};
use super::outer::{Level, Looked, Outer};
use crate::config::paths::Paths;
use crate::config::secure;
use crate::fault::Fault;

/// What registering came to.
pub enum RegistrationOutcome {
    /// The machine is registered, under this name.
    Registered(AdmissionPass, Name),
    /// The password is wrong, or it could not be registered any more.
    Wrong(&'static str),
}

/// What stands in the file that tells that the doors were made.
const MADE: &[u8] =
    b"The doors of this host were made. Without this file, lost ones would be made anew.\n";

const GONE: &str = "the outer door is gone, and with it who is excluded";
const INNER_GONE: &str =
    "the inner door is gone, and with it who is authorized and who was deleted";

/// What both doors said within this time is of one moment.
const SOON: Duration = Duration::from_millis(100);

const CLOSED: &str = "the outer door was closed meanwhile";
const ENDED: &str = "build mode was ended meanwhile";
const WRONG: &str = "the activation password is wrong";

impl RegistrationOutcome {
    /// Why not, of the words that were sent.
    pub(super) fn wrong(words: &[u8]) -> Self {
        let all = [CLOSED, ENDED, WRONG];
        let why = all.into_iter().find(|why| why.as_bytes() == words);
        Self::Wrong(why.unwrap_or(WRONG))
    }
}

/// The doors of a host.
pub struct Doors {
    paths: Paths,
    to: Use,
    outer: Option<Outer>,
    inner: Option<Inner>,
    /// In which folder the inner door was looked for last.
    looked_in: Option<Option<PathBuf>>,
}

impl Doors {
    /// Opens the doors of a host whose daemon starts: what was never made is made, closed
    /// and without a machine; what is there must be sound. What the daemon starts without
    /// is the second: a registry that is lost, or that a full or read-only file system
    /// does not let it make, denies.
    ///
    /// # Errors
    /// A file is not to be trusted, damaged, or newer than this program.
    pub fn start(paths: &Paths) -> Result<(Self, Vec<Fault>), Fault> {
        let mut without: Vec<Fault> = Self::make(paths).err().into_iter().collect();
        let mut doors = Self::of(paths);
        if paths.state.symlink_metadata().is_ok() {
            secure::check_folder(&paths.state)?;
        }
        if Outer::path(paths).symlink_metadata().is_ok() {
            match doors.are_sound() {
                Err(why) if Self::lost(paths).is_none() && !is_refused(&paths.state) => {
                    return Err(why);
                }
                Err(why) if without.is_empty() => without.push(why),
                Ok(()) if without.is_empty() => {
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
                Ok(()) | Err(_) => {}
            }
        }
        Ok((doors, without))
    }

    fn are_sound(&mut self) -> Result<(), Fault> {
        self.outer()?.check_whole()?;
        let folder = self.folder()?;
        self.inner(folder)?.check_whole()
    }

    /// Makes the files that were never made: a closed outer door, and an inner one without
    /// a machine. An inner door in another folder is made by the manager alone: where it is
    /// missing, that folder is.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn make(paths: &Paths) -> Result<(), Fault> {
        secure::make_folder(&paths.state, 0o700)?;
        Self::lost(paths).map_or(Ok(()), Err)?;
        // In this order: an outer door without an inner one is never left by a crash.
        if !Outer::path(paths).exists() {
            Inner::create(&Inner::path(paths, None))?;
        }
        Outer::create(paths)?;
        Self::are_made(paths)
    }

    /// Notes that this host has its doors, in the state folder and in the configuration
    /// folder: lost ones are not made anew without a word.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn are_made(paths: &Paths) -> Result<(), Fault> {
        // Not tried where it is there: a read-only file system would refuse.
        if paths.doors_made().symlink_metadata().is_err() {
            secure::create_new(&paths.doors_made(), MADE, 0o600)?;
        }
        if Noted::is_there(paths) {
            return Ok(());
        }
        Noted::now(paths).write(paths)
    }

    /// Makes the files where there is no outer door yet; else whoever looks will see what
    /// is wrong.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn make_first(paths: &Paths) -> Result<(), Fault> {
        if Outer::path(paths).exists() {
            return Ok(());
        }
        Self::make(paths)
    }

    /// Why the files, or one of them, cannot be made anew: they were there, and what they
    /// knew is lost.
    pub fn lost(paths: &Paths) -> Option<Fault> {
        let (outer, inner) = (Outer::path(paths), Inner::path(paths, None));
        let told = |path: &Path, what: &str| {
            let init = paths.cosadm("init");
            let words = format!(
                "{what}: put a copy back; or, without what was known there, {init} makes a new one"
            );
            Some(Fault::of(path, words))
        };
        if !outer.exists() {
            let was_made = paths.doors_made().exists() || Noted::is_there(paths);
            return was_made.then(|| told(&outer, GONE))?;
        }
        let is_own = Outer::open(paths).and_then(|o| o.folder()).ok()?.is_none();
        (is_own && !inner.exists()).then(|| told(&inner, INNER_GONE))?
    }

    /// What is wrong with the doors of a host whose daemon is to start. What was never made
    /// is not.
    pub fn check(paths: &Paths) -> Vec<Fault> {
        if let Some(lost) = Self::lost(paths) {
            return vec![lost];
        }
        let path = Outer::path(paths);
        if !path.exists() {
            let inner = Inner::path(paths, None);
            let inner = inner.exists().then(|| Inner::open(&inner));
            let checked = inner.map(|i| i.and_then(|i| i.check_whole()));
            return checked.and_then(Result::err).into_iter().collect();
        }
        let outer = Outer::open(paths).and_then(|o| {
            o.check_whole()?;
            o.folder()
        });
        let inner = outer.clone().and_then(|folder| {
            let path = Inner::path(paths, folder.as_deref());
            if folder.is_none() && !path.exists() {
                return Ok(());
            }
            Inner::open(&path)?.check_whole()
        });
        // What the outer door says of the inner one is not said twice.
        outer.err().or(inner.err()).into_iter().collect()
    }

    /// In which folder the inner door stands; `None`: in the state folder.
    ///
    /// # Errors
    /// The outer door cannot be read.
    pub fn folder(&mut self) -> Result<Option<PathBuf>, Fault> {
        self.outer()?.folder()
    }

    /// Opens them where the daemon runs already: each file when it is needed.
    pub fn of(paths: &Paths) -> Self {
        Self::to(paths, Use::Work)
    }

    fn to(paths: &Paths, to: Use) -> Self {
        Self {
            paths: paths.clone(),
            to,
            outer: None,
            inner: None,
            looked_in: None,
        }
    }

    /// In which folder the inner door was looked for last, if it was.
    pub(super) const fn looked_in(&self) -> Option<&Option<PathBuf>> {
        self.looked_in.as_ref()
    }

    /// Opens what will be looked at. What is wrong is said when somebody asks.
    pub fn prepare(&mut self) {
        let _ = self.look(Id([0; 16]));
    }

    /// What both doors say of a machine.
    ///
    /// # Errors
    /// A file that is needed cannot be read.
    pub fn look(&mut self, id: Id) -> Result<MachineStatus, Fault> {
        let begun = Instant::now();
        let status = self.look_once(id)?;
        if begun.elapsed() < SOON {
            return Ok(status);
        }
        // While it waited for whoever writes in one door, the other may have changed.
        self.look_once(id)
    }

    fn look_once(&mut self, id: Id) -> Result<MachineStatus, Fault> {
        let outer = self.outer()?.look(&id)?;
        self.look_on(id, outer)
    }

    /// What the inner door says of it, behind the outer one.
    fn look_on(&mut self, id: Id, outer: Looked) -> Result<MachineStatus, Fault> {
        let (state, settings, pending) = if needs_inner(&outer) {
            self.inner(outer.folder.clone())?.look(&id)?
        } else {
            (RegistrationState::Never, Settings::default(), false)
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

    /// Registers the machine of a host that has proven its cookie. `false`: it was known.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn introduce(&mut self, id: Id, name: &Name, remote: bool) -> Result<bool, Fault> {
        self.writing(&id)?.1.introduce(&id, name, remote)
    }

    /// Notes that a machine was seen.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn saw(&mut self, id: Id) -> Result<(), Fault> {
        self.writing(&id)?.1.saw(&id)
    }

    /// Registers a machine by the name that was typed there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn register(
        &mut self,
        id: Id,
        name: Name,
        remote: bool,
    ) -> Result<RegistrationOutcome, Fault> {
        self.lodge(id, ENDED, |inner, still| {
            inner.register(&id, &name, remote, still)
        })
    }

    /// Registers a machine by an activation password; by the backdoor's under the name
    /// `otherwise`.
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
        self.lodge(id, WRONG, |inner, still| {
            inner.activate(&id, password, otherwise, remote, still)
        })
    }

    /// Registers a machine where the outer door is open to it, also once nobody else writes
    /// any more: hashing takes its time, and so may they.
    fn lodge(
        &mut self,
        id: Id,
        otherwise: &'static str,
        work: impl FnOnce(&mut Inner, Still<'_>) -> Result<Option<Name>, Fault>,
    ) -> Result<RegistrationOutcome, Fault> {
        if !self.writing(&id)?.0 {
            return Ok(RegistrationOutcome::Wrong(CLOSED));
        }
        let (Some(outer), Some(inner)) = (&mut self.outer, &mut self.inner) else {
            return Err(Fault::new("the doors are not open as files"));
        };
        let mut is_open = true;
        let name = work(inner, &mut || {
            is_open = may_register(&outer.look(&id)?);
            Ok(is_open)
        })?;
        Ok(match name {
            Some(name) => RegistrationOutcome::Registered(AdmissionPass::registered(id), name),
            None if is_open => RegistrationOutcome::Wrong(otherwise),
            None => RegistrationOutcome::Wrong(CLOSED),
        })
    }

    /// The inner door to write in, and whether machines may register now.
    fn writing(&mut self, id: &Id) -> Result<(bool, &mut Inner), Fault> {
        let outer = self.outer()?.look(id)?;
        let may = may_register(&outer);
        Ok((may, self.inner(outer.folder)?))
    }

    fn outer(&mut self) -> Result<&mut Outer, Fault> {
        if self.outer.as_ref().is_some_and(|o| !o.is_current()) {
            self.outer = None;
        }
        match &mut self.outer {
            Some(outer) => Ok(outer),
            closed => {
                let opened = Outer::open_to(&self.paths, self.to);
                let tell = |why| lost_or(&self.paths, &Outer::path(&self.paths), why);
                Ok(closed.insert(opened.map_err(tell)?))
            }
        }
    }

    fn inner(&mut self, folder: Option<PathBuf>) -> Result<&mut Inner, Fault> {
        let path = Inner::path(&self.paths, folder.as_deref());
        self.looked_in = Some(folder);
        let open = self.inner.take();
        let open = open.filter(|i| i.is_current() && i.file() == path);
        let open = open.map_or_else(|| Inner::open_to(&path, self.to, &self.paths.checker()), Ok);
        let open = open.map_err(|why| lost_or(&self.paths, &path, why))?;
        Ok(self.inner.insert(open))
    }
}

/// The doors as somebody looks at them who must not be kept waiting.
pub struct NonblockingReader(Doors);

impl NonblockingReader {
    /// Opens what it can.
    pub fn of(paths: &Paths) -> Self {
        let mut glance = Self(Doors::to(paths, Use::NonblockingReader));
        let _ = glance.look(Id([0; 16]));
        glance
    }

    /// What both doors say of a machine. `None`: ask somebody who may wait, and who says
    /// what is wrong if something is. The inner door stands where other hosts write too;
    /// or somebody is just writing, or was killed while he did.
    pub fn look(&mut self, id: Id) -> Option<MachineStatus> {
        let outer = self.0.outer().ok()?.look(&id).ok()?;
        if needs_inner(&outer) && outer.folder.is_some() {
            return None;
        }
        self.0.look_on(id, outer).ok()
    }
}

/// Whoever is excluded needs no more, and what is off is not asked.
fn needs_inner(outer: &Looked) -> bool {
    !outer.excluded && outer.level != Level::Off
}

/// That a file is lost, where it is missing and was made once; else why it was not opened.
fn lost_or(paths: &Paths, path: &Path, why: Fault) -> Fault {
    let is_missing = path.symlink_metadata().is_err();
    is_missing
        .then(|| Doors::lost(paths))
        .flatten()
        .unwrap_or(why)
}

/// Whether the file system of a folder takes no writes: it is read-only, or full.
fn is_refused(folder: &Path) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    statvfs(folder).is_ok_and(|about| {
        let is_read_only = about.flags().contains(FsFlags::ST_RDONLY);
        // Some of it may be kept for root.
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
