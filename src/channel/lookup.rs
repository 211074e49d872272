//! Monitor and look-up process: users, their groups, and the addresses of hosts.
//!
//! The monitor says once whom the process is to become ([`Begin`]), and then asks
//! [`Question`]s, each under a number of its own. The process reports its protections first,
//! and then answers in whatever order the answers come.

use std::net::{IpAddr, Ipv6Addr};

use super::fields::{Reader, Writer};
use crate::sys::account::{Account, UserRecord};
use crate::sys::confine::Confined;
use crate::sys::shadow::Validity;

/// Longest name of a user that is looked up, bytes.
pub const USER_NAME: usize = 256;
/// Longest name of a host, bytes.
pub const HOST_NAME: usize = 255;
/// Groups in one message. An account with more of them takes several, all but the last full.
pub const GROUPS: usize = 8_192;
/// Most groups of an account: the kernel takes no more.
pub const MOST_GROUPS: usize = 65_536;
/// Hosts that one process looks up at the same time.
pub const HOSTS: usize = 16;
/// Most addresses of a host that are taken.
pub const ADDRESSES: usize = 256;
/// Longest text that says why a look-up failed, bytes.
const WORDS: usize = 512;

/// The monitor's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The user and the group to become; `None`: it stays who it is.
    pub user: Option<(u32, u32)>,
    /// Whether to load the modules for users at once, before there is a question.
    pub warm: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The user of this name.
    User(String),
    /// The user of this number.
    Number(u32),
    /// The addresses of this host.
    Host(String),
}

/// What the process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is ready, and so protected.
    Ready(Confined),
    /// More groups of the user that the question of this number asks for.
    Groups(u64, Vec<u32>),
    /// The user, if there is one.
    User(u64, Option<Box<UserRecord>>),
    /// The host's addresses, or why there are none.
    Host(u64, Result<Vec<IpAddr>, String>),
    /// It could not be confined, and why; it ends.
    Failed(String),
}

impl Begin {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let w = Writer::new(100).number(self.warm.into());
        match self.user {
            None => w.done(),
            Some((uid, gid)) => w.number(uid.into()).number(gid.into()).done(),
        }
    }

    /// Parses a message; `None`: it is none.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (100, mut r) = Reader::new(message)? else {
            return None;
        };
        let warm = r.flag()?;
        let user = match r.is_done() {
            true => None,
            false => Some((r.number()?, r.number()?)),
        };
        r.done(Self { user, warm })
    }
}

impl Question {
    /// The message's bytes; `None`: there is no user or host of such a name.
    pub fn encode(&self, number: u64) -> Option<Vec<u8>> {
        let text = |kind, name: &str, most| {
            let is_name = !name.is_empty() && name.len() <= most && !name.contains('\0');
            is_name.then(|| {
                let w = Writer::new(kind).number(number);
                w.bytes(name.as_bytes()).done()
            })
        };
        match self {
            Self::User(name) => text(1, name, USER_NAME),
            Self::Number(uid) => {
                let w = Writer::new(2).number(number);
                Some(w.number((*uid).into()).done())
            }
            Self::Host(name) => text(3, name, HOST_NAME),
        }
    }

    /// Parses a message: its number, and what is asked. `None`: it is none.
    pub fn decode(message: &[u8]) -> Option<(u64, Self)> {
        let (kind, mut r) = Reader::new(message)?;
        let number = r.number()?;
        let question = match kind {
            1 => Self::User(r.text()?),
            2 => Self::Number(r.number()?),
            3 => Self::Host(r.text()?),
            _ => return None,
        };
        r.done((number, question))
    }
}

impl Answer {
    /// The messages' bytes: one, but for a user of very many groups.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Ready(c) => {
                let all = [c.user, c.landlock, c.seccomp].map(u8::from);
                let error = |errno: i32| u64::try_from(errno).unwrap_or(0);
                let w = Writer::new(1)
                    .bytes(&all)
                    .number(error(c.landlock_error))
                    .number(error(c.seccomp_error));
                vec![w.done()]
            }
            Self::Groups(number, groups) => vec![encode_groups(*number, groups)],
            Self::User(number, None) => vec![Writer::new(3).number(*number).done()],
            Self::User(number, Some(record)) => encode_user(*number, record),
            Self::Host(number, Ok(addresses)) => {
                let mut bytes = Vec::new();
                for address in addresses.iter().take(ADDRESSES) {
                    bytes.extend_from_slice(&octets(*address));
                }
                vec![Writer::new(4).number(*number).bytes(&bytes).done()]
            }
            Self::Host(number, Err(why)) => {
                let why: String = why.chars().take(WORDS / 4).collect();
                let w = Writer::new(5).number(*number);
                vec![w.bytes(why.as_bytes()).done()]
            }
            Self::Failed(why) => {
                let why: String = why.chars().take(WORDS / 4).collect();
                vec![Writer::new(6).bytes(why.as_bytes()).done()]
            }
        }
    }

    /// Parses a message; `None`: it is none.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        if kind == 1 {
            let [user, landlock, seccomp] = r.array::<3>()?.map(|b| b != 0);
            let (landlock_error, seccomp_error) = (r.number()?, r.number()?);
            return r.done(Self::Ready(Confined {
                user,
                landlock,
                seccomp,
                landlock_error,
                seccomp_error,
            }));
        }
        if kind == 6 {
            let why = r.text()?;
            return r.done(Self::Failed(why));
        }
        let number = r.number()?;
        let answer = match kind {
            2 => Self::Groups(number, decode_groups(r.bytes()?)?),
            3 if r.is_done() => Self::User(number, None),
            3 => Self::User(number, Some(Box::new(decode_user(&mut r)?))),
            4 => Self::Host(number, Ok(decode_addresses(r.bytes()?)?)),
            5 => Self::Host(number, Err(r.text()?)),
            _ => return None,
        };
        r.done(answer)
    }
}

fn encode_groups(number: u64, groups: &[u32]) -> Vec<u8> {
    let bytes: Vec<u8> = groups.iter().flat_map(|g| g.to_be_bytes()).collect();
    let w = Writer::sized(2, bytes.len() + 32);
    w.number(number).bytes(&bytes).done()
}

fn decode_groups(bytes: &[u8]) -> Option<Vec<u32>> {
    // None at all is said by no message: so that only so many can come.
    if bytes.is_empty() || bytes.len() % 4 != 0 || bytes.len() > GROUPS * 4 {
        return None;
    }
    let each = bytes.chunks_exact(4).map(|four| four.try_into().ok());
    each.map(|four| four.map(u32::from_be_bytes)).collect()
}

/// The groups first, and then the account without them.
fn encode_user(number: u64, record: &UserRecord) -> Vec<Vec<u8>> {
    let groups = record.account.groups.chunks(GROUPS);
    let mut messages: Vec<Vec<u8>> = groups.map(|g| encode_groups(number, g)).collect();
    let account = Account {
        groups: Vec::new(),
        ..record.account.clone()
    };
    let w = Writer::new(3).number(number).bytes(&account.to_bytes());
    messages.push(match record.validity {
        None => w.done(),
        Some(v) => {
            let w = w.number(v.locked.into()).number(v.expires.is_some().into());
            w.number(v.expires.unwrap_or(0)).done()
        }
    });
    messages
}

fn decode_user(r: &mut Reader<'_>) -> Option<UserRecord> {
    let account = Account::from_bytes(r.bytes()?)?;
    if r.is_done() {
        return Some(UserRecord {
            account,
            validity: None,
        });
    }
    let locked = r.flag()?;
    let (expires, day) = (r.flag()?, r.number()?);
    let validity = Some(Validity {
        locked,
        expires: expires.then_some(day),
    });
    Some(UserRecord { account, validity })
}

/// Every address in 16 bytes, IPv4's mapped.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn decode_addresses(bytes: &[u8]) -> Option<Vec<IpAddr>> {
    if bytes.len() % 16 != 0 || bytes.len() > ADDRESSES * 16 {
        return None;
    }
    let each = bytes.chunks_exact(16).map(|b| <[u8; 16]>::try_from(b).ok());
    let each = each.map(|b| b.map(|b| IpAddr::V6(Ipv6Addr::from(b)).to_canonical()));
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(groups: Vec<u32>, validity: Option<Validity>) -> UserRecord {
        UserRecord {
            account: Account {
                name: "root".into(),
                uid: 0,
                gid: 0,
                groups,
                home: "/root".into(),
                shell: "/bin/sh".into(),
            },
            validity,
        }
    }

    #[test]
    fn beginnings_and_questions_there_and_back() {
        for user in [None, Some((7, 8))] {
            let begin = Begin { user, warm: true };
            assert_eq!(Begin::decode(&begin.encode()), Some(begin));
        }
        for question in [
            Question::User("jo".into()),
            Question::Number(7),
            Question::Host("hosta".into()),
        ] {
            let message = question.encode(9).unwrap();
            assert_eq!(Question::decode(&message), Some((9, question)));
        }
        for nobodys in ["", "a\0b", &"x".repeat(USER_NAME + 1)] {
            assert_eq!(Question::User(nobodys.into()).encode(1), None);
            assert_eq!(Question::Host(nobodys.into()).encode(1), None);
        }
    }

    #[test]
    fn answers_there_and_back() {
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
            Answer::User(1, None),
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

    #[test]
    fn a_user_of_very_many_groups_takes_several_messages() {
        let validity = Validity {
            locked: true,
            expires: Some(20_000),
        };
        for (groups, validity) in [(3, None), (MOST_GROUPS, Some(validity))] {
            let groups: Vec<u32> = (0..u32::try_from(groups).unwrap()).collect();
            let whole = root(groups.clone(), validity);
            let mut messages = Answer::User(5, Some(Box::new(whole.clone()))).encode();
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
            let Some(Answer::User(5, Some(record))) = Answer::decode(&last) else {
                panic!("no user");
            };
            assert_eq!(*record, root(Vec::new(), validity));
        }
    }
}
