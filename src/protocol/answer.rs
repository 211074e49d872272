//! The server's answers to a ClientHello: AuthAccept or AuthContinue inside Noise, or Denied in the
//! clear. Denied carries only a random reference.
//!
//! Pure: bytes in, values or bytes out. The monitor composes the answers, and the client reads
//! them.

use super::prompt::{self, Asks, Text};
use super::record::{self, Kind};
use super::{Malformed, cbor, limits};

/// An answer as the client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// AuthAccept: the connection is accepted.
    Accept {
        /// The server's own proof where the client has given one: HMAC-SHA-256 under the server's
        /// label, see [`super::proof`].
        proof: Option<[u8; 32]>,
        /// The messages to show: the host's welcome, and PAM's messages at a login.
        texts: Vec<Text>,
    },
    /// AuthContinue: the server waits for the rest of the command.
    SendCommand,
    /// AuthContinue: the server waits for the answers to these prompts.
    Prompts {
        /// What prompts. The client must give the answers to nothing else.
        by: Asks,
        /// The prompts, and the messages that come with them.
        texts: Vec<Text>,
    },
}

const ACCEPT: u8 = 0;
const SEND_COMMAND: u8 = 1;
const PROMPTS: u8 = 2;

impl Answer {
    /// Returns the answer that accepts a host's request, with the messages to show.
    pub const fn accept(proof: [u8; 32], texts: Vec<Text>) -> Self {
        Self::Accept {
            proof: Some(proof),
            texts,
        }
    }

    /// Returns the answer's bytes, the payload of a Noise message.
    ///
    /// # Errors
    /// None that the fields can cause.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        cbor::write(|e| {
            match self {
                Self::Accept { proof, texts } => {
                    let fields = 1_u64.saturating_add(proof.is_some().into());
                    e.map(fields.saturating_add((!texts.is_empty()).into()))?;
                    e.u8(1)?.u8(ACCEPT)?;
                    if let Some(proof) = proof {
                        e.u8(2)?.bytes(proof)?;
                    }
                    if !texts.is_empty() {
                        prompt::put(e.u8(3)?, texts)?;
                    }
                }
                Self::SendCommand => {
                    e.map(1)?.u8(1)?.u8(SEND_COMMAND)?;
                }
                Self::Prompts { by, texts } => {
                    let number = by.number();
                    e.map(2_u64.saturating_add(number.is_some().into()))?;
                    prompt::put(e.u8(1)?.u8(PROMPTS)?.u8(3)?, texts)?;
                    if let Some(number) = number {
                        e.u8(4)?.u8(number)?;
                    }
                }
            };
            Ok(())
        })
    }

    /// Parses an answer.
    ///
    /// # Errors
    /// Anything but a canonical answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut status, mut proof, mut texts) = (None, None, Vec::new());
        let mut by = Asks::Login;
        cbor::each_pair(bytes, |key, d| {
            match key {
                1 => status = Some(d.u8()?),
                2 => proof = Some(cbor::exactly(d)?),
                3 => texts = prompt::get(d)?,
                4 => {
                    by = Asks::of(d.u8()?)
                        .ok_or(Malformed("prompts of somebody who does not exist"))?;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        match status {
            Some(ACCEPT) if texts.iter().any(|t| t.style.is_prompt()) => Err(Malformed(
                "an answer that accepts and asks at the same time",
            )),
            Some(ACCEPT) => Ok(Self::Accept { proof, texts }),
            Some(SEND_COMMAND) => Ok(Self::SendCommand),
            Some(PROMPTS) if by.may_ask(&texts) => Ok(Self::Prompts { by, texts }),
            _ => Err(Malformed(
                "an answer of unknown status, or without its prompt",
            )),
        }
    }
}

/// The random reference of a refusal: the peer and the log get the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference(pub [u8; limits::REFERENCE]);

impl Reference {
    /// Returns the reference as 16 hexadecimal digits.
    pub fn to_hex(self) -> String {
        crate::secret::to_hex(&self.0)
    }
}

/// Returns the whole record of a refusal. Its bytes are the same for every cause, except for the
/// reference.
///
/// # Errors
/// None that a reference can cause.
pub fn compose_denied(reference: Reference) -> Result<Vec<u8>, Malformed> {
    record::compose(Kind::Denied, &reference.0)
}

/// Parses the reference in the content of a refusal.
///
/// # Errors
/// The content has another length than a reference.
pub fn parse_denied(content: &[u8]) -> Result<Reference, Malformed> {
    content
        .try_into()
        .map(Reference)
        .map_err(|_| Malformed("a refusal of another length"))
}
