//! Addresses and networks as the host table lists them. Pure; used by the
//! monitor for whom a host may be, and by the client for where to dial.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::words::quoted;
use crate::fault::Fault;

/// An address, or all addresses that begin with the same bits (CIDR). IPv4
/// written as IPv4-mapped IPv6 (`::ffff:192.0.2.1`) is IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    /// One address.
    pub fn host(address: IpAddr) -> Self {
        let base = address.to_canonical();
        Self {
            base,
            prefix: width(base),
        }
    }

    /// Reads `192.0.2.1`, `10.0.0.0/8`, `2001:db8::1` or `2001:db8::/32`.
    ///
    /// # Errors
    /// It is neither, or bits beyond the prefix are set; the fault names the
    /// network that was probably meant.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong =
            |why: String| Fault::new(format!("{} is no address or network: {why}", quoted(text)));
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let given: IpAddr = address
            .parse()
            .map_err(|_| wrong(hint(address).to_owned()))?;
        let Some(prefix) = prefix else {
            return Ok(Self::host(given));
        };
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
        // ::ffff:0:0/96 and longer are IPv4 networks in another dress.
        let canonical = base.to_canonical();
        match bits.checked_sub(128 - width(canonical)) {
            Some(prefix) if canonical != base => Ok(Self {
                base: canonical,
                prefix,
            }),
            _ => Ok(Self { base, prefix: bits }),
        }
    }

    /// Whether an address is in it. An IPv4-mapped IPv6 address is IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && masked(address, self.prefix) == self.base
    }

    /// The address, when it is one address and not a network.
    pub fn single(&self) -> Option<IpAddr> {
        (self.prefix == width(self.base)).then_some(self.base)
    }

    /// Its first address and how many leading bits count.
    pub fn parts(&self) -> (IpAddr, u8) {
        (self.base, u8::try_from(self.prefix).unwrap_or(u8::MAX))
    }

    /// An address in it to try a route to: itself, or a network's first one.
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
            Some(address) => write!(f, "{address}"),
            None => write!(f, "{}/{}", self.base, self.prefix),
        }
    }
}

/// How many bits an address of that kind has.
fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits but the first ones cleared.
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

/// What is probably wrong with something that should have been an address.
fn hint(text: &str) -> &'static str {
    if text.contains('%') {
        "an interface after % is not supported"
    } else if text.starts_with('[') {
        "write an IPv6 address without brackets"
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
        assert_eq!(net("192.0.2.1").single(), Some(ip("192.0.2.1")));
        assert_eq!(net("192.0.2.1/32").single(), Some(ip("192.0.2.1")));
        assert_eq!(net("10.0.0.0/8").single(), None);
        assert_eq!(net("10.0.0.0/8").first(), ip("10.0.0.1"));
        assert_eq!(net("2001:db8::/32").first(), ip("2001:db8::1"));
        assert_eq!(net("::1").first(), ip("::1"));
        assert_eq!(net("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(net("::FFFF:192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(net("::ffff:0:0/96").to_string(), "0.0.0.0/0");
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
            "[::1]",
            "fe80::1%eth0",
            "10.*",
            "1.2.3.4/8/9",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad:?}");
        }
        let told = Network::parse("10.1.2.3/8").unwrap_err().to_string();
        assert!(told.contains("did you mean 10.0.0.0/8?"), "{told}");
    }
}
