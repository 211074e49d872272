//! A login's end in the monitor: the application has ended, the worker has died, the
//! peer has left, the time is over, or PAM or policy said no.
//!
//! What has been opened in PAM is closed again on every one of these ways: by the
//! worker that opened it, or by another in its place.

use std::ffi::CString;
use std::net::IpAddr;
use std::time::Instant;

use super::Monitor;
use super::logins::{Login, LoginId, Stage};
use crate::channel::login::{Begin, Order, Task};
use crate::log::Level;
use crate::refusal::{Cause, Refusal};
use crate::wire::stream::End;

impl Monitor {
    /// An application has ended, which its worker waits to reap.
    pub(super) fn application_ended(&mut self, id: LoginId, end: End, now: Instant) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let stage = std::mem::replace(&mut login.stage, Stage::Over);
        if let Stage::Running(session, _) = stage {
            let finished = self.sessions.told(session, end, now);
            self.log_end(finished);
        }
        if let Some(login) = self.logins.get(id) {
            login.tell(&Order::Reap, Vec::new());
        }
    }

    /// A worker has ended. One that should not have leaves a PAM session open, which
    /// another must close, and an application, which is hung up.
    pub(super) fn worker_ended(&mut self, id: LoginId, now: Instant) {
        let words = "the login worker died";
        let Some((mut login, pid)) = self.logins.remove(id) else {
            return;
        };
        self.corpses.extend(pid);
        self.corpses.retain(|pid| !crate::sys::process::reap(*pid));
        if login.is_heir() {
            return;
        }
        let variables = match std::mem::replace(&mut login.stage, Stage::Over) {
            Stage::Over => return,
            Stage::Queued(_) | Stage::Checking | Stage::Prompted(_) => None,
            Stage::Launching(..) => Some(Vec::new()),
            Stage::Detached(_, variables) => Some(variables),
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
            let refusal = Refusal::new(Cause::Login, words).of(login.peer);
            self.refuse(connection, &refusal);
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
        let until = now + self.settings.login.time;
        self.logins.add(Login::heir(peer, begin, until));
        self.give_turns(now);
    }

    /// Hangs up what a login has started, by ending its worker's line: the worker does
    /// the rest.
    pub(super) fn hang_up_login(&mut self, id: LoginId) {
        if let Some((_, pid)) = self.logins.remove(id) {
            self.corpses.extend(pid);
        }
    }

    /// Refuses a login. A worker that works is killed; one that waits for us, or has
    /// said no, ends its transaction by itself when its line ends.
    pub(super) fn refuse_login(&mut self, id: LoginId, cause: Cause, words: &str) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let (connection, peer) = (login.connection.take(), login.peer);
        let works = login.late.is_some();
        // It is in the midst of opening the PAM session.
        let left_open =
            (works && matches!(login.stage, Stage::Launching(..))).then(|| login.begin.clone());
        if works {
            self.logins.kill(id);
        }
        if let Some((_, pid)) = self.logins.remove(id) {
            self.corpses.extend(pid);
        }
        if let Some(connection) = connection {
            self.refuse(connection, &Refusal::new(cause, words).of(peer));
        }
        if let Some(begin) = left_open {
            self.close_pam_session(peer, begin, Vec::new(), Instant::now());
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
            self.logins.kill(id);
            if let Some((_, pid)) = self.logins.remove(id) {
                self.corpses.extend(pid);
            }
            self.give_turns(Instant::now());
        }
    }

    /// Logins whose time is over.
    pub(super) fn tend_logins(&mut self, now: Instant) {
        for id in self.logins.late(now) {
            self.refuse_login(
                id,
                Cause::Login,
                "PAM did not answer in time: does a module hang?",
            );
        }
        self.logins.tend_detached(now);
        self.give_turns(now);
    }
}
