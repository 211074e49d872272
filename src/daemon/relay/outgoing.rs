//! Towards the peer: reads the job's output directly to where its records will be, encrypts it in
//! place, and writes it with one call.
//!
//! Runs in the relay, in the session's thread. Owns the sealer and the buffers; the descriptors
//! belong to the session. Must not block, read more output before the last was sent, or mistake an
//! error of an output for its end.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::uio::readv;

use crate::protocol::Malformed;
use crate::protocol::batch::Batch;
use crate::protocol::seal::Sealer;
use crate::protocol::stream::{Message, Stream};
use crate::sys::socket;

/// Most control records that may wait for a peer that does not read, bytes: far more than an honest
/// peer can cause.
const CONTROL: usize = 64 * 1024;

/// The result of one read of a job's output.
pub(super) enum Filled {
    /// This many bytes, sealed.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The output is at its end.
    End,
    /// The output cannot be read.
    Failed(Errno),
}

/// Sealed records on their way to the peer.
pub(super) struct Outgoing {
    sealer: Sealer,
    /// Data records. Their memory is freed when the session is idle.
    data: Batch,
    /// Records sealed after those in `data`.
    control: Vec<u8>,
}

impl Outgoing {
    /// Returns an empty queue that sends the record `first` before all others.
    pub(super) const fn new(sealer: Sealer, first: Vec<u8>) -> Self {
        Self {
            sealer,
            data: Batch::new(),
            control: first,
        }
    }

    /// Whether everything was sent. Only then may more data be read.
    pub(super) fn is_empty(&self) -> bool {
        self.data.is_sent() && self.control.is_empty()
    }

    /// Whether the large buffer is held.
    pub(super) fn holds_buffer(&self) -> bool {
        self.data.holds_memory()
    }

    /// Frees the buffers that are empty.
    pub(super) fn free_unused(&mut self) {
        self.data.free_unused();
        if self.control.is_empty() {
            self.control = Vec::new();
        }
    }

    /// Adds a record that is not data.
    ///
    /// # Errors
    /// The peer has left too many records unread.
    pub(super) fn add(&mut self, message: &Message<'_>) -> Result<(), Malformed> {
        let record = self.sealer.record(&message.compose())?;
        self.control.extend_from_slice(&record);
        if self.control.len() > CONTROL {
            return Err(Malformed("a peer that reads nothing"));
        }
        Ok(())
    }

    /// Reads at most `most` bytes of an output and seals them. Only if everything was sent.
    ///
    /// # Errors
    /// The sealer's counter is exhausted.
    pub(super) fn fill(
        &mut self,
        output: &OwnedFd,
        of: Stream,
        most: usize,
    ) -> Result<Filled, Malformed> {
        let outcome = self.data.read(most, |parts| readv(output.as_fd(), parts));
        let got = match outcome {
            Ok(0) => return Ok(Filled::End),
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Filled::Nothing),
            // This is no end: that would tell the client that it has all of the output.
            Err(e) => return Ok(Filled::Failed(e)),
        };
        self.data.seal(&mut self.sealer, of, got)?;
        Ok(Filled::Bytes(got))
    }

    /// Sends what is queued, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection is lost, or a system call failed.
    pub(super) fn flush(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        while !self.data.is_sent() {
            match send(socket, self.data.unsent())? {
                0 => return Ok(()),
                n => self.data.sent(n),
            }
        }
        while !self.control.is_empty() {
            match send(socket, &self.control)? {
                0 => return Ok(()),
                n => drop(self.control.drain(..n)),
            }
        }
        if self.control.capacity() > 4096 {
            self.control = Vec::new();
        }
        Ok(())
    }
}

fn send(to: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match socket::send(to.as_fd(), bytes) {
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        other => other,
    }
}
