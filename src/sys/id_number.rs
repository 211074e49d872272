//! The ID of a user or group that a process can switch to.
//!
//! Used by every process that decodes or uses an account. Must never hold `(uid_t)-1`, which tells
//! setresuid(2), setresgid(2) and chown(2) to change nothing: a process that should become that
//! user would stay root. Some C libraries turn every number in `/etc/passwd` that is too large into
//! it.

use std::fmt;
use std::str::FromStr;

/// The ID of a user or group, never `(uid_t)-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)] // a slice of them is setgroups(2)'s
pub struct IdNumber(u32);

impl IdNumber {
    /// The ID of root.
    pub const ROOT: Self = Self(0);
    /// The kernel's overflow ID, shown for a user without an ID here; most systems call that user
    /// `nobody`.
    pub const OVERFLOW: Self = Self(65_534);

    /// Returns the ID; `None` for the number that means "no change".
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            u32::MAX => None,
            number => Some(Self(number)),
        }
    }

    /// Returns the number for the kernel.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns all of these, or `None` if one is not valid.
    pub fn all(numbers: impl IntoIterator<Item = u32>) -> Option<Vec<Self>> {
        numbers.into_iter().map(Self::new).collect()
    }
}

impl FromStr for IdNumber {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().and_then(Self::new).ok_or(())
    }
}

impl fmt::Display for IdNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq<u32> for IdNumber {
    fn eq(&self, other: &u32) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_no_number() {
        assert_eq!(IdNumber::new(u32::MAX), None);
        assert_eq!(IdNumber::new(0), Some(IdNumber::ROOT));
        assert_eq!(IdNumber::all([1, u32::MAX]), None);
        for wrong in ["4294967295", "4294967296", "18446744073709551615", "-1", ""] {
            assert_eq!(wrong.parse::<IdNumber>(), Err(()), "{wrong}");
        }
        let most = u32::MAX - 1;
        assert_eq!(most.to_string().parse(), Ok(IdNumber::new(most).unwrap()));
    }
}
