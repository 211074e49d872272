//! Resource limits (getrlimit(2)) as 64-bit numbers on every machine.
//!
//! Used by every process. The C library's numbers have 32 bits on 32-bit machines; "no limit" is
//! [`UNLIMITED`] on all of them.

use nix::errno::Errno;
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// No limit (RLIM_INFINITY).
pub(in crate::sys) const UNLIMITED: u64 = u64::MAX;

/// Returns the soft and the hard limit. The unit is the resource's own.
///
/// # Errors
/// As getrlimit(2).
pub(in crate::sys) fn get(which: Resource) -> Result<(u64, u64), Errno> {
    getrlimit(which).map(|(soft, hard)| (widen(soft), widen(hard)))
}

/// Sets the soft and the hard limit. A value that the machine cannot express means no limit.
///
/// # Errors
/// As setrlimit(2).
pub(in crate::sys) fn set(which: Resource, soft: u64, hard: u64) -> Result<(), Errno> {
    setrlimit(which, narrow(soft), narrow(hard))
}

#[allow(
    clippy::useless_conversion,
    reason = "32 bits on 32-bit machines, 64 on others"
)]
fn widen(limit: rlim_t) -> u64 {
    if limit == nix::libc::RLIM_INFINITY {
        UNLIMITED
    } else {
        u64::from(limit)
    }
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "32 bits on 32-bit machines, 64 on others"
)]
fn narrow(limit: u64) -> rlim_t {
    rlim_t::try_from(limit).unwrap_or(nix::libc::RLIM_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_no_limit_whatever_the_width() {
        assert_eq!(widen(nix::libc::RLIM_INFINITY), UNLIMITED);
        assert_eq!(narrow(UNLIMITED), nix::libc::RLIM_INFINITY);
        assert_eq!(widen(narrow(1024)), 1024);
    }
}
