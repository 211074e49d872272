//! What gate and monitor say to each other about strangers.
//!
//! The gate numbers its connections; a number is never used twice by one gate.
//! The monitor believes nothing of it but that these bytes came from this gate.

use std::net::IpAddr;

use super::fields::{Reader, Writer};
use crate::protocol::answer::Reference;

/// A connection's number, given by the gate.
pub type Connection = u64;

/// Gate to monitor.
#[derive(Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// A whole Hello record came in. The address is for the log alone.
    Hello(Connection, IpAddr, &'a [u8]),
    /// A whole ClientHello record came in. With it: a copy of the socket.
    ClientHello(Connection, &'a [u8]),
    /// A whole Sealed record came in, after AuthContinue.
    Sealed(Connection, &'a [u8]),
    /// A connection that the monitor knows is over.
    Gone(Connection),
    /// Its peer has hung up, or must, before the monitor has decided. What it has sent is still
    /// to be judged, and the gate keeps its slot until the monitor says what becomes of it.
    Left(Connection),
    /// Nobody is left, and nobody can come: there are no listeners.
    Empty,
    /// A stranger was turned away by the gate itself: for the log.
    TurnedAway(Complaint, IpAddr),
}

/// Why the gate turned a stranger away. A number on the channel, so that a gate
/// taken over cannot write its own words into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// Not this protocol: wrong magic, type, length, or out of turn.
    Malformed = 1,
    /// No Hello within its deadline.
    SilentHello = 2,
    /// No ClientHello within its deadline.
    SilentHandshake = 3,
    /// It hung up in the middle.
    Left = 4,
    /// Too many strangers: the oldest of the greediest source had to go.
    Crowd = 5,
    /// Its source had no slot left.
    NoSlot = 6,
    /// No answer to a prompt within its deadline.
    SilentLogin = 7,
    /// It hung up before it had said anything.
    Probe = 8,
}

impl Complaint {
    const ALL: [Self; 8] = [
        Self::Malformed,
        Self::SilentHello,
        Self::SilentHandshake,
        Self::Left,
        Self::Crowd,
        Self::NoSlot,
        Self::SilentLogin,
        Self::Probe,
    ];

    /// The stable name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::SilentHello => "no-hello",
            Self::SilentHandshake => "no-handshake",
            // Of the latter no line is written.
            Self::Left | Self::Probe => "left",
            Self::Crowd => "crowd",
            Self::NoSlot => "no-slot",
            Self::SilentLogin => "no-answer",
        }
    }
}

impl<'a> Question<'a> {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(c, from, r) => Writer::new(1)
                .number(*c)
                .bytes(&ip_bytes(*from))
                .bytes(r)
                .done(),
            Self::ClientHello(c, r) => Writer::new(2).number(*c).bytes(r).done(),
            Self::Sealed(c, r) => Writer::new(3).number(*c).bytes(r).done(),
            Self::Gone(c) => Writer::new(4).number(*c).done(),
            Self::Empty => Writer::new(6).done(),
            Self::Left(c) => Writer::new(7).number(*c).done(),
            Self::TurnedAway(why, from) => Writer::new(5)
                .number(*why as u64)
                .bytes(&ip_bytes(*from))
                .done(),
        }
    }

    /// Parses a message; `None`: it is none.
    pub fn decode(message: &'a [u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let question = match kind {
            1 => Self::Hello(r.number()?, ip(r.bytes()?)?, r.bytes()?),
            2 => Self::ClientHello(r.number()?, r.bytes()?),
            3 => Self::Sealed(r.number()?, r.bytes()?),
            4 => Self::Gone(r.number()?),
            5 => {
                let why: u64 = r.number()?;
                let why = Complaint::ALL.into_iter().find(|c| *c as u64 == why)?;
                Self::TurnedAway(why, ip(r.bytes()?)?)
            }
            6 => Self::Empty,
            7 => Self::Left(r.number()?),
            _ => return None,
        };
        r.done(question)
    }
}

/// Monitor to gate.
#[derive(Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// The limits to keep from now on. The first message to a gate.
    Limits(Limits),
    /// Networks of one list, as address and prefix length. `true`: these are the
    /// first, forget what was said before.
    Networks(List, bool, Vec<(IpAddr, u8)>),
    /// Accept from these listening sockets, which come with the message.
    Listen,
    /// Accept no more.
    StopListening,
    /// Take this connection, which comes with the message, as if accepted (inetd).
    Adopt,
    /// Send this ServerHello record.
    ServerHello(Connection, &'a [u8]),
    /// Send this record; then Sealed records come with a command of so many bytes.
    Continue(Connection, u32, &'a [u8]),
    /// Send this record, a prompt; one Sealed record is due within so many seconds.
    Prompt(Connection, u32, &'a [u8]),
    /// The relay has it: forget it.
    Taken(Connection),
    /// Close it without a word; it did not speak the protocol.
    Close(Connection),
    /// Refuse it when its time has come; the source's penalty, seconds; and how long
    /// ago PAM began with the check that came to this, milliseconds; 0: it had none.
    Deny(Connection, Reference, u32, u32),
    /// It waits for a look-up, with nothing proven. `true`: it may be evicted meanwhile;
    /// `false`: the look-up is over, and it awaits its verdict as others do.
    MayGo(Connection, bool),
}

/// Which list of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// HOSTINFO lists them: slots are reserved for them.
    Listed = 0,
    /// They are never penalised.
    Exempt = 1,
}

/// The limits that the gate keeps. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For the Hello.
    pub hello: u32,
    /// For the ClientHello after it.
    pub handshake: u32,
    /// Between refusals: they leave at its multiples.
    pub refusal: u32,
    /// Strangers in all.
    pub silent: u32,
    /// Strangers of one source.
    pub silent_per_source: u32,
    /// Of all strangers, how many must be of sources that HOSTINFO lists.
    pub reserved: u32,
    /// Refusals that may be parked.
    pub refusals: u32,
    /// Probe of a silent peer.
    pub keep_alive: u32,
    /// Penalty of a stranger who said nothing.
    pub penalty_silent: u32,
    /// Penalty of one who did not speak the protocol.
    pub penalty_malformed: u32,
    /// Penalty from which on a source is down to one slot.
    pub penalty_min: u32,
    /// Most that penalties can add up to.
    pub penalty_max: u32,
    /// Sources whose penalties are remembered.
    pub penalty_sources: u32,
}

#[cfg(test)]
impl Limits {
    /// Few slots and long times, for the tests of whoever keeps them.
    pub(crate) const FEW: Self = Self {
        hello: 10,
        handshake: 20,
        refusal: 2,
        silent: 4,
        silent_per_source: 3,
        reserved: 1,
        refusals: 10,
        keep_alive: 60,
        penalty_silent: 10,
        penalty_malformed: 10,
        penalty_min: 15,
        penalty_max: 600,
        penalty_sources: 100,
    };
}

impl<'a> Order<'a> {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Limits(l) => l
                .fields()
                .into_iter()
                .fold(Writer::new(1), |w, n| w.number(n.into()))
                .done(),
            Self::Networks(list, first, networks) => {
                let w = Writer::new(2)
                    .number(*list as u64)
                    .number(u64::from(*first));
                let put = |w: Writer, (ip, n): &(IpAddr, u8)| {
                    w.bytes(&ip_bytes(*ip)).number(u64::from(*n))
                };
                networks.iter().fold(w, put).done()
            }
            Self::Listen => Writer::new(3).done(),
            Self::StopListening => Writer::new(4).done(),
            Self::Adopt => Writer::new(5).done(),
            Self::ServerHello(c, r) => Writer::new(6).number(*c).bytes(r).done(),
            Self::Continue(c, n, r) => Writer::new(7)
                .number(*c)
                .number(u64::from(*n))
                .bytes(r)
                .done(),
            Self::Prompt(c, n, r) => Writer::new(11)
                .number(*c)
                .number(u64::from(*n))
                .bytes(r)
                .done(),
            Self::MayGo(c, may) => Writer::new(12).number(*c).number(u64::from(*may)).done(),
            Self::Taken(c) => Writer::new(8).number(*c).done(),
            Self::Close(c) => Writer::new(9).number(*c).done(),
            Self::Deny(c, r, s, ago) => Writer::new(10)
                .number(*c)
                .bytes(&r.0)
                .number(u64::from(*s))
                .number(u64::from(*ago))
                .done(),
        }
    }

    /// Parses a message; `None`: it is none.
    pub fn decode(message: &'a [u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let order = match kind {
            1 => Self::Limits(Limits::from_fields(&mut r)?),
            2 => {
                let list = match r.number::<u8>()? {
                    0 => List::Listed,
                    1 => List::Exempt,
                    _ => return None,
                };
                let first = r.number::<u8>()? != 0;
                let mut networks = Vec::new();
                while !r.is_done() {
                    networks.push((ip(r.bytes()?)?, r.number()?));
                }
                Self::Networks(list, first, networks)
            }
            3 => Self::Listen,
            4 => Self::StopListening,
            5 => Self::Adopt,
            6 => Self::ServerHello(r.number()?, r.bytes()?),
            7 => Self::Continue(r.number()?, r.number()?, r.bytes()?),
            11 => Self::Prompt(r.number()?, r.number()?, r.bytes()?),
            8 => Self::Taken(r.number()?),
            9 => Self::Close(r.number()?),
            12 => Self::MayGo(r.number()?, r.number::<u8>()? != 0),
            10 => Self::Deny(r.number()?, Reference(r.array()?), r.number()?, r.number()?),
            _ => return None,
        };
        r.done(order)
    }
}

impl Limits {
    const fn fields(&self) -> [u32; 13] {
        [
            self.hello,
            self.handshake,
            self.refusal,
            self.silent,
            self.silent_per_source,
            self.reserved,
            self.refusals,
            self.keep_alive,
            self.penalty_silent,
            self.penalty_malformed,
            self.penalty_min,
            self.penalty_max,
            self.penalty_sources,
        ]
    }

    fn from_fields(r: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            hello: r.number()?,
            handshake: r.number()?,
            refusal: r.number()?,
            silent: r.number()?,
            silent_per_source: r.number()?,
            reserved: r.number()?,
            refusals: r.number()?,
            keep_alive: r.number()?,
            penalty_silent: r.number()?,
            penalty_malformed: r.number()?,
            penalty_min: r.number()?,
            penalty_max: r.number()?,
            penalty_sources: r.number()?,
        })
    }
}

fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_orders_there_and_back() {
        let from = "2001:db8::1".parse().unwrap();
        let questions = [
            Question::Hello(1, from, b"record"),
            Question::ClientHello(u64::MAX, b""),
            Question::Sealed(3, b"x"),
            Question::Gone(4),
            Question::Left(5),
            Question::Empty,
            Question::TurnedAway(Complaint::Crowd, from),
        ];
        for q in questions {
            let bytes = q.encode();
            assert_eq!(Question::decode(&bytes), Some(q));
            assert_eq!(Question::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Question::decode(&[&bytes[..], &[0]].concat()), None);
        }
        let orders = [
            Order::Networks(
                List::Listed,
                true,
                vec![(from, 64), ("192.0.2.1".parse().unwrap(), 32)],
            ),
            Order::Listen,
            Order::ServerHello(6, b"record"),
            Order::Deny(7, Reference([9; 8]), 5, 43),
            Order::MayGo(8, true),
        ];
        for o in orders {
            assert_eq!(Order::decode(&o.encode()), Some(o));
        }
    }
}
