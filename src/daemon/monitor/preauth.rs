//! What the monitor keeps of a connection until its session has begun.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::conversation::Conversation;
use super::logins::LoginId;
use super::look_ups::LookUp;
use super::pipeline::admission::PendingAdmission;
use crate::auth::policy::{Exec, Granted};
use crate::auth::{AuthenticatedHost, Greeted};
use crate::ipc::gate::Connection;
use crate::protocol::Malformed;
use crate::protocol::prompt::Text;
use crate::refusal::{Cause, Refusal};
use crate::registry::{Id, Known};

/// An unauthenticated connection, as the monitor sees it.
pub(super) enum Preauth {
    /// The ServerHello is sent.
    Greeted(Box<Greeted>),
    /// It waits for the doors' decision.
    AtDoor(Box<PendingAdmission>),
    /// It is admitted; the rest of a long command is coming.
    Asked(Box<Asked>),
    /// The request is granted; the account is being looked up.
    Waiting(LookUp),
    /// It asks for an application; PAM is working, or the user is prompted.
    LoggingIn(LoginId),
}

impl Preauth {
    /// Returns its login, if one is under way.
    pub(super) const fn login(&self) -> Option<LoginId> {
        if let Self::LoggingIn(id) = self {
            Some(*id)
        } else {
            None
        }
    }
}

/// An admitted client whose command is still coming.
pub(super) struct Asked {
    pub(super) known: Known<AuthenticatedHost>,
    pub(super) socket: OwnedFd,
    pub(super) conversation: Conversation,
    pub(super) welcome: Vec<Text>,
    pub(super) encoding: Vec<u8>,
    pub(super) length: usize,
}

impl Asked {
    /// Returns the client's address.
    pub(super) const fn peer(&self) -> IpAddr {
        self.known.inner().peer()
    }

    /// Returns the machines that made the request.
    pub(super) fn machines(&self) -> Vec<Id> {
        self.known.inner().machines()
    }
}

/// How the client is told that it is accepted.
pub(super) enum Acceptance {
    /// By message 2, which is still to be made.
    Message2,
    /// By the next record of a conversation.
    Conversation(Box<Conversation>),
}

/// A granted request that waits for its account.
pub(super) struct Pending {
    pub(super) connection: Connection,
    pub(super) granted: Granted<Exec>,
    pub(super) socket: OwnedFd,
    pub(super) acceptance: Acceptance,
    /// What the client is shown on acceptance.
    pub(super) welcome: Vec<Text>,
}

/// Why a step did not lead to a running job.
pub(super) enum Reject {
    /// Refused: the peer is sent `denied`, the log has the reason.
    Refused(Refusal),
    /// Closed without an answer; the peer, if known.
    Closed(&'static str, Option<IpAddr>),
    /// It would have gone on, but its peer has left.
    Left(IpAddr),
}

impl From<Refusal> for Reject {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<Malformed> for Reject {
    fn from(m: Malformed) -> Self {
        // Only the monitor's own answers to authenticated clients fail this way.
        Self::Refused(Refusal::new(Cause::System, m))
    }
}
