//! Secrets and public keys as values: 32 bytes that are wiped when dropped, cannot be printed, and
//! compare in constant time.
//!
//! Used by the monitor, the client and `cosadm`. The gate does not use this module.

use rand::TryRng;
use rand::rngs::SysRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::fault::Fault;

/// A secret of 32 bytes: a private key, a cookie, a traffic key. It has no
/// `Debug` and no `Display`, compares in constant time, and is wiped on drop.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the bytes; the caller must wipe its own copy.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns 32 bytes from the kernel's generator.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn random() -> Result<Self, Fault> {
        random().map(Self)
    }

    /// Returns the bytes, for the one call that needs them.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns whether both are equal, in a time that does not depend on where they differ.
    pub fn same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Parses 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// Returns the secret as 64 hexadecimal digits, wiped when dropped: for its file or the
    /// invitation card, never for a log.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(to_hex(&self.0))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// An X25519 public key (RFC 7748), 32 bytes. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Parses 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// Returns the key as 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }
}

/// An X25519 private key with its public half, computed once.
#[derive(Clone)]
pub struct KeyPair {
    /// The private half.
    pub private: Secret,
    /// The public half.
    pub public: PublicKey,
}

impl KeyPair {
    /// Returns the pair of a private key.
    pub fn of(private: Secret) -> Self {
        let public = PublicKey(crate::curve::public(private.expose()));
        Self { private, public }
    }

    /// Creates a new pair.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn random() -> Result<Self, Fault> {
        Secret::random().map(Self::of)
    }
}

/// Returns `N` random bytes from the kernel's generator.
///
/// # Errors
/// The kernel gave no random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Fills the bytes from the kernel's generator.
///
/// # Errors
/// The kernel gave no random bytes.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), Fault> {
    SysRng
        .try_fill_bytes(bytes)
        .map_err(|e| Fault::new(format!("no random bytes: {e}")))
}

/// Returns whether two byte strings are equal, in constant time for their length.
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Returns the lower-case hexadecimal digits of some bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 15)])
        .collect()
}

/// Returns the bytes of exactly as many hexadecimal digits; `None`: the text is something else.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for digit in pair {
            let digit = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(digit).ok()?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip() {
        let s = Secret::random().unwrap();
        assert!(Secret::from_hex(&s.to_hex()).unwrap().same(&s));
        assert!(Secret::from_hex("00").is_none());
        assert!(Secret::from_hex(&"zz".repeat(32)).is_none());
        assert!(Secret::from_hex(&"é".repeat(32)).is_none());
    }

    /// The bytes of a dropped secret are wiped: the test reads this process's memory at the
    /// secret's former place, which is still mapped.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_dropped_secret_is_wiped() {
        use std::os::unix::fs::FileExt;
        let bytes: [u8; 32] = random().unwrap();
        let mut place = Box::new(Some(Secret::new(bytes)));
        let at = std::ptr::from_ref(place.as_ref().as_ref().unwrap()).addr();
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let there = |place: &Option<Secret>| {
            std::hint::black_box(place);
            let mut found = [0_u8; 32];
            memory
                .read_exact_at(&mut found, u64::try_from(at).unwrap())
                .unwrap();
            found
        };
        assert!(there(&place) == bytes, "it is not where it was looked for");
        *place = None;
        assert_eq!(there(&place), [0; 32]);
    }

    #[test]
    fn the_public_half_is_rfc_7748s() {
        // RFC 7748, section 5.2: one iteration of X25519 from k = u = 9.
        let mut nine = [0; 32];
        nine[0] = 9;
        assert_eq!(
            KeyPair::of(Secret::new(nine)).public.to_hex(),
            "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
        );
    }
}
