//! The look-up processes as the monitor sees them: started when something is to be looked up,
//! asked again and again, ended when they are idle, and killed when they are late.
//!
//! A process that looks users up is asked one thing at a time, so that a user who takes long
//! keeps nobody else waiting; hosts are all looked up by one process, which has threads.
//!
//! Runs in the monitor. Owns the processes and the questions that they have not answered. Must
//! never wait for one of them, and takes nothing that one says for true but the answer to what
//! it was asked.

mod heard;
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
pub(super) use process::{NotAsked, Process, USERS_AT_ONCE, ask_once};

/// So many in a row may fail before there is a pause.
const FAILURES: u32 = 3;
/// First and longest pause before the next process, after so many that failed.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A question's number; a number is never used twice.
pub(super) type LookUp = u64;

/// What came of a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A user; `None`: there is none, or it was not found in time; or why it cannot be used.
    User(Result<Option<Box<UserRecord>>, String>),
    /// A host's addresses, or why there are none.
    Host(Result<Vec<IpAddr>, String>),
}

/// What the log and the monitor hear of the processes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LookUpEvent {
    /// A process is ready; whether it is the first one, or the first after a failure.
    Ready(Confined, bool),
    /// A process has died, or was killed, and why.
    Lost(String),
    /// An answer.
    Found(LookUp, Found),
}

/// The processes.
pub(super) struct LookUps {
    /// Whom they become.
    user: Option<(IdNumber, IdNumber)>,
    all: BTreeMap<u64, Process>,
    next_process: u64,
    next: LookUp,
    /// How many of each kind have failed in a row, and until when none is started.
    failed: [(u32, Option<Instant>); 2],
    /// Whether the log has said how they are protected, since one failed last.
    reported: bool,
    /// The dead that are still to be reaped.
    unreaped: Vec<Pid>,
    /// Sockets that a child is to close.
    unclosed: Unclosed,
    /// What nobody has heard yet.
    event: Vec<LookUpEvent>,
}

impl LookUps {
    /// None yet, who are to become this user.
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

    /// Takes a process that was begun before, unless it has become somebody else meanwhile.
    ///
    /// # Errors
    /// The loop takes no more.
    pub(super) fn take_begun(
        &mut self,
        registry: &Registry,
        process: Process,
    ) -> Result<(), Fault> {
        if process.whom() == Some(self.user) {
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

    /// A user will be asked for, when the peer has shown who it is: a process gets ready
    /// meanwhile.
    pub(super) fn prepare(&mut self, registry: &Registry, now: Instant) {
        if self.all.values().all(|p| p.kind != Kind::Users) && self.may_start(Kind::Users, now) {
            // What is wrong is said when somebody asks.
            let _ = self.start(registry, Kind::Users);
        }
    }

    /// Asks. The answer comes as [`LookUpEvent`].
    ///
    /// # Errors
    /// As many look-ups are under way as may be, no process is to be had, or nobody can have
    /// that name.
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
                // It is dead, and its channel's end was not heard yet.
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

    /// Whether there may be one more. Those that are stale take no more questions, and do not
    /// count: as many as have questions, whose number is bounded, can live beside the others.
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

    /// A process has something to say.
    pub(super) fn hear(&mut self, registry: &Registry, id: u64, buffer: &mut [u8], now: Instant) {
        while let Some(process) = self.all.get_mut(&id) {
            let heard = process
                .channel
                .flush()
                .and_then(|()| process.channel.receive(buffer));
            let wrong = match heard {
                Ok(Incoming::Nothing) => break,
                Ok(Incoming::Message(message, _)) => match Answer::decode(&message) {
                    Some(Answer::Failed(why)) => Some(why),
                    Some(answer) => {
                        let taken = self.take(id, answer, now);
                        taken.is_err().then(|| OUT_OF_TURN.to_owned())
                    }
                    None => Some(OUT_OF_TURN.to_owned()),
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
        let is_out_of_turn = || Fault::new(OUT_OF_TURN);
        if let Answer::Ready(confined) = answer {
            process.due.take().ok_or_else(is_out_of_turn)?;
            let is_first = !std::mem::replace(&mut self.reported, true);
            self.event.push(LookUpEvent::Ready(confined, is_first));
            return Ok(());
        }
        let number = match &answer {
            Answer::Groups(n, _) | Answer::User(n, _) | Answer::Host(n, _) => *n,
            Answer::Ready(_) | Answer::Failed(_) => return Err(is_out_of_turn()),
        };
        let at = process.asked.iter().position(|a| a.number == number);
        let at = at.ok_or_else(is_out_of_turn)?;
        let kind = process.kind;
        let found = match (kind, answer) {
            (Kind::Users, Answer::Groups(_, more)) => {
                let asked = process.asked.get_mut(at).ok_or_else(is_out_of_turn)?;
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
            _ => return Err(is_out_of_turn()),
        };
        process.idle_until = now + IDLE;
        if let Some(failed) = self.failed.get_mut(kind as usize) {
            *failed = (0, None);
        }
        self.event.push(LookUpEvent::Found(number, found));
        Ok(())
    }

    /// A process is dead, or must be. What is late has failed, and what was asked before of
    /// another that died; the rest is asked again.
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
                // It is not to be blamed where another was late.
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
        // One that died by itself sends no other signal that it has ended.
        if !processes::reap(pid) {
            self.unreaped.push(pid);
        }
    }

    fn dismiss(&mut self, id: u64) {
        if let Some(process) = self.all.remove(&id) {
            self.discard(process.end());
        }
    }

    /// What they have read is out of date: those that are idle end, the others with their
    /// last answer.
    pub(super) fn renew(&mut self) {
        for process in self.all.values_mut() {
            process.is_stale = true;
        }
        self.dismiss_all(|p| p.is_stale && p.asked.is_empty());
    }

    /// Gives them no more questions, and ends each once it has been idle for so long.
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
    pub(super) fn tend(&mut self, registry: &Registry, now: Instant) {
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

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let of = |p: &Process| {
            let asked = p.asked.iter().map(|a| a.until);
            let idle = p.may_end_idle().then_some(p.idle_until);
            asked.chain(p.due).chain(idle).min()
        };
        self.all.values().filter_map(of).min()
    }

    /// What they have said since the last call.
    pub(super) fn event(&mut self) -> Vec<LookUpEvent> {
        std::mem::take(&mut self.event)
    }

    /// The dead that are still to be reaped.
    pub(super) fn unreaped(&mut self) -> Vec<Pid> {
        std::mem::take(&mut self.unreaped)
    }

    /// Has a child close the sockets on which something was left unread, descriptors perhaps:
    /// this process might wait in close(2).
    pub(super) fn close_unread(&mut self) {
        if self.unclosed.is_empty() {
            return;
        }
        match untrusted::close_elsewhere(std::mem::take(&mut self.unclosed)) {
            Ok(pid) => self.unreaped.push(pid),
            // Later, then.
            Err((_, sockets)) => self.unclosed = sockets,
        }
    }

    /// Ends them all. Their numbers: one that hangs may take its time.
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

const OUT_OF_TURN: &str = "it spoke out of turn";

/// How long no process is started after so many that failed in a row.
fn pause(failed: u32) -> Option<Duration> {
    let times = failed.checked_sub(FAILURES)?;
    let pause = PAUSE.saturating_mul(2_u32.saturating_pow(times));
    Some(pause.min(LONGEST_PAUSE))
}
