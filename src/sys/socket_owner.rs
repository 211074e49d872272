//! The user that a TCP connection from this host belongs to (sock_diag(7)). Used by the client, which
//! listens on a loopback address for its own user alone.

use std::io;
use std::net::SocketAddr;

/// Returns the user ID of the socket on this host whose own address is `its` and whose peer's is
/// `ours`; `None`: there is no such socket, or its owner has closed it.
///
/// # Errors
/// The system does not tell.
#[cfg(target_os = "linux")]
pub fn of_connection(its: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
    linux::ask(its, ours)
}

/// Returns an error: only Linux tells.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn of_connection(_: SocketAddr, _: SocketAddr) -> io::Result<Option<u32>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
    };

    /// `SOCK_DIAG_BY_FAMILY`: the type of the question and of its answer.
    const BY_FAMILY: u16 = 20;
    /// `NLMSG_ERROR`.
    const ERROR: u16 = 2;
    /// `NLM_F_REQUEST`.
    const REQUEST: u16 = 1;
    const TCP: u8 = 6;
    /// Length of the question, bytes.
    const LENGTH: u32 = 72;
    /// Where the user stands in the answer: behind the header, the family and state, the addresses,
    /// and three counters.
    const UID: usize = 16 + 4 + 48 + 12;
    /// Where the socket's inode stands, behind the user; 0: the owner has closed it.
    const INODE: usize = UID + 4;

    pub(super) fn ask(its: SocketAddr, ours: SocketAddr) -> io::Result<Option<u32>> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkSockDiag);
        let netlink = socket(family, kind, flags, protocol)?;
        send(netlink.as_raw_fd(), &question(its, ours), MsgFlags::empty())?;
        let mut buffer = [0; 1024];
        // The kernel answers within send(2).
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        answer(buffer.get(..length).unwrap_or_default())
    }

    fn question(its: SocketAddr, ours: SocketAddr) -> Vec<u8> {
        let family = match its {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        let mut all = Vec::new();
        all.extend(LENGTH.to_ne_bytes());
        all.extend(BY_FAMILY.to_ne_bytes());
        all.extend(REQUEST.to_ne_bytes());
        // Sequence number and sender.
        all.extend([0; 8]);
        all.extend([u8::try_from(family).unwrap_or(0), TCP, 0, 0]);
        // All states.
        all.extend(u32::MAX.to_ne_bytes());
        all.extend(its.port().to_be_bytes());
        all.extend(ours.port().to_be_bytes());
        for address in [its.ip(), ours.ip()] {
            let mut bytes = [0; 16];
            match address {
                IpAddr::V4(v4) => bytes.iter_mut().zip(v4.octets()).for_each(|(b, o)| *b = o),
                IpAddr::V6(v6) => bytes = v6.octets(),
            }
            all.extend(bytes);
        }
        // Any interface, and no cookie.
        all.extend([0; 4]);
        all.extend([0xff; 8]);
        all
    }

    fn answer(message: &[u8]) -> io::Result<Option<u32>> {
        let kind = message.get(4..6).and_then(|b| b.try_into().ok());
        let number = |at: usize| {
            let bytes = message.get(at..at.saturating_add(4))?;
            bytes.try_into().ok().map(u32::from_ne_bytes)
        };
        match kind.map(u16::from_ne_bytes) {
            // The kernel reports user 0 for a socket that its owner has closed: that is not root's.
            Some(BY_FAMILY) => {
                let is_owned = number(INODE).is_some_and(|inode| inode != 0);
                Ok(number(UID).filter(|_| is_owned))
            }
            Some(ERROR) => {
                let errno = number(16).map_or(0, |n| i32::from_ne_bytes(n.to_ne_bytes()));
                match errno.saturating_neg() {
                    libc::ENOENT => Ok(None),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                }
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_belongs_to_the_user_that_made_it() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Some hosts have no IPv6.
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, its) = listener.accept().unwrap();
            let found = of_connection(its, ours.local_addr().unwrap()).unwrap();
            assert_eq!(found, Some(nix::unistd::geteuid().as_raw()));
            // Regression: one that its owner has closed counted as root's.
            drop(client);
            let found = of_connection(its, ours.local_addr().unwrap()).unwrap();
            assert_eq!(found, None, "closed by its owner");
            let nobodys = SocketAddr::new(its.ip(), 1);
            assert_eq!(
                of_connection(nobodys, ours.local_addr().unwrap()).unwrap(),
                None
            );
        }
    }
}
