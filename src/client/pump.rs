//! The pump: one thread and one poll carry every byte of an accepted connection in both directions,
//! the signals, and the end. Runs in the client. Must never wait for anything but the poll.
//!
//! Input is read from its descriptor into the buffers of its records and sent from there to the
//! socket. Output is decrypted where it was received and written from there. What an output's
//! reader does not take at once waits in a backlog, which the stream's credit bounds. Signals,
//! errors and the credit for the input therefore come through whatever happens to the output.

mod waiting;

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::greet::Accepted;
use super::inbox::{Inbox, ReadOutcome, is_for_later};
use super::io_error::text_without_number;
use super::messages;
use super::outbox::Outbox;
use super::signals::{SignalReceiver, Signals, Verdict};
use super::sink::{Sink, SinkOutcome};
use super::stdio::{Input, is_of_the_stream};
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::budget::{Budget, Share};
use crate::protocol::limits::{CREDIT_MAX, LENGTH_BYTES, RECORD_BODY};
use crate::protocol::seal::Opener;
use crate::protocol::stream::{Allowance, End, Message, Signal, Stream};
use crate::protocol::window::Window;
use crate::sys::socket::is_lost;
use crate::sys::unsent::{Unsent, round_trip};

/// How the session ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server reported the end.
    Told {
        /// How the command ended.
        end: End,
        /// Another process held an output open, and its later output is lost. False if a signal was
        /// to end the command.
        cut_off: bool,
    },
    /// A signal stopped the client: before the command's end, while it waited for that end; after
    /// it, while it wrote the rest of the output.
    Stopped(Signal),
}

struct Pump<'a> {
    socket: TcpStream,
    inbox: Inbox,
    opener: Opener,
    outbox: Outbox,
    unsent: Unsent,
    /// The server may not have acknowledged all that was sent.
    is_watched: bool,
    /// When that was last checked.
    looked: Instant,
    /// Since when a deadline has passed while earlier data is still read.
    overdue: Option<Instant>,
    /// The server takes no more; what it still sends is read.
    sending_ended: bool,
    input: Option<Input>,
    /// Input that the command no longer reads.
    unread: Option<Input>,
    allowance: Allowance,
    sinks: [Sink; 2],
    signals: Signals,
    receiver: SignalReceiver,
    end: Option<End>,
    /// The end came before that of an output.
    cut_off: bool,
    /// Why nothing more can be sent.
    lost: Option<io::Error>,
    /// Lines that the user has not seen yet: standard error took no line at that time.
    notes: Vec<String>,
    host: &'a str,
}

/// What standard input and output are to a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandardStreams {
    /// Whether standard input is not read.
    pub no_input: bool,
    /// Whether both are one connection that nobody else has, whose directions end one by one.
    pub are_connection: bool,
}

/// Carries an accepted connection to this host to its end.
///
/// # Errors
/// The connection failed, the server broke the protocol, or standard input or output failed.
pub fn carry(accepted: Accepted, streams: StandardStreams, host: &str) -> Result<Ended, Fault> {
    let no_input = streams.no_input;
    let mut sinks = sinks(round_trip(accepted.socket.as_fd()));
    if streams.are_connection {
        sinks.iter_mut().for_each(Sink::own_connection);
    }
    // A signal ends one of many connections, and no command there.
    let signals = match streams.are_connection {
        true => Signals::none()?,
        false => Signals::catch()?,
    };
    let mut pump = Pump {
        socket: accepted.socket,
        inbox: accepted.inbox,
        opener: accepted.opener,
        outbox: Outbox::new(accepted.sealer),
        unsent: Unsent::default(),
        is_watched: false,
        looked: Instant::now(),
        overdue: None,
        sending_ended: false,
        input: (!no_input).then(Input::default),
        unread: None,
        allowance: Allowance::default(),
        sinks,
        signals,
        receiver: SignalReceiver::default(),
        end: None,
        cut_off: false,
        lost: None,
        notes: Vec::new(),
        host,
    };
    if no_input {
        pump.messages(&Message::Eof(Stream::Main))?;
    } else if pump.input.as_ref().is_some_and(|i| !i.is_readable()) {
        pump.read_input()?;
    }
    let outcome = pump.run();
    for note in pump.notes {
        messages::print_error(Some(host), &note);
    }
    outcome
}

impl Pump<'_> {
    fn run(&mut self) -> Result<Ended, Fault> {
        // The first records may have come together with the answer.
        self.take_in()?;
        loop {
            self.flush()?;
            if !self.sinks.iter().any(Sink::has_backlog) {
                if let Some(end) = self.end.take() {
                    let cut_off = self.cut_off;
                    return Ok(Ended::Told { end, cut_off });
                }
            }
            self.hang_up_after_the_end();
            self.let_go();
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
                if let Some(sink) = self.sinks.get_mut(at).filter(|_| !ready.is_empty()) {
                    let outcome = sink.serve(ready);
                    self.follow(outcome)?;
                }
            }
        }
    }

    /// Shuts the connection down after the end. The server need not wait until our output's reader
    /// has taken the rest.
    fn hang_up_after_the_end(&mut self) {
        if self.end.is_some() && !self.sending_ended {
            self.sending_ended = true;
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Reads the socket once and handles every complete record.
    fn receive(&mut self) -> Result<(), Fault> {
        match self.inbox.fill(&mut self.socket) {
            Ok(ReadOutcome::Bytes(_)) => {
                self.receiver.server_answered(Instant::now());
                self.take_in()
            }
            Ok(ReadOutcome::Nothing) => Ok(()),
            Ok(ReadOutcome::Closed) => {
                Err(self.lost.take().map_or_else(closed, |e| connection(&e)))
            }
            Err(e) => Err(connection(&e)),
        }
    }

    /// Decrypts the complete records and does what they say.
    fn take_in(&mut self) -> Result<(), Fault> {
        let mut data: Vec<(Stream, Range<usize>)> = Vec::new();
        let now = Instant::now();
        while self.end.is_none() {
            let Some(record) = self.inbox.next(RECORD_BODY).map_err(broken)? else {
                break;
            };
            let body = self.inbox.body(record.clone());
            let text = self.opener.open(body).map_err(broken)?;
            // A record's plaintext follows its length field; its payload is at the end of the
            // plaintext.
            let end = record.start.saturating_add(LENGTH_BYTES + text.len());
            let said = match Message::parse(text).map_err(broken)? {
                Message::Data(stream, payload) => {
                    let payload = payload.len();
                    let note = self.sink(stream).take_note(payload, now);
                    if note.map_err(broken)? {
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
            self.handle_message(said)?;
        }
        // In the order of arrival, as far as two descriptors can preserve it.
        for run in data.chunk_by(|(a, _), (b, _)| a == b) {
            if let Some((stream, _)) = run.first() {
                self.put_out(*stream, run)?;
            }
        }
        Ok(())
    }

    fn handle_message(&mut self, said: Said) -> Result<(), Fault> {
        match said {
            Said::Eof(stream) => self.sink(stream).end().map_err(broken)?,
            Said::Reset => self.unread = self.input.take().or_else(|| self.unread.take()),
            Said::Credit(0) => self.receiver.answered(),
            // A grant for input that has ended is ignored.
            Said::Credit(bytes) if self.input.is_some() => {
                self.allowance.granted(bytes).map_err(broken)?;
            }
            Said::Credit(_) => {}
            Said::End(end) => {
                // A user who ended the command needs no advice on how to get more of its output.
                let is_open = self.sinks.iter().any(Sink::is_open);
                self.cut_off = is_open && !self.receiver.is_to_end();
                self.end = Some(end);
            }
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
        let outcome = sink.put(&mut parts);
        self.follow(outcome)
    }

    fn follow(&mut self, outcome: SinkOutcome) -> Result<(), Fault> {
        if let Some(fault) = outcome.fault {
            return Err(fault);
        }
        if let Some(note) = outcome.note {
            self.note(note);
        }
        outcome
            .messages
            .map_or(Ok(()), |message| self.messages(&message))
    }

    /// Closes outputs that have ended, so that their readers see it, and an input that the command
    /// no longer reads, so that its writer sees it. Not before the wait: the command's end mostly
    /// comes together with those.
    fn let_go(&mut self) {
        if let Some(input) = self.unread.take() {
            input.release();
        }
        self.sinks.iter_mut().for_each(Sink::let_go);
    }

    fn read_input(&mut self) -> Result<(), Fault> {
        let Some(input) = self.input.as_mut() else {
            return Ok(());
        };
        let most = self.allowance.left();
        match self.outbox.fill(most, |parts| input.read(parts)) {
            Ok(0) => {
                self.input = None;
                self.messages(&Message::Eof(Stream::Main))
            }
            Ok(bytes) => {
                self.allowance.spend(bytes);
                Ok(())
            }
            Err(e) if is_for_later(&e) => Ok(()),
            Err(e) if is_of_the_stream(input.as_fd(), OFlag::O_RDONLY, &e) => {
                self.note(format!("standard input: {}", text_without_number(&e)));
                self.input = None;
                self.messages(&Message::Eof(Stream::Main))
            }
            // Ending the input here would tell the command that it had all of it.
            Err(e) => Err(Fault::new(text_without_number(&e)).while_doing("standard input")),
        }
    }

    /// Forwards the signals that have come. After the command's end there is no recipient, and the
    /// first signal stops the client.
    fn forward_signals(&mut self) -> Result<Option<Ended>, Fault> {
        while let Some(signal) = self.signals.next()? {
            if self.end.is_some() {
                return Ok(Some(Ended::Stopped(signal)));
            }
            match self.receiver.take(signal, Instant::now()) {
                Verdict::Send => self.messages(&Message::Signal(signal))?,
                Verdict::Repeated => {}
                Verdict::Stop => return Ok(Some(Ended::Stopped(signal))),
            }
        }
        Ok(None)
    }

    /// Returns when and why the client gives up, unless the command ends, or its output is written,
    /// before that.
    fn deadline(&self) -> Option<(Instant, &'static str)> {
        if self.end.is_some() {
            return self.receiver.deadline_after_the_end();
        }
        self.receiver.deadline()
    }

    fn messages(&mut self, message: &Message<'_>) -> Result<(), Fault> {
        if self.sending_ended {
            return Ok(());
        }
        self.outbox.add(message).map_err(broken)
    }

    /// Sends what waits. If the server is gone, it may still have sent the end before: reading will
    /// show.
    fn flush(&mut self) -> Result<(), Fault> {
        if self.sending_ended || self.end.is_some() {
            return Ok(());
        }
        self.is_watched |= !self.outbox.is_empty();
        let Err(e) = self.outbox.flush(&mut self.socket) else {
            return Ok(());
        };
        if !e.raw_os_error().map(Errno::from_raw).is_some_and(is_lost) {
            return Err(Fault::new(text_without_number(&e)).while_doing("sending"));
        }
        self.sending_ended = true;
        self.input = None;
        // A server that still exists learns that nothing more comes, and hangs up.
        let _ = self.socket.shutdown(Shutdown::Write);
        self.lost = Some(e);
        Ok(())
    }

    /// Shows the user a line, at the latest at the end.
    fn note(&mut self, words: String) {
        if !messages::try_print_error(self.host, &words) {
            self.notes.push(words);
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

/// Returns both outputs. Their shared budget allows only one of them the largest window.
fn sinks(round_trip: Option<Duration>) -> [Sink; 2] {
    let most = usize::try_from(CREDIT_MAX).unwrap_or(usize::MAX);
    let budget = Arc::new(Budget::new(most.saturating_mul(2)));
    [Stream::Main, Stream::Error].map(|stream| {
        let mut window = Window::new(Share::of(Arc::clone(&budget)));
        window.set_round_trip(round_trip);
        Sink::new(stream, window)
    })
}

/// A message of the server other than data.
enum Said {
    Eof(Stream),
    Reset,
    Credit(u32),
    End(End),
}

fn closed() -> Fault {
    Fault::new("the host or its administrator closed the connection before the command's end")
}

fn connection(e: &io::Error) -> Fault {
    Fault::new(text_without_number(e)).while_doing("the connection broke")
}

fn broken(e: Malformed) -> Fault {
    Fault::new(format!("it broke the protocol: {e}"))
}

#[cfg(test)]
mod tests;
