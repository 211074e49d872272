//! The opening: the payload of Noise message 1, which only the host can read.
//! Who calls whom, by which mechanism, the request's exact bytes, the proof.

use super::{Malformed, cbor, limits};

/// The mechanism of this version: a hash under a cookie (seeds 000 and 001).
pub const HASH: &str = "hash";

/// The payload of the ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening<'a> {
    /// The name under which the host knows the caller.
    pub caller: String,
    /// The host's own name, as it stood on the invitation.
    pub server: String,
    /// The request, exactly as the proof covers it.
    pub request: &'a [u8],
    /// The proof: HMAC-SHA-256 of what [`super::proof`] says.
    pub proof: [u8; 32],
}

impl<'a> Opening<'a> {
    /// The payload's bytes.
    ///
    /// # Errors
    /// None that the fields can cause; a payload too long fails later, where
    /// the record is made.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        cbor::write(|e| {
            e.map(5)?
                .u8(1)?
                .str(HASH)?
                .u8(2)?
                .str(&self.caller)?
                .u8(3)?
                .str(&self.server)?;
            e.u8(4)?.bytes(self.request)?.u8(5)?.bytes(&self.proof)?;
            Ok(())
        })
    }

    /// Parses a payload.
    ///
    /// # Errors
    /// Anything but a canonical opening of a mechanism that exists.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (mut mechanism, mut caller, mut server) = (None, None, None);
        let (mut request, mut proof) = (None, None);
        cbor::each_pair(bytes, |key, d| {
            match key {
                1 => mechanism = Some(d.str()?),
                2 => caller = Some(name(d.str()?)?),
                3 => server = Some(name(d.str()?)?),
                4 => request = Some(d.bytes()?),
                5 => proof = Some(cbor::exactly(d)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if mechanism != Some(HASH) {
            return Err(Malformed("a mechanism that does not exist"));
        }
        Ok(Self {
            caller: caller.ok_or(Malformed("an opening without a caller"))?,
            server: server.ok_or(Malformed("an opening without a server"))?,
            request: request.ok_or(Malformed("an opening without a request"))?,
            proof: proof.ok_or(Malformed("an opening without a proof"))?,
        })
    }
}

fn name(text: &str) -> Result<String, Malformed> {
    if text.is_empty() || text.len() > limits::NAME {
        return Err(Malformed("a host name that is empty or too long"));
    }
    Ok(text.to_owned())
}
