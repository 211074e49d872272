//! A login's end in the monitor: the application has ended, the worker has died, the
//! peer has left, the time is over, or PAM or policy said no.
//!
//! What has been opened in PAM is closed again on every one of these ways: by the
//! worker that opened it, or by another in its place.

use std::ffi::CString;
use std::net::IpAddr;
use std::time::Instant;

use super::Monitor;
use super::logins::{Guess, Late, Login, LoginId, Stage};
use crate::channel::login::{Begin, Task};
use crate::log::Level;
use crate::refusal::{Cause, Refusal};
use crate::wire::stream::End;

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
            let alone = login.alone.take();
            login.close(check);
            self.log_end(alone.map(|a| a.finished("detached", Some(end), now)));
        }
    }

    /// A worker has ended. One that should not have leaves a PAM session open, which
    /// another must close, and an application, which is hung up.
    pub(super) fn worker_ended(&mut self, id: LoginId, now: Instant) {
        let words = "the login worker died";
        let Some(mut login) = self.hang_up_login(id) else {
            return;
        };
        self.corpses.retain(|pid| !crate::sys::process::reap(*pid));
        if login.is_heir() {
            return;
        }
        let variables = match std::mem::replace(&mut login.stage, Stage::Over) {
            Stage::Over => return,
            // What it has kept unreaped is init's now.
            Stage::Ended(_, variables) => Some(variables),
            Stage::Queued(_) | Stage::Checking | Stage::Prompted(_) => None,
            Stage::Launching(..) => Some(Vec::new()),
            Stage::Detached(pid, variables) => {
                if let Some(alone) = login.alone.take() {
                    let kill_at = now + self.settings.exec.hup_to_kill;
                    let finished = self.logins.orphaned(pid, alone, kill_at, now);
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
        if let Some(connection) = login.connection {
            let words = format!("{}{words}", login.asks);
            let refusal = Refusal::new(Cause::Pam, words).of(login.peer);
            let checked = login.checked();
            if checked.has_guessed(Cause::Pam) {
                self.guessed_wrong(login.guess());
            }
            self.refuse_checked(connection, &refusal, checked);
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
        self.logins.add(Login::heir(peer, begin, until));
        self.give_turns(now);
    }

    /// Forgets a login, which ends its worker's line: a worker that has started something
    /// hangs it up, and does the rest.
    pub(super) fn hang_up_login(&mut self, id: LoginId) -> Option<Login> {
        let (login, pid) = self.logins.remove(id)?;
        self.corpses.extend(pid);
        Some(login)
    }

    /// The same without leaving its worker the time to do so.
    fn cut_login_off(&mut self, id: LoginId) -> Option<Login> {
        self.logins.kill(id);
        self.hang_up_login(id)
    }

    /// Refuses a login. A worker that works is killed; one that waits for us, or has
    /// said no, ends its transaction by itself when its line ends.
    pub(super) fn refuse_login(&mut self, id: LoginId, cause: Cause, words: &str) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let (connection, peer) = (login.connection.take(), login.peer);
        let words = format!("{}{words}", login.asks);
        let (checked, is_strangers) = (login.checked(), login.is_strangers());
        let guess = login.guess();
        let works = login.late.is_some();
        // It is in the midst of opening the PAM session.
        let left_open =
            (works && matches!(login.stage, Stage::Launching(..))).then(|| login.begin.clone());
        if works {
            self.cut_login_off(id);
        } else {
            self.hang_up_login(id);
        }
        if cause == Cause::Login || checked.has_guessed(cause) {
            self.guessed_wrong(guess);
        }
        if let Some(connection) = connection {
            let refusal = Refusal::new(cause, words).of(peer);
            self.refuse_checked(connection, &refusal.of_stranger(is_strangers), checked);
        }
        if let Some(begin) = left_open {
            self.close_pam_session(peer, begin, Vec::new(), Instant::now());
        }
    }

    /// He has no other turn, and keeps his place, before this is told: when either is free
    /// again must not say how long PAM took, as it does not when he is told.
    fn guessed_wrong(&mut self, guess: Guess) {
        let (now, interval) = (Instant::now(), self.settings.daemon.refusal_interval);
        self.logins.has_failed(guess, interval, now);
    }

    /// A worker that cannot close its PAM session in time is killed, and the session left
    /// as it is: another worker would fare no better.
    fn give_closing_up(&mut self, id: LoginId) {
        if let Some(login) = self.cut_login_off(id) {
            let why = "PAM did not close the session in time: does a module hang?";
            let user = &login.begin.user;
            let pairs: [(&str, &dyn std::fmt::Display); 3] =
                [("process", &"login"), ("user", user), ("why", &why)];
            self.log.say(Level::Error, "lost", &pairs);
        }
    }

    /// A stranger has left, or was refused, in the middle of his login.
    pub(super) fn abandon_login(&mut self, id: LoginId) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        login.connection = None;
        // What is being started will be hung up once its worker says that it runs.
        if !matches!(login.stage, Stage::Launching(..)) {
            self.cut_login_off(id);
            self.give_turns(Instant::now());
        }
    }

    /// Logins whose time is over.
    pub(super) fn tend_logins(&mut self, now: Instant) {
        for (id, late) in self.logins.late(now) {
            let (cause, words) = match late {
                Late::Turn => (Cause::Busy, "its turn with PAM did not come in time"),
                Late::Answer => (Cause::Busy, "no answer came, and the gate did not say so"),
                Late::Check => (
                    Cause::Pam,
                    "PAM did not answer in time: does a module hang?",
                ),
                Late::Closing => {
                    self.give_closing_up(id);
                    continue;
                }
            };
            self.refuse_login(id, cause, words);
        }
        self.logins.tend_detached(now);
        self.give_turns(now);
    }
}
