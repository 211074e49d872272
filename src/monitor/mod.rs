//! The monitor: secrets, HOSTINFO, decisions, jobs, and the log. One thread, one
//! event loop, root where the daemon is root.
//!
//! It decides on what it decoded itself from the bytes that the proof covers,
//! and believes nothing of the gate but that these bytes came. It must never
//! block: names and accounts are looked up by children with a time limit.

mod accounts;
mod answer;
mod children;
mod hosts;
mod notify;
pub mod options;
mod sessions;
mod start;
mod stock;
mod token;

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::channel::gate::{Connection, Limits, List, Order, Question};
use crate::channel::{self, Incoming};
use crate::config::place::Place;
use crate::config::settings::Settings;
use crate::log::{Level, Log};
use crate::secret::KeyPair;
use crate::sys::process;
use crate::sys::sandbox::Cell;
use crate::sys::signals::Signals;
use crate::wire::stream::End;
use accounts::{Accounts, LookUp};
use answer::{Pending, Stranger};
use children::Child;
use hosts::{Hosts, Refreshed};
use notify::Manager;
use sessions::{Finished, Sessions};
use stock::Stock;
use token::Whose;

/// Networks in one message to the gate.
const NETWORKS: usize = 1024;

/// Everything the monitor has.
struct Monitor {
    place: Place,
    settings: Settings,
    host: KeyPair,
    log: Log,
    manager: Manager,
    poll: Poll,
    signals: Signals,
    cell: Option<Cell>,
    /// The limits that a job gets back.
    inherited: process::Limits,
    listeners: Vec<TcpListener>,
    gate: Child,
    relay: Child,
    /// When a dead one may be started anew.
    restart: [Option<Instant>; 2],
    corpses: Vec<Pid>,
    hosts: Hosts,
    accounts: Accounts,
    strangers: HashMap<Connection, Stranger>,
    pending: HashMap<LookUp, Pending>,
    sessions: Sessions,
    stock: Stock,
    /// Serving the one connection of inetd.
    inetd: bool,
    gate_is_empty: bool,
    stopping: Option<Instant>,
    hung_up: bool,
}

/// The daemon's life, as its first process.
pub fn main() -> ExitCode {
    match start::start() {
        start::Started::Serving(mut monitor) => monitor.serve(),
        start::Started::Done(code) => code,
    }
}

/// Which child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Gate = 0,
    Relay = 1,
}

impl Monitor {
    fn serve(&mut self) -> ExitCode {
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; channel::MESSAGE];
        loop {
            let now = Instant::now();
            self.pass_deadlines(now);
            if self.is_over() {
                return self.finish();
            }
            self.stock.fill(&self.host);
            let timeout = self
                .next_deadline()
                .map(|d| d.saturating_duration_since(now));
            if let Err(e) = self.poll.poll(&mut events, timeout) {
                if e.kind() != std::io::ErrorKind::Interrupted {
                    self.log.say(Level::Error, "fault", &[("why", &e)]);
                    return ExitCode::FAILURE;
                }
            }
            let now = Instant::now();
            for event in &events {
                match token::whose(event.token()) {
                    Whose::Signals => self.take_signals(now),
                    Whose::Gate => self.hear_gate(&mut buffer, now),
                    Whose::Relay => self.hear_relay(&mut buffer, now),
                    Whose::Names => self.hear_names(now),
                    Whose::LookUp(which) => self.account_found(which, now),
                    Whose::Session(id) => {
                        let kill_after = self.settings.exec.hup_to_kill;
                        let finished = self.sessions.hear(id, kill_after, now);
                        self.log_end(finished);
                    }
                    Whose::Job(id) => {
                        let finished = self.sessions.job_ended(id, now);
                        self.log_end(finished);
                    }
                }
            }
        }
    }

    // ---- what the gate and the relay say ----

    fn hear_gate(&mut self, buffer: &mut [u8], now: Instant) {
        if !self.gate.flush() {
            return self.lost(Which::Gate, now);
        }
        loop {
            let Some(channel) = self.gate.channel() else {
                return;
            };
            match channel.receive(buffer) {
                Ok(Incoming::Message(message, fds)) => match Question::decode(&message) {
                    Some(question) => self.answer(&question, fds, now),
                    None => return self.lost(Which::Gate, now),
                },
                Ok(Incoming::Nothing) => return,
                Ok(Incoming::Gone) | Err(_) => return self.lost(Which::Gate, now),
            }
        }
    }

    fn hear_relay(&mut self, buffer: &mut [u8], now: Instant) {
        let alive = self.relay.flush();
        let heard = self.relay.channel().map(|c| c.receive(buffer));
        // The relay has nothing to say on this channel but that it is there.
        if !alive || !matches!(heard, Some(Ok(Incoming::Nothing)) | None) {
            self.lost(Which::Relay, now);
        }
    }

    fn tell_gate(&mut self, message: Vec<u8>) {
        if !self.gate.send(message, Vec::new()) {
            self.lost(Which::Gate, Instant::now());
        }
    }

    fn tell_relay(&mut self, message: Vec<u8>, fds: Vec<OwnedFd>) {
        if !self.relay.send(message, fds) {
            self.lost(Which::Relay, Instant::now());
        }
    }

    /// A child is dead, or must be: it is buried, and a new one will be started.
    fn lost(&mut self, which: Which, now: Instant) {
        let child = self.child(which);
        if child.channel().is_none() {
            return;
        }
        let (pid, when) = child.bury(now);
        let name = child.name();
        self.corpses.extend(pid);
        if which == Which::Gate {
            self.strangers.clear();
            self.pending.clear();
            self.gate_is_empty = true;
        }
        if !self.inetd && self.stopping.is_none() {
            self.log.say(Level::Error, "lost", &[("process", &name)]);
            if let Some(slot) = self.restart.get_mut(which as usize) {
                *slot = Some(when);
            }
        }
    }

    fn child(&mut self, which: Which) -> &mut Child {
        match which {
            Which::Gate => &mut self.gate,
            Which::Relay => &mut self.relay,
        }
    }

    /// Starts a child, and tells a gate what it must know.
    fn start_child(&mut self, which: Which) -> Result<(), crate::fault::Fault> {
        let cell = self.cell.clone();
        let (child, token) = match which {
            Which::Gate => (&mut self.gate, token::GATE),
            Which::Relay => (&mut self.relay, token::RELAY),
        };
        let walls = child.start(cell.as_ref())?;
        let name = child.name();
        if let Some(channel) = child.channel() {
            let fd = channel.as_fd().as_raw_fd();
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut SourceFd(&fd), token, both)?;
        }
        self.log.say(
            Level::Info,
            "started",
            &[
                ("process", &name),
                ("chroot", &walls.chroot),
                ("landlock", &walls.landlock),
                ("seccomp", &walls.seccomp),
            ],
        );
        if which == Which::Gate {
            self.brief_gate();
        }
        Ok(())
    }

    /// Limits, networks, listeners.
    fn brief_gate(&mut self) {
        self.gate_is_empty = false;
        self.tell_gate(Order::Limits(self.limits()).encode());
        self.send_networks();
        let copies: Result<Vec<OwnedFd>, _> = self
            .listeners
            .iter()
            .map(|l| l.try_clone().map(OwnedFd::from))
            .collect();
        match copies {
            Ok(copies) if !copies.is_empty() => {
                if !self.gate.send(Order::Listen.encode(), copies) {
                    self.lost(Which::Gate, Instant::now());
                }
            }
            Ok(_) => {}
            Err(e) => self.log.say(Level::Error, "fault", &[("why", &e)]),
        }
    }

    fn send_networks(&mut self) {
        let exempt = self
            .settings
            .penalties
            .exempt
            .iter()
            .map(|n| n.parts())
            .collect();
        for (list, networks) in [
            (List::Listed, self.hosts.networks()),
            (List::Exempt, exempt),
        ] {
            self.tell_gate(Order::Networks(list, true, Vec::new()).encode());
            for part in networks.chunks(NETWORKS) {
                self.tell_gate(Order::Networks(list, false, part.to_vec()).encode());
            }
        }
    }

    fn limits(&self) -> Limits {
        let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (limits, penalties) = (&self.settings.limits, &self.settings.penalties);
        Limits {
            hello: seconds(limits.hello),
            handshake: seconds(limits.handshake),
            refusal: seconds(self.settings.daemon.refusal_interval),
            silent: count(limits.silent),
            silent_per_source: count(limits.silent_per_source),
            reserved: count(limits.reserved),
            refusals: count(limits.refusals),
            keep_alive: seconds(self.settings.daemon.keep_alive),
            penalty_silent: seconds(penalties.grace_exceeded),
            penalty_malformed: seconds(penalties.noauth),
            penalty_min: seconds(penalties.min),
            penalty_max: seconds(penalties.max),
            penalty_sources: count(penalties.sources),
        }
    }

    // ---- HOSTINFO ----

    /// Loads HOSTINFO anew if it has changed.
    fn refresh_hosts(&mut self) {
        if matches!(self.hosts.refresh(&self.place), Refreshed::New) {
            self.hosts_are_new();
        }
    }

    fn hosts_are_new(&mut self) {
        match self.hosts.table() {
            Ok(table) => {
                let hosts = table.entries().len();
                self.log.say(Level::Info, "hostinfo", &[("hosts", &hosts)]);
                for fault in table.faults() {
                    self.log
                        .say(Level::Warning, "hostinfo", &[("fault", fault)]);
                }
            }
            Err(e) => self.log.say(Level::Error, "hostinfo", &[("fault", e)]),
        }
        if let Some(helper) = self.hosts.helper() {
            let fd = helper.answer.as_raw_fd();
            let names = token::NAMES;
            let _ = self
                .poll
                .registry()
                .register(&mut SourceFd(&fd), names, Interest::READABLE);
        }
        self.send_networks();
    }

    fn hear_names(&mut self, now: Instant) {
        if self.hosts.hear_helper(now) {
            self.log
                .say(Level::Info, "hostinfo", &[("names", &"resolved")]);
            self.send_networks();
        }
    }

    // ---- signals and time ----

    fn take_signals(&mut self, now: Instant) {
        for signal in self.signals.take() {
            if signal == Signal::SIGHUP {
                self.reload();
            } else if signal == Signal::SIGCHLD {
                self.children_ended(now);
            } else {
                self.stop(now);
            }
        }
    }

    fn children_ended(&mut self, now: Instant) {
        self.corpses.retain(|pid| !process::reap(*pid));
        for id in self.sessions.unwatched() {
            let finished = self.sessions.job_ended(id, now);
            self.log_end(finished);
        }
    }

    /// A broken configuration keeps the old one, and says so.
    fn reload(&mut self) {
        self.manager.tell("RELOADING=1");
        match Settings::load(&self.place.settings()) {
            Ok(settings) => {
                self.settings = settings;
                self.hosts.reload(&self.place);
                self.log.say(Level::Info, "reloaded", &[]);
                self.tell_gate(Order::Limits(self.limits()).encode());
                self.hosts_are_new();
            }
            Err(e) => {
                self.log.say(
                    Level::Error,
                    "not-reloaded",
                    &[("why", &e), ("kept", &"the old configuration")],
                );
            }
        }
        self.manager.tell("READY=1");
    }

    /// Accepts no more, and gives running jobs their grace. A second signal ends it.
    fn stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            self.stopping = Some(now);
            return;
        }
        self.manager.tell("STOPPING=1");
        let sessions = self.sessions.len();
        self.log
            .say(Level::Info, "stopping", &[("sessions", &sessions)]);
        self.stopping = Some(now + self.settings.daemon.grace);
        self.listeners.clear();
        self.tell_gate(Order::StopListening.encode());
    }

    fn next_deadline(&self) -> Option<Instant> {
        let grace = self.stopping.filter(|_| !self.hung_up);
        [
            self.restart[0],
            self.restart[1],
            self.hosts.deadline(),
            self.accounts.deadline(),
            self.sessions.deadline(),
            grace,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn pass_deadlines(&mut self, now: Instant) {
        for which in [Which::Gate, Which::Relay] {
            let due = self.restart.get(which as usize).copied().flatten();
            if due.is_some_and(|at| at <= now) && self.stopping.is_none() {
                self.start_again(which, now);
            }
        }
        if self.hosts.deadline().is_some_and(|at| at <= now) {
            self.hear_names(now);
        }
        if self.accounts.deadline().is_some_and(|at| at <= now) {
            for which in self.accounts.late(now) {
                self.account_found(which, now);
            }
        }
        if self.sessions.deadline().is_some_and(|at| at <= now) {
            for finished in self.sessions.kill_late(now) {
                self.log_end(Some(finished));
            }
        }
        if self.stopping.is_some_and(|at| at <= now) && !self.hung_up {
            self.hung_up = true;
            self.sessions
                .hang_up_all(self.settings.exec.hup_to_kill, now);
        }
    }

    fn start_again(&mut self, which: Which, now: Instant) {
        let slot = which as usize;
        if let Some(slot) = self.restart.get_mut(slot) {
            *slot = None;
        }
        if let Err(e) = self.start_child(which) {
            self.log.say(Level::Error, "fault", &[("why", &e)]);
            let (pid, when) = self.child(which).bury(now);
            self.corpses.extend(pid);
            if let Some(slot) = self.restart.get_mut(slot) {
                *slot = Some(when.max(now + Duration::from_millis(100)));
            }
        }
    }

    // ---- the end ----

    fn log_end(&mut self, finished: Option<Finished>) {
        let Some(f) = finished else { return };
        let status = match &f.end {
            Some(End::Exited(n)) => n.to_string(),
            Some(End::Killed(n)) => format!("signal-{n}"),
            Some(End::NotStarted(_)) | None => "unknown".to_owned(),
        };
        self.log.say(
            Level::Info,
            "end",
            &[
                ("session", &f.id),
                ("host", &f.whose.host),
                ("peer", &f.whose.peer),
                ("user", &f.whose.user),
                ("how", &f.how),
                ("status", &status),
                ("ms", &f.lasted.as_millis()),
                ("in", &f.sent),
                ("out", &f.got),
            ],
        );
    }

    fn is_over(&self) -> bool {
        let idle = self.sessions.len() == 0;
        let served = self.inetd && self.gate_is_empty && self.pending.is_empty();
        idle && (self.stopping.is_some() || served)
    }

    fn finish(&mut self) -> ExitCode {
        for which in [Which::Gate, Which::Relay] {
            let (pid, _) = self.child(which).bury(Instant::now());
            self.corpses.extend(pid);
        }
        for pid in std::mem::take(&mut self.corpses) {
            let _ = nix::sys::wait::waitpid(pid, None);
        }
        start::remove_pid_file(&self.place, self.inetd);
        self.log.say(Level::Info, "stopped", &[]);
        ExitCode::SUCCESS
    }
}
