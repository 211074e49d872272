//! The states of a connection that is not a session yet: what each waits for, and what is known of
//! it by then.
//!
//! Runs in the monitor. [`Connections`] owns the states; [`super::pipeline`] makes them, and
//! decides what comes next.

mod awaited;
mod connections;

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::conversation::Conversation;
use super::logins::LoginId;
use super::look_ups::LookUp;
use super::registry_client::{LookAhead, Ticket};
use crate::auth::policy::{Connect, Exec, Granted, ServiceCaller};
use crate::auth::{AuthenticatedHost, AuthenticatedMachine, Greeted, LoginClaim, Opened};
use crate::config::name::UserName;
use crate::protocol::Malformed;
use crate::protocol::noise::Keys;
use crate::protocol::prompt::Text;
use crate::registry::{Admitted, Id, Known, Machine, PromptFor};
use crate::sys::account::UserRecord;

pub(super) use connections::{Connections, Departure, RoomForPrompt};

/// The state of an unauthenticated connection.
pub(super) enum Preauth {
    /// The ServerHello is sent.
    Greeted(Box<Greeted>, LookAhead),
    /// It waits for the registry, for its host's name, or for the answer to the inner door's
    /// prompt.
    AtDoor(Box<PendingAdmission>),
    /// It is admitted; the rest of a long command is coming.
    AwaitsCommand(Box<AwaitsCommand>),
    /// An account is being looked up.
    AwaitsAccount(LookUp, AwaitsAccount),
    /// A named service is granted; the name of its backend's host is being looked up.
    AwaitsAddress(LookUp, Box<AwaitsAddress>),
    /// A named service is granted; its backend is being connected to.
    AwaitsBackend(Box<Pending<Granted<Connect>>>),
    /// It asks for an application; PAM is working, or the user is prompted.
    LoggingIn(LoginId),
}

/// An admitted client whose command is still coming.
pub(super) struct AwaitsCommand {
    pub(super) known: Known<AuthenticatedHost>,
    pub(super) socket: OwnedFd,
    pub(super) conversation: Box<Conversation>,
    pub(super) welcome: Vec<Text>,
    pub(super) encoding: Vec<u8>,
    pub(super) length: usize,
}

/// What waits for an account.
pub(super) enum AwaitsAccount {
    /// A granted command, for the user that it runs as.
    Job(Box<Pending<Granted<Exec>>>),
    /// A granted connection to a backend, for the user that it belongs to.
    Backend(Box<Pending<Granted<Connect>>>),
    /// A caller of named services, for the user that it is here, before the services' lists decide.
    /// Also the groups that are looked up with it: a reload may name others.
    Caller(Box<Pending<ServiceCaller>>, Vec<String>),
}

/// A granted connection to a backend, and the account that it belongs to.
pub(super) type AwaitsAddress = (Pending<Granted<Connect>>, UserRecord);

/// A request that both doors have admitted, and the connection that it came by.
pub(super) struct Pending<R> {
    /// The request, as far as it was decided on.
    pub(super) request: R,
    pub(super) socket: OwnedFd,
    /// The conversation that goes on with the acceptance. `None`: it begins with that.
    pub(super) conversation: Option<Box<Conversation>>,
    /// What the client is shown on acceptance.
    pub(super) welcome: Vec<Text>,
}

impl<R> Pending<R> {
    /// Returns the request, and the rest to go with the next state of it.
    pub(super) fn split(self) -> (R, Pending<()>) {
        let Self {
            request,
            socket,
            conversation,
            welcome,
        } = self;
        let rest = Pending {
            request: (),
            socket,
            conversation,
            welcome,
        };
        (request, rest)
    }
}

impl Pending<()> {
    /// Returns it with a request.
    pub(super) fn with<R>(self, request: R) -> Pending<R> {
        Pending {
            request,
            socket: self.socket,
            conversation: self.conversation,
            welcome: self.welcome,
        }
    }
}

impl AwaitsAccount {
    /// Returns the authenticated host.
    pub(super) fn host(&self) -> &AuthenticatedHost {
        match self {
            Self::Job(pending) => pending.request.authenticated(),
            Self::Backend(pending) => pending.request.authenticated(),
            Self::Caller(pending, _) => pending.request.host(),
        }
    }
}

impl Preauth {
    /// Returns its login, if one is under way.
    const fn login(&self) -> Option<LoginId> {
        if let Self::LoggingIn(id) = self {
            Some(*id)
        } else {
            None
        }
    }

    /// Returns the address if the request comes from this machine and is not a login.
    fn comes_from(&self, machine: Id) -> Option<IpAddr> {
        let (machines, peer) = match self {
            Self::AtDoor(admission) => (admission.machines(), admission.arrival.peer),
            Self::AwaitsCommand(admitted) => {
                let host = admitted.known.inner();
                (host.machines(), host.peer())
            }
            Self::AwaitsAccount(_, awaits) => {
                let host = awaits.host();
                (host.machines(), host.peer())
            }
            Self::AwaitsAddress(_, waits) => {
                let host = waits.0.request.authenticated();
                (host.machines(), host.peer())
            }
            Self::AwaitsBackend(pending) => {
                let host = pending.request.authenticated();
                (host.machines(), host.peer())
            }
            Self::Greeted(..) | Self::LoggingIn(_) => return None,
        };
        machines.contains(&machine).then_some(peer)
    }
}

/// A connection that waits for the registry's decision, or for what that needs.
pub(super) struct PendingAdmission {
    pub(super) arrival: Arrival,
    pub(super) progress: Progress,
    /// The registry question that it waits for.
    pub(super) ticket: Option<Ticket>,
}

/// What is known of the connection itself.
pub(super) struct Arrival {
    pub(super) socket: OwnedFd,
    pub(super) peer: IpAddr,
    /// Whether it comes from this host itself.
    pub(super) is_local: bool,
    /// What the user of an admitted machine is shown.
    pub(super) welcome: String,
    /// The gate has reported that the peer has left.
    pub(super) has_left: bool,
}

/// How far it has come.
pub(super) enum Progress {
    /// The registry is asked about the machine of the handshake.
    Arrives(Box<Opened>),
    /// The outer door has admitted it, and its host's name is being resolved.
    AwaitsName(Box<Admitted<Opened>>),
    /// The registry is asked about the machine of the authenticated caller: it may be another than
    /// that of the handshake, or its status may have changed while the name was resolved.
    Authenticated(Applicant),
    /// The user has been prompted.
    Prompted(Applicant, PromptFor, Box<Conversation>),
    /// The machine is being registered.
    Registers(Applicant, Box<Conversation>),
    /// The machine is registered; the registry is asked once more.
    Registered(Applicant, Box<Conversation>),
}

/// The applicant, and what it has presented.
pub(super) enum Applicant {
    /// A host, or a user it vouches for, with a command.
    Exec(Box<AuthenticatedHost>),
    /// The same for an application, as this user.
    Gui(Box<AuthenticatedHost>, UserName),
    /// A user who is to be asked for a password.
    LoginClaim(Box<LoginClaim>),
    /// A machine that wants to be registered.
    AuthenticatedMachine(Box<AuthenticatedMachine>),
}

impl Applicant {
    pub(super) fn machine(&self) -> Id {
        Id::of(match self {
            Self::Exec(p) | Self::Gui(p, _) => p.machine(),
            Self::LoginClaim(c) => c.machine(),
            Self::AuthenticatedMachine(n) => n.machine(),
        })
    }

    /// Returns the machines that an exclusion concerns.
    fn machines(&self) -> Vec<Id> {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => p.machines(),
            Self::LoginClaim(_) | Self::AuthenticatedMachine(_) => vec![self.machine()],
        }
    }

    /// Returns the host, if it has proved its cookie.
    pub(super) fn host(&self) -> Option<&AuthenticatedHost> {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => Some(p),
            Self::LoginClaim(_) | Self::AuthenticatedMachine(_) => None,
        }
    }

    /// Returns the calling user, as the client's machine reports it.
    pub(super) fn caller(&self) -> &str {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => p.request().caller_user.as_str(),
            Self::LoginClaim(c) => c.request().caller_user.as_str(),
            Self::AuthenticatedMachine(n) => n.caller_user().as_str(),
        }
    }

    pub(super) fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => p.message_2(payload),
            Self::LoginClaim(c) => c.message_2(payload),
            Self::AuthenticatedMachine(n) => n.message_2(payload),
        }
    }
}

impl PendingAdmission {
    /// Returns one that has come this far.
    pub(super) fn new(arrival: Arrival, progress: Progress) -> Box<Self> {
        Box::new(Self {
            arrival,
            progress,
            ticket: None,
        })
    }

    /// Returns the machines that an exclusion concerns.
    pub(super) fn machines(&self) -> Vec<Id> {
        match &self.progress {
            Progress::Arrives(opened) => vec![Id::of(opened.machine())],
            Progress::AwaitsName(admitted) => vec![Id::of(admitted.inner().machine())],
            Progress::Authenticated(v)
            | Progress::Prompted(v, ..)
            | Progress::Registers(v, _)
            | Progress::Registered(v, _) => v.machines(),
        }
    }

    /// Whether its host's name is being resolved.
    pub(super) const fn awaits_name(&self) -> bool {
        matches!(self.progress, Progress::AwaitsName(_))
    }

    /// Whether it holds a prompt of the inner door.
    pub(super) const fn is_prompted(&self) -> bool {
        matches!(
            self.progress,
            Progress::Prompted(..) | Progress::Registers(..) | Progress::Registered(..)
        )
    }

    /// Whether the decision is due from the registry, and nothing from the peer.
    pub(super) const fn is_decided_without_peer(&self) -> bool {
        !matches!(self.progress, Progress::Prompted(..))
    }

    /// Whether the user has answered the prompt.
    pub(super) const fn has_answered(&self) -> bool {
        matches!(
            self.progress,
            Progress::Registers(..) | Progress::Registered(..)
        )
    }

    /// Whether it has proved nothing but possession of its key.
    pub(super) fn is_unauthenticated(&self) -> bool {
        match &self.progress {
            Progress::Arrives(_) | Progress::AwaitsName(_) => true,
            Progress::Authenticated(v)
            | Progress::Prompted(v, ..)
            | Progress::Registers(v, _)
            | Progress::Registered(v, _) => v.host().is_none(),
        }
    }
}
