//! Messages between `cosadm` and a running daemon, on the socket `run/control`.

use std::net::IpAddr;

use super::fields::{fields, message};

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

message!(enum Question { 1 Who, 2 Kill(session), 3 Cut(machine) });
message!(enum Answer { 1 On(session), 2 End, 3 Killed(there), 4 Cut(count) });
fields!(struct On {
    id,
    user,
    host,
    caller,
    peer,
    service,
    since,
    pid,
    bytes,
    detached,
    command,
});

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
