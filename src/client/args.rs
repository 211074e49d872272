//! The command line of `cos` and of its rsh face, parsed into what it asks for.
//! Pure: run by the client before anything else; it reads no file.
//!
//! Flags may stand before the host and after it, up to the first word of the
//! command or `--`, as ssh and the BSD rsh take them. The command's words are
//! kept as they are, byte for byte, and never quoted again.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU16;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arg_parser::ArgParser;
use super::dial::ConnectTime;
use super::flags;
use super::help::{help, usage};
use super::values::{Destination, Display};
use crate::config::linger::Linger;
use crate::config::name::UserName;
use crate::config::words::{did_you_mean, shell_word};
use crate::fault::Fault;

/// How long connecting to one address may take, and then the server's hello,
/// unless told otherwise.
pub const CONNECT_TIMEOUT: ConnectTime = ConnectTime::Each(Duration::from_secs(10));

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

/// Parses a command line; the first word is the program's name.
///
/// # Errors
/// What is wrong with it, and what was probably meant.
pub fn parse(argv: &[OsString]) -> Result<Action, Fault> {
    let (program, rest) = argv
        .split_first()
        .map_or((OsStr::new("cos"), argv), |(p, rest)| (p.as_os_str(), rest));
    let personality = Personality::of(program);
    if personality.is_remote_shell() {
        parse_run(personality, ArgParser::default(), rest)
    } else {
        parse_cos(rest)
    }
}

fn parse_cos(args: &[OsString]) -> Result<Action, Fault> {
    let mut parser = ArgParser::default();
    let rest = parser.take(Personality::Cos, flags::COS, args)?.rest;
    if let Some(tell) = parser.tell.take() {
        return Ok(tell);
    }
    match rest.split_first() {
        Some((word, rest)) if word == "run" => parse_run(Personality::Cos, parser, rest),
        Some((word, rest)) if word == "gui" => parse_run(Personality::Gui, parser, rest),
        Some((word, rest)) if word == "enrol" => parse_run(Personality::Enrol, parser, rest),
        Some((word, rest)) if word == "key" => parse_key(parser, rest),
        Some((word, rest)) if word == "connect" => parse_run(Personality::Connect, parser, rest),
        Some((word, rest)) if word == "help" => parse_help(rest),
        Some((word, _)) => Err(Fault::new(format!(
            "{word:?} is no subcommand; did you mean \"cos run {}\"?",
            word.to_string_lossy()
        ))),
        None => Err(Fault::new(format!(
            "{}; also cos gui, cos enrol, cos key and cos connect",
            usage(Personality::Cos)
        ))),
    }
}

/// `cos help`, of a subcommand or of all.
fn parse_help(args: &[OsString]) -> Result<Action, Fault> {
    let word = args.first().map(|word| word.to_string_lossy());
    let personality = match word.as_deref() {
        None | Some("run") => Personality::Cos,
        Some("gui") => Personality::Gui,
        Some("enrol") => Personality::Enrol,
        Some("key") => Personality::Key,
        Some("connect") => Personality::Connect,
        Some(other) => {
            let meant = did_you_mean(other, ["run", "gui", "enrol", "key", "connect"]);
            let words = format!("cos help: {other:?} is no subcommand{meant}");
            return Err(Fault::new(words));
        }
    };
    Ok(Action::Tell(help(personality)))
}

fn parse_run(
    personality: Personality,
    mut parser: ArgParser,
    args: &[OsString],
) -> Result<Action, Fault> {
    let table = flags::of(personality);
    let before = parser.take(personality, table, args)?;
    let (host, words) = match before.rest.split_first() {
        // After "--" before the host nothing is a flag any more, as in ssh.
        Some((host, rest)) if before.terminated => (Some(host), rest),
        Some((host, rest)) => (Some(host), parser.take(personality, table, rest)?.rest),
        None => (None, before.rest),
    };
    match (parser.tell.take(), host) {
        (Some(tell), _) => Ok(tell),
        (None, Some(host)) => {
            let shows_config = parser.shows_config;
            let call = Box::new(parser.call(personality, host, words)?);
            Ok(match personality {
                Personality::Gui => Action::Gui(call),
                Personality::Enrol => Action::Enrol(call),
                Personality::Connect => Action::Connect(call),
                Personality::Ssh if shows_config => Action::ShowConfig(call),
                Personality::Cos | Personality::Rsh | Personality::Ssh | Personality::Key => {
                    Action::Run(call)
                }
            })
        }
        (None, None) => Err(Fault::new(usage(personality))),
    }
}

fn parse_key(mut parser: ArgParser, args: &[OsString]) -> Result<Action, Fault> {
    let (personality, table) = (Personality::Key, flags::of(Personality::Key));
    let before = parser.take(personality, table, args)?.rest;
    let show = before.split_first().filter(|(word, _)| *word == "show");
    let behind = match show {
        Some((_, rest)) => parser.take(personality, table, rest)?.rest,
        None => before,
    };
    if let Some(tell) = parser.tell.take() {
        return Ok(tell);
    }
    if let (None, Some(word)) = (show, behind.first()) {
        let word = word.to_string_lossy();
        let meant = did_you_mean(&word, ["show"]);
        let hint = if meant.is_empty() {
            format!("; {}", usage(personality))
        } else {
            meant
        };
        return Err(Fault::new(format!("cos key: {word:?} is unknown{hint}")));
    }
    if show.is_none() || !behind.is_empty() {
        return Err(Fault::new(usage(personality)));
    }
    Ok(Action::ShowKey(ShowKey {
        folder: parser.folder,
        json: parser.json,
    }))
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "args_enrol_tests.rs"]
mod enrol_tests;

#[cfg(test)]
#[path = "args_ssh_tests.rs"]
mod ssh_tests;
