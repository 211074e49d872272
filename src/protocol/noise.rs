//! The handshake: `Noise_IK_25519_{AESGCM|ChaChaPoly}_SHA256` by `snow`. Its prologue covers every
//! byte that was sent in the clear.
//!
//! The monitor runs it as responder, the client as initiator.

use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use super::hello::Suite;
use super::key_agreement::{BROKEN, agree};
pub use super::key_agreement::{Prepared, SharedSecrets};
use super::primitives::Resolver;
use super::{Malformed, limits};
use crate::secret::{KeyPair, PublicKey, Secret};

const LABEL: &[u8] = b"cosserver v1";

fn prologue(hello: &[u8], server_hello: &[u8]) -> Vec<u8> {
    [LABEL, hello, server_hello].concat()
}

fn builder<'a>(
    suite: Suite,
    own: &'a KeyPair,
    prologue: &'a [u8],
    prepared: Prepared,
) -> Result<snow::Builder<'a>, Malformed> {
    let name = match suite {
        Suite::AesGcm => "Noise_IK_25519_AESGCM_SHA256",
        Suite::ChaChaPoly => "Noise_IK_25519_ChaChaPoly_SHA256",
    };
    let params = name.parse().map_err(|_| BROKEN)?;
    let resolver = Resolver::new(suite, own, prepared);
    snow::Builder::with_resolver(params, Box::new(resolver))
        .local_private_key(own.private.expose())
        .and_then(|b| b.prologue(prologue))
        .map_err(|_| BROKEN)
}

/// The client's side, before message 1 is made.
pub struct Initiator(Suite, snow::HandshakeState);

impl Initiator {
    /// Begins a handshake with the host whose public key is `host`, after the two hellos (whole
    /// records).
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(
        suite: Suite,
        own: &KeyPair,
        host: &PublicKey,
        hello: &[u8],
        server_hello: &[u8],
        prepared: Prepared,
    ) -> Result<Self, Malformed> {
        builder(suite, own, &prologue(hello, server_hello), prepared)?
            .remote_public_key(&host.0)
            .and_then(snow::Builder::build_initiator)
            .map(|state| Self(suite, state))
            .map_err(|_| BROKEN)
    }

    /// Returns message 1, with the opening as its payload.
    ///
    /// # Errors
    /// The payload is too long, or no random bytes were available.
    pub fn message_1(&mut self, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        write(&mut self.1, payload)
    }

    /// Opens message 2 and returns its payload, the answer, and the keys.
    ///
    /// # Errors
    /// The called host did not make the message.
    pub fn read_2(mut self, message: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Keys), Malformed> {
        let payload = read(&mut self.1, message)?;
        Ok((payload, keys(self.0, self.1)))
    }
}

/// The server's side after message 1 was opened, before message 2 is made.
pub struct Responder(Suite, snow::HandshakeState);

/// The content of message 1.
pub struct Opened {
    /// The machine key that the handshake has authenticated.
    pub machine: PublicKey,
    /// The opening's bytes.
    pub payload: Zeroizing<Vec<u8>>,
    /// The state that makes the answer.
    pub responder: Responder,
}

impl Responder {
    /// Opens message 1 after the two hellos (whole records).
    ///
    /// # Errors
    /// It was made for another host, or a byte of it or of the hellos was changed.
    pub fn open(
        suite: Suite,
        own: &KeyPair,
        hello: &[u8],
        server_hello: &[u8],
        message_1: &[u8],
        prepared: Prepared,
    ) -> Result<Opened, Malformed> {
        let kept = Arc::clone(&prepared.shared);
        let mut state = builder(suite, own, &prologue(hello, server_hello), prepared)?
            .build_responder()
            .map_err(|_| BROKEN)?;
        let payload = read(&mut state, message_1).inspect_err(|_| {
            // A message that does not open takes the same time whether or not it reached the second
            // key agreement, and whether or not the secret of that one is kept.
            let theirs = state.get_remote_static().and_then(|k| k.try_into().ok());
            if theirs.is_none_or(|key| kept.has(&own.public, &PublicKey(key))) {
                std::hint::black_box(agree(own, &own.public));
            }
        })?;
        let machine = state
            .get_remote_static()
            .and_then(|k| k.try_into().ok())
            .ok_or(BROKEN)?;
        Ok(Opened {
            machine: PublicKey(machine),
            payload,
            responder: Self(suite, state),
        })
    }

    /// Returns message 2, with an answer as its payload, and the keys.
    ///
    /// # Errors
    /// No random bytes were available.
    pub fn message_2(mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        let message = write(&mut self.1, payload)?;
        Ok((message, keys(self.0, self.1)))
    }
}

fn write(state: &mut snow::HandshakeState, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut message = vec![0; limits::GREETING_BODY];
    let n = state
        .write_message(payload, &mut message)
        .map_err(|_| Malformed("a payload too long for its message"))?;
    message.truncate(n);
    Ok(message)
}

fn read(state: &mut snow::HandshakeState, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let mut payload = Zeroizing::new(vec![0; message.len()]);
    let n = state
        .read_message(message, &mut payload)
        .map_err(|_| BROKEN)?;
    payload.truncate(n);
    Ok(payload)
}

/// The keys of a connection: both directions, each with its counter.
pub struct Keys {
    /// The suite, which determines the cipher.
    pub suite: Suite,
    /// Client to server.
    pub to_server: Direction,
    /// Server to client.
    pub to_client: Direction,
}

/// One direction's key and counter.
pub struct Direction {
    /// The key; wiped when dropped.
    pub key: Secret,
    /// Records sealed so far, which is the next record's Noise nonce.
    pub counter: u64,
}

fn keys(suite: Suite, mut state: snow::HandshakeState) -> Keys {
    let (mut a, mut b) = state.dangerously_get_raw_split();
    let direction = |key: [u8; 32]| Direction {
        key: Secret::new(key),
        counter: 0,
    };
    let keys = Keys {
        suite,
        to_server: direction(a),
        to_client: direction(b),
    };
    a.zeroize();
    b.zeroize();
    keys
}
