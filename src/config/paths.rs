//! The paths of the files: one configuration folder, and the state and run folders that belong to
//! it. Used by every program. Reads no file itself, but may resolve a path, and may query the user
//! database for the caller's home folder.

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

/// The system's configuration folder.
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
    /// The state folder, which must survive a reboot: recorded machine keys and the doors.
    pub state: PathBuf,
    /// The run folder, which a reboot may clear.
    pub run: PathBuf,
    /// Whether it is `/etc/cosserver`; any other folder belongs to a user.
    pub system: bool,
    settings: PathBuf,
    checked: Option<Arc<Checker>>,
}

impl Paths {
    /// Returns the paths that belong to a settings file: those of its parent folder.
    pub fn of_file(toml: &Path) -> Self {
        let toml = absolute(toml);
        let paths = Self::of_dir(toml.parent().unwrap_or(Path::new("/")));
        let settings = match toml.file_name() {
            Some(name) if paths.system => paths.dir.join(name),
            Some(_) | None => toml,
        };
        Self { settings, ..paths }
    }

    /// Returns the paths that belong to a configuration folder. A path that leads to the system's
    /// folder through a symbolic link or `..` counts as the system's folder, and gets that folder's
    /// own name.
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

    /// Returns the caller's paths: the folder given (`-C`), else `COS_CONFIG_DIR`, else the user's
    /// own folder, see [`Self::of_user`].
    pub fn of_caller(given: Option<&Path>) -> Self {
        let named = || variable("COS_CONFIG_DIR");
        match given.map(Path::to_owned).or_else(named) {
            Some(dir) => Self::of_dir(&dir),
            None => Self::of_user(),
        }
    }

    /// Returns the user's own paths, ignoring `-C` and `COS_CONFIG_DIR`: for root `/etc/cosserver`,
    /// else `$XDG_CONFIG_HOME/cosserver`, else `~/.config/cosserver`. A folder of another user, as
    /// sudo and su leave it in the environment, is ignored. The home folder then comes from the
    /// user database; without one the paths are the system's.
    pub fn of_user() -> Self {
        if geteuid().is_root() {
            return Self::of_dir(Path::new(SYSTEM));
        }
        // Ignore relative folders, as the XDG specification asks.
        let named = |name: &str| variable(name).filter(|p| p.is_absolute() && is_own(p));
        let config = named("XDG_CONFIG_HOME")
            .or_else(|| named("HOME").map(|home| home.join(".config")))
            .or_else(|| home_of_user().map(|home| home.join(".config")));
        match config {
            Some(config) => Self::of_dir(&config.join("cosserver")),
            None => Self::of_dir(Path::new(SYSTEM)),
        }
    }

    /// Returns whether the caller named the folder, so that it is not merely the user's default.
    pub fn is_named(given: Option<&Path>) -> bool {
        given.is_some() || variable("COS_CONFIG_DIR").is_some()
    }

    /// Returns whether the folder belongs to another user, whose secrets must not be read. Root may
    /// read every user's.
    pub fn is_anothers(&self) -> bool {
        self.other_owner().is_some()
    }

    /// Returns that other user, if the folder belongs to one.
    pub fn other_owner(&self) -> Option<Uid> {
        use std::os::unix::fs::MetadataExt;
        let about = std::fs::metadata(&self.dir).ok()?;
        let (owner, me) = (Uid::from_raw(about.uid()), geteuid());
        (!me.is_root() && owner != me).then_some(owner)
    }

    /// Returns the same paths with a checker that remembers trustworthy folders and does not check
    /// them again. For a program that reads its files once and ends, for one proof, or under inetd
    /// until a session has begun. The daemon keeps none for longer, because a folder's mode may
    /// change while it runs.
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

    /// Returns the command that creates the files, in backquotes; `None` for `/`, which is never a
    /// configuration folder.
    pub fn init(&self) -> Option<String> {
        (self.dir != Path::new("/")).then(|| self.cosadm("init"))
    }

    /// `cosserver.toml`, or the settings file that was given instead.
    pub fn settings(&self) -> PathBuf {
        self.settings.clone()
    }

    /// The host table.
    pub fn hostinfo(&self) -> PathBuf {
        self.dir.join("hostinfo")
    }

    /// The host's private key, which identifies the server.
    pub fn host_key(&self) -> PathBuf {
        self.dir.join("host.key")
    }

    /// The machine's (or the user's) private key, which identifies the client.
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

    /// The cookies with which that host authenticates to this one.
    pub fn cookie_in(&self, host: &HostName) -> PathBuf {
        self.cookies().join(format!("{host}.in"))
    }

    /// The cookies with which this host authenticates to that one.
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

    /// The socket on which the daemon accepts users' requests to vouch for them.
    pub fn signer(&self) -> PathBuf {
        self.run.join("sign")
    }

    /// The file that records that this host's doors were created.
    pub fn doors_made(&self) -> PathBuf {
        self.state.join("doors")
    }

    /// The registry note: the configuration folder's record of the machine registry in the state
    /// folder.
    pub fn registry_note(&self) -> PathBuf {
        self.dir.join("registry")
    }

    /// The socket on which the daemon accepts its administrator's commands.
    pub fn control(&self) -> PathBuf {
        self.run.join("control")
    }

    /// The lock file of a daemon in the background.
    pub fn daemon_lock(&self) -> PathBuf {
        self.run.join("cosserver.lock")
    }

    /// Returns the socket of the program that serves all connections of a named service.
    pub fn service_socket(&self, name: &str) -> PathBuf {
        self.run.join(format!("service-{name}"))
    }

    /// The file with that daemon's process id.
    pub fn pid_file(&self) -> PathBuf {
        self.run.join("cosserver.pid")
    }

    /// The table that inetd's many monitors share.
    pub fn inetd_table(&self) -> PathBuf {
        self.run.join("inetd.table")
    }

    /// The file of the tokens that are valid.
    pub fn tokens(&self) -> PathBuf {
        self.run.join("tokens")
    }

    /// The file that `cosadm` locks while it changes the others.
    pub fn lock(&self) -> PathBuf {
        self.dir.join(".lock")
    }

    /// Reads a file with care; see [`Checker::read_if_there`].
    ///
    /// # Errors
    /// The file, or a folder above it, is not trusted, or cannot be read.
    pub fn read_if_there(
        &self,
        path: &Path,
        kind: Kind,
        limit: usize,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        self.checker().read_if_there(path, kind, limit)
    }

    /// Creates a folder if it does not exist; see [`Checker::make_folder`].
    ///
    /// # Errors
    /// The folder above it is missing or not trusted, or a system call failed.
    pub fn make_folder(&self, path: &Path, mode: u32) -> Result<Created, Fault> {
        self.checker().make_folder(path, mode)
    }

    /// Checks that no other user can write a folder or one above it; see [`Checker::check_folder`].
    ///
    /// # Errors
    /// It is missing, or other users can.
    pub fn check_folder(&self, folder: &Path) -> Result<PathBuf, Fault> {
        self.checker().check_folder(folder)
    }

    /// Forgets which folders were found trustworthy.
    pub fn forget(&self) {
        if let Some(checker) = &self.checked {
            checker.forget();
        }
    }

    /// Returns the checker of these paths, or a new one if they keep none.
    pub fn checker(&self) -> Arc<Checker> {
        self.checked.clone().unwrap_or_default()
    }

    /// Reads a file that must exist, with care.
    ///
    /// # Errors
    /// As [`Self::read_if_there`], or the file is missing.
    pub fn read(&self, path: &Path, kind: Kind, limit: usize) -> Result<Zeroizing<Vec<u8>>, Fault> {
        self.read_if_there(path, kind, limit)?
            .ok_or_else(|| Fault::of(path, "there is no such file"))
    }
}

/// Returns whether a path leads to the system's configuration folder, whatever its name.
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
        // Before the folder is created, compare the folder above it and the name.
        (Some(above), Some(etc)) if dir.file_name() == system.file_name() => are_one(above, etc),
        (Some(_) | None, _) => None,
    };
    dir == system || are_one(dir, system).or_else(beside).unwrap_or(false)
}

/// Returns whether a folder is the caller's own or, if it is missing, would be created in one that
/// is.
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

/// Returns the home folder of this process's user, from the user database.
fn home_of_user() -> Option<PathBuf> {
    let user = User::from_uid(geteuid()).ok().flatten()?;
    Some(user.dir).filter(|home| home.is_absolute())
}

fn variable(name: &str) -> Option<PathBuf> {
    let value = env::var_os(name).filter(|v| !v.is_empty());
    value.map(PathBuf::from)
}

/// Returns the absolute path. If the working folder is gone, returns the path as it is; opening it
/// will report that. `.` is removed, `..` is kept.
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
