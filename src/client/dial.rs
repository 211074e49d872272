//! Connecting: tries the addresses of a host in order, each with its time limit, and sends the
//! Hello as soon as one of them answers.
//!
//! Runs in the client. Owns the socket until it is connected. Must not resolve a name, and must not
//! send anything but the Hello.
//!
//! Connecting starts before anything else, so that the network and the server work while the client
//! detects the CPU's features and reads its keys.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::call::{Call, ConnectTime};
use super::inbox::is_for_later;
use super::io_error::text_without_number;
use super::jump::{Jump, Peer};
use crate::fault::Fault;
use crate::sys::socket::{notice_loss, prepare};

pub(super) const REFUSED: &str = "connection refused";
/// What to check if the port that refused should be cosserver's.
pub(super) const IS_IT_THERE: &str = "; is cosserver running there, and is this its port?";

/// The time limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long connecting may take.
    pub connect: ConnectTime,
    /// An unreachable host is detected within twice this many seconds (0: never).
    pub keep_alive: u32,
}

impl Times {
    /// Returns the limits that the command line sets.
    pub const fn of(call: &Call) -> Self {
        Self {
            connect: call.connect_timeout,
            keep_alive: call.keep_alive,
        }
    }

    /// How long one address, or the host's hello, may take.
    const fn each(&self) -> Duration {
        match self.connect {
            ConnectTime::Each(time) | ConnectTime::Together(time) => time,
        }
    }
}

/// A connection that is being made.
pub struct Dialing<'a> {
    times: Times,
    /// When everything must be done, including the host's hello, if the user has set a limit.
    until: Option<Instant>,
    left: std::slice::Iter<'a, SocketAddr>,
    /// The source addresses, if given: one for each family.
    sources: &'a [SocketAddr],
    attempt: Option<Attempt>,
    /// Whether the port need not be cosserver's.
    any_port: bool,
    /// Why the attempts failed, each reason with its addresses.
    failures: Vec<(String, Vec<SocketAddr>)>,
}

/// An established connection, with the Hello sent.
pub struct Dialed {
    /// The socket; nonblocking.
    pub socket: TcpStream,
    /// The peer.
    pub peer: Peer,
    /// What carries the connection, if it goes through other hosts.
    pub jump: Option<Jump>,
    timeout: Duration,
    until: Option<Instant>,
}

impl Dialed {
    /// Returns a connection over this established socket.
    #[cfg(test)]
    pub(super) const fn of(socket: TcpStream, address: SocketAddr, timeout: Duration) -> Self {
        Self {
            socket,
            peer: Peer::At(address),
            jump: None,
            timeout,
            until: None,
        }
    }

    /// Returns a connection through other hosts, with this limit for the hello.
    pub(super) const fn through(
        socket: TcpStream,
        peer: Peer,
        jump: Jump,
        timeout: Duration,
        until: Option<Instant>,
    ) -> Self {
        Self {
            socket,
            peer,
            jump: Some(jump),
            timeout,
            until,
        }
    }

    /// How long the host's hello may take.
    pub fn time_for_hello(&self) -> Duration {
        self.until.map_or(self.timeout, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }
}

struct Attempt {
    socket: TcpStream,
    address: SocketAddr,
    until: Instant,
    /// The time that the attempt has in all.
    time: Duration,
    keep_alive: u32,
    greeted: bool,
}

impl<'a> Dialing<'a> {
    /// Starts to connect to the first address that does not fail at once. Each address has its own
    /// time limit. If the user has set the limit, it covers all addresses and the host's hello.
    pub fn begin(addresses: &'a [SocketAddr], times: Times) -> Self {
        Self::begin_from(addresses, &[], times)
    }

    /// As [`Self::begin`], from the one of these source addresses that is of the same family, if
    /// any are given.
    pub fn begin_from(
        addresses: &'a [SocketAddr],
        sources: &'a [SocketAddr],
        times: Times,
    ) -> Self {
        let left = addresses.iter();
        let until = match times.connect {
            ConnectTime::Each(_) => None,
            ConnectTime::Together(time) => Instant::now().checked_add(time),
        };
        let mut dialing = Self {
            times,
            until,
            left,
            sources,
            attempt: None,
            any_port: false,
            failures: Vec::new(),
        };
        dialing.go_on();
        dialing
    }

    /// Allows a port that need not be cosserver's.
    pub fn to_any_port(self) -> Self {
        Self {
            any_port: true,
            ..self
        }
    }

    /// Sends the Hello if the connection is already established.
    pub fn greet(&mut self, hello: &[u8]) {
        if let Some(mut attempt) = self.attempt.take() {
            match attempt.greet(hello) {
                Ok(()) => self.attempt = Some(attempt),
                Err(e) => {
                    self.note(attempt.address, why(&e, attempt.time));
                    self.go_on();
                }
            }
        }
    }

    /// Waits until the connection is established, trying one address after the other, and sends the
    /// Hello.
    ///
    /// # Errors
    /// No address answered; the fault gives the reason for each.
    pub fn finish(mut self, hello: &[u8]) -> Result<Dialed, Fault> {
        while let Some(mut attempt) = self.attempt.take() {
            match attempt.finish(hello) {
                Ok(()) => {
                    return Ok(Dialed {
                        socket: attempt.socket,
                        peer: Peer::At(attempt.address),
                        jump: None,
                        timeout: self.times.each(),
                        until: self.until,
                    });
                }
                Err(e) => self.note(attempt.address, why(&e, attempt.time)),
            }
            self.go_on();
        }
        Err(self.fault())
    }

    fn go_on(&mut self) {
        while self.attempt.is_none() {
            let Some(address) = self.left.next() else {
                return;
            };
            if self.until.is_some_and(|until| until <= Instant::now()) {
                self.note(*address, "not tried, no time was left".to_owned());
                continue;
            }
            match Attempt::begin(*address, self.sources, self.times, self.until) {
                Ok(attempt) => self.attempt = Some(attempt),
                Err(e) => self.note(*address, why(&e, Duration::ZERO)),
            }
        }
    }

    fn note(&mut self, address: SocketAddr, why: String) {
        match self.failures.iter_mut().find(|(other, _)| *other == why) {
            Some((_, addresses)) => addresses.push(address),
            None => self.failures.push((why, vec![address])),
        }
    }

    /// Returns why there is no connection, for each of the addresses.
    fn fault(self) -> Fault {
        let failures = self.failures.into_iter().map(|(why, addresses)| {
            let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            let hint = match why == REFUSED && !self.any_port {
                true => IS_IT_THERE,
                false => "",
            };
            format!("{}: {why}{hint}", addresses.join(", "))
        });
        Fault::new(failures.collect::<Vec<_>>().join("; "))
    }
}

/// Returns why an attempt with this time limit failed.
fn why(e: &io::Error, time: Duration) -> String {
    if e.kind() == io::ErrorKind::ConnectionRefused {
        return REFUSED.to_owned();
    }
    // Our own timeout, not the system's.
    if e.kind() == io::ErrorKind::TimedOut && e.raw_os_error().is_none() {
        return format!("no answer within {} s; is the host up?", seconds(time));
    }
    text_without_number(e)
}

/// Formats seconds for the user: with tenths below ten.
fn seconds(time: Duration) -> String {
    let tenths = time.as_millis().saturating_add(50) / 100;
    match (tenths / 10, tenths % 10) {
        (whole, part @ 1..) if whole < 10 => format!("{whole}.{part}"),
        (whole, _) => whole.to_string(),
    }
}

impl Attempt {
    fn begin(
        address: SocketAddr,
        sources: &[SocketAddr],
        times: Times,
        until: Option<Instant>,
    ) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, None)?;
        prepare(fd.as_fd())?;
        if !sources.is_empty() {
            let of_family = |s: &&SocketAddr| s.is_ipv4() == address.is_ipv4();
            let source = sources.iter().find(of_family);
            let source =
                source.ok_or_else(|| io::Error::other("no source address of its family"))?;
            bind(fd.as_raw_fd(), &SockaddrStorage::from(*source))
                .map_err(|e| io::Error::other(format!("from {}: {}", source.ip(), e.desc())))?;
        }
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let now = Instant::now();
        let until = until.unwrap_or_else(|| now.checked_add(times.each()).unwrap_or(now));
        Ok(Self {
            socket: fd.into(),
            address,
            until,
            time: until.saturating_duration_since(now),
            keep_alive: times.keep_alive,
            greeted: false,
        })
    }

    /// Sends the Hello if the connection is established. It is shorter than any socket's empty
    /// buffer.
    fn greet(&mut self, hello: &[u8]) -> io::Result<()> {
        if self.greeted {
            return Ok(());
        }
        match self.socket.write(hello) {
            Ok(n) if n == hello.len() => {
                self.greeted = true;
                notice_loss(self.socket.as_fd(), self.keep_alive)?;
            }
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            // Linux returns this for a socket that is still connecting.
            Err(e) if is_for_later(&e) || e.kind() == io::ErrorKind::NotConnected => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn finish(&mut self, hello: &[u8]) -> io::Result<()> {
        while !self.greeted {
            wait_for(&self.socket, PollFlags::POLLOUT, self.until)?;
            if let Some(e) = self.socket.take_error()? {
                return Err(e);
            }
            self.greet(hello)?;
        }
        Ok(())
    }
}

/// Waits until a socket has one of these events, an error or a hang-up.
///
/// # Errors
/// `TimedOut` if nothing happens until then.
pub fn wait_for(socket: &TcpStream, events: PollFlags, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // At least a whole millisecond, so that no wait becomes a busy loop.
        let timeout = PollTimeout::try_from(left.saturating_add(Duration::from_millis(1)))
            .unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket.as_fd(), events)], timeout) {
            Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether a connection can be read now; its end counts too.
pub fn has_news(socket: BorrowedFd<'_>) -> bool {
    let mut ready = [PollFd::new(socket, PollFlags::POLLIN)];
    matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1))
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
