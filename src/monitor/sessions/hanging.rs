//! Jobs that were hung up: looked at until nobody is left of their groups, and killed
//! when their grace is over.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Finished, Sessions};

/// A job that was hung up, and what comes next.
#[derive(Clone, Copy)]
pub(super) struct Hung {
    /// When what is left of its group is killed.
    kill_at: Instant,
    /// When to look whether anything is left; at the latest then.
    look_at: Instant,
    /// How long to wait before the next look.
    pause: Duration,
}

/// First and longest pause between two looks at a group that was hung up.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Sessions {
    /// Hangs a job up, to be killed after a grace. To be called before its channel is
    /// closed: by that its thread knows that the signal was sent, and closes the pipes. A
    /// job that handles SIGHUP would die of SIGPIPE otherwise.
    pub(super) fn hang_up(&mut self, id: u64, kill_after: Duration, now: Instant) {
        let Some(session) = self.all.get_mut(&id) else {
            return;
        };
        session.signal(Signal::SIGHUP);
        let kill_at = now + kill_after;
        let hung = Hung {
            kill_at,
            look_at: kill_at,
            pause: PAUSE,
        };
        if session.hung.replace(hung).is_none() {
            self.hanging.push(id);
        }
    }

    /// Looks whether a job that was hung up has left nobody behind: then its
    /// session is over. Once its leader has ended nothing tells of the others,
    /// so it will be looked at again.
    pub(super) fn look(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        session.hung?;
        if session.is_gone(&self.groups) {
            return self.finish(id, now);
        }
        if let Some(hung) = session.hung.as_mut().filter(|_| session.reaped) {
            hung.look_at = hung.kill_at.min(now + hung.pause);
            hung.pause = LONGEST_PAUSE.min(hung.pause.saturating_mul(2));
        }
        None
    }

    /// When the next group must be looked at, or killed.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        self.hanging
            .iter()
            .filter_map(|id| Some(self.all.get(id)?.hung?.look_at))
            .min()
    }

    /// Looks at the groups whose time has come, and kills those whose grace is
    /// over; the sessions that are finished by it.
    pub(in super::super) fn tend_hung(&mut self, now: Instant) -> Vec<Finished> {
        let hung = |id: &u64| Some((*id, self.all.get(id)?.hung?));
        let all = self.hanging.iter().filter_map(hung);
        let due: Vec<(u64, Hung)> = all.filter(|(_, h)| h.look_at <= now).collect();
        let mut finished = Vec::new();
        for (id, hung) in due {
            if hung.kill_at > now {
                finished.extend(self.look(id, now));
                continue;
            }
            self.hanging.retain(|other| *other != id);
            if let Some(session) = self.all.get_mut(&id) {
                session.signal(Signal::SIGKILL);
                (session.hung, session.killed) = (None, true);
            }
            finished.extend(self.job_ended(id, now));
        }
        finished
    }

    /// Hangs every job up; the sessions that are finished by it.
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
                // A client whose job has ended may hear the rest of it meanwhile.
                let is_told = session.end.is_some();
                self.hang_up(id, kill_after, now);
                if let Some(session) = self.all.get_mut(&id).filter(|_| !is_told) {
                    session.channel = None;
                }
            }
        }
        finished
    }
}
