//! The suite's cipher by `ring`, for the handshake and for the records after it.
//!
//! Used by every process that has keys. Wipes a key when it is dropped.

use ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::Malformed;
use super::hello::Suite;

pub(super) const UNUSABLE: Malformed = Malformed("a traffic key that cannot be used");

/// A key as `ring` has it. It is boxed, because a value that moves leaves copies behind.
pub(super) struct Cipher {
    pub(super) suite: Suite,
    pub(super) key: Box<LessSafeKey>,
}

impl Cipher {
    /// Takes the bytes of a key.
    ///
    /// # Errors
    /// `ring` does not take them.
    pub(super) fn new(suite: Suite, bytes: &[u8; 32]) -> Result<Self, Malformed> {
        let algorithm = match suite {
            Suite::AesGcm => &AES_256_GCM,
            Suite::ChaChaPoly => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, bytes).map_err(|_| UNUSABLE)?;
        let key = Box::new(LessSafeKey::new(key));
        Ok(Self { suite, key })
    }
}

impl Drop for Cipher {
    /// `ring` does not wipe its keys, so a key of zeros overwrites this one.
    fn drop(&mut self) {
        let algorithm = self.key.algorithm();
        if let Ok(nothing) = UnboundKey::new(algorithm, &[0; 32]) {
            *self.key = LessSafeKey::new(nothing);
        }
    }
}

/// Returns Noise's nonce, section 12: after four zero bytes the counter, big-endian for AESGCM,
/// little-endian for ChaChaPoly.
pub(super) fn nonce(suite: Suite, counter: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = match suite {
        Suite::AesGcm => counter.to_be_bytes(),
        Suite::ChaChaPoly => counter.to_le_bytes(),
    };
    Nonce::assume_unique_for_key([0, 0, 0, 0, a, b, c, d, e, f, g, h])
}
