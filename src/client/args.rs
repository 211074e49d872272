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

use getopts::Matches;

use super::dial::ConnectTime;
use super::flags::{self, Flag, Rule};
use super::help::{help, usage};
use super::values::{self, Display};
use crate::config::linger::Linger;
use crate::config::name::UserName;
use crate::config::words::{did_you_mean, shell_word};
use crate::fault::Fault;

/// How long connecting to one address may take, and then the server's hello,
/// unless told otherwise.
pub const CONNECT_TIMEOUT: ConnectTime = ConnectTime::Each(Duration::from_secs(10));

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Run a command on a host.
    Run(Box<Call>),
    /// Log in to a host and start an application there.
    Gui(Box<Call>),
    /// Have this machine registered at a host's doors.
    Enrol(Box<Call>),
    /// Show this machine's key.
    ShowKey(ShowKey),
    /// Print this text (help, version).
    Tell(String),
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
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    /// The host as it was written, without a user before it.
    pub host: String,
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
    /// The quiet time after the command's end, where one was given.
    pub linger: Option<Linger>,
    /// The command's words, any bytes but NUL: at least one, and none at a registration.
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
pub enum Face {
    /// `cos`, with subcommands.
    Cos,
    /// rsh's: the program was called `cosrsh` or `rsh`.
    Rsh,
    /// `cos gui`.
    Gui,
    /// `cos enrol`.
    Enrol,
    /// `cos key`.
    Key,
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

impl Face {
    /// The face of a program's name, argv[0].
    pub fn of(program: &OsStr) -> Self {
        match Path::new(program).file_name().map(OsStr::as_bytes) {
            Some(b"cosrsh" | b"rsh") => Self::Rsh,
            _ => Self::Cos,
        }
    }
}

/// Parses a command line; the first word is the program's name.
///
/// # Errors
/// What is wrong with it, and what was probably meant.
pub fn parse(argv: &[OsString]) -> Result<Wish, Fault> {
    let (program, rest) = argv
        .split_first()
        .map_or((OsStr::new("cos"), argv), |(p, rest)| (p.as_os_str(), rest));
    match Face::of(program) {
        Face::Rsh => parse_run(Face::Rsh, Draft::default(), rest),
        Face::Cos | Face::Gui | Face::Enrol | Face::Key => parse_cos(rest),
    }
}

fn parse_cos(args: &[OsString]) -> Result<Wish, Fault> {
    let mut draft = Draft::default();
    let rest = draft.take(Face::Cos, flags::COS, args)?.rest;
    if let Some(tell) = draft.tell.take() {
        return Ok(tell);
    }
    match rest.split_first() {
        Some((word, rest)) if word == "run" => parse_run(Face::Cos, draft, rest),
        Some((word, rest)) if word == "gui" => parse_run(Face::Gui, draft, rest),
        Some((word, rest)) if word == "enrol" => parse_run(Face::Enrol, draft, rest),
        Some((word, rest)) if word == "key" => parse_key(draft, rest),
        Some((word, rest)) if word == "help" => parse_help(rest),
        Some((word, _)) => Err(Fault::new(format!(
            "{word:?} is no subcommand; did you mean \"cos run {}\"?",
            word.to_string_lossy()
        ))),
        None => Err(Fault::new(format!(
            "{}; also cos gui, cos enrol and cos key",
            usage(Face::Cos)
        ))),
    }
}

/// `cos help`, of a subcommand or of all.
fn parse_help(args: &[OsString]) -> Result<Wish, Fault> {
    let word = args.first().map(|word| word.to_string_lossy());
    let face = match word.as_deref() {
        None | Some("run") => Face::Cos,
        Some("gui") => Face::Gui,
        Some("enrol") => Face::Enrol,
        Some("key") => Face::Key,
        Some(other) => {
            let meant = did_you_mean(other, ["run", "gui", "enrol", "key"]);
            let words = format!("cos help: {other:?} is no subcommand{meant}");
            return Err(Fault::new(words));
        }
    };
    Ok(Wish::Tell(help(face)))
}

fn parse_run(face: Face, mut draft: Draft, args: &[OsString]) -> Result<Wish, Fault> {
    let table = flags::of(face);
    let before = draft.take(face, table, args)?;
    let (host, words) = match before.rest.split_first() {
        // After "--" before the host nothing is a flag any more, as in ssh.
        Some((host, rest)) if before.terminated => (Some(host), rest),
        Some((host, rest)) => (Some(host), draft.take(face, table, rest)?.rest),
        None => (None, before.rest),
    };
    match (draft.tell.take(), host) {
        (Some(tell), _) => Ok(tell),
        (None, Some(host)) => {
            let call = Box::new(draft.call(face, host, words)?);
            Ok(match face {
                Face::Gui => Wish::Gui(call),
                Face::Enrol => Wish::Enrol(call),
                Face::Cos | Face::Rsh | Face::Key => Wish::Run(call),
            })
        }
        (None, None) => Err(Fault::new(usage(face))),
    }
}

fn parse_key(mut draft: Draft, args: &[OsString]) -> Result<Wish, Fault> {
    let (face, table) = (Face::Key, flags::KEY);
    let before = draft.take(face, table, args)?.rest;
    let show = before.split_first().filter(|(word, _)| *word == "show");
    let behind = match show {
        Some((_, rest)) => draft.take(face, table, rest)?.rest,
        None => before,
    };
    if let Some(tell) = draft.tell.take() {
        return Ok(tell);
    }
    if let (None, Some(word)) = (show, behind.first()) {
        let word = word.to_string_lossy();
        let meant = did_you_mean(&word, ["show"]);
        let hint = if meant.is_empty() {
            format!("; {}", usage(face))
        } else {
            meant
        };
        return Err(Fault::new(format!("cos key: {word:?} is unknown{hint}")));
    }
    if show.is_none() || !behind.is_empty() {
        return Err(Fault::new(usage(face)));
    }
    Ok(Wish::ShowKey(ShowKey {
        folder: draft.folder,
        json: draft.json,
    }))
}

/// What has been read of a command line so far.
#[derive(Default)]
struct Draft {
    tell: Option<Wish>,
    user: Option<UserName>,
    port: Option<NonZeroU16>,
    set_user: Option<UserName>,
    set_port: Option<NonZeroU16>,
    no_input: bool,
    v4: bool,
    v6: bool,
    verbose: bool,
    folder: Option<PathBuf>,
    connect_timeout: Option<Duration>,
    keep_alive: Option<u32>,
    linger: Option<Linger>,
    subsystem: bool,
    send_env: Vec<String>,
    for_ssh: Vec<String>,
    display: Option<Display>,
    password_fd: Option<i32>,
    detach: bool,
    batch: bool,
    name: Option<String>,
    json: bool,
}

/// What follows the flags that were read, and whether `--` ended them.
struct Taken<'a> {
    rest: &'a [OsString],
    terminated: bool,
}

impl Draft {
    fn take<'a>(
        &mut self,
        face: Face,
        table: &[Flag],
        args: &'a [OsString],
    ) -> Result<Taken<'a>, Fault> {
        // getopts takes text alone. What follows the flags is taken from `args`
        // itself, so bytes that are no text go through unharmed.
        let found = flags::parser(table)
            .parse(args.iter().map(|a| a.to_string_lossy().into_owned()))
            .map_err(|e| flags::wrong(&e, face))?;
        for flag in table {
            if found.opt_count(flag.name()) > 0 {
                self.apply(face, flag, &found)?;
            }
        }
        let start = args.len().saturating_sub(found.free.len());
        Ok(Taken {
            rest: args.get(start..).unwrap_or_default(),
            terminated: found.free_trailing_start() == Some(0),
        })
    }

    fn apply(&mut self, face: Face, flag: &Flag, found: &Matches) -> Result<(), Fault> {
        let values = found.opt_strs(flag.name());
        let last = values.last().map(String::as_str).unwrap_or_default();
        match flag.rule {
            Rule::User => self.user = Some(values::user(last, "-l")?),
            Rule::Port => self.port = Some(values::port(last, "-p")?),
            Rule::NoInput => self.no_input = true,
            Rule::V4 => self.v4 = true,
            Rule::V6 => self.v6 = true,
            Rule::Verbose => self.verbose = true,
            Rule::Setting => {
                for setting in &values {
                    // What is ours alone ssh would refuse.
                    if self.set(setting)? {
                        self.for_ssh.push(format!("-o{setting}"));
                    }
                }
            }
            Rule::Display => self.display = Some(Display::parse(last)?),
            Rule::PasswordFd => self.password_fd = Some(values::descriptor(last)?),
            Rule::Detach => self.detach = true,
            Rule::Name => self.name = Some(values::machine_name(last, "--name")?),
            Rule::Json => self.json = true,
            Rule::Probe => self.tell = Some(Wish::Probe),
            Rule::Subsystem => self.subsystem = true,
            Rule::ForSsh if flag.value.is_empty() => self.for_ssh.push(format!("-{}", flag.letter)),
            Rule::ForSsh => self.for_ssh.push(format!("-{}{last}", flag.letter)),
            Rule::PassedOver => {}
            Rule::Folder => self.folder = Some(values::folder(last)?),
            Rule::Help => self.tell = Some(Wish::Tell(help(face))),
            Rule::Version => {
                self.tell = Some(Wish::Tell(
                    concat!("cos ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// An option in ssh's form. What we do not know is passed over, as the
    /// tools that send it expect. Whether ssh has it too.
    fn set(&mut self, setting: &str) -> Result<bool, Fault> {
        let Some((key, value)) = setting.split_once(['=', ' ']) else {
            return Err(Fault::new(format!(
                "-o {setting:?} is not of the form KEY=VALUE"
            )));
        };
        let value = value.trim_matches([' ', '=', '"']);
        match key.trim().to_ascii_lowercase().as_str() {
            "connecttimeout" => self.connect_timeout = values::seconds(value, "ConnectTimeout")?,
            "serveraliveinterval" => self.keep_alive = Some(values::keep_alive(value)?),
            "user" => self.set_user = Some(values::user(value, "-o User=")?),
            "port" => self.set_port = Some(values::port(value, "-o Port=")?),
            "sendenv" => self
                .send_env
                .extend(value.split_ascii_whitespace().map(str::to_owned)),
            "batchmode" => match value {
                "yes" | "true" => self.batch = true,
                "no" | "false" => self.batch = false,
                _ => {
                    return Err(Fault::new(format!(
                        "-o BatchMode={value}: neither yes nor no"
                    )));
                }
            },
            "linger" => {
                let linger = Linger::parse(value).map_err(|e| e.while_doing("-o Linger="))?;
                self.linger = Some(linger);
                return Ok(false);
            }
            _ => {}
        }
        Ok(true)
    }

    fn call(self, face: Face, host: &OsStr, words: &[OsString]) -> Result<Call, Fault> {
        let Some(host) = host.to_str() else {
            return Err(Fault::new(format!("{host:?} is no host name")));
        };
        let (at, host) = match host.rsplit_once('@') {
            Some((at, host)) => (Some(values::user(at, "before @")?), host),
            None => (None, host),
        };
        let family = match (self.v4, self.v6) {
            (false, false) => None,
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (true, true) => return Err(Fault::new("-4 and -6 leave no address; give one of them")),
        };
        if host.is_empty() {
            return Err(Fault::new("the host has no name"));
        }
        let wrong = match face {
            Face::Enrol if at.is_some() => Some(format!(
                "a machine is registered, not a user: cos enrol {host}"
            )),
            Face::Enrol if !words.is_empty() => Some(format!(
                "enrol takes one host and no command: cos enrol {host}; \"cos enrol --help\" lists the flags"
            )),
            Face::Gui if words.is_empty() => Some(format!(
                "name an application: cos gui {host} APPLICATION [ARGUMENT]..."
            )),
            Face::Cos | Face::Rsh if words.is_empty() => {
                Some(format!("no command given for {host}"))
            }
            Face::Cos | Face::Rsh | Face::Gui | Face::Enrol | Face::Key => None,
        };
        if let Some(wrong) = wrong {
            return Err(Fault::new(wrong));
        }
        Ok(Call {
            host: host.to_owned(),
            user: self.user.or(at).or(self.set_user),
            port: self.port.or(self.set_port),
            no_input: self.no_input,
            family,
            verbose: self.verbose,
            folder: self.folder,
            connect_timeout: self
                .connect_timeout
                .map_or(CONNECT_TIMEOUT, ConnectTime::Together),
            keep_alive: self.keep_alive.unwrap_or(values::KEEP_ALIVE),
            linger: self.linger,
            words: words.iter().map(|w| w.as_bytes().to_vec()).collect(),
            subsystem: self.subsystem,
            send_env: self.send_env,
            for_ssh: self.for_ssh,
            display: self.display,
            password_fd: self.password_fd,
            detach: self.detach,
            batch: self.batch,
            name: self.name,
        })
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "args_enrol_tests.rs"]
mod enrol_tests;
