//! Sessions that are hung up. Every process gets SIGHUP, and what is left after a grace gets
//! SIGKILL, in all process groups of the session. The session is over when no process is left.
//!
//! The whole session is searched for before SIGHUP is sent, since what a process starts to handle
//! that signal must not be signalled. If the system does not show the session (no `/proc`), its
//! first process group stands for it. Runs in the monitor.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::sweep::{SLICE, Sweep, Wanted};
use super::{Finished, Session, Sessions};
use crate::sys::session::{self, Found, GATHERINGS, KILLINGS};

/// A session that is hung up, and its next step.
pub(super) struct Hung {
    stage: Stage,
    /// When what is left of it is killed.
    kill_at: Instant,
    /// When to look at it again.
    look_at: Instant,
    /// The delay before the look after that.
    pause: Duration,
    /// How many looks this stage has had.
    looks: usize,
    /// Whether the next look may ignore the monitor's rest between sweeps.
    is_urgent: bool,
    /// Whether the last look since SIGHUP found a process.
    was_left: bool,
    /// Processes that were found: those to be sent SIGHUP, or those that were sent SIGKILL.
    known: BTreeSet<i32>,
    /// Whether the first group is not signalled: its client has done that itself.
    spares_group: bool,
    /// Whether its thread's channel is to be closed once SIGHUP was sent.
    disconnects: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent yet: the session is being searched for.
    Gathering,
    /// It was sent SIGHUP.
    Waiting,
    /// It is being sent SIGKILL.
    Killing,
}

/// First and longest delay between two looks at a session that was hung up.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// After a sweep the monitor rests for this multiple of the sweep's time, up to a limit.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(1);

impl Hung {
    fn look_again_now(&mut self, now: Instant) {
        (self.look_at, self.is_urgent) = (now, true);
    }

    fn look_later(&mut self, now: Instant) {
        self.look_at = now + self.pause;
        self.pause = LONGEST_PAUSE.min(self.pause.saturating_mul(2));
    }

    /// Adds what a look has found. Returns whether some of it is new and another look is allowed.
    fn learn(&mut self, found: impl IntoIterator<Item = i32>, looks: usize) -> bool {
        let before = self.known.len();
        self.known.extend(found);
        self.looks += 1;
        self.known.len() > before && self.looks < looks
    }
}

impl Session {
    /// Whether only its remaining processes, if any, keep the session from being over.
    fn is_over_except_processes(&self) -> bool {
        self.end.is_some() && !self.is_connected()
    }

    /// Whether it has a thread that will still communicate with it.
    pub(super) fn is_connected(&self) -> bool {
        let disconnects = self.hung.as_ref().is_some_and(|h| h.disconnects);
        self.channel.is_some() && !disconnects
    }

    /// Returns when something is due for a session that is hung up. `rested`: when the monitor
    /// looks at all processes again.
    fn due(&self, rested: Option<Instant>) -> Option<Instant> {
        let hung = self.hung.as_ref()?;
        let rested = rested.filter(|_| !hung.is_urgent && !self.is_unseen);
        let look_at = rested.map_or(hung.look_at, |at| at.max(hung.look_at));
        Some(match hung.stage {
            Stage::Gathering | Stage::Killing => look_at,
            Stage::Waiting if self.is_over_except_processes() => look_at.min(hung.kill_at),
            Stage::Waiting => hung.kill_at,
        })
    }
}

impl Sessions {
    /// Hangs a session up, once; it is killed after a grace.
    pub(super) fn hang_up(&mut self, id: u64, kill_after: Duration, now: Instant) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        if session.hung.is_some() || session.killed {
            return;
        }
        session.hung = Some(Hung {
            stage: Stage::Gathering,
            kill_at: now + kill_after,
            look_at: now,
            pause: PAUSE,
            looks: 0,
            is_urgent: false,
            was_left: false,
            known: BTreeSet::new(),
            spares_group: false,
            // Without a process, nothing that SIGHUP reaches needs the pipes any longer.
            disconnects: session.leader.pid().is_none(),
        });
        self.hanging.push(id);
    }

    /// Hangs up all groups of a session but its first one. It must not be hung up yet.
    pub(super) fn hang_up_other_groups(&mut self, id: u64, kill_after: Duration, now: Instant) {
        self.hang_up(id, kill_after, now);
        self.disconnect(id);
        let session = self.all.get_mut(&id);
        if let Some(hung) = session.and_then(|session| session.hung.as_mut()) {
            hung.spares_group = true;
        }
    }

    /// Closes the channel to a session's thread, which then closes the job's pipes: only after
    /// SIGHUP. A job that handles SIGHUP would die of SIGPIPE otherwise.
    pub(super) fn disconnect(&mut self, id: u64) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        match session.hung.as_mut() {
            Some(hung) if hung.stage == Stage::Gathering => hung.disconnects = true,
            Some(_) | None => session.channel = None,
        }
    }

    /// Checks whether all of a session that is hung up has ended, after a part of it has.
    pub(super) fn look(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let hung = session.hung.as_mut()?;
        if hung.stage != Stage::Waiting {
            return None;
        }
        if !session.is_unseen {
            hung.look_at = now;
            return None;
        }
        if session.is_gone(&self.groups) {
            return self.finish(id, now);
        }
        let hung = session.hung.as_mut()?;
        match session.reaped {
            true => hung.look_later(now),
            false => hung.look_at = hung.kill_at,
        }
        None
    }

    /// Returns when a session that is hung up must be looked at, or killed.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        if let Some(sweep) = &self.sweep {
            return Some(sweep.began());
        }
        let all = self.hanging.iter().filter_map(|id| self.all.get(id));
        all.filter_map(|s| s.due(self.rested)).min()
    }

    /// Continues with the sessions that are hung up. Returns those that are over.
    pub(in super::super) fn advance_hung(&mut self, now: Instant) -> Vec<Finished> {
        let mut finished = Vec::new();
        for id in self.hanging.clone() {
            finished.extend(self.advance(id, now));
        }
        if self.sweep.is_none() {
            finished.extend(self.begin_sweep(now));
        }
        if let Some(mut sweep) = self.sweep.take() {
            if !sweep.go_on(SLICE) {
                self.sweep = Some(sweep);
                return finished;
            }
            let (found, spent) = sweep.into_found();
            self.rested = Some(now + LONGEST_REST.min(spent.saturating_mul(REST)));
            for (wanted, is_whole) in found {
                finished.extend(self.found(&wanted, is_whole, now));
            }
        }
        finished
    }

    /// Does what needs no sweep of all processes: the end of the grace, and sessions that the
    /// system does not show.
    fn advance(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let has_number = session.number().is_some();
        let hung = session.hung.as_mut()?;
        if !has_number {
            session.is_unseen = true;
        }
        if hung.stage == Stage::Waiting && hung.kill_at <= now {
            hung.stage = Stage::Killing;
            hung.looks = 0;
            hung.known.clear();
            hung.look_again_now(now);
            if !hung.spares_group {
                session.signal(Signal::SIGKILL);
            }
        }
        let hung = session.hung.as_ref().filter(|_| !has_number)?;
        match hung.stage {
            Stage::Gathering => self.send_hang_up(id, now),
            Stage::Killing => self.killed(id, now),
            Stage::Waiting if hung.look_at <= now => self.look(id, now),
            Stage::Waiting => None,
        }
    }

    /// Begins a sweep of all processes, if one is due. Without `/proc`, returns the sessions that
    /// are over because of it.
    fn begin_sweep(&mut self, now: Instant) -> Vec<Finished> {
        let rested = self.rested;
        let all = self.hanging.iter().filter_map(|id| {
            let session = self.all.get(id)?;
            Some((*id, session, session.hung.as_ref()?))
        });
        let is_due = |s: &Session| !s.is_unseen && s.due(rested).is_some_and(|at| at <= now);
        if !all.clone().any(|(_, session, _)| is_due(session)) {
            return Vec::new();
        }
        let wanted = all.filter_map(|(id, session, hung)| {
            let is_looked_for = hung.stage != Stage::Waiting || session.is_over_except_processes();
            is_looked_for.then_some(())?;
            Some(Wanted {
                id,
                number: session.number()?,
                kills: hung.stage == Stage::Killing,
                spares_group: hung.spares_group,
                found: Found::default(),
            })
        });
        match Sweep::begin(wanted, now) {
            Ok(sweep) => {
                self.sweep = Some(sweep);
                Vec::new()
            }
            Err(unseen) => {
                let unseen = unseen.iter();
                unseen.filter_map(|w| self.found(w, false, now)).collect()
            }
        }
    }

    /// Handles the end of a sweep for a session. Returns the session if it is over.
    fn found(&mut self, wanted: &Wanted, is_whole: bool, now: Instant) -> Option<Finished> {
        let (id, found) = (wanted.id, &wanted.found);
        let session = self.all.get_mut(&id)?;
        let hung = session.hung.as_mut()?;
        hung.is_urgent = false;
        session.is_unseen = !is_whole;
        let apart = found.apart.iter().copied();
        let in_group = found.in_group.iter().copied();
        let is_left = !found.apart.is_empty() || !(hung.spares_group || found.in_group.is_empty());
        let is_over = is_whole && !is_left && session.is_over_except_processes();
        let hung = session.hung.as_mut()?;
        let was_left = std::mem::replace(&mut hung.was_left, is_left);
        match hung.stage {
            // What a process started before it ended may have been missed.
            Stage::Waiting if is_over && was_left => hung.look_again_now(now),
            Stage::Gathering | Stage::Waiting if is_over => return self.finish(id, now),
            Stage::Gathering => {
                if is_whole && hung.learn(apart, GATHERINGS) {
                    hung.look_again_now(now);
                    return None;
                }
                return self.send_hang_up(id, now);
            }
            Stage::Waiting if is_whole => hung.look_later(now),
            Stage::Waiting => return self.look(id, now),
            Stage::Killing if wanted.kills => {
                if hung.learn(apart.chain(in_group), KILLINGS) {
                    hung.look_again_now(now);
                    return None;
                }
                return self.killed(id, now);
            }
            // Its grace ended after this look had begun.
            Stage::Killing => {}
        }
        None
    }

    /// Sends SIGHUP to what was found of a session. Returns the session if it is over.
    fn send_hang_up(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let number = session.number();
        let hung = session.hung.as_mut()?;
        (hung.stage, hung.was_left) = (Stage::Waiting, false);
        let (known, spares) = (std::mem::take(&mut hung.known), hung.spares_group);
        let disconnects = hung.disconnects;
        hung.look_later(now);
        if !spares {
            session.signal(Signal::SIGHUP);
        }
        if let Some(number) = number {
            session::signal_apart(&known, &number, Signal::SIGHUP);
        }
        if disconnects {
            session.channel = None;
        }
        if !session.is_unseen {
            return None;
        }
        match spares {
            true => self.finish(id, now),
            false => self.look(id, now),
        }
    }

    /// Handles a session whose processes were all sent SIGKILL. Returns it if its leader has ended.
    fn killed(&mut self, id: u64, now: Instant) -> Option<Finished> {
        self.hanging.retain(|other| *other != id);
        let session = self.all.get_mut(&id)?;
        (session.hung, session.killed) = (None, true);
        self.job_ended(id, now)
    }

    /// Hangs every job up. Returns the sessions that are over.
    pub(in super::super) fn hang_up_all(
        &mut self,
        kill_after: Duration,
        now: Instant,
    ) -> Vec<Finished> {
        let all: Vec<u64> = self.all.keys().copied().collect();
        let mut finished = Vec::new();
        for id in all {
            finished.extend(self.job_ended(id, now));
            let Some(session) = self.all.get_mut(&id) else {
                continue;
            };
            if session.hung.is_none() && !session.killed {
                // A client whose job has ended may still receive the rest.
                let is_told = session.end.is_some();
                self.hang_up(id, kill_after, now);
                if !is_told {
                    self.disconnect(id);
                }
            }
        }
        finished
    }
}
