//! Connecting through other hosts (`-J`). The client starts itself as a client of the last of these
//! hosts, with the command `cos connect HOST PORT` there. That stream is the connection. The
//! target's own handshake and encryption run in it from end to end, so the hosts in between see
//! only ciphertext.
//!
//! Runs in the client. Owns the child, which ends when the connection is closed. The child has its
//! own process group, so that a key at the terminal interrupts the remote command and not the
//! connection, and must not ask at the terminal.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStderr};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::call::{Call, ConnectTime, Family};
use super::dial::{Dialed, IS_IT_THERE, REFUSED};
use super::io_error::text_without_number;
use super::route::Route;
use super::values::KEEP_ALIVE;
use crate::fault::Fault;
use crate::sys::client_exec;
use crate::sys::socket::set_nonblocking;

/// How long each host in between may take if the command line sets no limit: two connections and a
/// verdict, each of which has its own limit there.
const EACH_HOST: Duration = Duration::from_secs(60);
/// How much longer we wait than the child if the command line sets a limit: the child's error
/// message is the better one.
const GRACE: Duration = Duration::from_secs(1);
/// How long the child may take to end after its connection is closed or has failed.
const END_WITHIN: Duration = Duration::from_secs(2);
/// How often the child is checked during that time.
const LOOK: Duration = Duration::from_millis(5);
/// The most of the child's standard error that is read, bytes.
const SAID_MOST: u64 = 4096;

/// The status of a child that a signal ended.
const KILLED: i32 = -1;
/// The status of a command that was not found.
const NOT_FOUND: i32 = 127;
const WHERE_COS_IS: &str =
    "cos must be on the path of commands there; -o JumpProgram=PATH says where it is";

/// The peer of a connection, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// This address.
    At(SocketAddr),
    /// This host, through the other one.
    Through(String, String),
}

impl Peer {
    /// Returns the host without its port.
    pub fn host(&self) -> String {
        match self {
            Self::At(address) => address.ip().to_string(),
            Self::Through(host, _) => host.clone(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Through(host, via) => write!(f, "{host} through {via}"),
        }
    }
}

/// What carries a connection that goes through other hosts.
pub struct Jump {
    /// The client of the last host in between. `None`: it is no longer our child.
    child: Option<Child>,
    /// Its standard error, if the user does not see it.
    errors: Option<ChildStderr>,
    /// The name of that host.
    via: String,
}

/// A connection through other hosts that is being made.
pub(super) struct Jumping {
    // Declared before `jump`, and so dropped first: the child ends once the connection is closed.
    socket: TcpStream,
    jump: Jump,
    peer: Peer,
    timeout: Duration,
    until: Option<Instant>,
}

impl Jumping {
    /// Starts the client of the last host in between.
    ///
    /// # Errors
    /// It cannot be started, or the host has no address of the requested family.
    pub(super) fn begin(call: &Call, route: &Route) -> Result<Self, Fault> {
        let words = words(call, route)?;
        let via = call
            .jumps
            .last()
            .map(|j| j.host.clone())
            .unwrap_or_default();
        let flags = SockFlag::SOCK_CLOEXEC;
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        let (ours, theirs): (OwnedFd, OwnedFd) = pair;
        set_nonblocking(&ours)?;
        let mut child = client_exec::start_client(&words, theirs, call.verbose)
            .map_err(|e| Fault::from(e).while_doing(format!("through {via}")))?;
        let each = match call.connect_timeout {
            ConnectTime::Each(time) | ConnectTime::Together(time) => time,
        };
        let hosts = u32::try_from(call.jumps.len()).unwrap_or(u32::MAX);
        let until = match call.connect_timeout {
            ConnectTime::Each(_) => None,
            ConnectTime::Together(time) => Instant::now().checked_add(time.saturating_add(GRACE)),
        };
        Ok(Self {
            socket: TcpStream::from(ours),
            peer: Peer::Through(call.host.clone(), via.clone()),
            jump: Jump {
                errors: child.stderr.take(),
                child: Some(child),
                via,
            },
            timeout: each.saturating_add(EACH_HOST.saturating_mul(hosts)),
            until,
        })
    }

    /// The peer.
    pub(super) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sends the Hello, which waits at the child until there is a connection.
    ///
    /// # Errors
    /// The child has ended already; the fault gives the reason.
    pub(super) fn finish(mut self, hello: &[u8]) -> Result<Dialed, Fault> {
        if let Err(e) = self.socket.write_all(hello) {
            let words = format!("{}: {}", self.peer, text_without_number(&e));
            return Err(self.jump.failure().unwrap_or_else(|| Fault::new(words)));
        }
        let Self {
            socket,
            jump,
            peer,
            timeout,
            until,
        } = self;
        Ok(Dialed::through(socket, peer, jump, timeout, until))
    }
}

/// Returns the command line of the child, without the program.
fn words(call: &Call, route: &Route) -> Result<Vec<String>, Fault> {
    let mut words: Vec<String> = Vec::new();
    let mut add = |more: &[&str]| words.extend(more.iter().map(|w| (*w).to_owned()));
    if let Some(folder) = &call.folder {
        add(&["-C", &folder.to_string_lossy()]);
    }
    if call.verbose {
        add(&["-v"]);
    }
    // The terminal does not belong to the child, so it must not ask there.
    add(&["run", "-oBatchMode=yes"]);
    // Without -v we read the child's line about a failure and report it as ours.
    if let Some(log) = call.log.as_ref().filter(|_| call.verbose) {
        add(&["-E", &log.to_string_lossy()]);
    }
    if let Some(address) = &call.source.address {
        add(&["-b", address]);
    }
    if let Some(interface) = &call.source.interface {
        add(&["-B", interface]);
    }
    if let Some(program) = &call.jump_program {
        add(&[&format!("-oJumpProgram={program}")]);
    }
    let mut times = Vec::new();
    if let ConnectTime::Together(time) = call.connect_timeout {
        times.push(format!("-oConnectTimeout={}", time.as_secs().max(1)));
    }
    if call.keep_alive != KEEP_ALIVE {
        times.push(format!("-oServerAliveInterval={}", call.keep_alive));
    }
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    add(&times);
    if let Some((last, before)) = call.jumps.split_last() {
        if !before.is_empty() {
            let all: Vec<String> = before.iter().map(ToString::to_string).collect();
            add(&["-J", &all.join(",")]);
        }
        if let Some(user) = &last.user {
            add(&["-l", user.as_str()]);
        }
        if let Some(port) = last.port {
            add(&["-p", &port.to_string()]);
        }
        add(&["--", &last.host]);
    }
    add(&[call.jump_program.as_deref().unwrap_or("cos"), "connect"]);
    match call.family {
        Some(Family::V4) => add(&["-4"]),
        Some(Family::V6) => add(&["-6"]),
        None => {}
    }
    add(&times);
    let target = match route.first_listed(call)? {
        Some(address) => address.to_string(),
        None => route.dialed_name(call).to_owned(),
    };
    add(&[&target, &route.port(call).to_string()]);
    Ok(words)
}

impl Jump {
    /// Returns why the connection has ended, if the target did not end it: what the child or the
    /// host in between reports. Waits for the child's end.
    pub fn failure(&mut self) -> Option<Fault> {
        let seen = self.errors.is_none();
        let said = self.errors.take().map(said_until_end).unwrap_or_default();
        let ended = self.wait();
        let is_missing = ended == Some(NOT_FOUND);
        if seen {
            let words = format!("the connection through {} failed, see above", self.via);
            let fault = (ended != Some(0) && ended.is_some()).then(|| Fault::new(words));
            return fault.map(|f| {
                if is_missing {
                    f.with_remedy(WHERE_COS_IS)
                } else {
                    f
                }
            });
        }
        let mut lines = said.lines();
        let own = |line: &str| line.strip_prefix("cos: ").unwrap_or(line).to_owned();
        let first = own(lines.next()?);
        let via = format!("{}: ", self.via);
        let first = first.strip_prefix(&via).unwrap_or(&first);
        // `cos connect` does not know that the port is cosserver's.
        let hint = match first.ends_with(REFUSED) {
            true => IS_IT_THERE,
            false => "",
        };
        let fault = Fault::new(format!("through {}: {first}{hint}", self.via));
        let rest: Vec<String> = lines.map(own).collect();
        Some(if is_missing {
            fault.with_remedy(WHERE_COS_IS)
        } else if rest.is_empty() {
            fault
        } else {
            fault.with_remedy(rest.join("\n"))
        })
    }

    /// Gives up the child: this process is no longer its parent.
    pub fn leave(&mut self) {
        self.child = None;
        self.errors = None;
    }

    /// Waits for the child's end, and kills the child after [`END_WITHIN`]. Returns the status of
    /// what it ran, or [`KILLED`]. `None`: there is no child.
    fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let until = Instant::now() + END_WITHIN;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Some(status.code().unwrap_or(KILLED)),
                Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
                Ok(None) | Err(_) => break,
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Some(KILLED)
    }
}

impl Drop for Jump {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Returns what a child writes to standard error until its end, within [`END_WITHIN`] and
/// [`SAID_MOST`].
fn said_until_end(errors: ChildStderr) -> String {
    let until = Instant::now() + END_WITHIN;
    let mut said = Vec::new();
    let mut errors = errors.take(SAID_MOST);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(errors.get_ref().as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if !matches!(poll(&mut ready, timeout), Ok(1)) {
            break;
        }
        let mut block = [0; 1024];
        match errors.read(&mut block) {
            Ok(n @ 1..) => said.extend_from_slice(block.get(..n).unwrap_or_default()),
            Ok(0) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}
