//! The client: `cos run` and its rsh face. It runs a command on another host,
//! carries input, output, errors and signals, and exits with its status.
//!
//! One thread, one poll. It sees the wire and its own half of the
//! configuration, and never the server's rooms. It writes nothing to standard
//! output that the command has not written.
//!
//! In the order of a run: `args` (with `flags`) reads the command line, `route`
//! finds the host, `elsewhere` gives way to ssh or rsh where the table says so,
//! `dial` connects, `request` composes what is asked, `greet` proves and asks,
//! `pump` carries it to its end with `inbox`, `outbox`, `sink`, `stdio` and `signals`;
//! `say` is its voice.
#![forbid(unsafe_code)]

pub mod args;
mod asker;
pub mod dial;
pub mod elsewhere;
mod flags;
pub mod greet;
mod gui;
pub mod inbox;
pub mod outbox;
pub mod pump;
pub mod request;
pub mod route;
pub mod say;
pub mod signals;
pub mod sink;
pub mod stdio;

use std::env;
use std::ffi::OsString;

use args::{Call, Wish};
use dial::Dialing;
use greet::{Accepted, Answer, Credentials, Greeted, Means, OurHello};
use pump::Ended;
use route::Route;
use say::Voice;

use crate::config::hostinfo::Method;
use crate::config::name::HostName;
use crate::config::place::Place;
use crate::config::{cookie, keys, known_hosts};
use crate::fault::Fault;
use crate::secret::{KeyPair, PublicKey, Secret};
use crate::wire::answer::Reference;
use crate::wire::noise::Prepared;
use crate::wire::stream::End;

/// What a shell script sees when we failed ourselves.
const FAILED: u8 = 255;
/// What a shell adds to the number of a signal that ended a command.
const KILLED: u8 = 128;

/// Connections that one run may make: each key that is pinned with each cookie
/// that is live, the likeliest first. A refusal takes two seconds.
const ATTEMPTS: usize = 4;

/// The whole program, to its exit status.
pub fn main() -> u8 {
    let argv: Vec<OsString> = env::args_os().collect();
    match args::parse(&argv) {
        Ok(Wish::Run(call)) => run(&call, walk),
        Ok(Wish::Gui(call)) => run(&call, gui::walk),
        Ok(Wish::Probe) => 0,
        Ok(Wish::Tell(text)) if say::tell(&text).is_ok() => 0,
        Ok(Wish::Tell(_)) => FAILED,
        Err(fault) => {
            say::complain(None, &fault.to_string());
            FAILED
        }
    }
}

fn run(call: &Call, walk: impl Fn(&Call, &Voice) -> Result<u8, Fault>) -> u8 {
    let voice = Voice::new(call.verbose);
    let status = walk(call, &voice).unwrap_or_else(|fault| {
        say::complain(Some(&call.host), &fault.to_string());
        FAILED
    });
    voice.step(|| format!("exit status {status}"));
    status
}

/// The walk of a run, to the status that it exits with.
fn walk(call: &Call, voice: &Voice) -> Result<u8, Fault> {
    let place = Place::of_caller(call.folder.as_deref())?.once();
    let route = route::find(&place, &call.host)?;
    if route.entry.method != Method::Cos {
        voice.step(|| format!("{} is reached by {}", call.host, route.entry.method));
        return Err(elsewhere::become_program(call, &route));
    }
    if call.subsystem {
        return Err(Fault::new(
            "-s: there are no subsystems here; give the command itself, as in `cosrsh HOST /usr/lib/sftp-server`",
        ));
    }
    let accepted = connect(call, &place, &route, voice)?;
    outcome(pump::carry(accepted, call.no_input)?, voice)
}

/// The status to exit with.
fn outcome(ended: Ended, voice: &Voice) -> Result<u8, Fault> {
    match ended {
        Ended::Told(End::Exited(status)) => Ok(status),
        Ended::Told(End::Killed(signal)) => {
            voice.step(|| format!("signal {signal} ended the command"));
            Ok(KILLED.saturating_add(signal))
        }
        Ended::Told(End::NotStarted(why)) => Err(Fault::new(why)),
        Ended::Stopped(signal) => Ok(KILLED.saturating_add(signal.byte())),
    }
}

/// Connects and asks, with each pair of a pinned key and a live cookie until
/// the host accepts one.
fn connect(call: &Call, place: &Place, route: &Route, voice: &Voice) -> Result<Accepted, Fault> {
    let addresses = route.addresses(call)?;
    let dial = || Dialing::begin(&addresses, call.connect_timeout);
    let mut first = dial();
    // To ask the processor what it can takes a while on a virtual machine.
    let hello = OurHello::new()?;
    first.greet(hello.record());
    let mut dialing = Some(first);
    voice.step(|| format!("connecting to {addresses:?}"));

    // The network and the server work while we read our keys.
    let own = Own::load(place, route)?;
    let question = request::compose(call, &route.entry)?;
    let mut refused = None;
    for who in own.attempts() {
        let dialed = dialing.take().unwrap_or_else(dial).finish(hello.record())?;
        voice.step(|| format!("connected to {}", dialed.address));
        // Most of the handshake's arithmetic, while the ServerHello is on its way.
        let prepared = Prepared::for_initiator(who.machine, who.pin)
            .map_err(|m| Fault::of(&place.known_hosts(), m))?;
        let greeted = Greeted::wait(dialed, &hello, call.connect_timeout)?;
        voice.step(|| format!("hello, suite {:?}", greeted.suite()));
        match greeted.ask(Means::Hash(who), &question, prepared, None)? {
            Answer::Accepted(accepted) => {
                voice.step(|| format!("accepted by {} as {}", who.server, who.caller));
                return Ok(*accepted);
            }
            Answer::Denied(reference) => {
                voice.step(|| format!("denied, reference {}", reference.to_hex()));
                refused = Some(reference);
            }
        }
    }
    Err(refused.map_or_else(
        || own.nothing_pinned(place, route),
        |reference| denied(&call.host, reference),
    ))
}

fn denied(host: &str, reference: Reference) -> Fault {
    Fault::new(format!(
        "denied (reference {}); the log of {host} says why",
        reference.to_hex()
    ))
}

/// What we have to prove ourselves to a host with.
struct Own {
    caller: HostName,
    server: HostName,
    machine: KeyPair,
    pins: Vec<PublicKey>,
    cookies: Vec<Secret>,
}

impl Own {
    fn load(place: &Place, route: &Route) -> Result<Self, Fault> {
        let entry = &route.entry;
        Ok(Self {
            caller: entry.as_name.clone().map_or_else(own_name, Ok)?,
            server: entry.server.as_ref().unwrap_or(&entry.name).clone(),
            pins: known_hosts::pins(place, &entry.name)?,
            cookies: cookie::load_out(place, &entry.name)?,
            machine: keys::load_machine_key(place)?,
        })
    }

    /// Each pinned key with each cookie; of both the newest first. The newest
    /// pin is the last line of its file, the newest cookie the first.
    fn pairs(&self) -> impl Iterator<Item = Credentials<'_>> {
        self.pins.iter().rev().flat_map(move |pin| {
            self.cookies.iter().map(move |cookie| Credentials {
                caller: self.caller.as_str(),
                server: self.server.as_str(),
                machine: &self.machine,
                pin,
                cookie,
            })
        })
    }

    /// Those that one run tries.
    fn attempts(&self) -> impl Iterator<Item = Credentials<'_>> {
        self.pairs().take(ATTEMPTS)
    }

    fn nothing_pinned(&self, place: &Place, route: &Route) -> Fault {
        let words = format!(
            "no key is pinned for {}; `cosadm host join` pins it from the host's invitation",
            route.entry.name
        );
        Fault::of(&place.known_hosts(), words)
    }
}

/// This machine's own name, for a line that has no `as=`.
fn own_name() -> Result<HostName, Fault> {
    HostName::of_this_machine().map_err(|e| e.while_doing("the host's line has no as="))
}
