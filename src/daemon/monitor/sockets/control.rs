//! The administrator's socket, `run/control`: list the sessions, hang one up, hang up a machine.
//!
//! Runs in the monitor. Owns the administrators' requests and answers them. Must not carry out a
//! request itself: the event loop does. A session's thread in the relay knows how many bytes it has
//! passed on, and is asked for that. A session whose thread does not answer in time is listed
//! without these counts.

use std::time::{Duration, Instant};

use super::super::event_source;
use super::super::ground::Ground;
use super::super::sessions::Sessions;
use super::callers::{Callers, Terms};
use crate::fault::Fault;
use crate::ipc::control::{Answer, On, QUESTION, Question};
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
pub(in super::super) struct Control {
    pub(super) callers: Callers<Wanted>,
}

/// What an administrator asks for.
pub(in super::super) enum Request {
    /// The list of all sessions.
    List,
    /// To hang up this session.
    Kill(u64),
    /// To hang up all that an excluded machine has here.
    Cut(Id),
}

impl Control {
    /// Returns it without a socket.
    pub(super) const fn new() -> Self {
        Self {
            callers: Callers::new(TERMS, event_source::administers),
        }
    }

    /// Opens the socket to the daemon's own user and root.
    pub(super) fn open(&mut self, ground: &Ground) -> Result<(), Fault> {
        let path = ground.paths.control();
        let registry = ground.registry();
        self.callers
            .open(registry, (&path, 0o600), event_source::CONTROL)
    }

    /// Accepts new administrators: root, and the daemon's own user.
    pub(in super::super) fn take(&mut self, ground: &Ground, own: Option<u32>, now: Instant) {
        let may = |uid| uid == 0 || own == Some(uid);
        self.callers.take(ground.registry(), may, |_| true, now);
    }

    /// Returns an administrator's request and user ID.
    pub(in super::super) fn request(&mut self, ground: &Ground, id: u64) -> Option<(Request, u32)> {
        if self.callers.settle(ground.registry(), id) {
            return None;
        }
        let message = self.callers.handle_messages(id, &mut [0; QUESTION])?;
        let caller = self.callers.get(id)?;
        if caller.state.counting.is_some() {
            return None;
        }
        let request = match Question::decode(&message) {
            Some(Question::Who) => Request::List,
            Some(Question::Kill(session)) => Request::Kill(session),
            Some(Question::Cut(machine)) => Request::Cut(Id(machine)),
            None => {
                self.callers.answer(ground.registry(), id, Vec::new());
                return None;
            }
        };
        Some((request, caller.uid))
    }

    /// Answers an administrator.
    pub(in super::super) fn answer(&mut self, ground: &Ground, id: u64, answer: &Answer) {
        let answer = vec![answer.encode()];
        self.callers.answer(ground.registry(), id, answer);
    }

    /// Has an administrator wait until these sessions have counted their bytes.
    pub(in super::super) fn await_counts(&mut self, id: u64, counting: Vec<u64>, now: Instant) {
        if let Some(caller) = self.callers.get(id) {
            caller.state.counting = Some((counting, now + COUNTING));
        }
    }

    /// Returns the administrators whose sessions have all counted, or whose time to wait is over.
    pub(in super::super) fn counted(&self, sessions: &Sessions, now: Instant) -> Vec<u64> {
        let done = |counting: &Option<(Vec<u64>, Instant)>| {
            counting.as_ref().is_some_and(|(waiting, until)| {
                *until <= now || waiting.iter().all(|id| sessions.has_counted(*id))
            })
        };
        let all = self.callers.iter();
        let all = all.filter(|(_, c)| !c.is_answered() && done(&c.state.counting));
        all.map(|(id, _)| id).collect()
    }

    /// Sends the list of sessions to these administrators.
    pub(in super::super) fn answer_lists(&mut self, ground: &Ground, ids: Vec<u64>, rows: Vec<On>) {
        let rows = rows.into_iter().map(Answer::On).chain([Answer::End]);
        let messages: Vec<Vec<u8>> = rows.map(|row| row.encode()).collect();
        for id in ids {
            self.callers.answer(ground.registry(), id, messages.clone());
        }
    }

    /// Returns when an administrator must get an answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let counting = self.callers.iter().filter(|(_, c)| !c.is_answered());
        let counting = counting.filter_map(|(_, c)| Some(c.state.counting.as_ref()?.1));
        counting.chain(self.callers.deadline()).min()
    }
}
