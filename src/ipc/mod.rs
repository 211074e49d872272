//! Typed messages between our own processes, and the descriptors that go with them.
//!
//! Used by the monitor, by each process that it starts (gate, relay, look-up process, registry
//! worker, login worker, guard) and by `cosadm`. A message is one datagram of a Unix socket.
//! Messages from gate, relay and look-up process must be parsed as strictly as a client's, because
//! an attacker may have compromised those processes.

pub mod control;
pub(crate) mod fields;
pub mod gate;
pub mod inetd;
pub mod login;
pub mod lookup;
pub mod relay;
pub mod sandbox_config;
pub mod watch;

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::sys::passing::{self, Endpoint, Next};
use crate::sys::untrusted;

/// Longest message, bytes: enough for a ClientHello of 4,096 with its hellos, or a few thousand
/// addresses.
pub const MESSAGE: usize = 65_536;

/// Most messages that may wait for a process that does not read. Beyond it the process counts as
/// dead.
const WAITING: usize = 65_536;

/// How long to wait before resending a message for which the system had no memory.
const SHORTAGE: Duration = Duration::from_millis(10);

/// One end of a channel.
pub struct Channel<S: Endpoint = OwnedFd> {
    socket: S,
    waiting: VecDeque<(Zeroizing<Vec<u8>>, Vec<OwnedFd>)>,
}

/// The result of a receive.
pub enum Incoming {
    /// A message and its descriptors.
    Message(Zeroizing<Vec<u8>>, Vec<OwnedFd>),
    /// Nothing at the moment.
    Nothing,
    /// The other process is gone.
    Gone,
}

impl Channel {
    /// Returns both ends of a new channel. Our end rejects descriptors where the kernel can do so.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> Result<(Self, OwnedFd), Fault> {
        let (ours, theirs) = passing::pair()?;
        untrusted::refuse_descriptors(&ours);
        Ok((Self::new(ours), theirs))
    }

    /// As [`Self::pair`], but our end accepts descriptors.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn receiving_pair() -> Result<(Self, OwnedFd), Fault> {
        let (ours, theirs) = passing::pair()?;
        Ok((Self::new(ours), theirs))
    }
}

impl<S: Endpoint> Channel<S> {
    /// Returns a channel over one end of [`passing::pair`], or of a call.
    pub const fn new(socket: S) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
        }
    }

    /// Sends a message now, or queues it until [`Self::flush`].
    ///
    /// # Errors
    /// The other process is gone, or has not read for very long. Both sides then see the end of the
    /// channel: a channel that has lost a message is of no use.
    pub fn send(&mut self, message: Vec<u8>, fds: Vec<OwnedFd>) -> Result<(), Fault> {
        let message = Zeroizing::new(message);
        self.flush()?;
        if self.waiting.is_empty() && self.try_send(&message, &fds)? {
            return Ok(());
        }
        if self.waiting.len() >= WAITING {
            self.end();
            return Err(Fault::new(
                "another process of the daemon does not read its messages",
            ));
        }
        self.waiting.push_back((message, fds));
        Ok(())
    }

    /// Sends the queued messages, as far as the other side takes them.
    ///
    /// # Errors
    /// The other process is gone.
    pub fn flush(&mut self) -> Result<(), Fault> {
        while let Some((message, fds)) = self.waiting.front() {
            if !self.try_send(message, fds)? {
                break;
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Whether messages are queued.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends the queued messages, for at most this long. Blocks: only for a thread that may wait.
    pub fn settle(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut had_room = false;
        while self.flush().is_ok() && self.is_waiting() {
            let left = until.saturating_duration_since(Instant::now());
            if had_room {
                // The system is short of memory, and poll would not wait for that.
                let pause = PollTimeout::try_from(left.min(SHORTAGE));
                let _ = poll(&mut [], pause.unwrap_or(PollTimeout::ZERO));
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
            if left.is_zero() || poll(&mut fds, timeout) == Ok(0) {
                return;
            }
            had_room = true;
        }
    }

    /// Sends a message and waits, for at most this long, until the other side has taken it. For a
    /// process whose event loop does not watch for room.
    ///
    /// # Errors
    /// The other process is gone, or has not read in time.
    pub fn deliver(&mut self, message: Vec<u8>, limit: Duration) -> Result<(), Fault> {
        self.send(message, Vec::new())?;
        self.settle(limit);
        if self.is_waiting() {
            return Err(Fault::new(
                "another process of the daemon does not read its messages",
            ));
        }
        Ok(())
    }

    fn try_send(&self, message: &[u8], fds: &[OwnedFd]) -> Result<bool, Fault> {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match passing::send(self.socket.as_fd(), message, &borrowed) {
            Ok(()) => Ok(true),
            Err(e) if e == Errno::EAGAIN || passing::is_shortage(e) => Ok(false),
            Err(e) => {
                self.end();
                Err(Fault::from(e).while_doing("sending to another process of the daemon"))
            }
        }
    }

    /// Ends the channel for both sides, so that the other side does not wait for a message that was
    /// lost or will never be sent.
    pub(crate) fn end(&self) {
        let _ = shutdown(self.socket.as_fd().as_raw_fd(), Shutdown::Both);
    }

    /// Waits until a message has arrived or the other process is gone.
    pub fn wait(&self) {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
    }

    /// Receives one message, waiting for it until this time. [`Incoming::Nothing`]: the time is
    /// over, and no message is received even if one has arrived. So a process that keeps sending
    /// messages delays the caller no longer than that.
    ///
    /// # Errors
    /// The socket failed, or the message was too long.
    pub fn receive_until(&self, buffer: &mut [u8], until: Instant) -> Result<Incoming, Fault> {
        while self.wait_until(until)? {
            match self.receive(buffer)? {
                Incoming::Nothing => {}
                incoming @ (Incoming::Message(..) | Incoming::Gone) => return Ok(incoming),
            }
        }
        Ok(Incoming::Nothing)
    }

    /// Waits until a message has arrived or the other process is gone. Returns `false` when the
    /// time is over.
    ///
    /// # Errors
    /// The socket failed.
    pub fn wait_until(&self, until: Instant) -> Result<bool, Fault> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Round up: with less than a millisecond left, poll(2) would be called in a busy loop.
            let left = left.saturating_add(Duration::from_millis(1));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receives one message, if one has arrived.
    ///
    /// # Errors
    /// The socket failed, or the message was too long.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Incoming, Fault> {
        match self.socket.next() {
            Next::Message => {}
            Next::Nothing => return Ok(Incoming::Nothing),
            Next::Over => return Ok(Incoming::Gone),
        }
        match passing::receive(self.socket.as_fd(), buffer) {
            Ok(r) if r.length == 0 => Ok(Incoming::Gone),
            Ok(r) if r.truncated => Err(Fault::new("a message that is too long")),
            Ok(r) => {
                let bytes = buffer.get_mut(..r.length).unwrap_or_default();
                let message = Zeroizing::new(bytes.to_vec());
                zeroize::Zeroize::zeroize(bytes);
                Ok(Incoming::Message(message, r.fds))
            }
            Err(Errno::EAGAIN) => Ok(Incoming::Nothing),
            Err(Errno::ECONNRESET) => Ok(Incoming::Gone),
            Err(e) => Err(e.into()),
        }
    }
}

impl<S: Endpoint> AsFd for Channel<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression test: if the sender ignored its error, the other side waited for the message for
    /// ever.
    #[test]
    fn a_message_that_cannot_be_sent_ends_the_channel_for_both() {
        let (ours, theirs) = passing::pair().unwrap();
        let (mut ours, theirs) = (Channel::new(ours), Channel::new(theirs));
        ours.send(b"before".to_vec(), Vec::new()).unwrap();
        // Longer than the kernel takes.
        ours.send(vec![0; 16 << 20], Vec::new()).unwrap_err();
        let mut buffer = [0; 16];
        let mut heard = |channel: &Channel| channel.receive(&mut buffer).unwrap();
        assert!(matches!(heard(&theirs), Incoming::Message(m, _) if *m == b"before"));
        assert!(matches!(heard(&theirs), Incoming::Gone));
        assert!(matches!(heard(&ours), Incoming::Gone));
    }

    /// Regression test: here alone the channel went on without the message.
    #[test]
    fn a_channel_that_is_not_read_ends_for_both_when_its_queue_is_full() {
        let (ours, theirs) = passing::pair().unwrap();
        let (mut ours, theirs) = (Channel::new(ours), Channel::new(theirs));
        while ours.send(b"unread".to_vec(), Vec::new()).is_ok() {}
        assert_eq!(ours.waiting.len(), WAITING);
        let mut buffer = [0; 16];
        while let Incoming::Message(..) = theirs.receive(&mut buffer).unwrap() {}
        let mut heard = |channel: &Channel| channel.receive(&mut buffer).unwrap();
        assert!(matches!(heard(&theirs), Incoming::Gone));
        assert!(matches!(heard(&ours), Incoming::Gone));
    }

    /// Regression test: the time counted only while no message had arrived.
    #[test]
    fn messages_that_keep_coming_prolong_no_wait() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut theirs = Channel::new(theirs);
        for _ in 0..2 {
            theirs.send(b"more".to_vec(), Vec::new()).unwrap();
        }
        let (now, buffer) = (Instant::now(), &mut [0; 16]);
        let later = now + Duration::from_secs(60);
        let got = ours.receive_until(buffer, later).unwrap();
        assert!(matches!(got, Incoming::Message(..)));
        let got = ours.receive_until(buffer, now).unwrap();
        assert!(matches!(got, Incoming::Nothing));
        assert!(ours.wait_until(later).unwrap());
    }
}
