//! Names of users and subsystems, which requests carry and files list, and the test for characters
//! that may be displayed.
//!
//! A user's name reaches environments, PAM's items, logs and terminals. It is parsed once, where it
//! enters, into a type that nothing else can make. Pure; used by every program.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use super::limits;
use crate::fault::{Fault, quoted};

/// The name of a user: 1 to 255 bytes, not beginning with `-` (a program would take it for an
/// option), without `/`, `:`, `,`, white space, control characters and invisible characters. Upper
/// and lower case differ.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UserName(String);

impl UserName {
    /// Checks a name.
    ///
    /// # Errors
    /// The rule that the name breaks.
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
        if text.len() > limits::NAME {
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
            .any(|c| !is_shown(c) || c.is_whitespace() || "/:,".contains(c))
        {
            return wrong("it may not have / : , blanks or characters that cannot be shown");
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for UserName {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self, Fault> {
        Self::parse(text)
    }
}

impl Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for UserName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Returns whether this may be the name of a subsystem or an application: 1 to
/// [`limits::SERVICE_NAME`] letters, digits and `. _ - +`, no `-` first.
pub fn is_service_name(name: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+');
    (1..=limits::SERVICE_NAME).contains(&name.len())
        && !name.starts_with(b"-")
        && name.iter().all(plain)
}

/// Returns whether a character that another host chose may be displayed. Excluded are characters
/// that control a terminal, and invisible characters that change what is displayed (Unicode's Cc,
/// Cf, Zl and Zp, and other ignorable ones).
pub fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "a\u{1b}[2J",
            "a\u{202e}",
            "a\u{200b}",
            "a\0",
            &"u".repeat(256),
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
