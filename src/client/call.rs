//! What a command line asks for: the values that the parser makes and the client carries out. Pure:
//! runs in the client.

use std::ffi::OsStr;
use std::num::NonZeroU16;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::listen::Listen;
use super::values::{Destination, Display};
use crate::config::linger::Linger;
use crate::config::name::UserName;
use crate::config::words::shell_word;

/// The default limit for connecting to one address, and then for the server's hello.
pub const CONNECT_TIMEOUT: ConnectTime = ConnectTime::Each(Duration::from_secs(10));

/// How long connecting may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectTime {
    /// Each address, and then the host's hello.
    Each(Duration),
    /// All of them together, as in ssh: `-o ConnectTimeout`. Resolving a name has the resolver's
    /// own limits.
    Together(Duration),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a command on a host.
    Run(Box<Call>),
    /// Open a named service of a host.
    Open(Box<Call>),
    /// Log in to a host and start an application there.
    Gui(Box<Call>),
    /// Register this machine at a host's inner door.
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
    /// Exit with status 0 at once: git asks whether we accept ssh's flags.
    Probe,
}

/// What to show of this machine's own key.
#[derive(Debug, PartialEq, Eq)]
pub struct ShowKey {
    /// The configuration folder, if given.
    pub folder: Option<PathBuf>,
    /// Whether to print JSON.
    pub json: bool,
}

/// A command to run on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The host as it was written, without the user.
    pub host: String,
    /// The host to connect to in place of its addresses (`-o HostName`).
    pub host_name: Option<String>,
    /// The remote user, if given.
    pub user: Option<UserName>,
    /// The port, if given.
    pub port: Option<NonZeroU16>,
    /// Whether standard input is not read.
    pub no_input: bool,
    /// The only family of addresses to use, if given.
    pub family: Option<Family>,
    /// Whether to report each step.
    pub verbose: bool,
    /// The configuration folder, if given.
    pub folder: Option<PathBuf>,
    /// How long connecting may take.
    pub connect_timeout: ConnectTime,
    /// An unreachable host is detected within twice this many seconds (0: never).
    pub keep_alive: u32,
    /// Variables to pass besides those that are always passed, by name or by pattern.
    pub send_env: Vec<String>,
    /// Variables to set for the command, which are passed in the same way.
    pub set_env: Vec<(String, String)>,
    /// The quiet time after the command's end, if given.
    pub linger: Option<Linger>,
    /// The command's words, any bytes but NUL. They may be empty for rsh and ssh, and are empty at
    /// a registration.
    pub words: Vec<Vec<u8>>,
    /// What the words are.
    pub kind: CallKind,
    /// Where to listen for the connections to a named service, if given.
    pub listen: Option<Listen>,
    /// The formats to take for the result of a named service, the preferred one first.
    pub formats: Vec<String>,
    /// Flags that mean nothing to us but something to ssh, in ssh's form.
    pub for_ssh: Vec<String>,
    /// Where to display an application, if given.
    pub display: Option<Display>,
    /// The descriptor to read the answers to prompts from, if given.
    pub password_fd: Option<i32>,
    /// Whether the application is left running (detached).
    pub detach: bool,
    /// Whether the user must not be asked.
    pub batch: bool,
    /// The name to register, if given.
    pub name: Option<String>,
    /// Whether to go to the background once the host has accepted.
    pub background: bool,
    /// The file for our own lines, if given.
    pub log: Option<PathBuf>,
    /// The source of the connection.
    pub source: Source,
    /// The hosts to connect through, the nearest first.
    pub jumps: Vec<Destination>,
    /// The path of `cos` on the hosts in between, if given.
    pub jump_program: Option<String>,
    /// What ssh's flags ask for in addition.
    pub of_ssh: OfSsh,
}

/// What the words of a call are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// A command, or an application and its arguments.
    Command,
    /// The name of a subsystem, the only word.
    Subsystem,
    /// A named service and its arguments.
    Named,
    /// None: the names of services are asked for.
    List,
}

/// The source of a connection, if given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// An address, or a name that has one.
    pub address: Option<String>,
    /// An interface.
    pub interface: Option<String>,
}

/// What ssh's flags ask for that has no other field.
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
    /// Why a flag cannot be honored.
    pub refused: Option<String>,
    /// What is wrong with unknown options.
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

/// The program or subcommand that a command line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// `cos` before its subcommand.
    Global,
    /// `cos run`.
    Cos,
    /// rsh's: the program was called `cosrsh` or `rsh`.
    Rsh,
    /// ssh's: the program was called `ssh`.
    Ssh,
    /// `cos gui`.
    Gui,
    /// `cos open`.
    Open,
    /// `cos services`.
    Services,
    /// `cos enrol`.
    Enrol,
    /// `cos key`.
    Key,
    /// `cos connect`.
    Connect,
}

impl Call {
    /// Returns the command that registers this machine at the same host, in backquotes, ready to be
    /// typed: with the folder and the port that were named.
    pub(super) fn enrolment(&self) -> String {
        let folder = self.folder.as_ref();
        let folder = folder.map(|f| format!(" -C {}", shell_word(&f.to_string_lossy())));
        let port = self.port.map(|p| format!(" -p {p}"));
        let [folder, port] = [folder, port].map(Option::unwrap_or_default);
        format!("`cos{folder} enrol{port} {}`", shell_word(&self.host))
    }
}

impl Personality {
    /// Returns the personality for a program's name, `argv[0]`.
    pub fn of(program: &OsStr) -> Self {
        match Path::new(program).file_name().map(OsStr::as_bytes) {
            Some(b"cosrsh" | b"rsh") => Self::Rsh,
            Some(b"ssh") => Self::Ssh,
            _ => Self::Global,
        }
    }

    /// Returns the program as it is called for this personality.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Global => "cos",
            Self::Cos => "cos run",
            Self::Rsh => "cosrsh",
            Self::Ssh => "ssh",
            Self::Gui => "cos gui",
            Self::Open => "cos open",
            Self::Services => "cos services",
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
