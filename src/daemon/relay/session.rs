//! One session: a thread that serves both directions of one connection, with non-blocking
//! descriptors and poll.
//!
//! Runs in the relay. Owns the connection, the job's pipe ends and the session's channel. Ends when
//! the client was sent the job's end and its system has all of it, when the peer is gone, or when
//! the monitor closes the session's channel. Must not block on the client or the job.

mod ending;
mod input;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use super::incoming::Incoming;
use super::lingering_close::{after_the_hang_up, lingering_close};
use super::outgoing::{Filled, Outgoing};
use super::pipe::{is_at_its_end, widen};
use super::ready::{Ready, add};
use super::stop::Stop;
use crate::ipc::relay::{
    Closing, Failure, MonitorToRelay, Part, RelayToMonitor, SESSION_DESCRIPTORS, Session,
};
use crate::ipc::{self, Channel};
use crate::protocol::Malformed;
use crate::protocol::budget::{Budget, Share};
use crate::protocol::seal::{Opener, Sealer};
use crate::protocol::stream::{Allowance, End, Message, Stream};
use crate::protocol::window::Window;
use crate::sys::memory;
use crate::sys::unsent::{Unsent, UnsentState, round_trip};

/// How long the large buffers are kept after the last byte.
const KEEP_BUFFERS: Duration = Duration::from_millis(500);
/// Most bytes that a job's pipe holds: the size to which a busy pipe is enlarged.
const PIPE: u64 = 1 << 20;
/// A read of this length means a busy pipe, which is then enlarged.
const BUSY: usize = 60 * 1024;
/// How long a session's last message may wait for a busy monitor.
const LAST_MESSAGE_WITHIN: Duration = Duration::from_secs(5);

/// One of the job's outputs.
struct Output {
    stream: Stream,
    pipe: Option<OwnedFd>,
    allowance: Allowance,
    large: bool,
}

/// A session while it is served.
pub(super) struct Serving {
    socket: OwnedFd,
    monitor: Channel,
    stdin: Option<OwnedFd>,
    stdin_large: bool,
    outputs: [Output; 2],
    /// Bytes of standard output that were read while standard error waited.
    overtaken: u64,
    incoming: Incoming,
    outgoing: Outgoing,
    unsent: Unsent,
    /// Whether the client may not have acknowledged all that was sent.
    is_watched: bool,
    /// When the client's unacknowledged bytes were last checked.
    looked: Option<Instant>,
    window: Window,
    /// Whether the session ends only when its input has ended, too.
    is_backend: bool,
    /// `None`: outputs are read until they are closed.
    linger: Option<Duration>,
    end: Option<End>,
    told: bool,
    /// Whether another process held an output when the end was sent.
    cut_off: bool,
    /// Since when all outputs that are still held have been quiet after the command's end.
    quiet_since: Option<Instant>,
    sent: u64,
    got: u64,
}

impl Serving {
    /// Takes over the session's descriptors, in the channel's order. The window of the job's input
    /// grows by its share of this budget.
    ///
    /// # Errors
    /// The keys cannot be used.
    pub(super) fn new(
        session: &Session,
        fds: [OwnedFd; SESSION_DESCRIPTORS],
        budget: &Arc<Budget>,
    ) -> Result<Self, Malformed> {
        let [socket, own_channel, stdin, stdout, stderr] = fds;
        let suite = session.keys.suite;
        let sealer = Sealer::new(suite, &session.keys.to_client)?;
        let opener = Opener::new(suite, &session.keys.to_server)?;
        let output = |stream, pipe| Output {
            stream,
            pipe: Some(pipe),
            allowance: Allowance::default(),
            large: false,
        };
        let mut window = Window::new(Share::of(Arc::clone(budget)));
        window.set_round_trip(round_trip(socket.as_fd()));
        Ok(Self {
            socket,
            monitor: Channel::new(own_channel),
            stdin: Some(stdin),
            stdin_large: false,
            outputs: [output(Stream::Main, stdout), output(Stream::Error, stderr)],
            overtaken: 0,
            incoming: Incoming::new(opener),
            outgoing: Outgoing::new(sealer, session.answer.clone()),
            unsent: Unsent::default(),
            is_watched: false,
            looked: None,
            window,
            is_backend: session.is_backend,
            linger: (session.linger != u32::MAX)
                .then(|| Duration::from_millis(session.linger.into())),
            end: None,
            told: false,
            cut_off: false,
            quiet_since: None,
            sent: 0,
            got: 0,
        })
    }

    /// Runs the thread's session to its end. `lingering_count` counts the threads that wait for a
    /// client to hang up: to the monitor these sessions are over, so no limit of the monitor covers
    /// them.
    pub(super) fn run(mut self, lingering_count: &AtomicUsize) {
        let how = match self.serve() {
            Ok(()) => Some(Closing::Told {
                cut_off: self.cut_off,
            }),
            Err(Stop::Gone) => Some(Closing::ClientGone),
            Err(Stop::Violation) => Some(Closing::Violation),
            Err(Stop::Failed(failure)) => Some(Closing::Failed(failure)),
            Err(Stop::Dismissed) => None,
        };
        let is_over = how.is_some_and(Closing::is_told);
        let failure = how.and_then(Closing::failure);
        let told = is_over || failure.is_some_and(|f| self.tell_failure(f));
        if let Some(how) = how {
            let word = RelayToMonitor::Over(how, self.sent, self.got);
            if self.monitor.send(word.encode(), Vec::new()).is_ok() {
                self.monitor.settle(LAST_MESSAGE_WITHIN);
            }
        }
        let socket = self.socket;
        // Also if another process holds a copy of the socket, which would keep it open.
        let shut = || shutdown(socket.as_raw_fd(), Shutdown::Both);
        if !told {
            // A client that gets no more data sees the end at once.
            let _ = shut();
        }
        drop((self.incoming, self.outgoing, self.window));
        if is_over {
            // The monitor sees the end now; the client may take a moment longer.
            drop((self.monitor, self.stdin, self.outputs));
        } else {
            let [out, err] = self.outputs.map(|o| o.pipe);
            after_the_hang_up(self.monitor, self.stdin, [out, err]);
        }
        if told {
            lingering_close(&socket, lingering_count);
            let _ = shut();
        }
    }

    /// Sends the client what failed here, if its socket takes that at once. Returns whether it did.
    fn tell_failure(&mut self, failure: Failure) -> bool {
        let end = End::NotStarted(format!("the host failed: {failure}"));
        !self.told
            && self.outgoing.add(&Message::End(end)).is_ok()
            && self.outgoing.flush(&self.socket).is_ok()
            && self.outgoing.is_empty()
    }

    fn serve(&mut self) -> Result<(), Stop> {
        loop {
            self.flush()?;
            self.tell_end()?;
            if self.is_over() {
                return Ok(());
            }
            let ready = self.wait()?;
            if ready.message {
                self.receive_from_client()?;
            }
            if ready.socket {
                match self.read_peer() {
                    // A client that has everything hangs up.
                    Err(Stop::Gone) if self.is_over() => return Ok(()),
                    other => other?,
                }
            }
            if ready.stdin {
                self.feed_job(self.incoming.backlog())?;
            }
            let mut ended = [None; 2];
            // One read fills what can be sent at once. Read standard output first, so that output
            // written before an error arrives before it. But not for ever: once more was read than
            // the pipe holds, all of that output has come.
            let (turn, before) = (usize::from(self.overtaken > PIPE), self.got);
            for (which, end) in [turn, 1 - turn].into_iter().zip(&mut ended) {
                if ready.ended.get(which) == Some(&true) {
                    *end = self.output_ended(which);
                } else if ready.outputs.get(which) == Some(&true) {
                    *end = self.read_job(which)?;
                }
            }
            self.overtaken = match (ready.outputs, turn) {
                ([true, true], 0) => self.overtaken + self.got.saturating_sub(before),
                _ => 0,
            };
            // Both outputs of a command end together: send their ends together.
            ended.sort_by_key(|end| end.map(Stream::byte));
            for stream in ended.into_iter().flatten() {
                self.outgoing.add(&Message::Eof(stream))?;
            }
        }
    }

    /// Sends what is queued for the client, as far as its socket takes it.
    fn flush(&mut self) -> Result<(), Stop> {
        self.is_watched |= !self.outgoing.is_empty();
        self.outgoing.flush(&self.socket).map_err(Stop::of_socket)
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> Result<Ready, Stop> {
        let idle = !self.outgoing.holds_buffer() && !self.incoming.holds_buffer();
        let mut timeout = PollTimeout::NONE;
        if !idle || self.is_watched {
            timeout = PollTimeout::try_from(KEEP_BUFFERS).unwrap_or(PollTimeout::MAX);
        }
        if let Some(left) = self.linger_left() {
            timeout = PollTimeout::try_from(left.min(KEEP_BUFFERS)).unwrap_or(PollTimeout::ZERO);
        }
        let socket_events = if self.outgoing.is_empty() {
            PollFlags::POLLIN
        } else {
            PollFlags::POLLIN | PollFlags::POLLOUT
        };
        let stdin_events = if self.incoming.has_backlog() {
            PollFlags::POLLOUT
        } else {
            PollFlags::empty()
        };
        let mut fds = Vec::with_capacity(5);
        let mut news_events = PollFlags::POLLIN;
        if self.monitor.is_waiting() {
            news_events |= PollFlags::POLLOUT;
        }
        fds.push(PollFd::new(self.monitor.as_fd(), news_events));
        fds.push(PollFd::new(self.socket.as_fd(), socket_events));
        let stdin_at = add(&mut fds, self.stdin.as_ref().map(AsFd::as_fd), stdin_events);
        let can_send = self.outgoing.is_empty();
        let mut outputs_at = [None; 2];
        for (output, at) in self.outputs.iter().zip(&mut outputs_at) {
            if can_send && output.allowance.left() > 0 {
                let pipe = output.pipe.as_ref().map(AsFd::as_fd);
                *at = add(&mut fds, pipe, PollFlags::POLLIN);
            }
        }
        let mut outputs = self.outputs.iter().zip(outputs_at);
        let listening = outputs.all(|(o, at)| o.pipe.is_none() || at.is_some());
        let before = (listening && self.end.is_some()).then(Instant::now);
        let n = match poll(&mut fds, timeout) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(Stop::failed(Part::Relay, e)),
        };
        let happened = |at: Option<usize>| {
            at.and_then(|at| fds.get(at)?.revents())
                .is_some_and(|r| !r.is_empty())
        };
        let ready = Ready {
            message: happened(Some(0)),
            socket: happened(Some(1)),
            stdin: happened(stdin_at),
            outputs: outputs_at.map(happened),
            ended: outputs_at.map(|at| at.is_some_and(|at| is_at_its_end(&fds, at))),
        };
        let is_readable = fds
            .get(1)
            .and_then(PollFd::revents)
            .is_some_and(|r| r.intersects(!PollFlags::POLLOUT));
        // Time in which the client took nothing, so that the outputs were not read, does not count
        // as quiet.
        self.quiet_since = before
            .filter(|_| ready.outputs == [false; 2])
            .map(|now| self.quiet_since.unwrap_or(now));
        if n == 0 {
            self.outgoing.free_unused();
            self.incoming.free_unused();
            self.window.free_unused();
            if !idle {
                // Buffers that have grown leave fragments among memory that other sessions still
                // use.
                memory::trim();
            }
        }
        // Check also while the client sends or a job reads: either may go on although the client
        // takes nothing.
        if self.is_watched && self.looked.is_none_or(|at| at.elapsed() >= KEEP_BUFFERS) {
            self.looked = Some(Instant::now());
            match self.unsent.look(self.socket.as_fd()) {
                UnsentState::Acknowledged => self.is_watched = false,
                UnsentState::Sent | UnsentState::Waiting => {}
                // Read first what the client has sent before.
                UnsentState::Lost if is_readable => {}
                UnsentState::Lost => return Err(Stop::Gone),
            }
        }
        Ok(ready)
    }

    fn receive_from_client(&mut self) -> Result<(), Stop> {
        let mut buffer = [0; 512];
        let _ = self.monitor.flush();
        match self.monitor.receive(&mut buffer) {
            Ok(ipc::Incoming::Message(message, _)) => {
                match MonitorToRelay::decode(&message).ok_or(Stop::Dismissed)? {
                    MonitorToRelay::Ended(end) => self.end = Some(end),
                    MonitorToRelay::Count => {
                        let word = RelayToMonitor::Count(self.sent, self.got);
                        // If this fails, the monitor is gone, and the next receive shows it.
                        let _ = self.monitor.send(word.encode(), Vec::new());
                    }
                }
                Ok(())
            }
            Ok(ipc::Incoming::Nothing) => Ok(()),
            Ok(ipc::Incoming::Gone) | Err(_) => Err(Stop::Dismissed),
        }
    }

    fn output(&mut self, stream: Stream) -> &mut Output {
        let [main, error] = &mut self.outputs;
        match stream {
            Stream::Main => main,
            Stream::Error => error,
        }
    }

    /// Reads one of the job's outputs, to be sent on. Returns its stream if it has ended.
    fn read_job(&mut self, which: usize) -> Result<Option<Stream>, Stop> {
        let Some(output) = self.outputs.get_mut(which) else {
            return Ok(None);
        };
        let Some(pipe) = &output.pipe else {
            return Ok(None);
        };
        if !self.outgoing.is_empty() || output.allowance.left() == 0 {
            return Ok(None);
        }
        match self
            .outgoing
            .fill(pipe, output.stream, output.allowance.left())?
        {
            Filled::Nothing => return Ok(None),
            Filled::Bytes(n) => {
                output.allowance.spend(n);
                self.got = self.got.saturating_add(n.try_into().unwrap_or(u64::MAX));
                if n >= BUSY && !output.large {
                    output.large = true;
                    widen(pipe);
                }
            }
            Filled::End => return Ok(self.output_ended(which)),
            Filled::Failed(e) => {
                let part = match output.stream {
                    Stream::Main => Part::Output,
                    Stream::Error => Part::Error,
                };
                return Err(Stop::failed(part, e));
            }
        }
        Ok(None)
    }

    /// Closes one of the job's outputs, which has ended. Returns its stream.
    fn output_ended(&mut self, which: usize) -> Option<Stream> {
        let output = self.outputs.get_mut(which)?;
        output.pipe = None;
        Some(output.stream)
    }
}
