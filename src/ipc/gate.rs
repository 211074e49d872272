//! Messages between gate and monitor about unauthenticated connections.
//!
//! The gate numbers its connections and never uses a number twice. The monitor trusts a message
//! only to come from this gate, and nothing that it says.

use std::net::IpAddr;

use super::fields::{Reader, Writer};
use crate::protocol::answer::Reference;

/// A connection's number, assigned by the gate.
pub type Connection = u64;

/// A message of the gate to the monitor.
#[derive(Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// A whole Hello record came in. The address is only for the log.
    Hello(Connection, IpAddr, &'a [u8]),
    /// A whole ClientHello record came in. A copy of the socket comes with it.
    ClientHello(Connection, &'a [u8]),
    /// A whole Sealed record came in, after AuthContinue.
    Sealed(Connection, &'a [u8]),
    /// A connection that the monitor knows is over.
    Gone(Connection),
    /// The peer has hung up, or must, before the monitor has decided. The monitor still decides
    /// about what it has sent, and the gate keeps the slot until the monitor orders what to do.
    Left(Connection),
    /// No connection is left, and none can come: there are no listeners.
    Empty,
    /// The gate itself rejected a connection: for the log.
    TurnedAway(Complaint, IpAddr),
}

/// Why the gate rejected a connection. A number, so that a compromised gate cannot write its own
/// text into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// Not this protocol: wrong magic, type or length, or out of order.
    Malformed = 1,
    /// No Hello within its deadline.
    SilentHello = 2,
    /// No ClientHello within its deadline.
    SilentHandshake = 3,
    /// The peer hung up in the middle.
    Left = 4,
    /// Too many unauthenticated connections: the oldest of the greediest source was evicted.
    Evicted = 5,
    /// The source had no slot left.
    NoSlot = 6,
    /// No answer to a prompt within its deadline.
    SilentLogin = 7,
    /// The peer hung up before it had sent anything.
    Probe = 8,
}

impl Complaint {
    const ALL: [Self; 8] = [
        Self::Malformed,
        Self::SilentHello,
        Self::SilentHandshake,
        Self::Left,
        Self::Evicted,
        Self::NoSlot,
        Self::SilentLogin,
        Self::Probe,
    ];

    /// Returns the stable name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::SilentHello => "no-hello",
            Self::SilentHandshake => "no-handshake",
            // A `Probe` is not logged.
            Self::Left | Self::Probe => "left",
            Self::Evicted => "evicted",
            Self::NoSlot => "no-slot",
            Self::SilentLogin => "no-answer",
        }
    }
}

impl<'a> Question<'a> {
    /// Encodes the message.
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

    /// Parses a message. Returns `None` if it is malformed.
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

/// A message of the monitor to the gate.
#[derive(Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// The limits from now on. The first message to a gate.
    Limits(Limits),
    /// Networks of one list, as address and prefix length. `true`: these are the first and replace
    /// the earlier ones.
    Networks(List, bool, Vec<(IpAddr, u8)>),
    /// Accept from these listening sockets, which come with the message.
    Listen,
    /// Stop accepting.
    StopListening,
    /// Take this connection, which comes with the message, as if accepted (inetd).
    Adopt,
    /// Send this ServerHello record.
    ServerHello(Connection, &'a [u8]),
    /// Send this record; Sealed records with a command of this many bytes follow.
    Continue(Connection, u32, &'a [u8]),
    /// Send this record, a prompt; one Sealed record is due within this many seconds.
    Prompt(Connection, u32, &'a [u8]),
    /// The relay has the connection: forget it.
    Taken(Connection),
    /// Close the connection without an answer: the peer did not speak the protocol.
    Close(Connection),
    /// Refuse the connection when the refusal is due. The numbers are the source's penalty in
    /// seconds, and how many milliseconds ago PAM began the check that led to this; 0: there was no
    /// check.
    Deny(Connection, Reference, u32, u32),
    /// The connection waits for a look-up and is not authenticated. `true`: it may be evicted.
    /// `false`: the look-up is over, and it waits for the decision as others do.
    MayGo(Connection, bool),
}

/// A list of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Networks of sources that HOSTINFO lists: slots are reserved for them.
    Listed = 0,
    /// Networks that are never penalised.
    Exempt = 1,
}

/// The limits that the gate enforces. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time for the Hello.
    pub hello: u32,
    /// Time for the ClientHello after it.
    pub handshake: u32,
    /// Interval of refusals: they leave at its multiples.
    pub refusal: u32,
    /// Most unauthenticated connections.
    pub silent: u32,
    /// Most unauthenticated connections of one source.
    pub silent_per_source: u32,
    /// How many of all slots are reserved for sources that HOSTINFO lists.
    pub reserved: u32,
    /// Most refusals that may be parked.
    pub refusals: u32,
    /// When to probe a silent peer.
    pub keep_alive: u32,
    /// Penalty for a peer that sent nothing in time.
    pub penalty_silent: u32,
    /// Penalty for a peer that did not speak the protocol.
    pub penalty_malformed: u32,
    /// Penalty from which on a source has only one slot.
    pub penalty_min: u32,
    /// Maximum that penalties can add up to.
    pub penalty_max: u32,
    /// Sources whose penalties are remembered.
    pub penalty_sources: u32,
}

#[cfg(test)]
impl Limits {
    /// Few slots and long times, for tests.
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
    /// Encodes the message.
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

    /// Parses a message. Returns `None` if it is malformed.
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
    fn questions_and_orders_round_trip() {
        let from = "2001:db8::1".parse().unwrap();
        let questions = [
            Question::Hello(1, from, b"record"),
            Question::ClientHello(u64::MAX, b""),
            Question::Sealed(3, b"x"),
            Question::Gone(4),
            Question::Left(5),
            Question::Empty,
            Question::TurnedAway(Complaint::Evicted, from),
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
