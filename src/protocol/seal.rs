//! Sealing and opening of the records after the handshake: Noise's own transport messages (nonce a
//! counter, no associated data), with Noise's rekey every [`limits::RECORDS_PER_KEY`] records, by
//! `ring`.
//!
//! Run by the relay, by the client's pump and, while a conversation goes on, by the monitor. Any
//! failure to open is final: the caller must close the connection.

use ring::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use super::cipher::{Cipher, UNUSABLE, nonce};
use super::hello::Suite;
use super::noise::Direction;
use super::stream::{self, Stream};
use super::{Malformed, limits};
use crate::secret::Secret;

const FORGED: Malformed = Malformed("a record that was changed, or not the one that is due");

struct State {
    cipher: Cipher,
    counter: u64,
}

impl State {
    fn new(suite: Suite, direction: &Direction) -> Result<Self, Malformed> {
        Ok(Self {
            cipher: Cipher::new(suite, direction.key.expose())?,
            counter: direction.counter,
        })
    }

    /// Returns the nonce of the next record, and first changes the key if that is due.
    fn next(&mut self) -> Result<Nonce, Malformed> {
        if self.counter != 0 && self.counter.checked_rem(limits::RECORDS_PER_KEY) == Some(0) {
            self.rekey()?;
        }
        let nonce = nonce(self.cipher.suite, self.counter);
        self.counter = self.counter.checked_add(1).ok_or(UNUSABLE)?;
        Ok(nonce)
    }

    fn rekey(&mut self) -> Result<(), Malformed> {
        self.cipher = Cipher::new(self.cipher.suite, &*self.next_key()?)?;
        Ok(())
    }

    /// Computes the next key, Noise section 4.2: the first 32 bytes of 32 zeros sealed under nonce
    /// 2^64-1.
    fn next_key(&self) -> Result<Zeroizing<[u8; 32]>, Malformed> {
        let mut new = Zeroizing::new([0_u8; 32]);
        let last = nonce(self.cipher.suite, u64::MAX);
        let _tag = self
            .cipher
            .key
            .seal_in_place_separate_tag(last, Aad::empty(), new.as_mut_slice())
            .map_err(|_| UNUSABLE)?;
        Ok(new)
    }

    /// Returns the direction under the next key, for a process that must not read what came before.
    fn successor(&self) -> Result<Direction, Malformed> {
        Ok(Direction {
            key: Secret::new(*self.next_key()?),
            counter: self.counter,
        })
    }
}

/// Seals one direction's records.
pub struct Sealer(State);

impl Sealer {
    /// Continues at the direction's counter.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(suite: Suite, direction: &Direction) -> Result<Self, Malformed> {
        State::new(suite, direction).map(Self)
    }

    /// Seals `text` in place and returns the tag, which goes after it.
    ///
    /// # Errors
    /// The counter is exhausted.
    pub fn seal(&mut self, text: &mut [u8]) -> Result<[u8; limits::TAG], Malformed> {
        let nonce = self.0.next()?;
        let tag = self
            .0
            .cipher
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), text)
            .map_err(|_| UNUSABLE)?;
        tag.as_ref().try_into().map_err(|_| UNUSABLE)
    }

    /// Returns a whole record (length, ciphertext, tag) for a short `text`.
    ///
    /// # Errors
    /// It does not fit a record, or the counter is exhausted.
    pub fn record(&mut self, text: &[u8]) -> Result<Vec<u8>, Malformed> {
        let body = text.len().saturating_add(limits::TAG);
        let length = u16::try_from(body).map_err(|_| Malformed("a record too long"))?;
        let mut record = Vec::with_capacity(body.saturating_add(limits::LENGTH_BYTES));
        record.extend_from_slice(&length.to_be_bytes());
        record.extend_from_slice(text);
        let inside = record.get_mut(limits::LENGTH_BYTES..).ok_or(UNUSABLE)?;
        let tag = self.seal(inside)?;
        record.extend_from_slice(&tag);
        Ok(record)
    }

    /// Makes a data record of the `n` bytes of payload that are already in `place`, after room for
    /// length and header. Returns the record's whole length.
    ///
    /// # Errors
    /// `place` is too small, or the counter is exhausted.
    pub fn data_in_place(
        &mut self,
        place: &mut [u8],
        of: Stream,
        n: usize,
    ) -> Result<usize, Malformed> {
        const OUTSIDE: Malformed = Malformed("a record that does not fit its place");
        let text = limits::DATA_HEADER.saturating_add(n);
        let body = text.saturating_add(limits::TAG);
        let length = u16::try_from(body).map_err(|_| OUTSIDE)?.to_be_bytes();
        let (head, rest) = place
            .split_first_chunk_mut::<{ limits::LENGTH_BYTES }>()
            .ok_or(OUTSIDE)?;
        let (text, rest) = rest.split_at_mut_checked(text).ok_or(OUTSIDE)?;
        let tag = rest.first_chunk_mut::<{ limits::TAG }>().ok_or(OUTSIDE)?;
        *head = length;
        *text
            .first_chunk_mut::<{ limits::DATA_HEADER }>()
            .ok_or(OUTSIDE)? = [stream::DATA, of.byte()];
        *tag = self.seal(text)?;
        Ok(body.saturating_add(limits::LENGTH_BYTES))
    }

    /// Changes the key, as both sides do after an AuthAccept that ends a conversation.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn rekey(&mut self) -> Result<(), Malformed> {
        self.0.rekey()
    }

    /// Returns the direction under the next key. The present key cannot be computed from it.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn successor(&self) -> Result<Direction, Malformed> {
        self.0.successor()
    }
}

/// Opens one direction's records.
pub struct Opener(State);

impl Opener {
    /// Continues at the direction's counter.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(suite: Suite, direction: &Direction) -> Result<Self, Malformed> {
        State::new(suite, direction).map(Self)
    }

    /// Opens a record's body in place and returns its plaintext.
    ///
    /// # Errors
    /// It was changed, replayed or sent out of turn: the connection must end.
    pub fn open<'a>(&mut self, body: &'a mut [u8]) -> Result<&'a mut [u8], Malformed> {
        let nonce = self.0.next()?;
        self.0
            .cipher
            .key
            .open_in_place(nonce, Aad::empty(), body)
            .map_err(|_| FORGED)
    }

    /// Changes the key, as both sides do after an AuthAccept that ends a conversation.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn rekey(&mut self) -> Result<(), Malformed> {
        self.0.rekey()
    }

    /// Returns the direction under the next key. The present key cannot be computed from it.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn successor(&self) -> Result<Direction, Malformed> {
        self.0.successor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::noise::{Initiator, Prepared, Responder};
    use crate::secret::KeyPair;

    #[test]
    fn both_sides_of_a_handshake_reach_the_same_keys() {
        for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
            let (host, machine) = (KeyPair::random().unwrap(), KeyPair::random().unwrap());
            let mut i = Initiator::new(
                suite,
                &machine,
                &host.public,
                b"one",
                b"two",
                Prepared::default(),
            )
            .unwrap();
            let one = i.message_1(b"request").unwrap();
            assert!(
                Responder::open(suite, &host, b"one", b"twO", &one, Prepared::default()).is_err()
            );
            let opened =
                Responder::open(suite, &host, b"one", b"two", &one, Prepared::default()).unwrap();
            assert_eq!(opened.machine, machine.public);
            assert_eq!(*opened.payload, b"request");
            let (two, server) = opened.responder.message_2(b"answer").unwrap();
            let (answer, client) = i.read_2(&two).unwrap();
            assert_eq!(*answer, b"answer");

            let mut sealer = Sealer::new(suite, &client.to_server).unwrap();
            let mut opener = Opener::new(suite, &server.to_server).unwrap();
            let mut record = sealer.record(b"text").unwrap();
            assert_eq!(opener.open(&mut record[2..]).unwrap(), b"text");
            // A replayed record is rejected.
            let mut again = sealer.record(b"text").unwrap();
            let mut replay = again.clone();
            opener.open(&mut again[2..]).unwrap();
            assert!(opener.open(&mut replay[2..]).is_err());
        }
    }

    #[test]
    fn a_successor_goes_on_where_a_rekey_does_and_opens_nothing_that_came_before() {
        let from = Direction {
            key: Secret::new([7; 32]),
            counter: 5,
        };
        let mut sealer = Sealer::new(Suite::AesGcm, &from).unwrap();
        let opener = Opener::new(Suite::AesGcm, &from).unwrap();
        let answers = sealer.record(b"answers").unwrap();
        let mut later = Opener::new(Suite::AesGcm, &opener.successor().unwrap()).unwrap();
        assert!(later.open(&mut answers.clone()[2..]).is_err());
        sealer.rekey().unwrap();
        let mut record = sealer.record(b"x").unwrap();
        assert_eq!(later.open(&mut record[2..]).unwrap(), b"x");
    }

    #[test]
    fn the_key_changes_every_so_many_records() {
        let from = Direction {
            key: Secret::new([7; 32]),
            counter: limits::RECORDS_PER_KEY - 1,
        };
        let mut sealer = Sealer::new(Suite::AesGcm, &from).unwrap();
        let mut opener = Opener::new(Suite::AesGcm, &from).unwrap();
        for _ in 0..3 {
            let mut record = sealer.record(b"x").unwrap();
            assert_eq!(opener.open(&mut record[2..]).unwrap(), b"x");
        }
        // Without the change the record after the border cannot be opened.
        let after = Direction {
            key: Secret::new([7; 32]),
            counter: limits::RECORDS_PER_KEY + 1,
        };
        let mut late = Sealer::new(Suite::AesGcm, &after).unwrap();
        let mut record = late.record(b"x").unwrap();
        assert!(opener.open(&mut record[2..]).is_err());
    }
}
