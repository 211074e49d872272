//! From the peer: reads records into one buffer, decrypts them in place, and writes the job's input
//! from there. What the job does not take at once waits in a backlog, which credit bounds.
//!
//! Runs in the relay, in the session's thread. Owns the opener and the buffers; the descriptors
//! belong to the session. Must not block, nor mistake an error of a descriptor for its end.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::uio::writev;

use crate::ipc::relay::Part;
use crate::protocol::Malformed;
use crate::protocol::backlog::Backlog;
use crate::protocol::limits::{LENGTH_BYTES, RECORD_BODY};
use crate::protocol::record;
use crate::protocol::seal::Opener;
use crate::protocol::stream::{Message, Signal, Stream};
use crate::sys::socket;

/// The buffer of a quiet session, bytes.
const SMALL: usize = 1024;
/// The buffer of a busy session: four full records and the beginning of a fifth.
const LARGE: usize = 5 * (LENGTH_BYTES + RECORD_BODY);

/// What the peer sent besides data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The peer no longer reads this output.
    Reset(Stream),
    /// The peer takes this many more bytes of this output.
    Credit(Stream, u32),
    /// A signal for the job.
    Signal(Signal),
}

/// The result of one read.
pub(super) struct ReadOutcome {
    /// In the order in which it was sent.
    pub(super) said: Vec<Said>,
    /// Bytes of data.
    pub(super) bytes: usize,
    /// The peer has hung up.
    pub(super) gone: bool,
    /// Why the socket, or the job's input, cannot be used.
    pub(super) failed: Option<(Part, Errno)>,
}

/// Records from the peer.
pub(super) struct Incoming {
    opener: Opener,
    buffer: Vec<u8>,
    filled: usize,
    backlog: Backlog,
    ended: bool,
}

impl Incoming {
    pub(super) const fn new(opener: Opener) -> Self {
        Self {
            opener,
            buffer: Vec::new(),
            filled: 0,
            backlog: Backlog::new(),
            ended: false,
        }
    }

    /// Whether a large buffer is held.
    pub(super) fn holds_buffer(&self) -> bool {
        self.buffer.len() > SMALL || self.backlog.holds_spare()
    }

    /// Frees the buffers that are empty.
    pub(super) fn free_unused(&mut self) {
        if self.filled == 0 {
            self.buffer = Vec::new();
        }
        self.backlog.free_unused();
    }

    /// Whether input still waits for the job.
    pub(super) const fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether the client's input has ended and the job has taken all of it.
    pub(super) const fn is_drained(&self) -> bool {
        self.ended && self.backlog.is_empty()
    }

    /// Discards the job's input: no process reads it.
    pub(super) fn forget_backlog(&mut self) {
        self.backlog = Backlog::new();
    }

    /// Reads once from the socket and decrypts every whole record. Writes the data to `job`, as far
    /// as it takes it; `None`: the job no longer reads.
    ///
    /// # Errors
    /// The peer broke the protocol, or a record was modified.
    pub(super) fn read(
        &mut self,
        connection: &OwnedFd,
        job: Option<&OwnedFd>,
    ) -> Result<ReadOutcome, Malformed> {
        let mut outcome = ReadOutcome {
            said: Vec::new(),
            bytes: 0,
            gone: false,
            failed: None,
        };
        if self.buffer.is_empty() {
            self.buffer.resize(SMALL, 0);
        } else if self.filled == self.buffer.len() {
            self.buffer.resize(LARGE, 0);
        }
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        match socket::receive(connection.as_fd(), room) {
            Ok(0) => outcome.gone = true,
            Ok(n) => self.filled += n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(e) if socket::is_lost(e) => outcome.gone = true,
            Err(e) => outcome.failed = Some((Part::Connection, e)),
        }
        let (data, whole) = self.open_records(&mut outcome)?;
        outcome.bytes = data.iter().map(ExactSizeIterator::len).sum();
        if let Some(Err(e)) = job.map(|job| self.pass_on(job, &data)) {
            outcome.failed = Some((Part::Input, e));
        }
        self.buffer.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        Ok(outcome)
    }

    /// Decrypts the whole records in the buffer. Returns the ranges of their data and their total
    /// length.
    fn open_records(
        &mut self,
        outcome: &mut ReadOutcome,
    ) -> Result<(Vec<Range<usize>>, usize), Malformed> {
        let mut data = Vec::new();
        let mut at = 0;
        while let Some(head) = self
            .buffer
            .get(at..self.filled)
            .and_then(<[u8]>::first_chunk)
        {
            let length = record::body_length(*head, RECORD_BODY)?;
            let start = at + LENGTH_BYTES;
            if start + length > self.filled {
                break;
            }
            let body = self
                .buffer
                .get_mut(start..start + length)
                .unwrap_or_default();
            let text = self.opener.open(body)?;
            let n = text.len();
            match Message::parse(text)? {
                Message::Data(Stream::Main, payload) if !self.ended => {
                    data.push(start + n - payload.len()..start + n);
                }
                Message::Eof(Stream::Main) if !self.ended => self.ended = true,
                Message::Reset(s) => outcome.said.push(Said::Reset(s)),
                Message::Credit(s, n) => outcome.said.push(Said::Credit(s, n)),
                Message::Signal(s) => outcome.said.push(Said::Signal(s)),
                Message::Data(..) | Message::Eof(_) => {
                    return Err(Malformed("data on a stream that is at its end"));
                }
                Message::End(_) => return Err(Malformed("a client that says how the job ended")),
            }
            at = start + length;
        }
        Ok((data, at))
    }

    /// Writes data to the job, and the rest to the backlog. If the job no longer reads, writing the
    /// backlog will show that.
    ///
    /// # Errors
    /// A system call failed.
    fn pass_on(&mut self, job: &OwnedFd, data: &[Range<usize>]) -> Result<(), Errno> {
        let mut taken = 0;
        if self.backlog.is_empty() && !data.is_empty() {
            let parts: Vec<IoSlice<'_>> = data
                .iter()
                .map(|r| IoSlice::new(self.buffer.get(r.clone()).unwrap_or_default()))
                .collect();
            taken = match writev(job.as_fd(), &parts) {
                Ok(n) => n,
                Err(Errno::EAGAIN | Errno::EINTR | Errno::EPIPE) => 0,
                Err(e) => return Err(e),
            };
        }
        for r in data {
            let skip = taken.min(r.len());
            taken -= skip;
            let rest = self.buffer.get(r.start + skip..r.end).unwrap_or_default();
            self.backlog.push(rest);
        }
        Ok(())
    }

    /// Writes the backlog to the job, as far as it takes it.
    ///
    /// # Errors
    /// `EPIPE`: the job no longer reads. Any other: a system call failed.
    pub(super) fn flush_backlog(&mut self, job: &OwnedFd) -> Result<(), Errno> {
        while !self.backlog.is_empty() {
            match writev(job, &self.backlog.parts()) {
                Ok(n) => self.backlog.take(n),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Returns how many bytes wait for the job.
    pub(super) const fn backlog(&self) -> usize {
        self.backlog.len()
    }
}
