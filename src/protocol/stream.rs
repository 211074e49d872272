//! The plaintext of a record after AuthAccept: data of a stream, its end, a closed reader, credit,
//! a signal, the job's end. Also the sending side's account of credit; the reading side's is in
//! `window`.
//!
//! Pure; used by the relay and the client.

use super::{Malformed, limits};

/// The streams of a command. Each direction is separate: the client sends on `Main` what the job
/// reads (stdin), the server what the job writes (stdout).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// stdin towards the server, stdout towards the client.
    Main = 0,
    /// stderr, towards the client only.
    Error = 1,
}

impl Stream {
    /// Returns the stream's byte on the wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    fn of(byte: u8) -> Result<Self, Malformed> {
        match byte {
            0 => Ok(Self::Main),
            1 => Ok(Self::Error),
            _ => Err(Malformed("a stream that does not exist")),
        }
    }
}

/// A signal that a client may send to the job's process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Hangup = 1,
    /// SIGINT
    Interrupt = 2,
    /// SIGQUIT
    Quit = 3,
    /// SIGTERM
    Terminate = 15,
}

impl Signal {
    /// Returns the signal's byte on the wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Returns the signal with this byte on the wire.
    pub fn of(byte: u8) -> Option<Self> {
        [Self::Hangup, Self::Interrupt, Self::Quit, Self::Terminate]
            .into_iter()
            .find(|s| s.byte() == byte)
    }
}

/// How the job ended. The last record of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(u8),
    /// This signal ended it; Linux's number.
    Killed(u8),
    /// It could not be started; a sentence for the caller, at most 255 bytes.
    NotStarted(String),
}

/// One record's meaning.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Bytes of a stream, at least one.
    Data(Stream, &'a [u8]),
    /// The stream is at its end: nothing more comes on it.
    Eof(Stream),
    /// The reader of this stream has closed it: send no more on it.
    Reset(Stream),
    /// The reader of this stream grants so many more bytes.
    Credit(Stream, u32),
    /// Client only: a signal for the job.
    Signal(Signal),
    /// Server only: the job's end.
    End(End),
}

/// Type byte of a data record.
pub const DATA: u8 = 1;
const EOF: u8 = 2;
const RESET: u8 = 3;
const CREDIT: u8 = 4;
const SIGNAL: u8 = 5;
const END: u8 = 6;

const EXITED: u8 = 0;
const KILLED: u8 = 1;
const NOT_STARTED: u8 = 2;

impl<'a> Message<'a> {
    /// Parses the plaintext of an opened record.
    ///
    /// # Errors
    /// Anything that is not exactly one message.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let (&kind, rest) = text.split_first().ok_or(Malformed("an empty record"))?;
        let (&second, rest) = rest.split_first().ok_or(Malformed("a record cut short"))?;
        let message = match kind {
            DATA if rest.is_empty() => return Err(Malformed("a data record without data")),
            DATA => return Ok(Self::Data(Stream::of(second)?, rest)),
            EOF => Self::Eof(Stream::of(second)?),
            RESET => Self::Reset(Stream::of(second)?),
            CREDIT => {
                let bytes = rest
                    .try_into()
                    .map_err(|_| Malformed("a grant of another length"))?;
                return Ok(Self::Credit(Stream::of(second)?, u32::from_be_bytes(bytes)));
            }
            SIGNAL => {
                Self::Signal(Signal::of(second).ok_or(Malformed("a signal that may not be sent"))?)
            }
            END => return end(second, rest).map(Self::End),
            _ => return Err(Malformed("a record of unknown type")),
        };
        if rest.is_empty() {
            Ok(message)
        } else {
            Err(Malformed("a record too long for its type"))
        }
    }

    /// Returns the plaintext of a record.
    pub fn compose(&self) -> Vec<u8> {
        match self {
            Self::Data(s, bytes) => [&[DATA, s.byte()], *bytes].concat(),
            Self::Eof(s) => vec![EOF, s.byte()],
            Self::Reset(s) => vec![RESET, s.byte()],
            Self::Credit(s, n) => [&[CREDIT, s.byte()][..], &n.to_be_bytes()].concat(),
            Self::Signal(s) => vec![SIGNAL, s.byte()],
            Self::End(End::Exited(status)) => vec![END, EXITED, *status],
            Self::End(End::Killed(signal)) => vec![END, KILLED, *signal],
            Self::End(End::NotStarted(why)) => {
                [&[END, NOT_STARTED], brief(why).as_bytes()].concat()
            }
        }
    }
}

fn end(how: u8, rest: &[u8]) -> Result<End, Malformed> {
    match (how, rest) {
        (EXITED, [status]) => Ok(End::Exited(*status)),
        (KILLED, [signal]) => Ok(End::Killed(*signal)),
        (NOT_STARTED, text) if text.len() <= limits::NOT_STARTED_TEXT => std::str::from_utf8(text)
            .map(|t| End::NotStarted(t.to_owned()))
            .map_err(|_| Malformed("a reason that is not UTF-8")),
        _ => Err(Malformed("an end of unknown form")),
    }
}

fn brief(text: &str) -> &str {
    let mut n = limits::NOT_STARTED_TEXT.min(text.len());
    while !text.is_char_boundary(n) {
        n = n.saturating_sub(1);
    }
    text.get(..n).unwrap_or_default()
}

/// The sending side's account of a stream: how much it may still send.
#[derive(Debug)]
pub struct Allowance(u32);

impl Default for Allowance {
    fn default() -> Self {
        Self(limits::CREDIT)
    }
}

impl Allowance {
    /// Returns the bytes that may be sent now.
    pub fn left(&self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Records bytes sent; the caller must not send more than were left.
    pub fn spend(&mut self, bytes: usize) {
        self.0 = self
            .0
            .saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Records a grant.
    ///
    /// # Errors
    /// More credit than may ever be outstanding.
    pub fn granted(&mut self, bytes: u32) -> Result<(), Malformed> {
        self.0 = self
            .0
            .checked_add(bytes)
            .filter(|n| *n <= limits::CREDIT_MAX)
            .ok_or(Malformed("more credit than a stream may have"))?;
        Ok(())
    }
}
