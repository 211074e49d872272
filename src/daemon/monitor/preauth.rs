//! What the monitor keeps of a connection until its session has begun.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use super::doors::pending_admission::PendingAdmission;
use super::logins::LoginId;
use super::look_ups::LookUp;
use super::talk::Talk;
use crate::auth::policy::{Exec, Granted};
use crate::auth::{AuthenticatedHost, Greeted};
use crate::ipc::gate::Connection;
use crate::protocol::Malformed;
use crate::protocol::prompt::Text;
use crate::refusal::{Cause, Refusal};
use crate::registry::{Id, Known};

/// A stranger, as far as the monitor knows him.
pub(super) enum Preauth {
    /// The ServerHello is out.
    Greeted(Box<Greeted>),
    /// At the doors.
    AtDoor(Box<PendingAdmission>),
    /// Known; the rest of a long command is coming.
    Asked(Box<Asked>),
    /// Granted; the account is being looked up.
    Waiting(LookUp),
    /// Asked for an application; PAM has its turn, or he is prompted.
    LoggingIn(LoginId),
}

impl Preauth {
    /// His login, if he is in the midst of one.
    pub(super) const fn login(&self) -> Option<LoginId> {
        if let Self::LoggingIn(id) = self {
            Some(*id)
        } else {
            None
        }
    }
}

/// A known caller whose command is still coming.
pub(super) struct Asked {
    pub(super) known: Known<AuthenticatedHost>,
    pub(super) socket: OwnedFd,
    pub(super) talk: Talk,
    pub(super) welcome: Vec<Text>,
    pub(super) encoding: Vec<u8>,
    pub(super) length: usize,
}

impl Asked {
    /// The address he calls from.
    pub(super) const fn peer(&self) -> IpAddr {
        self.known.inner().peer()
    }

    /// The machines that ask.
    pub(super) fn machines(&self) -> Vec<Id> {
        self.known.inner().machines()
    }
}

/// How the connection will be told that it is accepted.
pub(super) enum Acceptance {
    /// By message 2, which is still to be made.
    Message2,
    /// By the next record of a conversation.
    Talk(Box<Talk>),
}

/// A granted request that waits for its account.
pub(super) struct Pending {
    pub(super) connection: Connection,
    pub(super) granted: Granted<Exec>,
    pub(super) socket: OwnedFd,
    pub(super) acceptance: Acceptance,
    /// What is said to him when he is accepted.
    pub(super) welcome: Vec<Text>,
}

/// What a step came to, when the walk did not end in a running job.
pub(super) enum Reject {
    /// Refused: the peer hears `denied`, the log why.
    Refused(Refusal),
    /// Something that must not be answered at all; and whose it is, if known.
    Closed(&'static str, Option<IpAddr>),
    /// It would have gone on, and its peer has left.
    Left(IpAddr),
}

impl From<Refusal> for Reject {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<Malformed> for Reject {
    fn from(m: Malformed) -> Self {
        // Only our own answers to proven callers are made by way of this.
        Self::Refused(Refusal::new(Cause::System, m))
    }
}
