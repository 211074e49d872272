//! The mechanism `machine` (seed 002): a machine shows its key and nothing else, to
//! become known to the doors. It gets nothing but that. Run by the monitor.

use std::net::IpAddr;

use super::Opened;
use crate::config::name::UserName;
use crate::protocol::Malformed;
use crate::protocol::noise::{Keys, Responder};
use crate::protocol::opening::{Credential, Opening};
use crate::protocol::request::{Request, Service};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Admitted, Machine};
use crate::secret::PublicKey;

/// A machine that wants to be known.
pub struct AuthenticatedMachine {
    peer: IpAddr,
    machine: PublicKey,
    caller_user: UserName,
    responder: Option<Responder>,
}

impl AuthenticatedMachine {
    /// What an admitted handshake asks for, where its mechanism is `machine`.
    ///
    /// # Errors
    /// It asks for anything but to be known.
    pub fn new(admitted: Admitted<Opened>, peer: IpAddr) -> Result<Self, Refusal> {
        let refuse = |m: Malformed| Refusal::new(Cause::Handshake, m).of(peer);
        let opened = admitted.into_inner();
        let opening = Opening::decode(&opened.payload).map_err(refuse)?;
        let request = Request::decode(opening.request).map_err(refuse)?;
        if opening.credential != Credential::Machine || request.service != Service::Enrol {
            return Err(refuse(Malformed(
                "a machine by itself can only become known",
            )));
        }
        Ok(Self {
            peer,
            machine: opened.machine,
            caller_user: request.caller_user,
            responder: Some(opened.responder),
        })
    }

    /// The address it calls from.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Who sits there, as it says.
    pub const fn caller_user(&self) -> &UserName {
        &self.caller_user
    }

    /// Message 2 around an answer, and the keys. Once.
    ///
    /// # Errors
    /// It was made before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        super::message_2(&mut self.responder, payload)
    }
}

impl Machine for AuthenticatedMachine {
    fn machine(&self) -> &PublicKey {
        &self.machine
    }
}
