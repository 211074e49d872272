//! The monitor's own conversation with an unauthenticated client, from message 2 until the relay
//! has the keys: the rest of a long command, prompts, and the answers to them.
//!
//! Runs in the monitor, which therefore decrypts passwords. It passes each on to one process: the
//! login worker (`ipc::login::Order::Answers`), or, if it is an activation password, the registry
//! worker (`registry::asked::Question::Activate`); under inetd, that one stays in the monitor. No
//! other process decrypts one: the gate has the sealed records, but no key and no code to open them
//! (`tests/house.rs`). The relay gets keys that cannot open what was said before
//! ([`Conversation::into_keys`]).

use zeroize::Zeroizing;

use crate::protocol::Malformed;
use crate::protocol::hello::Suite;
use crate::protocol::noise::Keys;
use crate::protocol::record::{self, Kind};
use crate::protocol::seal::{Opener, Sealer};

/// A conversation that continues after message 2.
pub(super) struct Conversation {
    suite: Suite,
    sealer: Sealer,
    opener: Opener,
}

impl Conversation {
    /// Starts a conversation with the keys of message 2.
    fn new(keys: &Keys) -> Result<Self, Malformed> {
        Ok(Self {
            sealer: Sealer::new(keys.suite, &keys.to_client)?,
            opener: Opener::new(keys.suite, &keys.to_server)?,
            suite: keys.suite,
        })
    }

    /// Returns the record that carries a payload to the peer.
    pub(super) fn seal(&mut self, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut text = payload.to_vec();
        let tag = self.sealer.seal(&mut text)?;
        text.extend_from_slice(&tag);
        record::compose(Kind::Sealed, &text)
    }

    /// Opens the peer's next record and returns its payload, which may be a password.
    pub(super) fn open(&mut self, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let envelope = record::parse(record, &[Kind::Sealed])?;
        let mut body = Zeroizing::new(envelope.content.to_vec());
        let length = self.opener.open(&mut body)?.len();
        body.truncate(length);
        Ok(body)
    }

    /// Returns the next keys, with the current counters, for the relay: they cannot decrypt what
    /// was said before, which may include a password.
    pub(super) fn into_keys(self) -> Result<Keys, Malformed> {
        Ok(Keys {
            suite: self.suite,
            to_client: self.sealer.successor()?,
            to_server: self.opener.successor()?,
        })
    }
}

/// Returns the record that accepts a connection with this payload, and the keys for the relay: the
/// next record of the conversation, or message 2 if there is none.
pub(super) fn accept(
    conversation: Option<Box<Conversation>>,
    payload: &[u8],
    message_2: impl FnOnce(&[u8]) -> Result<(Vec<u8>, Keys), Malformed>,
) -> Result<(Vec<u8>, Keys), Malformed> {
    match conversation {
        Some(mut conversation) => Ok((conversation.seal(payload)?, conversation.into_keys()?)),
        None => {
            let (message, keys) = message_2(payload)?;
            Ok((record::compose(Kind::Answer, &message)?, keys))
        }
    }
}

/// Returns the record that begins a conversation with this payload, message 2, and the
/// conversation.
pub(super) fn begin(
    payload: &[u8],
    message_2: impl FnOnce(&[u8]) -> Result<(Vec<u8>, Keys), Malformed>,
) -> Result<(Vec<u8>, Box<Conversation>), Malformed> {
    let (message, keys) = message_2(payload)?;
    let conversation = Box::new(Conversation::new(&keys)?);
    Ok((record::compose(Kind::Answer, &message)?, conversation))
}
