//! A machine's ID, its name, and times. Pure.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{keys, utc, words};
use crate::fault::Fault;
use crate::secret::{PublicKey, to_hex};

/// The ID of a machine (Comet's session ID): the fingerprint of its machine key, 128 bits of
/// SHA-256, shown as 32 hexadecimal digits. The handshake proves the key, so a peer cannot claim
/// another's ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// Returns the ID of the machine that has this key.
    pub fn of(key: &PublicKey) -> Self {
        // A fingerprint is 32 hexadecimal digits.
        Self::parse(&keys::fingerprint(key)).unwrap_or(Self([0; 16]))
    }

    /// Parses an ID as it is shown; blanks and colons between its digits are ignored.
    ///
    /// # Errors
    /// The text does not have 32 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::new(format!(
                "{} is no machine ID: it has 32 hexadecimal digits, as `cos key show` prints it on that machine",
                words::quoted(text)
            ))
        };
        let digits = text.chars().filter(|c| !matches!(c, ' ' | ':'));
        let digits: Option<Vec<u8>> = digits
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect();
        let digits = digits.filter(|d| d.len() == 32).ok_or_else(wrong)?;
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |n, d| n << 4 | d);
        }
        Ok(Self(id))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// The name of a machine or of its user: 1 to 251 printable bytes, without blanks around them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

impl Name {
    /// The longest, bytes: that of a host name.
    pub const LONGEST: usize = crate::config::name::HOST_MAX;

    /// Checks a name; blanks around it are removed.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let text = text.trim();
        let why = if text.is_empty() {
            "it is empty"
        } else if text.len() > Self::LONGEST {
            "it is longer than 251 bytes"
        } else if !text.chars().all(words::is_shown) {
            "it has characters that cannot be shown"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(Fault::new(format!(
            "{} is no name: {why}",
            words::quoted(text)
        )))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The time of an event, in seconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Occurred(pub i64);

impl Occurred {
    /// Returns the current time.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since.unwrap_or(Duration::ZERO).as_secs();
        Self(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// Parses a time as it is shown; `None` if the text is no time.
    pub fn parse(text: &str) -> Option<Self> {
        i64::try_from(utc::parse(text)?).ok().map(Self)
    }

    /// Returns whether it is at least `age` ago, or in the future: a clock may have been corrected.
    pub fn is_past(self, age: Duration) -> bool {
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let passed = Self::now().0.saturating_sub(self.0);
        passed >= age || passed < 0
    }
}

impl fmt::Display for Occurred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&utc::format(u64::try_from(self.0).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_fingerprint() {
        let key = PublicKey([7; 32]);
        let id = Id::of(&key);
        assert_eq!(id.to_string(), keys::fingerprint(&key));
        assert_eq!(Id::parse(&id.to_string().to_uppercase()), Ok(id));
        let grouped = id.to_string();
        let grouped = format!("{} {}:{}", &grouped[..4], &grouped[4..8], &grouped[8..]);
        assert_eq!(Id::parse(&grouped), Ok(id));
        for wrong in ["", "12", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32)] {
            assert!(Id::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_can_be_shown() {
        assert_eq!(
            Name::parse("  Reception PC ").unwrap().as_str(),
            "Reception PC"
        );
        for wrong in ["", " ", "a\nb", "a\u{202e}b", "\u{1b}[2J", &"x".repeat(252)] {
            assert!(Name::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
