//! Detached applications (`--detach`). No session and no relay tracks them, so their logins do.
//! Runs in the monitor.

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

/// Information on a detached application.
pub(in super::super) struct Detached {
    /// The number of the session in which it was started.
    session: u64,
    info: SessionInfo,
    began: SystemTime,
    since: Instant,
    /// The descriptor that stands for its leader if its worker dies.
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
    /// Returns its end, for the log.
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

/// What a worker that died has left running: hung up, and killed at this time.
pub(super) struct Leftover {
    number: Number,
    pub(super) kill_at: Instant,
}

impl Login {
    /// Returns the leader of a detached application while its worker has not reported its end:
    /// until then the process ID is not reused.
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
    /// Returns how many applications are detached.
    pub(in super::super) fn detached_count(&self) -> usize {
        self.all.values().filter_map(Login::detached_leader).count()
    }

    /// Returns how many are detached that match.
    pub(in super::super) fn detached_count_of(&self, is: impl Fn(&SessionInfo) -> bool) -> usize {
        let all = self.all.values().filter_map(Login::detached_leader);
        all.filter(|(_, detached)| is(&detached.info)).count()
    }

    /// Returns every detached application.
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

    /// Returns those of a machine, by their session numbers.
    pub(in super::super) fn detached_of(&self, machine: Id) -> Vec<u64> {
        let all = self.all.values().filter_map(Login::detached_leader);
        let all = all.filter(|(_, detached)| detached.info.machines.contains(&machine));
        all.map(|(_, detached)| detached.session).collect()
    }

    /// Hangs one of them up; it is killed after a grace. Returns whether it was there.
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

    /// Handles the death of a detached application's worker: hangs the application up, and kills it
    /// at the given time. Returns its end.
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

    /// Handles the end of a detached application. If it was hung up, what is left of its session is
    /// killed at the time set before.
    pub(in super::super) fn detached_ended(&mut self, pid: Pid, detached: &mut Detached) {
        let Some(kill_at) = detached.kill_at else {
            return;
        };
        let number = Number::loose(pid, detached.group.take());
        if session::has_others(&number) {
            self.leftovers.push(Leftover { number, kill_at });
        }
    }

    /// Kills those whose grace is over.
    pub(in super::super) fn expire_detached(&mut self, now: Instant) {
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
