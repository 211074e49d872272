//! `users=`: the users of a calling host and the local users that they may run as, if the host's
//! signer vouches for them. Pure.

use std::fmt;

use super::entry::list;
use crate::config::name::UserName;
use crate::fault::Fault;

/// The mapping of a host's users to local users.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Users {
    /// No `users=`: each user maps to the local user of the same name, but never to root.
    SameName,
    /// Only these pairs; if empty, no user is allowed.
    Pairs(Vec<UserPair>),
}

/// A user of the calling host, and a local user that they may run as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserPair {
    /// The user on the calling host.
    pub there: UserName,
    /// The local user.
    pub here: UserName,
}

/// The user that is never reached by an equal name without an entry.
const ROOT: &str = "root";

impl UserPair {
    /// Parses `alice`, or `bob:operator`.
    ///
    /// # Errors
    /// One of the two is not a user name.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let (there, here) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            there: UserName::parse(there)?,
            here: UserName::parse(here)?,
        })
    }
}

impl fmt::Display for UserPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.there == self.here {
            return f.pad(self.here.as_str());
        }
        write!(f, "{}:{}", self.there, self.here)
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameName => Ok(()),
            Self::Pairs(pairs) if pairs.is_empty() => f.write_str(NOBODY),
            Self::Pairs(pairs) => {
                for (i, pair) in pairs.iter().enumerate() {
                    write!(f, "{}{pair}", if i == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// The value of `users=` that allows no user.
const NOBODY: &str = "-";

impl Users {
    /// Parses the value of `users=`.
    ///
    /// # Errors
    /// Returns what is wrong with the value.
    pub fn parse(value: &str) -> Result<Self, Fault> {
        if value == NOBODY {
            return Ok(Self::Pairs(Vec::new()));
        }
        list(value, UserPair::parse).map(Self::Pairs)
    }

    /// Returns the local user for the remote user `there` who asks for `asked`; `None`: denied. A
    /// user who asks for their own name, and is listed only with other names, gets the first of
    /// these.
    pub fn map_user(&self, there: &UserName, asked: &UserName) -> Option<UserName> {
        match self {
            Self::SameName => (there == asked && asked.as_str() != ROOT).then(|| asked.clone()),
            Self::Pairs(pairs) => {
                let mut mapped = pairs.iter().filter(|p| p.there == *there);
                let named = mapped.clone().find(|p| p.here == *asked);
                let first = || mapped.next().filter(|_| there == asked);
                named.or_else(first).map(|p| p.here.clone())
            }
        }
    }

    /// Returns whether root's account may be used under any name: only if `users=` lists the users.
    pub const fn name_their_users(&self) -> bool {
        matches!(self, Self::Pairs(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_user(value: Option<&str>, there: &str, asked: &str) -> Option<String> {
        let users = value.map_or(Users::SameName, |v| Users::parse(v).unwrap());
        let name = |n| UserName::parse(n).unwrap();
        users
            .map_user(&name(there), &name(asked))
            .map(|u| u.to_string())
    }

    #[test]
    fn without_user_map_only_the_same_name_except_root() {
        assert_eq!(map_user(None, "alice", "alice").as_deref(), Some("alice"));
        assert_eq!(map_user(None, "alice", "bob"), None);
        assert_eq!(map_user(None, "alice", "root"), None);
        assert_eq!(map_user(None, "root", "root"), None);
        assert_eq!(map_user(None, "root", "alice"), None);
    }

    #[test]
    fn user_map_pairs_and_nobody() {
        let some = Some("alice,bob:operator,bob:backup,carol:root");
        assert_eq!(map_user(some, "alice", "alice").as_deref(), Some("alice"));
        assert_eq!(map_user(some, "alice", "operator"), None);
        assert_eq!(map_user(some, "alice", "root"), None);
        // A client that names no user asks for its own name.
        assert_eq!(map_user(some, "bob", "bob").as_deref(), Some("operator"));
        assert_eq!(map_user(some, "bob", "backup").as_deref(), Some("backup"));
        assert_eq!(map_user(some, "bob", "root"), None);
        assert_eq!(map_user(some, "carol", "root").as_deref(), Some("root"));
        assert_eq!(map_user(some, "carol", "carol").as_deref(), Some("root"));
        for user in ["dave", "operator", "root"] {
            assert_eq!(map_user(some, user, user), None, "{user}");
        }
        assert_eq!(map_user(Some("-"), "alice", "alice"), None);
    }

    #[test]
    fn written_as_it_is_read() {
        for value in ["-", "alice", "alice,bob:operator", "bob:a,bob:b"] {
            assert_eq!(Users::parse(value).unwrap().to_string(), value);
        }
        for wrong in [
            "", ",", "a,", "a:b:c", ":a", "a:", "a,a", "-,a", "a b", "-x",
        ] {
            assert!(Users::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
