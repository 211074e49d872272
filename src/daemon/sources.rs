//! Rules for the sources of unauthenticated connections: slots and penalties.
//!
//! The gate applies them over its own memory; the many monitors under inetd apply them over a table
//! that they share. A source is an IPv4 address or an IPv6 /64. Penalties are OpenSSH's: seconds
//! that add up to a maximum and take effect from a minimum on. Pure functions: nothing here keeps
//! state.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::ipc::gate::{Complaint, Limits};

pub use crate::source::Source;

/// Slots that a host listed in HOSTINFO keeps, whatever other sources do.
pub const RESERVED: usize = 64;

/// A list of addresses and networks.
#[derive(Default)]
pub struct Networks {
    hosts: HashSet<IpAddr>,
    networks: Vec<(IpAddr, u8)>,
}

impl Networks {
    /// Adds a network, by its address and prefix length.
    pub fn add(&mut self, ip: IpAddr, prefix: u8) {
        if prefix == if ip.is_ipv4() { 32 } else { 128 } {
            self.hosts.insert(ip);
        } else {
            self.networks.push((ip, prefix));
        }
    }

    /// Whether an address is in one of the networks.
    pub fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.hosts.contains(&ip)
            || self
                .networks
                .iter()
                .any(|(n, prefix)| within(ip, *n, *prefix))
    }
}

impl FromIterator<(IpAddr, u8)> for Networks {
    fn from_iter<T: IntoIterator<Item = (IpAddr, u8)>>(all: T) -> Self {
        let mut list = Self::default();
        for (ip, prefix) in all {
            list.add(ip, prefix);
        }
        list
    }
}

fn within(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            (u32::from(a) ^ u32::from(n))
                .checked_shr(32_u32.saturating_sub(prefix))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            (u128::from(a) ^ u128::from(n))
                .checked_shr(128_u32.saturating_sub(prefix))
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

/// Returns how many slots a source has, by what is left of its penalty. At least one.
pub fn slots(is_listed: bool, left: Duration, limits: &Limits) -> usize {
    let normal = usize::try_from(limits.silent_per_source).unwrap_or(usize::MAX);
    let min = Duration::from_secs(limits.penalty_min.into());
    if is_listed {
        normal.max(RESERVED)
    } else if !left.is_zero() && left >= min {
        1
    } else {
        normal
    }
}

/// Returns how many unauthenticated connections may exist already when one more comes. The last
/// slots are for sources that HOSTINFO lists.
pub fn room(is_listed: bool, limits: &Limits) -> usize {
    let reserved = if is_listed { 0 } else { limits.reserved };
    usize::try_from(limits.silent.saturating_sub(reserved)).unwrap_or(usize::MAX)
}

/// Returns what is left of a penalty after this many seconds were added.
pub fn after(left: Duration, seconds: u32, limits: &Limits) -> Duration {
    let most = Duration::from_secs(limits.penalty_max.into());
    left.saturating_add(Duration::from_secs(seconds.into()))
        .min(most)
}

/// Returns when a refusal leaves.
///
/// That is the first multiple of the interval after the request that has not passed and, if PAM has
/// checked something, is at least half an interval after the check began. Which multiple it is does
/// not depend on how long a check of less than half an interval took, because that depends on the
/// cause.
pub fn refusal_leaves_at(
    requested: Instant,
    begun: Option<Instant>,
    now: Instant,
    interval: Duration,
) -> Instant {
    let interval = interval.max(Duration::from_secs(1));
    let settled = begun.map_or(requested, |begun| begun.max(requested) + interval / 2);
    let earliest = now.max(settled);
    let mut at = requested + interval;
    while at < earliest {
        at += interval;
    }
    at
}

/// Returns the penalty for a complaint of the gate, seconds.
pub const fn price(complaint: Complaint, limits: &Limits) -> u32 {
    match complaint {
        Complaint::Malformed | Complaint::Left | Complaint::Probe => limits.penalty_malformed,
        Complaint::SilentHello | Complaint::SilentHandshake | Complaint::SilentLogin => {
            limits.penalty_silent
        }
        Complaint::Evicted | Complaint::NoSlot => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_contains_only_its_addresses() {
        let all = [("192.0.2.0", 24), ("2001:db8::", 32), ("198.51.100.7", 32)];
        let all = all.map(|(ip, prefix)| (ip.parse::<IpAddr>().unwrap(), prefix));
        let list: Networks = all.into_iter().collect();
        for (ip, is_in) in [
            ("192.0.2.200", true),
            ("::ffff:192.0.2.200", true),
            ("192.0.3.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
        ] {
            assert_eq!(list.has(ip.parse().unwrap()), is_in, "{ip}");
        }
        let everybody: Networks = [("0.0.0.0".parse().unwrap(), 0)].into_iter().collect();
        assert!(everybody.has("203.0.113.9".parse().unwrap()));
    }

    #[test]
    fn duration_of_a_check_does_not_change_the_refusal_time() {
        let requested = Instant::now();
        let at = |ms| requested + Duration::from_millis(ms);
        let interval = Duration::from_secs(2);
        let leaves = |begun, now| {
            refusal_leaves_at(requested, Some(at(begun)), at(now), interval) - requested
        };
        for (begun, now, seconds) in [
            (0, 1, 2),
            (0, 990, 2),
            (990, 1_500, 2),
            // Without the minimum, the check's duration would decide on which side of the multiple
            // it leaves.
            (1_990, 1_991, 4),
            (1_990, 2_040, 4),
            (2_500, 2_600, 4),
            // No refusal can leave before its check ends.
            (0, 4_100, 6),
        ] {
            assert_eq!(
                leaves(begun, now),
                Duration::from_secs(seconds),
                "{begun} {now}"
            );
        }
        // Without a check the next multiple is used, however long the look-ups took.
        let leaves = refusal_leaves_at(requested, None, at(1_990), interval);
        assert_eq!(leaves, at(2_000));
    }
}
