//! The fields of a message between our processes: numbers in eight bytes, and byte strings with
//! their length before them. The format is fixed and strict; nothing may follow the last field.

use crate::sys::id_number::IdNumber;

/// Writes fields.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message of this kind.
    pub(crate) fn new(kind: u8) -> Self {
        Self::sized(kind, 64)
    }

    /// Begins a message of this kind and at most this many bytes. It is not reallocated while it is
    /// written, so that no copy of a key is left behind.
    pub(crate) fn sized(kind: u8, most: usize) -> Self {
        let mut bytes = Vec::with_capacity(most);
        bytes.push(kind);
        Self(bytes)
    }

    /// Appends a number.
    pub(crate) fn number(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// Appends a byte string.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let mut w = self.number(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        w.0.extend_from_slice(bytes);
        w
    }

    /// Returns the message.
    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields. Each call returns `None` if the field is missing or invalid.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Returns the kind of a message and the reader of its fields.
    pub(crate) fn new(message: &'a [u8]) -> Option<(u8, Self)> {
        message
            .split_first()
            .map(|(kind, rest)| (*kind, Self(rest)))
    }

    /// Reads a number.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        let (n, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        T::try_from(u64::from_be_bytes(*n)).ok()
    }

    /// Reads a uid or gid.
    pub(crate) fn id_number(&mut self) -> Option<IdNumber> {
        self.number().and_then(IdNumber::new)
    }

    /// Reads a byte string.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.number::<usize>()?;
        let (bytes, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Reads a byte string of a fixed length.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes()?.try_into().ok()
    }

    /// Reads a text in UTF-8.
    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    /// Reads a boolean: 0 or 1.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.number::<u8>()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Whether every field was read.
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `value` if every field was read.
    pub(crate) fn done<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}
