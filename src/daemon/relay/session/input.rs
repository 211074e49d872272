//! The job's input: passes on what the client sends, and grants credit as the job takes it.
//!
//! Runs in the relay, in the session's thread. Must not keep more input than the window has
//! promised, nor mistake an error of the pipe for a job that no longer reads.

use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::Shutdown;

use super::super::incoming::Said;
use super::super::pipe::{reader_is_gone, shut, widen};
use super::{Serving, Stop};
use crate::ipc::relay::{Part, RelayToMonitor};
use crate::protocol::stream::{End, Message, Stream};

impl Serving {
    /// Reads the connection once, and does what the client asks.
    pub(super) fn read_peer(&mut self) -> Result<(), Stop> {
        let waited = self.incoming.backlog();
        let outcome = self.incoming.read(&self.socket, self.stdin.as_ref())?;
        if let Some((part, e)) = outcome.failed {
            return Err(Stop::failed(part, e));
        }
        self.sent = self
            .sent
            .saturating_add(outcome.bytes.try_into().unwrap_or(u64::MAX));
        self.window.received(outcome.bytes, Instant::now())?;
        let has_signal = outcome.said.iter().any(|s| matches!(s, Said::Signal(_)));
        if has_signal && !self.told {
            // Shows the client that the host is alive, however long its command takes.
            self.outgoing.add(&Message::Credit(Stream::Main, 0))?;
        }
        for said in outcome.said {
            match said {
                // A connection to a backend has no process that takes it.
                Said::Signal(s) if self.is_backend => {
                    self.end = Some(End::Killed(s.byte()));
                    self.close_input();
                    for output in &mut self.outputs {
                        if output.pipe.take().is_some() {
                            self.outgoing.add(&Message::Eof(output.stream))?;
                        }
                    }
                }
                Said::Signal(s) => {
                    // Signals that arrive faster than the monitor reads them are merged. After the
                    // command's end, a signal has no receiver.
                    if !self.told && !self.monitor.is_waiting() {
                        let _ = self
                            .monitor
                            .send(RelayToMonitor::Signal(s).encode(), Vec::new());
                    }
                }
                Said::Credit(stream, bytes) => {
                    let output = self.output(stream);
                    // Credit for a stream that has ended is ignored.
                    if output.pipe.is_some() {
                        output.allowance.granted(bytes)?;
                    }
                }
                Said::Reset(stream) => {
                    if let Some(pipe) = self.output(stream).pipe.take() {
                        shut(&pipe, Shutdown::Read);
                    }
                }
            }
        }
        if self.stdin.is_some() {
            if self.incoming.has_backlog() {
                self.widen_stdin();
            }
            self.feed_job(waited.saturating_add(outcome.bytes))?;
        }
        if outcome.gone {
            Err(Stop::Gone)
        } else {
            Ok(())
        }
    }

    /// Writes the backlog to the job, which had `before` bytes still to take. Closes the job's
    /// input at its end.
    pub(super) fn feed_job(&mut self, before: usize) -> Result<(), Stop> {
        let Some(stdin) = &self.stdin else {
            return Ok(());
        };
        let gone = match self.incoming.flush_backlog(stdin) {
            Ok(()) => reader_is_gone(stdin),
            Err(Errno::EPIPE | Errno::ECONNRESET) => true,
            // Closing the input here would tell the job that it has all of it.
            Err(e) => return Err(Stop::failed(Part::Input, e)),
        };
        if gone {
            self.close_input();
            if !self.incoming.is_drained() {
                self.outgoing.add(&Message::Reset(Stream::Main))?;
            }
            return Ok(());
        }
        if self.incoming.is_drained() {
            self.close_input();
        }
        let waiting = self.incoming.backlog();
        let taken = before.saturating_sub(waiting);
        if let Some(grant) = self.window.consumed(taken, waiting, Instant::now()) {
            self.outgoing.add(&Message::Credit(Stream::Main, grant))?;
        }
        Ok(())
    }

    /// Closes the job's input: later input is discarded.
    pub(super) fn close_input(&mut self) {
        if let Some(stdin) = self.stdin.take() {
            shut(&stdin, Shutdown::Write);
        }
        self.incoming.forget_backlog();
        self.window.close();
    }

    fn widen_stdin(&mut self) {
        if let (Some(pipe), false) = (&self.stdin, self.stdin_large) {
            self.stdin_large = true;
            widen(pipe);
        }
    }
}
