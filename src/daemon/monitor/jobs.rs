//! The jobs: whether one more may be started, their start, and what protects them. Includes the
//! sessions that they belong to.
//!
//! Runs in the monitor. Owns [`Sessions`], the processes' [`Starter`], the guard that ends the jobs
//! if this process is killed, and this process's protection from the OOM killer. Must start nothing
//! that was not granted.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::descriptor_limit;
use super::ground::Ground;
use super::guard::{Guard, Guarding};
use super::protect::Protection;
use super::sessions::Sessions;
use crate::auth::policy::{Exec, Granted};
use crate::fault::Fault;
use crate::log::log;
use crate::refusal::Refusal;
use crate::services::exec::{self, Running, Setting};
use crate::sys::account::Account;
use crate::sys::job::{BackendAddress, Ends, Identity, Program, Starter};
use crate::sys::{process, socket};

/// How long a session runs under inetd before its guard is started and its look-up process ended,
/// so that a short command waits for neither.
pub(super) const SHORT: Duration = Duration::from_millis(10);

/// The jobs.
pub(super) struct Jobs {
    sessions: Sessions,
    starter: Starter,
    guard: Guarding,
    protection: Protection,
    /// How many sessions the limit of open files allows.
    most_sessions: usize,
}

impl Jobs {
    /// Returns them without a job. The limit of open files must have been raised before.
    pub(super) fn new(sessions: Sessions) -> Self {
        Self {
            sessions,
            starter: Starter::default(),
            guard: Guarding::default(),
            protection: Protection::default(),
            most_sessions: descriptor_limit::sessions(process::descriptors()),
        }
    }

    /// Returns the sessions.
    pub(super) const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Returns the sessions, to be changed.
    pub(super) const fn sessions_mut(&mut self) -> &mut Sessions {
        &mut self.sessions
    }

    /// Returns why no job may be started now, besides `others` that are no sessions, if so.
    pub(super) fn cannot_start(&self, ground: &Ground, others: usize) -> Option<&'static str> {
        let sessions = self.sessions.len() + others;
        if sessions >= ground.settings.limits.sessions {
            return Some("too many sessions");
        }
        if !ground.is_inetd && sessions >= self.most_sessions {
            return Some("too many sessions for the limit of open files");
        }
        // A client that was greeted before SIGTERM is new all the same.
        ground.is_stopping.then_some("the daemon is stopping")
    }

    /// Warns if the settings allow more sessions than the limit of open files does.
    pub(super) fn warn_of_few_descriptors(&self, ground: &mut Ground) {
        let (wanted, most) = (ground.settings.limits.sessions, self.most_sessions);
        if ground.is_inetd || wanted <= most {
            return;
        }
        let why = format!(
            "limits.sessions is {wanted}, but the limit of open files allows {most}: raise it (LimitNOFILE=, ulimit -n)"
        );
        log!(ground.log, Warning, "few-open-files", why);
    }

    // ---- start and end ----

    /// Starts the job of a granted request, for a client at this socket.
    ///
    /// # Errors
    /// Fails if the system starts no process, or if the job's environment cannot be made.
    pub(super) fn start(
        &mut self,
        ground: &mut Ground,
        granted: &Granted<Exec>,
        account: &Account,
        becomes_user: bool,
        client: &OwnedFd,
        now: Instant,
    ) -> Result<Running, Refusal> {
        if ground.is_inetd {
            self.guard.start_standby(ground, self.sessions.groups());
        }
        let setting = Setting {
            path: &ground.settings.exec.path,
            becomes_user,
            limits: ground.inherited,
            peer: socket::peer(client.as_fd()).ok(),
            ssh_client: (ground.settings.exec.ssh_client)
                .then(|| socket::ssh_client(client.as_fd()))
                .flatten(),
        };
        // The job inherits the OOM score: it is to have the one that the daemon was started with.
        self.protection.restore_score(&mut self.starter, now);
        let starter = &mut self.starter;
        let start = |leader: Option<&_>| exec::start(granted, account, &setting, starter, leader);
        // Runs `start` with an entry in the guard's table, so that the guard knows the job even if
        // this process is killed now.
        self.sessions.groups_mut().enter(start, Running::pid)
    }

    /// Starts the program of a service that belongs to no session.
    ///
    /// # Errors
    /// Fails if the system starts no process.
    pub(super) fn start_service(
        &mut self,
        ground: &Ground,
        program: Program,
        ends: Ends<'_>,
    ) -> nix::Result<Pid> {
        self.protection
            .restore_score(&mut self.starter, Instant::now());
        self.starter.job(program, ends, ground.inherited, None)
    }

    /// Starts a child that connects a socket to a backend as this user; `None`: the daemon's own.
    ///
    /// # Errors
    /// Fails if the system starts no process.
    pub(super) fn connect(
        &mut self,
        account: Option<&Account>,
        socket: &OwnedFd,
        to: BackendAddress,
    ) -> nix::Result<Pid> {
        let user = account.map(|account| Identity {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups.clone(),
        });
        self.starter.connect(user, socket.as_fd(), to)
    }

    /// Notes that a job has become a session: under inetd, its guard follows unless it is short.
    pub(super) fn note_session(&mut self, ground: &Ground, now: Instant) {
        if ground.is_inetd {
            self.guard.begin_later(SHORT, now);
        }
    }

    /// Kills a job that has no session.
    pub(super) fn kill(&mut self, ground: &mut Ground, leader: Pid) {
        process::signal_group(leader, Signal::SIGKILL);
        self.sessions.groups_mut().leave(leader);
        ground.unreaped.push(leader);
    }

    // ---- guard and protection ----

    /// Protects this process from the OOM killer, and takes a guard that was started before.
    pub(super) fn protect(&mut self, ground: &mut Ground, guard: Option<Result<Guard, Fault>>) {
        self.protection.begin();
        if let Some(guard) = guard {
            self.guard.take(ground, self.sessions.groups(), guard);
        }
    }

    /// Protects this process again soon: a login worker has started something.
    pub(super) fn protect_soon(&mut self, now: Instant) {
        self.protection.soon(now);
    }

    /// Passes on to the guard what a reload may have changed.
    pub(super) fn reload(&self, ground: &mut Ground) {
        self.sessions.groups().set_grace(ground.kill_after());
        self.warn_of_few_descriptors(ground);
    }

    /// Handles the end of the guard.
    pub(super) fn guard_ended(&mut self, ground: &mut Ground, now: Instant) {
        self.guard.handle_end(ground, now);
    }

    /// Returns when guard or protection are due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let protection = self.protection.deadline().into_iter();
        protection.chain(self.guard.due()).min()
    }

    /// Handles what is due.
    pub(super) fn expire(&mut self, ground: &mut Ground, now: Instant) {
        if self.protection.deadline().is_some_and(|at| at <= now) {
            self.protection.go_on(&mut self.starter, now);
        }
        if self.guard.due().is_some_and(|at| at <= now) {
            self.guard.start(ground, self.sessions.groups());
        }
    }
}
