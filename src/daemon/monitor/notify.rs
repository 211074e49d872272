//! systemd's two protocols, implemented directly: NOTIFY_SOCKET (sd_notify(3)) and LISTEN_FDS
//! (sd_listen_fds(3)). No libsystemd (lesson of xz). Runs in the monitor.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::fault::Fault;
use crate::sys::socket;

/// The socket of the service manager, if there is one.
pub(super) struct Manager(Option<OsString>);

impl Manager {
    /// Returns the one that the environment names.
    pub(super) fn from_environment() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()))
    }

    /// Sends the manager a state. A failure is ignored.
    pub(super) fn tell(&self, state: &str) {
        let Some(path) = &self.0 else { return };
        let Ok(socket) = UnixDatagram::unbound() else {
            return;
        };
        let _ = socket.set_nonblocking(true);
        let _ = match path.as_bytes().strip_prefix(b"@") {
            #[cfg(target_os = "linux")]
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                SocketAddr::from_abstract_name(name)
                    .and_then(|a| socket.send_to_addr(state.as_bytes(), &a))
            }
            _ => SocketAddr::from_pathname(path)
                .and_then(|a| socket.send_to_addr(state.as_bytes(), &a)),
        };
    }
}

/// Returns the state that sd_notify(3) requires before a reload, with the monotonic clock's
/// microseconds at its beginning.
pub(super) fn reloading() -> String {
    use nix::time::{ClockId, clock_gettime};
    let micros = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        i128::from(t.tv_sec()) * 1_000_000 + i128::from(t.tv_nsec()) / 1000
    });
    format!("RELOADING=1\nMONOTONIC_USEC={micros}")
}

/// Returns the listening sockets that the service manager has opened for us.
///
/// # Errors
/// Fails if one of the announced sockets is none.
pub(super) fn inherited_listeners() -> Result<Vec<TcpListener>, Fault> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<i32>().ok());
    if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).max(0);
    if usize::try_from(count).is_ok_and(|n| n > socket::LISTENERS) {
        let words = format!("LISTEN_FDS={count}: {} sockets at most", socket::LISTENERS);
        return Err(Fault::new(words));
    }
    let take = |fd| {
        let fd = socket::inherited(fd).map_err(Fault::from)?;
        socket::set_nonblocking(&fd).map_err(Fault::from)?;
        if !socket::listens(&fd) {
            return Err(Fault::new("it does not listen (Accept=yes wants -i)"));
        }
        let listener = TcpListener::from(fd);
        listener.local_addr().map_err(Fault::from)?;
        Ok(listener)
    };
    (3..3 + count)
        .map(take)
        .collect::<Result<Vec<_>, Fault>>()
        .map_err(|e| e.while_doing("LISTEN_FDS: a socket of the service manager"))
}
