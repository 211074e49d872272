//! Messages between monitor and look-up process: users, their groups, and the addresses of hosts.
//!
//! The monitor first sends which user the process is to become ([`Begin`]), then [`Question`]s,
//! each with its own number. The process first reports its sandbox status, then sends each answer
//! as soon as it is found, in any order.

use std::net::{IpAddr, Ipv6Addr};

use super::fields::{Reader, Writer};
use crate::sys::account::{Account, UserRecord};
use crate::sys::confine::Confined;
use crate::sys::id_number::IdNumber;
use crate::sys::shadow::Validity;

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
/// Hosts that one process looks up at the same time.
pub const HOSTS: usize = 16;
/// Most addresses of one host.
pub const ADDRESSES: usize = 256;
/// Longest reason why a look-up failed, bytes.
const WORDS: usize = 512;

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
    /// The user of this name.
    User(String),
    /// The user of this uid.
    Number(u32),
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

impl Begin {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        let w = Writer::new(100).number(self.warm.into());
        match self.user {
            None => w.done(),
            Some((uid, gid)) => w.number(uid.into()).number(gid.into()).done(),
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (100, mut r) = Reader::new(message)? else {
            return None;
        };
        let warm = r.flag()?;
        let user = match r.is_done() {
            true => None,
            false => Some((r.id_number()?, r.id_number()?)),
        };
        r.done(Self { user, warm })
    }
}

impl Question {
    /// Encodes the message. Returns `None` if no user or host can have such a name.
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

    /// Parses a message: its number and the question. Returns `None` if it is malformed.
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
    /// Encodes the answer: one message, or several for a user with many groups.
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
            Self::User(number, Ok(None)) => vec![Writer::new(3).number(*number).done()],
            Self::User(number, Ok(Some(record))) => encode_user(*number, record),
            Self::User(number, Err(why)) => vec![encode_why(7, *number, why)],
            Self::Host(number, Ok(addresses)) => {
                let mut bytes = Vec::new();
                for address in addresses.iter().take(ADDRESSES) {
                    bytes.extend_from_slice(&octets(*address));
                }
                vec![Writer::new(4).number(*number).bytes(&bytes).done()]
            }
            Self::Host(number, Err(why)) => vec![encode_why(5, *number, why)],
            Self::Failed(why) => {
                let why: String = why.chars().take(WORDS / 4).collect();
                vec![Writer::new(6).bytes(why.as_bytes()).done()]
            }
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
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
            3 if r.is_done() => Self::User(number, Ok(None)),
            3 => Self::User(number, Ok(Some(Box::new(decode_user(&mut r)?)))),
            4 => Self::Host(number, Ok(decode_addresses(r.bytes()?)?)),
            5 => Self::Host(number, Err(r.text()?)),
            7 => Self::User(number, Err(r.text()?)),
            _ => return None,
        };
        r.done(answer)
    }
}

fn encode_why(kind: u8, number: u64, why: &str) -> Vec<u8> {
    let why: String = why.chars().take(WORDS / 4).collect();
    let w = Writer::new(kind).number(number);
    w.bytes(why.as_bytes()).done()
}

fn encode_groups(number: u64, groups: &[IdNumber]) -> Vec<u8> {
    let bytes: Vec<u8> = groups.iter().flat_map(|g| g.get().to_be_bytes()).collect();
    let w = Writer::sized(2, bytes.len() + 32);
    w.number(number).bytes(&bytes).done()
}

fn decode_groups(bytes: &[u8]) -> Option<Vec<IdNumber>> {
    // A message with no groups is rejected, which bounds the number of messages.
    if bytes.is_empty() || bytes.len() % 4 != 0 || bytes.len() > GROUPS * 4 {
        return None;
    }
    let each = bytes.chunks_exact(4).map(|four| four.try_into().ok());
    each.map(|four| IdNumber::new(u32::from_be_bytes(four?)))
        .collect()
}

/// Encodes an account with its groups. Many groups go first, in messages of their own, and the
/// account follows without them.
fn encode_user(number: u64, record: &UserRecord) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut account = record.account.clone();
    if account.groups.len() > FEW {
        let groups = std::mem::take(&mut account.groups);
        let groups = groups.chunks(GROUPS);
        messages.extend(groups.map(|g| encode_groups(number, g)));
    }
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

/// Returns an address as 16 bytes, IPv4 as IPv4-mapped.
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
        let minus_one = u64::from(u32::MAX);
        for (uid, gid) in [(minus_one, 7), (7, minus_one)] {
            let w = Writer::new(100).number(1).number(uid).number(gid);
            assert_eq!(Begin::decode(&w.done()), None);
            let text = format!("jo\0{uid}\0{gid}\0\0/\0/bin/sh");
            assert_eq!(Account::from_bytes(text.as_bytes()), None);
            let w = Writer::new(3).number(1).bytes(text.as_bytes());
            assert_eq!(Answer::decode(&w.done()), None);
        }
        let groups = [7_u32, u32::MAX].map(u32::to_be_bytes).concat();
        let w = Writer::new(2).number(1).bytes(&groups);
        assert_eq!(Answer::decode(&w.done()), None);
        assert_eq!(
            Account::from_bytes(b"jo\x007\x007\x007,4294967295\0/\0/"),
            None
        );
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
