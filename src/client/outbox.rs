//! What goes to the server: standard input, read directly into the buffers of its records and
//! sealed there, and the short records between. Runs in the client; it decides nothing.
//!
//! Records leave in the order in which they were sealed. Input is sealed only when nothing waits,
//! and short records that are sealed after it go after it.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::TcpStream;

use super::inbox::is_for_later;
use crate::protocol::Malformed;
use crate::protocol::batch::Batch;
use crate::protocol::seal::Sealer;
use crate::protocol::stream::{Message, Stream};

/// Short records that may wait for a server that reads nothing. An honest server cannot make us
/// send so much.
const SHORT: usize = 64 * 1024;

/// Sealed records that wait to be sent.
pub struct Outbox {
    sealer: Sealer,
    data: Batch,
    short: Vec<u8>,
}

impl Outbox {
    /// Returns an outbox that continues from the sealer's state.
    pub const fn new(sealer: Sealer) -> Self {
        Self {
            sealer,
            data: Batch::new(),
            short: Vec::new(),
        }
    }

    /// Whether everything has been given to the socket.
    pub fn is_empty(&self) -> bool {
        self.data.is_sent() && self.short.is_empty()
    }

    /// Adds a record that is not data.
    ///
    /// # Errors
    /// The server has left too many of them unread.
    pub fn add(&mut self, message: &Message<'_>) -> Result<(), Malformed> {
        self.short
            .extend_from_slice(&self.sealer.record(&message.compose())?);
        if self.short.len() > SHORT {
            return Err(Malformed("it reads nothing of what it is sent"));
        }
        Ok(())
    }

    /// Reads at most `most` bytes of standard input by `read` and seals them. Call it when all is
    /// sent; before that it returns `WouldBlock`. Returns what `read` returned, 0 at the end of the
    /// input.
    ///
    /// # Errors
    /// Those of `read`; the counter of records is at its end.
    pub fn fill(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let got = self.data.read(most, read)?;
        self.data
            .seal(&mut self.sealer, Stream::Main, got)
            .map_err(io::Error::other)?;
        Ok(got)
    }

    /// Gives the socket what it takes now.
    ///
    /// # Errors
    /// The connection failed.
    pub fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while !self.is_empty() {
            let data = self.data.unsent();
            let parts = [IoSlice::new(data), IoSlice::new(&self.short)];
            let sent = match socket.write_vectored(&parts) {
                Ok(n) => n,
                Err(e) if is_for_later(&e) => return Ok(()),
                Err(e) => return Err(e),
            };
            let of_data = sent.min(data.len());
            self.data.sent(of_data);
            self.short
                .drain(..sent.saturating_sub(of_data).min(self.short.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;
    use crate::protocol::hello::Suite;
    use crate::protocol::limits::DATA_PAYLOAD;
    use crate::protocol::noise::Direction;
    use crate::protocol::seal::Opener;
    use crate::secret::Secret;

    #[test]
    fn input_and_short_records_arrive_in_the_order_of_their_sealing() {
        let from = Direction {
            key: Secret::new([9; 32]),
            counter: 0,
        };
        let mut outbox = Outbox::new(Sealer::new(Suite::AesGcm, &from).unwrap());
        let mut opener = Opener::new(Suite::AesGcm, &from).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut theirs = listener.accept().unwrap().0;
        let reader = std::thread::spawn(move || {
            let (mut data, mut short, mut head) = (Vec::new(), 0, [0; 2]);
            while theirs.read_exact(&mut head).is_ok() {
                let mut body = vec![0; u16::from_be_bytes(head).into()];
                theirs.read_exact(&mut body).unwrap();
                let message = Message::parse(opener.open(&mut body).unwrap()).unwrap();
                if let Message::Data(Stream::Main, bytes) = message {
                    data.extend_from_slice(bytes);
                } else {
                    assert_eq!(message, Message::Credit(Stream::Error, 7));
                    short += 1;
                }
            }
            (data, short)
        });

        let input: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let (mut rest, mut short) = (input.as_slice(), 0);
        for most in [1, 65_517, 65_518, 262_068, 262_069, 1 << 20]
            .into_iter()
            .cycle()
        {
            if rest.is_empty() {
                break;
            }
            while !outbox.is_empty() {
                outbox.flush(&mut ours).unwrap();
            }
            let got = outbox.fill(most, |parts| {
                let room: usize = parts.iter().map(|p| p.len()).sum();
                assert_eq!(room, most.min(4 * DATA_PAYLOAD));
                rest.read_vectored(parts)
            });
            assert!(got.unwrap() > 0);
            assert!(outbox.fill(1, |_| panic!("read while data waits")).is_err());
            outbox.add(&Message::Credit(Stream::Error, 7)).unwrap();
            short += 1;
        }
        while !outbox.is_empty() {
            outbox.flush(&mut ours).unwrap();
        }
        drop(ours);
        let (data, shorts) = reader.join().unwrap();
        assert!(data == input);
        assert_eq!(shorts, short);
    }

    #[test]
    fn a_server_that_reads_nothing_cannot_make_it_grow() {
        let from = Direction {
            key: Secret::new([9; 32]),
            counter: 0,
        };
        let mut outbox = Outbox::new(Sealer::new(Suite::AesGcm, &from).unwrap());
        let full = (0..10_000).find_map(|_| outbox.add(&Message::Eof(Stream::Main)).err());
        assert!(full.is_some());
    }
}
