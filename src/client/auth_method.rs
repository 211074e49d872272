//! How the client authenticates to a host: by the hash under a cookie that it may read, by this
//! host's signer, by PAM, or by its machine key only.
//!
//! Runs in the client. Borrows keys and cookies. Must not send anything to the host:
//! [`greet`](super::greet) sends what this returns.

use super::signer::LocalSigner;
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::limits::NONCE;
use crate::protocol::opening::{Credential, Hosts};
use crate::protocol::proof::{self, Claim, Side};
use crate::protocol::request::Request;
use crate::secret::{KeyPair, PublicKey, Secret};

/// The request to a host.
pub struct Question {
    /// The request, in its fields.
    pub asked: Request,
    /// The same as bytes, for a request that we send without a signer.
    pub request: Vec<u8>,
    /// The encoding of the command's words, or of these and the variables, if it must follow.
    pub follows: Option<Vec<u8>>,
}

/// Our identity to a host, and its own.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Our name at the host.
    pub caller: &'a str,
    /// The host's name for itself.
    pub server: &'a str,
    /// Our machine key.
    pub machine: &'a KeyPair,
    /// The host's public key.
    pub pin: &'a PublicKey,
    /// The secret that only we and the host have.
    pub cookie: &'a Secret,
}

/// How a host authenticates us.
#[derive(Clone, Copy)]
pub enum AuthMethod<'a> {
    /// The hash under the cookie that only we and the host have.
    Hash(Credentials<'a>),
    /// The statement of this host's signer, for the host with this public key, under the cookie of
    /// this number.
    Vouch(&'a LocalSigner, &'a PublicKey, u8),
    /// The answers to the host's prompts, once it has proven to have this public key. Our own key
    /// is the first.
    Password(&'a KeyPair, &'a PublicKey),
    /// Only our own key, the first. A machine is registered by it.
    Machine(&'a KeyPair, &'a PublicKey),
}

/// What the opening shows to a host.
pub(super) struct Presented {
    /// The request's exact bytes.
    pub(super) request: Vec<u8>,
    /// Mechanism and proof.
    pub(super) credential: Credential,
    /// The proof that the host must answer with, if it must authenticate by one.
    pub(super) expected: Option<[u8; 32]>,
}

impl Presented {
    /// Returns what a client shows that proves nothing but its own key.
    fn unproven(question: &Question, credential: Credential) -> Self {
        Self {
            request: question.request.clone(),
            credential,
            expected: None,
        }
    }
}

impl<'a> AuthMethod<'a> {
    /// Returns our own key, and the host's.
    pub const fn keys(&self) -> (&'a KeyPair, &'a PublicKey) {
        match self {
            Self::Hash(who) => (who.machine, who.pin),
            Self::Vouch(signer, pin, _) => (signer.key(), pin),
            Self::Password(machine, pin) | Self::Machine(machine, pin) => (machine, pin),
        }
    }

    /// Whether it is not worth a connection: the signer has said that it has no such cookie.
    pub fn is_in_vain(&self) -> bool {
        matches!(self, Self::Vouch(signer, _, which) if !signer.has(*which))
    }

    /// Returns what to show to a host that has drawn this nonce.
    ///
    /// # Errors
    /// The signer refuses, or there is none.
    pub(super) fn show(
        &self,
        question: &Question,
        nonce: &[u8; NONCE],
    ) -> Result<Presented, Fault> {
        match self {
            Self::Hash(who) => {
                let claim = Claim {
                    caller: who.caller,
                    server: who.server,
                    caller_key: &who.machine.public,
                    server_key: who.pin,
                    nonce,
                    request: &question.request,
                    voucher: None,
                };
                let made = |side| proof::make(who.cookie, side, &claim).map_err(ours);
                let hosts = Hosts {
                    caller: who.caller.to_owned(),
                    server: who.server.to_owned(),
                    proof: made(Side::Client)?,
                };
                Ok(Presented {
                    request: question.request.clone(),
                    credential: Credential::Hash(hosts),
                    expected: Some(made(Side::Server)?),
                })
            }
            Self::Vouch(signer, pin, which) => {
                let signed = signer.sign(&question.asked, pin, *which, nonce)?;
                let hosts = Hosts {
                    caller: signed.caller,
                    server: signed.server,
                    proof: signed.proof,
                };
                Ok(Presented {
                    request: signed.request,
                    credential: Credential::Vouch(hosts, signed.machine),
                    expected: Some(signed.expected),
                })
            }
            Self::Password(..) => Ok(Presented::unproven(question, Credential::Password)),
            Self::Machine(..) => Ok(Presented::unproven(question, Credential::Machine)),
        }
    }
}

/// A fault of our own, which no peer can cause.
fn ours(e: Malformed) -> Fault {
    Fault::new(e.to_string())
}
