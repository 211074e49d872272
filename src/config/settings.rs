//! `cosserver.toml`: the daemon's settings. One table, [`KEYS`], lists the keys. It drives the
//! reading, `cosserver -T`, the commented file that `cosadm init` writes, and the check of the
//! manual page.
//!
//! Read by the monitor at its start and at SIGHUP, and by `cosadm`. A file with a mistake is a
//! fault as a whole, and the daemon keeps its current settings.

mod keys;
mod port;
mod reading;
mod writing;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{User, geteuid};

pub use keys::{KEYS, Key, TABLES};
pub use port::default_port;

use super::address::{Address, Network};
use super::applications::Applications;
use super::name::{HostName, UserName};
use super::named_services::NamedServices;
use super::paths::{Paths, SETTINGS};
use super::secure::Kind;
use super::subsystems::Subsystems;
use crate::fault::Fault;

/// The longest settings file that is read, in bytes.
const FILE_MAX: usize = 256 * 1024;

/// All settings of the daemon.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name by which other hosts know this host.
    pub name: HostName,
    /// The addresses to listen on.
    pub listen: Vec<Address>,
    /// The TCP port to listen on; 0 lets the system choose one.
    pub port: u16,
    /// Whether the file sets the port. If not, it is the port of `cosserver` in `/etc/services`, or
    /// 9002.
    pub port_given: bool,
    /// Time and number limits for unauthenticated connections.
    pub limits: Limits,
    /// The penalties for a source of failures.
    pub penalties: Penalties,
    /// How commands run.
    pub exec: Exec,
    /// How users log in.
    pub login: Login,
    /// The applications that a login may start.
    pub gui: Applications,
    /// The programs that a host may request by name.
    pub subsystem: Subsystems,
    /// The named services.
    pub service: NamedServices,
    /// The daemon itself.
    pub daemon: Daemon,
}

/// `[limits]`: the time and number limits, above all for unauthenticated connections.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// From accepting a connection to its complete hello.
    pub hello: Duration,
    /// From the hello to a complete handshake with its request.
    pub handshake: Duration,
    /// Unauthenticated connections, in all.
    pub silent: usize,
    /// Unauthenticated connections from one source (IPv6: one /64).
    pub silent_per_source: usize,
    /// Of the unauthenticated connections, how many are reserved for addresses that `hostinfo`
    /// lists.
    pub reserved: usize,
    /// Refused connections that wait for their answer.
    pub refusals: usize,
    /// Commands that run at the same time.
    pub sessions: usize,
    /// Of them, those of one host; 0: a share that depends on which other hosts may ask.
    pub sessions_per_host: usize,
    /// Of them, those of one user; 0: a share.
    pub sessions_per_user: usize,
    /// MiB that the windows of all sessions may grow by.
    pub windows: usize,
}

/// `[penalties]`: for how long a source is restricted after a failure, like OpenSSH's
/// `PerSourcePenalties`.
#[derive(Clone, Debug, Default)]
pub struct Penalties {
    /// After a wrong proof.
    pub authfail: Duration,
    /// After a connection that ended, or broke the protocol, without a proof.
    pub noauth: Duration,
    /// After a connection that missed a deadline.
    pub grace_exceeded: Duration,
    /// The most that a source can accumulate.
    pub max: Duration,
    /// What must have accumulated before it takes effect.
    pub min: Duration,
    /// How many sources are remembered, for IPv4 and for IPv6 each.
    pub sources: usize,
    /// Addresses and networks that are never penalized.
    pub exempt: Vec<Network>,
}

/// `[exec]`: how commands run.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// `PATH` of the commands.
    pub path: String,
    /// How long the outputs of a command that has ended may stay quiet, while a child of it holds
    /// them open, before the session ends.
    pub linger: Duration,
    /// From SIGHUP to SIGKILL after the client is gone.
    pub hup_to_kill: Duration,
    /// Whether shells find `SSH_CLIENT` in their environment.
    pub ssh_client: bool,
}

/// `[login]`: how users log in.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// From the request to the last answer.
    pub time: Duration,
    /// The most time that PAM may take between two questions.
    pub check: Duration,
    /// Logins that PAM checks at the same time.
    pub checks: usize,
    /// Logins in progress, in all.
    pub waiting: usize,
}

/// `[daemon]`: the daemon itself.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// How long running commands may continue after SIGTERM.
    pub grace: Duration,
    /// An unreachable peer is noticed within twice this time.
    pub keep_alive: Duration,
    /// Refusals are answered at a multiple of this after the request.
    pub refusal_interval: Duration,
    /// The account of the processes that talk to the network.
    pub user: UserName,
}

impl Daemon {
    /// Returns the remedy if the account of the processes that talk to the network is missing.
    /// `None` if it exists, or if this process is not root, because only root needs it. Queries the
    /// user database, so it may block.
    pub fn lacks_its_user(&self) -> Option<String> {
        if !geteuid().is_root() || !matches!(User::from_name(self.user.as_str()), Ok(None)) {
            return None;
        }
        Some(self.without_its_user())
    }

    /// Returns the remedy for the missing account.
    pub fn without_its_user(&self) -> String {
        let user = &self.user;
        format!(
            "there is no such user, so the network processes run as nobody; to create it: \
             useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin {user}"
        )
    }
}

impl Settings {
    /// Reads a settings file with care.
    ///
    /// # Errors
    /// The file is missing, not trusted or not readable, or has a mistake; the fault names the line
    /// and what was probably meant.
    pub fn load(file: &Path) -> Result<Self, Fault> {
        let paths = Paths::of_file(file);
        let Some(bytes) = paths.read_if_there(file, Kind::Policy, FILE_MAX)? else {
            let words = "there is no such file".to_owned();
            let words = match paths.init() {
                Some(init) if file.ends_with(SETTINGS) => format!("{words}; {init} makes one"),
                Some(_) | None => words,
            };
            return Err(Fault::of(file, words));
        };
        let text = reading::text_of(&bytes)
            .map_err(|line| Fault::at(file, line, "it is not UTF-8 text"))?;
        Self::parse(&text, &paths)
    }

    /// Parses settings for these paths; the settings file of `paths` is named in faults.
    ///
    /// # Errors
    /// The text has a mistake.
    pub fn parse(text: &str, paths: &Paths) -> Result<Self, Fault> {
        let mut settings = Self::unset(paths)?;
        reading::apply(
            &mut settings,
            &writing::defaults(),
            Path::new("the table of defaults"),
        )?;
        let file = paths.settings();
        let given = reading::apply(&mut settings, text, &file)?;
        settings.port_given = given.contains(&("", "port"));
        if !settings.port_given {
            settings.port = default_port();
        }
        if !given.contains(&("", "name")) {
            settings.name = HostName::of_this_machine()
                .map_err(|e| Fault::of(&file, format!("{e}; set name = \"…\"")))?;
        }
        settings.agree().map_err(|why| Fault::of(&file, why))?;
        Ok(settings)
    }

    /// Resets the settings that take effect only at the daemon's start to those of its start.
    /// Returns the keys that had different values.
    pub fn keep_from_start(&mut self, started: &Self) -> Vec<&'static Key> {
        let other = |key: &&Key| key.at_start && key.value(self) != key.value(started);
        let changed = KEYS.iter().filter(other).collect();
        self.listen.clone_from(&started.listen);
        self.port = started.port;
        self.daemon.user.clone_from(&started.daemon.user);
        changed
    }

    /// Returns every key with the value in force, as a valid settings file.
    pub fn print(&self) -> String {
        let mut out = String::new();
        for table in TABLES {
            if !table.name.is_empty() {
                let _ = writeln!(out, "\n[{}]", table.name);
            }
            for key in KEYS.iter().filter(|key| key.table == table.name) {
                let _ = writeln!(out, "{} = {}", key.name, key.value(self));
            }
        }
        writing::subsystems(&mut out, &self.subsystem);
        writing::services(&mut out, &self.service);
        writing::applications(&mut out, &self.gui);
        out
    }

    /// Returns the commented file that `cosadm init` writes: every key with its meaning and its
    /// default, commented out.
    pub fn template() -> String {
        writing::template()
    }

    /// Returns the settings before the key table's defaults apply: the addresses to listen on,
    /// which depend on the paths, and placeholders.
    fn unset(paths: &Paths) -> Result<Self, Fault> {
        let any = Address::parse;
        let listen = if paths.system {
            [any("0.0.0.0")?, any("::")?]
        } else {
            [any("127.0.0.1")?, any("::1")?]
        };
        Ok(Self {
            name: HostName::parse("localhost")?,
            listen: listen.to_vec(),
            port: 0,
            port_given: false,
            limits: Limits::default(),
            penalties: Penalties::default(),
            exec: Exec::default(),
            login: Login::default(),
            gui: Applications::default(),
            subsystem: Subsystems::default(),
            service: NamedServices::default(),
            daemon: Daemon {
                grace: Duration::ZERO,
                keep_alive: Duration::ZERO,
                refusal_interval: Duration::ZERO,
                user: UserName::parse("nobody")?,
            },
        })
    }

    /// Checks for settings that are each valid but do not go together.
    fn agree(&self) -> Result<(), String> {
        let limits = &self.limits;
        if limits.reserved >= limits.silent {
            return Err(format!(
                "in [limits], reserved = {} must be less than silent = {}",
                limits.reserved, limits.silent
            ));
        }
        if self.penalties.min > self.penalties.max {
            return Err("in [penalties], min must not be more than max".into());
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
