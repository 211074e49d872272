//! The mechanism `machine` (seed 002): a machine proves only its key, in order to register at the
//! doors. It can request nothing else. Runs in the monitor.

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

/// A machine that asks to be registered.
pub struct AuthenticatedMachine {
    peer: IpAddr,
    machine: PublicKey,
    caller_user: UserName,
    responder: Option<Responder>,
}

impl AuthenticatedMachine {
    /// Takes an admitted handshake with the mechanism `machine`.
    ///
    /// # Errors
    /// It requests anything but registration.
    pub fn new(admitted: Admitted<Opened>, peer: IpAddr) -> Result<Self, Refusal> {
        let refuse = |m: Malformed| Refusal::new(Cause::Handshake, m).of(peer);
        let opened = admitted.into_inner();
        let opening = Opening::decode(&opened.payload).map_err(refuse)?;
        let request = Request::decode(opening.request).map_err(refuse)?;
        if opening.credential != Credential::Machine || request.service != Service::Enrol {
            return Err(refuse(Malformed(
                "a machine without a host or a user can only register",
            )));
        }
        Ok(Self {
            peer,
            machine: opened.machine,
            caller_user: request.caller_user,
            responder: Some(opened.responder),
        })
    }

    /// Returns the address that it connects from.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Returns the user name that the machine states.
    pub const fn caller_user(&self) -> &UserName {
        &self.caller_user
    }

    /// Builds message 2 around an answer, and returns the session keys. Works once.
    ///
    /// # Errors
    /// It was built before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        super::message_2(&mut self.responder, payload)
    }
}

impl Machine for AuthenticatedMachine {
    fn machine(&self) -> &PublicKey {
        &self.machine
    }
}
