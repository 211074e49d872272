//! The local sockets: `run/sign` for users, `run/control` for the administrator.
//!
//! Runs in the monitor. Owns both sockets and their clients. The kernel reports each client's user.
//! Must not block on a client.

mod callers;
pub(super) mod control;
mod signing;

use std::time::Instant;

use super::ground::Ground;
use super::names::Names;
use crate::fault::Fault;
use crate::log::log_by_user;
use crate::sys::id_number::IdNumber;
use control::Control;
use signing::Signer;

/// The local sockets.
pub(super) struct LocalSockets {
    pub(super) signer: Signer,
    pub(super) control: Control,
}

impl LocalSockets {
    /// Returns them closed. `confined`: the user of the daemon's own confined processes.
    pub(super) const fn new(confined: Option<IdNumber>) -> Self {
        Self {
            signer: Signer::new(confined),
            control: Control::new(),
        }
    }

    /// Opens the sockets that are not open yet. Returns why one could not be opened; the daemon
    /// serves without them, too.
    pub(super) fn open(&mut self, ground: &Ground, names: &Names) -> Vec<Fault> {
        let mut wrong = Vec::new();
        if !self.signer.callers.is_open() {
            wrong.extend(self.signer.open(ground, names).err());
        }
        if !self.control.callers.is_open() {
            wrong.extend(self.control.open(ground).err());
        }
        wrong
    }

    /// Gives free slots to waiting clients, and closes the sockets with data that is never read:
    /// descriptors, or more than was asked for.
    pub(super) fn admit(&mut self, ground: &mut Ground, now: Instant) {
        let registry = ground.poll.registry();
        self.signer.callers.admit(registry, now);
        self.control.callers.admit(registry, now);
        let unreaped = &mut ground.unreaped;
        let mut users = self.signer.callers.close_unread(registry, unreaped, now);
        users.extend(self.control.callers.close_unread(registry, unreaped, now));
        for uid in users {
            log_by_user!(ground.log, uid, Warning, "unread", uid);
        }
    }

    /// Returns when something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let signer = self.signer.callers.deadline().into_iter();
        signer.chain(self.control.deadline()).min()
    }

    /// Drops the clients whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.signer.callers.expire(now);
        self.control.callers.expire(now);
    }

    /// Closes both, and removes their files.
    pub(super) fn close(&mut self) {
        self.signer.callers.close();
        self.control.callers.close();
    }
}
