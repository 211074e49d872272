//! The administrator's socket, `run/control`: lists the sessions, and hangs one up.
//!
//! Runs in the monitor. A session's thread in the relay knows how many bytes it has passed on, and
//! is asked for that. A session whose thread does not answer in time is listed without these
//! counts.

use std::time::{Duration, Instant};

use super::callers::{Callers, Terms};
use super::{Monitor, event_source};
use crate::fault::Fault;
use crate::ipc::control::{Answer, QUESTION, Question};
use crate::log::log;
use crate::registry::Id;

/// The limits for administrators. Each must read all of a long answer in this time.
const TERMS: Terms = Terms {
    most: 8,
    each: 8,
    line: 8,
    line_each: 8,
    time: Duration::from_secs(10),
};

/// How long the relay's threads may take to count.
const COUNTING: Duration = Duration::from_millis(250);

/// What an administrator waits for.
#[derive(Default)]
pub(super) struct Wanted {
    /// The sessions whose counts are outstanding, and until when to wait for them.
    counting: Option<(Vec<u64>, Instant)>,
}

/// The administrator's socket and its clients.
pub(super) type Control = Callers<Wanted>;

/// Returns a control without a socket.
pub(super) const fn control() -> Control {
    Callers::new(TERMS, event_source::administers)
}

impl Monitor {
    /// Opens the local sockets that are not open yet. Returns why one could not be opened; the
    /// daemon serves without them, too.
    pub(super) fn open_sockets(&mut self) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if !self.sign_socket.is_open() {
            wrong.extend(self.open_sign_socket().err());
        }
        if !self.control.is_open() {
            wrong.extend(self.open_control().err());
        }
        wrong
    }

    /// Opens the socket to the daemon's own user and root.
    pub(super) fn open_control(&mut self) -> Result<(), Fault> {
        let path = self.paths.control();
        self.control
            .open(self.poll.registry(), (&path, 0o600), event_source::CONTROL)
    }

    /// Returns the only user besides root that this daemon obeys, if it does not run as root.
    pub(super) fn own_number(&self) -> Option<u32> {
        self.accounts
            .serves()
            .map(|_| nix::unistd::geteuid().as_raw())
    }

    /// Accepts new administrators.
    pub(super) fn take_administrators(&mut self, now: Instant) {
        let own = self.own_number();
        let may = |uid| uid == 0 || own == Some(uid);
        self.control.take(self.poll.registry(), may, |_| true, now);
    }

    /// Handles an administrator's request.
    pub(super) fn handle_administrator(&mut self, id: u64, now: Instant) {
        if self.control.settle(self.poll.registry(), id) {
            return;
        }
        let mut buffer = [0; QUESTION];
        let Some(message) = self.control.handle_messages(id, &mut buffer) else {
            return;
        };
        let Some(caller) = self.control.get(id).filter(|c| c.state.counting.is_none()) else {
            return;
        };
        match Question::decode(&message) {
            Some(Question::Who) => {
                let counting = self.sessions.count_bytes();
                caller.state.counting = Some((counting, now + COUNTING));
                self.answer_session_lists(now);
            }
            Some(Question::Kill(session)) => {
                let uid = caller.uid;
                let there = self.kill_session(session, uid, now);
                let answer = Answer::Killed(there).encode();
                self.control.answer(self.poll.registry(), id, vec![answer]);
            }
            Some(Question::Cut(machine)) => {
                let uid = caller.uid;
                let count = self.cut_off(Id(machine), uid, now);
                let answer = Answer::Cut(count).encode();
                self.control.answer(self.poll.registry(), id, vec![answer]);
            }
            None => self.control.answer(self.poll.registry(), id, Vec::new()),
        }
    }

    /// Answers the administrators whose sessions have all counted, or whose time to wait is over.
    pub(super) fn answer_session_lists(&mut self, now: Instant) {
        let sessions = &self.sessions;
        let done = |counting: &Option<(Vec<u64>, Instant)>| {
            counting.as_ref().is_some_and(|(waiting, until)| {
                *until <= now || waiting.iter().all(|id| sessions.has_counted(*id))
            })
        };
        let all = self.control.iter();
        let all = all.filter(|(_, c)| !c.is_answered() && done(&c.state.counting));
        let all: Vec<u64> = all.map(|(id, _)| id).collect();
        if all.is_empty() {
            return;
        }
        let detached = self.logins.detached();
        let ids: Vec<u64> = detached.iter().map(|on| on.id).collect();
        let mut rows = self.sessions.who();
        rows.retain(|on| !ids.contains(&on.id));
        rows.extend(detached);
        rows.sort_by_key(|on| on.id);
        let mut messages: Vec<Vec<u8>> =
            rows.into_iter().map(|on| Answer::On(on).encode()).collect();
        messages.push(Answer::End.encode());
        for id in all {
            self.control
                .answer(self.poll.registry(), id, messages.clone());
        }
    }

    /// Hangs up a session, or a detached application. Returns whether it was there.
    fn kill_session(&mut self, session: u64, uid: u32, now: Instant) -> bool {
        let kill_after = self.settings.exec.hup_to_kill;
        let there = if self.logins.kill_detached(session, kill_after, now) {
            true
        } else {
            let (there, finished) = self.sessions.kill(session, kill_after, now);
            self.log_end(finished);
            there
        };
        if there {
            log!(self.log, Info, "killed", session, uid);
        }
        there
    }

    /// Hangs up all that a machine has here: sessions, detached applications, and undecided
    /// requests. Returns how many these were.
    pub(super) fn cut_off(&mut self, machine: Id, uid: u32, now: Instant) -> u64 {
        let mut all = self.sessions.of_machine(machine);
        all.extend(self.logins.detached_of(machine));
        all.sort_unstable();
        all.dedup();
        let cut = all.iter().filter(|id| self.kill_session(**id, uid, now));
        let cut = cut.count();
        let count = cut + self.refuse_undecided(machine);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        log!(self.log, Info, "cut", machine, sessions = count, uid);
        count
    }

    /// Returns when an administrator must get an answer.
    pub(super) fn control_deadline(&self) -> Option<Instant> {
        let counting = self.control.iter().filter(|(_, c)| !c.is_answered());
        let counting = counting.filter_map(|(_, c)| Some(c.state.counting.as_ref()?.1));
        counting.chain(self.control.deadline()).min()
    }
}
