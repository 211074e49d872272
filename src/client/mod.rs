//! The client: `cos`, and the same program called as rsh or ssh. It runs a command or an
//! application on another host, carries input, output, errors and signals, and exits with the
//! command's status. It also registers this machine at a host (`enrol`), shows this machine's key
//! (`key`), and connects standard input and output to a port (`connect`).
//!
//! One thread and one poll. It uses the wire protocol and its own half of the configuration, and
//! must not use the server's modules. It must write nothing to a command's standard output that the
//! command has not written.
//!
//! In the order of a run:
//!
//! - `args` (with `arg_parser` and `flags`) reads the command line.
//! - `route` finds the host; `elsewhere` starts ssh or rsh instead if the table says so.
//! - `command` determines the command to run.
//! - `reach` connects (by `dial`, from `source`, or by `jump` through other hosts).
//! - `request` composes the request; `auth_method` authenticates us (by `signer`, for an ordinary
//!   user).
//! - `greet` sends the request; `conversation` answers the host's questions (`door` those of the
//!   inner door, `asker` those of PAM; `agreed_key` gets agreement to the host's key).
//! - `denied` words a refusal.
//! - `pump` carries the session to its end with `inbox`, `outbox`, `sink`, `stdio` and `signals`.
//! - `messages` prints what the client itself reports.
#![forbid(unsafe_code)]

mod agreed_key;
mod arg_parser;
pub mod args;
mod asker;
pub mod auth_method;
pub mod call;
mod command;
mod connect;
pub mod conversation;
mod denied;
pub mod dial;
pub mod door;
pub mod elsewhere;
mod enrol;
mod flags;
pub mod greet;
mod gui;
mod help;
pub mod inbox;
mod io_error;
pub mod jump;
mod key;
mod listen;
pub mod messages;
pub mod outbox;
pub mod pump;
mod reach;
pub mod request;
pub mod route;
mod service_url;
pub mod signals;
pub mod signer;
pub mod sink;
mod source;
mod ssh_options;
pub mod stdio;
mod values;

use std::env;
use std::ffi::OsString;
use std::path::Path;

use auth_method::{AuthMethod, Credentials};
use call::{Action, Call, CallKind};
use conversation::Conversation;
use denied::{denied, denied_because, unavailable};
use door::Door;
use greet::{Accepted, Answer, Greeted, OurHello};
use jump::Jump;
use messages::Reporter;
use pump::{Ended, StandardStreams};
use reach::Reach;
use route::{Places, Route};
use signer::LocalSigner;
use stdio::Input;

use crate::config::hostinfo::Method;
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::config::{cookie, keys, known_hosts};
use crate::fault::Fault;
use crate::protocol::noise::Prepared;
use crate::protocol::stream::End;
use crate::secret::{KeyPair, PublicKey, Secret};
use crate::signer as signing;

/// The exit status of a failure on our side.
const FAILED: u8 = 255;
/// The command has ended, and End came before the end of an output.
const CUT_OFF: &str =
    "output may be cut off: the command has ended, but another process holds its output open";
const CUT_OFF_REMEDY: &str = "cos: to wait until that process closes it: -o Linger=none";
/// A shell adds this to the number of the signal that ended a command.
const KILLED: u8 = 128;

/// Connections that one run may make: each pinned key with each live cookie, the likeliest first. A
/// refusal takes two seconds.
const ATTEMPTS: usize = 4;

/// Runs the program and returns its exit status.
pub fn main() -> u8 {
    let argv: Vec<OsString> = env::args_os().collect();
    match args::parse(&argv) {
        Ok(Action::Run(call)) => run(&call, run_command),
        Ok(Action::Open(call)) => run(&call, open),
        Ok(Action::Gui(call)) => run(&call, gui::run_gui),
        Ok(Action::Enrol(call)) => run(&call, enrol::enrol),
        Ok(Action::ShowKey(asked)) => match key::show(&asked) {
            Ok(()) => 0,
            Err(fault) => {
                messages::fault(None, &fault);
                FAILED
            }
        },
        Ok(Action::Connect(call)) => run(&call, |call, _| connect::connect_stdio(call)),
        Ok(Action::ShowConfig(call)) => run(&call, |call, _| show_config(call)),
        Ok(Action::Probe) => 0,
        Ok(Action::TellError(text)) => {
            messages::line(text.trim_end());
            0
        }
        Ok(Action::Tell(text)) if messages::tell(&text).is_ok() => 0,
        Ok(Action::Tell(_)) => FAILED,
        Err(fault) => {
            messages::fault(None, &fault);
            FAILED
        }
    }
}

fn run(call: &Call, work: impl Fn(&Call, &Reporter) -> Result<u8, Fault>) -> u8 {
    if let Some(Err(fault)) = call.log.as_deref().map(messages::log_to) {
        messages::fault(Some(&call.host), &fault);
        return FAILED;
    }
    let reporter = Reporter::new(call.verbose);
    let status = work(call, &reporter).unwrap_or_else(|fault| {
        messages::fault(Some(&call.host), &fault);
        FAILED
    });
    reporter.step(|| format!("exit status {status}"));
    status
}

/// Opens a named service, and returns its exit status: once, or for each connection that is accepted
/// here.
fn open(call: &Call, reporter: &Reporter) -> Result<u8, Fault> {
    let Some(at) = &call.listen else {
        return run_command(call, reporter);
    };
    // The process that listens goes to the background, not the process of each connection.
    let one = Call {
        background: false,
        ..call.clone()
    };
    listen::listen(at, call, reporter, || run_command(&one, reporter))
}

/// Runs a command and returns the exit status.
fn run_command(call: &Call, reporter: &Reporter) -> Result<u8, Fault> {
    let (places, route) = route::locate(call).map_err(|fault| about_the_folder(call, fault))?;
    if route.entry.method != Method::Cos {
        reporter.step(|| format!("{} is reached by {}", call.host, route.entry.method));
        let method = route.entry.method;
        match call.kind {
            CallKind::Subsystem if method == Method::Rsh => {
                let words = "-s: it is reached by rsh, which has no subsystems";
                return Err(Fault::new(words));
            }
            CallKind::Named | CallKind::List => {
                let words = format!("it is reached by {method}, which has no named services");
                return Err(Fault::new(words));
            }
            CallKind::Command | CallKind::Subsystem => {}
        }
        return Err(elsewhere::become_program(call, &route));
    }
    let call = &*command::settle(call)?;
    let mut accepted = connect(call, &places, &route, reporter)?;
    let mut jump = accepted.jump.take();
    if call.background {
        reporter.step(|| "accepted; going to the background".to_owned());
        if let Some(jump) = &mut jump {
            jump.leave();
        }
        // The parent exits with 0; output and errors stay where they are.
        nix::unistd::daemon(true, true).map_err(|e| Fault::from(e).while_doing("-f"))?;
        Input::default().release();
    }
    let streams = StandardStreams {
        no_input: call.no_input || call.background,
        are_connection: call.listen.is_some(),
    };
    let ended = pump::carry(accepted, streams, &call.host).map_err(|fault| {
        let jumped = jump.as_mut().and_then(Jump::failure);
        jumped.unwrap_or(fault)
    })?;
    outcome(ended, call, reporter)
}

/// Adds a hint if a folder follows `-C` in the host's position: the folder was probably meant as
/// its value.
fn about_the_folder(call: &Call, fault: Fault) -> Fault {
    let is_folder = call.host.contains('/') || Path::new(&call.host).is_dir();
    if !call.of_ssh.compress || !is_folder {
        return fault;
    }
    fault.with_remedy(
        "-C is compression here, as in ssh; the configuration folder: COS_CONFIG_DIR=DIR cosrsh ...",
    )
}

/// Prints what `ssh -G` prints, as far as it applies here. The host need not be in the table.
fn show_config(call: &Call) -> Result<u8, Fault> {
    let (_, route) = route::find_any(call)?;
    if route.entry.method != Method::Cos {
        return Err(elsewhere::become_program(call, &route));
    }
    let user = request::user(call, &route.entry)?;
    let name = match route.first_listed(call)? {
        Some(address) => address.to_string(),
        None => route.dialed_name(call).to_owned(),
    };
    let port = route.port(call);
    let host = &call.host;
    messages::tell(&format!(
        "host {host}\nuser {user}\nhostname {name}\nport {port}\n"
    ))?;
    Ok(0)
}

/// Returns the exit status.
fn outcome(ended: Ended, call: &Call, reporter: &Reporter) -> Result<u8, Fault> {
    match ended {
        Ended::Told { end, cut_off } => {
            let status = match end {
                End::Exited(status) => status,
                End::Killed(signal) => {
                    reporter.step(|| format!("signal {signal} ended the command"));
                    KILLED.saturating_add(signal)
                }
                End::NotStarted(why) => return Err(Fault::new(why)),
            };
            if cut_off {
                messages::print_error(Some(&call.host), CUT_OFF);
                messages::line(CUT_OFF_REMEDY);
            }
            Ok(status)
        }
        Ended::Stopped(signal) => Ok(KILLED.saturating_add(signal.byte())),
    }
}

/// Connects and sends the request, with each pair of a pinned key and a live cookie until the host
/// accepts one.
fn connect(
    call: &Call,
    places: &Places,
    route: &Route,
    reporter: &Reporter,
) -> Result<Accepted, Fault> {
    let reach = Reach::of(call, route)?;
    let mut first = reach.begin(reporter)?;
    // Detecting the CPU's features takes time on a virtual machine, so connecting starts first.
    let hello = OurHello::new()?;
    first.greet(hello.record());
    let mut reaching = Some(first);

    // The network and the server work while we read our keys.
    let paths = &places.table;
    let own = Own::load(places, route)?;
    let question = request::compose(call, &route.entry)?;
    let mut refused = None;
    for auth_method in own.attempts().filter(|m| !m.is_in_vain()) {
        let (key, pin) = auth_method.keys();
        let next = reaching.take().map_or_else(|| reach.begin(reporter), Ok)?;
        let dialed = next.finish(hello.record())?;
        if dialed.jump.is_none() {
            reporter.step(|| format!("connected to {}", dialed.peer));
        }
        // Most of the key agreement, while the ServerHello is on its way.
        let prepared =
            Prepared::for_initiator(key, pin).map_err(|m| Fault::of(&paths.known_hosts(), m))?;
        let greeted = Greeted::wait(dialed, &hello)?;
        reporter.step(|| format!("hello, suite {:?}", greeted.suite()));
        let mut conversation = Conversation::new(
            reporter,
            Door::during_request(&call.host, call.enrolment(), !call.batch),
        );
        match greeted.ask(auth_method, &question, prepared, &mut conversation)? {
            Answer::Accepted(accepted) => {
                reporter.step(|| own.accepted());
                return Ok(*accepted);
            }
            Answer::Denied(reference) => {
                reporter.step(|| format!("denied, reference {}", reference.to_hex()));
                // The host asked, so the cookie was right. Do not ask the user again.
                if let Some(by) = conversation.asked() {
                    let why = enrol::refused_behind(by);
                    return Err(denied_because(&call.host, reference, why));
                }
                refused = Some(reference);
            }
        }
    }
    Err(refused.map_or_else(
        || own.nothing_pinned(paths, route),
        |reference| match call.kind {
            CallKind::Named | CallKind::List => unavailable(&call.host, reference),
            CallKind::Command | CallKind::Subsystem => denied(&call.host, reference),
        },
    ))
}

/// Our credentials for a host.
struct Own {
    caller: HostName,
    server: HostName,
    pins: Vec<PublicKey>,
    secrets: Secrets,
}

/// The owner of the secrets.
enum Secrets {
    /// Ours: the machine's key and the cookies.
    Ours(KeyPair, Vec<Secret>),
    /// This host's: its signer uses them for us.
    OfSigner(LocalSigner),
}

impl Own {
    fn load(places: &Places, route: &Route) -> Result<Self, Fault> {
        let (paths, entry) = (&places.table, &route.entry);
        let secrets = if paths.is_anothers() {
            // The host authenticates us by what the signer states, so any key will do for a user
            // who has no folder to keep one in.
            let key = keys::own_machine_key(&places.own).or_else(|_| KeyPair::random())?;
            Secrets::OfSigner(LocalSigner::new(paths, &entry.name, key))
        } else {
            let cookies = cookie::load_out(paths, &entry.name)?;
            Secrets::Ours(keys::load_machine_key(paths)?, cookies)
        };
        Ok(Self {
            caller: signing::caller_name(entry)?,
            server: entry.server_name().clone(),
            pins: known_hosts::pins(paths, &entry.name)?,
            secrets,
        })
    }

    /// Returns each pinned key with each cookie, the newest of both first. The newest pin is the
    /// last line of its file, the newest cookie the first.
    fn pairs(&self) -> impl Iterator<Item = AuthMethod<'_>> {
        let cookies = match &self.secrets {
            Secrets::Ours(_, cookies) => cookies.len(),
            Secrets::OfSigner(_) => cookie::LIVE_MAX,
        };
        let pins = self.pins.iter().rev();
        pins.flat_map(move |pin| (0..cookies).filter_map(move |n| self.auth_method(pin, n)))
    }

    fn auth_method<'a>(&'a self, pin: &'a PublicKey, number: usize) -> Option<AuthMethod<'a>> {
        match &self.secrets {
            Secrets::Ours(machine, cookies) => Some(AuthMethod::Hash(Credentials {
                caller: self.caller.as_str(),
                server: self.server.as_str(),
                machine,
                pin,
                cookie: cookies.get(number)?,
            })),
            Secrets::OfSigner(signer) => {
                Some(AuthMethod::Vouch(signer, pin, u8::try_from(number).ok()?))
            }
        }
    }

    /// Returns the pairs that one run tries.
    fn attempts(&self) -> impl Iterator<Item = AuthMethod<'_>> {
        self.pairs().take(ATTEMPTS)
    }

    fn accepted(&self) -> String {
        let how = match self.secrets {
            Secrets::Ours(..) => "",
            Secrets::OfSigner(_) => ", which vouches for us",
        };
        format!("accepted by {} as {}{how}", self.server, self.caller)
    }

    fn nothing_pinned(&self, paths: &Paths, route: &Route) -> Fault {
        let words = format!(
            "no key is pinned for {}; `cosadm host join` pins it from the host's invitation",
            route.entry.name
        );
        Fault::of(&paths.known_hosts(), words)
    }
}
