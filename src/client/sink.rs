//! One of the command's outputs on its way to ours: how much may still come, what waits for its
//! reader, and whether it is read at all.
//!
//! Runs in the client's pump. Owns the output and its window. Must not send anything to the server:
//! the pump sends the messages that a sink returns.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::poll::PollFlags;

use super::io_error::text_without_number;
use super::stdio::{Output, Which, is_of_the_stream};
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::stream::{Message, Stream};
use crate::protocol::window::Window;

/// An output of the command.
pub struct Sink {
    stream: Stream,
    output: Output,
    window: Window,
    /// The server has said that nothing more comes.
    ended: bool,
    /// The output is no longer read here and the server knows it, or the output is complete.
    closed: bool,
}

/// What to do about a sink.
#[derive(Default)]
pub struct SinkOutcome {
    /// The message for the server.
    pub messages: Option<Message<'static>>,
    /// Why this output has ended, if the user must know.
    pub note: Option<String>,
    /// What failed here: the session cannot continue.
    pub fault: Option<Fault>,
}

impl Sink {
    /// Returns the sink of a stream, with this window, to the output of ours that it is for.
    pub fn new(stream: Stream, window: Window) -> Self {
        let which = match stream {
            Stream::Main => Which::Out,
            Stream::Error => Which::Err,
        };
        Self {
            stream,
            output: Output::new(which),
            window,
            ended: false,
            closed: false,
        }
    }

    /// Makes the end of standard output end that direction of its connection.
    pub fn own_connection(&mut self) {
        self.output.own_connection();
    }

    /// Records data that has come. Returns whether it is to be written.
    ///
    /// # Errors
    /// The server had no credit for it, or had said that nothing more comes.
    pub fn take_note(&mut self, bytes: usize, now: Instant) -> Result<bool, Malformed> {
        if self.ended {
            return Err(Malformed("data on a stream that is at its end"));
        }
        self.window.received(bytes, now)?;
        Ok(!self.closed)
    }

    /// Records that nothing more comes.
    ///
    /// # Errors
    /// The server had said so before.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if self.ended {
            return Err(Malformed("a stream that ended twice"));
        }
        self.ended = true;
        Ok(())
    }

    /// Whether more could have come that is still read here: the server has not ended the stream.
    pub const fn is_open(&self) -> bool {
        !self.ended && !self.closed
    }

    /// Whether bytes wait for the reader.
    pub const fn has_backlog(&self) -> bool {
        self.output.has_backlog()
    }

    /// Returns what to poll the output for. `None`: do not poll it. A poll also reports that the
    /// reader is gone, even without a requested event.
    pub const fn interest(&self) -> Option<PollFlags> {
        match (self.closed, self.has_backlog()) {
            (true, _) => None,
            (false, true) => Some(PollFlags::POLLOUT),
            (false, false) => Some(PollFlags::empty()),
        }
    }

    /// Writes data that has come.
    pub fn put(&mut self, parts: &mut [IoSlice<'_>]) -> SinkOutcome {
        if self.closed {
            return SinkOutcome::default();
        }
        let written = self.output.put(parts);
        self.account(written)
    }

    /// Handles the events that a poll has found.
    pub fn serve(&mut self, ready: PollFlags) -> SinkOutcome {
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let written = if self.has_backlog() {
            self.output.drain()
        } else if ready.intersects(gone) {
            Err(io::ErrorKind::BrokenPipe.into())
        } else {
            Ok(0)
        };
        self.account(written)
    }

    /// Grants credit for what the reader has taken. If the output has no reader or cannot be
    /// written, returns a reset that tells the server so.
    fn account(&mut self, written: io::Result<usize>) -> SinkOutcome {
        let mut outcome = SinkOutcome::default();
        match written {
            Ok(bytes) => {
                let waiting = self.output.backlog();
                let grant = self.window.consumed(bytes, waiting, Instant::now());
                let grant = grant.filter(|_| !self.ended);
                outcome.messages = grant.map(|n| Message::Credit(self.stream, n));
            }
            Err(e) => {
                self.output.forget();
                self.close();
                outcome.messages = (!self.ended).then_some(Message::Reset(self.stream));
                let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
                // A failure of standard error cannot be reported there. As with ssh, the command
                // continues without it.
                if self.stream == Stream::Main && !gone.contains(&e.kind()) {
                    let fault = Fault::new(text_without_number(&e)).while_doing("standard output");
                    if is_of_the_stream(self.output.as_fd(), OFlag::O_WRONLY, &e) {
                        outcome.note = Some(fault.to_string());
                    } else {
                        outcome.fault = Some(fault);
                    }
                }
            }
        }
        outcome
    }

    /// Closes an output that has ended, so that its reader sees the end.
    pub fn let_go(&mut self) {
        if self.ended && !self.closed && !self.has_backlog() {
            self.output.release();
            self.close();
        }
    }

    /// Stops receiving the stream.
    fn close(&mut self) {
        self.closed = true;
        self.window.close();
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}
