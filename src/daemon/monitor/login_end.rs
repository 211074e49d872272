//! The end of a login: the application has ended, the worker has died, the peer has left, the time
//! is over, or PAM or policy denied it.
//!
//! Runs in the monitor. Whatever was opened in PAM is closed on each of these paths: by the worker
//! that opened it, or by a cleanup worker in its place.

use std::ffi::CString;
use std::net::IpAddr;
use std::time::Instant;

use super::Monitor;
use super::logins::{Answered, Denial, Guess, Late, Login, LoginId, Stage};
use crate::ipc::login::{Begin, Task};
use crate::log::log;
use crate::protocol::stream::End;
use crate::refusal::Cause;

/// Why a login fails whose peer has answered, and left before PAM prompted again.
pub(super) const ASKED_ON: &str = "PAM prompted again after the peer had disconnected";

impl Monitor {
    /// Handles the end of an application, which its worker waits to reap.
    pub(super) fn application_ended(&mut self, id: LoginId, end: End, now: Instant) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let check = self.settings.login.check;
        let stage = std::mem::replace(&mut login.stage, Stage::Over);
        if let Stage::Running(session, variables) = stage {
            login.stage = Stage::Ended(session, variables);
            let finished = self.sessions.told(session, end, now);
            self.log_end(finished);
            // Otherwise when the session is over: until then only its leader reserves the group's
            // number.
            if self.sessions.may_be_reaped(session) {
                self.logins.session_is_over(session, check);
            }
        } else {
            let mut detached = login.detached.take();
            login.close(check);
            if let (Stage::Detached(pid, _), Some(detached)) = (stage, &mut detached) {
                self.logins.detached_ended(pid, detached);
            }
            self.log_end(detached.map(|a| a.finished("detached", Some(end), now)));
        }
    }

    /// Handles the end of a worker. A worker that died leaves a PAM session open, which a cleanup
    /// worker closes, and an application, which is hung up.
    pub(super) fn worker_ended(&mut self, id: LoginId, now: Instant) {
        let Some(mut login) = self.hang_up_login(id) else {
            return;
        };
        self.unreaped.retain(|pid| !crate::sys::process::reap(*pid));
        if login.is_cleanup() {
            return;
        }
        let words = "the login worker died";
        let denial = login.is_under_way().then(|| login.deny(Cause::Pam, words));
        let variables = match std::mem::replace(&mut login.stage, Stage::Over) {
            Stage::Over => return,
            // Init reaps the leader that it has kept unreaped.
            Stage::Ended(_, variables) => Some(variables),
            Stage::Queued(_) | Stage::Checking | Stage::Prompted(_) | Stage::Concluding => None,
            Stage::Launching(..) => Some(Vec::new()),
            Stage::Detached(pid, variables) => {
                if let Some(detached) = login.detached.take() {
                    let kill_at = now + self.settings.exec.hup_to_kill;
                    let finished = self.logins.orphaned(pid, detached, kill_at, now);
                    self.log_end(Some(finished));
                }
                Some(variables)
            }
            Stage::Running(session, variables) => {
                let kill_after = self.settings.exec.hup_to_kill;
                let finished = self.sessions.orphaned(session, kill_after, now);
                self.log_end(finished);
                Some(variables)
            }
        };
        let user = &login.begin.user;
        log!(self.log, Error, "lost", process = "login", user);
        if let Some(denial) = denial {
            self.deny_login(denial);
        }
        if let Some(variables) = variables {
            self.close_pam_session(login.peer, login.begin, variables, now);
        }
    }

    /// Starts a cleanup worker for the PAM session of a worker that died.
    fn close_pam_session(
        &mut self,
        peer: IpAddr,
        begin: Begin,
        variables: Vec<CString>,
        now: Instant,
    ) {
        let begin = Begin {
            task: Task::CloseOnly(variables),
            ..begin
        };
        let until = now + self.settings.login.check;
        self.logins.add(Login::cleanup_worker(peer, begin, until));
        self.grant_pam_slots(now);
    }

    /// Forgets a login, which closes its worker's channel: a worker that has started something
    /// hangs it up and cleans up.
    pub(super) fn hang_up_login(&mut self, id: LoginId) -> Option<Login> {
        let (login, pid) = self.logins.remove(id)?;
        self.unreaped.extend(pid);
        Some(login)
    }

    /// Does the same, but kills the worker first.
    fn kill_and_remove_login(&mut self, id: LoginId) -> Option<Login> {
        self.logins.kill(id);
        self.hang_up_login(id)
    }

    /// Refuses a login that PAM has decided, or will not decide. A worker that is working is
    /// killed. One that waits for the monitor, or has reported a denial, ends its transaction when
    /// its channel closes.
    pub(super) fn refuse_login(&mut self, id: LoginId, cause: Cause, words: &str) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let denial = login.deny(cause, words);
        let (peer, works, is_cleanup) = (login.peer, login.late.is_some(), login.is_cleanup());
        // The worker may be in the middle of opening the PAM session.
        let left_open =
            (works && matches!(login.stage, Stage::Launching(..))).then(|| login.begin.clone());
        if works {
            self.kill_and_remove_login(id);
        } else {
            self.hang_up_login(id);
        }
        if !is_cleanup {
            self.deny_login(denial);
        }
        if let Some(begin) = left_open {
            self.close_pam_session(peer, begin, Vec::new(), Instant::now());
        }
    }

    /// Refuses a login that PAM may not have decided yet. If PAM has an answer already, the login
    /// counts as a guess, and the worker takes PAM to its verdict by itself: a wrong guess is
    /// counted, whatever ends the login early.
    pub(super) fn interrupt_login(&mut self, id: LoginId, cause: Cause, words: &str) {
        let check = self.settings.login.check;
        match self.logins.get(id) {
            Some(login) if login.is_undecided() => {
                let mut denial = login.deny(cause, words);
                // A login that makes room for another has no login slot any more.
                denial.guess.has_slot &= cause != Cause::Busy;
                login.conclude(check);
                self.deny_login(denial);
            }
            Some(_) => self.refuse_login(id, cause, words),
            None => {}
        }
    }

    fn deny_login(&mut self, denial: Denial) {
        if denial.is_of_guess() {
            self.guessed_wrong(denial.guess);
        }
        self.refuse_checked(denial.connection, &denial.refusal, &denial.checked);
    }

    /// Ends a login that PAM allowed after its peer had left. It opens no session, and holds login
    /// slot and PAM slot as long as a refused one.
    pub(super) fn part_login(&mut self, id: LoginId) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let words = "PAM accepted, but the peer disconnected before the answer";
        let denial = login.deny(Cause::Login, words);
        let (peer, why) = (login.peer, denial.refusal.words);
        self.hang_up_login(id);
        self.guessed_wrong(denial.guess);
        self.close_departed(denial.connection, peer, &why, &denial.checked);
    }

    /// Holds the login slot and a PAM slot of a wrong guess for the refusal interval. Otherwise
    /// their release would leak how long PAM took, which the delayed refusal hides.
    fn guessed_wrong(&mut self, guess: Guess) {
        let (now, interval) = (Instant::now(), self.settings.daemon.refusal_interval);
        self.logins.has_failed(guess, interval, now);
    }

    /// Kills an overdue worker that no peer waits for. Its PAM session stays open: a cleanup worker
    /// would do no better.
    fn give_up(&mut self, id: LoginId, late: Late) {
        if let Some(login) = self.kill_and_remove_login(id) {
            let why = match late {
                Late::Closing => "PAM did not close the session in time: does a module hang?",
                Late::PamSlot | Late::Answer | Late::Check | Late::Concluding => {
                    "PAM did not decide in time: does a module hang?"
                }
            };
            let user = &login.begin.user;
            log!(self.log, Error, "lost", process = "login", user, why);
        }
    }

    /// Handles a login whose peer has left or was refused, and which the gate has forgotten. PAM
    /// still judges an answer that it was given.
    pub(super) fn abandon_login(&mut self, id: LoginId) {
        if let Some(login) = self.logins.get(id) {
            login.connection = None;
        }
        if !self.login_goes_on_without_peer(id) {
            self.kill_and_remove_login(id);
            self.grant_pam_slots(Instant::now());
        }
    }

    /// Whether a login goes on without its peer: if the peer has answered, to PAM's verdict. An
    /// application that is being started is hung up once its worker reports that it runs.
    pub(super) fn login_goes_on_without_peer(&mut self, id: LoginId) -> bool {
        let Some(login) = self.logins.get(id) else {
            return true;
        };
        login.has_left = true;
        match (&login.stage, login.answers) {
            (Stage::Queued(_) | Stage::Checking | Stage::Prompted(_), Answered::Nothing) => false,
            (Stage::Prompted(_), _) => {
                self.interrupt_login(id, Cause::Login, ASKED_ON);
                true
            }
            _ => true,
        }
    }

    /// Ends all logins before the daemon stops. Workers outlive it to reach PAM's verdicts.
    pub(super) fn leave_logins(&mut self) {
        for id in self.logins.undecided() {
            let words = "the daemon stops before PAM has decided";
            self.interrupt_login(id, Cause::Busy, words);
        }
    }

    /// Ends logins whose time is over.
    pub(super) fn expire_logins(&mut self, now: Instant) {
        for (id, late) in self.logins.late(now) {
            let (cause, words) = match late {
                Late::PamSlot => (Cause::Busy, "no PAM slot became free in time"),
                Late::Answer => (
                    Cause::Busy,
                    "no answer came, and the gate did not report it",
                ),
                Late::Check => (
                    Cause::Pam,
                    "PAM did not answer in time: does a module hang?",
                ),
                Late::Concluding | Late::Closing => {
                    self.give_up(id, late);
                    continue;
                }
            };
            if late == Late::Check {
                self.refuse_login(id, cause, words);
            } else {
                self.interrupt_login(id, cause, words);
            }
        }
        self.logins.expire_detached(now);
        self.grant_pam_slots(now);
    }
}
