//! Host names, checked once at the input, and user names, which the protocol also carries
//! ([`crate::protocol::name`]). Later code need not ask whether a name is safe in a path, an
//! argument or a log line. Pure, except for the machine's own name. Used by every program that
//! reads the host table.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use super::words::quoted;
use crate::fault::Fault;

pub use crate::protocol::name::UserName;

/// The longest host name in bytes: a file name's 255 less `.out`.
pub const HOST_MAX: usize = 251;

/// The name of a host: 1 to 251 of the characters `A-Z a-z 0-9 . _ -`, not beginning with `.` or
/// `-`, kept in lower case. It is safe as a file name and as an argument.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostName(String);

impl HostName {
    /// Returns this machine's own name, complete (gethostname(2)).
    ///
    /// # Errors
    /// It has none, or one that is not a host name.
    pub fn of_this_machine() -> Result<Self, Fault> {
        let name = nix::unistd::gethostname()?;
        Self::parse(&name.to_string_lossy()).map_err(|e| e.while_doing("the machine's own name"))
    }

    /// Checks a name and converts it to lower case.
    ///
    /// # Errors
    /// Returns what is wrong with the name.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            Err(Fault::new(format!(
                "{} is no host name: {why}",
                quoted(text)
            )))
        };
        if text.is_empty() {
            return wrong("it is empty");
        }
        if text.len() > HOST_MAX {
            return wrong("it is longer than 251 bytes");
        }
        if text.starts_with(['.', '-']) {
            return wrong("it begins with . or -");
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        {
            return wrong("it may have letters, digits, . _ and - only");
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// Returns the name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for HostName {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        Self::parse(text)
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        assert_eq!(
            HostName::parse("Host-A.Example_1").unwrap().as_str(),
            "host-a.example_1"
        );
        assert!(HostName::parse(&"a".repeat(251)).is_ok());
        for bad in [
            "", ".", "..", ".hidden", "-rf", "a/b", "a b", "a\0", "hôte", "a\n", "a:b", "a,b", "*",
        ] {
            assert!(HostName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(HostName::parse(&"a".repeat(252)).is_err());
    }
}
