//! The source of a connection: the address of `-b`, or that of the interface of `-B`. Runs in the
//! client before it connects.

use std::net::{SocketAddr, ToSocketAddrs};

use nix::ifaddrs::getifaddrs;

use super::call::Source;
use super::io_error::text_without_number;
use crate::fault::Fault;

/// Returns the addresses to connect from, the best of each family first; none if no source was
/// given. As in ssh, an address takes precedence over an interface.
///
/// # Errors
/// There is no such address or interface.
pub(super) fn addresses(source: &Source) -> Result<Vec<SocketAddr>, Fault> {
    match (&source.address, &source.interface) {
        (Some(address), _) => of_address(address),
        (None, Some(interface)) => of_interface(interface),
        (None, None) => Ok(Vec::new()),
    }
}

fn of_address(text: &str) -> Result<Vec<SocketAddr>, Fault> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let found = (bare.unwrap_or(text), 0).to_socket_addrs();
    let found = found.map_err(|e| Fault::new(format!("-b {text}: {}", text_without_number(&e))))?;
    Ok(found.collect())
}

fn of_interface(name: &str) -> Result<Vec<SocketAddr>, Fault> {
    let all = getifaddrs().map_err(|e| Fault::from(e).while_doing("-B"))?;
    let of_it = all.filter(|a| a.interface_name == name);
    let mut found: Vec<SocketAddr> = of_it
        .filter_map(|a| {
            let address = a.address?;
            let v4 = address
                .as_sockaddr_in()
                .map(|a| SocketAddr::V4((*a).into()));
            v4.or_else(|| {
                address
                    .as_sockaddr_in6()
                    .map(|a| SocketAddr::V6((*a).into()))
            })
        })
        .collect();
    if found.is_empty() {
        let words = format!("-B {name}: no such interface here, or it has no address");
        return Err(Fault::new(words));
    }
    // Other hosts cannot answer these, so they come last.
    found.sort_by_key(|a| match a {
        SocketAddr::V4(a) => a.ip().is_loopback() || a.ip().is_link_local(),
        SocketAddr::V6(a) => a.ip().is_loopback() || a.ip().is_unicast_link_local(),
    });
    Ok(found)
}
