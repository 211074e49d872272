//! The proof of seed 000: the monitor's nonce, hashed with the request under a key that only the
//! two hosts have.
//!
//! `K = HKDF-SHA-256(salt = none, ikm = cookie, info = "cosserver hash v1")`, then HMAC-SHA-256
//! under `K` over label, both names, both public keys, nonce and the request's exact bytes, each
//! after its length (32 bits, big-endian).
//!
//! Where a host's signer vouches for a user, the caller's key is the user's own, and labels and
//! info say `vouch`. The salt is the secret that the machine key of the user's host shares with the
//! server's key, and that machine key follows the caller's: one hash shows both cookie and machine
//! key.
//!
//! Pure; used by the client, the signer and the monitor.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Malformed, limits};
use crate::secret::{PublicKey, Secret, same_bytes};

/// The fields that a proof covers.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The calling host's name.
    pub caller: &'a str,
    /// The server host's name.
    pub server: &'a str,
    /// The calling machine's public key, as the handshake has authenticated it.
    pub caller_key: &'a PublicKey,
    /// The server host's public key.
    pub server_key: &'a PublicKey,
    /// The nonce of this connection.
    pub nonce: &'a [u8; limits::NONCE],
    /// The request's exact bytes.
    pub request: &'a [u8],
    /// The machine that vouches for the caller, if the caller is a user of the calling host.
    pub voucher: Option<Voucher<'a>>,
}

/// The machine that vouches for one of its users.
#[derive(Clone, Copy)]
pub struct Voucher<'a> {
    /// Its public machine key.
    pub machine: &'a PublicKey,
    /// The secret that this key and the server's share (X25519).
    pub shared: &'a Secret,
}

/// The side that makes the proof. Each side has its own label, so neither can send the other's
/// proof back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The calling host's proof, in the ClientHello.
    Client,
    /// The server's, in AuthAccept.
    Server,
}

impl Side {
    const fn label(self, vouched: bool) -> &'static str {
        match (self, vouched) {
            (Self::Client, false) => "cosserver hash v1 client",
            (Self::Server, false) => "cosserver hash v1 server",
            (Self::Client, true) => "cosserver vouch v1 client",
            (Self::Server, true) => "cosserver vouch v1 server",
        }
    }
}

/// Computes the proof of one side, 32 bytes.
///
/// # Errors
/// None that a claim can cause.
pub fn make(cookie: &Secret, side: Side, claim: &Claim<'_>) -> Result<[u8; 32], Malformed> {
    let mut key = Zeroizing::new([0_u8; 32]);
    let (salt, info): (Option<&[u8]>, &[u8]) = match &claim.voucher {
        None => (None, b"cosserver hash v1"),
        Some(voucher) => (Some(voucher.shared.expose()), b"cosserver vouch v1"),
    };
    Hkdf::<Sha256>::new(salt, cookie.expose())
        .expand(info, key.as_mut_slice())
        .map_err(|_| Malformed("a key that cannot be derived"))?;
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.as_slice())
        .map_err(|_| Malformed("a key that cannot be used"))?;
    let voucher = claim.voucher.as_ref().map(|v| v.machine.0.as_slice());
    let parts = [
        side.label(voucher.is_some()).as_bytes(),
        claim.caller.as_bytes(),
        claim.server.as_bytes(),
        &claim.caller_key.0,
    ];
    let rest = [&claim.server_key.0, claim.nonce.as_slice(), claim.request];
    for part in parts.into_iter().chain(voucher).chain(rest) {
        let length = u32::try_from(part.len()).map_err(|_| Malformed("a claim too long"))?;
        mac.update(&length.to_be_bytes());
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().into())
}

/// Returns whether a proof is right, in constant time.
pub fn verify(cookie: &Secret, side: Side, claim: &Claim<'_>, proof: &[u8; 32]) -> bool {
    make(cookie, side, claim).is_ok_and(|right| same_bytes(&right, proof))
}
