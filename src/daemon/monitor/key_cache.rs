//! The cache of precomputed keys: an ephemeral pair, and the secrets that the host's key shares
//! with machines that have authenticated. Diffie-Hellman is most of what an exec costs the monitor.
//!
//! Runs in the monitor. Owns these keys. Must not keep the secret of a machine that has not
//! authenticated, or use an ephemeral pair twice.

use std::cell::Cell;
use std::sync::Arc;

use crate::protocol::noise::{Prepared, SharedSecrets};
use crate::secret::{KeyPair, PublicKey, Secret};

/// Most machines whose shared secret is kept. Only those that have authenticated count.
const KEPT: usize = 1024;

/// The cached keys.
#[derive(Default)]
pub(super) struct KeyCache {
    ephemeral: Option<KeyPair>,
    shared: Arc<SharedSecrets>,
    /// The machine that authenticated last and is not cached yet.
    owed: Option<PublicKey>,
    /// How many key agreements the previous handshake saved, as far as is known.
    spared: Cell<u8>,
}

impl KeyCache {
    /// Returns the keys for the next handshake, and removes the ephemeral pair.
    pub(super) fn take(&mut self) -> Prepared {
        Prepared::new(self.ephemeral.take(), Arc::clone(&self.shared))
    }

    /// Returns the secret that the host's key shares with a machine's: cached, or computed now.
    /// `None`: the machine's key is of low order.
    pub(super) fn agree(&self, host: &KeyPair, machine: &PublicKey) -> Option<Secret> {
        if self.shared.has(&host.public, machine) {
            self.spared.set(self.spared.get().saturating_add(1));
        }
        self.shared.agree(host, machine)
    }

    /// Notes a handshake that has opened, and whether it saved a key agreement.
    pub(super) fn opened(&self, host: &PublicKey, machine: &PublicKey) {
        self.spared.set(self.shared.has(host, machine).into());
    }

    /// Makes up for the key agreements that a refused handshake saved: its duration must not reveal
    /// that its machine has authenticated before.
    pub(super) fn make_up(&self, host: &KeyPair) {
        for _ in 0..self.spared.take() {
            std::hint::black_box(SharedSecrets::default().agree(host, &host.public));
        }
    }

    /// Notes a machine that has authenticated.
    pub(super) fn authenticated(&mut self, host: &PublicKey, machine: &PublicKey) {
        if !self.shared.has(host, machine) {
            self.owed = Some(*machine);
        }
    }

    /// Refills the cache. Called before each wait, so that no answer is delayed by it.
    pub(super) fn fill(&mut self, host: &KeyPair) {
        if self.ephemeral.is_none() {
            self.ephemeral = KeyPair::random().ok();
        }
        if let Some(machine) = self.owed.take() {
            let shared = Arc::make_mut(&mut self.shared);
            if shared.len() >= KEPT {
                *shared = SharedSecrets::default();
            }
            // A key of low order has authenticated nothing.
            let _ = shared.add(host, &machine);
        }
    }
}
