//! The data records of one read.
//!
//! Used by the relay for a job's output and by the client for standard input. The payload is read
//! directly into the slots of its records, and sealed there. Does no I/O: the caller reads and
//! sends.

use std::io::IoSliceMut;

use super::Malformed;
use super::limits::{DATA_HEADER, DATA_PAYLOAD, LENGTH_BYTES, RECORD_BODY};
use super::seal::Sealer;
use super::stream::Stream;

/// Records that one read can fill: 256 KiB, what a busy pipe gives at once.
const PLACES: usize = 4;
/// Size of a whole record, bytes.
const PLACE: usize = LENGTH_BYTES + RECORD_BODY;
/// Bytes before a record's payload.
const HEAD: usize = LENGTH_BYTES + DATA_HEADER;

/// Slots for adjacent records, and the range of them that is still to be sent.
#[derive(Default)]
pub struct Batch {
    /// Empty before the first read, and after the memory was freed.
    places: Vec<u8>,
    from: usize,
    to: usize,
}

impl Batch {
    /// Returns a batch that holds no memory yet.
    pub const fn new() -> Self {
        Self {
            places: Vec::new(),
            from: 0,
            to: 0,
        }
    }

    /// Returns whether all of it has been sent.
    pub const fn is_sent(&self) -> bool {
        self.from == self.to
    }

    /// Returns whether the memory of the slots is held.
    pub fn holds_memory(&self) -> bool {
        !self.places.is_empty()
    }

    /// Frees the memory, if nothing is in it.
    pub fn free_unused(&mut self) {
        if self.is_sent() {
            self.places = Vec::new();
        }
    }

    /// Calls `read` to read at most `most` bytes of payload into the slots; their former content is
    /// lost. The caller must call [`Self::seal`] next, with the number of bytes that were read.
    pub fn read<T>(&mut self, most: usize, read: impl FnOnce(&mut [IoSliceMut<'_>]) -> T) -> T {
        if self.places.is_empty() {
            // Zero pages from the kernel: only those that are read into are ever touched. `resize`
            // would write them all.
            self.places = vec![0; PLACES * PLACE];
        }
        (self.from, self.to) = (0, 0);
        let (mut left, mut used) = (most, 0_usize);
        let mut parts: [IoSliceMut<'_>; PLACES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        for (place, part) in self.places.chunks_exact_mut(PLACE).zip(&mut parts) {
            let n = left.min(DATA_PAYLOAD);
            if n == 0 {
                break;
            }
            *part = IoSliceMut::new(
                place
                    .get_mut(HEAD..HEAD.saturating_add(n))
                    .unwrap_or_default(),
            );
            left = left.saturating_sub(n);
            used = used.saturating_add(1);
        }
        read(parts.get_mut(..used).unwrap_or_default())
    }

    /// Seals the `n` bytes that were read as records of this stream.
    ///
    /// # Errors
    /// The sealer's counter is exhausted.
    pub fn seal(&mut self, sealer: &mut Sealer, of: Stream, n: usize) -> Result<(), Malformed> {
        let mut left = n;
        for place in self.places.chunks_exact_mut(PLACE) {
            let n = left.min(DATA_PAYLOAD);
            if n == 0 {
                break;
            }
            let length = sealer.data_in_place(place, of, n)?;
            self.to = self.to.saturating_add(length);
            left = left.saturating_sub(n);
        }
        Ok(())
    }

    /// Returns the records, or parts of them, that are still to be sent.
    pub fn unsent(&self) -> &[u8] {
        self.places.get(self.from..self.to).unwrap_or_default()
    }

    /// Records that `n` bytes of [`Self::unsent`] have been sent.
    pub const fn sent(&mut self, n: usize) {
        self.from = self.from.saturating_add(n);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::protocol::hello::Suite;
    use crate::protocol::noise::Direction;
    use crate::protocol::seal::Opener;
    use crate::protocol::stream::Message;
    use crate::secret::Secret;

    #[test]
    fn data_read_into_the_batch_is_sent_as_data_records() {
        let from = Direction {
            key: Secret::new([9; 32]),
            counter: 0,
        };
        let mut sealer = Sealer::new(Suite::AesGcm, &from).unwrap();
        let mut opener = Opener::new(Suite::AesGcm, &from).unwrap();
        let input: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut batch = Batch::new();
        assert!(batch.is_sent() && !batch.holds_memory());
        for most in [0, 1, DATA_PAYLOAD, DATA_PAYLOAD + 1, usize::MAX] {
            let mut source = input.as_slice();
            let n = batch.read(most, |parts| {
                assert!(parts.iter().all(|p| !p.is_empty()));
                let room: usize = parts.iter().map(|p| p.len()).sum();
                assert_eq!(room, most.min(4 * DATA_PAYLOAD));
                source.read_vectored(parts).unwrap()
            });
            batch.seal(&mut sealer, Stream::Error, n).unwrap();
            assert_eq!(batch.is_sent(), n == 0);
            batch.free_unused();
            assert_eq!(batch.holds_memory(), n > 0);

            let (mut rest, mut got) = (batch.unsent().to_vec(), Vec::new());
            while !rest.is_empty() {
                let body = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                let text = opener.open(&mut rest[2..2 + body]).unwrap();
                let Message::Data(Stream::Error, bytes) = Message::parse(text).unwrap() else {
                    panic!("{text:?}");
                };
                got.extend_from_slice(bytes);
                rest.drain(..2 + body);
            }
            assert!(got == input[..n], "{most}");
            batch.sent(batch.unsent().len());
            assert!(batch.is_sent());
        }
    }
}
