//! Applications that go on by themselves (`--detach`): no session and no relay knows
//! them, so their logins do.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::Pid;

use super::super::sessions::{Finished, SessionInfo, who};
use super::{Login, Logins, Stage};
use crate::ipc::control::On;
use crate::protocol::stream::End;
use crate::registry::Id;
use crate::sys::pidfd;
use crate::sys::session::{self, Number};

/// What is known of an application that goes on by itself.
pub(in super::super) struct Detached {
    /// The number of the session in which it was started.
    session: u64,
    info: SessionInfo,
    began: SystemTime,
    since: Instant,
    /// What stands for its leader, should its worker die.
    group: Option<OwnedFd>,
    /// When it is killed, if it has been hung up.
    kill_at: Option<Instant>,
}

impl Detached {
    pub(in super::super) fn new(session: u64, info: SessionInfo, leader: Option<Pid>) -> Self {
        Self {
            session,
            info,
            began: SystemTime::now(),
            since: Instant::now(),
            group: leader.and_then(pidfd::open),
            kill_at: None,
        }
    }
}

impl Detached {
    /// Its end, for the log.
    pub(in super::super) fn finished(
        self,
        how: &'static str,
        end: Option<End>,
        now: Instant,
    ) -> Finished {
        Finished {
            id: self.session,
            info: self.info,
            lasted: now.saturating_duration_since(self.since),
            end,
            goes_on: false,
            how,
            closing: None,
            sent: 0,
            got: 0,
        }
    }
}

/// What a worker that died has left running: hung up, and killed then.
pub(super) struct Leftover {
    number: Number,
    pub(super) kill_at: Instant,
}

impl Login {
    /// The leader of an application that goes on by itself, as long as its worker has
    /// not said that it has ended: so long its number is nobody else's.
    fn detached_leader(&self) -> Option<(Pid, &Detached)> {
        match (&self.stage, &self.detached) {
            (Stage::Detached(pid, _), Some(detached)) => Some((*pid, detached)),
            _ => None,
        }
    }

    pub(super) fn kill_at(&self) -> Option<Instant> {
        self.detached_leader()
            .and_then(|(_, detached)| detached.kill_at)
    }
}

impl Logins {
    /// How many applications go on by themselves.
    pub(in super::super) fn detached_count(&self) -> usize {
        self.all.values().filter_map(Login::detached_leader).count()
    }

    /// The same of those whose session this holds for.
    pub(in super::super) fn detached_count_of(&self, is: impl Fn(&SessionInfo) -> bool) -> usize {
        let all = self.all.values().filter_map(Login::detached_leader);
        all.filter(|(_, detached)| is(&detached.info)).count()
    }

    /// Every application that goes on by itself.
    pub(in super::super) fn detached(&self) -> Vec<On> {
        let all = self.all.values().filter_map(Login::detached_leader);
        all.map(|(pid, detached)| On {
            detached: true,
            ..who::on(
                detached.session,
                &detached.info,
                detached.began,
                Some(pid),
                None,
            )
        })
        .collect()
    }

    /// Those of a machine, by the numbers of their sessions.
    pub(in super::super) fn detached_of(&self, machine: Id) -> Vec<u64> {
        let all = self.all.values().filter_map(Login::detached_leader);
        let all = all.filter(|(_, detached)| detached.info.machines.contains(&machine));
        all.map(|(_, detached)| detached.session).collect()
    }

    /// Hangs one of them up, to be killed after a grace. Whether it was there.
    pub(in super::super) fn kill_detached(
        &mut self,
        session: u64,
        kill_after: Duration,
        now: Instant,
    ) -> bool {
        for login in self.all.values_mut() {
            let Some((pid, detached)) = login.detached_leader() else {
                continue;
            };
            if detached.session == session {
                // Its worker keeps it: see `detached_leader`.
                session::hang_up(&Number::kept(pid));
                if let Some(detached) = &mut login.detached {
                    detached.kill_at.get_or_insert(now + kill_after);
                }
                return true;
            }
        }
        false
    }

    /// The worker of one of them has died: it is hung up, and killed then. Its end.
    pub(in super::super) fn orphaned(
        &mut self,
        pid: Pid,
        mut detached: Detached,
        kill_at: Instant,
        now: Instant,
    ) -> Finished {
        if let Some(group) = detached.group.take() {
            let number = Number::loose(pid, Some(group));
            session::hang_up(&number);
            self.leftovers.push(Leftover { number, kill_at });
        }
        detached.finished("detached", None, now)
    }

    /// One of them has ended. Where it was hung up, what is left of its session is killed at the
    /// same time as it would have been.
    pub(in super::super) fn leave_the_rest(&mut self, pid: Pid, detached: &mut Detached) {
        let Some(kill_at) = detached.kill_at else {
            return;
        };
        let number = Number::loose(pid, detached.group.take());
        if session::has_others(&number) {
            self.leftovers.push(Leftover { number, kill_at });
        }
    }

    /// Kills those whose grace is over.
    pub(in super::super) fn tend_detached(&mut self, now: Instant) {
        self.leftovers.retain(|left| {
            if left.kill_at <= now {
                session::kill_all(&left.number);
            }
            left.kill_at > now
        });
        for login in self.all.values_mut() {
            if login.kill_at().is_none_or(|at| at > now) {
                continue;
            }
            if let Some((pid, _)) = login.detached_leader() {
                session::kill_all(&Number::kept(pid));
            }
            if let Some(detached) = &mut login.detached {
                detached.kill_at = None;
            }
        }
    }
}
