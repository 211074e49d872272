//! The end of a session whose command has ended.
//!
//! Its outputs are at their end or, if other processes hold them, quiet. The client is sent the
//! job's end and takes what was sent before. Runs in the relay, in the session's thread. Must not
//! send anything after the end, nor close the session while the client's system has no room for the
//! rest.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{Output, Serving, Stop};
use crate::protocol::stream::Message;
use crate::sys::unsent::UnsentState;

impl Serving {
    /// Sends the client the job's end, once the command has ended and its outputs are at their end
    /// or, if other processes still hold them, quiet.
    pub(super) fn tell_end(&mut self) -> Result<(), Stop> {
        let quiet = |s: Instant| self.linger.is_some_and(|linger| s.elapsed() >= linger);
        let quiet = self.quiet_since.is_some_and(quiet);
        let held = self.outputs.iter().any(|o| o.pipe.is_some());
        if self.is_backend && self.stdin.is_some() {
            return Ok(());
        }
        if self.told || (held && !quiet) || !self.outgoing.is_empty() {
            return Ok(());
        }
        // Output that came since the last read must not be cut off.
        if held && self.end.is_some() && self.read_what_is_left()? {
            self.quiet_since = None;
            return Ok(());
        }
        let Some(end) = self.end.take() else {
            return Ok(());
        };
        self.told = true;
        self.cut_off = held;
        // The job's pipes are no longer needed, however long the client takes.
        self.close_input();
        self.outputs.iter_mut().for_each(|o| o.pipe = None);
        self.outgoing.add(&Message::End(end))?;
        self.flush()
    }

    /// Whether the session is over: the client was sent the end, and its system has all that was
    /// sent before, or has room for it.
    ///
    /// The kernel drops the unsent data of a closed connection if the client's window stays closed.
    /// So a client that was stopped keeps its session until it continues, as it does while the
    /// command runs, and the session still counts against the limits.
    pub(super) fn is_over(&mut self) -> bool {
        self.told
            && self.outgoing.is_empty()
            && match self.unsent.look(self.socket.as_fd()) {
                UnsentState::Acknowledged | UnsentState::Sent => true,
                // `Lost` ends the next wait, once what the client has sent was read.
                UnsentState::Waiting | UnsentState::Lost => false,
            }
    }

    /// Reads once more the outputs that other processes hold. Returns whether data came or one
    /// ended.
    fn read_what_is_left(&mut self) -> Result<bool, Stop> {
        let mut outcome = false;
        for which in 0..self.outputs.len() {
            let before = self.got;
            if let Some(stream) = self.read_job(which)? {
                self.outgoing.add(&Message::Eof(stream))?;
                outcome = true;
            }
            outcome |= self.got != before;
        }
        Ok(outcome)
    }

    /// Returns how long outputs that other processes hold must still be quiet. Returns `None` if
    /// the command runs, there is nothing to wait for, or the client does not read.
    pub(super) fn linger_left(&self) -> Option<Duration> {
        self.end.as_ref()?;
        let linger = self.linger?;
        let blocked = |o: &Output| o.pipe.is_some() && o.allowance.left() == 0;
        if !self.outgoing.is_empty() || self.outputs.iter().any(blocked) {
            return None;
        }
        let quiet = self.quiet_since.map_or(Duration::ZERO, |s| s.elapsed());
        Some(linger.saturating_sub(quiet))
    }
}
