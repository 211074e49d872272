//! Where the files are: one configuration folder, and the state and run
//! folders that belong to it. Used by every program; reads no file itself, but may ask where a
//! path leads, and the user database for the caller's home folder.

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Uid, User, geteuid};
use zeroize::Zeroizing;

use super::name::HostName;
use super::secure::{Checker, Created, Kind};
use super::words::shell_word;
use crate::fault::Fault;

/// The configuration folder of the system.
pub const SYSTEM: &str = "/etc/cosserver";
const SYSTEM_STATE: &str = "/var/lib/cosserver";
const SYSTEM_RUN: &str = "/run/cosserver";
/// The settings file in a configuration folder.
pub const SETTINGS: &str = "cosserver.toml";

/// A configuration folder with the state and run folders that belong to it.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The configuration folder, absolute.
    pub dir: PathBuf,
    /// What must outlive a reboot: recorded machine keys.
    pub state: PathBuf,
    /// What a reboot may take away.
    pub run: PathBuf,
    /// Whether it is `/etc/cosserver`; any other folder is somebody's own.
    pub system: bool,
    settings: PathBuf,
    checked: Option<Arc<Checker>>,
}

impl Paths {
    /// The place of a settings file: its parent folder.
    pub fn of_file(toml: &Path) -> Self {
        let toml = absolute(toml);
        let paths = Self::of_dir(toml.parent().unwrap_or(Path::new("/")));
        let settings = match toml.file_name() {
            Some(name) if paths.system => paths.dir.join(name),
            Some(_) | None => toml,
        };
        Self { settings, ..paths }
    }

    /// The place of a configuration folder. A path that leads to the system's folder, by a
    /// symbolic link or by `..`, is the system's place, and is called by its own name.
    pub fn of_dir(dir: &Path) -> Self {
        let mut dir = absolute(dir);
        let system = leads_to_system(&dir);
        if system {
            dir = PathBuf::from(SYSTEM);
        }
        let (state, run) = if system {
            (PathBuf::from(SYSTEM_STATE), PathBuf::from(SYSTEM_RUN))
        } else {
            (dir.join("state"), dir.join("run"))
        };
        Self {
            settings: dir.join(SETTINGS),
            dir,
            state,
            run,
            system,
            checked: None,
        }
    }

    /// The caller's place: the folder given (`-C`), else that of
    /// `COS_CONFIG_DIR`, else the user's own, as [`Self::of_user`] has it.
    pub fn of_caller(given: Option<&Path>) -> Self {
        let named = || variable("COS_CONFIG_DIR");
        match given.map(Path::to_owned).or_else(named) {
            Some(dir) => Self::of_dir(&dir),
            None => Self::of_user(),
        }
    }

    /// The caller's own place, whichever was named: for root `/etc/cosserver`, else
    /// `$XDG_CONFIG_HOME/cosserver`, else `~/.config/cosserver`. A folder of another user,
    /// as sudo and su leave it in the environment, does not count: then the home folder is
    /// that of the user database, and where that has none the place is the system's.
    pub fn of_user() -> Self {
        if geteuid().is_root() {
            return Self::of_dir(Path::new(SYSTEM));
        }
        // Relative folders are ignored, as the XDG specification asks.
        let named = |name: &str| variable(name).filter(|p| p.is_absolute() && is_own(p));
        let config = named("XDG_CONFIG_HOME")
            .or_else(|| named("HOME").map(|home| home.join(".config")))
            .or_else(|| home_of_user().map(|home| home.join(".config")));
        match config {
            Some(config) => Self::of_dir(&config.join("cosserver")),
            None => Self::of_dir(Path::new(SYSTEM)),
        }
    }

    /// Whether the folder was named by whoever calls, and is not merely where he has
    /// his own.
    pub fn is_named(given: Option<&Path>) -> bool {
        given.is_some() || variable("COS_CONFIG_DIR").is_some()
    }

    /// Whether the folder belongs to another user, whose secrets are not ours to read.
    /// Root may read everybody's.
    pub fn is_anothers(&self) -> bool {
        self.other_owner().is_some()
    }

    /// That other user, where it is one's.
    pub fn other_owner(&self) -> Option<Uid> {
        use std::os::unix::fs::MetadataExt;
        let about = std::fs::metadata(&self.dir).ok()?;
        let (owner, me) = (Uid::from_raw(about.uid()), geteuid());
        (!me.is_root() && owner != me).then_some(owner)
    }

    /// The same place for a program that reads its files once and ends, or for one
    /// proof, or under inetd until a session has begun: a folder that was found trustworthy is
    /// not looked at again. The daemon keeps none for longer, since a folder's mode may change
    /// while it runs.
    #[must_use]
    pub fn once(self) -> Self {
        Self {
            checked: Some(self.checker()),
            ..self
        }
    }

    /// Returns a command of `cosadm` about this folder, in backquotes, to be typed as it is: it
    /// names the folder, unless that is the system's.
    pub fn cosadm(&self, words: impl Display) -> String {
        format!("`cosadm{} {words}`", self.option_c())
    }

    /// Returns ` -C DIR` for a command that is suggested, or nothing for the system's folder.
    pub fn option_c(&self) -> String {
        if self.system {
            String::new()
        } else {
            format!(" -C {}", shell_word(&self.dir.display().to_string()))
        }
    }

    /// The command that makes the files of the place, in backquotes; none for `/`, which is
    /// no folder of ours.
    pub fn init(&self) -> Option<String> {
        (self.dir != Path::new("/")).then(|| self.cosadm("init"))
    }

    /// `cosserver.toml`, or the file that was given in its place.
    pub fn settings(&self) -> PathBuf {
        self.settings.clone()
    }

    /// The host table.
    pub fn hostinfo(&self) -> PathBuf {
        self.dir.join("hostinfo")
    }

    /// The host's private key, by which the server is known.
    pub fn host_key(&self) -> PathBuf {
        self.dir.join("host.key")
    }

    /// The machine's (or the user's) private key, by which the client is known.
    pub fn machine_key(&self) -> PathBuf {
        self.dir.join("machine.key")
    }

    /// The client's pins.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    /// The folder of cookies.
    pub fn cookies(&self) -> PathBuf {
        self.dir.join("cookies")
    }

    /// The cookies by which that host asks us.
    pub fn cookie_in(&self, host: &HostName) -> PathBuf {
        self.cookies().join(format!("{host}.in"))
    }

    /// The cookies by which we ask that host.
    pub fn cookie_out(&self, host: &HostName) -> PathBuf {
        self.cookies().join(format!("{host}.out"))
    }

    /// The folder of machine keys recorded with a first cookie proof.
    pub fn machines(&self) -> PathBuf {
        self.state.join("machines")
    }

    /// The machine key recorded for that host.
    pub fn recorded_machine(&self, host: &HostName) -> PathBuf {
        self.machines().join(host.as_str())
    }

    /// Where the daemon listens for users who want it to vouch for them.
    pub fn signer(&self) -> PathBuf {
        self.run.join("sign")
    }

    /// A file that tells that the doors of this host were made.
    pub fn doors_made(&self) -> PathBuf {
        self.state.join("doors")
    }

    /// What the configuration folder knows of the machine registry in the state folder.
    pub fn registry_note(&self) -> PathBuf {
        self.dir.join("registry")
    }

    /// Where the daemon listens for its administrator.
    pub fn control(&self) -> PathBuf {
        self.run.join("control")
    }

    /// The file that a daemon in the background holds a lock on.
    pub fn daemon_lock(&self) -> PathBuf {
        self.run.join("cosserver.lock")
    }

    /// The file that has its number.
    pub fn pid_file(&self) -> PathBuf {
        self.run.join("cosserver.pid")
    }

    /// What inetd's many monitors know in common.
    pub fn inetd_table(&self) -> PathBuf {
        self.run.join("inetd.table")
    }

    /// The file that `cosadm` holds a lock on while it changes the others.
    pub fn lock(&self) -> PathBuf {
        self.dir.join(".lock")
    }

    /// Reads a file of this place with care; see [`Checker::read_if_there`].
    ///
    /// # Errors
    /// The file, or a folder above it, is not to be trusted, or cannot be read.
    pub fn read_if_there(
        &self,
        path: &Path,
        kind: Kind,
        limit: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        self.checker().read_if_there(path, kind, limit)
    }

    /// Makes a folder of this place, where there is none; see [`Checker::make_folder`].
    ///
    /// # Errors
    /// The folder above it is missing or not to be trusted, or the system refused.
    pub fn make_folder(&self, path: &Path, mode: u32) -> Result<Created, Fault> {
        self.checker().make_folder(path, mode)
    }

    /// Whether nobody else can write a folder or one above it; see [`Checker::check_folder`].
    ///
    /// # Errors
    /// It is missing, or others can.
    pub fn check_folder(&self, folder: &Path) -> Result<PathBuf, Fault> {
        self.checker().check_folder(folder)
    }

    /// Forgets which folders were found trustworthy.
    pub fn forget(&self) {
        if let Some(checker) = &self.checked {
            checker.forget();
        }
    }

    /// Returns the place's checker, or a new one where the place keeps none.
    pub fn checker(&self) -> Arc<Checker> {
        self.checked.clone().unwrap_or_default()
    }

    /// The same for a file that must be there.
    ///
    /// # Errors
    /// The same, or the file is missing.
    pub fn read(&self, path: &Path, kind: Kind, limit: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
        self.read_if_there(path, kind, limit)?
            .ok_or_else(|| Fault::of(path, "there is no such file"))
    }
}

/// Whether a path leads to the configuration folder of the system, whatever it is called.
fn leads_to_system(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let system = Path::new(SYSTEM);
    let which = |path: &Path| {
        let about = std::fs::metadata(path).ok()?;
        Some((about.dev(), about.ino()))
    };
    let are_one = |one, other| match (which(one), which(other)) {
        (Some(one), Some(other)) => Some(one == other),
        (None, _) | (_, None) => None,
    };
    let beside = || match (dir.parent(), system.parent()) {
        // Where it is yet to be made, the folder above and the name tell.
        (Some(above), Some(etc)) if dir.file_name() == system.file_name() => are_one(above, etc),
        (Some(_) | None, _) => None,
    };
    dir == system || are_one(dir, system).or_else(beside).unwrap_or(false)
}

/// Whether a folder is the caller's own or, where it is missing, is to be made in one that is.
fn is_own(folder: &Path) -> bool {
    use std::io::ErrorKind::NotFound;
    use std::os::unix::fs::MetadataExt;
    for folder in folder.ancestors() {
        match std::fs::metadata(folder) {
            Ok(about) => return about.uid() == geteuid().as_raw(),
            Err(e) if e.kind() == NotFound => {}
            Err(_) => return false,
        }
    }
    false
}

/// The home folder of this process's user, by the user database.
fn home_of_user() -> Option<PathBuf> {
    let user = User::from_uid(geteuid()).ok().flatten()?;
    Some(user.dir).filter(|home| home.is_absolute())
}

fn variable(name: &str) -> Option<PathBuf> {
    let value = env::var_os(name).filter(|v| !v.is_empty());
    value.map(PathBuf::from)
}

/// The path from the root; where the working folder is gone, as it is, and
/// opening it will say so. `.` is left out, `..` is kept.
fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_folder_that_it_is_about() {
        let of = |dir: &str| Paths::of_dir(Path::new(dir)).cosadm("init");
        assert_eq!(of("/etc/cosserver"), "`cosadm init`");
        assert_eq!(of("/home/jo/my S"), "`cosadm -C '/home/jo/my S' init`");
    }

    #[test]
    fn the_systems_folders_and_ones_own() {
        let system = Paths::of_file(Path::new("/etc/cosserver/cosserver.toml"));
        assert!(system.system);
        assert_eq!(system.state, Path::new("/var/lib/cosserver"));
        assert_eq!(system.run, Path::new("/run/cosserver"));
        assert!(Paths::of_dir(Path::new("/etc/./cosserver/")).system);
        let around = Path::new("/etc/../etc/cosserver/cosserver.toml");
        let around = Paths::of_file(around);
        assert!(around.system);
        assert_eq!(around.settings(), system.settings());
        assert_eq!(around.dir, system.dir);

        let own = Paths::of_file(Path::new("/home/jo/S/my.toml"));
        assert!(!own.system);
        assert_eq!(own.settings(), Path::new("/home/jo/S/my.toml"));
        assert_eq!(own.state, Path::new("/home/jo/S/state"));
        let host = HostName::parse("HostA").unwrap();
        assert_eq!(
            own.cookie_in(&host),
            Path::new("/home/jo/S/cookies/hosta.in")
        );
        assert_eq!(
            own.recorded_machine(&host),
            Path::new("/home/jo/S/state/machines/hosta")
        );
    }

    #[test]
    fn a_relative_file_is_made_absolute() {
        let here = env::current_dir().unwrap();
        assert_eq!(Paths::of_file(Path::new("cosserver.toml")).dir, here);
        assert_eq!(Paths::of_caller(Some(Path::new("S"))).dir, here.join("S"));
    }
}
