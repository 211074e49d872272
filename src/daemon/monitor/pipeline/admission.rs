//! A connection that waits for the registry's decision: who it is, and how far it has come.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use crate::auth::{AuthenticatedHost, AuthenticatedMachine, LoginClaim, Opened};
use crate::config::name::UserName;
use crate::daemon::monitor::conversation::Conversation;
use crate::daemon::monitor::registry_client::Ticket;
use crate::protocol::Malformed;
use crate::protocol::noise::Keys;
use crate::registry::{Admitted, Id, Machine, PromptFor};

/// A connection that waits for the registry's decision.
pub(in crate::daemon::monitor) struct PendingAdmission {
    pub(super) socket: OwnedFd,
    pub(super) peer: IpAddr,
    /// Whether it comes from this host itself.
    pub(super) is_local: bool,
    pub(super) step: Step,
    /// The registry question that it waits for.
    pub(super) ticket: Option<Ticket>,
    pub(super) welcome: String,
    /// The gate has reported that the peer has left.
    pub(in crate::daemon::monitor) has_left: bool,
}

/// How far it has come.
pub(super) enum Step {
    /// The registry is asked about the machine of the handshake.
    Arrives(Box<Opened>),
    /// The outer door has admitted it, and its host's name is being resolved.
    AwaitsName(Box<Admitted<Opened>>),
    /// The registry is asked about the machine of the host that vouches for the user.
    VouchedFor(Applicant),
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
    /// Returns the machines that an exclusion concerns.
    pub(in crate::daemon::monitor) fn machines(&self) -> Vec<Id> {
        match &self.step {
            Step::Arrives(opened) => vec![Id::of(opened.machine())],
            Step::AwaitsName(admitted) => vec![Id::of(admitted.inner().machine())],
            Step::VouchedFor(v)
            | Step::Prompted(v, ..)
            | Step::Registers(v, _)
            | Step::Registered(v, _) => v.machines(),
        }
    }

    /// Whether its host's name is being resolved.
    pub(super) const fn awaits_name(&self) -> bool {
        matches!(self.step, Step::AwaitsName(_))
    }

    /// Whether it holds a prompt of the inner door.
    pub(super) const fn is_prompted(&self) -> bool {
        matches!(
            self.step,
            Step::Prompted(..) | Step::Registers(..) | Step::Registered(..)
        )
    }

    /// Whether the decision is due from the registry, and nothing from the peer.
    pub(in crate::daemon::monitor) const fn is_decided_without_peer(&self) -> bool {
        !matches!(self.step, Step::Prompted(..))
    }

    /// Whether the user has answered the prompt.
    pub(super) const fn has_answered(&self) -> bool {
        matches!(self.step, Step::Registers(..) | Step::Registered(..))
    }

    /// Whether it has proved nothing but possession of its key.
    pub(super) fn is_unauthenticated(&self) -> bool {
        match &self.step {
            Step::Arrives(_) | Step::AwaitsName(_) => true,
            Step::VouchedFor(v)
            | Step::Prompted(v, ..)
            | Step::Registers(v, _)
            | Step::Registered(v, _) => v.host().is_none(),
        }
    }
}
