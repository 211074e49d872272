//! `cos connect`: connects standard input and output to a TCP port, for a client that goes through
//! this host (`-J`). Runs in the client. It reads no configuration, and must write nothing of its
//! own to the stream.
//!
//! One thread and one poll. It holds at most one block of each direction.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::call::{Call, Family};
use super::dial::{Dialing, Times};
use super::inbox::is_for_later;
use super::io_error::text_without_number;
use super::stdio::{Input, Output, Which};
use crate::config::settings::default_port;
use crate::fault::Fault;
use crate::sys::socket::{is_lost, receive, send};
use crate::sys::unsent::{Unsent, UnsentState};

/// The most that is read at once, bytes.
const BLOCK: usize = 64 * 1024;
/// How often the socket is checked while its peer has not acknowledged everything.
const LOOK: Duration = Duration::from_millis(500);

/// Connects, and carries both directions to their ends.
///
/// # Errors
/// The host cannot be reached, or the connection broke.
pub(super) fn connect_stdio(call: &Call) -> Result<u8, Fault> {
    let port = call.port.map_or_else(default_port, u16::from);
    let bare = call
        .host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'));
    let found = (bare.unwrap_or(&call.host), port).to_socket_addrs();
    let found = found.map_err(|e| Fault::new(format!("its name does not resolve: {e}")))?;
    let of_family = |a: &SocketAddr| call.family.is_none_or(|f| (f == Family::V4) == a.is_ipv4());
    let addresses: Vec<SocketAddr> = found.filter(of_family).collect();
    if addresses.is_empty() {
        let words = "it has no address of the requested family";
        return Err(Fault::new(words));
    }
    let dialing = Dialing::begin(&addresses, Times::of(call)).to_any_port();
    let dialed = dialing.finish(b"")?;
    Carrier {
        socket: dialed.socket,
        input: Some(Input::default()),
        to_socket: Vec::new(),
        output: Output::new(Which::Out),
        unsent: Unsent::default(),
        is_watched: false,
        looked: Instant::now(),
    }
    .carry()
    .map(|()| 0)
}

struct Carrier {
    socket: TcpStream,
    /// `None`: it has ended and the socket's write side is shut down, or the peer takes no more.
    input: Option<Input>,
    /// What the socket has not taken yet.
    to_socket: Vec<u8>,
    output: Output,
    unsent: Unsent,
    /// The peer may not have acknowledged all that was sent.
    is_watched: bool,
    /// When that was last checked.
    looked: Instant,
}

/// What a poll found.
struct Ready {
    input: bool,
    socket: PollFlags,
    output: bool,
}

impl Carrier {
    fn carry(mut self) -> Result<(), Fault> {
        let mut block = vec![0; BLOCK];
        loop {
            let ready = self.wait()?;
            if ready.output {
                self.output.drain().map_err(|e| of_output(&e))?;
            }
            // Handle the socket's data first: its end ends the session.
            if ready.socket.intersects(!PollFlags::POLLOUT) && !self.output.has_backlog() {
                match receive(self.socket.as_fd(), &mut block) {
                    Ok(0) => return Ok(()),
                    Ok(n) => {
                        let bytes = block.get(..n).unwrap_or_default();
                        let mut parts = [IoSlice::new(bytes)];
                        self.output.put(&mut parts).map_err(|e| of_output(&e))?;
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(e) => return Err(connection_failed(e)),
                }
            }
            if ready.input {
                self.read_input(&mut block)?;
            }
            if ready.socket.contains(PollFlags::POLLOUT) {
                self.send()?;
            }
            self.look()?;
        }
    }

    /// Ends a connection whose peer is gone. A peer that only reads nothing is left alone; the
    /// system by itself would end that connection.
    fn look(&mut self) -> Result<(), Fault> {
        if !self.is_watched || self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        match self.unsent.look(self.socket.as_fd()) {
            UnsentState::Acknowledged => self.is_watched = false,
            UnsentState::Sent | UnsentState::Waiting => {}
            UnsentState::Lost => return Err(connection_failed(Errno::ETIMEDOUT)),
        }
        Ok(())
    }

    /// Waits until something can be done. There is no limit: a session may be silent for long, and
    /// the keep-alive detects a peer that is gone.
    fn wait(&self) -> Result<Ready, Fault> {
        let may_read = self.to_socket.is_empty();
        let has_backlog = self.output.has_backlog();
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLOUT, !may_read);
        events.set(PollFlags::POLLIN, !has_backlog);
        let input = self.input.as_ref().filter(|_| may_read);
        let mut fds = vec![PollFd::new(self.socket.as_fd(), events)];
        if let Some(input) = input {
            fds.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        if has_backlog {
            fds.push(PollFd::new(self.output.as_fd(), PollFlags::POLLOUT));
        }
        let timeout = match self.is_watched {
            true => PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX),
            false => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Fault::from(e).while_doing("poll")),
        }
        let mut found = fds
            .iter()
            .map(|f| f.revents().unwrap_or(PollFlags::empty()));
        Ok(Ready {
            socket: found.next().unwrap_or(PollFlags::empty()),
            input: input.is_some() && found.next().is_some_and(|f| !f.is_empty()),
            output: has_backlog && found.next().is_some_and(|f| !f.is_empty()),
        })
    }

    fn read_input(&mut self, block: &mut [u8]) -> Result<(), Fault> {
        let Some(input) = self.input.as_mut() else {
            return Ok(());
        };
        match input.read(&mut [IoSliceMut::new(block)]) {
            Ok(0) => {
                self.input = None;
                // Reading detects a peer that is gone.
                let _ = self.socket.shutdown(Shutdown::Write);
                Ok(())
            }
            Ok(n) => {
                self.to_socket = block.get(..n).unwrap_or_default().to_vec();
                self.send()
            }
            Err(e) if is_for_later(&e) => Ok(()),
            Err(e) => Err(Fault::new(text_without_number(&e)).while_doing("standard input")),
        }
    }

    fn send(&mut self) -> Result<(), Fault> {
        match send(self.socket.as_fd(), &self.to_socket) {
            Ok(n) => {
                self.is_watched = true;
                self.to_socket.drain(..n.min(self.to_socket.len()));
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(e) if is_lost(e) => {
                // Read first what the peer has sent before.
                self.input = None;
                self.to_socket = Vec::new();
                Ok(())
            }
            Err(e) => Err(connection_failed(e)),
        }
    }
}

fn connection_failed(e: Errno) -> Fault {
    Fault::new(e.desc()).while_doing("the connection broke")
}

fn of_output(e: &io::Error) -> Fault {
    Fault::new(text_without_number(e)).while_doing("standard output")
}
