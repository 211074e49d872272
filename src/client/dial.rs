//! Connecting: the addresses of a host in their order, each with its time, and
//! the Hello sent as soon as one of them answers. Run by the client.
//!
//! Connecting is begun before anything else is done, so that the network and
//! the server work while we see what we can and read our keys.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::call::{Call, ConnectTime};
use super::inbox::is_for_later;
use super::io_error::plainly;
use super::jump::{Jump, Peer};
use crate::fault::Fault;
use crate::sys::socket::{notice_loss, prepare};

pub(super) const REFUSED: &str = "connection refused";
/// What is to be looked at where the port that was refused should be cosserver's.
pub(super) const IS_IT_THERE: &str = "; is cosserver running there, and is this its port?";

/// The times of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long connecting may take.
    pub connect: ConnectTime,
    /// A host that has become unreachable is noticed within twice so many seconds (0: not).
    pub keep_alive: u32,
}

impl Times {
    /// Those that the command line says.
    pub const fn of(call: &Call) -> Self {
        Self {
            connect: call.connect_timeout,
            keep_alive: call.keep_alive,
        }
    }

    /// How long one address, or the host's hello, may take by itself.
    const fn each(&self) -> Duration {
        match self.connect {
            ConnectTime::Each(time) | ConnectTime::Together(time) => time,
        }
    }
}

/// A connection that is being made.
pub struct Dialing<'a> {
    times: Times,
    /// When all of it must be over, the host's hello too, where the user has said how long
    /// it may take.
    until: Option<Instant>,
    left: std::slice::Iter<'a, SocketAddr>,
    /// Where it comes from, where that was said: one for each family.
    sources: &'a [SocketAddr],
    attempt: Option<Attempt>,
    /// Whether the port need not be cosserver's.
    any_port: bool,
    /// Why it failed, and at which addresses so.
    failures: Vec<(String, Vec<SocketAddr>)>,
}

/// A connection that has been made, with the Hello sent.
pub struct Dialed {
    /// The socket; nonblocking.
    pub socket: TcpStream,
    /// Where it leads.
    pub peer: Peer,
    /// What carries it, where it leads through other hosts.
    pub jump: Option<Jump>,
    timeout: Duration,
    until: Option<Instant>,
}

impl Dialed {
    /// A connection that stands already.
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

    /// A connection through other hosts, whose hello may take so long.
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
    /// How long it is until then.
    time: Duration,
    keep_alive: u32,
    greeted: bool,
}

impl<'a> Dialing<'a> {
    /// Begins to connect to the first address that does not fail at once: each has so long
    /// or, where the user has set that time, all of them together with the host's hello.
    pub fn begin(addresses: &'a [SocketAddr], times: Times) -> Self {
        Self::begin_from(addresses, &[], times)
    }

    /// The same, from the one of these addresses that is of the same family, if there are any.
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

    /// The same to a port that need not be cosserver's.
    pub fn to_any_port(self) -> Self {
        Self {
            any_port: true,
            ..self
        }
    }

    /// Sends the Hello, if the connection stands already.
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

    /// Waits until the connection stands, trying one address after the other,
    /// and sends the Hello.
    ///
    /// # Errors
    /// Nobody answered at any of them; the fault says why for each.
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

    /// Why there is no connection, for each of the addresses.
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

/// Why an attempt failed that had so much time.
fn why(e: &io::Error, time: Duration) -> String {
    if e.kind() == io::ErrorKind::ConnectionRefused {
        return REFUSED.to_owned();
    }
    // Ours, and not the system's own.
    if e.kind() == io::ErrorKind::TimedOut && e.raw_os_error().is_none() {
        return format!("no answer within {} s; is the host up?", seconds(time));
    }
    plainly(e)
}

/// Seconds as a person would say them: to a tenth where there are few.
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

    /// Sends the Hello, if the connection stands. It is shorter than any
    /// socket's empty buffer.
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
            // Linux says so of a socket that is still connecting.
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

/// Waits until a socket is ready for one of these, or something happened to it.
///
/// # Errors
/// `TimedOut` where nothing happened until then.
pub fn wait_for(socket: &TcpStream, events: PollFlags, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A whole millisecond at least, so that no wait becomes a busy one.
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

/// Whether something can be read from a connection now, be it its end.
pub fn has_news(socket: BorrowedFd<'_>) -> bool {
    let mut ready = [PollFd::new(socket, PollFlags::POLLIN)];
    matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1))
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
