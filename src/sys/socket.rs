//! Listening sockets, and the options of every connection's socket.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, getpeername,
    getsockname, getsockopt, listen, setsockopt, socket,
};
use nix::sys::stat::{Mode, umask};

/// Connections that may wait to be accepted; the kernel's own limit caps it.
const BACKLOG: i32 = 4096;

/// The most listening sockets of a daemon: far more than a host has addresses. Their events need
/// their own numbers.
pub const LISTENERS: usize = 63;

/// Creates a nonblocking listening socket on one address; an IPv6 one accepts no IPv4.
///
/// # Errors
/// The address is not this host's, or the port is taken.
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(fd))
}

/// Returns a Unix socket, to be connected.
///
/// # Errors
/// No descriptors are left.
pub fn unix_client() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// Listens at the path of a Unix socket, for its owner alone. Removes an earlier file there. Only for a
/// process with one thread.
///
/// # Errors
/// The folder cannot be written, or the path is too long for a socket.
pub fn unix_listener(path: &Path) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let fd = unix_client()?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let before = umask(Mode::S_IRWXG | Mode::S_IRWXO | Mode::S_IXUSR);
    let bound = bind(fd.as_raw_fd(), &address);
    umask(before);
    bound?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

/// Returns a TCP socket for this kind of address, to be connected, with the options of
/// [`prepare`].
///
/// # Errors
/// No descriptors are left, or the system does not have this kind.
pub fn tcp_client(to: SocketAddr) -> nix::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    Ok(fd)
}

/// The longest keep-alive interval that the system accepts, seconds.
pub const KEEP_ALIVE_MOST: u64 = 32_767;

/// Sets the options that both sides set on a new connection: no delay for small records (Nagle's
/// algorithm with delayed ACKs costs OpenSSH 90 ms).
///
/// # Errors
/// It is not a TCP socket.
pub fn prepare(fd: BorrowedFd<'_>) -> io::Result<()> {
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    Ok(())
}

/// Makes a connection end after its peer has become unreachable: within two intervals of
/// `keep_alive` seconds (0: never), or within one interval plus 4 s if that is longer. A silent
/// peer is probed, and the connection to one that does not acknowledge data ends. To be called once
/// the connection is established: connecting has its own timeouts.
///
/// # Errors
/// It is not a TCP socket.
pub fn notice_loss(fd: BorrowedFd<'_>, keep_alive: u32) -> io::Result<()> {
    if keep_alive == 0 {
        return Ok(());
    }
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    #[cfg(target_os = "linux")]
    {
        setsockopt(&fd, sockopt::TcpKeepIdle, &keep_alive)?;
        setsockopt(&fd, sockopt::TcpKeepInterval, &(keep_alive / 4).max(1))?;
        setsockopt(&fd, sockopt::TcpKeepCount, &4)?;
        // Less than two intervals: the first retransmission takes its time before the limit, and
        // the probe that finds the limit exceeded comes after it.
        let limit = keep_alive.saturating_mul(1750);
        setsockopt(&fd, sockopt::TcpUserTimeout, &limit)?;
    }
    Ok(())
}

/// Returns the address of the peer, IPv4 always as IPv4. Fails for anything but a connected TCP
/// socket.
///
/// # Errors
/// It is not a TCP socket, or not connected.
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    plain(&getpeername::<SockaddrStorage>(fd.as_raw_fd())?)
}

/// Returns whether this is a TCP connection that its peer has reset: it has no peer address any
/// more.
pub fn was_reset(fd: BorrowedFd<'_>) -> bool {
    let peer = getpeername::<SockaddrStorage>(fd.as_raw_fd());
    peer == Err(Errno::ENOTCONN) && local(fd).is_ok() && is_stream(fd) && !listens(fd)
}

/// Returns the address of this end.
///
/// # Errors
/// It is not a TCP socket.
pub fn local(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    plain(&getsockname::<SockaddrStorage>(fd.as_raw_fd())?)
}

/// Returns both ends of a TCP connection in the form of `SSH_CLIENT` of sshd(8): the peer's
/// address, its port and the local port. `None`: it is not a TCP socket, or not connected.
pub fn ssh_client(fd: BorrowedFd<'_>) -> Option<String> {
    let peer = getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let own = local(fd).ok()?;
    Some(format!("{} {}", with_zone(&peer)?, own.port()))
}

/// Formats an address as sshd does, with a space before its port.
fn with_zone(address: &SockaddrStorage) -> Option<String> {
    let plain = plain(address).ok()?;
    let scope = address.as_sockaddr_in6().map_or(0, |a| a.scope_id());
    let zone = match scope {
        0 => String::new(),
        _ if plain.is_ipv4() => String::new(),
        scope => format!("%{}", interface(scope).unwrap_or_else(|| scope.to_string())),
    };
    Some(format!("{}{zone} {}", plain.ip(), plain.port()))
}

/// Returns the name of a network interface.
fn interface(number: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the call writes at most as many bytes as the array has, including a NUL byte.
    let named = unsafe { libc::if_indextoname(number, name.as_mut_ptr().cast()) };
    if named.is_null() {
        return None;
    }
    let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    Some(name.to_str().ok()?.to_owned())
}

fn plain(address: &SockaddrStorage) -> io::Result<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|a| SocketAddr::from(std::net::SocketAddrV4::from(*a)));
    let v6 = address
        .as_sockaddr_in6()
        .map(|a| SocketAddr::from(std::net::SocketAddrV6::from(*a)));
    let found = v4
        .or(v6)
        .ok_or_else(|| io::Error::other("not an Internet socket"))?;
    Ok(SocketAddr::new(found.ip().to_canonical(), found.port()))
}

/// Returns whether this is a stream socket: what a gate hands over must be one.
pub fn is_stream(fd: BorrowedFd<'_>) -> bool {
    getsockopt(&fd, sockopt::SockType).is_ok_and(|t| t == SockType::Stream)
}

/// Returns whether this is a listening socket: accept(2) on any other always fails.
pub fn listens(fd: impl AsFd) -> bool {
    getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false)
}

/// Returns whether there are bytes to read; does not consume them.
pub fn has_bytes(fd: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(fd.as_raw_fd(), &mut [0], flags), Ok(n) if n > 0)
}

/// Returns whether the peer has closed its end and there is nothing left to read.
pub fn has_hung_up(fd: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(fd.as_raw_fd(), &mut [0], flags) {
        Ok(n) => n == 0,
        Err(e) => !matches!(e, Errno::EAGAIN | Errno::EINTR),
    }
}

/// Sends what a socket takes at once, and returns the rest. If the peer is gone, a later send of
/// the rest, or a read, reports it.
pub fn send_now(fd: BorrowedFd<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    let sent = send(fd, &bytes).unwrap_or(0);
    bytes.drain(..sent);
    bytes
}

/// Sends as much as a socket takes at once. Every copy of a socket, such as the gate's, shares its
/// blocking mode; this call never blocks.
///
/// # Errors
/// `EAGAIN` if it takes nothing now; any other error if the peer is gone.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    use nix::sys::socket::{MsgFlags, send};
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(fd.as_raw_fd(), bytes, flags)
}

/// Reads what has arrived, without blocking, whatever mode the copies of the socket set. Zero
/// bytes: the peer has closed its end.
///
/// # Errors
/// `EAGAIN` if nothing has arrived; any other error if the connection is broken.
pub fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> nix::Result<usize> {
    use nix::sys::socket::{MsgFlags, recv};
    recv(fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT)
}

/// Returns whether an error of a connected socket says that the connection is lost, or was closed
/// by the peer. Any other error, such as a lack of memory, is a failure of this system.
pub const fn is_lost(e: Errno) -> bool {
    matches!(
        e,
        Errno::EPIPE
            | Errno::ECONNRESET
            | Errno::ECONNABORTED
            | Errno::ECONNREFUSED
            | Errno::ENOTCONN
            | Errno::ETIMEDOUT
            | Errno::EHOSTUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETUNREACH
            | Errno::ENETDOWN
            | Errno::ENETRESET
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
    )
}

/// Takes over descriptor `number`, which this process was started with: only once, and closed on
/// exec from now on.
///
/// # Errors
/// There is no such descriptor.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller names a descriptor that it was started with; the call fails if there is
    // none, and nothing is owned before it has succeeded.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created this descriptor.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    if number > 2 {
        // SAFETY: no value of this program owns the number that it was started with.
        unsafe { libc::close(number) };
    }
    Ok(copy)
}

/// Takes over a descriptor that the kernel has just created, by a call that returns its number.
pub(super) fn adopted(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::other("no descriptor"));
    }
    // SAFETY: the caller has it from the kernel, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes receives on a socket block, each for at most `limit`: then `EAGAIN`.
///
/// # Errors
/// None for an open socket.
pub fn block_for(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{setsockopt, sockopt};
    use nix::sys::time::{TimeVal, TimeValLike};
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    setsockopt(socket, sockopt::ReceiveTimeout, &limit)?;
    Ok(())
}

/// Makes a descriptor nonblocking.
///
/// # Errors
/// None for an open descriptor.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::mpsc::channel;

    use nix::sys::socket::{AddressFamily, socketpair};

    use super::*;

    #[test]
    fn ssh_client_has_the_true_addresses_as_sshd_writes_them() {
        let any = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = any.local_addr().unwrap().port();
        // By IPv4 the address on this socket is a mapped one.
        for address in ["127.0.0.1", "::1"] {
            let client = TcpStream::connect((address, port)).unwrap();
            let (server, _) = any.accept().unwrap();
            let own = client.local_addr().unwrap().port();
            let expected = Some(format!("{address} {own} {port}"));
            assert_eq!(ssh_client(server.as_fd()), expected);
        }
        assert_eq!(ssh_client(any.as_fd()), None);
        let none = SockFlag::empty();
        let (unix, _) = socketpair(AddressFamily::Unix, SockType::Stream, None, none).unwrap();
        assert_eq!(ssh_client(unix.as_fd()), None);
        // A link-local address has its interface as zone: by name, if it has one.
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        for (number, zone) in [
            (lo, "lo".to_owned()),
            (2_147_483_647, "2147483647".to_owned()),
        ] {
            let link = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 0, number);
            let address = SockaddrStorage::from(SocketAddr::from(link));
            assert_eq!(with_zone(&address), Some(format!("fe80::1%{zone} 5")));
        }
    }

    #[test]
    fn a_connection_has_no_delay_and_a_probe_after_so_long() {
        let listener = listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let set = |keep_alive| {
            let socket = connect();
            assert_eq!(getsockopt(&socket, sockopt::TcpNoDelay), Ok(false));
            assert_eq!(getsockopt(&socket, sockopt::KeepAlive), Ok(false));
            prepare(socket.as_fd()).unwrap();
            notice_loss(socket.as_fd(), keep_alive).unwrap();
            assert_eq!(getsockopt(&socket, sockopt::TcpNoDelay), Ok(true));
            socket
        };
        assert_eq!(getsockopt(&set(0), sockopt::KeepAlive), Ok(false));
        for (keep_alive, between) in [(60, 15), (1, 1)] {
            let socket = set(keep_alive);
            assert_eq!(getsockopt(&socket, sockopt::KeepAlive), Ok(true));
            #[cfg(target_os = "linux")]
            {
                assert_eq!(getsockopt(&socket, sockopt::TcpKeepIdle), Ok(keep_alive));
                assert_eq!(getsockopt(&socket, sockopt::TcpKeepInterval), Ok(between));
                assert_eq!(getsockopt(&socket, sockopt::TcpKeepCount), Ok(4));
                let limit = getsockopt(&socket, sockopt::TcpUserTimeout);
                assert_eq!(limit, Ok(keep_alive * 1750));
            }
            #[cfg(not(target_os = "linux"))]
            let _ = between;
        }
        // Not a TCP socket.
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(prepare(other.as_fd()).is_err());
    }

    /// A compromised gate can make its copy of a connection block, and fill it: that must not block
    /// the monitor, or a session's thread.
    #[test]
    fn a_copy_that_blocks_stops_neither_sending_nor_receiving() {
        let kind = SockType::Stream;
        let (ours, _theirs) =
            socketpair(AddressFamily::Unix, kind, None, SockFlag::empty()).unwrap();
        let now = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
        while nix::sys::socket::send(ours.as_raw_fd(), &[0; 4096], now).is_ok() {}
        let (tell, receiver) = channel();
        std::thread::spawn(move || {
            let left = send_now(ours.as_fd(), vec![1; 100]);
            let nothing = receive(ours.as_fd(), &mut [0; 8]);
            let _ = tell.send((left, nothing));
        });
        let (left, nothing) = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(left, vec![1; 100]);
        assert_eq!(nothing, Err(Errno::EAGAIN));
    }
}
