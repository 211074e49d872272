//! Messages between monitor and relay about sessions.
//!
//! On the relay's channel, new sessions arrive with their descriptors. Each session also has its
//! own channel between the monitor and the thread that serves it, so that a thread can speak only
//! for its own session.

use std::fmt;

use nix::errno::Errno;
use zeroize::Zeroizing;

use super::fields::{Reader, Writer};
use crate::protocol::hello::Suite;
use crate::protocol::noise::{Direction, Keys};
use crate::protocol::stream::{End, Signal};
use crate::secret::Secret;

/// An authenticated connection for the relay. Its descriptors, in this order: the peer's socket,
/// the session's own channel, and our ends of the job's stdin, stdout and stderr.
pub struct Session {
    /// What is still to be sent of the record that accepts the connection; usually nothing.
    pub answer: Vec<u8>,
    /// Keys and counters.
    pub keys: Keys,
    /// How long the outputs must have been quiet after the command has ended, if other processes
    /// still hold them. Milliseconds; `u32::MAX`: until they are closed.
    pub linger: u32,
    /// What the windows of all sessions together may promise beyond their initial size, bytes.
    pub windows: usize,
}

/// Longest session message, bytes: the rest of an accepting record, which is no longer than a
/// greeting, and keys.
pub const SESSION_MESSAGE: usize = 2 * crate::protocol::limits::GREETING_BODY;

/// Descriptors that come with a session.
pub const SESSION_DESCRIPTORS: usize = 5;

impl Session {
    /// Encodes the message. It holds keys: the sender must wipe it.
    pub fn encode(&self) -> Vec<u8> {
        Writer::sized(1, self.answer.len() + 256)
            .bytes(&self.answer)
            .number(self.keys.suite.number().into())
            .bytes(self.keys.to_server.key.expose())
            .number(self.keys.to_server.counter)
            .bytes(self.keys.to_client.key.expose())
            .number(self.keys.to_client.counter)
            .number(self.linger.into())
            .number(u64::try_from(self.windows).unwrap_or(u64::MAX))
            .done()
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (1, mut r) = Reader::new(message)? else {
            return None;
        };
        let answer = r.bytes()?.to_vec();
        let suite = Suite::of(r.number()?)?;
        let mut direction = || {
            let key = Zeroizing::new(r.array::<32>()?);
            Some(Direction {
                key: Secret::new(*key),
                counter: r.number()?,
            })
        };
        let (to_server, to_client) = (direction()?, direction()?);
        let linger = r.number()?;
        let windows = usize::try_from(r.number::<u64>()?).unwrap_or(usize::MAX);
        r.done(Self {
            answer,
            keys: Keys {
                suite,
                to_server,
                to_client,
            },
            linger,
            windows,
        })
    }
}

/// A message of the monitor to the thread of a session.
#[derive(Debug, PartialEq, Eq)]
pub enum MonitorToRelay {
    /// The command has ended.
    Ended(End),
    /// How many bytes has the session transferred so far?
    Count,
}

impl MonitorToRelay {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        let end = match self {
            Self::Ended(end) => end,
            Self::Count => return Writer::new(4).done(),
        };
        match end {
            End::Exited(n) => Writer::new(1).number((*n).into()).done(),
            End::Killed(n) => Writer::new(2).number((*n).into()).done(),
            End::NotStarted(why) => Writer::new(3).bytes(why.as_bytes()).done(),
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let end = match kind {
            1 => End::Exited(r.number()?),
            2 => End::Killed(r.number()?),
            3 => End::NotStarted(String::from_utf8(r.bytes()?.to_vec()).ok()?),
            4 => return r.done(Self::Count),
            _ => return None,
        };
        r.done(Self::Ended(end))
    }
}

/// A message of a session's thread to the monitor. The end of this channel is the end of the
/// session.
#[derive(Debug, PartialEq, Eq)]
pub enum RelayToMonitor {
    /// The client sends the job a signal.
    Signal(Signal),
    /// The session is over: how, and the bytes that the client has sent and received.
    Over(Closing, u64, u64),
    /// The bytes that the client has sent and received so far.
    Count(u64, u64),
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The client was sent the job's end.
    Told {
        /// Another process held an output open; what it writes from then on is lost.
        cut_off: bool,
    },
    /// The client hung up before.
    ClientGone,
    /// The client broke the protocol, or a record was modified on the way.
    Violation,
    /// A system call on one of the session's descriptors failed.
    Failed(Failure),
}

impl Closing {
    /// Returns the stable name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Told { .. } => "done",
            Self::ClientGone => "client-gone",
            Self::Violation => "violation",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns what failed, if something did.
    pub const fn failure(self) -> Option<Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Told { .. } | Self::ClientGone | Self::Violation => None,
        }
    }

    /// Whether the client was sent the job's end.
    pub const fn is_told(self) -> bool {
        matches!(self, Self::Told { .. })
    }

    /// Whether output may have been cut off.
    pub const fn is_cut_off(self) -> bool {
        matches!(self, Self::Told { cut_off: true })
    }

    /// Returns its two numbers in a message. The second is the errno, or says whether output was
    /// cut off.
    fn numbers(self) -> (u64, u64) {
        match self {
            Self::Told { cut_off } => (1, cut_off.into()),
            Self::ClientGone => (2, 0),
            Self::Violation => (3, 0),
            Self::Failed(f) => (f.part.number(), f.errno.into()),
        }
    }

    fn of(kind: u64, errno: u16) -> Option<Self> {
        match (kind, errno) {
            (1, 0) => Some(Self::Told { cut_off: false }),
            (1, 1) => Some(Self::Told { cut_off: true }),
            (2, 0) => Some(Self::ClientGone),
            (3, 0) => Some(Self::Violation),
            (kind, errno) => {
                let part = Part::ALL.into_iter().find(|p| p.number() == kind)?;
                Some(Self::Failed(Failure { part, errno }))
            }
        }
    }
}

/// The part of a session that a system call failed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The socket to the client.
    Connection = 10,
    /// The job's standard input.
    Input = 11,
    /// The job's standard output.
    Output = 12,
    /// The job's standard error.
    Error = 13,
    /// The thread that serves the session: waiting, or the channel to the monitor.
    Relay = 14,
}

impl Part {
    const ALL: [Self; 5] = [
        Self::Connection,
        Self::Input,
        Self::Output,
        Self::Error,
        Self::Relay,
    ];

    const fn number(self) -> u64 {
        self as u64
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Input => "standard input",
            Self::Output => "standard output",
            Self::Error => "standard error",
            Self::Relay => "relay",
        }
    }
}

/// A system call that failed and ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What it failed on.
    pub part: Part,
    /// The errno.
    pub errno: u16,
}

impl Failure {
    /// Returns a failure with this error.
    pub fn new(part: Part, errno: Errno) -> Self {
        let errno = u16::try_from(errno as i32).unwrap_or(u16::MAX);
        Self { part, errno }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = Errno::from_raw(self.errno.into());
        write!(f, "{}: {}", self.part.name(), errno.desc())
    }
}

impl RelayToMonitor {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Signal(s) => Writer::new(1).number(s.byte().into()).done(),
            Self::Over(how, sent, got) => {
                let (kind, errno) = how.numbers();
                Writer::new(2)
                    .number(kind)
                    .number(errno)
                    .number(*sent)
                    .number(*got)
                    .done()
            }
            Self::Count(sent, got) => Writer::new(3).number(*sent).number(*got).done(),
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let word = match kind {
            1 => Self::Signal(Signal::of(r.number()?)?),
            2 => {
                let how = Closing::of(r.number()?, r.number()?)?;
                Self::Over(how, r.number()?, r.number()?)
            }
            3 => Self::Count(r.number()?, r.number()?),
            _ => return None,
        };
        r.done(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_messages_round_trip() {
        let direction = |n, counter| Direction {
            key: Secret::new([n; 32]),
            counter,
        };
        let keys = Keys {
            suite: Suite::ChaChaPoly,
            to_server: direction(1, 2),
            to_client: direction(3, 4),
        };
        let s = Session {
            answer: b"record".to_vec(),
            keys,
            linger: 2000,
            windows: 64 << 20,
        };
        let back = Session::decode(&s.encode()).unwrap();
        assert_eq!((back.answer, back.linger), (s.answer, 2000));
        assert_eq!(back.windows, 64 << 20);
        assert!(back.keys.to_client.key.same(&Secret::new([3; 32])));
        assert_eq!(back.keys.to_client.counter, 4);
        for end in [
            End::Exited(255),
            End::Killed(9),
            End::NotStarted("no".into()),
        ] {
            let news = MonitorToRelay::Ended(end);
            assert_eq!(MonitorToRelay::decode(&news.encode()), Some(news));
        }
        assert_eq!(
            MonitorToRelay::decode(&MonitorToRelay::Count.encode()),
            Some(MonitorToRelay::Count)
        );
        for word in [
            RelayToMonitor::Signal(Signal::Quit),
            RelayToMonitor::Over(Closing::Told { cut_off: false }, 1, u64::MAX),
            RelayToMonitor::Over(Closing::Told { cut_off: true }, 1, u64::MAX),
            RelayToMonitor::Over(Closing::ClientGone, 0, 0),
            RelayToMonitor::Over(Closing::Violation, 0, 0),
            RelayToMonitor::Over(
                Closing::Failed(Failure::new(Part::Input, Errno::ENOMEM)),
                2,
                3,
            ),
            RelayToMonitor::Over(
                Closing::Failed(Failure::new(Part::Relay, Errno::EBADF)),
                2,
                3,
            ),
            RelayToMonitor::Count(3, 4),
        ] {
            assert_eq!(RelayToMonitor::decode(&word.encode()), Some(word));
        }
        assert_eq!(RelayToMonitor::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 9]), None);
    }
}
