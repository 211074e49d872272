//! How a connection ends: closed for the peer's fault, hung up by the peer, or forgotten.
//!
//! Runs in the gate. Owns nothing: the state is the table's. If a peer hangs up while the monitor
//! decides, the monitor still completes the decision. Must not free the connection's slot until the
//! monitor has decided and a refusal would have left. Only the monitor knows what the peer has
//! guessed, so the gate reports the hang-up and the monitor says what to do.

use std::os::fd::AsRawFd;
use std::time::Instant;

use mio::unix::SourceFd;

use super::{PreauthTable, VERDICT};
use crate::daemon::gate::connection::Stage;
use crate::daemon::sources;
use crate::fault::Fault;
use crate::ipc::gate::{Complaint, Connection, Question};

/// From this number of simultaneous connections on, memory is worth returning to the system.
const PEAK_WORTH_TRIMMING: usize = 256;

impl PreauthTable {
    /// Closes a connection for the peer's fault, and adds the penalty.
    ///
    /// If the peer has answered a prompt, its answer still counts: the connection stays until the
    /// monitor has reported the result.
    pub(super) fn close_with_penalty(
        &mut self,
        connection: Connection,
        complaint: Complaint,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(preauth) = self.unauthenticated.get(&connection) else {
            return Ok(());
        };
        if matches!(preauth.stage, Stage::Parked | Stage::Leaving) {
            // It was refused, and the refusal is logged.
            return self.forget(connection);
        }
        let is_judged =
            preauth.known && preauth.has_answered && preauth.stage != Stage::AwaitsCommand;
        let from = preauth.from;
        self.penalise(connection, complaint, now);
        self.ask(&Question::Rejected(complaint, from), Vec::new())?;
        if !is_judged {
            return self.forget(connection);
        }
        if let Some(preauth) = self.unauthenticated.get_mut(&connection) {
            preauth.stage = Stage::Checking;
            preauth.unsent = Vec::new();
        }
        self.postpone(connection, now + VERDICT);
        self.leaves(connection)
    }

    /// Tells the monitor, once, that a peer does not wait for its decision.
    pub(super) fn leaves(&mut self, connection: Connection) -> Result<(), Fault> {
        let preauth = self.unauthenticated.get_mut(&connection);
        if preauth.is_none_or(|s| std::mem::replace(&mut s.has_left, true)) {
            return Ok(());
        }
        self.ask(&Question::Left(connection), Vec::new())
    }

    /// Adds the price of a complaint to the penalty of a connection's source.
    pub(super) fn penalise(&mut self, connection: Connection, complaint: Complaint, now: Instant) {
        let Some((limits, preauth)) = self.limits.zip(self.unauthenticated.get(&connection)) else {
            return;
        };
        let seconds = sources::price(complaint, &limits);
        self.sources.penalise(preauth.from, seconds, &limits, now);
    }

    /// Closes a connection, and tells the monitor if the monitor knows the connection.
    pub(super) fn forget(&mut self, connection: Connection) -> Result<(), Fault> {
        let Some(preauth) = self.unauthenticated.remove(&connection) else {
            return Ok(());
        };
        self.deadlines.remove(&(preauth.deadline, connection));
        self.sources.leave(preauth.from, connection);
        if preauth.stage == Stage::Parked {
            self.parked = self.parked.saturating_sub(1);
        }
        let _ = self
            .registry
            .deregister(&mut SourceFd(&preauth.socket.as_raw_fd()));
        if self.unauthenticated.is_empty() && self.peak >= PEAK_WORTH_TRIMMING {
            self.peak = 0;
            self.unauthenticated.shrink_to_fit();
            crate::sys::memory::trim();
        }
        if preauth.known {
            self.ask(&Question::Gone(connection), Vec::new())?;
        }
        if self.unauthenticated.is_empty() && self.listeners.is_empty() {
            self.ask(&Question::Empty, Vec::new())?;
        }
        Ok(())
    }
}
