//! The quiet time after a command's end, as an administrator or a user writes it. Pure.

use crate::config::words::quoted;
use crate::fault::Fault;

/// How long the outputs of a command that has ended must be quiet, while another process
/// holds them open, before its session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// This many seconds.
    Seconds(u32),
    /// Until the other process has closed them, however long that takes.
    UntilClosed,
}

/// The longest quiet time, seconds: a day, as in cosserver.toml.
const MOST: u32 = 86_400;

impl Linger {
    /// Parses `none` or a number of seconds.
    ///
    /// # Errors
    /// It is neither, or more than a day.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text == "none" {
            return Ok(Self::UntilClosed);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let seconds = text.parse().ok().filter(|n| digits && *n <= MOST);
        let wrong = || {
            let words = format!("{} is neither none nor 0 to {MOST} seconds", quoted(text));
            Fault::new(words)
        };
        seconds.map(Self::Seconds).ok_or_else(wrong)
    }

    /// Returns it in milliseconds for the relay; `u32::MAX`: until they are closed.
    pub fn milliseconds(self) -> u32 {
        match self {
            Self::Seconds(n) => n.saturating_mul(1000).min(u32::MAX - 1),
            Self::UntilClosed => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_seconds_or_none() {
        for (text, linger) in [
            ("0", Linger::Seconds(0)),
            ("86400", Linger::Seconds(MOST)),
            ("none", Linger::UntilClosed),
        ] {
            assert_eq!(Linger::parse(text).unwrap(), linger);
        }
        for text in ["", "-1", "+1", "86401", "2s", "None", "4294967295"] {
            assert!(Linger::parse(text).is_err(), "{text}");
        }
        assert_eq!(Linger::Seconds(2).milliseconds(), 2000);
        assert_eq!(Linger::UntilClosed.milliseconds(), u32::MAX);
    }
}
