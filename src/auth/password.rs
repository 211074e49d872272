//! The mechanism `password` (seed 000): a user at a PC claims to be a user of this host, and PAM
//! asks for the proof. Runs in the monitor; PAM itself runs in a login worker.
//!
//! [`LoginClaim`] → (the worker's result) → [`AuthenticatedUser`].

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

/// A caller that claims to be a user and has proven nothing yet.
pub struct LoginClaim {
    peer: IpAddr,
    machine: PublicKey,
    user: UserName,
    request: Request,
    responder: Option<Responder>,
}

/// A user of this host, authenticated by PAM. Only [`LoginClaim::believed`] creates one.
pub struct AuthenticatedUser {
    peer: IpAddr,
    machine: PublicKey,
    request: Request,
    responder: Option<Responder>,
    account: Account,
}

impl LoginClaim {
    /// Takes an opened handshake with the mechanism `password`.
    ///
    /// # Errors
    /// The request is not for an application, or it does not name a valid user name. PAM's modules
    /// and their logs must see only valid names.
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

    /// Returns the claimed user name.
    pub const fn user(&self) -> &UserName {
        &self.user
    }

    /// Returns the request.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the address that the caller connects from.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Builds message 2 around an answer, and returns the session keys. Works once.
    ///
    /// # Errors
    /// It was built before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        message_2(&mut self.responder, payload)
    }

    /// Turns the claim into an authenticated user. The caller must have PAM's acceptance (the login
    /// worker reports it); `known` shows that the doors allow the machine. The account is the one
    /// that PAM reports, not the claimed one.
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
    /// Returns the user's account.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// Returns the request.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Returns the address that the user connects from.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl AuthenticatedUser {
    /// Builds message 2 if PAM has asked for nothing before. Works once.
    ///
    /// # Errors
    /// It was built before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        message_2(&mut self.responder, payload)
    }
}
