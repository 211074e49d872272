//! A login's end in the monitor: the application has ended, the worker has died, the
//! peer has left, the time is over, or PAM or policy said no.
//!
//! What has been opened in PAM is closed again on every one of these ways: by the
//! worker that opened it, or by another in its place.

use std::ffi::CString;
use std::net::IpAddr;
use std::time::Instant;

use super::Monitor;
use super::logins::{Answered, Denial, Guess, Late, Login, LoginId, Stage};
use crate::ipc::login::{Begin, Task};
use crate::log::Level;
use crate::protocol::stream::End;
use crate::refusal::Cause;

/// Why a login fails whose peer has answered, and left before PAM asked again.
pub(super) const ASKED_ON: &str = "PAM asked on, and the peer had left";

impl Monitor {
    /// An application has ended, which its worker waits to reap.
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
            // Else when the session is over: so long its group has a number alone.
            if self.sessions.may_be_reaped(session) {
                self.logins.session_is_over(session, check);
            }
        } else {
            let mut detached = login.detached.take();
            login.close(check);
            if let (Stage::Detached(pid, _), Some(detached)) = (stage, &mut detached) {
                self.logins.leave_the_rest(pid, detached);
            }
            self.log_end(detached.map(|a| a.finished("detached", Some(end), now)));
        }
    }

    /// A worker has ended. One that should not have leaves a PAM session open, which
    /// another must close, and an application, which is hung up.
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
            // What it has kept unreaped is init's now.
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
        self.log.say(
            Level::Error,
            "lost",
            &[("process", &"login"), ("user", user)],
        );
        if let Some(denial) = denial {
            self.deny_login(denial);
        }
        if let Some(variables) = variables {
            self.close_pam_session(login.peer, login.begin, variables, now);
        }
    }

    /// Has another worker close the PAM session of one that died.
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

    /// Forgets a login, which ends its worker's line: a worker that has started something
    /// hangs it up, and does the rest.
    pub(super) fn hang_up_login(&mut self, id: LoginId) -> Option<Login> {
        let (login, pid) = self.logins.remove(id)?;
        self.unreaped.extend(pid);
        Some(login)
    }

    /// The same without leaving its worker the time to do so.
    fn cut_login_off(&mut self, id: LoginId) -> Option<Login> {
        self.logins.kill(id);
        self.hang_up_login(id)
    }

    /// Refuses a login that PAM has decided, or will not. A worker that works is killed; one that
    /// waits for us, or has said no, ends its transaction by itself when its line ends.
    pub(super) fn refuse_login(&mut self, id: LoginId, cause: Cause, words: &str) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let denial = login.deny(cause, words);
        let (peer, works, is_cleanup) = (login.peer, login.late.is_some(), login.is_cleanup());
        // It is in the midst of opening the PAM session.
        let left_open =
            (works && matches!(login.stage, Stage::Launching(..))).then(|| login.begin.clone());
        if works {
            self.cut_login_off(id);
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

    /// Refuses a login that PAM may not have decided yet. Where PAM has an answer already, it is
    /// a guess like any other, and the worker takes PAM to its verdict by itself: whatever ends a
    /// login early, a wrong guess is counted.
    pub(super) fn interrupt_login(&mut self, id: LoginId, cause: Cause, words: &str) {
        let check = self.settings.login.check;
        match self.logins.get(id) {
            Some(login) if login.is_undecided() => {
                let mut denial = login.deny(cause, words);
                // Whoever makes room has no place any more.
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

    /// PAM has said yes to one who has left: it opens no session, and keeps place and slot as
    /// long as one who was refused.
    pub(super) fn part_login(&mut self, id: LoginId) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let words = "PAM says yes, but the peer left before it was told";
        let denial = login.deny(Cause::Login, words);
        let (peer, why) = (login.peer, denial.refusal.words);
        self.hang_up_login(id);
        self.guessed_wrong(denial.guess);
        self.part(denial.connection, peer, &why, &denial.checked);
    }

    /// He has no other turn, and keeps his place, before this is told: when either is free
    /// again must not say how long PAM took, as it does not when he is told.
    fn guessed_wrong(&mut self, guess: Guess) {
        let (now, interval) = (Instant::now(), self.settings.daemon.refusal_interval);
        self.logins.has_failed(guess, interval, now);
    }

    /// A worker for which nobody waits any more, and which is not done in time, is killed. A PAM
    /// session is left as it is: another worker would fare no better.
    fn give_up(&mut self, id: LoginId, late: Late) {
        if let Some(login) = self.cut_login_off(id) {
            let why = match late {
                Late::Closing => "PAM did not close the session in time: does a module hang?",
                Late::PamSlot | Late::Answer | Late::Check | Late::Concluding => {
                    "PAM did not decide in time: does a module hang?"
                }
            };
            let user = &login.begin.user;
            let pairs: [(&str, &dyn std::fmt::Display); 3] =
                [("process", &"login"), ("user", user), ("why", &why)];
            self.log.say(Level::Error, "lost", &pairs);
        }
    }

    /// A stranger has left, or was refused, in the middle of his login, and the gate has
    /// forgotten him. What he has answered is judged all the same.
    pub(super) fn abandon_login(&mut self, id: LoginId) {
        if let Some(login) = self.logins.get(id) {
            login.connection = None;
        }
        if !self.login_goes_on_without_peer(id) {
            self.cut_login_off(id);
            self.grant_pam_slots(Instant::now());
        }
    }

    /// Whether a login whose peer has left goes on: where it has answered, to PAM's verdict; and
    /// what is being started is hung up once its worker says that it runs.
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

    /// The daemon ends: PAM's verdicts are still reached, by workers that outlive it.
    pub(super) fn leave_logins(&mut self) {
        for id in self.logins.undecided() {
            let words = "the daemon stops, and PAM has not decided yet";
            self.interrupt_login(id, Cause::Busy, words);
        }
    }

    /// Logins whose time is over.
    pub(super) fn tend_logins(&mut self, now: Instant) {
        for (id, late) in self.logins.late(now) {
            let (cause, words) = match late {
                Late::PamSlot => (Cause::Busy, "its turn with PAM did not come in time"),
                Late::Answer => (Cause::Busy, "no answer came, and the gate did not say so"),
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
        self.logins.tend_detached(now);
        self.grant_pam_slots(now);
    }
}
