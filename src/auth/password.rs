//! The mechanism `password` (seed 000): somebody at a PC wants to be a user of this
//! host, and PAM asks him for what proves it. Run by the monitor; PAM itself runs in
//! a login worker.
//!
//! [`LoginClaim`] → (the worker's word) → [`AuthenticatedUser`].

use std::net::IpAddr;

use super::{Opened, message_2};
use crate::config::name::UserName;
use crate::protocol::Malformed;
use crate::protocol::noise::{Keys, Responder};
use crate::protocol::opening::{Credential, Opening};
use crate::protocol::request::{Request, Service};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Admitted, Known, Machine};
use crate::secret::PublicKey;
use crate::sys::account::Account;

/// Somebody who says that he is a user, and has shown nothing yet.
pub struct LoginClaim {
    peer: IpAddr,
    machine: PublicKey,
    user: UserName,
    request: Request,
    responder: Option<Responder>,
}

/// A user of this host, whom PAM has believed. Only [`LoginClaim::believed`] makes one.
pub struct AuthenticatedUser {
    peer: IpAddr,
    machine: PublicKey,
    request: Request,
    responder: Option<Responder>,
    account: Account,
}

impl LoginClaim {
    /// What an opened handshake asks for, where its mechanism is `password`.
    ///
    /// # Errors
    /// It is no request for an application, or whom it names can be no user: PAM's
    /// modules, and their logs, are to see names alone.
    pub fn new(admitted: Admitted<Opened>, peer: IpAddr) -> Result<Self, Refusal> {
        let refuse = |m: Malformed| Refusal::new(Cause::Handshake, m).of(peer);
        let opened = admitted.into_inner();
        let opening = Opening::decode(&opened.payload).map_err(refuse)?;
        let request = Request::decode(opening.request).map_err(refuse)?;
        let is_gui = matches!(request.service, Service::Gui(_));
        if opening.credential != Credential::Password || !is_gui {
            return Err(refuse(Malformed("a password is for an application alone")));
        }
        let user = UserName::parse(&request.user);
        let user = user.map_err(|e| Refusal::new(Cause::Login, e).of(peer))?;
        Ok(Self {
            peer,
            machine: opened.machine,
            user,
            request,
            responder: Some(opened.responder),
        })
    }

    /// Who he says he is.
    pub const fn user(&self) -> &UserName {
        &self.user
    }

    /// What he asks for.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// The address he calls from.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Message 2 around an answer, and the keys. Once.
    ///
    /// # Errors
    /// It was made before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        message_2(&mut self.responder, payload)
    }

    /// PAM believes him, whose machine the doors know: who he is is what PAM says, not
    /// what he said.
    pub fn believed(known: Known<Box<Self>>, account: Account) -> AuthenticatedUser {
        let login_claim = *known.into_inner();
        AuthenticatedUser {
            peer: login_claim.peer,
            machine: login_claim.machine,
            request: login_claim.request,
            responder: login_claim.responder,
            account,
        }
    }
}

impl Machine for LoginClaim {
    fn machine(&self) -> &PublicKey {
        &self.machine
    }
}

impl Machine for AuthenticatedUser {
    fn machine(&self) -> &PublicKey {
        &self.machine
    }
}

impl AuthenticatedUser {
    /// Who he is.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// What he asks for.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// The address he calls from.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl AuthenticatedUser {
    /// Message 2, where PAM has asked for nothing before. Once.
    ///
    /// # Errors
    /// It was made before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        message_2(&mut self.responder, payload)
    }
}
