//! The source of a connection, by which its shares of limited resources are counted: an IPv4
//! address or an IPv6 /64. Used by gate and monitor. Pure: nothing here keeps state or decides.

use std::net::IpAddr;

/// A source: an IPv4 address, or the first half of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u64, bool);

impl Source {
    /// Returns the source that an address belongs to.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(a) => Self(u64::from(u32::from(a)), false),
            IpAddr::V6(a) => {
                let half = u128::from(a) >> 64;
                Self(u64::try_from(half).unwrap_or_default(), true)
            }
        }
    }

    /// Whether it is an IPv6 network.
    pub const fn is_v6(self) -> bool {
        self.1
    }

    /// Returns its number among the sources of its family.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns the source of this number and family.
    pub const fn numbered(number: u64, is_v6: bool) -> Self {
        Self(number, is_v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_source_and_an_ipv4_address_is_one_however_written() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        for source in [of("2001:db8::1"), of("192.0.2.1")] {
            assert_eq!(Source::numbered(source.number(), source.is_v6()), source);
        }
    }
}
