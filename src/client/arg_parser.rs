//! Reads the flags of a command line and makes a call of them. Pure: runs in the client, called by
//! [`args`](super::args).

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU16;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::call::{
    Action, CONNECT_TIMEOUT, Call, CallKind, ConnectTime, Family, OfSsh, Personality, Source,
};
use super::flags::{Effect, Rule, Table};
use super::help::{help, usage};
use super::listen::Listen;
use super::request;
use super::service_url::ServiceUrl;
use super::ssh_options::{self, OURS, Setting};
use super::values::{self, Destination, Display};
use crate::cli::{self, Fail, Given, ParsingStyle, dashed};
use crate::config::address::Address;
use crate::config::linger::Linger;
use crate::config::name::UserName;
use crate::config::words;
use crate::fault::Fault;

/// What has been read of a command line so far.
#[derive(Default)]
pub(super) struct ArgParser {
    /// What to print instead of any other action.
    pub(super) tell: Option<Action>,
    /// Whether to show the configuration (`ssh -G`).
    pub(super) shows_config: bool,
    user: Option<UserName>,
    port: Option<NonZeroU16>,
    no_input: bool,
    set_no_input: Option<bool>,
    v4: bool,
    v6: bool,
    verbose: bool,
    /// The configuration folder.
    pub(super) folder: Option<PathBuf>,
    connect_timeout: Option<Option<Duration>>,
    keep_alive: Option<u32>,
    linger: Option<Linger>,
    subsystem: bool,
    formats: Vec<String>,
    listen: Option<Listen>,
    send_env: Vec<String>,
    set_env: Option<Vec<(String, String)>>,
    host_name: Option<String>,
    set_family: Option<Option<Family>>,
    /// Why there is no forwarding, if one was requested.
    forwarding: Option<String>,
    clear_forwardings: Option<bool>,
    for_ssh: Vec<String>,
    display: Option<Display>,
    password_fd: Option<i32>,
    detach: bool,
    batch: Option<bool>,
    name: Option<String>,
    /// Whether to print JSON.
    pub(super) json: bool,
    /// rsh's `-L`, which has no value.
    l_of_rsh: bool,
    background: bool,
    set_background: Option<bool>,
    log: Option<PathBuf>,
    source: Source,
    jumps: Option<Vec<Destination>>,
    jump_program: Option<String>,
    set_address: Option<Option<String>>,
    set_interface: Option<Option<String>>,
    set_terminal: Option<Option<bool>>,
    command: Option<Option<String>>,
    of_ssh: OfSsh,
    /// The keys of `-o` so far, in lower case.
    seen: Vec<String>,
    /// Unknown keys with their messages, and the patterns of those that are not reported.
    unknown: Vec<(String, String)>,
    ignored: Vec<String>,
}

/// What follows the flags that were read.
pub(super) struct Taken<'a> {
    /// The words.
    pub(super) rest: &'a [OsString],
    /// Whether `--` ended the flags.
    pub(super) terminated: bool,
}

impl ArgParser {
    /// Reads flags up to the first word that is not a flag.
    ///
    /// # Errors
    /// A flag is unknown, or its value is wrong.
    pub(super) fn take<'a>(
        &mut self,
        personality: Personality,
        table: Table,
        args: &'a [OsString],
    ) -> Result<Taken<'a>, Fault> {
        // getopts takes only text. What follows the flags is taken from `args` itself, so bytes
        // that are not text stay unchanged.
        let words = args.iter().map(|a| a.to_string_lossy().into_owned());
        let found = cli::parse(table, ParsingStyle::StopAtFirstFree, words)
            .map_err(|e| wrong(&e, personality))?;
        let mut given = found.given.iter();
        while let Some(one) = given.next() {
            let effect = &one.flag.effect;
            let first_counts = matches!(effect.rule, Rule::User | Rule::Port | Rule::Setting);
            let mut later = given.clone();
            if first_counts || !later.any(|g| (g.letter, g.long) == (one.letter, one.long)) {
                self.apply(personality, one)?;
            }
            // In the order of the command line: for some flags ssh uses the first, for others the
            // last.
            if effect.is_for_ssh && !is_ours(one) {
                self.for_ssh.push(format!("-{}{}", one.letter, one.value));
            }
        }
        let start = args.len().saturating_sub(found.words.len());
        Ok(Taken {
            rest: args.get(start..).unwrap_or_default(),
            terminated: found.is_terminated,
        })
    }

    fn apply(&mut self, personality: Personality, given: &Given<Effect>) -> Result<(), Fault> {
        let (letter, value) = (given.letter, given.value.as_str());
        let why = || format!("-{letter}: {}", given.flag.help);
        match given.flag.effect.rule {
            Rule::User => keep(&mut self.user, values::user(value, "-l")?),
            Rule::Port => keep(&mut self.port, values::port(value, "-p")?),
            Rule::Setting => self.set(personality, value)?,
            Rule::NoInput => self.no_input = true,
            Rule::V4 => self.v4 = true,
            Rule::V6 => self.v6 = true,
            Rule::Verbose => self.verbose = true,
            Rule::Display => self.display = Some(Display::parse(value)?),
            Rule::PasswordFd => self.password_fd = Some(values::descriptor(value)?),
            Rule::Detach => self.detach = true,
            Rule::Name => self.name = Some(values::machine_name(value, "--name")?),
            Rule::Json if personality == Personality::Services => {
                self.formats = vec!["json".to_owned()];
            }
            Rule::Json => self.json = true,
            Rule::Listen => self.listen = Some(Listen::parse(value)?),
            Rule::Format => self.formats = values::formats(value)?,
            Rule::Probe if personality == Personality::Ssh => self.shows_config = true,
            Rule::Probe => self.tell = Some(Action::Probe),
            Rule::Subsystem => self.subsystem = true,
            Rule::Background => self.background = true,
            Rule::Log => self.log = Some(values::file(value, "-E")?),
            Rule::Bind => self.source.address = Some(value.to_owned()),
            Rule::Interface => self.source.interface = Some(value.to_owned()),
            Rule::Jump => self.jumps = Some(values::jumps(value, "-J")?),
            Rule::Terminal => self.of_ssh.terminal = true,
            Rule::NoTerminal => self.of_ssh.no_terminal = true,
            Rule::NoCommand => self.of_ssh.no_command = true,
            Rule::Quiet => self.of_ssh.quiet = true,
            Rule::Compress => self.of_ssh.compress = true,
            Rule::StdioTo => self.of_ssh.stdio_to = Some(values::stdio_to(value)?),
            Rule::Refused => self.of_ssh.refused = Some(why()),
            Rule::Forwarding => self.forwarding = Some(why()),
            Rule::Query => {
                let words = format!("-Q {value}: there are no algorithms to choose from");
                return Err(Fault::new(words));
            }
            Rule::Ignored => self.l_of_rsh |= letter == "L",
            Rule::Folder => self.folder = Some(values::folder(value)?),
            Rule::Help => self.tell = Some(Action::Tell(help(personality))),
            Rule::Version => {
                let version = concat!("cos ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
                self.tell = Some(if personality == Personality::Ssh {
                    Action::TellError(version)
                } else {
                    Action::Tell(version)
                });
            }
        }
        Ok(())
    }

    /// Applies an option of `-o`. The first of two counts, as in ssh.
    fn set(&mut self, personality: Personality, setting: &str) -> Result<(), Fault> {
        let parsed = ssh_options::parse(setting)?;
        if !parsed.is_for(personality) {
            let (key, program) = (ssh_options::key(setting), personality.program());
            let words = format!("-o {key} is not an option of {program}");
            return Err(Fault::new(words));
        }
        let key = ssh_options::key(setting).to_ascii_lowercase();
        let adds = matches!(parsed, Setting::SendEnv(_) | Setting::IgnoreUnknown(_));
        if self.seen.contains(&key) && !adds {
            return Ok(());
        }
        self.seen.push(key);
        match parsed {
            Setting::ConnectTimeout(time) => keep(&mut self.connect_timeout, time),
            Setting::KeepAlive(seconds) => keep(&mut self.keep_alive, seconds),
            Setting::User(user) => keep(&mut self.user, user),
            Setting::Port(port) => keep(&mut self.port, port),
            Setting::HostName(pattern) => keep(&mut self.host_name, pattern),
            Setting::Family(family) => keep(&mut self.set_family, family),
            Setting::SendEnv(names) => self.send_env.extend(names),
            Setting::SetEnv(variables) => keep(&mut self.set_env, variables),
            Setting::Batch(batch) => keep(&mut self.batch, batch),
            Setting::BindAddress(address) => keep(&mut self.set_address, address),
            Setting::BindInterface(interface) => keep(&mut self.set_interface, interface),
            Setting::Jumps(jumps) => keep(&mut self.jumps, jumps),
            Setting::RemoteCommand(command) => keep(&mut self.command, command),
            Setting::JumpProgram(program) => keep(&mut self.jump_program, program),
            Setting::Linger(linger) => keep(&mut self.linger, linger),
            Setting::NoInput(no_input) => keep(&mut self.set_no_input, no_input),
            Setting::Background(background) => keep(&mut self.set_background, background),
            Setting::Terminal(terminal) => keep(&mut self.set_terminal, terminal),
            Setting::NoCommand => self.of_ssh.no_command = true,
            Setting::Subsystem => self.subsystem = true,
            Setting::Quiet => self.of_ssh.quiet = true,
            Setting::ClearForwardings(clear) => keep(&mut self.clear_forwardings, clear),
            Setting::Forwarding(why) => keep(&mut self.forwarding, why),
            Setting::Refused(why) => keep(&mut self.of_ssh.refused, why),
            Setting::PassedOver => {}
            Setting::IgnoreUnknown(patterns) => self.ignored.extend(patterns),
            Setting::Unknown(key, wrong) => self.unknown.push((key, wrong)),
        }
        Ok(())
    }

    /// Returns the call that the flags, the host and the words after it make.
    ///
    /// # Errors
    /// They contradict each other.
    pub(super) fn call(
        mut self,
        personality: Personality,
        host: &OsStr,
        words: &[OsString],
    ) -> Result<Call, Fault> {
        let Some(host) = host.to_str() else {
            return Err(Fault::new(format!("{host:?} is not a host name")));
        };
        if self.l_of_rsh && is_forwarding(host) {
            return Err(Fault::new("-L: there is no port forwarding"));
        }
        let (mut target, mut service) = (None, Vec::new());
        let mut kind = match self.subsystem {
            true => CallKind::Subsystem,
            false => CallKind::Command,
        };
        if personality == Personality::Open {
            let url = ServiceUrl::parse(host)?;
            let name = url.name.into_bytes();
            service = [name].into_iter().chain(url.args).collect();
            (target, kind) = (Some(url.host), CallKind::Named);
        } else if personality == Personality::Services {
            kind = CallKind::List;
        }
        let target = match target {
            Some(target) => target,
            None => Destination::of_host(host, personality.is_remote_shell())?,
        };
        let (at, host) = (target.user, target.host);
        let family = match (self.v4, self.v6) {
            (false, false) => self.set_family.flatten(),
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (true, true) => {
                return Err(Fault::new(
                    "-4 and -6 contradict each other; give one of them",
                ));
            }
        };
        let wrong = match (personality, words) {
            (Personality::Enrol, _) if at.is_some() => {
                format!("a machine is registered, not a user: cos enrol {host}")
            }
            (Personality::Enrol, [_, ..]) => format!(
                "enrol takes one host and no command: cos enrol {host}; \"cos enrol --help\" lists the flags"
            ),
            (Personality::Gui, []) => {
                format!("name an application: cos gui {host} APPLICATION [ARGUMENT]...")
            }
            (Personality::Services, [_, ..]) => usage(personality).to_owned(),
            (Personality::Cos, []) => format!("no command given for {host}"),
            (Personality::Connect, _) if at.is_some() || words.len() > 1 => {
                usage(personality).to_owned()
            }
            _ => String::new(),
        };
        if !wrong.is_empty() {
            return Err(Fault::new(wrong));
        }
        // As in ssh, this also cancels forwardings that flags requested.
        let clears = self.clear_forwardings.unwrap_or_default();
        let forwarding = self.forwarding.filter(|_| !clears);
        self.of_ssh.refused = self.of_ssh.refused.or(forwarding);
        let ignored = |key: &str| self.ignored.iter().any(|p| request::matches(p, key));
        let unknown = self.unknown.into_iter();
        let unknown = unknown.filter_map(|(key, wrong)| (!ignored(&key)).then_some(wrong));
        self.of_ssh.unknown = unknown.collect();
        // No tool calls these subcommands as ssh.
        if matches!(
            personality,
            Personality::Gui
                | Personality::Open
                | Personality::Services
                | Personality::Enrol
                | Personality::Connect
        ) {
            if let Some(wrong) = self.of_ssh.unknown.first() {
                return Err(Fault::new(wrong.clone()));
            }
        }
        self.of_ssh.command = self.command.flatten();
        let terminal = self.set_terminal.flatten();
        self.of_ssh.terminal |= terminal == Some(true);
        self.of_ssh.no_terminal |= terminal == Some(false);
        let host_name = self.host_name.as_deref();
        let host_name = host_name.map(|name| ssh_options::host_name(name, &host));
        let port = match (personality, words.first()) {
            (Personality::Connect, Some(port)) => {
                Some(values::port(&port.to_string_lossy(), "cos connect")?)
            }
            _ => self.port.or(target.port),
        };
        Ok(Call {
            host,
            host_name: host_name.transpose()?,
            user: self.user.or(at),
            port,
            no_input: self.no_input || self.set_no_input.unwrap_or_default(),
            family,
            verbose: self.verbose,
            folder: self.folder,
            connect_timeout: self
                .connect_timeout
                .flatten()
                .map_or(CONNECT_TIMEOUT, ConnectTime::Together),
            keep_alive: self.keep_alive.unwrap_or(values::KEEP_ALIVE),
            linger: self.linger,
            words: service
                .into_iter()
                .chain(words.iter().map(|w| w.as_bytes().to_vec()))
                .collect(),
            kind,
            listen: self.listen,
            formats: self.formats,
            send_env: self.send_env,
            set_env: self.set_env.unwrap_or_default(),
            for_ssh: self.for_ssh,
            display: self.display,
            password_fd: self.password_fd,
            detach: self.detach,
            batch: self.batch.unwrap_or_default(),
            name: self.name,
            background: self.background || self.set_background.unwrap_or_default(),
            log: self.log,
            source: Source {
                address: self.source.address.or(self.set_address.flatten()),
                interface: self.source.interface.or(self.set_interface.flatten()),
            },
            jumps: self.jumps.unwrap_or_default(),
            jump_program: self.jump_program,
            of_ssh: OfSsh {
                is_ssh: personality == Personality::Ssh,
                ..self.of_ssh
            },
        })
    }
}

/// Whether a word has the form of a value of ssh's `-L`, `[ADDRESS:]PORT:HOST:PORT`, and cannot be
/// an address.
fn is_forwarding(word: &str) -> bool {
    let parts: Vec<&str> = word.split(':').collect();
    let is_port = |part: &&str| words::port(part).is_some();
    let from = parts.iter().take(2).any(is_port);
    from && parts.len() > 2 && parts.last().is_some_and(is_port) && Address::parse(word).is_err()
}

/// Keeps the first value.
fn keep<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

/// Whether it is an option of our own, which ssh would refuse.
fn is_ours(given: &Given<Effect>) -> bool {
    let key = given.value.split(['=', ' ']).next().unwrap_or_default();
    given.flag.effect.rule == Rule::Setting
        && OURS
            .iter()
            .any(|ours| key.trim().eq_ignore_ascii_case(ours))
}

/// Returns what is wrong with a flag, and where the flags are listed.
fn wrong(fail: &Fail, personality: Personality) -> Fault {
    let help = personality.program();
    let words = match fail {
        Fail::ArgumentMissing(name) => format!("{} needs a value", dashed(name)),
        Fail::UnrecognizedOption(name) if name == "C" => {
            "-C DIR goes before the subcommand".to_owned()
        }
        Fail::UnrecognizedOption(name) => format!("{} is not known", dashed(name)),
        Fail::UnexpectedArgument(name) => format!("{} takes no value", dashed(name)),
        Fail::OptionMissing(name) | Fail::OptionDuplicated(name) => dashed(name),
    };
    Fault::new(format!("{words}; \"{help} --help\" lists the flags"))
}
