//! Addresses and networks as the host table lists them. The monitor uses them to check a host's
//! address and to listen; the client uses them to dial. Pure, except that it asks the system for
//! the number of a zone's interface.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::words::quoted;
use crate::fault::Fault;

/// The longest name of an interface, in bytes (IFNAMSIZ less its NUL).
const ZONE_MAX: usize = 15;

/// The interface of a link-local IPv6 address, by its name here or its number. All zeros: none.
type Zone = [u8; ZONE_MAX];

/// One address: IPv4, or IPv6 that may have a zone (`fe80::1%eth0`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    ip: IpAddr,
    zone: Zone,
}

impl Address {
    /// Parses `192.0.2.1`, `2001:db8::1` or `fe80::1%eth0`, with or without brackets. IPv4 written
    /// as IPv4-mapped IPv6 is IPv4.
    ///
    /// # Errors
    /// The text is not an address.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Self::read(text).map_err(|why| {
            let text = quoted(text);
            Fault::new(format!("{text} is no address: {why}"))
        })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let bare = inner.unwrap_or(text);
        let (address, zone) = match bare.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (bare, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| hint(text))?;
        let ip = ip.to_canonical();
        let Some(name) = zone else {
            return Ok(Self::from(ip));
        };
        let plain = |b: u8| b.is_ascii_graphic() && !b"/,%[]\"'#".contains(&b);
        let may_have_one = matches!(ip, IpAddr::V6(a) if is_of_a_link(a));
        if !may_have_one || name.is_empty() || !name.bytes().all(plain) {
            return Err(
                "an interface after % is for an IPv6 address of a link, as in fe80::1%eth0",
            );
        }
        let mut zone = [0; ZONE_MAX];
        let room = zone.get_mut(..name.len());
        room.ok_or("the interface's name is longer than 15 bytes")?
            .copy_from_slice(name.as_bytes());
        Ok(Self { ip, zone })
    }

    /// Returns the address without its zone, for comparison with a peer's.
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Returns the interface's name or number; empty if there is none.
    pub fn zone(&self) -> &str {
        let end = self.zone.iter().position(|b| *b == 0);
        let name = self.zone.get(..end.unwrap_or(ZONE_MAX)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }

    /// Returns the address with a port, to dial it or listen on it.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn with_port(&self, port: u16) -> io::Result<SocketAddr> {
        let IpAddr::V6(ip) = self.ip else {
            return Ok(SocketAddr::new(self.ip, port));
        };
        let zone = match (self.zone(), self.zone().parse()) {
            ("", _) => 0,
            (_, Ok(number)) => number,
            (name, Err(_)) => nix::net::if_::if_nametoindex(name)?,
        };
        Ok(SocketAddrV6::new(ip, port, 0, zone).into())
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self {
            ip: ip.to_canonical(),
            zone: [0; ZONE_MAX],
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone() {
            "" => write!(f, "{}", self.ip),
            zone => write!(f, "{}%{zone}", self.ip),
        }
    }
}

/// Returns whether an IPv6 address denotes a host on one link only: link-local unicast, or
/// multicast of link or interface scope.
fn is_of_a_link(a: Ipv6Addr) -> bool {
    let [first, ..] = a.segments();
    a.is_unicast_link_local() || (a.is_multicast() && matches!(first & 0xf, 1 | 2))
}

/// An address, or all addresses that begin with the same bits (CIDR). IPv4 written as IPv4-mapped
/// IPv6 (`::ffff:192.0.2.1`) is IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u32,
    /// The zone of a single address, used only for dialing: [`Network::contains`] ignores it.
    zone: Zone,
}

impl Network {
    /// Returns the network of one address.
    pub fn host(address: impl Into<Address>) -> Self {
        let address = address.into();
        Self {
            base: address.ip,
            prefix: width(address.ip),
            zone: address.zone,
        }
    }

    /// Parses `192.0.2.1`, `10.0.0.0/8`, `2001:db8::1` or `2001:db8::/32`; an address as
    /// [`Address::parse`] does.
    ///
    /// # Errors
    /// The text is neither, or bits beyond the prefix are set; the fault names the network that was
    /// probably meant.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong =
            |why: String| Fault::new(format!("{} is no address or network: {why}", quoted(text)));
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let Some(prefix) = prefix else {
            let one = Address::read(address).map_err(|why| wrong(why.to_owned()))?;
            return Ok(Self::host(one));
        };
        let given: IpAddr = address
            .parse()
            .map_err(|_| wrong(hint(address).to_owned()))?;
        let bits: u32 = prefix
            .parse()
            .ok()
            .filter(|_| prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit()))
            .filter(|bits| *bits <= width(given))
            .ok_or_else(|| wrong(format!("after / comes a number from 0 to {}", width(given))))?;
        let base = masked(given, bits);
        if base != given {
            return Err(wrong(format!(
                "bits after the first {bits} are set; did you mean {base}/{bits}?"
            )));
        }
        // ::ffff:0:0/96 and longer are IPv4 networks in IPv6 form.
        let canonical = base.to_canonical();
        match bits.checked_sub(128 - width(canonical)) {
            Some(prefix) if canonical != base => Ok(Self {
                base: canonical,
                prefix,
                zone: [0; ZONE_MAX],
            }),
            _ => Ok(Self {
                base,
                prefix: bits,
                zone: [0; ZONE_MAX],
            }),
        }
    }

    /// Returns whether it contains an address. An IPv4-mapped IPv6 address is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && masked(address, self.prefix) == self.base
    }

    /// Returns the address, if it is one address and not a network.
    pub fn single(&self) -> Option<Address> {
        (self.prefix == width(self.base)).then_some(Address {
            ip: self.base,
            zone: self.zone,
        })
    }

    /// Returns its first address and the length of its prefix.
    pub fn parts(&self) -> (IpAddr, u8) {
        (self.base, u8::try_from(self.prefix).unwrap_or(u8::MAX))
    }

    /// Returns an address in it to try a route to: itself, or a network's first one.
    pub fn first(&self) -> IpAddr {
        if self.single().is_some() {
            return self.base;
        }
        match self.base {
            IpAddr::V4(a) => Ipv4Addr::from(u32::from(a) | 1).into(),
            IpAddr::V6(a) => Ipv6Addr::from(u128::from(a) | 1).into(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            // With its zone.
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}/{}", self.base, self.prefix),
        }
    }
}

/// Returns the number of bits of an address of that family.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Returns the address with all bits after the prefix cleared.
fn masked(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            Ipv4Addr::from(u32::from(a) & mask).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            Ipv6Addr::from(u128::from(a) & mask).into()
        }
    }
}

/// Returns a hint at what is probably wrong with an invalid address.
fn hint(text: &str) -> &'static str {
    if text.contains('%') {
        "an interface after % is for one IPv6 address of a link, as in fe80::1%eth0"
    } else if text.starts_with('[') {
        "in brackets there is one address"
    } else if text.contains('*') {
        "write a network as 192.0.2.0/24"
    } else if text.bytes().any(|b| b.is_ascii_alphabetic()) && !text.contains(':') {
        "names are not looked up here; leave addr= away and the host's own name is"
    } else {
        "write 192.0.2.1, 10.0.0.0/8, 2001:db8::1 or 2001:db8::/32"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Network {
        Network::parse(text).unwrap()
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn containing() {
        assert!(net("192.0.2.1").contains(ip("192.0.2.1")));
        assert!(!net("192.0.2.1").contains(ip("192.0.2.2")));
        assert!(net("192.0.2.1").contains(ip("::ffff:192.0.2.1")));
        assert!(net("::ffff:192.0.2.1").contains(ip("192.0.2.1")));
        assert!(net("::ffff:10.0.0.0/104").contains(ip("10.255.0.1")));
        assert!(!net("::ffff:10.0.0.0/104").contains(ip("11.0.0.1")));
        assert!(net("10.0.0.0/8").contains(ip("10.1.2.3")));
        assert!(!net("10.0.0.0/8").contains(ip("11.1.2.3")));
        assert!(net("0.0.0.0/0").contains(ip("203.0.113.9")));
        assert!(!net("0.0.0.0/0").contains(ip("::1")));
        assert!(net("::/0").contains(ip("2001:db8::1")));
        assert!(!net("::/0").contains(ip("192.0.2.1")));
        assert!(!net("::/0").contains(ip("::ffff:192.0.2.1")));
        assert!(net("2001:db8::/32").contains(ip("2001:db8:ffff::1")));
        assert!(!net("2001:db8::/32").contains(ip("2001:db9::1")));
        assert!(net("192.0.2.0/31").contains(ip("192.0.2.1")));
    }

    #[test]
    fn one_or_many() {
        assert_eq!(net("192.0.2.1").single(), Some(ip("192.0.2.1").into()));
        assert_eq!(net("192.0.2.1/32").single(), Some(ip("192.0.2.1").into()));
        assert_eq!(net("10.0.0.0/8").single(), None);
        assert_eq!(net("10.0.0.0/8").first(), ip("10.0.0.1"));
        assert_eq!(net("2001:db8::/32").first(), ip("2001:db8::1"));
        assert_eq!(net("::1").first(), ip("::1"));
        assert_eq!(net("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(net("::FFFF:192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(net("::ffff:0:0/96").to_string(), "0.0.0.0/0");
    }

    #[test]
    fn brackets_mapped_addresses_and_zones() {
        for (text, shown, address) in [
            ("[127.0.0.1]", "127.0.0.1", "127.0.0.1:1"),
            ("[::1]", "::1", "[::1]:1"),
            ("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.1:1"),
            ("[::ffff:127.0.0.1]", "127.0.0.1", "127.0.0.1:1"),
            ("fe80::1%7", "fe80::1%7", "[fe80::1%7]:1"),
            ("[FE80::1%7]", "fe80::1%7", "[fe80::1%7]:1"),
        ] {
            let one = Address::parse(text).unwrap();
            assert_eq!(one.to_string(), shown);
            assert_eq!(one.with_port(1).unwrap().to_string(), address);
            let network = net(text);
            assert_eq!(
                (network.to_string(), network.single()),
                (shown.into(), Some(one))
            );
            assert!(network.contains(one.ip()));
            assert_eq!(Address::parse(shown), Ok(one));
        }
        // An interface's name becomes its number; the second interface does not exist.
        let lo = Address::parse("fe80::1%lo").unwrap();
        if let Ok(number) = nix::net::if_::if_nametoindex("lo") {
            let SocketAddr::V6(lo) = lo.with_port(1).unwrap() else {
                panic!("IPv4");
            };
            assert_eq!(lo.scope_id(), number);
        }
        let none = Address::parse("fe80::1%no-such-zone").unwrap();
        assert!(none.with_port(1).is_err());
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/0008",
            "010.0.0.1",
            "hosta",
            "1.2.3",
            "[::1",
            "[]",
            "[[::1]]",
            "[10.0.0.0/8]",
            "[::]/0",
            "fe80::1%",
            "fe80::1%0123456789abcdef",
            "fe80::1%a/b",
            "fe80::1%a,b",
            "2001:db8::1%eth0",
            "127.0.0.1%lo",
            "::ffff:127.0.0.1%lo",
            "fe80::%eth0/64",
            "10.*",
            "1.2.3.4/8/9",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad:?}");
        }
        let told = Network::parse("10.1.2.3/8").unwrap_err().to_string();
        assert!(told.contains("did you mean 10.0.0.0/8?"), "{told}");
    }
}
