//! One of the command's outputs on its way to our own: how much may still come,
//! what waits for its reader, and whether anybody reads it at all. Run by the
//! client's pump, which says to the server what a sink gives it to say.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::poll::PollFlags;

use super::io_error::plainly;
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
    /// Nobody reads it here any more, and the server was told, or it is over.
    closed: bool,
}

/// What is to be done about a sink.
#[derive(Default)]
pub struct SinkOutcome {
    /// What to say to the server.
    pub messages: Option<Message<'static>>,
    /// Why this output is at its end, where the user is to know.
    pub note: Option<String>,
    /// What failed here: the session cannot go on.
    pub fault: Option<Fault>,
}

impl Sink {
    /// Of a stream, to the output of ours that it is for, with this window.
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

    /// Takes note of data that has come; whether anybody wants it.
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

    /// Takes note that nothing more comes.
    ///
    /// # Errors
    /// That was said before.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if self.ended {
            return Err(Malformed("a stream that ended twice"));
        }
        self.ended = true;
        Ok(())
    }

    /// Whether more could have come that somebody reads here: the server has not said that
    /// it is at its end.
    pub const fn is_open(&self) -> bool {
        !self.ended && !self.closed
    }

    /// Whether bytes wait for the reader.
    pub const fn has_backlog(&self) -> bool {
        self.output.has_backlog()
    }

    /// What to poll the output for; `None`: leave it alone. Whether its reader
    /// is gone is told without being asked for.
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

    /// Does what a poll has found the output ready for.
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

    /// Grants what the reader has taken; or, where nobody reads the output or it cannot
    /// be written to, tells the server that it is read no more.
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
                // What is wrong with standard error cannot be said there; as with ssh, the
                // command goes on without it.
                if self.stream == Stream::Main && !gone.contains(&e.kind()) {
                    let fault = Fault::new(plainly(&e)).while_doing("standard output");
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

    /// Lets the reader of an output that has ended see it.
    pub fn let_go(&mut self) {
        if self.ended && !self.closed && !self.has_backlog() {
            self.output.release();
            self.close();
        }
    }

    /// Nothing of the stream is kept here any more.
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
