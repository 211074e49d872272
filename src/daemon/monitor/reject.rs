//! Why a connection is rejected, and what PAM had checked of its request by then.
//!
//! Runs in the monitor. Must not send anything: [`super::pipeline::refuse`] does.

use std::net::IpAddr;
use std::time::Instant;

use crate::protocol::Malformed;
use crate::refusal::{Cause, Refusal};

/// Why a step did not lead on.
pub(super) enum Reject {
    /// Refused: the peer is sent `denied`, the log has the reason.
    Refused(Refusal),
    /// Closed without an answer; the peer, if known.
    Closed(&'static str, Option<IpAddr>),
    /// It would have gone on, but its peer has left.
    Left(IpAddr),
}

impl Reject {
    /// Adds the peer to a refusal that has none.
    pub(super) fn of(self, peer: IpAddr, is_unauthenticated: bool) -> Self {
        match self {
            Self::Refused(refusal) if refusal.peer.is_none() => {
                Self::Refused(refusal.of(peer).from_unauthenticated(is_unauthenticated))
            }
            Self::Refused(_) | Self::Closed(..) | Self::Left(_) => self,
        }
    }
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

/// What PAM had checked of a refused request.
#[derive(Default)]
pub(super) struct Checked {
    /// When the check began.
    pub(super) begun: Option<Instant>,
    /// Whether this refuses a guess that PAM has not judged. Whether PAM has may depend on the user
    /// name; the cost in penalties and slots must not.
    pub(super) has_guessed: bool,
}

impl Checked {
    /// Returns how long ago PAM began, in milliseconds, for the gate; 0 if it did not.
    pub(super) fn ago(&self) -> u32 {
        let ago = self.begun.map_or(0, |at| at.elapsed().as_millis().max(1));
        u32::try_from(ago).unwrap_or(u32::MAX)
    }
}
