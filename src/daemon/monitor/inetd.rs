//! `cosserver -i`: serves one connection, which inetd has accepted, on the same path as any other.
//! Such monitors share their state in the [`Table`].
//!
//! Runs in the monitor. Starts gate and relay side by side before it reads anything. The connection
//! takes a slot among those of all monitors, by the gate's own rules, and is given to the gate as
//! if the gate had accepted it. This module notes the gate's questions and orders as they pass:
//! they decide penalties, and when the slot is free.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::children::Child;
use super::listen::adopted;
use super::logins::MADE_ROOM;
use super::look_ups::Process;
use super::options::Asked;
use super::preauth;
use super::table::{Admission, PreauthStage, Table};
use super::{Monitor, Which};
use crate::daemon::sources::{self, Networks, Source};
use crate::fault::Fault;
use crate::ipc::gate::{Complaint, Order, Question};
use crate::log::{log, log_ratelimited};
use crate::refusal::Cause;
use crate::registry::Id;
use crate::sys::process::{self, ChildMains};
use crate::sys::sandbox::Role;
use crate::sys::{locks, socket};

/// The one connection, among those of all monitors.
pub(super) struct InetdConnection {
    /// The socket, until the gate has it.
    connection: Option<OwnedFd>,
    peer: IpAddr,
    table: Option<Rc<Table>>,
    /// Its slot, while it is unauthenticated.
    slot: Option<usize>,
    /// Whether its login waits for a PAM slot and may be evicted.
    waits: bool,
    /// A ClientHello that waits until the names in HOSTINFO are resolved, and its deadline.
    postponed: Option<(Vec<u8>, Vec<OwnedFd>, Instant)>,
    /// The machines that the registry was asked about: its own, and that of its host.
    pub(super) machines: Vec<Id>,
}

/// How long a client waits for the names in HOSTINFO, of which one may be its own. Longer than name
/// servers take to answer.
const NAMES: Duration = Duration::from_secs(5);

/// How long a session runs before its guard is started and its look-up process ended, so that a
/// short command waits for neither.
pub(super) const SHORT: Duration = Duration::from_millis(10);

/// The processes that are started before anything is read.
pub(super) struct Begun {
    pub(super) connection: InetdConnection,
    pub(super) gate: Child,
    pub(super) relay: Child,
    /// Looks up the user, once known.
    pub(super) look_up: Process,
}

/// Starts the processes that the client would otherwise wait for, all at once, side by side. They
/// are forks without an exec: this process has read nothing yet that they must not have.
pub(super) fn begin(
    asked: &Asked,
    child_mains: &ChildMains,
    saved_stderr: &mut Option<process::SavedStderr>,
) -> Result<Begun, Fault> {
    let connection = adopted()?;
    let peer = socket::peer(connection.as_fd())?.ip();
    *saved_stderr = Some(process::silence_stderr(asked.stderr)?);
    let (mut gate, mut relay) = (Child::new(Role::Gate), Child::new(Role::Relay));
    gate.launch(Some(child_mains.gate))?;
    let look_up = Process::launch(Some(child_mains.lookup))?;
    relay.launch(Some(child_mains.relay))?;
    Ok(Begun {
        connection: InetdConnection {
            connection: Some(connection),
            peer,
            table: None,
            slot: None,
            waits: false,
            postponed: None,
            machines: Vec::new(),
        },
        gate,
        relay,
        look_up,
    })
}

impl Monitor {
    /// Takes a slot for the connection and gives it to the gate. Without the table the connection
    /// is served all the same: the table bounds load only, and must not lock out an administrator
    /// who has to free a full disk.
    pub(super) fn take_slot(&mut self) {
        let Some(connection) = &mut self.inetd else {
            return;
        };
        match Table::open(&self.paths.inetd_table()) {
            Ok(table) => {
                // Without this, `cosadm` cannot find this monitor. Its connection is no less
                // secure.
                let _ = table.be_found();
                connection.table = Some(Rc::new(table));
            }
            Err(why) => self.lose_table(&why),
        }
        if let Some(connection) = &self.inetd {
            self.logins.share(connection.table.clone());
        }
        self.admit();
    }

    /// Decides whether the connection may stay, as far as that is known. While the names in
    /// HOSTINFO are being resolved, it may still be a host's.
    pub(super) fn admit(&mut self) {
        let limits = self.limits();
        let Some(connection) = self.inetd.as_mut().filter(|s| s.connection.is_some()) else {
            return;
        };
        let (peer, table) = (connection.peer, connection.table.clone());
        let listed: Networks = self.hosts.networks().into_iter().collect();
        let source = Source::of(peer);
        let admitted = table.map(|t| t.admit(source, listed.has(peer), &limits, locks::uptime()));
        match admitted {
            Some(Ok(Admission::NoSlot)) if self.hosts.is_resolving() => return,
            Some(Ok(Admission::NoSlot)) => return self.close_unanswered(Complaint::NoSlot),
            Some(Ok(Admission::Slot(slot))) => connection.slot = Some(slot),
            Some(Err(why)) => self.lose_table(&why),
            None => {}
        }
        let connection = self.inetd.as_mut().and_then(|s| s.connection.take());
        if let Some(connection) = connection {
            // As if the gate had accepted it.
            if !self.gate.send(Order::Adopt.encode(), vec![connection]) {
                self.lost(Which::Gate, Instant::now());
            }
        }
    }

    /// Continues without the table.
    fn lose_table(&mut self, why: &dyn std::fmt::Display) {
        if let Some(connection) = &mut self.inetd {
            (connection.table, connection.slot) = (None, None);
        }
        self.logins.share(None);
        let words = "penalties and slots of other connections are not known";
        log!(self.log, Warning, "no-table", why, so = words);
    }

    /// Closes the connection without an answer to the peer.
    fn close_unanswered(&mut self, why: Complaint) {
        let Some(connection) = &mut self.inetd else {
            return;
        };
        connection.connection = None;
        log_ratelimited!(
            self.log,
            Warning,
            "closed",
            peer = connection.peer,
            cause = why.name()
        );
        self.leave_slot();
        self.gate_is_empty = true;
        self.lost(Which::Gate, Instant::now());
    }

    /// Closes what an excluded machine has here, after `cosadm` has excluded one. A standalone
    /// daemon gets that request at its control socket.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.paths.forget();
        let machines = self
            .inetd
            .as_ref()
            .map(|connection| connection.machines.clone());
        for id in machines.into_iter().flatten() {
            if self.doors.is_excluded(id) {
                self.cut_off(id, geteuid().as_raw(), now);
            }
        }
    }

    /// Evicts the connection because another monitor needs the slot, unless the slot is free
    /// already.
    pub(super) fn make_room(&mut self) {
        let Some(connection) = &self.inetd else {
            return;
        };
        let slot = connection.table.as_ref().zip(connection.slot);
        if slot.is_none_or(|(table, slot)| table.stays(slot)) {
            return;
        }
        let login = self
            .unauthenticated
            .values()
            .find_map(preauth::Preauth::login);
        if let Some(id) = login {
            self.leave_slot();
            return self.interrupt_login(id, Cause::Busy, MADE_ROOM);
        }
        self.close_unanswered(Complaint::Evicted);
    }

    /// Notes the connection's stage in the table. `false`: another monitor has evicted it.
    fn set_stage(&mut self, stage: PreauthStage) -> bool {
        let Some(connection) = &self.inetd else {
            return true;
        };
        match (&connection.table, connection.slot) {
            (Some(table), Some(slot)) => match table.set_stage(slot, stage) {
                Ok(stays) => stays,
                Err(why) => {
                    self.lose_table(&why);
                    true
                }
            },
            _ => true,
        }
    }

    /// Notes what a question of the gate means for the slot. `false`: the connection was evicted
    /// before.
    pub(super) fn note_question(&mut self, question: &Question<'_>) -> bool {
        if self.inetd.is_none() {
            return true;
        }
        match *question {
            Question::ClientHello(..) | Question::Sealed(..) => {
                // The relay sandboxes itself while the client's proof is verified. Earlier it would
                // keep gate and look-up process from a processor, later it would delay the command.
                let _ = self.relay.send_in(self.sandbox_config.as_ref());
                if !self.set_stage(PreauthStage::Asking) {
                    self.close_unanswered(Complaint::Evicted);
                    return false;
                }
            }
            Question::TurnedAway(why, _) => self.penalise(sources::price(why, &self.limits())),
            Question::Hello(..) | Question::Gone(_) | Question::Left(_) | Question::Empty => {}
        }
        true
    }

    /// Postpones a ClientHello while the client may be a host that HOSTINFO lists by name only: a
    /// new daemon does not know its address yet. Returns the descriptors of a message that is to be
    /// answered now.
    pub(super) fn unless_postponed(
        &mut self,
        message: &[u8],
        question: &Question<'_>,
        fds: Vec<OwnedFd>,
        now: Instant,
    ) -> Option<Vec<OwnedFd>> {
        let resolving = self.hosts.is_resolving();
        let asks = matches!(question, Question::ClientHello(..));
        if !resolving || !asks || self.has_listed_caller() {
            return Some(fds);
        }
        let Some(connection) = &mut self.inetd else {
            return Some(fds);
        };
        connection.postponed = Some((message.to_vec(), fds, now + NAMES));
        // It has not authenticated, and others wait for slots.
        self.set_stage(PreauthStage::Waiting);
        None
    }

    /// Whether the connection comes from an address that HOSTINFO lists.
    pub(super) fn has_listed_caller(&self) -> bool {
        let Some(connection) = &self.inetd else {
            return false;
        };
        let known: Networks = self.hosts.networks().into_iter().collect();
        known.has(connection.peer)
    }

    /// Returns until when a client waits for the names.
    pub(super) fn names_deadline(&self) -> Option<Instant> {
        let postponed = self.inetd.as_ref()?.postponed.as_ref();
        postponed.map(|(.., until)| *until)
    }

    /// Continues with what waited for the names.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.admit();
        let postponed = self
            .inetd
            .as_mut()
            .and_then(|connection| connection.postponed.take());
        // A client that has left asks nothing more.
        if let Some((message, fds, _)) = postponed.filter(|_| !self.unauthenticated.is_empty()) {
            if let Some(question) = Question::decode(&message) {
                // A connection that was evicted in the meantime is closed here.
                if self.note_question(&question) {
                    self.answer(&question, fds, now);
                }
            }
        }
    }

    /// Notes whether the login waits for a PAM slot: if so, it may be evicted.
    pub(super) fn note_pam_slot(&mut self) {
        let login = self
            .unauthenticated
            .values()
            .find_map(preauth::Preauth::login);
        let Some((connection, login)) = self.inetd.as_mut().zip(login) else {
            return;
        };
        let waits = self.logins.is_queued(login);
        if std::mem::replace(&mut connection.waits, waits) != waits {
            // If it was evicted before, the signal for that follows.
            self.set_stage(match waits {
                true => PreauthStage::Prompted,
                false => PreauthStage::Asking,
            });
        }
    }

    /// Notes what an order to the gate means for slot and penalty.
    pub(super) fn note_order(&mut self, order: &[u8]) {
        if self.inetd.is_none() {
            return;
        }
        match Order::decode(order) {
            // If it was evicted before, the signal for that follows.
            Some(Order::Continue(..)) => {
                self.set_stage(PreauthStage::Waiting);
            }
            Some(Order::Prompt(..)) => {
                self.set_stage(PreauthStage::Prompted);
            }
            Some(Order::Deny(_, _, seconds, _)) => {
                self.penalise(seconds);
                self.logins.hand_back();
                self.set_stage(match self.logins.has_shared_slot() {
                    true => PreauthStage::Refused,
                    false => PreauthStage::Waiting,
                });
            }
            Some(Order::MayGo(_, may)) => {
                self.set_stage(match may {
                    true => PreauthStage::Waiting,
                    false => PreauthStage::Asking,
                });
            }
            Some(Order::Close(_)) => {
                let price = sources::price(Complaint::Malformed, &self.limits());
                self.penalise(price);
            }
            Some(Order::Taken(_)) => {
                self.leave_slot();
                // No other request is served, so nothing more is looked up.
                self.look_ups.retire(SHORT, Instant::now());
                // The session may last for days.
                self.paths.forget();
            }
            _ => {}
        }
    }

    /// Penalizes the peer of an unauthenticated connection whose gate died: it may have caused
    /// that.
    pub(super) fn note_gate_is_lost(&mut self) {
        let is_unauthenticated = |connection: &InetdConnection| {
            connection.slot.is_some() && connection.connection.is_none()
        };
        if self.stopping.is_none() && self.inetd.as_ref().is_some_and(is_unauthenticated) {
            let price = sources::price(Complaint::Malformed, &self.limits());
            self.penalise(price);
        }
    }

    fn penalise(&mut self, seconds: u32) {
        let limits = self.limits();
        let Some(connection) = &self.inetd else {
            return;
        };
        let exempt = self.settings.penalties.exempt.iter();
        let exempt: Networks = exempt.map(|n| n.parts()).collect();
        let Some(table) = connection
            .table
            .as_ref()
            .filter(|_| !exempt.has(connection.peer))
        else {
            return;
        };
        let source = Source::of(connection.peer);
        if let Err(why) = table.penalise(source, seconds, &limits, locks::uptime()) {
            self.lose_table(&why);
        }
    }

    /// Releases the slot: the connection is authenticated, or closed.
    pub(super) fn leave_slot(&mut self) {
        if let Some(connection) = &mut self.inetd {
            if let (Some(table), Some(slot)) = (&connection.table, connection.slot.take()) {
                table.leave(slot);
            }
        }
    }
}
