//! Somebody at the doors: who he is, and how far he has come.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::registry_client::Ticket;
use crate::auth::{AuthenticatedHost, AuthenticatedMachine, LoginClaim, Opened};
use crate::config::name::UserName;
use crate::daemon::monitor::talk::Talk;
use crate::protocol::Malformed;
use crate::protocol::noise::Keys;
use crate::registry::{Admitted, Id, Machine, PromptFor};

/// Somebody at the doors.
pub(in super::super) struct PendingAdmission {
    pub(super) socket: OwnedFd,
    pub(super) peer: IpAddr,
    /// He calls from this host itself.
    pub(super) is_local: bool,
    pub(super) step: Step,
    /// What the doors have been asked last.
    pub(super) ticket: Option<Ticket>,
    pub(super) welcome: String,
    /// The gate has said that he has left.
    pub(in super::super) has_left: bool,
}

/// How far he has come.
pub(super) enum Step {
    /// The doors are asked about the machine of the handshake.
    Arrives(Box<Opened>),
    /// The outer door has let it through, and its host's name is being looked up.
    AwaitsName(Box<Admitted<Opened>>),
    /// The doors are asked about the machine of the host that vouches for him.
    VouchedFor(Applicant),
    /// He has been asked.
    Prompted(Applicant, PromptFor, Box<Talk>),
    /// He is being registered.
    Registers(Applicant, Box<Talk>),
    /// He is; the doors are asked once more.
    Registered(Applicant, Box<Talk>),
}

/// Who wants to come in, and what he has shown.
pub(super) enum Applicant {
    /// A host, or its user, for a command.
    Exec(Box<AuthenticatedHost>),
    /// The same for an application, as this user.
    Gui(Box<AuthenticatedHost>, UserName),
    /// Somebody who will be asked for his password.
    LoginClaim(Box<LoginClaim>),
    /// A machine that wants to be known.
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

    /// The machines that an exclusion concerns.
    fn machines(&self) -> Vec<Id> {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => p.machines(),
            Self::LoginClaim(_) | Self::AuthenticatedMachine(_) => vec![self.machine()],
        }
    }

    /// The host whose cookie was proven.
    pub(super) fn host(&self) -> Option<&AuthenticatedHost> {
        match self {
            Self::Exec(p) | Self::Gui(p, _) => Some(p),
            Self::LoginClaim(_) | Self::AuthenticatedMachine(_) => None,
        }
    }

    /// Who sits there, as his machine says.
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
    /// Whose machines an exclusion would concern.
    pub(in super::super) fn machines(&self) -> Vec<Id> {
        match &self.step {
            Step::Arrives(opened) => vec![Id::of(opened.machine())],
            Step::AwaitsName(admitted) => vec![Id::of(admitted.inner().machine())],
            Step::VouchedFor(v)
            | Step::Prompted(v, ..)
            | Step::Registers(v, _)
            | Step::Registered(v, _) => v.machines(),
        }
    }

    /// Whether its host's name is being looked up.
    pub(super) const fn awaits_name(&self) -> bool {
        matches!(self.step, Step::AwaitsName(_))
    }

    /// Whether he holds a prompt of the inner door.
    pub(super) const fn is_prompted(&self) -> bool {
        matches!(
            self.step,
            Step::Prompted(..) | Step::Registers(..) | Step::Registered(..)
        )
    }

    /// Whether it is the doors' turn to decide, and nothing is due from him.
    pub(in super::super) const fn is_decided_without_peer(&self) -> bool {
        !matches!(self.step, Step::Prompted(..))
    }

    /// Whether he has answered it.
    pub(super) const fn has_answered(&self) -> bool {
        matches!(self.step, Step::Registers(..) | Step::Registered(..))
    }

    /// Whether he has proven nothing but his key.
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
