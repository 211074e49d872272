//! Selects the addresses on an invitation: those at which the invited host can probably reach this
//! one.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};

use crate::config::address::{Address, Network};
use crate::config::card::ADDRESSES_MAX;
use crate::config::hostinfo::Addresses;
use crate::config::name::HostName;
use crate::config::settings::Settings;
use crate::fault::Fault;

/// The addresses for a card, and a warning if the daemon probably does not listen there.
pub(super) struct Reach {
    pub(super) addresses: Vec<IpAddr>,
    /// What the administrator should know about them.
    pub(super) warning: Option<String>,
}

/// Returns the configured addresses if the daemon listens on particular ones, and otherwise those
/// from which this machine reaches the host. `hint` says how to give the host's addresses if its
/// name does not resolve.
pub(super) fn reach(
    settings: &Settings,
    host: &HostName,
    addresses: &Addresses,
    hint: &str,
) -> Result<Reach, Fault> {
    let targets = match addresses {
        // A network is represented by its first address.
        Addresses::Listed(networks) => networks.iter().map(Network::first).collect(),
        Addresses::ByName => resolve(host, hint)?,
    };
    let (any, particular): (Vec<IpAddr>, Vec<IpAddr>) = settings
        .listen
        .iter()
        .filter(|a| a.zone().is_empty())
        .map(Address::ip)
        .partition(IpAddr::is_unspecified);
    let sources = || targets.iter().filter_map(|target| source(*target));
    let mut found: Vec<IpAddr> = Vec::new();
    let mut add = |address: IpAddr| {
        if !found.contains(&address) && found.len() < ADDRESSES_MAX {
            found.push(address);
        }
    };
    // Of the particular addresses, take those that suit one of the targets.
    let suits = |listen: &IpAddr, target: &IpAddr| {
        listen.is_ipv4() == target.is_ipv4() && listen.is_loopback() == target.is_loopback()
    };
    particular
        .iter()
        .filter(|listen| targets.iter().any(|target| suits(listen, target)))
        .for_each(|a| add(*a));
    // Assume that `::` accepts IPv4 as well. If it does not, 0.0.0.0 is also configured.
    let reaches = |source: &IpAddr| any.iter().any(|any| any.is_ipv6() || source.is_ipv4());
    sources().filter(reaches).for_each(&mut add);
    if !found.is_empty() {
        return Ok(Reach {
            addresses: found,
            warning: None,
        });
    }
    if any.is_empty() {
        let listen = particular
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let warning = format!(
            "the daemon listens only on {listen}, which {host} probably cannot reach; set listen in cosserver.toml"
        );
        let addresses = particular.into_iter().take(ADDRESSES_MAX).collect();
        return Ok(Reach {
            addresses,
            warning: Some(warning),
        });
    }
    Err(Fault::new(format!(
        "no address of this machine is known that {host} could reach; set listen in cosserver.toml to one"
    )))
}

/// The hint for a host that has a line in the table.
pub(super) const BY_LINE: &str = "list its addresses with addr= on its line in hostinfo";

/// Resolves a host's name to addresses; `hint` says what to do if it has none.
pub(super) fn resolve(host: &HostName, hint: &str) -> Result<Vec<IpAddr>, Fault> {
    let wrong = |why: String| Fault::new(format!("{host} does not resolve ({why}); {hint}"));
    let found: Vec<IpAddr> = (host.as_str(), 0)
        .to_socket_addrs()
        .map_err(|e| wrong(e.to_string()))?
        .map(|a| a.ip().to_canonical())
        .collect();
    if found.is_empty() {
        Err(wrong("it has no address".into()))
    } else {
        Ok(found)
    }
}

/// Returns the address from which this machine sends to the target. The kernel chooses it when a
/// UDP socket is connected, which sends nothing.
fn source(target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((target, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip().to_canonical();
    (!source.is_unspecified()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::paths::Paths;
    use std::path::Path;

    fn found(listen: &str, addresses: &[&str]) -> (Vec<String>, bool) {
        let paths = Paths::of_dir(Path::new("/S"));
        let settings =
            Settings::parse(&format!("name = \"x\"\nlisten = {listen}"), &paths).unwrap();
        let listed = Addresses::Listed(
            addresses
                .iter()
                .map(|a| Network::parse(a).unwrap())
                .collect(),
        );
        let reach = reach(&settings, &HostName::parse("hosta").unwrap(), &listed, "").unwrap();
        (
            reach.addresses.iter().map(ToString::to_string).collect(),
            reach.warning.is_some(),
        )
    }

    #[test]
    fn loopback_for_loopback() {
        assert_eq!(
            found("[\"127.0.0.1\", \"::1\"]", &["127.0.0.1"]),
            (vec!["127.0.0.1".into()], false)
        );
        assert_eq!(
            found("[\"0.0.0.0\", \"::\"]", &["127.0.0.1"]),
            (vec!["127.0.0.1".into()], false)
        );
        assert_eq!(
            found("[\"::\"]", &["127.0.0.0/8"]),
            (vec!["127.0.0.1".into()], false)
        );
    }

    #[test]
    fn configured_addresses_that_suit() {
        let listen = "[\"192.0.2.9\", \"2001:db8::9\", \"127.0.0.1\"]";
        assert_eq!(
            found(listen, &["192.0.2.1"]),
            (vec!["192.0.2.9".into()], false)
        );
        assert_eq!(
            found(listen, &["10.0.0.0/8"]),
            (vec!["192.0.2.9".into()], false)
        );
        assert_eq!(
            found(listen, &["2001:db8::/32"]),
            (vec!["2001:db8::9".into()], false)
        );
        assert_eq!(
            found(listen, &["127.0.0.1", "192.0.2.1"]),
            (vec!["192.0.2.9".into(), "127.0.0.1".into()], false)
        );
    }

    #[test]
    fn unlikely_address_is_reported() {
        assert_eq!(
            found("[\"127.0.0.1\"]", &["192.0.2.1"]),
            (vec!["127.0.0.1".into()], true)
        );
    }
}
