//! The components that the steps of a connection work with.
//!
//! Runs in the monitor. Each component owns its state; what is here touches more than one of them,
//! and is needed by more than one step. Decides only whether the limits allow one more job, and,
//! under inetd, whether the connection keeps its slot. Must not decide what comes next for it.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::backends::Backends;
use super::ground::Ground;
use super::inetd::{InetdConnection, SlotDecision};
use super::jobs::{Jobs, SHORT};
use super::key_cache::KeyCache;
use super::logins::Logins;
use super::names::Names;
use super::preauth::Connections;
use super::processes::{Processes, Which};
use super::registry_client::RegistryClient;
use super::registry_client::guesses::Guesses;
use super::sessions::shares::{Holder, Shares};
use super::sessions::{Finished, Leader, SessionInfo};
use super::shared_programs::SharedPrograms;
use crate::fault::Fault;
use crate::ipc::Channel;
use crate::ipc::gate::{Complaint, Order, Question};
use crate::ipc::relay::{Closing, Session};
use crate::log::Level;
use crate::protocol::stream::End;

/// The monitor's components, without the local sockets, the signals and the shutdown, which
/// [`super::event_loop`] has.
pub(super) struct Parts {
    pub(super) ground: Ground,
    /// Gate and relay.
    pub(super) processes: Processes,
    /// Hosts and users.
    pub(super) names: Names,
    /// The access to the machine registry.
    pub(super) registry: RegistryClient,
    /// Rate limits of activation passwords, by source.
    pub(super) guesses: Guesses,
    pub(super) key_cache: KeyCache,
    /// The connections that are no session yet.
    pub(super) connections: Connections,
    pub(super) logins: Logins,
    /// The connections to backends that are being made.
    pub(super) backends: Backends,
    /// The programs of inetd services that serve several connections.
    pub(super) shared_programs: SharedPrograms,
    /// The jobs, and the sessions that they belong to.
    pub(super) jobs: Jobs,
    /// Set when serving the one connection of inetd.
    pub(super) inetd: Option<InetdConnection>,
}

/// All that makes a session.
pub(super) struct Handover {
    /// Its number.
    pub(super) id: u64,
    pub(super) info: SessionInfo,
    pub(super) leader: Leader,
    /// The job's standard input, output and error.
    pub(super) streams: [OwnedFd; 3],
    /// The connection.
    pub(super) socket: OwnedFd,
    /// The session's channel: the monitor's end, and the relay's.
    pub(super) channel: (Channel, OwnedFd),
    /// What the relay is told.
    pub(super) session: Session,
}

impl Parts {
    /// Sends the gate an order. Under inetd that may concern the connection's slot.
    pub(super) fn order(&mut self, order: &Order<'_>) {
        if let Some(inetd) = &mut self.inetd {
            if let Order::Deny(..) = order {
                self.logins.hand_back();
            }
            inetd.note_order(&mut self.ground, order, self.logins.has_shared_slot());
            if let Order::Forget(_) = order {
                // No other request is served, so nothing more is looked up.
                self.names.retire(SHORT, Instant::now());
                // The session may last for days.
                self.ground.paths.forget();
            }
        }
        self.processes.send_to_gate(&mut self.ground, order);
    }

    /// Enters the session and gives its descriptors to the relay. If the relay is dead, they are
    /// closed, and the session's channel ends: the job is hung up on the usual path.
    ///
    /// # Errors
    /// The event loop does not take the channel, or the job.
    pub(super) fn hand_over(&mut self, handover: Handover, now: Instant) -> Result<(), Fault> {
        let Handover {
            id,
            info,
            leader,
            streams: [stdin, stdout, stderr],
            socket,
            channel: (ours, theirs),
            session,
        } = handover;
        let poll = self.ground.poll.registry();
        let sessions = self.jobs.sessions_mut();
        sessions.add(poll, id, info, leader, ours, now)?;
        let fds = vec![socket, theirs, stdin, stdout, stderr];
        self.processes
            .send_to_relay(&mut self.ground, &session, fds);
        Ok(())
    }

    /// Returns why no job may be started now, if so.
    pub(super) fn cannot_start(&self) -> Option<&'static str> {
        let detached = self.logins.detached_count();
        let why = self.jobs.cannot_start(&self.ground, detached);
        // Without a relay a command must not even begin.
        let has_relay = self.processes.has_relay();
        why.or((!has_relay).then_some("the relay has died and is being restarted"))
    }

    /// Does the same, including the shares of these holders.
    pub(super) fn cannot_start_for(&self, holders: &[Holder]) -> Option<String> {
        if let Some(why) = self.cannot_start() {
            return Some(why.to_owned());
        }
        let settings = &self.ground.settings;
        let shares = Shares {
            limits: &settings.limits,
            hosts: self.names.table().map_or(&[][..], |table| table.entries()),
            has_logins: settings.gui.all().next().is_some(),
            serves_one: self.names.serves().is_some(),
        };
        let detached = |holder: &Holder| self.logins.detached_count_of(|i| i.are_of(holder));
        let sessions = self.jobs.sessions();
        sessions.share_exceeded(holders, &shares, detached)
    }

    /// Ends a session that has no process: its client learns that it has succeeded.
    pub(super) fn end_without_process(&mut self, session: u64, now: Instant) {
        let sessions = self.jobs.sessions_mut();
        let finished = sessions.application_ended(session, End::Exited(0), now);
        self.session_ended(finished);
    }

    /// Logs the end of a session, and has the login worker that kept its leader reap it.
    pub(super) fn session_ended(&mut self, finished: Option<Finished>) {
        let Some(f) = finished.filter(|f| !f.goes_on) else {
            return;
        };
        let check = self.ground.settings.login.check;
        self.logins.session_is_over(f.id, check);
        let status = match &f.end {
            Some(End::Exited(n)) => n.to_string(),
            Some(End::Killed(n)) => format!("signal-{n}"),
            Some(End::NotStarted(_)) | None => "unknown".to_owned(),
        };
        let (level, why) = match f.closing.and_then(Closing::failure) {
            Some(failure) => (Level::Error, Some(failure.to_string())),
            None => (Level::Info, None),
        };
        let ms = f.lasted.as_millis();
        let mut pairs: Vec<(&str, &dyn std::fmt::Display)> = vec![
            ("session", &f.id),
            ("host", &f.info.host),
            ("peer", &f.info.peer),
            ("user", &f.info.user),
            ("how", &f.how),
            ("status", &status),
            ("ms", &ms),
            ("in", &f.sent),
            ("out", &f.got),
        ];
        if f.closing.is_some_and(Closing::is_cut_off) {
            pairs.push(("cut-off", &"yes"));
        }
        if let Some(why) = &why {
            pairs.push(("why", why));
        }
        self.ground.log.say(level, "end", &pairs);
    }

    /// Sends the gate the networks that HOSTINFO lists, if they have changed.
    pub(super) fn send_new_networks(&mut self) {
        if let Some(networks) = self.names.new_networks() {
            self.processes.send_networks(&mut self.ground, &networks);
        }
    }

    // ---- under inetd ----

    /// Takes a slot for inetd's connection, as far as that can be decided, and gives it to the
    /// gate.
    pub(super) fn admit_inetd(&mut self) {
        let Some(inetd) = &mut self.inetd else {
            return;
        };
        // A gate that has died takes no connection, whose peer is not to blame.
        if !self.processes.has_gate() {
            return;
        }
        let is_resolving = self.names.hosts().is_resolving();
        let is_listed = |from| self.names.lists(from);
        match inetd.admit(&mut self.ground, is_listed, is_resolving) {
            SlotDecision::Adopt(connection) => self.processes.adopt(&mut self.ground, connection),
            SlotDecision::Waits => {}
            SlotDecision::NoSlot => self.close_inetd(Complaint::NoSlot),
        }
    }

    /// Notes a question of the gate, which under inetd may concern the connection's slot. `false`:
    /// another monitor has evicted the connection, which is closed now.
    pub(super) fn note_question(&mut self, question: &Question<'_>) -> bool {
        let Some(inetd) = &mut self.inetd else {
            return true;
        };
        if let Question::ClientHello(..) | Question::Sealed(..) = question {
            // The relay sandboxes itself while the client's proof is verified. Earlier it would
            // keep gate and look-up process from a processor, later it would delay the command.
            self.processes.prepare_relay();
        }
        let stays = inetd.note_question(&mut self.ground, question);
        if !stays {
            self.close_inetd(Complaint::Evicted);
        }
        stays
    }

    /// Whether a ClientHello waits until the names in HOSTINFO are resolved: the client may be a
    /// host that is listed by name only, and a new daemon does not know its address yet.
    pub(super) fn is_postponed(&self, question: &Question<'_>) -> bool {
        let asks = matches!(question, Question::ClientHello(..));
        asks && self.inetd.is_some()
            && self.names.hosts().is_resolving()
            && !self.has_listed_caller()
    }

    /// Whether inetd's connection comes from an address that HOSTINFO lists.
    pub(super) fn has_listed_caller(&self) -> bool {
        let inetd = self.inetd.as_ref();
        inetd.is_some_and(|inetd| self.names.lists(inetd.peer()))
    }

    /// Closes inetd's connection without an answer to the peer.
    pub(super) fn close_inetd(&mut self, why: Complaint) {
        let Some(inetd) = &mut self.inetd else {
            return;
        };
        inetd.close(&mut self.ground, why);
        self.processes.note_gate_empty();
        let now = Instant::now();
        self.processes.lose(&mut self.ground, Which::Gate, now);
    }
}
