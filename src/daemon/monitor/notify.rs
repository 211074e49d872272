//! systemd's two protocols, implemented directly: NOTIFY_SOCKET (sd_notify(3)) and LISTEN_FDS
//! (sd_listen_fds(3)). No libsystemd (lesson of xz).
//!
//! Runs in the monitor. Owns what the service manager was told. Must not wait for it.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::fault::Fault;
use crate::sys::socket;

/// The service manager, if there is one, and what it was told.
pub(super) struct Manager {
    socket: Option<OsString>,
    /// What the daemon has lacked since its start, if anything.
    degraded: Option<String>,
    /// What it lacks, as last told.
    told: Option<String>,
}

impl Manager {
    /// Returns the one that the environment names. `degraded`: what the daemon lacks from the
    /// start.
    pub(super) fn from_environment(degraded: Option<String>) -> Self {
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()),
            degraded,
            told: None,
        }
    }

    /// Tells the manager what the daemon lacks now, if that has changed.
    pub(super) fn tell_lack(&mut self, lack: Option<&str>) {
        let lack = self.degraded.as_deref().or(lack);
        if lack != self.told.as_deref() {
            self.tell(&status(lack));
            self.told = lack.map(str::to_owned);
        }
    }

    /// Sends the manager a state. A failure is ignored.
    pub(super) fn tell(&self, state: &str) {
        let Some(path) = &self.socket else { return };
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

/// Returns the state line for the service manager.
fn status(why: Option<&str>) -> String {
    /// The longest reason that is passed on, characters.
    const LONGEST: usize = 300;
    let one_line = |c: char| if c.is_control() { ' ' } else { c };
    let words = why.map(|why| why.chars().take(LONGEST).map(one_line).collect::<String>());
    words.map_or_else(
        || "STATUS=serving".to_owned(),
        |why| format!("STATUS=degraded: {why}"),
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The service manager takes one line.
    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        assert_eq!(status(None), "STATUS=serving");
        let why = "two\nlines ".repeat(100);
        let told = status(Some(&why));
        assert!(told.starts_with("STATUS=degraded: two lines two"), "{told}");
        assert!(told.len() < 400 && !told.contains('\n'), "{told}");
    }
}
