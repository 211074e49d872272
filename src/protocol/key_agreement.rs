//! Key agreement for the handshake, and what of it can be computed in advance.
//!
//! Used by the monitor and by the client. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Malformed;
use crate::secret::{KeyPair, PublicKey, Secret};

pub(super) const BROKEN: Malformed =
    Malformed("the handshake failed: other keys, or changed bytes");

/// Key agreement that was computed before the handshake: nothing, or an ephemeral pair for one
/// handshake, or shared secrets. Diffie-Hellman takes most of a handshake's time, and these do not
/// depend on the peer's messages.
#[derive(Default)]
pub struct Prepared {
    pub(super) ephemeral: Option<KeyPair>,
    pub(super) shared: Arc<SharedSecrets>,
}

impl Prepared {
    /// Takes an ephemeral pair, and secrets that were computed before.
    pub const fn new(ephemeral: Option<KeyPair>, shared: Arc<SharedSecrets>) -> Self {
        Self { ephemeral, shared }
    }

    /// Computes all that an initiator can before the hellos are exchanged.
    ///
    /// # Errors
    /// No random bytes were available, or the host's key is of low order.
    pub fn for_initiator(own: &KeyPair, host: &PublicKey) -> Result<Self, Malformed> {
        let ephemeral = KeyPair::random().map_err(|_| BROKEN)?;
        let mut shared = SharedSecrets::default();
        for pair in [&ephemeral, own] {
            shared.add(pair, host)?;
        }
        Ok(Self {
            ephemeral: Some(ephemeral),
            shared: Arc::new(shared),
        })
    }
}

/// Shared secrets of key pairs, indexed by both public keys. It is no hash map, because a `HashMap`
/// would panic in the client where getrandom(2) fails.
#[derive(Clone, Default)]
pub struct SharedSecrets(BTreeMap<(PublicKey, PublicKey), Secret>);

impl SharedSecrets {
    /// Computes a shared secret and keeps it.
    ///
    /// # Errors
    /// The peer's key is of low order.
    pub fn add(&mut self, own: &KeyPair, theirs: &PublicKey) -> Result<(), Malformed> {
        self.0
            .insert((own.public, *theirs), agree(own, theirs).ok_or(BROKEN)?);
        Ok(())
    }

    /// Returns the shared secret of two keys: the one that is kept, or one that is computed now.
    /// `None`: `theirs` is of low order.
    pub fn agree(&self, own: &KeyPair, theirs: &PublicKey) -> Option<Secret> {
        let known = self.0.get(&(own.public, *theirs)).cloned();
        known.or_else(|| agree(own, theirs))
    }

    /// Returns whether the secret of these keys is kept.
    pub fn has(&self, own: &PublicKey, theirs: &PublicKey) -> bool {
        self.0.contains_key(&(*own, *theirs))
    }

    /// Returns how many secrets are kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no secret is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Computes the shared secret of two keys. `None`: `theirs` is of low order.
pub(super) fn agree(own: &KeyPair, theirs: &PublicKey) -> Option<Secret> {
    crate::curve::agree(own.private.expose(), &theirs.0).map(|shared| Secret::new(*shared))
}
