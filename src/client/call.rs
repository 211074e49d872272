//! What a command line asks for: the values that the parser makes and the client carries out.

use std::ffi::OsStr;
use std::num::NonZeroU16;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::values::{Destination, Display};
use crate::config::linger::Linger;
use crate::config::name::UserName;
use crate::config::words::shell_word;

/// How long connecting to one address may take, and then the server's hello,
/// unless told otherwise.
pub const CONNECT_TIMEOUT: ConnectTime = ConnectTime::Each(Duration::from_secs(10));

/// How long connecting may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectTime {
    /// Each address, and then the host's hello.
    Each(Duration),
    /// All of them together, as ssh has it: `-o ConnectTimeout`. The look-up of a name has
    /// the resolver's own times.
    Together(Duration),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a command on a host.
    Run(Box<Call>),
    /// Log in to a host and start an application there.
    Gui(Box<Call>),
    /// Have this machine registered at a host's doors.
    Enrol(Box<Call>),
    /// Show this machine's key.
    ShowKey(ShowKey),
    /// Connect standard input and output to a TCP port.
    Connect(Box<Call>),
    /// Print where a host is, as `ssh -G` does.
    ShowConfig(Box<Call>),
    /// Print this text (help, version).
    Tell(String),
    /// Print this text on standard error, as `ssh -V` does.
    TellError(String),
    /// Exit with status 0 at once: git asks whether we take ssh's flags.
    Probe,
}

/// What is to be shown of this machine's own key.
#[derive(Debug, PartialEq, Eq)]
pub struct ShowKey {
    /// The configuration folder, where one was given.
    pub folder: Option<PathBuf>,
    /// Whether as JSON.
    pub json: bool,
}

/// A command to run on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The host as it was written, without a user before it.
    pub host: String,
    /// The host to connect to in place of its addresses (`-o HostName`).
    pub host_name: Option<String>,
    /// The remote user, where one was given.
    pub user: Option<UserName>,
    /// The port, where one was given.
    pub port: Option<NonZeroU16>,
    /// Whether standard input is left alone.
    pub no_input: bool,
    /// The only family of addresses to use, where one was given.
    pub family: Option<Family>,
    /// Whether to tell each step.
    pub verbose: bool,
    /// The configuration folder, where one was given.
    pub folder: Option<PathBuf>,
    /// How long connecting may take.
    pub connect_timeout: ConnectTime,
    /// A host that has become unreachable is noticed within twice so many seconds (0: not).
    pub keep_alive: u32,
    /// Variables to pass besides those that always go along, by name or by a pattern.
    pub send_env: Vec<String>,
    /// Variables to set for the command, which pass as those do.
    pub set_env: Vec<(String, String)>,
    /// The quiet time after the command's end, where one was given.
    pub linger: Option<Linger>,
    /// The command's words, any bytes but NUL. There may be none in the faces of rsh and ssh, and
    /// there are none at a registration.
    pub words: Vec<Vec<u8>>,
    /// Whether the only word names a subsystem.
    pub subsystem: bool,
    /// Flags that mean nothing to us but something to ssh, as ssh takes them.
    pub for_ssh: Vec<String>,
    /// Where an application is to be displayed, where that was said.
    pub display: Option<Display>,
    /// The descriptor that has the answers to prompts, where one was given.
    pub password_fd: Option<i32>,
    /// Whether the application is left running by itself.
    pub detach: bool,
    /// Whether no person is to be asked.
    pub batch: bool,
    /// The name to be registered by, where one was given.
    pub name: Option<String>,
    /// Whether to go to the background once the host has accepted.
    pub background: bool,
    /// The file for our own lines, where one was given.
    pub log: Option<PathBuf>,
    /// Where the connection comes from.
    pub source: Source,
    /// The hosts to connect through, the nearest first.
    pub jumps: Vec<Destination>,
    /// `cos` on the hosts in between, where its path was given.
    pub jump_program: Option<String>,
    /// What ssh's flags ask for besides.
    pub of_ssh: OfSsh,
}

/// Where a connection comes from, where that was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// An address, or a name that has one.
    pub address: Option<String>,
    /// An interface.
    pub interface: Option<String>,
}

/// What ssh's flags ask for that has no other place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfSsh {
    /// Whether the program was called as `ssh`.
    pub is_ssh: bool,
    /// A terminal (`-t`).
    pub terminal: bool,
    /// No terminal (`-T`).
    pub no_terminal: bool,
    /// No command (`-N`).
    pub no_command: bool,
    /// No notes (`-q`).
    pub quiet: bool,
    /// Compression (`-C`), which may have been meant for the folder.
    pub compress: bool,
    /// The command where no words are given (`-o RemoteCommand`).
    pub command: Option<String>,
    /// The port that standard input and output are connected to (`-W`).
    pub stdio_to: Option<Destination>,
    /// A flag that cannot be honored, and why.
    pub refused: Option<String>,
    /// What is wrong with options that are not known.
    pub unknown: Vec<String>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Whose command line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// `cos`, with subcommands.
    Cos,
    /// rsh's: the program was called `cosrsh` or `rsh`.
    Rsh,
    /// ssh's: the program was called `ssh`.
    Ssh,
    /// `cos gui`.
    Gui,
    /// `cos enrol`.
    Enrol,
    /// `cos key`.
    Key,
    /// `cos connect`.
    Connect,
}

impl Call {
    /// The command that has this machine registered at the same host, in backquotes, to be
    /// typed as it is: with the folder and the port that were named.
    pub(super) fn enrolment(&self) -> String {
        let folder = self.folder.as_ref();
        let folder = folder.map(|f| format!(" -C {}", shell_word(&f.to_string_lossy())));
        let port = self.port.map(|p| format!(" -p {p}"));
        let [folder, port] = [folder, port].map(Option::unwrap_or_default);
        format!("`cos{folder} enrol{port} {}`", shell_word(&self.host))
    }
}

impl Personality {
    /// The face of a program's name, argv[0].
    pub fn of(program: &OsStr) -> Self {
        match Path::new(program).file_name().map(OsStr::as_bytes) {
            Some(b"cosrsh" | b"rsh") => Self::Rsh,
            Some(b"ssh") => Self::Ssh,
            _ => Self::Cos,
        }
    }

    /// The program as it is called for this face.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Cos => "cos",
            Self::Rsh => "cosrsh",
            Self::Ssh => "ssh",
            Self::Gui => "cos gui",
            Self::Enrol => "cos enrol",
            Self::Key => "cos key",
            Self::Connect => "cos connect",
        }
    }

    /// Whether the command line is that of rsh or ssh.
    pub(super) const fn is_remote_shell(self) -> bool {
        matches!(self, Self::Rsh | Self::Ssh)
    }
}
