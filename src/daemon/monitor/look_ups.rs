//! The look-up processes as the monitor sees them: starts them when something is to be looked up,
//! reuses them, ends them when they are idle, and kills them when they are late.
//!
//! A process that looks up users gets one question at a time, so that a slow user delays no other.
//! One process, which has threads, looks up all hosts.
//!
//! Runs in the monitor. Owns the processes and their unanswered questions. Must never wait for a
//! process, and accepts from it only answers to the questions that it was asked.

mod process;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mio::Registry;
use nix::unistd::Pid;

use super::event_source;
use crate::fault::Fault;
use crate::ipc::Incoming;
use crate::ipc::lookup::{Answer, Question};
use crate::sys::account::UserRecord;
use crate::sys::confine::Confined;
use crate::sys::id_number::IdNumber;
use crate::sys::process as processes;
use crate::sys::untrusted::{self, Unclosed};
use process::{Asked, IDLE, Kind, add_groups, record_of};
pub(super) use process::{NotAsked, Process, RunsAs, USERS_AT_ONCE, ask_once};

/// This many failures in a row cause a pause.
const FAILURES: u32 = 3;
/// First and longest pause before the next process, after that many failures.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A question's number, which is never reused.
pub(super) type LookUp = u64;

/// The result of a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A user; `None`: there is none, or it was not found in time; or why it cannot be used.
    User(Result<Option<Box<UserRecord>>, String>),
    /// A host's addresses, or why there are none.
    Host(Result<Vec<IpAddr>, String>),
}

/// What the processes report to the log and the monitor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LookUpEvent {
    /// A process is ready; whether it is the first one, or the first after a failure.
    Ready(Confined, bool),
    /// A process has died, or was killed, and why.
    Lost(String),
    /// An answer.
    Found(LookUp, Found),
}

/// The look-up processes.
pub(super) struct LookUps {
    /// The user that they become.
    user: Option<(IdNumber, IdNumber)>,
    all: BTreeMap<u64, Process>,
    next_process: u64,
    next: LookUp,
    /// How many of each kind have failed in a row, and until when none is started.
    failed: [(u32, Option<Instant>); 2],
    /// Whether the log has their sandbox status since the last failure.
    reported: bool,
    /// Dead processes that are still to be reaped.
    unreaped: Vec<Pid>,
    /// Sockets that a child is to close.
    unclosed: Unclosed,
    /// Events that the monitor has not taken yet.
    event: Vec<LookUpEvent>,
}

impl LookUps {
    /// Returns no processes yet; they will become this user.
    pub(super) const fn new(user: Option<(IdNumber, IdNumber)>) -> Self {
        Self {
            user,
            all: BTreeMap::new(),
            next_process: 0,
            next: 1,
            failed: [(0, None); 2],
            reported: false,
            unreaped: Vec::new(),
            unclosed: Vec::new(),
            event: Vec::new(),
        }
    }

    /// Takes a process that was started before, unless it has become another user.
    ///
    /// # Errors
    /// Fails if the event loop takes no more.
    pub(super) fn take_started(
        &mut self,
        registry: &Registry,
        process: Process,
    ) -> Result<(), Fault> {
        if process.runs_as() == RunsAs::of(self.user) {
            return self.adopt(registry, process).map(drop);
        }
        self.discard(process.end());
        Ok(())
    }

    fn adopt(&mut self, registry: &Registry, process: Process) -> Result<u64, Fault> {
        let id = self.next_process;
        self.next_process += 1;
        if let Err(e) = process.watch(registry, event_source::look_up(id)) {
            self.discard(process.end());
            return Err(e);
        }
        self.all.insert(id, process);
        Ok(id)
    }

    /// Starts a process for a user that will be asked for once the peer has authenticated.
    pub(super) fn prepare(&mut self, registry: &Registry, now: Instant) {
        if self.all.values().all(|p| p.kind != Kind::Users) && self.may_start(Kind::Users, now) {
            // A fault is reported when the question comes.
            let _ = self.start(registry, Kind::Users);
        }
    }

    /// Asks a question. The answer comes as [`LookUpEvent`].
    ///
    /// # Errors
    /// Fails if the maximum of look-ups is under way, no process is available, or the name is
    /// invalid.
    pub(super) fn ask(
        &mut self,
        registry: &Registry,
        question: Question,
        now: Instant,
    ) -> Result<LookUp, NotAsked> {
        let number = self.next;
        self.next += 1;
        let asked = Asked {
            number,
            until: now + Kind::of(&question).time(),
            question,
            again: false,
            groups: Vec::new(),
        };
        self.give(registry, asked, now)
            .map_err(|refused| refused.1)?;
        Ok(number)
    }

    /// Gives a question to a process that has room for it.
    fn give(
        &mut self,
        registry: &Registry,
        mut asked: Asked,
        now: Instant,
    ) -> Result<(), Box<(Asked, NotAsked)>> {
        let kind = Kind::of(&asked.question);
        let Some(message) = asked.question.encode(asked.number) else {
            let e = Fault::new("nobody can have that name");
            return Err(Box::new((asked, e.into())));
        };
        loop {
            let room = |p: &Process| p.asked.len() < kind.most().0 && !p.is_stale;
            let mut with_room = self.all.iter().filter(|(_, p)| p.kind == kind && room(p));
            let id = match with_room.next() {
                Some((id, _)) => *id,
                None => match self.start_one_more(registry, kind, now) {
                    Ok(id) => id,
                    Err(e) => return Err(Box::new((asked, e))),
                },
            };
            let Some(process) = self.all.get_mut(&id) else {
                let e = Fault::new("no look-up process");
                return Err(Box::new((asked, e.into())));
            };
            match process.send(asked, message.clone()) {
                Ok(()) => return Ok(()),
                // It is dead, and the end of its channel was not handled yet.
                Err(back) => asked = back,
            }
            self.lose(registry, id, "it has died", now);
        }
    }

    fn start_one_more(
        &mut self,
        registry: &Registry,
        kind: Kind,
        now: Instant,
    ) -> Result<u64, NotAsked> {
        if !self.has_room(kind) {
            return Err(NotAsked::NoRoom);
        }
        if !self.may_start(kind, now) {
            return Err(Fault::new("look-up processes have failed one after another").into());
        }
        Ok(self.start(registry, kind)?)
    }

    /// Whether one more may be started. Stale ones take no more questions and do not count: only
    /// those that have questions live on beside the others, and the number of questions is bounded.
    fn has_room(&self, kind: Kind) -> bool {
        let all = self.all.values();
        let there = all.filter(|p| p.kind == kind && !p.is_stale).count();
        there < kind.most().1
    }

    fn may_start(&self, kind: Kind, now: Instant) -> bool {
        let paused = self.failed.get(kind as usize).and_then(|(_, until)| *until);
        paused.is_none_or(|until| until <= now)
    }

    fn start(&mut self, registry: &Registry, kind: Kind) -> Result<u64, Fault> {
        let mut process = Process::launch(None)?;
        process.kind = kind;
        let begun = process.begin(self.user, kind == Kind::Users);
        if let Err(e) = begun {
            self.discard(process.end());
            return Err(e);
        }
        self.adopt(registry, process)
    }

    /// Handles the messages of a process.
    pub(super) fn handle_messages(
        &mut self,
        registry: &Registry,
        id: u64,
        buffer: &mut [u8],
        now: Instant,
    ) {
        while let Some(process) = self.all.get_mut(&id) {
            let received = process
                .channel
                .flush()
                .and_then(|()| process.channel.receive(buffer));
            let wrong = match received {
                Ok(Incoming::Nothing) => break,
                Ok(Incoming::Message(message, _)) => match Answer::decode(&message) {
                    Some(Answer::Failed(why)) => Some(why),
                    Some(answer) => {
                        let taken = self.take(id, answer, now);
                        taken.is_err().then(|| ANSWERS_NOTHING.to_owned())
                    }
                    None => Some(ANSWERS_NOTHING.to_owned()),
                },
                Ok(Incoming::Gone) | Err(_) => Some("it has died".to_owned()),
            };
            if let Some(why) = wrong {
                return self.lose(registry, id, &why, now);
            }
        }
        let done = self.all.get(&id);
        if done.is_some_and(|p| p.is_stale && p.asked.is_empty()) {
            self.dismiss(id);
        }
    }

    fn take(&mut self, id: u64, answer: Answer, now: Instant) -> Result<(), Fault> {
        let Some(process) = self.all.get_mut(&id) else {
            return Ok(());
        };
        let answers_nothing = || Fault::new(ANSWERS_NOTHING);
        if let Answer::Ready(confined) = answer {
            process.due.take().ok_or_else(answers_nothing)?;
            let is_first = !std::mem::replace(&mut self.reported, true);
            self.event.push(LookUpEvent::Ready(confined, is_first));
            return Ok(());
        }
        let number = match &answer {
            Answer::Groups(n, _) | Answer::User(n, _) | Answer::Host(n, _) => *n,
            Answer::Ready(_) | Answer::Failed(_) => return Err(answers_nothing()),
        };
        let at = process.asked.iter().position(|a| a.number == number);
        let at = at.ok_or_else(answers_nothing)?;
        let kind = process.kind;
        let found = match (kind, answer) {
            (Kind::Users, Answer::Groups(_, more)) => {
                let asked = process.asked.get_mut(at).ok_or_else(answers_nothing)?;
                return add_groups(&mut asked.groups, more);
            }
            (Kind::Users, Answer::User(_, found)) => {
                let asked = process.asked.swap_remove(at);
                let found = record_of(&asked.question, found, asked.groups);
                Found::User(found.map(|found| found.map(Box::new)))
            }
            (Kind::Hosts, Answer::Host(_, found)) => {
                process.asked.swap_remove(at);
                Found::Host(found)
            }
            // The question stays: it is asked again of the next process, or fails.
            _ => return Err(answers_nothing()),
        };
        process.idle_until = now + IDLE;
        if let Some(failed) = self.failed.get_mut(kind as usize) {
            *failed = (0, None);
        }
        self.event.push(LookUpEvent::Found(number, found));
        Ok(())
    }

    /// Handles a process that is dead or must be killed. A question fails if it is late, or if it
    /// was asked before of another process that died. The others are asked again.
    fn lose(&mut self, registry: &Registry, id: u64, why: &str, now: Instant) {
        let Some(mut process) = self.all.remove(&id) else {
            return;
        };
        let asked = std::mem::take(&mut process.asked);
        let kind = process.kind;
        let was_idle = asked.is_empty() && process.due.is_none();
        self.discard(process.end());
        if !was_idle {
            self.reported = false;
            self.event.push(LookUpEvent::Lost(why.to_owned()));
            if let Some((count, until)) = self.failed.get_mut(kind as usize) {
                *count = count.saturating_add(1).min(32);
                *until = pause(*count).map(|pause| now + pause);
            }
        }
        let late = asked.iter().any(|a| a.until <= now);
        for mut asked in asked {
            if asked.until <= now {
                self.event.push(asked.failed("it took too long"));
            } else if asked.again {
                self.event
                    .push(asked.failed("the look-up process has died twice"));
            } else {
                // It is not to blame if another was late.
                asked.again = !late;
                asked.until = now + kind.time();
                asked.groups.clear();
                if let Err(refused) = self.give(registry, asked, now) {
                    let (asked, e) = *refused;
                    self.event.push(asked.failed(&e.to_string()));
                }
            }
        }
    }

    fn discard(&mut self, (pid, unclosed): (Pid, Unclosed)) {
        self.unclosed.extend(unclosed);
        // A process that died by itself sends no further SIGCHLD.
        if !processes::reap(pid) {
            self.unreaped.push(pid);
        }
    }

    fn dismiss(&mut self, id: u64) {
        if let Some(process) = self.all.remove(&id) {
            self.discard(process.end());
        }
    }

    /// Marks what they have read as out of date: idle processes end now, the others with their last
    /// answer.
    pub(super) fn renew(&mut self) {
        for process in self.all.values_mut() {
            process.is_stale = true;
        }
        self.dismiss_all(|p| p.is_stale && p.asked.is_empty());
    }

    /// Gives them no more questions, and ends each once it has been idle for this time.
    pub(super) fn retire(&mut self, after: Duration, now: Instant) {
        for process in self.all.values_mut() {
            process.is_stale = true;
            process.idle_until = now + after;
        }
    }

    fn dismiss_all(&mut self, which: impl Fn(&Process) -> bool) {
        let all = self.all.iter().filter(|(_, p)| which(p));
        let all: Vec<u64> = all.map(|(id, _)| *id).collect();
        for id in all {
            self.dismiss(id);
        }
    }

    /// Kills those that are late, and ends those that have been idle for long.
    pub(super) fn expire(&mut self, registry: &Registry, now: Instant) {
        self.dismiss_all(|p| p.may_end_idle() && p.idle_until <= now);
        let is_late = |p: &Process| {
            p.due.is_some_and(|at| at <= now) || p.asked.iter().any(|a| a.until <= now)
        };
        let late = self.all.iter().filter(|(_, p)| is_late(p));
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.lose(registry, id, "it took too long", now);
        }
    }

    /// Returns when something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let of = |p: &Process| {
            let asked = p.asked.iter().map(|a| a.until);
            let idle = p.may_end_idle().then_some(p.idle_until);
            asked.chain(p.due).chain(idle).min()
        };
        self.all.values().filter_map(of).min()
    }

    /// Returns the events since the last call.
    pub(super) fn event(&mut self) -> Vec<LookUpEvent> {
        std::mem::take(&mut self.event)
    }

    /// Returns the dead processes that are still to be reaped.
    pub(super) fn unreaped(&mut self) -> Vec<Pid> {
        std::mem::take(&mut self.unreaped)
    }

    /// Starts a child that closes the sockets with unread data, which may be descriptors: close(2)
    /// could block this process.
    pub(super) fn close_unread(&mut self) {
        if self.unclosed.is_empty() {
            return;
        }
        match untrusted::close_elsewhere(std::mem::take(&mut self.unclosed)) {
            Ok(pid) => self.unreaped.push(pid),
            // Try again later.
            Err((_, sockets)) => self.unclosed = sockets,
        }
    }

    /// Kills them all. Returns their process IDs: one that hangs may end later.
    pub(super) fn finish(&mut self) -> Vec<Pid> {
        untrusted::leave_open(std::mem::take(&mut self.unclosed));
        let end = |process: Process| {
            let (pid, unclosed) = process.end();
            untrusted::leave_open(unclosed);
            pid
        };
        let all = std::mem::take(&mut self.all);
        all.into_values().map(end).collect()
    }
}

const ANSWERS_NOTHING: &str = "it sent a message that answers no question";

/// Returns how long no process is started after a number of failures in a row.
fn pause(failed: u32) -> Option<Duration> {
    let times = failed.checked_sub(FAILURES)?;
    let pause = PAUSE.saturating_mul(2_u32.saturating_pow(times));
    Some(pause.min(LONGEST_PAUSE))
}
