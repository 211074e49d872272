//! Names of hosts and of users, checked once where they come in, so that
//! nothing after it has to ask whether a name is safe in a path, an argument
//! or a log line. Pure, but for the machine's own name; used by every program that reads the host table.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use super::words::quoted;
use crate::fault::Fault;

/// The longest host name in bytes: a file name's 255 less `.out`.
pub const HOST_MAX: usize = 251;
/// The longest user name in bytes: more than any system's own limit.
pub const USER_MAX: usize = 255;

/// The name of a host: 1 to 251 of the characters `A-Z a-z 0-9 . _ -`, not
/// beginning with `.` or `-`, kept in lower case. It is safe as a file name
/// and as an argument.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostName(String);

impl HostName {
    /// The name that this machine has for itself, whole (gethostname(2)).
    ///
    /// # Errors
    /// It has none, or one that is no host name.
    pub fn of_this_machine() -> Result<Self, Fault> {
        let name = nix::unistd::gethostname()?;
        Self::parse(&name.to_string_lossy()).map_err(|e| e.while_doing("the machine's own name"))
    }

    /// Checks a name and puts it into lower case.
    ///
    /// # Errors
    /// What is wrong with the name.
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

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a user: 1 to 255 bytes, not beginning with `-` (it would be an
/// option to somebody), without `/`, `:`, `,`, white space or control
/// characters. Upper and lower case differ.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UserName(String);

impl UserName {
    /// Checks a name.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            Err(Fault::new(format!(
                "{} is no user name: {why}",
                quoted(text)
            )))
        };
        if text.is_empty() {
            return wrong("it is empty");
        }
        if text.len() > USER_MAX {
            return wrong("it is longer than 255 bytes");
        }
        if text.starts_with('-') {
            return wrong("it begins with -");
        }
        if text == "." || text == ".." {
            return wrong("it is the name of a folder");
        }
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "/:,".contains(c))
        {
            return wrong("it may not have / : , blanks or control characters");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! spoken {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = Fault;
            fn from_str(text: &str) -> Result<Self, Fault> {
                Self::parse(text)
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
spoken!(HostName);
spoken!(UserName);

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

    #[test]
    fn user_names() {
        for good in [
            "root",
            "DOM\\jo",
            "jo@example.org",
            "_www",
            "jörg",
            &"u".repeat(255),
        ] {
            assert_eq!(UserName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-f",
            "-froot",
            "a b",
            "a/b",
            "a:b",
            "a,b",
            "a\n",
            "a\u{85}",
            "..",
            "a\0",
            &"u".repeat(256),
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
