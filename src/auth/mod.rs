//! Authentication: from the hellos and the opened handshake to the proof.
//!
//! Runs in the monitor. The types enforce the order: [`Greeted`] → [`Opened`] → `Admitted` (the
//! outer door) → [`AuthenticatedHost`], [`LoginClaim`] or [`AuthenticatedMachine`]. Each is made by
//! the step before it and consumed by the next, so that no step can be skipped or repeated. The
//! nonce goes with them and is consumed by the first verification, whether or not the proof is
//! right.

pub mod hash;
pub mod machine;
pub mod password;
pub mod policy;
pub mod rules;

use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::hello::{Hello, ServerHello, Suite, VERSION};
use crate::protocol::limits;
use crate::protocol::noise::{Keys, Prepared, Responder};
use crate::protocol::opening::{Credential, Opening};
use crate::protocol::record::{self, Kind};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Admitted, Machine};
use crate::secret::{self, KeyPair, PublicKey};
use zeroize::Zeroizing;

pub use hash::AuthenticatedHost;
pub use machine::AuthenticatedMachine;
pub use password::{AuthenticatedUser, LoginClaim};

/// An unauthenticated connection that has sent its Hello, and the nonce drawn for it.
pub struct Greeted {
    hello: Vec<u8>,
    server_hello: Vec<u8>,
    suite: Suite,
    nonce: [u8; limits::NONCE],
}

/// Why a Hello was not answered.
pub enum NotGreeted {
    /// The record is not a Hello.
    Malformed(Malformed),
    /// This host failed.
    Fault(Fault),
}

impl Greeted {
    /// Answers a Hello record: draws the nonce and builds the ServerHello.
    ///
    /// # Errors
    /// The record is not a Hello, or there were no random bytes.
    pub fn new(record: &[u8], host: &KeyPair) -> Result<Self, NotGreeted> {
        let hello = Hello::parse(record).map_err(NotGreeted::Malformed)?;
        let nonce = secret::random().map_err(NotGreeted::Fault)?;
        let suite = hello.suites.first().copied().unwrap_or(Suite::ChaChaPoly);
        let server_hello = ServerHello {
            version: hello.version.min(VERSION),
            suite,
            nonce,
            greeting_limit: u32::try_from(limits::GREETING_BODY).unwrap_or(u32::MAX),
            host_key: hello.wants_host_key.then_some(host.public),
        };
        let server_hello = server_hello.compose().map_err(NotGreeted::Malformed)?;
        Ok(Self {
            hello: record.to_vec(),
            server_hello,
            suite,
            nonce,
        })
    }

    /// Returns the ServerHello record.
    pub fn server_hello(&self) -> &[u8] {
        &self.server_hello
    }

    /// Opens the ClientHello record with the host's key.
    ///
    /// # Errors
    /// It was made for another host or another connection, or was modified.
    pub fn open(
        self,
        record: &[u8],
        host: &KeyPair,
        prepared: Prepared,
    ) -> Result<Opened, Refusal> {
        let refuse = |m: Malformed| Refusal::new(Cause::Handshake, m);
        let message = record::parse(record, &[Kind::ClientHello])
            .map_err(refuse)?
            .content;
        let opened = Responder::open(
            self.suite,
            host,
            &self.hello,
            &self.server_hello,
            message,
            prepared,
        );
        let opened = opened.map_err(refuse)?;
        Ok(Opened {
            machine: opened.machine,
            payload: opened.payload,
            responder: opened.responder,
            nonce: self.nonce,
            suite: self.suite,
        })
    }
}

/// The credential that an admitted connection presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresentedCredential {
    /// None yet: its user must be asked for a password.
    Password,
    /// Only its machine key.
    Machine,
    /// A hash, made by the host itself or by its signer.
    Proof,
}

/// Returns the credential of a connection that the outer door allows. Nothing of its request is
/// decoded before that.
///
/// # Errors
/// The payload is not an opening.
pub fn presented_credential(admitted: &Admitted<Opened>) -> Result<PresentedCredential, Refusal> {
    let opening = Opening::decode(&admitted.inner().payload);
    let opening = opening.map_err(|m| Refusal::new(Cause::Handshake, m))?;
    Ok(match opening.credential {
        Credential::Password => PresentedCredential::Password,
        Credential::Machine => PresentedCredential::Machine,
        Credential::Hash(_) | Credential::Vouch(..) => PresentedCredential::Proof,
    })
}

impl Machine for Opened {
    fn machine(&self) -> &PublicKey {
        &self.machine
    }
}

/// An unauthenticated connection with an opened handshake: its machine key is proven, and nothing
/// else yet.
pub struct Opened {
    machine: PublicKey,
    payload: Zeroizing<Vec<u8>>,
    responder: Responder,
    nonce: [u8; limits::NONCE],
    suite: Suite,
}

fn message_2(
    responder: &mut Option<Responder>,
    payload: &[u8],
) -> Result<(Vec<u8>, Keys), Malformed> {
    let responder = responder.take();
    responder
        .ok_or(Malformed("message 2 is made once"))?
        .message_2(payload)
}
