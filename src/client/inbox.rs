//! What comes from the server: one buffer that records are read into, and where they are opened in
//! place. Runs in the client; it decides nothing.

use std::io::{self, Read};
use std::net::TcpStream;
use std::ops::Range;

use crate::protocol::limits::{LENGTH_BYTES, RECORD_BODY};
use crate::protocol::{Malformed, record};

/// Four full records: what one read returns on a busy stream. Pages that a short run does not fill
/// are never touched.
const SIZE: usize = 4 * (LENGTH_BYTES + RECORD_BODY);

/// The receiving buffer.
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// The result of one read of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The server has closed its side.
    Closed,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            buffer: vec![0; SIZE],
            start: 0,
            end: 0,
        }
    }
}

impl Inbox {
    /// Reads once. The buffer always has room, because [`Self::next`] has taken out every whole
    /// record before.
    ///
    /// # Errors
    /// The connection failed.
    pub fn fill(&mut self, socket: &mut TcpStream) -> io::Result<ReadOutcome> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match socket.read(room) {
            Ok(0) => Ok(ReadOutcome::Closed),
            Ok(n) => {
                self.end = self.end.saturating_add(n);
                Ok(ReadOutcome::Bytes(n))
            }
            Err(e) if is_for_later(&e) => Ok(ReadOutcome::Nothing),
            Err(e) => Err(e),
        }
    }

    /// Takes out the next record if it is whole, and returns its position, including its length
    /// field. Its body may have at most `limit` bytes.
    ///
    /// # Errors
    /// The length field is zero or exceeds the limit.
    pub fn next(&mut self, limit: usize) -> Result<Option<Range<usize>>, Malformed> {
        let there = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(head) = there.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = record::body_length(*head, limit)?.saturating_add(LENGTH_BYTES);
        if there.len() < length {
            return Ok(None);
        }
        let record = self.start..self.start.saturating_add(length);
        self.start = record.end;
        Ok(Some(record))
    }

    /// Returns the bytes of a record, or of a part of it. They are valid until the next
    /// [`Self::fill`].
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Returns the body of a record, to be opened in place.
    pub fn body(&mut self, record: Range<usize>) -> &mut [u8] {
        let body = record.start.saturating_add(LENGTH_BYTES)..record.end;
        self.buffer.get_mut(body).unwrap_or_default()
    }

    /// Whether there is an incomplete record.
    #[cfg(test)]
    fn has_part(&self) -> bool {
        self.start < self.end
    }
}

/// Whether a call has not failed and must be repeated later.
pub fn is_for_later(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn records_are_whole_however_they_come() {
        let (mut ours, mut theirs) = pair();
        let mut inbox = Inbox::default();
        let stream: Vec<u8> = (1..=400_u16)
            .flat_map(|n| [&n.to_be_bytes()[..], &vec![n.to_le_bytes()[0]; n.into()]].concat())
            .collect();
        let total = stream.len();
        let writer = std::thread::spawn(move || {
            for piece in stream.chunks(997) {
                theirs.write_all(piece).unwrap();
            }
        });
        let (mut n, mut read) = (0, 0);
        while inbox.fill(&mut ours).unwrap() != ReadOutcome::Closed {
            while let Some(r) = inbox.next(400).unwrap() {
                n += 1;
                read += r.len();
                let body = inbox.body(r);
                assert_eq!(body.len(), n);
                assert!(body.iter().all(|b| usize::from(*b) == n % 256));
            }
        }
        assert_eq!((n, read, inbox.has_part()), (400, total, false));
        writer.join().unwrap();
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_body() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&[1, 1]).unwrap();
        let mut inbox = Inbox::default();
        inbox.fill(&mut ours).unwrap();
        assert!(inbox.next(256).is_err());
        assert_eq!(inbox.next(257), Ok(None));
        assert!(inbox.has_part());
    }
}
