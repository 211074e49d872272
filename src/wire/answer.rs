//! What the server answers to a ClientHello: AuthAccept or AuthContinue inside
//! Noise, or Denied in the clear, which says nothing but a random reference.

use super::record::{self, Kind};
use super::{Malformed, cbor, limits};

/// An answer as the client reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// AuthAccept: the connection is accepted; the server's own proof.
    Accept {
        /// HMAC-SHA-256 under the server's label, see [`super::proof`].
        proof: [u8; 32],
    },
    /// AuthContinue: the server waits for the rest of the command.
    SendCommand,
}

const ACCEPT: u8 = 0;
const SEND_COMMAND: u8 = 1;

impl Answer {
    /// The answer's bytes, the payload of a Noise message.
    ///
    /// # Errors
    /// None that the fields can cause.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        cbor::write(|e| {
            match self {
                Self::Accept { proof } => e.map(2)?.u8(1)?.u8(ACCEPT)?.u8(2)?.bytes(proof)?,
                Self::SendCommand => e.map(1)?.u8(1)?.u8(SEND_COMMAND)?,
            };
            Ok(())
        })
    }

    /// Parses an answer.
    ///
    /// # Errors
    /// Anything but a canonical answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut status, mut proof) = (None, None);
        cbor::each_pair(bytes, |key, d| {
            match key {
                1 => status = Some(d.u8()?),
                2 => proof = Some(cbor::exactly(d)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        match (status, proof) {
            (Some(ACCEPT), Some(proof)) => Ok(Self::Accept { proof }),
            (Some(SEND_COMMAND), _) => Ok(Self::SendCommand),
            _ => Err(Malformed(
                "an answer of unknown status, or without its proof",
            )),
        }
    }
}

/// The random reference of a refusal: the same in the peer's hands and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference(pub [u8; limits::REFERENCE]);

impl Reference {
    /// The reference as 16 hexadecimal digits.
    pub fn to_hex(self) -> String {
        crate::secret::to_hex(&self.0)
    }
}

/// The whole record of a refusal: the same bytes whatever the cause, but for
/// the reference.
///
/// # Errors
/// None that a reference can cause.
pub fn compose_denied(reference: Reference) -> Result<Vec<u8>, Malformed> {
    record::compose(Kind::Denied, &reference.0)
}

/// The reference in the content of a refusal.
///
/// # Errors
/// Another length than a reference has.
pub fn parse_denied(content: &[u8]) -> Result<Reference, Malformed> {
    content
        .try_into()
        .map(Reference)
        .map_err(|_| Malformed("a refusal of another length"))
}
