//! A login's way from stage to stage, by the messages of its worker and by what the pipeline
//! decides.
//!
//! Runs in the monitor. Must not decide what comes next: each method returns what concerns the
//! pipeline.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::super::ground::Ground;
use super::super::sessions::Finished;
use super::ending::Departed;
use super::{Answered, Denial, Detached, Login, LoginId, LoginSubject, Logins, Stage};
use crate::auth::policy::{Caller, Granted, Gui};
use crate::ipc::gate::Connection;
use crate::ipc::login::{Launch, PamAccount, Started, WorkerToMonitor};
use crate::log::log;
use crate::protocol::prompt::Text;
use crate::protocol::stream::End;
use crate::refusal::Cause;
use crate::services::gui::Streams;

/// What a message of a login's worker leads to.
pub(in super::super) enum LoginEvent {
    /// Nothing that concerns others.
    Nothing,
    /// PAM wants the peer prompted.
    Prompt(Vec<Text>),
    /// PAM has authenticated the user.
    Authenticated(PamAccount),
    /// The application runs.
    Runs(Started),
    /// The application has ended.
    ApplicationEnded(End),
    /// The login is refused.
    Denied(Option<Denial>),
    /// PAM has allowed it after its peer had left.
    Departed(Departed),
}

/// What a launched login needs to become a session.
pub(in super::super) struct Launched {
    pub(in super::super) granted: Box<Granted<Gui, Caller>>,
    /// Our ends of the application's pipes. `None`: it was started detached.
    pub(in super::super) streams: Option<[OwnedFd; 3]>,
    /// The gate's connection. `None`: the gate has forgotten it.
    pub(in super::super) connection: Option<Connection>,
    /// The peer's socket. `None`: the peer has left.
    pub(in super::super) socket: Option<OwnedFd>,
}

/// What a worker that died leaves.
pub(in super::super) struct Orphaned {
    /// The refusal of its connection.
    pub(in super::super) denial: Option<Denial>,
    /// The session of its application, which has no parent any more.
    pub(in super::super) session: Option<u64>,
    /// Its detached application, which is hung up.
    pub(in super::super) detached: Option<Finished>,
}

impl Login {
    /// Returns the user's name, as requested or as PAM has changed it.
    pub(in super::super) fn user(&self) -> &str {
        &self.begin.user
    }

    /// Returns who logs in, until PAM has decided.
    pub(in super::super) const fn subject(&self) -> Option<&LoginSubject> {
        self.who.as_ref()
    }

    /// Takes who logs in: PAM has decided.
    pub(in super::super) const fn take_subject(&mut self) -> Option<LoginSubject> {
        self.who.take()
    }

    /// Has the worker start the application that was granted, within this time. `false`: the worker
    /// is dead.
    pub(in super::super) fn launch(
        &mut self,
        granted: Granted<Gui, Caller>,
        launch: Launch,
        streams: Streams,
        until: Instant,
    ) -> bool {
        // A PAM module may have changed the user; the session is that user's.
        self.begin.user.clone_from(&granted.to().account().name);
        self.late = Some(until);
        self.stage = Stage::Launching(Box::new(granted), streams.ours);
        self.send_launch(launch, streams.its)
    }

    /// Takes what was launched.
    pub(in super::super) fn take_launched(&mut self) -> Option<Launched> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::Launching(granted, streams) = stage else {
            return None;
        };
        let socket = self.socket.take();
        Some(Launched {
            granted,
            streams,
            connection: self.connection.take(),
            socket: socket.filter(|_| !self.has_left),
        })
    }

    /// Notes that the application runs in this session, with PAM's variables.
    pub(in super::super) fn run(&mut self, session: u64, variables: Vec<CString>) {
        self.stage = Stage::Running(session, variables);
    }

    /// Notes that the application runs detached.
    pub(in super::super) fn detach(
        &mut self,
        detached: Detached,
        leader: Pid,
        variables: Vec<CString>,
    ) {
        self.detached = Some(detached);
        self.stage = Stage::Detached(leader, variables);
    }
}

impl Logins {
    /// Handles a message of a login's worker. Kills a worker that sends what does not fit.
    pub(in super::super) fn handle_message(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
        message: WorkerToMonitor,
    ) -> LoginEvent {
        let Some(login) = self.get(id) else {
            return LoginEvent::Nothing;
        };
        if matches!(login.stage, Stage::Concluding) {
            self.handle_conclusion(ground, id, &message);
            return LoginEvent::Nothing;
        }
        login.late = None;
        if let (WorkerToMonitor::Authenticated(_), Answered::Taken) = (&message, login.answers) {
            login.answers = Answered::Judged;
        }
        let (cause, words) = match (message, &login.stage) {
            (WorkerToMonitor::Ask(_), Stage::Checking) if login.has_left => {
                return LoginEvent::Denied(self.end_unanswered(ground, id));
            }
            (WorkerToMonitor::Authenticated(_), Stage::Checking) if login.has_left => {
                let departed = self.end_departed(ground, id);
                return departed.map_or(LoginEvent::Nothing, LoginEvent::Departed);
            }
            (WorkerToMonitor::Ask(texts), Stage::Checking) => return LoginEvent::Prompt(texts),
            (WorkerToMonitor::Authenticated(account), Stage::Checking) => {
                return LoginEvent::Authenticated(account);
            }
            (WorkerToMonitor::Running(started), Stage::Launching(..)) => {
                return LoginEvent::Runs(started);
            }
            (WorkerToMonitor::Exited(n), _) => return LoginEvent::ApplicationEnded(End::Exited(n)),
            (WorkerToMonitor::Killed(n), _) => return LoginEvent::ApplicationEnded(End::Killed(n)),
            (WorkerToMonitor::Refused(code, words), Stage::Checking | Stage::Launching(..)) => {
                (Cause::Login, format!("PAM: {words} ({code})"))
            }
            (WorkerToMonitor::Failed(words), Stage::Checking) => (Cause::Pam, words),
            (WorkerToMonitor::Failed(words), Stage::Launching(..)) => (Cause::System, words),
            _ => {
                self.kill(id);
                return LoginEvent::Nothing;
            }
        };
        LoginEvent::Denied(self.refuse(ground, id, cause, &words))
    }

    /// Handles the end of an application, which its worker waits to reap. Returns its session, or
    /// its end if it was detached.
    pub(in super::super) fn application_ended(
        &mut self,
        id: LoginId,
        end: &End,
        check: Duration,
        now: Instant,
    ) -> (Option<u64>, Option<Finished>) {
        let Some(login) = self.get(id) else {
            return (None, None);
        };
        let stage = std::mem::replace(&mut login.stage, Stage::Over);
        if let Stage::Running(session, variables) = stage {
            login.stage = Stage::Ended(session, variables);
            return (Some(session), None);
        }
        let mut detached = login.detached.take();
        login.close(check);
        if let (Stage::Detached(pid, _), Some(detached)) = (stage, &mut detached) {
            self.detached_ended(pid, detached);
        }
        let end = Some(end.clone());
        (None, detached.map(|a| a.finished("detached", end, now)))
    }

    /// Handles the end of a worker. A worker that died leaves a PAM session open, which a cleanup
    /// worker closes, and an application, which is hung up.
    pub(in super::super) fn worker_ended(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
        now: Instant,
    ) -> Option<Orphaned> {
        let mut login = self.hang_up(ground, id)?;
        ground.reap();
        if login.is_cleanup() {
            return None;
        }
        let words = "the login worker died";
        let denial = login.is_under_way().then(|| login.deny(Cause::Pam, words));
        let (mut session, mut detached) = (None, None);
        let variables = match std::mem::replace(&mut login.stage, Stage::Over) {
            Stage::Over => return None,
            // Init reaps the leader that it has kept unreaped.
            Stage::Ended(_, variables) => Some(variables),
            Stage::Queued(_) | Stage::Checking | Stage::Prompted(_) | Stage::Concluding => None,
            Stage::Launching(..) => Some(Vec::new()),
            Stage::Detached(pid, variables) => {
                let kill_at = now + ground.kill_after();
                let left = login.detached.take();
                detached = left.map(|left| self.orphaned(pid, left, kill_at, now));
                Some(variables)
            }
            Stage::Running(of, variables) => {
                session = Some(of);
                Some(variables)
            }
        };
        let user = &login.begin.user;
        log!(ground.log, Error, "lost", process = "login", user);
        if let Some(variables) = variables {
            self.close_pam_session(ground, login.peer, login.begin, variables, now);
        }
        Some(Orphaned {
            denial: denial.map(|denial| self.count_guess(ground, denial)),
            session,
            detached,
        })
    }
}
