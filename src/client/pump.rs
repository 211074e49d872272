//! The pump: one thread, one poll, every byte of an accepted connection in both
//! directions, the signals, and the end. Run by the client; it must never wait
//! for anything but the poll.
//!
//! Input goes from its descriptor into the places of its records and from there
//! to the socket; output is opened where it was received and written from
//! there. What an output's reader does not take at once waits in a backlog,
//! which the stream's credit bounds, so that signals, errors and the credit for
//! the input come through whatever happens to the output.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::greet::Accepted;
use super::inbox::{Came, Inbox};
use super::outbox::Outbox;
use super::signals::Signals;
use super::stdio::{Input, Output, Which};
use crate::fault::Fault;
use crate::wire::Malformed;
use crate::wire::limits::RECORD_BODY;
use crate::wire::seal::Opener;
use crate::wire::stream::{Allowance, End, Message, Signal, Stream, Window};

/// A signal that comes so long after another one, and nothing from the server
/// in between, ends the client: there is nobody who would take it.
const UNHEARD: Duration = Duration::from_secs(5);

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server said so.
    Told(End),
    /// The command had ended; a signal stopped the writing of its output here.
    Stopped(Signal),
}

/// One of the command's outputs.
struct Sink {
    stream: Stream,
    output: Output,
    window: Window,
    /// The server has said that nothing more comes.
    ended: bool,
    /// Nobody reads it here any more, and the server was told, or it is over.
    closed: bool,
}

struct Pump {
    socket: TcpStream,
    inbox: Inbox,
    opener: Opener,
    outbox: Outbox,
    /// The server takes no more; what it still says is read.
    deaf: bool,
    input: Option<Input>,
    allowance: Allowance,
    sinks: [Sink; 2],
    signals: Signals,
    /// When a signal was sent, as long as nothing has come from the server since.
    unheard: Option<Instant>,
    end: Option<End>,
    /// What failed here, told once the command has ended.
    trouble: Option<Fault>,
}

/// Carries an accepted connection to its end.
///
/// # Errors
/// The connection failed, the server broke the protocol, or standard input or
/// output failed.
pub fn carry(accepted: Accepted, no_input: bool) -> Result<Ended, Fault> {
    let sink = |stream, which| Sink {
        stream,
        output: Output::new(which),
        window: Window::default(),
        ended: false,
        closed: false,
    };
    let mut pump = Pump {
        socket: accepted.socket,
        inbox: accepted.inbox,
        opener: accepted.opener,
        outbox: Outbox::new(accepted.sealer),
        deaf: false,
        input: (!no_input).then(Input::default),
        allowance: Allowance::default(),
        sinks: [
            sink(Stream::Main, Which::Out),
            sink(Stream::Error, Which::Err),
        ],
        signals: Signals::catch()?,
        unheard: None,
        end: None,
        trouble: None,
    };
    if no_input {
        pump.say(&Message::Eof(Stream::Main))?;
    }
    pump.run()
}

impl Pump {
    fn run(&mut self) -> Result<Ended, Fault> {
        // The first records may have come together with the answer.
        self.take_in()?;
        loop {
            self.flush();
            if self.end.is_some() && !self.sinks.iter().any(|s| s.output.has_backlog()) {
                let end = self.end.take().map(Ended::Told);
                return self
                    .trouble
                    .take()
                    .map_or_else(|| end.ok_or_else(|| Fault::new("")), Err);
            }
            self.hang_up_after_the_end();
            self.release_outputs();
            let ready = self.wait()?;
            if ready.signal {
                if let Some(ended) = self.forward_signals()? {
                    return Ok(ended);
                }
            }
            if ready.socket {
                self.receive()?;
            }
            if ready.input {
                self.read_input()?;
            }
            for (at, ready) in ready.outputs.into_iter().enumerate() {
                if !ready.is_empty() {
                    self.serve_output(at, ready)?;
                }
            }
        }
    }

    /// The server need not wait until our output's reader has taken the rest.
    fn hang_up_after_the_end(&mut self) {
        if self.end.is_some() && !self.deaf {
            self.deaf = true;
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Waits until something can be done.
    fn wait(&self) -> Result<Ready, Fault> {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(5);
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        let socket = self.end.is_none().then(|| {
            let out = !self.deaf && !self.outbox.is_empty();
            let out = if out {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            add(&mut fds, self.socket.as_fd(), PollFlags::POLLIN | out)
        });
        let input = self.input.as_ref().filter(|_| self.may_read_input());
        let input = input.map(|i| add(&mut fds, i.as_fd(), PollFlags::POLLIN));
        let outputs = self.sinks.each_ref().map(|s| {
            let events = match (s.closed, s.output.has_backlog()) {
                (true, _) => return None,
                (false, true) => PollFlags::POLLOUT,
                // Whether its reader is gone is told without being asked for.
                (false, false) => PollFlags::empty(),
            };
            Some(add(&mut fds, s.output.as_fd(), events))
        });
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Fault::from(e).while_doing("poll")),
        }
        let found = |at: Option<usize>| {
            let revents = at.and_then(|at| fds.get(at)).and_then(PollFd::revents);
            revents.unwrap_or(PollFlags::empty())
        };
        Ok(Ready {
            signal: !found(Some(0)).is_empty(),
            socket: !found(socket).is_empty(),
            input: !found(input).is_empty(),
            outputs: outputs.map(found),
        })
    }

    fn may_read_input(&self) -> bool {
        self.end.is_none() && self.outbox.is_empty() && self.allowance.left() > 0
    }

    /// Reads the socket once and takes in every record that is whole.
    fn receive(&mut self) -> Result<(), Fault> {
        match self.inbox.fill(&mut self.socket) {
            Ok(Came::Bytes(_)) => {
                self.unheard = None;
                self.take_in()
            }
            Ok(Came::Nothing) => Ok(()),
            Ok(Came::Closed) => Err(Fault::new(
                "the connection was closed before the command's end; the command is hung up",
            )),
            Err(e) => Err(Fault::from(e).while_doing("the connection broke")),
        }
    }

    /// Opens the records that are whole and does what they say.
    fn take_in(&mut self) -> Result<(), Fault> {
        let mut data: Vec<(Stream, Range<usize>)> = Vec::new();
        while self.end.is_none() {
            let Some(record) = self.inbox.next(RECORD_BODY).map_err(broken)? else {
                break;
            };
            let body = self.inbox.body(record.clone());
            let text = self.opener.open(body).map_err(broken)?;
            // A record's text lies behind its length field, its payload at the text's end.
            let end = record
                .start
                .saturating_add(crate::wire::limits::LENGTH_BYTES + text.len());
            let said = match Message::parse(text).map_err(broken)? {
                Message::Data(stream, payload) => {
                    let payload = payload.len();
                    let sink = self.sink(stream);
                    sink.take_note(payload).map_err(broken)?;
                    if !sink.closed {
                        data.push((stream, end.saturating_sub(payload)..end));
                    }
                    continue;
                }
                Message::Eof(stream) => Said::Eof(stream),
                Message::Reset(Stream::Main) => Said::Reset,
                Message::Credit(Stream::Main, bytes) => Said::Credit(bytes),
                Message::End(end) => Said::End(end),
                Message::Reset(Stream::Error)
                | Message::Credit(Stream::Error, _)
                | Message::Signal(_) => {
                    return Err(broken(Malformed("a record that a server does not send")));
                }
            };
            self.obey(said)?;
        }
        // In the order of their coming, as far as two descriptors can tell it.
        for run in data.chunk_by(|(a, _), (b, _)| a == b) {
            if let Some((stream, _)) = run.first() {
                self.put_out(*stream, run)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, said: Said) -> Result<(), Fault> {
        match said {
            Said::Eof(stream) => {
                let sink = self.sink(stream);
                if sink.ended {
                    return Err(broken(Malformed("a stream that ended twice")));
                }
                sink.ended = true;
            }
            Said::Reset => {
                if let Some(input) = self.input.take() {
                    input.release();
                }
            }
            Said::Credit(bytes) => self.allowance.granted(bytes).map_err(broken)?,
            Said::End(end) => self.end = Some(end),
        }
        Ok(())
    }

    fn put_out(&mut self, stream: Stream, run: &[(Stream, Range<usize>)]) -> Result<(), Fault> {
        let inbox = &self.inbox;
        let parts = run
            .iter()
            .map(|(_, range)| IoSlice::new(inbox.bytes(range.clone())));
        let mut parts: Vec<IoSlice<'_>> = parts.collect();
        let [main, error] = &mut self.sinks;
        let sink = match stream {
            Stream::Main => main,
            Stream::Error => error,
        };
        if sink.closed {
            return Ok(());
        }
        let written = sink.output.put(&mut parts);
        self.written(stream, written)
    }

    fn serve_output(&mut self, at: usize, ready: PollFlags) -> Result<(), Fault> {
        let Some(sink) = self.sinks.get_mut(at) else {
            return Ok(());
        };
        let stream = sink.stream;
        if sink.output.has_backlog() {
            let written = sink.output.drain();
            return self.written(stream, written);
        }
        if ready.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL) {
            return self.written(stream, Err(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }

    /// Grants what an output's reader has taken; or, where the output failed,
    /// tells the server that it is read no more.
    fn written(&mut self, stream: Stream, written: io::Result<usize>) -> Result<(), Fault> {
        let sink = self.sink(stream);
        match written {
            Ok(bytes) => match sink.window.consumed(bytes) {
                Some(grant) if !sink.ended => self.say(&Message::Credit(stream, grant)),
                Some(_) | None => Ok(()),
            },
            Err(e) => {
                sink.output.forget();
                sink.closed = true;
                let ended = sink.ended;
                if !matches!(
                    e.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) {
                    let which = match stream {
                        Stream::Main => "standard output",
                        Stream::Error => "standard error",
                    };
                    self.trouble
                        .get_or_insert(Fault::from(e).while_doing(which));
                }
                if ended {
                    Ok(())
                } else {
                    self.say(&Message::Reset(stream))
                }
            }
        }
    }

    /// Lets the readers of outputs that have ended see it.
    fn release_outputs(&mut self) {
        for sink in &mut self.sinks {
            if sink.ended && !sink.closed && !sink.output.has_backlog() {
                sink.output.release();
                sink.closed = true;
            }
        }
    }

    fn read_input(&mut self) -> Result<(), Fault> {
        let Some(input) = self.input.as_mut() else {
            return Ok(());
        };
        let most = self.allowance.left();
        match self.outbox.fill(most, |parts| input.read(parts)) {
            Ok(0) => {
                self.input = None;
                self.say(&Message::Eof(Stream::Main))
            }
            Ok(bytes) => {
                self.allowance.spend(bytes);
                Ok(())
            }
            Err(e) if super::inbox::is_for_later(&e) => Ok(()),
            // To end the input here would tell the command that it had it all.
            Err(e) => Err(Fault::from(e).while_doing("standard input")),
        }
    }

    /// Sends on the signals that have come. Once the command has ended there is
    /// nobody to send them to, and the first one stops us.
    fn forward_signals(&mut self) -> Result<Option<Ended>, Fault> {
        while let Some(signal) = self.signals.next() {
            if self.end.is_some() {
                return Ok(Some(Ended::Stopped(signal)));
            }
            if self.unheard.is_some_and(|since| since.elapsed() >= UNHEARD) {
                return Err(Fault::new(
                    "it has said nothing since the last signal; it hangs the command up when it sees that we are gone",
                ));
            }
            self.unheard.get_or_insert_with(Instant::now);
            self.say(&Message::Signal(signal))?;
        }
        Ok(None)
    }

    fn say(&mut self, message: &Message<'_>) -> Result<(), Fault> {
        if self.deaf {
            return Ok(());
        }
        self.outbox.add(message).map_err(broken)
    }

    /// Sends what waits. A server that takes no more may have said its last
    /// word all the same: reading will show.
    fn flush(&mut self) {
        if !self.deaf && self.end.is_none() && self.outbox.flush(&mut self.socket).is_err() {
            self.deaf = true;
            self.input = None;
        }
    }

    const fn sink(&mut self, stream: Stream) -> &mut Sink {
        let [main, error] = &mut self.sinks;
        match stream {
            Stream::Main => main,
            Stream::Error => error,
        }
    }
}

impl Sink {
    fn take_note(&mut self, bytes: usize) -> Result<(), Malformed> {
        if self.ended {
            return Err(Malformed("data on a stream that is at its end"));
        }
        self.window.received(bytes)
    }
}

/// What the server said, but for data.
enum Said {
    Eof(Stream),
    Reset,
    Credit(u32),
    End(End),
}

/// What a poll found.
struct Ready {
    signal: bool,
    socket: bool,
    input: bool,
    outputs: [PollFlags; 2],
}

fn add<'a>(fds: &mut Vec<PollFd<'a>>, fd: BorrowedFd<'a>, events: PollFlags) -> usize {
    fds.push(PollFd::new(fd, events));
    fds.len().saturating_sub(1)
}

fn broken(e: Malformed) -> Fault {
    Fault::new(format!("it broke the protocol: {e}"))
}
