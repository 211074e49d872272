//! The primitives that `snow` makes the handshake of: X25519 of [`crate::curve`], the cipher of
//! [`super::cipher`], SHA-256, and the kernel's random bytes.
//!
//! `snow` has none of its own here: its defaults would bring a second cipher, hash and curve.

use std::sync::Arc;

use ring::aead::Aad;
use sha2::{Digest, Sha256};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{self, Dh, Hash, Random};
use zeroize::Zeroizing;

use super::cipher::{Cipher, nonce};
use super::hello::Suite;
use super::key_agreement::{Prepared, SharedSecrets};
use super::limits;
use crate::secret::{KeyPair, PublicKey, Secret, fill_random};

/// Gives `snow` the primitives of one handshake, with a key agreement that uses what was computed
/// before: the own public key, which `snow` would compute again for every handshake, and what is
/// [`Prepared`].
pub(super) struct Resolver {
    suite: Suite,
    own: KeyPair,
    prepared: Prepared,
}

impl Resolver {
    pub(super) fn new(suite: Suite, own: &KeyPair, prepared: Prepared) -> Self {
        let own = own.clone();
        Self {
            suite,
            own,
            prepared,
        }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(KernelRandom))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            // snow asks for the long-term key's instance first, then for the ephemeral key's. The
            // next call, `set` or `generate`, shows which one it is.
            DHChoice::Curve25519 => Some(Box::new(X25519 {
                pair: self.own.clone(),
                known: self.own.clone(),
                next: self.prepared.ephemeral.clone(),
                shared: Arc::clone(&self.prepared.shared),
            })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256)
            .then(|| Box::new(HandshakeHash(Sha256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn types::Cipher>> {
        // The name of the handshake, and so the choice, was made of the suite.
        let suite = self.suite;
        Some(Box::new(HandshakeCipher { suite, key: None }))
    }
}

struct KernelRandom;

impl Random for KernelRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        fill_random(dest).map_err(|_| Error::Rng)
    }
}

struct HandshakeHash(Sha256);

impl Hash for HandshakeHash {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        // snow's buffers are 64 bytes, for the largest hash.
        if let Some(out) = out.first_chunk_mut::<32>() {
            *out = self.0.clone().finalize().into();
        }
    }
}

struct HandshakeCipher {
    suite: Suite,
    /// `None` until `snow` has set the first one.
    key: Option<Cipher>,
}

impl types::Cipher for HandshakeCipher {
    fn name(&self) -> &'static str {
        match self.suite {
            Suite::AesGcm => "AESGCM",
            Suite::ChaChaPoly => "ChaChaPoly",
        }
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = Cipher::new(self.suite, key).ok();
    }

    /// Returns the length of what is in `out`: 0, which the peer rejects, where there is no key or
    /// no room; `snow` sets a key first, and checks its buffers.
    fn encrypt(&self, counter: u64, with: &[u8], text: &[u8], out: &mut [u8]) -> usize {
        let (Some(cipher), Some((sealed, rest))) =
            (&self.key, out.split_at_mut_checked(text.len()))
        else {
            return 0;
        };
        let Some(tag) = rest.first_chunk_mut::<{ limits::TAG }>() else {
            return 0;
        };
        sealed.copy_from_slice(text);
        let nonce = nonce(self.suite, counter);
        let made = cipher
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(with), sealed);
        match made.map(|made| <[u8; limits::TAG]>::try_from(made.as_ref())) {
            Ok(Ok(made)) => *tag = made,
            Ok(Err(_)) | Err(_) => {
                sealed.fill(0);
                return 0;
            }
        }
        text.len().saturating_add(limits::TAG)
    }

    fn decrypt(
        &self,
        counter: u64,
        with: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let cipher = self.key.as_ref().ok_or(Error::Decrypt)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let nonce = nonce(self.suite, counter);
        let opened = cipher.key.open_in_place(nonce, Aad::from(with), &mut text);
        let opened = opened.map_err(|_| Error::Decrypt)?;
        out.get_mut(..opened.len())
            .ok_or(Error::Decrypt)?
            .copy_from_slice(opened);
        Ok(opened.len())
    }
}

struct X25519 {
    pair: KeyPair,
    known: KeyPair,
    next: Option<KeyPair>,
    shared: Arc<SharedSecrets>,
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        // snow passes what `builder` gave it: 32 bytes.
        let Ok(bytes) = <[u8; 32]>::try_from(private) else {
            return;
        };
        let private = Secret::new(bytes);
        self.pair = if private.same(&self.known.private) {
            self.known.clone()
        } else {
            KeyPair::of(private)
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        if let Some(prepared) = self.next.take() {
            self.pair = prepared;
            return Ok(());
        }
        let mut private = Zeroizing::new([0_u8; 32]);
        rng.try_fill_bytes(private.as_mut_slice())?;
        self.pair = KeyPair::of(Secret::new(*private));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.pair.public.0
    }

    fn privkey(&self) -> &[u8] {
        self.pair.private.expose()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let theirs = public.get(..32).and_then(|p| p.try_into().ok());
        let theirs = PublicKey(theirs.ok_or(Error::Dh)?);
        let shared = self.shared.agree(&self.pair, &theirs);
        let shared = shared.ok_or(Error::Dh)?;
        out.get_mut(..32)
            .ok_or(Error::Dh)?
            .copy_from_slice(shared.expose());
        Ok(())
    }
}
