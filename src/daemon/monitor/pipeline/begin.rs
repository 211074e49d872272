//! The last steps of a request: starts the job, accepts the connection, and gives both to the
//! relay. Runs in the monitor.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::handover::Handover;
use crate::auth::policy::{Exec, Granted};
use crate::config::hostinfo::Entry;
use crate::config::linger::Linger;
use crate::daemon::monitor::preauth::{Acceptance, Pending, Reject};
use crate::daemon::monitor::sessions::shares::Holder;
use crate::daemon::monitor::sessions::{Leader, SessionInfo};
use crate::daemon::monitor::{Monitor, inetd};
use crate::fault::Fault;
use crate::ipc::Channel;
use crate::ipc::gate::Order;
use crate::ipc::relay::Session;
use crate::log::{Level, log};
use crate::protocol::noise::Keys;
use crate::protocol::record::{self, Kind};
use crate::protocol::request::{Command, EXEC, Request, Service};
use crate::protocol::{Malformed, limits};
use crate::refusal::{Cause, Refusal};
use crate::registry::Id;
use crate::services::exec::{self, Running, Setting};
use crate::sys::account::{Account, UserRecord};
use crate::sys::{process, socket};

impl Monitor {
    /// Starts the job, accepts the connection, and gives both to the relay.
    pub(in crate::daemon::monitor) fn start(
        &mut self,
        mut pending: Pending,
        record: &UserRecord,
        now: Instant,
    ) -> Result<(), Reject> {
        let account = &record.account;
        let peer = pending.granted.authenticated().peer();
        crate::auth::policy::check_account(pending.granted.authenticated(), account)
            .map_err(|r| r.of(peer))?;
        let usable = self.accounts.check(record);
        usable.map_err(|why| Refusal::new(Cause::Account, why).of(peer))?;
        if self.inetd.is_some() {
            self.start_standby_guard();
        }
        let setting = Setting {
            path: &self.settings.exec.path,
            becomes_user: self.accounts.serves().is_none(),
            limits: self.inherited,
            ssh_client: (self.settings.exec.ssh_client)
                .then(|| socket::ssh_client(pending.socket.as_fd()))
                .flatten(),
        };
        let pair = Channel::pair().map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
        self.protection.restore_score(&mut self.starter, now);
        // The job first: it starts during the handshake's key agreement.
        let (granted, starter) = (&pending.granted, &mut self.starter);
        let start = |leader: Option<&_>| exec::start(granted, account, &setting, starter, leader);
        let groups = self.sessions.groups_mut();
        let running = groups.enter(start, Running::pid).map_err(|r| r.of(peer))?;
        let (answer, keys) = match accept(&mut pending) {
            Ok(accepted) => accepted,
            Err(m) => {
                self.kill(running.pid());
                return Err(m.into());
            }
        };
        // Sent from here, so that the client works while the relay begins.
        let answer = socket::send_now(pending.socket.as_fd(), answer);
        let authenticated = pending.granted.authenticated();
        let info = SessionInfo {
            host: authenticated.caller().name.to_string(),
            user: pending.granted.service().user.to_string(),
            peer: authenticated.peer(),
            caller: authenticated.request().caller_user.to_string(),
            service: authenticated.request().service.name().to_owned(),
            machines: authenticated.machines(),
            command: authenticated.request().command.shown(),
            holders: Holder::of(authenticated),
        };
        let linger = self.linger(Some(authenticated.caller()), authenticated.request());
        let session = Session {
            answer,
            keys,
            linger,
            windows: self.windows(),
        };
        let (id, pid) = (self.sessions.number(), running.pid());
        let handover = Handover {
            id,
            info,
            leader: Leader::Ours(pid),
            streams: running.into_pipes(),
            socket: pending.socket,
            channel: pair,
            session,
        };
        match self.hand_over(handover, now) {
            Ok(()) => {
                self.log_start(id, &pending.granted, account);
                if self.inetd.is_some() {
                    self.guard.begin_later(inetd::SHORT, now);
                }
            }
            Err(e) => {
                let e = e.while_doing("a command was killed at once");
                log!(self.log, Error, "fault", why = e);
                self.kill(pid);
            }
        }
        self.send_to_gate(Order::Taken(pending.connection).encode());
        Ok(())
    }

    /// Looks up the program of the subsystem that a request names, if it names one.
    pub(in crate::daemon::monitor) fn subsystem_of(
        &self,
        request: &Request,
    ) -> Option<Result<Vec<String>, Fault>> {
        match (&request.service, &request.command) {
            (Service::Subsystem, Command::Words(_)) => {
                Some(self.settings.subsystem.find(&request.command.shown()))
            }
            _ => None,
        }
    }

    /// Returns a session's linger time in milliseconds: the request's own, else that of the host's
    /// line, else the daemon's.
    pub(in crate::daemon::monitor) fn linger(
        &self,
        host: Option<&Entry>,
        request: &Request,
    ) -> u32 {
        let asked = request.linger.map(|seconds| match seconds {
            limits::UNTIL_CLOSED => Linger::UntilClosed,
            seconds => Linger::Seconds(seconds),
        });
        let of_line = || host.and_then(|entry| entry.linger);
        asked.or_else(of_line).map_or_else(
            || u32::try_from(self.settings.exec.linger.as_millis()).unwrap_or(u32::MAX),
            Linger::milliseconds,
        )
    }

    /// Returns what the windows of all sessions may promise together, bytes.
    pub(in crate::daemon::monitor) const fn windows(&self) -> usize {
        self.settings.limits.windows.saturating_mul(1 << 20)
    }

    /// Kills a job that has no session.
    fn kill(&mut self, leader: Pid) {
        process::signal_group(leader, Signal::SIGKILL);
        self.sessions.groups_mut().leave(leader);
        self.unreaped.push(leader);
    }

    fn log_start(&mut self, id: u64, granted: &Granted<Exec>, account: &Account) {
        let authenticated = granted.authenticated();
        let (host, caller) = (
            &authenticated.caller().name,
            &authenticated.request().caller_user,
        );
        let Request {
            service, command, ..
        } = authenticated.request();
        let (command, service) = (command.shown(), service.name());
        let (peer, machine) = (authenticated.peer(), Id::of(authenticated.machine()));
        let mut pairs: Vec<(&str, &dyn std::fmt::Display)> = vec![
            ("session", &id),
            ("host", host),
            ("peer", &peer),
            ("machine", &machine),
            ("user", &account.name),
            ("caller", caller),
        ];
        // The event is about commands; other services add their names.
        if service != EXEC {
            pairs.push(("service", &service));
        }
        pairs.push(("command", &command));
        self.log.say(Level::Info, "exec", &pairs);
    }
}

/// Returns the record that accepts the connection, and its keys.
fn accept(pending: &mut Pending) -> Result<(Vec<u8>, Keys), Malformed> {
    let welcome = std::mem::take(&mut pending.welcome);
    let authenticated = pending.granted.authenticated_mut();
    let payload = authenticated.acceptance(welcome)?;
    match std::mem::replace(&mut pending.acceptance, Acceptance::Message2) {
        Acceptance::Message2 => {
            let (message, keys) = authenticated.message_2(&payload)?;
            Ok((record::compose(Kind::Answer, &message)?, keys))
        }
        Acceptance::Conversation(mut conversation) => {
            Ok((conversation.seal(&payload)?, conversation.into_keys()?))
        }
    }
}
