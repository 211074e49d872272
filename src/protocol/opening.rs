//! The opening: the payload of Noise message 1, which only the host can read.
//!
//! Pure; the client encodes it and the monitor decodes it. It has the mechanism, its credential,
//! and the request's exact bytes.

use super::{Malformed, cbor, limits};
use crate::secret::PublicKey;

/// A hash under a cookie, made by a process that may read the cookie (seeds 000 and 001).
pub const HASH: &str = "hash";
/// The same for an ordinary user, made by the signer of the user's host.
pub const VOUCH: &str = "vouch";
/// Answers to PAM's prompts. They come later, when the host has authenticated itself.
pub const PASSWORD: &str = "password";
/// Only the machine key, for registration at the doors (seed 002).
pub const MACHINE: &str = "machine";

/// The payload of the ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening<'a> {
    /// The request, exactly as a proof covers it.
    pub request: &'a [u8],
    /// The credential by which the sender is authenticated.
    pub credential: Credential,
}

/// The mechanism, and the data that it needs in the opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The request of a host that has the cookie.
    Hash(Hosts),
    /// The request of a user of a host; the host's signer vouches for the user's name.
    Vouch(Hosts, PublicKey),
    /// The request of a user whom PAM will prompt.
    Password,
    /// The request of a machine that asks to be registered: only the static key of the handshake.
    /// Only for the service `enrol`, which comes by no other mechanism.
    Machine,
}

/// The names of both hosts, and the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// The name by which the server knows the caller.
    pub caller: String,
    /// The server's own name, as it was on the invitation.
    pub server: String,
    /// HMAC-SHA-256 over the fields of [`super::proof`].
    pub proof: [u8; 32],
}

impl Credential {
    /// Returns both hosts' names and the proof, if the mechanism has them.
    pub const fn hosts(&self) -> Option<&Hosts> {
        match self {
            Self::Hash(hosts) | Self::Vouch(hosts, _) => Some(hosts),
            Self::Password | Self::Machine => None,
        }
    }
}

impl<'a> Opening<'a> {
    /// Returns the payload's bytes.
    ///
    /// # Errors
    /// None that the fields can cause. A payload that is too long fails later, where the record is
    /// made.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let (mechanism, machine) = match &self.credential {
            Credential::Hash(_) => (HASH, None),
            Credential::Vouch(_, machine) => (VOUCH, Some(machine)),
            Credential::Password => (PASSWORD, None),
            Credential::Machine => (MACHINE, None),
        };
        let hosts = self.credential.hosts();
        let fields = match (hosts, machine) {
            (None, _) => 2,
            (Some(_), None) => 5,
            (Some(_), Some(_)) => 6,
        };
        cbor::write(|e| {
            e.map(fields)?.u8(1)?.str(mechanism)?;
            if let Some(hosts) = hosts {
                e.u8(2)?.str(&hosts.caller)?.u8(3)?.str(&hosts.server)?;
            }
            e.u8(4)?.bytes(self.request)?;
            if let Some(hosts) = hosts {
                e.u8(5)?.bytes(&hosts.proof)?;
            }
            if let Some(machine) = machine {
                e.u8(6)?.bytes(&machine.0)?;
            }
            Ok(())
        })
    }

    /// Parses a payload.
    ///
    /// # Errors
    /// Anything but a canonical opening of a known mechanism.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (mut mechanism, mut caller, mut server) = (None, None, None);
        let (mut request, mut proof, mut machine) = (None, None, None);
        cbor::each_pair(bytes, |key, d| {
            match key {
                1 => mechanism = Some(d.str()?),
                2 => caller = Some(name(d.str()?)?),
                3 => server = Some(name(d.str()?)?),
                4 => request = Some(d.bytes()?),
                5 => proof = Some(cbor::exactly(d)?),
                6 => machine = Some(PublicKey(cbor::exactly(d)?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let hosts = || {
            Ok::<_, Malformed>(Hosts {
                caller: caller.ok_or(Malformed("an opening without a caller"))?,
                server: server.ok_or(Malformed("an opening without a server"))?,
                proof: proof.ok_or(Malformed("an opening without a proof"))?,
            })
        };
        let credential = match mechanism {
            Some(HASH) => Credential::Hash(hosts()?),
            Some(VOUCH) => {
                let machine = machine.ok_or(Malformed("an opening without its host's key"))?;
                Credential::Vouch(hosts()?, machine)
            }
            Some(PASSWORD) => Credential::Password,
            Some(MACHINE) => Credential::Machine,
            _ => return Err(Malformed("a mechanism that does not exist")),
        };
        Ok(Self {
            request: request.ok_or(Malformed("an opening without a request"))?,
            credential,
        })
    }
}

fn name(text: &str) -> Result<String, Malformed> {
    if text.is_empty() || text.len() > limits::NAME {
        return Err(Malformed("a host name that is empty or too long"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_of_a_machine_has_only_its_request() {
        for credential in [Credential::Machine, Credential::Password] {
            let opening = Opening {
                request: b"request",
                credential,
            };
            let bytes = opening.encode().unwrap();
            assert_eq!(bytes.first(), Some(&0xa2), "two fields");
            assert_eq!(Opening::decode(&bytes), Ok(opening));
        }
        let other = cbor::write(|e| {
            e.map(2)?.u8(1)?.str("machines")?.u8(4)?.bytes(b"request")?;
            Ok(())
        });
        assert!(Opening::decode(&other.unwrap()).is_err());
    }
}
