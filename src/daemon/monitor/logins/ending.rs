//! The early end of a login: refused, interrupted, abandoned by its peer, or overdue. Whatever was
//! opened in PAM is closed on each of these paths: by the worker that opened it, or by a cleanup
//! worker in its place.
//!
//! Runs in the monitor. Must not refuse the connection itself: it returns the refusal.

use std::ffi::CString;
use std::net::IpAddr;
use std::time::Instant;

use super::super::ground::Ground;
use super::{Answered, Denial, Late, Login, LoginId, Logins, Stage};
use crate::ipc::login::{Begin, Task};
use crate::log::log;
use crate::refusal::Cause;

/// Why a login fails whose peer has answered, and left before PAM prompted again.
const ASKED_ON: &str = "PAM prompted again after the peer had disconnected";

/// A login that PAM allowed after its peer had left.
pub(in super::super) struct Departed {
    pub(in super::super) denial: Denial,
    pub(in super::super) peer: IpAddr,
}

impl Logins {
    /// Forgets a login, which closes its worker's channel: a worker that has started something
    /// hangs it up and cleans up.
    pub(in super::super) fn hang_up(&mut self, ground: &mut Ground, id: LoginId) -> Option<Login> {
        let login = self.all.remove(&id)?;
        self.have_changed = true;
        ground
            .unreaped
            .extend(login.worker.as_ref().map(|worker| worker.pid));
        Some(login)
    }

    /// Does the same, but kills the worker first.
    fn kill_and_remove(&mut self, ground: &mut Ground, id: LoginId) -> Option<Login> {
        self.kill(id);
        self.hang_up(ground, id)
    }

    /// Starts a cleanup worker for the PAM session of a worker that died.
    pub(in super::super) fn close_pam_session(
        &mut self,
        ground: &Ground,
        peer: IpAddr,
        begin: Begin,
        variables: Vec<CString>,
        now: Instant,
    ) {
        let task = Task::CloseOnly(variables);
        let until = now + ground.settings.login.check;
        self.add(Login::cleanup_worker(peer, Begin { task, ..begin }, until));
    }

    /// Refuses a login that PAM has decided, or will not decide. A worker that is working is
    /// killed. One that waits for the monitor, or has reported a denial, ends its transaction when
    /// its channel closes. Returns the refusal of its connection.
    pub(in super::super) fn refuse(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
        cause: Cause,
        words: &str,
    ) -> Option<Denial> {
        let login = self.get(id)?;
        let denial = login.deny(cause, words);
        let (peer, works, is_cleanup) = (login.peer, login.late.is_some(), login.is_cleanup());
        // The worker may be in the middle of opening the PAM session.
        let left_open =
            (works && matches!(login.stage, Stage::Launching(..))).then(|| login.begin.clone());
        if works {
            self.kill_and_remove(ground, id);
        } else {
            self.hang_up(ground, id);
        }
        if let Some(begin) = left_open {
            self.close_pam_session(ground, peer, begin, Vec::new(), Instant::now());
        }
        (!is_cleanup).then(|| self.count_guess(ground, denial))
    }

    /// Refuses a login that PAM may not have decided yet. If PAM has an answer already, the login
    /// counts as a guess, and the worker takes PAM to its verdict by itself: a wrong guess is
    /// counted, whatever ends the login early. Returns the refusal of its connection.
    pub(in super::super) fn interrupt(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
        cause: Cause,
        words: &str,
    ) -> Option<Denial> {
        let login = self.get(id)?;
        if !login.is_undecided() {
            return self.refuse(ground, id, cause, words);
        }
        let mut denial = login.deny(cause, words);
        // A login that makes room for another has no login slot any more.
        denial.guess.has_slot &= cause != Cause::Busy;
        login.conclude(ground.settings.login.check);
        Some(self.count_guess(ground, denial))
    }

    /// Notes a wrong guess. Its login slot and a PAM slot are held for the refusal interval.
    /// Otherwise their release would leak how long PAM took, which the delayed refusal hides.
    pub(in super::super) fn count_guess(&mut self, ground: &Ground, denial: Denial) -> Denial {
        if denial.is_of_guess() {
            let interval = ground.settings.daemon.refusal_interval;
            self.note_failed_guess(&denial.guess, interval, Instant::now());
        }
        denial
    }

    /// Ends a login that PAM allowed after its peer had left. It opens no session, and holds login
    /// slot and PAM slot as long as a refused one.
    pub(in super::super) fn end_departed(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
    ) -> Option<Departed> {
        let login = self.get(id)?;
        let words = "PAM accepted, but the peer disconnected before the answer";
        let denial = login.deny(Cause::Login, words);
        let peer = login.peer;
        self.hang_up(ground, id);
        let denial = self.count_guess(ground, denial);
        Some(Departed { denial, peer })
    }

    /// Ends a login whose peer has left before PAM prompted it again.
    pub(in super::super) fn end_unanswered(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
    ) -> Option<Denial> {
        self.interrupt(ground, id, Cause::Login, ASKED_ON)
    }

    /// Handles a login whose peer has left or was refused, and which the gate has forgotten. PAM
    /// still judges an answer that it was given.
    pub(in super::super) fn abandon(&mut self, ground: &mut Ground, id: LoginId) -> Option<Denial> {
        if let Some(login) = self.get(id) {
            login.connection = None;
        }
        let (goes_on, denial) = self.go_on_without_peer(ground, id);
        if !goes_on {
            self.kill_and_remove(ground, id);
        }
        denial
    }

    /// Notes that a login's peer has left. Returns whether the login goes on without it, and the
    /// refusal if it ends. One whose peer has answered goes on to PAM's verdict. An application
    /// that is being started is hung up once its worker reports that it runs.
    pub(in super::super) fn go_on_without_peer(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
    ) -> (bool, Option<Denial>) {
        let Some(login) = self.get(id) else {
            return (true, None);
        };
        login.has_left = true;
        match (&login.stage, login.answers) {
            (Stage::Queued(_) | Stage::Checking | Stage::Prompted(_), Answered::Nothing) => {
                (false, None)
            }
            (Stage::Prompted(_), _) => (true, self.end_unanswered(ground, id)),
            _ => (true, None),
        }
    }

    /// Ends the undecided logins before the daemon stops. Workers outlive it to reach PAM's
    /// verdicts.
    pub(in super::super) fn interrupt_all(&mut self, ground: &mut Ground) -> Vec<Denial> {
        let words = "the daemon stops before PAM has decided";
        let undecided = self.all.iter().filter(|(_, l)| l.is_undecided());
        let undecided: Vec<LoginId> = undecided.map(|(id, _)| *id).collect();
        let undecided = undecided.into_iter();
        undecided
            .filter_map(|id| self.interrupt(ground, id, Cause::Busy, words))
            .collect()
    }

    /// Ends logins whose time is over, and kills detached applications whose grace is.
    pub(in super::super) fn expire(&mut self, ground: &mut Ground, now: Instant) -> Vec<Denial> {
        self.have_changed = true;
        let mut denials = Vec::new();
        for (id, late) in self.late(now) {
            denials.extend(match late {
                Late::PamSlot => {
                    let words = "no PAM slot became free in time";
                    self.interrupt(ground, id, Cause::Busy, words)
                }
                Late::Answer => {
                    let words = "no answer came, and the gate did not report it";
                    self.interrupt(ground, id, Cause::Busy, words)
                }
                Late::Check => {
                    let words = "PAM did not answer in time: does a module hang?";
                    self.refuse(ground, id, Cause::Pam, words)
                }
                Late::Concluding => self.give_up(
                    ground,
                    id,
                    "PAM did not decide in time: does a module hang?",
                ),
                Late::Closing => {
                    let why = "PAM did not close the session in time: does a module hang?";
                    self.give_up(ground, id, why)
                }
            });
        }
        self.expire_detached(now);
        denials
    }

    /// Kills an overdue worker that no peer waits for. Its PAM session stays open: a cleanup worker
    /// would do no better.
    fn give_up(&mut self, ground: &mut Ground, id: LoginId, why: &str) -> Option<Denial> {
        let login = self.kill_and_remove(ground, id)?;
        let user = &login.begin.user;
        log!(ground.log, Error, "lost", process = "login", user, why);
        None
    }
}
