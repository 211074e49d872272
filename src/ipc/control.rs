//! Messages between `cosadm` and a running daemon, on the socket `run/control`.

use std::net::IpAddr;

use super::fields::{Reader, Writer};

/// A question of `cosadm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// List the sessions.
    Who,
    /// Hang up this session.
    Kill(u64),
    /// Hang up everything of the machine of this ID: sessions, and logins in progress. The machine
    /// was excluded.
    Cut([u8; 16]),
}

/// Longest question, bytes.
pub const QUESTION: usize = 64;

/// Longest answer, bytes: a few names and numbers.
pub const ANSWER: usize = 4_096;

/// An answer. [`Question::Who`] gets one for each session, then [`Answer::End`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A session.
    On(On),
    /// There are no more sessions.
    End,
    /// Whether there was such a session. It is hung up now.
    Killed(bool),
    /// How many sessions and logins the machine had. They are hung up now.
    Cut(u64),
}

/// A session, or a detached application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct On {
    /// Its number, as in the log.
    pub id: u64,
    /// The user that it runs as.
    pub user: String,
    /// The host that asked; empty if a user did.
    pub host: String,
    /// The caller's name on that host, as the host states it.
    pub caller: String,
    /// The peer's address.
    pub peer: IpAddr,
    /// `exec`, or `gui` and the application's name.
    pub service: String,
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// The leader of its processes.
    pub pid: u32,
    /// Bytes that the client has sent and received. `None`: they were not available in time, or no
    /// client is connected.
    pub bytes: Option<(u64, u64)>,
    /// Whether it is detached.
    pub detached: bool,
    /// Its command, as in the log: bounded, and not escaped. Empty for an application.
    pub command: String,
}

impl Question {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Who => Writer::new(1).done(),
            Self::Kill(id) => Writer::new(2).number(*id).done(),
            Self::Cut(machine) => Writer::new(3).bytes(machine).done(),
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let question = match kind {
            1 => Self::Who,
            2 => Self::Kill(r.number()?),
            3 => Self::Cut(r.array()?),
            _ => return None,
        };
        r.done(question)
    }
}

impl Answer {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::On(on) => {
                let (sent, got) = on.bytes.unwrap_or_default();
                Writer::new(1)
                    .number(on.id)
                    .bytes(on.user.as_bytes())
                    .bytes(on.host.as_bytes())
                    .bytes(on.caller.as_bytes())
                    .bytes(on.peer.to_string().as_bytes())
                    .bytes(on.service.as_bytes())
                    .number(on.since)
                    .number(on.pid.into())
                    .number(on.bytes.is_some().into())
                    .number(sent)
                    .number(got)
                    .number(on.detached.into())
                    .bytes(on.command.as_bytes())
                    .done()
            }
            Self::End => Writer::new(2).done(),
            Self::Killed(there) => Writer::new(3).number((*there).into()).done(),
            Self::Cut(count) => Writer::new(4).number(*count).done(),
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let answer = match kind {
            1 => Self::On(on(&mut r)?),
            2 => Self::End,
            3 => Self::Killed(r.flag()?),
            4 => Self::Cut(r.number()?),
            _ => return None,
        };
        r.done(answer)
    }
}

fn on(r: &mut Reader<'_>) -> Option<On> {
    Some(On {
        id: r.number()?,
        user: r.text()?,
        host: r.text()?,
        caller: r.text()?,
        peer: r.text()?.parse().ok()?,
        service: r.text()?,
        since: r.number()?,
        pid: r.number()?,
        bytes: {
            let known = r.flag()?;
            let both = (r.number()?, r.number()?);
            known.then_some(both)
        },
        detached: r.flag()?,
        command: r.text()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_round_trip() {
        for question in [
            Question::Who,
            Question::Kill(u64::MAX),
            Question::Cut([0xa5; 16]),
        ] {
            let bytes = question.encode();
            assert!(bytes.len() <= QUESTION);
            assert_eq!(Question::decode(&bytes), Some(question));
            assert_eq!(Question::decode(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Question::decode(&bytes[..bytes.len() - 1]), None);
        }
        let on = On {
            id: 7,
            user: "jo".into(),
            host: String::new(),
            caller: "pc\\jo".into(),
            peer: "2001:db8::1".parse().unwrap(),
            service: "gui xterm".into(),
            since: 1_700_000_000,
            pid: 42,
            bytes: Some((1, 2)),
            detached: false,
            command: "df -h /\n".into(),
        };
        let alone = On {
            bytes: None,
            detached: true,
            ..on.clone()
        };
        for answer in [
            Answer::On(on),
            Answer::On(alone),
            Answer::End,
            Answer::Killed(true),
            Answer::Killed(false),
            Answer::Cut(0),
            Answer::Cut(u64::MAX),
        ] {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Some(answer));
            assert_eq!(Answer::decode(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Answer::decode(&bytes[..bytes.len() - 1]), None);
        }
        for bytes in [&[][..], &[3], &[1, 0], &[2, 0]] {
            assert_eq!(Question::decode(bytes), None);
        }
    }
}
