//! The number of a user or group, as a process can become it.
//!
//! Used by every process that decodes or uses an account. Must never hold `(uid_t)-1`, which
//! tells setresuid(2), setresgid(2) and chown(2) to change nothing: whoever was to become that
//! user would stay root. Some C libraries make it of every number in `/etc/passwd` that is too
//! large.

use std::fmt;
use std::str::FromStr;

/// The number of a user or group, and not `(uid_t)-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)] // a slice of them is setgroups(2)'s
pub struct IdNumber(u32);

impl IdNumber {
    /// Root's.
    pub const ROOT: Self = Self(0);
    /// What the kernel shows for a user who has no number here, and most systems call nobody.
    pub const OVERFLOW: Self = Self(65_534);

    /// This number; `None`: it is the one that means "no change".
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            u32::MAX => None,
            number => Some(Self(number)),
        }
    }

    /// The number, as the kernel takes it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// All of these, or `None` where one is none.
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

impl From<IdNumber> for u64 {
    fn from(number: IdNumber) -> Self {
        number.0.into()
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
