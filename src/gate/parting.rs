//! How strangers leave the hall: refused at their time, turned out, forgotten.

use std::time::{Duration, Instant};

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;

use super::connection::Stage;
use super::hall::Hall;
use crate::channel::gate::{Complaint, Connection, Question};
use crate::fault::Fault;
use crate::wire::answer::{self, Reference};

/// So many strangers at once leave memory behind that is worth giving back.
const CROWD: usize = 256;

/// How long a refused peer may take to read its refusal.
const FAREWELL: Duration = Duration::from_secs(5);

impl Hall {
    /// Parks a refusal until the next multiple of the interval after the request.
    pub(super) fn park(
        &mut self,
        connection: Connection,
        reference: Reference,
        penalty: u32,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(limits) = self.limits else {
            return Ok(());
        };
        let Some(stranger) = self.strangers.get_mut(&connection) else {
            return Ok(());
        };
        stranger.known = false;
        let from = stranger.from;
        self.sources.punish(from, penalty, &limits, now);
        // Beyond the limit the connection is just closed.
        let most = usize::try_from(limits.refusals).unwrap_or(usize::MAX);
        let record = answer::compose_denied(reference);
        let Some(record) = record.ok().filter(|_| self.parked < most) else {
            return self.forget(connection);
        };
        let Some(stranger) = self.strangers.get_mut(&connection) else {
            return Ok(());
        };
        stranger.stage = Stage::Parked;
        stranger.unsent = Vec::new();
        self.parked += 1;
        let leaves = leaves_at(stranger.asked_at, now, limits.refusal);
        stranger.set_refusal(record);
        self.postpone(connection, leaves);
        Ok(())
    }

    /// Turns out who is late, and sends the refusals whose time has come.
    pub(super) fn pass_deadlines(&mut self, now: Instant) -> Result<(), Fault> {
        if self.paused.is_some_and(|at| at <= now) {
            self.paused = None;
            for which in 0..self.listeners.len() {
                self.accept(which, now)?;
            }
        }
        while let Some((at, connection)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            let stage = self.strangers.get(&connection).map(|s| s.stage);
            match stage {
                Some(Stage::Parked) => self.send_refusal(connection, now)?,
                Some(stage) => match stage.when_late() {
                    Some(complaint) => self.turn_out(connection, complaint, now)?,
                    None => self.forget(connection)?,
                },
                None => drop(self.deadlines.remove(&(at, connection))),
            }
        }
        Ok(())
    }

    fn send_refusal(&mut self, connection: Connection, now: Instant) -> Result<(), Fault> {
        self.parked = self.parked.saturating_sub(1);
        self.postpone(connection, now + FAREWELL);
        let Some(stranger) = self.strangers.get_mut(&connection) else {
            return Ok(());
        };
        stranger.stage = Stage::Leaving;
        if !stranger.say_refusal() {
            return self.forget(connection);
        }
        Ok(())
    }

    /// Closes a connection for the peer's own fault, with the penalty for it.
    pub(super) fn turn_out(
        &mut self,
        connection: Connection,
        complaint: Complaint,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(stranger) = self.strangers.get(&connection) else {
            return Ok(());
        };
        let from = stranger.from;
        if let Some(limits) = self.limits {
            let seconds = match complaint {
                Complaint::Malformed => limits.penalty_malformed,
                Complaint::SilentHello | Complaint::SilentHandshake => limits.penalty_silent,
                Complaint::Left | Complaint::Crowd | Complaint::NoSlot => 0,
            };
            self.sources.punish(from, seconds, &limits, now);
        }
        self.ask(&Question::TurnedAway(complaint, from), Vec::new())?;
        self.forget(connection)
    }

    /// Closes a connection, and tells the monitor if it knows it.
    pub(super) fn forget(&mut self, connection: Connection) -> Result<(), Fault> {
        let Some(stranger) = self.strangers.remove(&connection) else {
            return Ok(());
        };
        self.deadlines.remove(&(stranger.deadline, connection));
        self.sources.leave(stranger.from, connection);
        if stranger.stage == Stage::Parked {
            self.parked = self.parked.saturating_sub(1);
        }
        let _ = self
            .registry
            .deregister(&mut SourceFd(&stranger.socket.as_raw_fd()));
        if self.strangers.is_empty() && self.crowd >= CROWD {
            self.crowd = 0;
            self.strangers.shrink_to_fit();
            crate::sys::memory::trim();
        }
        if stranger.known {
            self.ask(&Question::Gone(connection), Vec::new())?;
        }
        if self.strangers.is_empty() && self.listeners.is_empty() {
            self.ask(&Question::Empty, Vec::new())?;
        }
        Ok(())
    }
}

/// The next multiple of the interval after the request that has not passed.
fn leaves_at(asked: Instant, now: Instant, interval: u32) -> Instant {
    let interval = Duration::from_secs(interval.max(1).into());
    let mut at = asked + interval;
    while at < now {
        at += interval;
    }
    at
}
