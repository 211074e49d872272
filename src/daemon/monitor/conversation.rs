//! The monitor's own conversation with an unauthenticated client, from message 2 until the relay
//! has the keys: the rest of a long command, or PAM's prompts and the answers to them.

use zeroize::Zeroizing;

use super::logins::{Login, LoginSubject};
use crate::auth::policy::{Caller, Granted, Gui};
use crate::protocol::Malformed;
use crate::protocol::answer::Answer;
use crate::protocol::hello::Suite;
use crate::protocol::noise::Keys;
use crate::protocol::prompt::{self, Text};
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
    pub(super) fn new(keys: &Keys) -> Result<Self, Malformed> {
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

impl Login {
    /// Returns the next record to the peer with this answer: message 2, or a sealed one.
    pub(super) fn say(&mut self, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        if let Some(conversation) = &mut self.conversation {
            return conversation.seal(payload);
        }
        let made = match &mut self.who {
            Some(LoginSubject::LoginClaim(known)) => known.inner_mut().message_2(payload),
            Some(LoginSubject::Host(known, _)) => known.inner_mut().message_2(payload),
            None => Err(Malformed("message 2 without a handshake")),
        };
        let (message, keys) = made?;
        self.conversation = Some(Box::new(Conversation::new(&keys)?));
        record::compose(Kind::Answer, &message)
    }

    /// Returns the accepting record, and the relay's keys.
    pub(super) fn accept(
        &mut self,
        granted: &mut Granted<Gui, Caller>,
        texts: Vec<Text>,
    ) -> Result<(Vec<u8>, Keys), Malformed> {
        let told = texts.into_iter().filter(|t| !t.style.is_prompt());
        let texts = std::mem::take(&mut self.welcome).into_iter().chain(told);
        let texts = prompt::fit(texts.collect());
        let proof = granted.to().server_proof();
        let payload = Answer::Accept { proof, texts }.encode()?;
        match self.conversation.take() {
            None => {
                let (message, keys) = granted.to_mut().message_2(&payload)?;
                Ok((record::compose(Kind::Answer, &message)?, keys))
            }
            Some(mut conversation) => {
                let record = conversation.seal(&payload)?;
                Ok((record, conversation.into_keys()?))
            }
        }
    }
}
