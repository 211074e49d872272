//! Listening sockets, and what every connection's socket is set to.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getpeername, getsockname,
    getsockopt, listen, setsockopt, socket,
};

/// Connections that may wait to be accepted; the kernel's own limit caps it.
const BACKLOG: i32 = 4096;

/// Most listening sockets of a daemon: far more addresses than hosts have, and their
/// events need numbers of their own.
pub const LISTENERS: usize = 63;

/// A nonblocking listening socket on one address; IPv6 takes no IPv4.
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

/// The most seconds that the system takes as a keep-alive interval.
pub const KEEP_ALIVE_MOST: u64 = 32_767;

/// What both sides set on a connection at once: no delay for small records
/// (Nagle meeting delayed ACKs costs OpenSSH 90 ms).
///
/// # Errors
/// It is not a TCP socket.
pub fn prepare(fd: BorrowedFd<'_>) -> io::Result<()> {
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    Ok(())
}

/// Has a connection end within two intervals of `keep_alive` seconds (0: not), or within 4 s
/// more than one where that is longer, after its peer has become unreachable: a silent peer is probed, and one that does not acknowledge
/// data is given up. To be called once the connection stands: connecting has times of its own.
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
        // Less than two intervals: the first retransmission takes its time before, and the
        // probe that finds the limit passed comes after it.
        let limit = keep_alive.saturating_mul(1750);
        setsockopt(&fd, sockopt::TcpUserTimeout, &limit)?;
    }
    Ok(())
}

/// The address at the other end, IPv4 always as IPv4. An error for anything
/// but a connected TCP socket.
///
/// # Errors
/// It is no TCP socket, or not connected.
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    plain(&getpeername::<SockaddrStorage>(fd.as_raw_fd())?)
}

/// Whether this is a TCP connection that its peer has reset: it has no address any more.
pub fn was_reset(fd: BorrowedFd<'_>) -> bool {
    let peer = getpeername::<SockaddrStorage>(fd.as_raw_fd());
    peer == Err(Errno::ENOTCONN) && local(fd).is_ok() && is_stream(fd) && !listens(fd)
}

/// The address at our end.
///
/// # Errors
/// It is no TCP socket.
pub fn local(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    plain(&getsockname::<SockaddrStorage>(fd.as_raw_fd())?)
}

/// Both ends of a TCP connection in the form of `SSH_CLIENT` of sshd(8): the peer's address, its
/// port and ours. `None`: it is no TCP socket, or not connected.
pub fn ssh_client(fd: BorrowedFd<'_>) -> Option<String> {
    let peer = getpeername::<SockaddrStorage>(fd.as_raw_fd()).ok()?;
    let own = local(fd).ok()?;
    Some(format!("{} {}", with_zone(&peer)?, own.port()))
}

/// An address as sshd writes it, with a blank before its port.
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

/// The name of a network interface.
fn interface(number: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the call writes at most as many bytes as the array has, a NUL byte among them.
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

/// Whether this is a stream socket: what a gate hands over must be one.
pub fn is_stream(fd: BorrowedFd<'_>) -> bool {
    getsockopt(&fd, sockopt::SockType).is_ok_and(|t| t == SockType::Stream)
}

/// Whether this is a listening socket: accept(2) on another fails for ever.
pub fn listens(fd: impl AsFd) -> bool {
    getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false)
}

/// Whether bytes wait to be read; they stay where they are.
pub fn has_bytes(fd: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(fd.as_raw_fd(), &mut [0], flags), Ok(n) if n > 0)
}

/// Whether the peer has hung up and nothing of his waits to be read.
pub fn has_hung_up(fd: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(fd.as_raw_fd(), &mut [0], flags) {
        Ok(n) => n == 0,
        Err(e) => !matches!(e, Errno::EAGAIN | Errno::EINTR),
    }
}

/// Sends what a socket takes at once; what it did not take. A peer that is gone
/// is found out by whoever sends the rest, or reads.
pub fn send_now(fd: BorrowedFd<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    let sent = send(fd, &bytes).unwrap_or(0);
    bytes.drain(..sent);
    bytes
}

/// Sends as much as a socket takes at once. Whether it blocks is a property that
/// it shares with every copy of it, the gate's among them: here it never does.
///
/// # Errors
/// `EAGAIN` where it takes nothing now; anything else when the peer is gone.
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    use nix::sys::socket::{MsgFlags, send};
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(fd.as_raw_fd(), bytes, flags)
}

/// Reads what has come, without waiting for it, whatever the copies of the socket
/// say. Zero bytes: the peer has hung up.
///
/// # Errors
/// `EAGAIN` where nothing has come; anything else when the connection is broken.
pub fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> nix::Result<usize> {
    use nix::sys::socket::{MsgFlags, recv};
    recv(fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT)
}

/// Whether an error of a connected socket says that the connection is lost, or was closed
/// by the peer. Anything else, such as a lack of memory, is a failure of this system.
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

/// Descriptor `number`, which this process was started with, as ours: taken
/// once, closed on exec from now on.
///
/// # Errors
/// There is no such descriptor.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller names a descriptor that it was started with; the call
    // fails where there is none, and nothing is owned before it succeeded.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    if number > 2 {
        // SAFETY: no value of this program owns the number it was started with.
        unsafe { libc::close(number) };
    }
    Ok(copy)
}

/// A descriptor that the kernel has just made for us, by a call that gives its number.
pub(super) fn adopted(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::other("no descriptor"));
    }
    // SAFETY: the caller has it from the kernel, and nothing else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets receives on a socket block, each for at most so long: then `EAGAIN`.
///
/// # Errors
/// None that an open socket has.
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

/// Sets a descriptor nonblocking.
///
/// # Errors
/// None that an open descriptor has.
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
        // By IPv4 the address is a mapped one on this socket.
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
        // Of a link, with its interface: by name, where it has one.
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
        // No TCP socket, no connection of ours.
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(prepare(other.as_fd()).is_err());
    }

    /// A gate that was taken over can make its copy of a connection block, and
    /// fill it: that must not stop the monitor, or a session's thread.
    #[test]
    fn a_copy_that_blocks_stops_neither_sending_nor_receiving() {
        let kind = SockType::Stream;
        let (ours, _theirs) =
            socketpair(AddressFamily::Unix, kind, None, SockFlag::empty()).unwrap();
        let now = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
        while nix::sys::socket::send(ours.as_raw_fd(), &[0; 4096], now).is_ok() {}
        let (tell, hear) = channel();
        std::thread::spawn(move || {
            let left = send_now(ours.as_fd(), vec![1; 100]);
            let nothing = receive(ours.as_fd(), &mut [0; 8]);
            let _ = tell.send((left, nothing));
        });
        let (left, nothing) = hear.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(left, vec![1; 100]);
        assert_eq!(nothing, Err(Errno::EAGAIN));
    }
}
