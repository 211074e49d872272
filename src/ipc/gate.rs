//! Messages between gate and monitor about unauthenticated connections.
//!
//! The gate numbers its connections and never uses a number twice. The monitor trusts a message
//! only to come from this gate, and nothing that it says.

use std::net::IpAddr;

use super::fields::{fields, message};
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
    Rejected(Complaint, IpAddr),
}

/// Why the gate rejected a connection. A number, so that a compromised gate cannot write its own
/// text into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// Not this protocol: wrong magic, type or length, or out of order.
    Malformed,
    /// No Hello within its deadline.
    SilentHello,
    /// No ClientHello within its deadline.
    SilentHandshake,
    /// The peer hung up in the middle.
    Left,
    /// Too many unauthenticated connections: the oldest of the greediest source was evicted.
    Evicted,
    /// The source had no slot left.
    NoSlot,
    /// No answer to a prompt within its deadline.
    SilentLogin,
    /// The peer hung up before it had sent anything.
    Probe,
}

impl Complaint {
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

message!(enum Question<'a> {
    1 Hello(connection, from, record),
    2 ClientHello(connection, record),
    3 Sealed(connection, record),
    4 Gone(connection),
    5 Rejected(why, from),
    6 Empty,
    7 Left(connection),
});
fields!(enum Complaint {
    1 Malformed,
    2 SilentHello,
    3 SilentHandshake,
    4 Left,
    5 Evicted,
    6 NoSlot,
    7 SilentLogin,
    8 Probe,
});

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
    /// The connection is the relay's, or its peer has left: forget it.
    Forget(Connection),
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
    Listed,
    /// Networks that are never penalised.
    Exempt,
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

message!(enum Order<'a> {
    1 Limits(limits),
    2 Networks(list, first, networks),
    3 Listen,
    4 StopListening,
    5 Adopt,
    6 ServerHello(connection, record),
    7 Continue(connection, length, record),
    8 Forget(connection),
    9 Close(connection),
    10 Deny(connection, reference, penalty, checked),
    11 Prompt(connection, seconds, record),
    12 MayGo(connection, may),
});
fields!(enum List { 0 Listed, 1 Exempt });
fields!(struct Limits {
    hello,
    handshake,
    refusal,
    silent,
    silent_per_source,
    reserved,
    refusals,
    keep_alive,
    penalty_silent,
    penalty_malformed,
    penalty_min,
    penalty_max,
    penalty_sources,
});

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
            Question::Rejected(Complaint::Evicted, from),
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
