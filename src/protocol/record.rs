//! Records: a length of 16 bits, big-endian, and a body. Also the envelope of the records before
//! AuthAccept: a magic and a type, so that the first bytes tell other protocols on the port apart
//! (seed 001, MCOP).
//!
//! Pure; used by the client and by gate, monitor and relay.

use super::{Malformed, limits};

/// The first four bytes of every body before AuthAccept.
pub const MAGIC: [u8; 4] = *b"COSs";

/// Bytes of magic and type, before the content.
pub const ENVELOPE: usize = 5;

/// The type of a record before AuthAccept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Client: version and suites.
    Hello = 1,
    /// Server: suite, nonce, limits.
    ServerHello = 2,
    /// Client: Noise message 1.
    ClientHello = 3,
    /// Server: Noise message 2 with an answer.
    Answer = 4,
    /// Server: the refusal.
    Denied = 5,
    /// Either side: a Noise transport message, while the conversation goes on.
    Sealed = 6,
}

impl Kind {
    /// Returns the type's byte on the wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    fn of(byte: u8) -> Option<Self> {
        [
            Self::Hello,
            Self::ServerHello,
            Self::ClientHello,
            Self::Answer,
            Self::Denied,
            Self::Sealed,
        ]
        .into_iter()
        .find(|k| k.byte() == byte)
    }
}

/// Returns the body length that a record's first two bytes announce.
///
/// # Errors
/// It is zero or over `limit`.
pub fn body_length(head: [u8; 2], limit: usize) -> Result<usize, Malformed> {
    match usize::from(u16::from_be_bytes(head)) {
        0 => Err(Malformed("a record without a body")),
        n if n > limit => Err(Malformed("a record longer than may come here")),
        n => Ok(n),
    }
}

/// Returns the largest body that a peer may send where `kind` is due.
pub const fn limit_of(kind: Kind) -> usize {
    match kind {
        Kind::Hello | Kind::ServerHello | Kind::Denied => limits::HELLO_BODY,
        Kind::ClientHello | Kind::Answer | Kind::Sealed => limits::GREETING_BODY,
    }
}

/// Returns a whole record before AuthAccept: length, magic, type, content.
///
/// # Errors
/// The content does not fit such a record.
pub fn compose(kind: Kind, content: &[u8]) -> Result<Vec<u8>, Malformed> {
    let body = content.len().saturating_add(MAGIC.len()).saturating_add(1);
    let length = u16::try_from(body)
        .ok()
        .filter(|n| usize::from(*n) <= limit_of(kind));
    let length = length.ok_or(Malformed("a message too long for its record"))?;
    let mut record = Vec::with_capacity(body.saturating_add(limits::LENGTH_BYTES));
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(&MAGIC);
    record.push(kind.byte());
    record.extend_from_slice(content);
    Ok(record)
}

/// A record before AuthAccept, parsed: its type and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Its type.
    pub kind: Kind,
    /// The bytes after magic and type.
    pub content: &'a [u8],
}

/// Parses a whole record (length and body), which must be of one of the kinds that are due.
///
/// # Errors
/// Wrong length, magic or type, or a message out of turn.
pub fn parse<'a>(record: &'a [u8], due: &[Kind]) -> Result<Envelope<'a>, Malformed> {
    let (head, body) = record
        .split_first_chunk::<2>()
        .ok_or(Malformed("a record that is cut short"))?;
    let (magic, rest) = body
        .split_first_chunk::<4>()
        .ok_or(Malformed("a record without a magic"))?;
    if *magic != MAGIC {
        return Err(Malformed("wrong magic: not this protocol"));
    }
    let (&kind, content) = rest
        .split_first()
        .ok_or(Malformed("a record without a type"))?;
    let kind = Kind::of(kind).ok_or(Malformed("a record of unknown type"))?;
    if !due.contains(&kind) {
        return Err(Malformed("a message out of turn"));
    }
    if body_length(*head, limit_of(kind))? != body.len() {
        return Err(Malformed("a record whose length is not its body's"));
    }
    Ok(Envelope { kind, content })
}
