//! The end of a session whose command has ended: its outputs are at their end or, where
//! another process holds them, quiet; the client is told, and takes what was sent.
//!
//! Runs in the relay, in the session's thread. Must not send anything after the end, nor let the
//! session go while the client's system has no room for the rest.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{Output, Serving, Stop};
use crate::protocol::stream::Message;
use crate::sys::unsent::Outlook;

impl Serving {
    /// Tells the client the job's end, once the command has ended and its outputs
    /// are at their end or, where others still hold them, quiet.
    pub(super) fn tell_end(&mut self) -> Result<(), Stop> {
        let quiet = |s: Instant| self.linger.is_some_and(|linger| s.elapsed() >= linger);
        let quiet = self.quiet_since.is_some_and(quiet);
        let held = self.outputs.iter().any(|o| o.pipe.is_some());
        if self.told || (held && !quiet) || !self.outgoing.is_empty() {
            return Ok(());
        }
        // What has come since the last look is not cut off.
        if held && self.end.is_some() && self.read_what_is_left()? {
            self.quiet_since = None;
            return Ok(());
        }
        let Some(end) = self.end.take() else {
            return Ok(());
        };
        self.told = true;
        self.cut_off = held;
        // Nothing of the job is wanted any more, however long the client takes.
        self.close_input();
        self.outputs.iter_mut().for_each(|o| o.pipe = None);
        self.outgoing.add(&Message::End(end))?;
        self.flush()
    }

    /// Whether the client was told the end, and its system has all that was sent before, or has
    /// room for it. The kernel drops what a closed connection has still to send when the
    /// client's window stays closed: a client that was stopped keeps its session until it goes
    /// on, as it does while the command runs, and counts as one.
    pub(super) fn is_over(&mut self) -> bool {
        self.told
            && self.outgoing.is_empty()
            && match self.unsent.look(self.socket.as_fd()) {
                Outlook::Acknowledged | Outlook::Sent => true,
                // The latter ends the next wait, once what the client has said was heard.
                Outlook::Waiting | Outlook::Lost => false,
            }
    }

    /// Reads the outputs that others hold once more. Whether something came, or one ended.
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

    /// How long outputs that others hold must still be quiet. `None`: the command
    /// runs, or there is nothing to wait for, or the client does not read.
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
