//! The gate's role, taken over: its end of the channel to the monitor is in the test's hands.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "there is no safe call for the descriptors of another process"
)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use cosserver::ipc::gate::{Connection, Order, Question};
use cosserver::ipc::{Channel, Incoming};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::daemon::hostile::{Greeting, RawConnection, hello};
use super::daemon::{self, Daemon, PATIENCE};

/// Returns copies of a process's sockets of one type and family.
pub fn sockets_of(pid: i32, wanted: SockType, family: libc::c_int) -> Vec<OwnedFd> {
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(handle >= 0, "pidfd_open");
    let handle = unsafe { OwnedFd::from_raw_fd(handle as i32) };
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let number: i32 = entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&handle);
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, raw, number, 0) };
        if copy < 0 {
            continue;
        }
        let copy = unsafe { OwnedFd::from_raw_fd(copy as i32) };
        let mut domain: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&copy);
        let asked = unsafe {
            libc::getsockopt(
                raw,
                libc::SOL_SOCKET,
                libc::SO_DOMAIN,
                (&raw mut domain).cast(),
                &raw mut length,
            )
        };
        let kind = getsockopt(&copy, sockopt::SockType);
        if asked == 0 && domain == family && kind == Ok(wanted) {
            found.push(copy);
        }
    }
    found
}

/// The gate's role, taken over.
pub struct Taken {
    pub channel: Channel,
    /// Unauthenticated clients connect here instead.
    listener: TcpListener,
    next: Connection,
}

impl Taken {
    pub fn from(d: &Daemon) -> Self {
        // By then it has received everything that the monitor sent before.
        d.gate_at_rest();
        let gate = d.process("gate");
        daemon::stop(gate);
        daemon::until("the gate stands still", || {
            daemon::status(gate, "State").starts_with('T')
        });
        let mut ends = sockets_of(gate, SockType::SeqPacket, libc::AF_UNIX);
        assert_eq!(ends.len(), 1, "the gate's one channel");
        Self {
            channel: Channel::new(ends.remove(0)),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            next: 1 << 40,
        }
    }

    pub fn ask(&mut self, question: &Question<'_>, fds: Vec<OwnedFd>) {
        self.channel.send(question.encode(), fds).unwrap();
    }

    /// Returns the monitor's next order that concerns a connection.
    pub fn order(&self) -> Vec<u8> {
        let mut buffer = vec![0; cosserver::ipc::MESSAGE];
        loop {
            let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut fds, timeout), Ok(1), "the monitor says nothing");
            match self.channel.receive(&mut buffer).unwrap() {
                Incoming::Message(message, _) => match Order::decode(&message) {
                    Some(Order::Networks(..) | Order::Limits(_)) => {}
                    Some(_) => return message.to_vec(),
                    None => panic!("no order: {message:?}"),
                },
                Incoming::Nothing => {}
                Incoming::Gone => panic!("the monitor has given the gate up"),
            }
        }
    }

    /// Waits until the monitor has given this gate up.
    pub fn given_up(&self) {
        let mut buffer = vec![0; cosserver::ipc::MESSAGE];
        daemon::until("the monitor gives this gate up", || {
            matches!(
                self.channel.receive(&mut buffer),
                Ok(Incoming::Gone) | Err(_)
            )
        });
    }

    /// Creates both ends of a connection; the test's own is as if it had been accepted.
    pub fn unauthenticated_connection(&self, from: &str) -> (TcpStream, OwnedFd) {
        let theirs = RawConnection::from_address(from.parse().unwrap(), self.port()).socket;
        let (ours, _) = self.listener.accept().unwrap();
        (theirs, ours.into())
    }

    /// Returns the port on which a client reaches the test instead of the gate.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Accepts the next client.
    pub fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }

    /// Makes the monitor decide on a ClientHello that came from an address; returns the peer.
    pub fn submit(&mut self, c: Connection, bytes: &[u8], from: &str) -> TcpStream {
        let (peer, socket) = self.unauthenticated_connection(from);
        self.ask(&Question::ClientHello(c, bytes), vec![socket]);
        peer
    }

    /// Returns the number of a new connection.
    pub const fn number(&mut self) -> Connection {
        self.next += 1;
        self.next
    }

    /// Makes the monitor draw a nonce.
    pub fn greet(&mut self) -> (Connection, Greeting) {
        let (c, hello) = (self.number(), hello());
        let server_hello = self.greet_as(c, &hello).expect("no ServerHello");
        (
            c,
            Greeting {
                hello,
                server_hello,
            },
        )
    }

    /// Makes the monitor answer these bytes as a connection's Hello; `None`: it closes the
    /// connection instead.
    pub fn greet_as(&mut self, c: Connection, hello: &[u8]) -> Option<Vec<u8>> {
        self.ask(&Question::Hello(c, [127, 0, 0, 1].into(), hello), vec![]);
        match Order::decode(&self.order()) {
            Some(Order::ServerHello(to, record)) if to == c => Some(record.to_vec()),
            Some(Order::Close(which)) if which == c => None,
            other => panic!("no ServerHello: {other:?}"),
        }
    }

    /// Waits until the monitor has given this connection to the relay.
    pub fn taken(&self, c: Connection) {
        while Order::decode(&self.order()) != Some(Order::Forget(c)) {}
    }

    /// Checks that the monitor closes this connection.
    pub fn closed(&self, c: Connection, what: &str) {
        assert_eq!(
            Order::decode(&self.order()),
            Some(Order::Close(c)),
            "{what}"
        );
    }

    /// Checks that the monitor denies this connection; returns the reference, as in the log.
    pub fn refused(&self, c: Connection, what: &str) -> String {
        let order = self.order();
        let Some(Order::Deny(to, reference, ..)) = Order::decode(&order) else {
            panic!("{what}: {:?}", Order::decode(&order));
        };
        assert_eq!(to, c);
        reference.to_hex()
    }

    /// Checks that the monitor denies this connection, for this cause.
    pub fn denied(&self, d: &Daemon, c: Connection, cause: &str) {
        let line = d.log.wait(&self.refused(c, cause));
        assert!(line.contains(&format!("cause={cause}")), "{line}");
    }
}
