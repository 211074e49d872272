//! The monitor's event loop: waits, gives each event to the component that it concerns, routes what
//! that returns to the others, and handles deadlines, signals, reload and the end.
//!
//! Runs in the monitor: one thread, which must never block. Must not decide what comes next for a
//! connection: [`pipeline`] does. Ends one only on request: of the administrator, or of another of
//! inetd's monitors that needs the slot.

use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use super::configuration;
use super::event_source::{EventSource, source};
use super::logins::MADE_ROOM;
use super::names::NameEvent;
use super::notify::{self, Manager};
use super::parts::Parts;
use super::pipeline::{self, login, refuse};
use super::processes::Which;
use super::registry_client::TicketAnswer;
use super::run_claim::Claim;
use super::sockets::LocalSockets;
use super::sockets::control::Request;
use crate::config::keys;
use crate::ipc;
use crate::ipc::control::Answer;
use crate::ipc::gate::{Complaint, Question};
use crate::ipc::watch::Batches;
use crate::log::log;
use crate::refusal::Cause;
use crate::registry::Id;
use crate::sys::process;
use crate::sys::signals::Signals;

/// Most questions of the gate answered in one pass.
const AT_ONCE: usize = 256;

/// The monitor.
pub(super) struct Monitor {
    /// What the steps of a connection work with.
    pub(super) parts: Parts,
    /// The sockets for users and the administrator.
    pub(super) sockets: LocalSockets,
    /// What this daemon owns in the run folder.
    pub(super) claim: Claim,
    pub(super) manager: Manager,
    pub(super) signals: Signals,
    /// The command line's port, which overrides that of the settings.
    pub(super) port: Option<u16>,
    /// Until when running jobs may go on, once it was told to stop.
    pub(super) grace: Option<Instant>,
    /// Whether the jobs were hung up because the grace was over.
    pub(super) hung_up: bool,
}

impl Monitor {
    /// Serves until it is told to stop, or inetd's connection is served. Returns the exit status.
    pub(super) fn serve(&mut self) -> u8 {
        let mut events = Batches::of(256);
        let mut buffer = vec![0; ipc::MESSAGE];
        loop {
            let now = Instant::now();
            if let Some(heard) = events.heard() {
                self.pass_deadlines(heard);
            }
            self.tidy(now);
            if self.is_over() {
                return self.finish();
            }
            let until = self.next_deadline();
            let left = || until.map(|d| d.saturating_duration_since(Instant::now()));
            while let Err(e) = events.wait(&mut self.parts.ground.poll, left()) {
                // The process may have been stopped: handle events before a deadline.
                if e.kind() != std::io::ErrorKind::Interrupted {
                    log!(self.parts.ground.log, Error, "fault", why = e);
                    return process::FAILURE;
                }
            }
            let now = Instant::now();
            for event in events.iter() {
                self.handle(source(event.token()), &mut buffer, now);
                self.handle_loss();
            }
            // Before any deadline: the slot was free in time.
            login::grant_pam_slots(&mut self.parts, now);
        }
    }

    /// Handles one event.
    fn handle(&mut self, source: EventSource, buffer: &mut [u8], now: Instant) {
        let Self { parts, sockets, .. } = self;
        let Parts {
            ground,
            names,
            jobs,
            processes,
            ..
        } = parts;
        match source {
            EventSource::Signals => self.take_signals(now),
            EventSource::Gate => self.handle_gate(buffer, now),
            EventSource::Relay => processes.handle_relay(ground, buffer, now),
            EventSource::LookUp(id) => names.handle_messages(ground, id, buffer, now),
            EventSource::Session(id) => {
                let (registry, kill_after) = (ground.poll.registry(), ground.kill_after());
                let sessions = jobs.sessions_mut();
                let finished = sessions.handle_messages(registry, id, kill_after, now);
                parts.session_ended(finished);
                self.answer_lists(now);
            }
            EventSource::Job(id) => {
                let finished = jobs.sessions_mut().job_ended(id, now);
                parts.session_ended(finished);
            }
            EventSource::Login(id) => login::handle_worker(parts, id, buffer, now),
            EventSource::RegistryWorker => {
                let poll = ground.poll.registry();
                let unreaped = &mut ground.unreaped;
                let answers = parts.registry.handle_messages(poll, unreaped, now);
                self.take_answers(answers, now);
            }
            EventSource::Sign => sockets.signer.take(ground, names, now),
            EventSource::WantsSignature(id) => {
                sockets.signer.handle_caller(ground, names, id, now);
            }
            EventSource::Control => sockets.control.take(ground, names.own_uid(), now),
            EventSource::Administers(id) => {
                if let Some((request, uid)) = sockets.control.request(ground, id) {
                    self.administer(id, &request, uid, now);
                }
            }
            EventSource::Guard => jobs.guard_ended(ground, now),
            EventSource::Unknown => {}
        }
    }

    /// Does what is done before each wait: passes on what was found and what has ended, and sends
    /// what is left to send.
    fn tidy(&mut self, now: Instant) {
        self.handle_loss();
        self.take_names(now);
        let parts = &mut self.parts;
        login::grant_pam_slots(parts, now);
        let ground = &mut parts.ground;
        parts.processes.watch_unsent(ground, now);
        let (registry, kill_after) = (ground.poll.registry(), ground.kill_after());
        let sessions = parts.jobs.sessions_mut();
        for finished in sessions.watch_unsent(registry, kill_after, now) {
            parts.session_ended(Some(finished));
        }
        self.handle_loss();
        // Last: what is above may have something to send them.
        let Self { parts, sockets, .. } = self;
        let ground = &mut parts.ground;
        parts.logins.watch_unsent(ground.poll.registry());
        parts.registry.watch_unsent(ground.poll.registry());
        sockets.admit(ground, now);
        parts.key_cache.fill(&ground.host);
        parts.connections.tidy();
    }

    /// Passes on answers of the registry.
    fn take_answers(&mut self, answers: Vec<TicketAnswer>, now: Instant) {
        for answer in answers {
            pipeline::registry_answered(&mut self.parts, answer, now);
            self.handle_loss();
        }
    }

    /// Handles the loss of the gate, if it was lost.
    fn handle_loss(&mut self) {
        if self.parts.processes.take_gate_loss() {
            refuse::gate_is_lost(&mut self.parts);
        }
    }

    /// Handles the messages of the gate.
    fn handle_gate(&mut self, buffer: &mut [u8], now: Instant) {
        let parts = &mut self.parts;
        for _ in 0..AT_ONCE {
            let ground = &mut parts.ground;
            let Some((message, fds)) = parts.processes.gate_message(ground, buffer, now) else {
                return;
            };
            let Some(question) = Question::decode(&message) else {
                return parts.processes.lose(ground, Which::Gate, now);
            };
            if !parts.note_question(&question) {
                continue;
            }
            let is_postponed = parts.is_postponed(&question);
            match parts.inetd.as_mut().filter(|_| is_postponed) {
                Some(inetd) => inetd.postpone(&mut parts.ground, message.to_vec(), fds, now),
                None => pipeline::handle_question(parts, &question, fds, now),
            }
        }
        parts.processes.look_at_gate_again(&mut parts.ground, now);
    }

    // ---- names ----

    /// Passes on what the look-up processes have found.
    fn take_names(&mut self, now: Instant) {
        let Self { parts, sockets, .. } = self;
        loop {
            let events = parts.names.events(&mut parts.ground, now);
            if events.is_empty() {
                break;
            }
            for event in events {
                match event {
                    NameEvent::User(which, found) => {
                        let record = found.as_ref().ok().and_then(Option::as_deref);
                        let (ground, names) = (&mut parts.ground, &mut parts.names);
                        sockets.signer.user_found(ground, names, which, record, now);
                        pipeline::user_found(parts, which, &found, now);
                    }
                    NameEvent::Backend(which, found) => {
                        pipeline::backend_found(parts, which, &found, now);
                    }
                    NameEvent::Host(name, may_go_on) => {
                        parts.send_new_networks();
                        if may_go_on || parts.has_listed_caller() {
                            resume_postponed(parts, now);
                        }
                        if let Some(name) = name {
                            pipeline::name_is_known(parts, &name, now);
                        }
                    }
                }
            }
        }
        parts.names.tidy(&mut parts.ground);
        parts.send_new_networks();
    }

    // ---- the administrator ----

    /// Does what an administrator asks for.
    fn administer(&mut self, id: u64, request: &Request, uid: u32, now: Instant) {
        let answer = match *request {
            Request::List => {
                let counting = self.parts.jobs.sessions_mut().count_bytes();
                self.sockets.control.await_counts(id, counting, now);
                return self.answer_lists(now);
            }
            Request::Kill(session) => Answer::Killed(self.kill_session(session, uid, now)),
            Request::Cut(machine) => Answer::Cut(self.cut_off(machine, uid, now)),
        };
        self.sockets.control.answer(&self.parts.ground, id, &answer);
    }

    /// Answers the administrators whose sessions have all counted, or whose time to wait is over.
    fn answer_lists(&mut self, now: Instant) {
        let Parts {
            ground,
            jobs,
            logins,
            ..
        } = &self.parts;
        let sessions = jobs.sessions();
        let ids = self.sockets.control.counted(sessions, now);
        if ids.is_empty() {
            return;
        }
        let detached = logins.detached();
        let mut rows = sessions.who();
        rows.retain(|on| detached.iter().all(|other| other.id != on.id));
        rows.extend(detached);
        rows.sort_by_key(|on| on.id);
        self.sockets.control.answer_lists(ground, ids, rows);
    }

    /// Hangs up a session, or a detached application. Returns whether it was there.
    fn kill_session(&mut self, session: u64, uid: u32, now: Instant) -> bool {
        let parts = &mut self.parts;
        let kill_after = parts.ground.kill_after();
        let is_there = parts.logins.kill_detached(session, kill_after, now) || {
            let sessions = parts.jobs.sessions_mut();
            let (is_there, finished) = sessions.kill(session, kill_after, now);
            parts.session_ended(finished);
            is_there
        };
        if is_there {
            log!(parts.ground.log, Info, "killed", session, uid);
        }
        is_there
    }

    /// Hangs up all that a machine has here: sessions, detached applications, and undecided
    /// requests. Returns how many these were.
    fn cut_off(&mut self, machine: Id, uid: u32, now: Instant) -> u64 {
        let mut all = self.parts.jobs.sessions().of_machine(machine);
        all.extend(self.parts.logins.detached_of(machine));
        all.sort_unstable();
        all.dedup();
        let cut = all.iter().filter(|id| self.kill_session(**id, uid, now));
        let count = cut.count() + refuse::refuse_undecided(&mut self.parts, machine);
        let sessions = u64::try_from(count).unwrap_or(u64::MAX);
        log!(self.parts.ground.log, Info, "cut", machine, sessions, uid);
        sessions
    }

    // ---- signals and time ----

    fn take_signals(&mut self, now: Instant) {
        for signal in self.signals.take() {
            if signal == Signal::SIGHUP && self.parts.ground.is_inetd {
                self.close_excluded(now);
            } else if signal == Signal::SIGHUP {
                self.reload(now);
            } else if signal == Signal::SIGCHLD {
                self.children_ended(now);
            } else if signal == Signal::SIGUSR1 {
                self.make_room();
            } else {
                self.stop(now);
            }
        }
    }

    fn children_ended(&mut self, now: Instant) {
        let parts = &mut self.parts;
        parts.ground.reap();
        for id in parts.jobs.sessions().jobs_without_pidfd() {
            let finished = parts.jobs.sessions_mut().job_ended(id, now);
            parts.session_ended(finished);
        }
        parts.shared_programs.ended(&mut parts.ground);
        for (connection, outcome) in parts.backends.ended(&mut parts.jobs) {
            pipeline::backend_connected(parts, connection, outcome, now);
        }
    }

    /// Closes what an excluded machine has here, after `cosadm` has excluded one. A standalone
    /// daemon gets that request at its control socket.
    fn close_excluded(&mut self, now: Instant) {
        self.parts.ground.paths.forget();
        let machines = self.parts.inetd.as_ref().map(|inetd| inetd.machines());
        for machine in machines.into_iter().flatten() {
            if self.parts.registry.is_excluded(machine) {
                self.cut_off(machine, geteuid().as_raw(), now);
            }
        }
    }

    /// Evicts inetd's connection because another monitor needs the slot, unless the slot is free
    /// already.
    fn make_room(&mut self) {
        let parts = &mut self.parts;
        let Some(inetd) = parts.inetd.as_mut().filter(|s| s.must_make_room()) else {
            return;
        };
        if let Some(login) = parts.connections.login() {
            inetd.leave_slot();
            refuse::interrupt(parts, login, Cause::Busy, MADE_ROOM);
        } else {
            parts.close_inetd(Complaint::Evicted);
        }
    }

    /// Reloads the settings. If they are faulty, logs that and keeps the old ones.
    fn reload(&mut self, now: Instant) {
        self.manager.tell(&notify::reloading());
        let parts = &mut self.parts;
        let ground = &mut parts.ground;
        let read = configuration::settings(&ground.paths.settings(), self.port)
            .and_then(|settings| Ok((configuration::can_log_in(&settings)?, settings)));
        match read {
            Ok((program, mut settings)) => {
                parts.logins.set_program(program);
                let in_vain = settings.keep_from_start(&ground.settings);
                ground.settings = settings;
                log!(ground.log, Info, "reloaded");
                for key in in_vain {
                    let kept = key.value(&ground.settings);
                    let why = "a change of it takes a restart";
                    log!(
                        ground.log,
                        Warning,
                        "needs-restart",
                        key = key.name,
                        kept,
                        why
                    );
                }
                warn_of_another_key(parts);
                let ground = &mut parts.ground;
                parts.processes.send_limits(ground);
                parts.jobs.reload(ground);
                parts.shared_programs.reload(&ground.settings.service);
                parts.names.reload(ground, now);
                parts.send_new_networks();
            }
            Err(why) => {
                let kept = "the old configuration";
                log!(ground.log, Error, "not-reloaded", why, kept);
            }
        }
        self.manager.tell("READY=1");
    }

    /// Stops accepting connections, and gives running jobs their grace. A second signal ends that.
    fn stop(&mut self, now: Instant) {
        let ground = &mut self.parts.ground;
        if ground.is_stopping {
            self.grace = Some(now);
            return;
        }
        self.manager.tell("STOPPING=1");
        let sessions = self.parts.jobs.sessions().len();
        log!(ground.log, Info, "stopping", sessions);
        ground.is_stopping = true;
        self.grace = Some(now + ground.settings.daemon.grace);
        self.claim.give_up();
        self.parts.processes.stop_listening(ground);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let parts = &self.parts;
        [
            parts.processes.deadline(),
            parts.inetd.as_ref().and_then(|inetd| inetd.deadline()),
            parts.names.deadline(),
            parts.connections.deadline(),
            parts.backends.deadline(),
            parts.jobs.deadline(),
            parts.jobs.sessions().deadline(),
            parts.logins.deadline(),
            parts.registry.deadline(),
            parts.ground.log.deadline(),
            self.sockets.deadline(),
            self.claim.due(),
            self.grace.filter(|_| !self.hung_up),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Handles what is due by now.
    fn pass_deadlines(&mut self, now: Instant) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        let parts = &mut self.parts;
        if is_due(parts.processes.deadline()) {
            let listed = parts.names.networks();
            parts.processes.expire(&mut parts.ground, &listed, now);
        }
        if is_due(parts.inetd.as_ref().and_then(|inetd| inetd.deadline())) {
            resume_postponed(parts, now);
        }
        let ground = &mut parts.ground;
        if is_due(ground.log.deadline()) {
            ground.log.tell_suppressed();
        }
        parts.names.expire(ground, now);
        if is_due(parts.connections.deadline()) {
            pipeline::continue_overdue(parts, now);
        }
        parts.backends.expire(now);
        if is_due(parts.jobs.sessions().deadline()) {
            for finished in parts.jobs.sessions_mut().advance_hung(now) {
                parts.session_ended(Some(finished));
            }
        }
        let ground = &mut parts.ground;
        if is_due(parts.logins.deadline()) {
            for denial in parts.logins.expire(ground, now) {
                refuse::deny(parts, Some(denial));
            }
        }
        let ground = &mut parts.ground;
        if is_due(parts.registry.deadline()) {
            let poll = ground.poll.registry();
            let answers = parts.registry.expire(poll, &mut ground.unreaped, now);
            self.take_answers(answers, now);
        }
        let parts = &mut self.parts;
        parts.jobs.expire(&mut parts.ground, now);
        if is_due(self.sockets.deadline()) {
            self.answer_lists(now);
            self.sockets.expire(now);
        }
        if is_due(self.claim.due()) {
            self.claim_run_folder(now);
        }
        if is_due(self.grace) && !self.hung_up {
            self.hung_up = true;
            let parts = &mut self.parts;
            let kill_after = parts.ground.kill_after();
            for finished in parts.jobs.sessions_mut().hang_up_all(kill_after, now) {
                parts.session_ended(Some(finished));
            }
        }
    }

    /// Takes what is missing of the run folder, and tells the service manager what cannot be had.
    pub(super) fn claim_run_folder(&mut self, now: Instant) {
        let (sockets, names) = (&mut self.sockets, &self.parts.names);
        let open = |ground: &_| sockets.open(ground, names);
        self.claim.take(&mut self.parts.ground, open, now);
        self.manager.tell_lack(self.claim.lack());
    }

    // ---- the end ----

    fn is_over(&self) -> bool {
        let parts = &self.parts;
        let idle = parts.jobs.sessions().len() == 0 && !parts.logins.is_busy();
        // Under inetd the daemon waits for a concluding worker, to enforce its time limit.
        let nobody_is_left = parts.processes.gate_is_empty() && !parts.connections.has_pending();
        let is_served = parts.ground.is_inetd && nobody_is_left && !parts.logins.concludes();
        idle && (parts.ground.is_stopping || is_served)
    }

    fn finish(&mut self) -> u8 {
        let parts = &mut self.parts;
        for denial in parts.logins.interrupt_all(&mut parts.ground) {
            refuse::deny(parts, Some(denial));
        }
        let ground = &mut parts.ground;
        // First, so that they end while gate and relay are waited for. One that hangs in a module
        // is not waited for.
        parts.names.finish(ground);
        parts.processes.finish();
        parts.shared_programs.stop(ground);
        if let Some(inetd) = &mut parts.inetd {
            inetd.leave_slot();
        }
        for answer in parts.registry.finish(&mut ground.unreaped) {
            pipeline::registration::log_note(&mut ground.log, answer);
        }
        ground.reap();
        self.sockets.close();
        self.claim.remove_pid_file();
        ground.log.tell_suppressed();
        log!(ground.log, Info, "stopped");
        process::SUCCESS
    }
}

/// Continues with what waited for the names in HOSTINFO, under inetd.
fn resume_postponed(parts: &mut Parts, now: Instant) {
    parts.admit_inetd();
    let postponed = parts
        .inetd
        .as_mut()
        .and_then(|inetd| inetd.take_postponed());
    // A client that has left asks nothing more.
    if let Some((message, fds)) = postponed.filter(|_| parts.connections.len() > 0) {
        if let Some(question) = Question::decode(&message) {
            // A connection that was evicted in the meantime is closed here.
            if parts.note_question(&question) {
                pipeline::handle_question(parts, &question, fds, now);
            }
        }
    }
}

/// Warns of a changed host key. The key is read at the start only: running sessions and handshakes
/// were begun with it.
fn warn_of_another_key(parts: &mut Parts) {
    let ground = &mut parts.ground;
    let why: String = match keys::load_host_key(&ground.paths) {
        Ok(key) if key.public == ground.host.public => return,
        Ok(_) => "a change of it takes a restart".into(),
        Err(e) => e.to_string(),
    };
    let kept = "the one that was there at the start";
    log!(
        ground.log,
        Warning,
        "needs-restart",
        key = "host.key",
        kept,
        why
    );
}
