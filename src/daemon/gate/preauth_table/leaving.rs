//! How a connection ends: turned out for its own fault, left by its peer, forgotten.
//!
//! A peer that hangs up while the monitor decides is judged all the same, and keeps its slot
//! until the monitor has decided and a refusal would have left. The monitor alone knows what it
//! has guessed, so it hears of it, and says what is to be done.

use std::os::fd::AsRawFd;
use std::time::Instant;

use mio::unix::SourceFd;

use super::{PreauthTable, VERDICT};
use crate::daemon::gate::connection::Stage;
use crate::daemon::sources;
use crate::fault::Fault;
use crate::ipc::gate::{Complaint, Connection, Question};

/// So many strangers at once leave memory behind that is worth giving back.
const CROWD: usize = 256;

impl PreauthTable {
    /// Closes a connection for the peer's own fault, with the penalty for it.
    ///
    /// One whose peer has answered a prompt before is still judged by that answer: it stays until
    /// the monitor has said what it came to.
    pub(super) fn turn_out(
        &mut self,
        connection: Connection,
        complaint: Complaint,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(preauth) = self.unauthenticated.get(&connection) else {
            return Ok(());
        };
        if matches!(preauth.stage, Stage::Parked | Stage::Leaving) {
            // It was refused, and the log has it.
            return self.forget(connection);
        }
        let is_judged = preauth.known && preauth.has_answered && preauth.stage != Stage::Asked;
        let from = preauth.from;
        self.punish(connection, complaint, now);
        self.ask(&Question::TurnedAway(complaint, from), Vec::new())?;
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

    /// Tells the monitor, once, that a peer does not wait for its verdict.
    pub(super) fn leaves(&mut self, connection: Connection) -> Result<(), Fault> {
        let preauth = self.unauthenticated.get_mut(&connection);
        if preauth.is_none_or(|s| std::mem::replace(&mut s.has_left, true)) {
            return Ok(());
        }
        self.ask(&Question::Left(connection), Vec::new())
    }

    /// Adds what a complaint costs to the penalty of a connection's source.
    pub(super) fn punish(&mut self, connection: Connection, complaint: Complaint, now: Instant) {
        let Some((limits, preauth)) = self.limits.zip(self.unauthenticated.get(&connection)) else {
            return;
        };
        let seconds = sources::price(complaint, &limits);
        self.sources.punish(preauth.from, seconds, &limits, now);
    }

    /// Closes a connection, and tells the monitor if it knows it.
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
        if self.unauthenticated.is_empty() && self.crowd >= CROWD {
            self.crowd = 0;
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
