//! Towards the peer: the job's output is read straight into the places where
//! its records will lie, sealed there, and written with one call.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::uio::readv;
use nix::unistd::write;

use crate::wire::Malformed;
use crate::wire::limits::{DATA_HEADER, DATA_PAYLOAD, LENGTH_BYTES, RECORD_BODY, TAG};
use crate::wire::seal::Sealer;
use crate::wire::stream::{self, Message, Stream};

/// Records that one read can fill: 256 KiB, what a busy pipe gives at once.
const RECORDS: usize = 4;
const RECORD: usize = LENGTH_BYTES + RECORD_BODY;
const HEAD: usize = LENGTH_BYTES + DATA_HEADER;

/// Control records that may wait for a peer who does not read: far more than
/// an honest one can cause.
const CONTROL: usize = 64 * 1024;

/// What one read of a job's output came to.
pub(super) enum Filled {
    /// So many bytes, sealed.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The output is at its end.
    End,
}

/// Sealed records on their way to the peer.
pub(super) struct Outgoing {
    sealer: Sealer,
    /// Data records; empty while there is nothing to send, given back when idle.
    data: Vec<u8>,
    /// Which part of `data` has still to be sent.
    from: usize,
    to: usize,
    /// Records sealed after those in `data`.
    control: Vec<u8>,
}

impl Outgoing {
    /// With `first`, a record that is to go before all others.
    pub(super) const fn new(sealer: Sealer, first: Vec<u8>) -> Self {
        Self {
            sealer,
            data: Vec::new(),
            from: 0,
            to: 0,
            control: first,
        }
    }

    /// Whether everything was sent: only then may more data be read.
    pub(super) fn is_empty(&self) -> bool {
        self.from == self.to && self.control.is_empty()
    }

    /// Whether the big buffer is held.
    pub(super) fn holds_buffer(&self) -> bool {
        !self.data.is_empty()
    }

    /// Gives the big buffer back, if nothing is in it.
    pub(super) fn give_back(&mut self) {
        if self.from == self.to {
            self.data = Vec::new();
        }
    }

    /// Adds a record that is not data.
    ///
    /// # Errors
    /// The peer has left too many unread.
    pub(super) fn add(&mut self, message: &Message<'_>) -> Result<(), Malformed> {
        let record = self.sealer.record(&message.compose())?;
        self.control.extend_from_slice(&record);
        if self.control.len() > CONTROL {
            return Err(Malformed("a peer that reads nothing"));
        }
        Ok(())
    }

    /// Reads at most `most` bytes of an output and seals them. Only when empty.
    ///
    /// # Errors
    /// The sealer is at its end.
    pub(super) fn fill(
        &mut self,
        output: &OwnedFd,
        of: Stream,
        most: usize,
    ) -> Result<Filled, Malformed> {
        if self.data.is_empty() {
            // Fresh zero pages from the kernel: only those that are read into are
            // ever touched. To resize would write them all.
            self.data = vec![0; RECORDS * RECORD];
        }
        let got = match read_into_places(output, &mut self.data, most) {
            Ok(0) => return Ok(Filled::End),
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Filled::Nothing),
            Err(_) => return Ok(Filled::End),
        };
        (self.from, self.to) = (0, 0);
        let mut left = got;
        for place in self.data.chunks_exact_mut(RECORD) {
            let n = left.min(DATA_PAYLOAD);
            if n == 0 {
                break;
            }
            self.to += seal_in_place(&mut self.sealer, place, of, n)?;
            left -= n;
        }
        Ok(Filled::Bytes(got))
    }

    /// Sends what there is, as far as the socket takes it.
    ///
    /// # Errors
    /// The peer is gone.
    pub(super) fn flush(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        while self.from < self.to {
            match send(
                socket,
                self.data.get(self.from..self.to).unwrap_or_default(),
            )? {
                0 => return Ok(()),
                n => self.from += n,
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

fn read_into_places(output: &OwnedFd, places: &mut [u8], most: usize) -> nix::Result<usize> {
    let mut left = most;
    let mut parts: [IoSliceMut<'_>; RECORDS] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
    for (place, part) in places.chunks_exact_mut(RECORD).zip(&mut parts) {
        let n = left.min(DATA_PAYLOAD);
        *part = IoSliceMut::new(place.get_mut(HEAD..HEAD + n).unwrap_or_default());
        left -= n;
    }
    readv(output.as_fd(), &mut parts)
}

/// Seals `n` bytes of payload that lie in their place; the record's whole length.
fn seal_in_place(
    sealer: &mut Sealer,
    place: &mut [u8],
    of: Stream,
    n: usize,
) -> Result<usize, Malformed> {
    const OUTSIDE: Malformed = Malformed("a record that does not fit its place");
    let body = DATA_HEADER + n + TAG;
    let length = u16::try_from(body).map_err(|_| OUTSIDE)?.to_be_bytes();
    let place = place.get_mut(..LENGTH_BYTES + body).ok_or(OUTSIDE)?;
    let (head, rest) = place
        .split_first_chunk_mut::<LENGTH_BYTES>()
        .ok_or(OUTSIDE)?;
    let (text, tag) = rest.split_at_mut_checked(DATA_HEADER + n).ok_or(OUTSIDE)?;
    *head = length;
    if let Some(kind) = text.first_chunk_mut::<DATA_HEADER>() {
        *kind = [stream::DATA, of.byte()];
    }
    tag.copy_from_slice(&sealer.seal(text)?);
    Ok(LENGTH_BYTES + body)
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match write(socket, bytes) {
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        other => other,
    }
}
