//! `cosserver -i`: serves one connection, which inetd has accepted, on the same path as any other.
//! Such monitors share their state in the [`Table`].
//!
//! Runs in the monitor. Starts gate and relay side by side before it reads anything. The connection
//! takes a slot among those of all monitors, by the gate's own rules, and is given to the gate as
//! if the gate had accepted it. This component owns the connection until then, its slot, and the
//! table. It notes the gate's questions and the orders to it, which decide penalties, and when the
//! slot is free. Must not send the gate anything.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::children::Child;
use super::ground::Ground;
use super::inetd_table::{Admission, PreauthStage, Table};
use super::listen::adopted;
use super::look_ups::Process;
use super::options::Asked;
use crate::daemon::sources::{self, Source};
use crate::fault::Fault;
use crate::ipc::gate::{Complaint, Order, Question};
use crate::log::{log, log_ratelimited};
use crate::registry::Id;
use crate::sys::process::{self, ChildMains};
use crate::sys::sandbox::Role;
use crate::sys::{locks, socket};

/// How long a client waits for the names in HOSTINFO, of which one may be its own. Longer than name
/// servers take to answer.
const NAMES: Duration = Duration::from_secs(5);

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
    postponed: Option<Postponed>,
    /// The machines that the registry was asked about: its own, and that of its host.
    machines: Vec<Id>,
}

/// A message of the gate that waits, its descriptors, and until when.
struct Postponed {
    message: Vec<u8>,
    fds: Vec<OwnedFd>,
    until: Instant,
}

/// What becomes of the connection.
pub(super) enum SlotDecision {
    /// It has a slot: the gate gets it.
    Adopt(OwnedFd),
    /// It has one already, or waits until the names in HOSTINFO are resolved.
    Waits,
    /// It gets none.
    NoSlot,
}

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
        connection: InetdConnection::new(connection, peer),
        gate,
        relay,
        look_up,
    })
}

impl InetdConnection {
    const fn new(connection: OwnedFd, peer: IpAddr) -> Self {
        Self {
            connection: Some(connection),
            peer,
            table: None,
            slot: None,
            waits: false,
            postponed: None,
            machines: Vec::new(),
        }
    }

    /// Returns its address.
    pub(super) const fn peer(&self) -> IpAddr {
        self.peer
    }

    // ---- the slot ----

    /// Opens the table of all monitors and returns it. Without it the connection is served all the
    /// same: the table bounds load only, and must not lock out an administrator who has to free a
    /// full disk.
    pub(super) fn open_table(&mut self, ground: &mut Ground) -> Option<Rc<Table>> {
        match Table::open(&ground.paths.inetd_table()) {
            Ok(table) => {
                // Without this, `cosadm` cannot find this monitor. Its connection is no less
                // secure.
                let _ = table.be_found();
                self.table = Some(Rc::new(table));
            }
            Err(why) => self.lose_table(ground, &why),
        }
        self.table.clone()
    }

    /// Decides whether the connection may stay, as far as that is known. `is_listed`: HOSTINFO
    /// lists its address. While its names are being resolved, the connection may still be a host's.
    pub(super) fn admit(
        &mut self,
        ground: &mut Ground,
        is_listed: impl FnOnce(IpAddr) -> bool,
        is_resolving: bool,
    ) -> SlotDecision {
        if self.connection.is_none() {
            return SlotDecision::Waits;
        }
        let source = Source::of(self.peer);
        let admitted = self.table.as_ref().map(|table| {
            let limits = ground.gate_limits();
            table.admit(source, is_listed(self.peer), &limits, locks::uptime())
        });
        match admitted {
            Some(Ok(Admission::NoSlot)) if is_resolving => return SlotDecision::Waits,
            Some(Ok(Admission::NoSlot)) => return SlotDecision::NoSlot,
            Some(Ok(Admission::Slot(slot))) => self.slot = Some(slot),
            Some(Err(why)) => self.lose_table(ground, &why),
            None => {}
        }
        self.connection
            .take()
            .map_or(SlotDecision::Waits, SlotDecision::Adopt)
    }

    /// Continues without the table, as do the logins that share it.
    fn lose_table(&mut self, ground: &mut Ground, why: &dyn std::fmt::Display) {
        if let Some(table) = self.table.take() {
            table.lose();
        }
        self.slot = None;
        let words = "penalties and slots of other connections are not known";
        log!(ground.log, Warning, "no-table", why, so = words);
    }

    /// Closes the connection, if the gate does not have it yet, and releases its slot.
    pub(super) fn close(&mut self, ground: &mut Ground, why: Complaint) {
        self.connection = None;
        log_ratelimited!(
            ground.log,
            Warning,
            "closed",
            peer = self.peer,
            cause = why.name()
        );
        self.leave_slot();
    }

    /// Whether another monitor needs the slot, and gets it from this one.
    pub(super) fn must_make_room(&self) -> bool {
        let slot = self.table.as_ref().zip(self.slot);
        slot.is_some_and(|(table, slot)| !table.stays(slot))
    }

    /// Notes the connection's stage in the table. `false`: another monitor has evicted it.
    fn set_stage(&mut self, ground: &mut Ground, stage: PreauthStage) -> bool {
        match (&self.table, self.slot) {
            (Some(table), Some(slot)) => match table.set_stage(slot, stage) {
                Ok(stays) => stays,
                Err(why) => {
                    self.lose_table(ground, &why);
                    true
                }
            },
            _ => true,
        }
    }

    /// Releases the slot: the connection is authenticated, or closed.
    pub(super) fn leave_slot(&mut self) {
        if let (Some(table), Some(slot)) = (&self.table, self.slot.take()) {
            table.leave(slot);
        }
    }

    // ---- questions and orders ----

    /// Notes what a question of the gate means for the slot. `false`: the connection was evicted
    /// before.
    pub(super) fn note_question(&mut self, ground: &mut Ground, question: &Question<'_>) -> bool {
        match *question {
            Question::ClientHello(..) | Question::Sealed(..) => {
                return self.set_stage(ground, PreauthStage::AwaitsDecision);
            }
            Question::Rejected(why, _) => {
                let price = sources::price(why, &ground.gate_limits());
                self.penalise(ground, price);
            }
            Question::Hello(..) | Question::Gone(_) | Question::Left(_) | Question::Empty => {}
        }
        true
    }

    /// Postpones a ClientHello while the client may be a host that HOSTINFO lists by name only: a
    /// new daemon does not know its address yet.
    pub(super) fn postpone(
        &mut self,
        ground: &mut Ground,
        message: Vec<u8>,
        fds: Vec<OwnedFd>,
        now: Instant,
    ) {
        let until = now + NAMES;
        self.postponed = Some(Postponed {
            message,
            fds,
            until,
        });
        // It has not authenticated, and others wait for slots.
        self.set_stage(ground, PreauthStage::Waiting);
    }

    /// Returns until when a client waits for the names.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.postponed.as_ref().map(|postponed| postponed.until)
    }

    /// Returns what waited for the names.
    pub(super) fn take_postponed(&mut self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        let postponed = self.postponed.take()?;
        Some((postponed.message, postponed.fds))
    }

    /// Notes a machine that the registry is asked about.
    pub(super) fn note_machine(&mut self, id: Id) {
        self.machines.retain(|known| *known != id);
        self.machines.push(id);
    }

    /// Returns the machines that the registry was asked about.
    pub(super) fn machines(&self) -> Vec<Id> {
        self.machines.clone()
    }

    /// Notes whether the login waits for a PAM slot: if so, it may be evicted.
    pub(super) fn note_pam_slot(&mut self, ground: &mut Ground, waits: bool) {
        if std::mem::replace(&mut self.waits, waits) != waits {
            // If it was evicted before, the signal for that follows.
            let stage = match waits {
                true => PreauthStage::Prompted,
                false => PreauthStage::AwaitsDecision,
            };
            self.set_stage(ground, stage);
        }
    }

    /// Notes what an order to the gate means for slot and penalty. `has_login_slot`: whether the
    /// refused login holds its slot until the refusal is sent.
    pub(super) fn note_order(
        &mut self,
        ground: &mut Ground,
        order: &Order<'_>,
        has_login_slot: bool,
    ) {
        let stage = match *order {
            Order::Continue(..) => PreauthStage::Waiting,
            Order::Prompt(..) => PreauthStage::Prompted,
            Order::Deny(_, _, seconds, _) => {
                self.penalise(ground, seconds);
                match has_login_slot {
                    true => PreauthStage::Refused,
                    false => PreauthStage::Waiting,
                }
            }
            Order::MayGo(_, true) => PreauthStage::Waiting,
            Order::MayGo(_, false) => PreauthStage::AwaitsDecision,
            Order::Close(_) => return self.penalise_malformed(ground),
            Order::Forget(_) => return self.leave_slot(),
            Order::Limits(_)
            | Order::Networks(..)
            | Order::Listen
            | Order::StopListening
            | Order::Adopt
            | Order::ServerHello(..) => return,
        };
        // If it was evicted before, the signal for that follows.
        self.set_stage(ground, stage);
    }

    /// Penalizes the peer of an unauthenticated connection whose gate died: it may have caused
    /// that.
    pub(super) fn gate_is_lost(&mut self, ground: &mut Ground) {
        if !ground.is_stopping && self.slot.is_some() && self.connection.is_none() {
            self.penalise_malformed(ground);
        }
    }

    fn penalise_malformed(&mut self, ground: &mut Ground) {
        let price = sources::price(Complaint::Malformed, &ground.gate_limits());
        self.penalise(ground, price);
    }

    fn penalise(&mut self, ground: &mut Ground, seconds: u32) {
        let is_exempt = ground.exempt().has(self.peer);
        let Some(table) = self.table.as_ref().filter(|_| !is_exempt) else {
            return;
        };
        let (source, limits) = (Source::of(self.peer), ground.gate_limits());
        if let Err(why) = table.penalise(source, seconds, &limits, locks::uptime()) {
            self.lose_table(ground, &why);
        }
    }
}
