//! `cosserver -i`: one connection, which inetd has accepted, by the path of every other.
//! What many such monitors must know of each other stands in their [`Table`].
//!
//! Gate and relay are begun before anything is read, side by side. The connection
//! takes a slot among those of all monitors, by the gate's own rules, and is given to the
//! gate as if that had accepted it. What the gate makes of it, and what it is told
//! to do, is noted here on its way: penalties, and when the slot is free.

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
use crate::log::Level;
use crate::refusal::Cause;
use crate::registry::Id;
use crate::sys::process::{self, Apart};
use crate::sys::sandbox::Role;
use crate::sys::{locks, socket};

/// The one connection, among those of all monitors.
pub(super) struct InetdConnection {
    /// Until it is the gate's.
    connection: Option<OwnedFd>,
    peer: IpAddr,
    table: Option<Rc<Table>>,
    /// Its slot, as long as it is a stranger's.
    slot: Option<usize>,
    /// Whether its login waits for a turn with PAM, and may be turned out meanwhile.
    waits: bool,
    /// A ClientHello that waits until the names of HOSTINFO are resolved, and how long.
    postponed: Option<(Vec<u8>, Vec<OwnedFd>, Instant)>,
    /// The machines that the doors were asked about: its own, and that of its host.
    pub(super) machines: Vec<Id>,
}

/// How long a caller waits for the names of HOSTINFO, of which one may be its own: longer
/// than name servers take that answer.
const NAMES: Duration = Duration::from_secs(5);

/// How long a session runs before its guard is started and its look-up process ended, so that a
/// short command waits for neither.
pub(super) const SHORT: Duration = Duration::from_millis(10);

/// What is begun before anything is read.
pub(super) struct Begun {
    pub(super) connection: InetdConnection,
    pub(super) gate: Child,
    pub(super) relay: Child,
    /// Looks the user up, once it is known who.
    pub(super) look_up: Process,
}

/// The one who called waits for every process that is still to be started: they are
/// begun at once, side by side. None of them needs a program of its own: this process has
/// read nothing yet that they must not have.
pub(super) fn begin(
    asked: &Asked,
    apart: &Apart,
    saved_stderr: &mut Option<process::SavedStderr>,
) -> Result<Begun, Fault> {
    let connection = adopted()?;
    let peer = socket::peer(connection.as_fd())?.ip();
    *saved_stderr = Some(process::silence_stderr(asked.stderr)?);
    let (mut gate, mut relay) = (Child::new(Role::Gate), Child::new(Role::Relay));
    gate.launch(Some(apart.gate))?;
    let look_up = Process::launch(Some(apart.lookup))?;
    relay.launch(Some(apart.relay))?;
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
    /// Takes a slot for the connection and gives it to the gate. Where there is no table
    /// to be had it is served all the same: what the table bounds is load, and an
    /// administrator who must get in to free a full disk is not to be shut out by it.
    pub(super) fn take_slot(&mut self) {
        let Some(connection) = &mut self.inetd else {
            return;
        };
        match Table::open(&self.paths.inetd_table()) {
            Ok(table) => {
                // Without it, it is only not found: what it serves is not less safe.
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

    /// Decides whether the connection may stay, as far as that is known yet: while the
    /// names of HOSTINFO are being resolved, it may still be a host's.
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
            Some(Ok(Admission::NoSlot)) => return self.turn_away(Complaint::NoSlot),
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

    /// Goes on without the table.
    fn lose_table(&mut self, why: &dyn std::fmt::Display) {
        if let Some(connection) = &mut self.inetd {
            (connection.table, connection.slot) = (None, None);
        }
        self.logins.share(None);
        let words = "penalties and slots of other connections are not known";
        let pairs: [(&str, &dyn std::fmt::Display); 2] = [("why", why), ("so", &words)];
        self.log.say(Level::Warning, "no-table", &pairs);
    }

    /// Ends without a word to the peer.
    fn turn_away(&mut self, why: Complaint) {
        let Some(connection) = &mut self.inetd else {
            return;
        };
        connection.connection = None;
        let pairs: [(&str, &dyn std::fmt::Display); 2] =
            [("peer", &connection.peer), ("cause", &why.name())];
        self.log
            .log_ratelimited(Level::Warning, "turned-away", &pairs);
        self.leave_slot();
        self.gate_is_empty = true;
        self.lost(Which::Gate, Instant::now());
    }

    /// `cosadm` has excluded a machine: whatever that has here is hung up. For a daemon that
    /// stands, `cosadm` asks for it at its socket.
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

    /// Another monitor needs the slot. (Where it was given back meanwhile, none does.)
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
        self.turn_away(Complaint::Crowd);
    }

    /// `false`: another monitor has told it to go.
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

    /// Notes what a question of the gate means for the slot. `false`: it is too late, the
    /// connection had to make room.
    pub(super) fn note_question(&mut self, question: &Question<'_>) -> bool {
        if self.inetd.is_none() {
            return true;
        }
        match *question {
            Question::ClientHello(..) | Question::Sealed(..) => {
                // Its walls go up while the caller's proof is looked at: earlier it would
                // keep gate and look-up from a processor, later the command from its end.
                let _ = self.relay.send_in(self.sandbox_config.as_ref());
                if !self.set_stage(PreauthStage::Asking) {
                    self.turn_away(Complaint::Crowd);
                    return false;
                }
            }
            Question::TurnedAway(why, _) => self.punish(sources::price(why, &self.limits())),
            Question::Hello(..) | Question::Gone(_) | Question::Left(_) | Question::Empty => {}
        }
        true
    }

    /// Keeps a ClientHello back as long as the caller may be a host that HOSTINFO has by its
    /// name alone: a daemon that was just started does not know its address yet. Gives
    /// back the descriptors of what is to be answered now.
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
        // Nothing is proven, and others wait for slots.
        self.set_stage(PreauthStage::Waiting);
        None
    }

    /// Whether the one connection comes from an address that HOSTINFO has.
    pub(super) fn has_listed_caller(&self) -> bool {
        let Some(connection) = &self.inetd else {
            return false;
        };
        let known: Networks = self.hosts.networks().into_iter().collect();
        known.has(connection.peer)
    }

    /// When a caller has waited long enough for the names.
    pub(super) fn names_deadline(&self) -> Option<Instant> {
        let postponed = self.inetd.as_ref()?.postponed.as_ref();
        postponed.map(|(.., until)| *until)
    }

    /// Goes on with what had to wait for the names.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.admit();
        let postponed = self
            .inetd
            .as_mut()
            .and_then(|connection| connection.postponed.take());
        // Who has left meanwhile asks nothing more.
        if let Some((message, fds, _)) = postponed.filter(|_| !self.unauthenticated.is_empty()) {
            if let Some(question) = Question::decode(&message) {
                // One that was told to go meanwhile is turned away here.
                if self.note_question(&question) {
                    self.answer(&question, fds, now);
                }
            }
        }
    }

    /// Notes whether the login waits for its turn with PAM: so long it makes room.
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
            // One that was told to go meanwhile will hear of it by its signal.
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
            // One that was told to go meanwhile will hear of it by its signal.
            Some(Order::Continue(..)) => {
                self.set_stage(PreauthStage::Waiting);
            }
            Some(Order::Prompt(..)) => {
                self.set_stage(PreauthStage::Prompted);
            }
            Some(Order::Deny(_, _, seconds, _)) => {
                self.punish(seconds);
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
                self.punish(price);
            }
            Some(Order::Taken(_)) => {
                self.leave_slot();
                // Nobody else is served, so nothing is looked up any more.
                self.look_ups.retire(SHORT, Instant::now());
                // The session may last for days.
                self.paths.forget();
            }
            _ => {}
        }
    }

    /// A gate that died of its stranger has not said what he did.
    pub(super) fn note_gate_is_lost(&mut self) {
        let is_unauthenticated = |connection: &InetdConnection| {
            connection.slot.is_some() && connection.connection.is_none()
        };
        if self.stopping.is_none() && self.inetd.as_ref().is_some_and(is_unauthenticated) {
            let price = sources::price(Complaint::Malformed, &self.limits());
            self.punish(price);
        }
    }

    fn punish(&mut self, seconds: u32) {
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
        if let Err(why) = table.punish(source, seconds, &limits, locks::uptime()) {
            self.lose_table(&why);
        }
    }

    /// Gives the slot back: the connection is a session's, or over.
    pub(super) fn leave_slot(&mut self) {
        if let Some(connection) = &mut self.inetd {
            if let (Some(table), Some(slot)) = (&connection.table, connection.slot.take()) {
                table.leave(slot);
            }
        }
    }
}
