//! The sources of connections: our own listening sockets, the service manager's, or inetd's one
//! connection. Run by the monitor at its start; it accepts nothing.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use super::notify;
use crate::config::settings::Settings;
use crate::fault::Fault;
use crate::sys::socket;

/// How often a port that the system chose for one address is tried for the others.
const PORT_TRIES: usize = 16;

/// Returns inetd's connection, on descriptor 0.
pub(super) fn adopted() -> Result<OwnedFd, Fault> {
    let socket = socket::inherited(0)?;
    socket::peer(socket.as_fd())
        .map_err(|e| Fault::from(e).while_doing("-i: descriptor 0 is no TCP connection"))?;
    socket::set_nonblocking(&socket)?;
    Ok(socket)
}

/// Returns the service manager's sockets, or opens ours: the same port on every address.
pub(super) fn listeners(settings: &Settings) -> Result<Vec<TcpListener>, Fault> {
    let inherited = notify::inherited_listeners()?;
    if !inherited.is_empty() {
        return Ok(inherited);
    }
    let mut last = Fault::new("there is no address to listen on");
    for _ in 0..PORT_TRIES {
        match listen_on_all(settings) {
            Err(e) if settings.port == 0 => last = e,
            other => return other,
        }
    }
    Err(last)
}

fn listen_on_all(settings: &Settings) -> Result<Vec<TcpListener>, Fault> {
    let mut port = settings.port;
    let mut all = Vec::new();
    for listed in &settings.listen {
        let ip = listed.ip();
        match listed.with_port(port).and_then(socket::listener) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                all.push(listener);
            }
            // The host may have no IPv6, or not this address for now.
            Err(e) if ip.is_ipv6() && no_such_address(&e) && settings.listen.len() > 1 => {}
            Err(e) => {
                let hint = if e.kind() == std::io::ErrorKind::AddrInUse {
                    "; another program has this port: is cosserver already running?"
                } else {
                    ""
                };
                return Err(Fault::new(format!(
                    "listening on {listed}, port {port}: {e}{hint}"
                )));
            }
        }
    }
    if all.is_empty() {
        Err(Fault::new("there is no address to listen on"))
    } else {
        Ok(all)
    }
}

fn no_such_address(e: &std::io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}
