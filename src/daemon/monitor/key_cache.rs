//! The handshake's arithmetic that can be done beforehand: an ephemeral pair in
//! stock, and the secrets that the host's key shares with machines that have
//! proven themselves. Diffie-Hellman is most of what an exec costs the monitor.

use std::cell::Cell;
use std::sync::Arc;

use crate::protocol::noise::{Prepared, SharedSecrets};
use crate::secret::{KeyPair, PublicKey, Secret};

/// Machines whose shared secret is kept. One that never proved itself is not.
const KEPT: usize = 1024;

/// What is in stock.
#[derive(Default)]
pub(super) struct KeyCache {
    ephemeral: Option<KeyPair>,
    shared: Arc<SharedSecrets>,
    /// The machine that proved itself last and is not in stock yet.
    owed: Option<PublicKey>,
    /// Key agreements that the handshake before was spared, as it is known.
    spared: Cell<u8>,
}

impl KeyCache {
    /// What there is for the next handshake. The ephemeral pair leaves the stock.
    pub(super) fn take(&mut self) -> Prepared {
        Prepared::new(self.ephemeral.take(), Arc::clone(&self.shared))
    }

    /// The secret that the host's key shares with a machine's: known, or computed
    /// now. `None`: that key is of low order.
    pub(super) fn agree(&self, host: &KeyPair, machine: &PublicKey) -> Option<Secret> {
        if self.shared.has(&host.public, machine) {
            self.spared.set(self.spared.get().saturating_add(1));
        }
        self.shared.agree(host, machine)
    }

    /// Takes note of a handshake that has opened: whether it was spared a key agreement.
    pub(super) fn opened(&self, host: &PublicKey, machine: &PublicKey) {
        self.spared.set(self.shared.has(host, machine).into());
    }

    /// Makes up for what a handshake that is refused was spared: that its machine has proven
    /// itself before must not show.
    pub(super) fn make_up(&self, host: &KeyPair) {
        for _ in 0..self.spared.take() {
            std::hint::black_box(SharedSecrets::default().agree(host, &host.public));
        }
    }

    /// Takes note of a machine that has proven itself.
    pub(super) fn authenticated(&mut self, host: &PublicKey, machine: &PublicKey) {
        if !self.shared.has(host, machine) {
            self.owed = Some(*machine);
        }
    }

    /// Fills the stock up: before each wait, so that what has just been answered did
    /// not wait for it.
    pub(super) fn fill(&mut self, host: &KeyPair) {
        if self.ephemeral.is_none() {
            self.ephemeral = KeyPair::random().ok();
        }
        if let Some(machine) = self.owed.take() {
            let shared = Arc::make_mut(&mut self.shared);
            if shared.len() >= KEPT {
                *shared = SharedSecrets::default();
            }
            // A key of low order has proven nothing.
            let _ = shared.add(host, &machine);
        }
    }
}
