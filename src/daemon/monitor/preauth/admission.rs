//! A connection that waits for the registry's decision: who it is, and how far it has come.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::super::conversation::Conversation;
use super::super::registry_client::Ticket;
use crate::auth::{AuthenticatedHost, AuthenticatedMachine, LoginClaim, Opened};
use crate::config::name::UserName;
use crate::protocol::Malformed;
use crate::protocol::noise::Keys;
use crate::registry::{Admitted, Id, Machine, PromptFor};

/// A connection that waits for the registry's decision, or for what that needs.
pub(in super::super) struct PendingAdmission {
    pub(in super::super) arrival: Arrival,
    pub(in super::super) progress: Progress,
    /// The registry question that it waits for.
    pub(in super::super) ticket: Option<Ticket>,
}

/// What is known of the connection itself.
pub(in super::super) struct Arrival {
    pub(in super::super) socket: OwnedFd,
    pub(in super::super) peer: IpAddr,
    /// Whether it comes from this host itself.
    pub(in super::super) is_local: bool,
    /// What the user of an admitted machine is shown.
    pub(in super::super) welcome: String,
    /// The gate has reported that the peer has left.
    pub(in super::super) has_left: bool,
}

/// How far it has come.
pub(in super::super) enum Progress {
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
pub(in super::super) enum Applicant {
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
    pub(in super::super) fn machine(&self) -> Id {
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
    pub(in super::super) fn host(&self) -> Option<&AuthenticatedHost> {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => Some(p),
            Self::LoginClaim(_) | Self::AuthenticatedMachine(_) => None,
        }
    }

    /// Returns the calling user, as the client's machine reports it.
    pub(in super::super) fn caller(&self) -> &str {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => p.request().caller_user.as_str(),
            Self::LoginClaim(c) => c.request().caller_user.as_str(),
            Self::AuthenticatedMachine(n) => n.caller_user().as_str(),
        }
    }

    pub(in super::super) fn message_2(
        &mut self,
        payload: &[u8],
    ) -> Result<(Vec<u8>, Keys), Malformed> {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => p.message_2(payload),
            Self::LoginClaim(c) => c.message_2(payload),
            Self::AuthenticatedMachine(n) => n.message_2(payload),
        }
    }
}

impl PendingAdmission {
    /// Returns one that has come this far.
    pub(in super::super) fn new(arrival: Arrival, progress: Progress) -> Box<Self> {
        Box::new(Self {
            arrival,
            progress,
            ticket: None,
        })
    }

    /// Returns the machines that an exclusion concerns.
    pub(in super::super) fn machines(&self) -> Vec<Id> {
        match &self.progress {
            Progress::Arrives(opened) => vec![Id::of(opened.machine())],
            Progress::AwaitsName(admitted) => vec![Id::of(admitted.inner().machine())],
            Progress::VouchedFor(v)
            | Progress::Prompted(v, ..)
            | Progress::Registers(v, _)
            | Progress::Registered(v, _) => v.machines(),
        }
    }

    /// Whether its host's name is being resolved.
    pub(in super::super) const fn awaits_name(&self) -> bool {
        matches!(self.progress, Progress::AwaitsName(_))
    }

    /// Whether it holds a prompt of the inner door.
    pub(in super::super) const fn is_prompted(&self) -> bool {
        matches!(
            self.progress,
            Progress::Prompted(..) | Progress::Registers(..) | Progress::Registered(..)
        )
    }

    /// Whether the decision is due from the registry, and nothing from the peer.
    pub(in super::super) const fn is_decided_without_peer(&self) -> bool {
        !matches!(self.progress, Progress::Prompted(..))
    }

    /// Whether the user has answered the prompt.
    pub(in super::super) const fn has_answered(&self) -> bool {
        matches!(
            self.progress,
            Progress::Registers(..) | Progress::Registered(..)
        )
    }

    /// Whether it has proved nothing but possession of its key.
    pub(in super::super) fn is_unauthenticated(&self) -> bool {
        match &self.progress {
            Progress::Arrives(_) | Progress::AwaitsName(_) => true,
            Progress::VouchedFor(v)
            | Progress::Prompted(v, ..)
            | Progress::Registers(v, _)
            | Progress::Registered(v, _) => v.host().is_none(),
        }
    }
}
