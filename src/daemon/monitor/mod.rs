//! The monitor: owns the secrets, HOSTINFO, the decisions, the jobs, and the log. One thread, one
//! event loop; runs as root if the daemon does.
//!
//! It decides on what it decoded itself from the bytes that the proof covers. It trusts the gate
//! only to have received these bytes. It must never block: separate processes with a time limit
//! look up names and accounts.

mod accounts;
mod briefing;
mod callers;
mod children;
mod control;
mod conversation;
mod event_source;
mod first_accounts;
mod guard;
mod hosts;
mod inetd;
mod key_cache;
mod life;
mod listen;
mod login;
mod login_asked;
mod login_end;
mod logins;
mod look_ups;
mod notify;
pub mod options;
mod pid_file;
mod pipeline;
mod preauth;
mod protect;
mod refuse;
mod registry_client;
mod room;
mod run_folder;
mod sessions;
mod signing;
mod start;
mod startup_error;
mod table;

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Instant;

use mio::Poll;
use nix::unistd::Pid;

use crate::config::paths::Paths;
use crate::config::settings::Settings;
use crate::daemon::sources::Networks;
use crate::ipc::gate::{Complaint, Connection, Question};
use crate::ipc::watch::Batches;
use crate::ipc::{self, Incoming};
use crate::log::{Log, log, log_ratelimited};
use crate::secret::KeyPair;
use crate::sys::job::Starter;
use crate::sys::memory::PeakCounter;
use crate::sys::process;
use crate::sys::sandbox::{SandboxConfig, SandboxStatus};
use crate::sys::signals::Signals;
use accounts::Accounts;
use children::Child;
use event_source::EventSource;
use hosts::Hosts;
use key_cache::KeyCache;
use logins::Logins;
use look_ups::{LookUp, LookUps};
use notify::Manager;
use pipeline::awaited::Awaited;
use pipeline::guesses::Guesses;
use preauth::{Pending, Preauth};
use registry_client::RegistryClient;
use sessions::Sessions;

pub use guard::standby_main as standby_guard;

/// Most questions of the gate answered in one pass.
const AT_ONCE: usize = 256;

/// The state of the monitor.
struct Monitor {
    paths: Paths,
    settings: Settings,
    /// The command line's port, which overrides that of the settings.
    port: Option<u16>,
    host: KeyPair,
    log: Log,
    manager: Manager,
    poll: Poll,
    signals: Signals,
    sandbox_config: Option<SandboxConfig>,
    /// The resource limits that a job gets back.
    inherited: process::Limits,
    listeners: Vec<TcpListener>,
    gate: Child,
    relay: Child,
    /// When a dead child may be started again.
    restart: [Option<Instant>; 2],
    unreaped: Vec<Pid>,
    hosts: Hosts,
    /// The addresses that HOSTINFO lists.
    listed: Networks,
    /// Connections that wait for a name.
    awaited: Vec<Awaited>,
    accounts: Accounts,
    look_ups: LookUps,
    unauthenticated: HashMap<Connection, Preauth>,
    /// Counts `unauthenticated`, to release the memory once a crowd of them has left.
    peak: PeakCounter,
    /// Requests that wait for an account.
    pending: HashMap<LookUp, Vec<Pending>>,
    sessions: Sessions,
    /// How many sessions the limit of open files allows.
    room: usize,
    logins: Logins,
    /// The access to the machine registry.
    doors: RegistryClient,
    /// Rate limits of activation passwords, by source.
    guesses: Guesses,
    /// The socket at which users of this host have their requests signed.
    sign_socket: signing::SignSocket,
    /// The socket at which the administrator lists sessions.
    control: control::Control,
    /// What this daemon owns in the run folder.
    claim: pid_file::Claim,
    /// What the daemon has lacked since its start, if anything.
    degraded: Option<String>,
    /// The status last reported to the service manager. `None`: nothing is missing.
    status: Option<String>,
    /// Starts the jobs.
    starter: Starter,
    /// Ends the jobs if this process is killed.
    guard: guard::Guarding,
    /// Protects this process from being the first that the OOM killer ends.
    protection: protect::Protection,
    key_cache: KeyCache,
    /// Set when serving the one connection of inetd.
    inetd: Option<inetd::InetdConnection>,
    gate_is_empty: bool,
    stopping: Option<Instant>,
    hung_up: bool,
}

/// Runs the daemon as its first process, and returns its exit status.
pub fn main(child_mains: &process::ChildMains) -> u8 {
    match start::start(child_mains) {
        start::Started::Serving(mut monitor) => monitor.serve(),
        start::Started::Done(code) => code,
    }
}

/// One of the two children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Gate = 0,
    Relay = 1,
}

impl Monitor {
    fn serve(&mut self) -> u8 {
        let mut events = Batches::of(256);
        let mut buffer = vec![0; ipc::MESSAGE];
        loop {
            let now = Instant::now();
            if let Some(heard) = events.heard() {
                self.pass_deadlines(heard);
            }
            self.take_look_ups(now);
            if self.is_over() {
                return self.finish();
            }
            self.update_watches(now);
            self.sign_socket.admit(self.poll.registry(), now);
            self.control.admit(self.poll.registry(), now);
            self.close_unread(now);
            self.key_cache.fill(&self.host);
            self.peak.is(self.unauthenticated.len());
            self.peak.tidy();
            let until = self.next_deadline();
            let left = || until.map(|d| d.saturating_duration_since(Instant::now()));
            while let Err(e) = events.wait(&mut self.poll, left()) {
                // The process may have been stopped: handle events before a deadline.
                if e.kind() != std::io::ErrorKind::Interrupted {
                    log!(self.log, Error, "fault", why = e);
                    return process::FAILURE;
                }
            }
            let now = Instant::now();
            for event in events.iter() {
                match event_source::source(event.token()) {
                    EventSource::Signals => self.take_signals(now),
                    EventSource::Gate => self.handle_gate(&mut buffer, now),
                    EventSource::Relay => self.handle_relay(&mut buffer, now),
                    EventSource::LookUp(id) => {
                        let registry = self.poll.registry();
                        self.look_ups
                            .handle_messages(registry, id, &mut buffer, now);
                    }
                    EventSource::Session(id) => {
                        let kill_after = self.settings.exec.hup_to_kill;
                        let registry = self.poll.registry();
                        let finished = self.sessions.handle_messages(registry, id, kill_after, now);
                        self.log_end(finished);
                        self.answer_session_lists(now);
                    }
                    EventSource::Login(id) => self.handle_worker(id, &mut buffer, now),
                    EventSource::Sign => self.take_calls_to_sign(now),
                    EventSource::WantsSignature(id) => self.handle_caller(id, now),
                    EventSource::RegistryWorker => self.handle_registry(now),
                    EventSource::Control => self.take_administrators(now),
                    EventSource::Administers(id) => self.handle_administrator(id, now),
                    EventSource::Guard => self.guard_ended(now),
                    EventSource::Unknown => {}
                    EventSource::Job(id) => {
                        let finished = self.sessions.job_ended(id, now);
                        self.log_end(finished);
                    }
                }
            }
        }
    }

    // ---- what the gate and the relay say ----

    /// Answers one question of the gate.
    pub(super) fn answer(&mut self, question: &Question<'_>, fds: Vec<OwnedFd>, now: Instant) {
        match *question {
            Question::Hello(c, from, record) => self.greet(c, from, record),
            Question::ClientHello(c, record) => {
                let socket = fds.into_iter().next();
                let outcome = self.open(c, record, socket, now);
                self.conclude(c, outcome);
            }
            Question::Sealed(c, record) => {
                let outcome = self.take_piece(c, record, now);
                self.conclude(c, outcome);
            }
            Question::Gone(c) => self.forget(c),
            Question::Left(c) => self.handle_left(c),
            Question::Empty => self.gate_is_empty = true,
            Question::TurnedAway(why, from) => {
                if why != Complaint::Probe {
                    log_ratelimited!(self.log, Warning, "closed", peer = from, cause = why.name());
                }
            }
        }
    }

    fn handle_gate(&mut self, buffer: &mut [u8], now: Instant) {
        if !self.gate.flush() {
            return self.lost(Which::Gate, now);
        }
        for _ in 0..AT_ONCE {
            let Some(channel) = self.gate.channel() else {
                return;
            };
            match channel.receive(buffer) {
                Ok(Incoming::Message(message, _)) if self.gate.due().is_some() => {
                    if !self.reported(Which::Gate, &message) {
                        return self.lost(Which::Gate, now);
                    }
                }
                Ok(Incoming::Message(message, fds)) => match Question::decode(&message) {
                    Some(question) => {
                        if self.note_question(&question) {
                            let fds = self.unless_postponed(&message, &question, fds, now);
                            if let Some(fds) = fds {
                                self.answer(&question, fds, now);
                            }
                        }
                    }
                    None => return self.lost(Which::Gate, now),
                },
                Ok(Incoming::Nothing) => return,
                Ok(Incoming::Gone) | Err(_) => return self.lost(Which::Gate, now),
            }
        }
        // A gate that asks without pause does not starve the others.
        if self.gate.look_again(self.poll.registry()).is_err() {
            self.lost(Which::Gate, now);
        }
    }

    fn handle_relay(&mut self, buffer: &mut [u8], now: Instant) {
        let alive = self.relay.flush();
        let mut heard = self.relay.channel().map(|c| c.receive(buffer));
        if let (Some(Ok(Incoming::Message(message, _))), Some(_)) = (&heard, self.relay.due()) {
            if self.reported(Which::Relay, message) {
                heard = self.relay.channel().map(|c| c.receive(buffer));
            }
        }
        // The relay sends nothing on this channel but its report.
        if !alive || !matches!(heard, Some(Ok(Incoming::Nothing)) | None) {
            self.lost(Which::Relay, now);
        }
    }

    /// Watches for writability each child that has messages waiting.
    fn update_watches(&mut self, now: Instant) {
        for which in [Which::Gate, Which::Relay] {
            let registry = self.poll.registry();
            let updated = match which {
                Which::Gate => self.gate.update_watch(registry),
                Which::Relay => self.relay.update_watch(registry),
            };
            if updated.is_err() {
                self.lost(which, now);
            }
        }
        let kill_after = self.settings.exec.hup_to_kill;
        let registry = self.poll.registry();
        for finished in self.sessions.watch_unsent(registry, kill_after, now) {
            self.log_end(Some(finished));
        }
        self.logins.watch_unsent(self.poll.registry());
        self.doors.watch_unsent(self.poll.registry());
    }

    fn send_to_gate(&mut self, message: Vec<u8>) {
        self.note_order(&message);
        if !self.gate.send(message, Vec::new()) {
            self.lost(Which::Gate, Instant::now());
        }
    }

    fn send_to_relay(&mut self, message: Vec<u8>, fds: Vec<OwnedFd>) {
        // Under inetd that may not have been done yet.
        if self.relay.send_in(self.sandbox_config.as_ref()).is_err() {
            return self.lost(Which::Relay, Instant::now());
        }
        if !self.relay.send(message, fds) {
            self.lost(Which::Relay, Instant::now());
        }
    }

    /// Handles a child that is dead or must be killed: reaps it, and has a new one started.
    fn lost(&mut self, which: Which, now: Instant) {
        let is_wanted = self.inetd.is_none() || !self.gate_is_empty;
        let child = self.child(which);
        if child.channel().is_none() {
            return;
        }
        let is_unconfined = is_wanted && child.due().is_some();
        let (pid, when) = child.discard(now);
        let name = child.name();
        self.unreaped.extend(pid);
        // A child that died by itself sends no further SIGCHLD.
        self.unreaped.retain(|pid| !process::reap(*pid));
        if which == Which::Gate {
            for (_, preauth) in std::mem::take(&mut self.unauthenticated) {
                if let preauth::Preauth::LoggingIn(login) = preauth {
                    self.abandon_login(login);
                }
            }
            self.pending.clear();
            self.awaited.clear();
            self.gate_is_empty = true;
        }
        if which == Which::Gate {
            self.note_gate_is_lost();
        }
        if is_unconfined {
            let why = "it died, or timed out, before its sandbox was ready";
            log!(self.log, Error, "lost", process = name, why);
        }
        if self.inetd.is_none() && self.stopping.is_none() {
            log!(self.log, Error, "lost", process = name);
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

    /// Starts a child, and configures a gate.
    fn start_child(&mut self, which: Which) -> Result<(), crate::fault::Fault> {
        let sandbox_config = self.sandbox_config.clone();
        let (child, event_source) = match which {
            Which::Gate => (&mut self.gate, event_source::GATE),
            Which::Relay => (&mut self.relay, event_source::RELAY),
        };
        // Under inetd the client waits. Otherwise the daemon waits, and reports whether it starts.
        let sandbox_status = if self.inetd.is_some() {
            child.begin()?;
            if which == Which::Gate {
                child.send_in(sandbox_config.as_ref())?;
            }
            None
        } else {
            Some(child.start(sandbox_config.as_ref())?)
        };
        child.watch(self.poll.registry(), event_source)?;
        if let Some(sandbox_status) = sandbox_status {
            self.log_sandbox_status(which, sandbox_status);
        }
        if which == Which::Gate {
            self.configure_gate();
        }
        Ok(())
    }

    /// Handles a child's sandbox report. `false`: it sent something else.
    fn reported(&mut self, which: Which, message: &[u8]) -> bool {
        match self.child(which).report(message) {
            Some(Ok(sandbox_status)) => {
                self.log_sandbox_status(which, sandbox_status);
                true
            }
            Some(Err(why)) => {
                let name = self.child(which).name();
                let why = why.while_doing("its sandbox");
                log!(self.log, Error, "lost", process = name, why);
                false
            }
            None => false,
        }
    }

    fn log_sandbox_status(&mut self, which: Which, sandbox_status: SandboxStatus) {
        let name = self.child(which).name();
        log!(
            self.log,
            Info,
            "started",
            process = name,
            chroot = sandbox_status.chroot,
            landlock = sandbox_status.landlock,
            seccomp = sandbox_status.seccomp
        );
        for (protection, why) in sandbox_status.missing() {
            self.warn_of_missing(name, protection, &why);
        }
    }

    /// Logs a protection that is missing because the kernel, or a container's filter, refused it.
    fn warn_of_missing(&mut self, process: &str, protection: &str, why: &dyn std::fmt::Display) {
        log!(self.log, Warning, "no-protection", process, protection, why);
    }
}
