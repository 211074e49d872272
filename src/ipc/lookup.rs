//! Messages between monitor and look-up process: users, their groups, and the addresses of hosts.
//!
//! The monitor first sends which user the process is to become ([`Begin`]), then [`Question`]s,
//! each with its own number. The process first reports its sandbox status, then sends each answer
//! as soon as it is found, in any order.

use std::net::IpAddr;

use super::fields::{self, fields, message, reason};
use crate::sys::account::UserRecord;
use crate::sys::confine::Confined;
use crate::sys::id_number::IdNumber;

/// Longest user name that is looked up, bytes.
pub const USER_NAME: usize = 256;
/// Longest host name, bytes.
pub const HOST_NAME: usize = 255;
/// Most groups in one message. An account with more takes several messages, all but the last full.
pub const GROUPS: usize = 8_192;
/// Most groups that are sent in the account's own message.
const FEW: usize = 64;
/// Most groups of an account: the kernel takes no more.
pub const MOST_GROUPS: usize = 65_536;
/// Longest question, bytes: a user, and the groups that access rules may name.
pub const QUESTION: usize = 32 * 1024;
/// Hosts that one process looks up at the same time.
pub const HOSTS: usize = 16;
/// Most addresses of one host.
pub const ADDRESSES: usize = 256;

/// The monitor's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The user and group to become; `None`: the process keeps its own.
    pub user: Option<(IdNumber, IdNumber)>,
    /// Whether to load the NSS modules for users at once, before the first question.
    pub warm: bool,
}

/// A question of the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The user of this name, and which of these groups it is in.
    User(String, Vec<String>),
    /// The user of this uid, and which of these groups it is in.
    Number(u32, Vec<String>),
    /// The addresses of this host.
    Host(String),
}

/// A message of the look-up process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The process is confined as reported here, and ready.
    Ready(Confined),
    /// More groups of the user that this question asks for.
    Groups(u64, Vec<IdNumber>),
    /// The user, if it exists; or why it cannot be used.
    User(u64, Result<Option<Box<UserRecord>>, String>),
    /// The host's addresses, or why there are none.
    Host(u64, Result<Vec<IpAddr>, String>),
    /// The process could not be confined, and why; it ends.
    Failed(String),
}

message!(struct Begin { user, warm });
fields!(enum Question { 1 User(name, groups), 2 Number(uid, groups), 3 Host(name) });
fields!(enum Answer {
    1 Ready(confined),
    2 Groups(number, groups),
    3 User(number, user),
    4 Host(number, addresses),
    5 Failed(why: reason),
} if is_bounded);

/// Whether an answer keeps to the limits, and has no IPv4 address in the form of IPv6. A message
/// with no groups is rejected, which bounds the number of messages.
fn is_bounded(answer: &Answer) -> bool {
    match answer {
        Answer::Groups(_, groups) => (1..=GROUPS).contains(&groups.len()),
        Answer::Host(_, Ok(all)) => {
            all.len() <= ADDRESSES && all.iter().all(|a| a.to_canonical() == *a)
        }
        Answer::Ready(_) | Answer::User(..) | Answer::Host(_, Err(_)) | Answer::Failed(_) => true,
    }
}

impl Question {
    /// Encodes the message. Returns `None` if no user or host can have such a name.
    pub fn encode(&self, number: u64) -> Option<Vec<u8>> {
        let (name, most) = match self {
            Self::User(name, _) => (name.as_str(), USER_NAME),
            Self::Host(name) => (name.as_str(), HOST_NAME),
            Self::Number(..) => ("number", HOST_NAME),
        };
        let is_name = !name.is_empty() && name.len() <= most && !name.contains('\0');
        let message = is_name.then(|| fields::encode(&(number, self)));
        message.filter(|message| message.len() <= QUESTION)
    }

    /// Parses a message: its number and the question. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<(u64, Self)> {
        fields::decode(message)
    }
}

impl Answer {
    /// Encodes the answer: one message, or several for a user with many groups. Those go first, in
    /// messages of their own, and the account follows without them.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        match self {
            Self::User(number, Ok(Some(record))) if record.account.groups.len() > FEW => {
                let mut record = record.clone();
                let groups = std::mem::take(&mut record.account.groups);
                let groups = groups.chunks(GROUPS).map(<[_]>::to_vec);
                let groups = groups.map(|some| Self::Groups(*number, some));
                let last = Self::User(*number, Ok(Some(record)));
                let all = groups.chain([last]);
                all.map(|answer| fields::encode(&answer)).collect()
            }
            Self::Ready(_)
            | Self::Groups(..)
            | Self::User(..)
            | Self::Host(..)
            | Self::Failed(_) => vec![fields::encode(self)],
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        fields::decode(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::account::{Account, NAMED_GROUPS};
    use crate::sys::shadow::Validity;

    fn root(groups: Vec<IdNumber>, validity: Option<Validity>) -> UserRecord {
        UserRecord {
            account: Account {
                name: "root".into(),
                uid: IdNumber::ROOT,
                gid: IdNumber::ROOT,
                groups,
                home: "/root".into(),
                shell: "/bin/sh".into(),
            },
            validity,
            named_groups: Some(vec!["wheel".into()]),
        }
    }

    #[test]
    fn start_messages_and_questions_round_trip() {
        let number = |n| IdNumber::new(n).unwrap();
        for user in [None, Some((number(7), number(8)))] {
            let begin = Begin { user, warm: true };
            assert_eq!(Begin::decode(&begin.encode()), Some(begin));
        }
        for question in [
            Question::User("jo".into(), Vec::new()),
            Question::User("jo".into(), vec!["g".repeat(255); NAMED_GROUPS]),
            Question::Number(7, vec!["wheel".into()]),
            Question::Host("hosta".into()),
        ] {
            let message = question.encode(9).unwrap();
            assert_eq!(Question::decode(&message), Some((9, question)));
        }
        for nobodys in ["", "a\0b", &"x".repeat(USER_NAME + 1)] {
            assert_eq!(Question::User(nobodys.into(), Vec::new()).encode(1), None);
            assert_eq!(Question::Host(nobodys.into()).encode(1), None);
        }
    }

    #[test]
    fn answers_round_trip() {
        let ready = Answer::Ready(Confined {
            user: true,
            landlock: false,
            seccomp: true,
            landlock_error: libc::ENOSYS,
            seccomp_error: 0,
        });
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap());
        for answer in [
            ready,
            Answer::User(1, Ok(None)),
            Answer::User(4, Err("no number".into())),
            Answer::Host(2, Ok(addresses.to_vec())),
            Answer::Host(3, Err("no such host".into())),
        ] {
            let messages = answer.encode();
            let [message] = &messages[..] else {
                panic!("several messages");
            };
            assert_eq!(Answer::decode(message), Some(answer));
        }
    }

    /// `(uid_t)-1` changes nothing in setresuid(2): a job of that user would be root.
    #[test]
    fn minus_one_is_decoded_nowhere() {
        const NUMBER: [u8; 4] = *b"\x01\xd5\xd5\xd5";
        let id = IdNumber::new(u32::from_be_bytes(NUMBER)).unwrap();
        let begin = Begin {
            user: Some((id, id)),
            warm: true,
        };
        let mut user = root(vec![id], None);
        (user.account.uid, user.account.gid) = (id, id);
        let user = Answer::User(1, Ok(Some(Box::new(user))));
        let groups = Answer::Groups(1, vec![id, id]);
        let is_begin: fn(&[u8]) -> bool = |m| Begin::decode(m).is_some();
        let is_answer: fn(&[u8]) -> bool = |m| Answer::decode(m).is_some();
        for (message, numbers, decodes) in [
            (begin.encode(), 2, is_begin),
            (user.encode().remove(0), 3, is_answer),
            (groups.encode().remove(0), 2, is_answer),
        ] {
            assert!(decodes(&message));
            let at = |at: &usize| message[*at..].starts_with(&NUMBER);
            let places: Vec<usize> = (0..message.len()).filter(at).collect();
            assert_eq!(places.len(), numbers);
            for at in places {
                let mut message = message.clone();
                message[at..at + 4].fill(0xff);
                assert!(!decodes(&message));
            }
        }
    }

    #[test]
    fn a_user_of_few_groups_takes_one_message() {
        for groups in [0, 1, FEW] {
            let groups = IdNumber::all(0..u32::try_from(groups).unwrap()).unwrap();
            let user = Answer::User(5, Ok(Some(Box::new(root(groups, None)))));
            let messages = user.encode();
            assert_eq!(messages.len(), 1);
            assert_eq!(Answer::decode(&messages[0]), Some(user));
        }
    }

    #[test]
    fn a_user_of_very_many_groups_takes_several_messages() {
        let validity = Validity {
            locked: true,
            expires: Some(20_000),
        };
        for (groups, validity) in [(FEW + 1, None), (MOST_GROUPS, Some(validity))] {
            let groups = IdNumber::all(0..u32::try_from(groups).unwrap()).unwrap();
            let whole = root(groups.clone(), validity);
            let mut messages = Answer::User(5, Ok(Some(Box::new(whole.clone())))).encode();
            let last = messages.pop().unwrap();
            let mut got = Vec::new();
            for message in messages {
                assert!(message.len() <= super::super::MESSAGE);
                let Some(Answer::Groups(5, some)) = Answer::decode(&message) else {
                    panic!("no groups");
                };
                got.extend(some);
            }
            assert_eq!(got, groups);
            let Some(Answer::User(5, Ok(Some(record)))) = Answer::decode(&last) else {
                panic!("no user");
            };
            assert_eq!(*record, root(Vec::new(), validity));
        }
    }
}
