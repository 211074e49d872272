//! X25519 (RFC 7748), with the fastest code that this machine can run.
//!
//! Key agreement is most of a connection's cost for both sides. graviola has formally verified
//! assembly for it (s2n-bignum's), for processors since about 2014; every other machine uses
//! x25519-dalek. Both give the same bytes.

use zeroize::Zeroizing;

/// Returns the public half of a private key.
pub fn public(private: &[u8; 32]) -> [u8; 32] {
    #[cfg(all(
        feature = "graviola",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    if graviola::util::is_cpu_supported() {
        return by_graviola::public(private);
    }
    by_dalek::public(private)
}

/// Returns the secret that a private key shares with a public one. `None`: the public key is of low
/// order, so the result would be zeros for every private key.
pub fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    #[cfg(all(
        feature = "graviola",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    if graviola::util::is_cpu_supported() {
        return by_graviola::agree(private, public);
    }
    by_dalek::agree(private, public)
}

mod by_dalek {
    use subtle::ConstantTimeEq;
    use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
    use zeroize::Zeroizing;

    pub(super) fn public(private: &[u8; 32]) -> [u8; 32] {
        x25519(*private, X25519_BASEPOINT_BYTES)
    }

    pub(super) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = Zeroizing::new(x25519(*private, *public));
        let zeros = bool::from(shared.ct_eq(&[0; 32]));
        (!zeros).then_some(shared)
    }
}

#[cfg(all(
    feature = "graviola",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod by_graviola {
    use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
    use zeroize::Zeroizing;

    pub(super) fn public(private: &[u8; 32]) -> [u8; 32] {
        StaticPrivateKey::from_array(private)
            .public_key()
            .as_bytes()
    }

    pub(super) fn agree(private: &[u8; 32], public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let private = StaticPrivateKey::from_array(private);
        let shared = private
            .diffie_hellman(&PublicKey::from_array(public))
            .ok()?;
        Some(Zeroizing::new(shared.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_7748_by_whatever_runs_here() {
        // Section 5.2: one iteration from k = u = 9.
        let mut nine = [0; 32];
        nine[0] = 9;
        let once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
        assert_eq!(crate::secret::to_hex(&public(&nine)), once);
        assert_eq!(crate::secret::to_hex(&*agree(&nine, &nine).unwrap()), once);
        assert!(agree(&nine, &[0; 32]).is_none(), "a key of low order");
        assert!(by_dalek::agree(&nine, &[0; 32]).is_none());
    }

    #[test]
    fn both_give_the_same_bytes() {
        for n in 0..64_u8 {
            let (a, b) = ([n; 32], [n ^ 0xa5; 32]);
            assert_eq!(public(&a), by_dalek::public(&a));
            let their = public(&b);
            assert_eq!(agree(&a, &their), by_dalek::agree(&a, &their));
            // The top bit of a public key is ignored.
            let mut high = their;
            high[31] |= 0x80;
            assert_eq!(agree(&a, &high), by_dalek::agree(&a, &high));
        }
    }
}
