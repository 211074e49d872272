//! The handshake: `Noise_IK_25519_{AESGCM|ChaChaPoly}_SHA256` by `snow`. Its prologue covers every
//! byte that was sent in the clear.
//!
//! The monitor runs it as responder, the client as initiator.

use std::collections::BTreeMap;
use std::sync::Arc;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::{Zeroize, Zeroizing};

use super::hello::Suite;
use super::{Malformed, limits};
use crate::secret::{KeyPair, PublicKey, Secret};

const LABEL: &[u8] = b"cosserver v1";
const BROKEN: Malformed = Malformed("the handshake failed: other keys, or changed bytes");

fn prologue(hello: &[u8], server_hello: &[u8]) -> Vec<u8> {
    [LABEL, hello, server_hello].concat()
}

/// Key agreement that was computed before the handshake: nothing, or an ephemeral pair for one
/// handshake, or shared secrets. Diffie-Hellman takes most of a handshake's time, and these do not
/// depend on the peer's messages.
#[derive(Default)]
pub struct Prepared {
    ephemeral: Option<KeyPair>,
    shared: Arc<SharedSecrets>,
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
fn agree(own: &KeyPair, theirs: &PublicKey) -> Option<Secret> {
    crate::curve::agree(own.private.expose(), &theirs.0).map(|shared| Secret::new(*shared))
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
    let resolver = Resolver {
        own: own.clone(),
        ephemeral: prepared.ephemeral,
        shared: prepared.shared,
    };
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

/// snow's own primitives, except for a Diffie-Hellman that uses what was computed before: the own
/// public key, which snow would compute again for every handshake, and what is [`Prepared`].
struct Resolver {
    own: KeyPair,
    ephemeral: Option<KeyPair>,
    shared: Arc<SharedSecrets>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        RingResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            // snow asks for the long-term key's instance first, then for the ephemeral key's. The
            // next call, `set` or `generate`, shows which one it is.
            DHChoice::Curve25519 => Some(Box::new(X25519 {
                pair: self.own.clone(),
                known: self.own.clone(),
                next: self.ephemeral.clone(),
                shared: Arc::clone(&self.shared),
            })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
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

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
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

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs = public.get(..32).and_then(|p| p.try_into().ok());
        let theirs = PublicKey(theirs.ok_or(snow::Error::Dh)?);
        let known = self.shared.0.get(&(self.pair.public, theirs)).cloned();
        let shared = known
            .or_else(|| agree(&self.pair, &theirs))
            .ok_or(snow::Error::Dh)?;
        out.get_mut(..32)
            .ok_or(snow::Error::Dh)?
            .copy_from_slice(shared.expose());
        Ok(())
    }
}
