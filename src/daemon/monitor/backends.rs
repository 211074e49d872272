//! The connections to backends of named services that are being made: each by a child, which becomes
//! the user and connects, so that the backend sees that user as its peer.
//!
//! Runs in the monitor. Owns the attempts, their sockets and their children. Must not wait for a
//! backend, nor connect by itself as root.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::jobs::Jobs;
use crate::ipc::gate::Connection;
use crate::sys::account::Account;
use crate::sys::job::BackendAddress;
use crate::sys::process::{self, Ended};
use crate::sys::socket;

/// How long connecting to a backend may take, all its addresses together.
const LIMIT: Duration = Duration::from_secs(10);

/// Most attempts at the same time, of one service, and of one service and peer.
const MOST: usize = 256;
const MOST_OF_ONE: usize = 64;
const MOST_OF_PEER: usize = 48;

/// An address of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

/// A connection that is being made.
struct Attempt {
    connection: Connection,
    peer: IpAddr,
    /// The service, by name.
    service: String,
    /// The user that connects; `None`: the daemon's own.
    account: Option<Account>,
    /// The addresses that are tried next, the next one last.
    next: Vec<Target>,
    child: Pid,
    socket: OwnedFd,
    until: Instant,
    is_late: bool,
}

/// All attempts.
#[derive(Default)]
pub(super) struct Backends(Vec<Attempt>);

/// What became of an attempt: a connected socket, or why there is none.
pub(super) type Connected = (Connection, Result<OwnedFd, String>);

impl Backends {
    /// Begins to connect as this user to the first of these addresses that answers. `None`: as the
    /// daemon's own user.
    ///
    /// # Errors
    /// Too many attempts are under way, or the system starts no process.
    pub(super) fn begin(
        &mut self,
        jobs: &mut Jobs,
        (connection, peer): (Connection, IpAddr),
        service: &str,
        account: Option<&Account>,
        mut targets: Vec<Target>,
        now: Instant,
    ) -> Result<(), String> {
        let same = || self.0.iter().filter(|attempt| attempt.service == service);
        let peers = same().filter(|attempt| attempt.peer == peer).count();
        if self.0.len() >= MOST || same().count() >= MOST_OF_ONE || peers >= MOST_OF_PEER {
            return Err("too many connections to backends are being made".into());
        }
        targets.reverse();
        let (child, socket) = start_next(jobs, account, &mut targets)?;
        self.0.push(Attempt {
            connection,
            peer,
            service: service.to_owned(),
            account: account.cloned(),
            next: targets,
            child,
            socket,
            until: now + LIMIT,
            is_late: false,
        });
        Ok(())
    }

    /// Returns the attempts that have ended, after the end of a child.
    pub(super) fn ended(&mut self, jobs: &mut Jobs) -> Vec<Connected> {
        let mut all = Vec::new();
        for mut attempt in std::mem::take(&mut self.0) {
            let Some(ended) = process::ended(attempt.child) else {
                self.0.push(attempt);
                continue;
            };
            process::reap(attempt.child);
            let why = match ended {
                Ended::Exited(0) => {
                    let outcome = socket::set_nonblocking(&attempt.socket);
                    let outcome = outcome.map_err(|e| e.to_string());
                    all.push((attempt.connection, outcome.map(|()| attempt.socket)));
                    continue;
                }
                _ if attempt.is_late => "the backend did not answer in time".to_owned(),
                Ended::Exited(number) => Errno::from_raw(number).desc().to_owned(),
                Ended::Killed(signal) => format!("signal {signal} ended the process that connects"),
            };
            if attempt.is_late || attempt.next.is_empty() {
                all.push((attempt.connection, Err(why)));
                continue;
            }
            match start_next(jobs, attempt.account.as_ref(), &mut attempt.next) {
                Ok((child, socket)) => self.0.push(Attempt {
                    child,
                    socket,
                    ..attempt
                }),
                Err(why) => all.push((attempt.connection, Err(why))),
            }
        }
        all
    }

    /// Kills the child of a connection whose peer has left.
    pub(super) fn abandon(&mut self, connection: Connection) {
        let is_its = |a: &&mut Attempt| a.connection == connection && !a.is_late;
        for attempt in self.0.iter_mut().filter(is_its) {
            attempt.is_late = true;
            process::signal(attempt.child, Signal::SIGKILL);
        }
    }

    /// Returns when the next of them is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.0.iter().filter(|attempt| !attempt.is_late);
        waiting.map(|attempt| attempt.until).min()
    }

    /// Kills the children that are late: each ends soon.
    pub(super) fn expire(&mut self, now: Instant) {
        for attempt in self.0.iter_mut().filter(|attempt| !attempt.is_late) {
            if attempt.until <= now {
                attempt.is_late = true;
                process::signal(attempt.child, Signal::SIGKILL);
            }
        }
    }
}

/// Starts a child for the next of these addresses for which one can be started.
fn start_next(
    jobs: &mut Jobs,
    account: Option<&Account>,
    next: &mut Vec<Target>,
) -> Result<(Pid, OwnedFd), String> {
    let mut why = "its host has no address".to_owned();
    while let Some(target) = next.pop() {
        match start(jobs, account, &target) {
            Ok(started) => return Ok(started),
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

/// Starts a child that connects a new socket.
fn start(jobs: &mut Jobs, account: Option<&Account>, to: &Target) -> nix::Result<(Pid, OwnedFd)> {
    let (socket, address) = match to {
        Target::Unix(path) => (socket::unix_client()?, BackendAddress::unix(path)?),
        Target::Tcp(address) => (socket::tcp_client(*address)?, BackendAddress::tcp(*address)),
    };
    let child = jobs.connect(account, &socket, address)?;
    Ok((child, socket))
}
