//! The end of a session whose command has ended: its outputs are at their end or, where
//! another process holds them, quiet.

use std::time::{Duration, Instant};

use super::{Output, Serving, Stop};
use crate::wire::stream::Message;

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
        self.outgoing.add(&Message::End(end))?;
        self.flush()
    }

    /// Reads the outputs that others hold once more. Whether something came, or one ended.
    fn read_what_is_left(&mut self) -> Result<bool, Stop> {
        let mut came = false;
        for which in 0..self.outputs.len() {
            let before = self.got;
            if let Some(stream) = self.read_job(which)? {
                self.outgoing.add(&Message::Eof(stream))?;
                came = true;
            }
            came |= self.got != before;
        }
        Ok(came)
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
