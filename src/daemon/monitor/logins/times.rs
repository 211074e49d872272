//! The time limits of a login's stages. Returns what is late and why. Also ends what the gate
//! should have ended and did not. Runs in the monitor.

use std::time::{Duration, Instant};

use super::{Login, LoginId, Logins, Stage};
use crate::ipc::login::Order;

/// The gate enforces the time limit of answers: how much later it may be.
const GATE: Duration = Duration::from_secs(5);

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Late {
    /// No PAM slot became free.
    PamSlot,
    /// No answer came, and the gate has not reported that.
    Answer,
    /// PAM, or a module.
    Check,
    /// PAM again, while no peer waits for it.
    Concluding,
    /// PAM again, while closing the session.
    Closing,
}

impl Login {
    /// Returns the deadline of the current stage, and what is then late. A cleanup worker does
    /// nothing but close the session.
    fn due(&self) -> Option<(Instant, Late)> {
        match self.stage {
            Stage::Queued(_) if self.is_cleanup() => Some((self.until, Late::Closing)),
            Stage::Checking if self.is_cleanup() => self.late.map(|at| (at, Late::Closing)),
            Stage::Queued(_) => Some((self.until, Late::PamSlot)),
            Stage::Prompted(_) => Some((self.until + GATE, Late::Answer)),
            Stage::Checking | Stage::Launching(..) => self.late.map(|at| (at, Late::Check)),
            Stage::Concluding => self.late.map(|at| (at, Late::Concluding)),
            Stage::Over => self.late.map(|at| (at, Late::Closing)),
            Stage::Running(..) | Stage::Detached(..) | Stage::Ended(..) => None,
        }
    }
}

impl Logins {
    /// Returns the next time at which something is due.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        let due = self.all.values().filter_map(|l| l.due().map(|(at, _)| at));
        let detached = self.all.values().filter_map(Login::kill_at);
        let queued = |l: &Login| matches!(l.stage, Stage::Queued(_));
        let waits = self.all.values().any(queued);
        let again = self.shared.again().filter(|_| waits);
        let told = self.failed.iter().map(|f| f.until);
        let told = told.filter(|_| waits).min();
        let left = self.leftovers.iter().map(|l| l.kill_at);
        let rest = self.resting.iter().copied();
        let due = due.chain(detached).chain(again).chain(told);
        due.chain(left).chain(rest).min()
    }

    /// Returns the logins whose time is over.
    pub(in super::super) fn late(&self, now: Instant) -> Vec<(LoginId, Late)> {
        let due = self.all.iter().filter_map(|(id, l)| Some((*id, l.due()?)));
        due.filter(|(_, (at, _))| *at <= now)
            .map(|(id, (_, late))| (id, late))
            .collect()
    }

    /// Handles the end of a session: the worker that has kept its leader reaps it, and closes the
    /// PAM session, for which it has this long.
    pub(in super::super) fn session_is_over(&mut self, session: u64, check: Duration) {
        let kept = |l: &&mut Login| matches!(l.stage, Stage::Ended(of, _) if of == session);
        if let Some(login) = self.all.values_mut().find(kept) {
            login.close(check);
        }
    }
}

impl Login {
    /// Has the worker reap what has ended, and close the PAM session.
    pub(in super::super) fn close(&mut self, check: Duration) {
        self.stage = Stage::Over;
        self.late = Some(Instant::now() + check);
        self.tell(&Order::Reap, Vec::new());
    }
}
