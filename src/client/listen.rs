//! `cos open -L`: listens here, and opens the named service once for each connection that it accepts.
//!
//! Runs in the client. Each connection has a process and a connection to the host of its own: it is
//! granted, logged and ended alone. Owns the listening socket and its file. Must not accept a
//! connection of another user.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, geteuid, getpid};

use super::KILLED;
use super::call::Call;
use super::messages::{self, Reporter};
use crate::config::words::quoted;
use crate::fault::Fault;
use crate::sys::client_fork::fork_connection;
use crate::sys::client_signals::Caught;
use crate::sys::{process, socket_owner};

/// Most connections at the same time: further ones wait to be accepted.
const MOST: usize = 1_000;

/// The pause after accept(2) has found no resources.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How often ended processes are looked for while there are any, milliseconds.
const REAP: u16 = 1_000;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address and a port; 0: the system chooses one.
    Tcp(SocketAddr),
    /// A Unix socket, which only its user may connect to.
    Unix(PathBuf),
}

impl Listen {
    /// Parses `[ADDRESS:]PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// It is neither, or the address is not this host's own alone.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| Fault::new(format!("-L {}: {why}", quoted(text)));
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() || path.contains(char::REPLACEMENT_CHARACTER) {
                true => Err(wrong("it needs a path in UTF-8")),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let address = match text.parse::<u16>() {
            Ok(port) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            Err(_) => match text.strip_prefix("localhost:").map(str::parse) {
                Some(Ok(port)) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
                _ => text
                    .parse()
                    .map_err(|_| wrong("neither [ADDRESS:]PORT nor unix:PATH"))?,
            },
        };
        if !address.ip().is_loopback() {
            return Err(wrong(
                "only loopback addresses, such as 127.0.0.1 and [::1]",
            ));
        }
        Ok(Self::Tcp(address))
    }
}

/// A listening socket.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Bound),
}

/// The file of a Unix socket, which is removed at the end.
struct Bound {
    path: PathBuf,
    /// The process that made it: a child does not remove it.
    of: Pid,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.of != getpid() {
            return;
        }
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                messages::print_error(None, &Fault::of(&self.path, e).to_string());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A connection that was accepted.
enum Accepted {
    /// It is this user's.
    Own(OwnedFd),
    /// It is not, or that is not known; why.
    Others(String),
}

impl Listener {
    fn open(at: &Listen) -> io::Result<Self> {
        let listener = match at {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Self::Tcp(listener)
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let before = umask(Mode::from_bits_truncate(0o177));
                let bound = UnixListener::bind(path);
                umask(before);
                let listener = bound?;
                let bound = Bound {
                    path: path.clone(),
                    of: getpid(),
                };
                listener.set_nonblocking(true)?;
                Self::Unix(listener, bound)
            }
        };
        Ok(listener)
    }

    /// Has this process, which is a child of that which opened it, remove its file at the end.
    fn belongs_to_this_process(&mut self) {
        if let Self::Unix(_, bound) = self {
            bound.of = getpid();
        }
    }

    /// Returns where it listens, for the user.
    fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.to_string(),
                Err(e) => e.to_string(),
            },
            Self::Unix(_, bound) => format!("unix:{}", bound.path.display()),
        }
    }

    /// Accepts a connection. `None`: there is none.
    fn accept(&self) -> io::Result<Option<Accepted>> {
        let accepted = match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, from)| {
                let owner = of_this_user(from.ip(), || {
                    socket_owner::of_connection(from, stream.local_addr()?)
                });
                let prepared = || crate::sys::socket::prepare(stream.as_fd());
                let accepted = owner.and_then(|()| prepared().map_err(|e| e.to_string()));
                accepted.map_or_else(Accepted::Others, |()| Accepted::Own(stream.into()))
            }),
            // Its file is this user's alone.
            Self::Unix(listener, _) => {
                let stream = listener.accept();
                stream.map(|(stream, _)| Accepted::Own(stream.into()))
            }
        };
        match accepted {
            Ok(accepted) => Ok(Some(accepted)),
            Err(e) if is_nothing(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// Connections that were not accepted: other users of this machine can cause any number of them, so
/// at most one line a second tells of them, and one of those that it leaves out.
#[derive(Default)]
struct OtherUsers {
    told: Option<Instant>,
    left_out: usize,
}

/// The time for which one line tells of connections that were not accepted.
const TELL: Duration = Duration::from_secs(1);

impl OtherUsers {
    fn has_just_told(&self, now: Instant) -> bool {
        self.told.is_some_and(|at| now.duration_since(at) < TELL)
    }

    /// Notes a connection, and returns the line to print now, if any.
    fn note(&mut self, why: String, now: Instant) -> Option<String> {
        if self.has_just_told(now) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.told = Some(now);
        Some(why)
    }

    /// Returns the line about those that were left out, once its time has come.
    fn left_out(&mut self, now: Instant) -> Option<String> {
        if self.left_out == 0 || self.has_just_told(now) {
            return None;
        }
        self.told = Some(now);
        let count = std::mem::take(&mut self.left_out);
        Some(format!("{count} more connections were not accepted"))
    }
}

/// Whether an accept(2) has found no resources.
fn is_shortage(e: &io::Error) -> bool {
    let all = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    e.raw_os_error().is_some_and(|errno| all.contains(&errno))
}

/// Whether an accept(2) that failed is nobody's fault.
fn is_nothing(e: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::WouldBlock,
        io::ErrorKind::Interrupted,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::NotConnected,
    ];
    kinds.contains(&e.kind())
}

/// Checks that a connection is this user's.
fn of_this_user(from: IpAddr, owner: impl Fn() -> io::Result<Option<u32>>) -> Result<(), String> {
    let own = geteuid().as_raw();
    match owner() {
        Ok(Some(uid)) if uid == own => Ok(()),
        Ok(Some(uid)) => Err(format!(
            "a connection of user {uid} from {from} is not accepted"
        )),
        Ok(None) => Err(format!("a connection from {from} has ended")),
        Err(e) => Err(format!(
            "this system does not tell whose a connection is ({e})"
        )),
    }
}

/// Removes the file of a socket that no process listens at.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.file_type().is_socket() => match try_connect(path) {
            Err(Errno::ECONNREFUSED) => fs::remove_file(path),
            Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
        },
        Ok(_) => Err(io::Error::other("a file that is not a socket is there")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Connects to a Unix socket and hangs up. Does not wait for one whose queue is full.
fn try_connect(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Listens, and has each connection served in a process of its own by `serve`, with the connection
/// as its standard input and output. Returns the exit status: in the parent once a signal has ended
/// it, in a child that of its connection.
///
/// # Errors
/// It cannot listen, or a system call failed.
pub(super) fn listen(
    at: &Listen,
    call: &Call,
    reporter: &Reporter,
    serve: impl Fn() -> Result<u8, Fault>,
) -> Result<u8, Fault> {
    let failed = |e: io::Error| Fault::from(e).while_doing("-L");
    let mut listener = Listener::open(at).map_err(failed)?;
    let ends = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
    let caught = Caught::of(ends).map_err(failed)?;
    messages::line(&format!("cos: listening on {}", listener.shown()));
    if call.background {
        nix::unistd::daemon(true, true).map_err(|e| Fault::from(e).while_doing("-f"))?;
        // As ssh does: whoever started it may wait for the end of its outputs.
        process::silence_stderr(call.verbose).map_err(failed)?;
        listener.belongs_to_this_process();
    }
    let (mut children, mut others) = (0_usize, OtherUsers::default());
    loop {
        children = children.saturating_sub(reap());
        if let Some(line) = others.left_out(Instant::now()) {
            messages::print_error(Some(&call.host), &line);
        }
        let looks_again = children > 0 || others.left_out > 0;
        let waited = wait(&listener, &caught, children < MOST, looks_again);
        if let Some(signal) = waited.map_err(failed)? {
            return Ok(KILLED.saturating_add(signal));
        }
        if children >= MOST {
            continue;
        }
        let connection = match listener.accept() {
            Ok(None) => continue,
            Ok(Some(Accepted::Own(connection))) => connection,
            Ok(Some(Accepted::Others(why))) => {
                if let Some(line) = others.note(why, Instant::now()) {
                    messages::print_error(Some(&call.host), &line);
                }
                continue;
            }
            Err(e) if is_shortage(&e) => {
                let words = format!("cannot accept a connection: {e}");
                messages::print_error(Some(&call.host), &words);
                std::thread::sleep(ACCEPT_RETRY);
                continue;
            }
            Err(e) => return Err(failed(e)),
        };
        match fork_connection() {
            Ok(Some(_)) => children = children.saturating_add(1),
            Ok(None) => {
                drop((listener, caught));
                let both = |fd: OwnedFd| dup2_stdin(&fd).and_then(|()| dup2_stdout(&fd));
                both(connection).map_err(|e| Fault::from(e).while_doing("-L"))?;
                return serve();
            }
            Err(e) => {
                let words = format!("a connection was closed: {e}");
                messages::print_error(Some(&call.host), &words);
            }
        }
        reporter.step(|| format!("{children} connections"));
    }
}

/// Waits for a connection if there is room for one, for a signal and, if something is to be looked at
/// again, for a while. Returns the signal.
fn wait(
    listener: &Listener,
    caught: &Caught,
    has_room: bool,
    looks_again: bool,
) -> io::Result<Option<u8>> {
    let timeout = match looks_again {
        false => PollTimeout::NONE,
        true => PollTimeout::from(REAP),
    };
    let events = match has_room {
        true => PollFlags::POLLIN,
        false => PollFlags::empty(),
    };
    let mut fds = [
        PollFd::new(caught.as_fd(), PollFlags::POLLIN),
        PollFd::new(listener.as_fd(), events),
    ];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    caught.next()
}

/// Reaps the children that have ended, and returns how many.
fn reap() -> usize {
    let one = || match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => Some(()),
        Ok(_) | Err(_) => None,
    };
    std::iter::from_fn(one).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_and_paths_are_listened_at() {
        let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
        assert_eq!(Listen::parse("5433").unwrap(), tcp("127.0.0.1:5433"));
        assert_eq!(Listen::parse("localhost:0").unwrap(), tcp("127.0.0.1:0"));
        assert_eq!(Listen::parse("[::1]:5433").unwrap(), tcp("[::1]:5433"));
        assert_eq!(
            Listen::parse("unix:/a/b").unwrap(),
            Listen::Unix("/a/b".into())
        );
        for wrong in [
            "",
            "x",
            "unix:",
            "0.0.0.0:5433",
            "192.0.2.1:5433",
            "99999",
            "pc:5433",
        ] {
            assert!(Listen::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// The count would be told with the next one only: after a flood that has ended, never.
    #[test]
    fn connections_that_were_left_out_are_told_without_another_one() {
        let (mut others, now) = (OtherUsers::default(), Instant::now());
        assert_eq!(others.note("one".into(), now).as_deref(), Some("one"));
        for _ in 0..3 {
            assert_eq!(others.note("more".into(), now), None);
        }
        assert_eq!(others.left_out(now), None);
        let line = others.left_out(now + TELL);
        assert_eq!(
            line.as_deref(),
            Some("3 more connections were not accepted")
        );
        assert_eq!(others.left_out(now + 2 * TELL), None);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_else() {
        let scratch = crate::config::scratch::Scratch::new();
        let path = scratch.path().join("s");
        let at = Listen::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        let first = Listener::open(&at).unwrap();
        let mode = fs::metadata(&path).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
            0o600
        );
        assert!(Listener::open(&at).is_err(), "one that is listened at");
        // One whose queue is full must not be waited for.
        nix::sys::socket::listen(&first, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        while try_connect(&path).is_ok() {}
        assert!(Listener::open(&at).is_err(), "one whose queue is full");
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(Listener::open(&at).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
