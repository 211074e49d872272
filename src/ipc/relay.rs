//! Messages between monitor and relay about sessions.
//!
//! On the relay's channel, new sessions arrive with their descriptors. Each session also has its
//! own channel between the monitor and the thread that serves it, so that a thread can speak only
//! for its own session.

use std::fmt;

use nix::errno::Errno;

use super::fields::{bytes, fields, message};
use crate::protocol::noise::Keys;
use crate::protocol::stream::{End, Signal};

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
    /// Whether the streams are a connection to a backend, which has no process: the session ends
    /// when both directions have ended.
    pub is_backend: bool,
}

/// Longest session message, bytes: the rest of an accepting record, which is no longer than a
/// greeting, and keys.
pub const SESSION_MESSAGE: usize = 2 * crate::protocol::limits::GREETING_BODY;

/// Descriptors that come with a session.
pub const SESSION_DESCRIPTORS: usize = 5;

message!(struct Session { answer: bytes, keys, linger, windows, is_backend });

/// A message of the monitor to the thread of a session.
#[derive(Debug, PartialEq, Eq)]
pub enum MonitorToRelay {
    /// The command has ended.
    Ended(End),
    /// How many bytes has the session transferred so far?
    Count,
}

message!(enum MonitorToRelay { 1 Ended(end), 2 Count });

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
}

fields!(enum Closing { 1 Told { cut_off }, 2 ClientGone, 3 Violation, 4 Failed(failure) });

/// The part of a session that a system call failed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The socket to the client.
    Connection,
    /// The job's standard input.
    Input,
    /// The job's standard output.
    Output,
    /// The job's standard error.
    Error,
    /// The thread that serves the session: waiting, or the channel to the monitor.
    Relay,
}

impl Part {
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

fields!(enum Part { 1 Connection, 2 Input, 3 Output, 4 Error, 5 Relay });

/// A system call that failed and ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What it failed on.
    pub part: Part,
    /// The errno.
    pub errno: u16,
}

fields!(struct Failure { part, errno });

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

message!(enum RelayToMonitor { 1 Signal(signal), 2 Over(how, sent, got), 3 Count(sent, got) });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::hello::Suite;
    use crate::protocol::noise::Direction;
    use crate::secret::Secret;

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
            is_backend: true,
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
        assert_eq!(RelayToMonitor::decode(&[1, 9]), None);
    }
}
