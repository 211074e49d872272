//! Local sockets, by the path of a file: they keep message boundaries, and the kernel reports which
//! user connects.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, umask};

use super::untrusted::{self, Listener};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Listens at a path. The file has this mode from the first moment on: a user that may write the
/// file may connect. Removes an earlier file at that path. Only for a process with one thread.
///
/// # Errors
/// The directory cannot be written, or the path is too long for a socket.
pub fn listener(path: &Path, mode: u32) -> io::Result<Listener> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // Before any process can connect: accepted sockets inherit it from the listening socket.
    let refuses = untrusted::refuse_descriptors(&fd);
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let all = Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO;
    let mode = Mode::from_bits_truncate(libc::mode_t::try_from(mode).unwrap_or(0));
    let before = umask(all - mode);
    let bound = bind(fd.as_raw_fd(), &address);
    umask(before);
    bound?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(Listener::new(fd, refuses))
}

/// Accepts the next connection, nonblocking; `None`: there is none.
///
/// # Errors
/// No descriptor is left, or the socket does not listen.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match accept4(listener.as_raw_fd(), flags) {
        Ok(fd) => super::socket::adopted(fd).map(Some),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Connects to a path. Sending and receiving a message each take at most `limit`.
///
/// # Errors
/// No process listens there, or access is denied.
pub fn call(path: &Path, limit: Duration) -> io::Result<OwnedFd> {
    use nix::sys::socket::{setsockopt, sockopt};
    use nix::sys::time::{TimeVal, TimeValLike};
    let fd = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}

/// Returns the user ID of the process at the other end, the client's or the listener's, as of when
/// the connection was made.
///
/// # Errors
/// The socket is not such a connection.
pub fn user_of(fd: impl AsFd) -> io::Result<u32> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        Ok(getsockopt(&fd.as_fd(), PeerCredentials)?.uid())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (uid, _) = nix::unistd::getpeereid(fd.as_fd())?;
        Ok(uid.as_raw())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn connection_reports_the_callers_user_id() {
        let folder = std::env::temp_dir().join(format!("cos-local-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("s");
        let far = folder.join("s".repeat(120));
        assert!(call(&path, Duration::from_secs(1)).is_err());
        for mode in [0o666, 0o600] {
            let listening = listener(&path, mode).unwrap();
            let about = std::fs::metadata(&path).unwrap();
            assert_eq!(about.permissions().mode() & 0o7777, mode);
            assert!(listening.accept().unwrap().is_none());
            let caller = call(&path, Duration::from_secs(1)).unwrap();
            let taken = listening.accept().unwrap().unwrap();
            let me = nix::unistd::geteuid().as_raw();
            assert_eq!((taken.user(), user_of(&caller).unwrap()), (me, me));
        }
        assert!(listener(&far, 0o600).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
