//! What the crate `syslog` uses of the crate `time`: the time in UTC, in the two forms of syslog's
//! protocols.
//!
//! Replaces the published `time` (`[patch.crates-io]` in Cargo.toml): its versions before 0.3.47
//! have RUSTSEC-2026-0009, and later ones need Rust 1.88. cosserver has its own formatter
//! (`src/log.rs`), so nothing here runs in it; the code is correct all the same.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetDateTime {
    /// Seconds since 1970-01-01.
    seconds: u64,
    nanosecond: u32,
}

/// The parts of a moment.
struct Parts {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl OffsetDateTime {
    /// Returns the current time; 1970 if the clock is before that.
    pub fn now_utc() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default();
        Self {
            seconds: since.as_secs(),
            nanosecond: since.subsec_nanos(),
        }
    }

    /// Returns the nanoseconds within the second.
    pub const fn nanosecond(self) -> u32 {
        self.nanosecond
    }

    /// Returns the same moment with other nanoseconds.
    ///
    /// # Errors
    /// A second does not have that many.
    pub const fn replace_nanosecond(self, nanosecond: u32) -> Result<Self, error::ComponentRange> {
        if nanosecond >= 1_000_000_000 {
            return Err(error::ComponentRange);
        }
        Ok(Self { nanosecond, ..self })
    }

    /// Formats the moment.
    ///
    /// # Errors
    /// None: the type is that of the published crate.
    pub fn format(self, form: &impl format_description::Form) -> Result<String, error::Format> {
        Ok(form.of(self))
    }

    /// Computes the parts. Counts years from 1 March, so that a leap day comes last, in eras of 400
    /// years, which all have the same number of days.
    const fn parts(self) -> Parts {
        const DAY: u64 = 86_400;
        const ERA: u64 = 146_097;
        // From 1 March of the year 0.
        let days = self.seconds / DAY + 719_468;
        let (era, day) = (days / ERA, days % ERA);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let is_next_year = month >= 10;
        Parts {
            year: era * 400 + year + is_next_year as u64,
            month: if is_next_year { month - 9 } else { month + 3 },
            day: day - (153 * month + 2) / 5 + 1,
            hour: self.seconds / 3600 % 24,
            minute: self.seconds / 60 % 60,
            second: self.seconds % 60,
        }
    }
}

/// The formats.
pub mod format_description {
    use super::{OffsetDateTime, error};

    /// A format.
    pub trait Form {
        /// Formats a moment.
        fn of(&self, moment: OffsetDateTime) -> String;
    }

    /// The format of RFC 3164.
    #[derive(Debug, Clone, Copy)]
    pub struct Rfc3164;

    /// Returns the format of this description, of which there is one.
    ///
    /// # Errors
    /// The description is another.
    pub fn parse(description: &str) -> Result<Rfc3164, error::InvalidFormatDescription> {
        match description {
            "[month repr:short] [day] [hour]:[minute]:[second]" => Ok(Rfc3164),
            _ => Err(error::InvalidFormatDescription),
        }
    }

    impl Form for Rfc3164 {
        fn of(&self, moment: OffsetDateTime) -> String {
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let at = moment.parts();
            let from = usize::try_from(at.month * 3).unwrap_or(3) - 3;
            let month = MONTHS.get(from..from + 3).unwrap_or_default();
            let (day, hour, minute, second) = (at.day, at.hour, at.minute, at.second);
            format!("{month} {day:02} {hour:02}:{minute:02}:{second:02}")
        }
    }

    /// Named formats.
    pub mod well_known {
        use super::{Form, OffsetDateTime};

        /// The format of RFC 3339.
        #[derive(Debug, Clone, Copy)]
        pub struct Rfc3339;

        impl Form for Rfc3339 {
            fn of(&self, moment: OffsetDateTime) -> String {
                let at = moment.parts();
                let fraction = match moment.nanosecond() {
                    0 => String::new(),
                    n => format!(".{n:09}").trim_end_matches('0').to_owned(),
                };
                let (day, hour, minute, second) = (at.day, at.hour, at.minute, at.second);
                let date = format!("{:04}-{:02}-{day:02}", at.year, at.month);
                format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
            }
        }
    }
}

/// The errors.
pub mod error {
    /// A number out of its range.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ComponentRange;

    /// A description of no known format.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct InvalidFormatDescription;

    /// A moment that cannot be formatted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Format;

    /// The system does not report its time zone.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct IndeterminateOffset;
}

#[cfg(test)]
mod tests {
    use super::format_description::{self, well_known::Rfc3339};
    use super::{OffsetDateTime, error};

    /// The expected values are those of `date -u -d @SECONDS +%FT%TZ`.
    #[test]
    fn moments_in_both_forms() {
        let short = "[month repr:short] [day] [hour]:[minute]:[second]";
        let short = format_description::parse(short).unwrap();
        for (seconds, long, words) in [
            (0, "1970-01-01T00:00:00Z", "Jan 01 00:00:00"),
            (951_782_399, "2000-02-28T23:59:59Z", "Feb 28 23:59:59"),
            (951_782_400, "2000-02-29T00:00:00Z", "Feb 29 00:00:00"),
            (951_868_800, "2000-03-01T00:00:00Z", "Mar 01 00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59Z", "Dec 31 23:59:59"),
            (1_795_942_482, "2026-11-29T08:54:42Z", "Nov 29 08:54:42"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "Mar 01 00:00:00"),
        ] {
            let moment = OffsetDateTime {
                seconds,
                nanosecond: 0,
            };
            assert_eq!(moment.format(&Rfc3339).as_deref(), Ok(long));
            assert_eq!(moment.format(&short).as_deref(), Ok(words));
        }
        let now = OffsetDateTime::now_utc().replace_nanosecond(120_000_000);
        assert!(now.unwrap().format(&Rfc3339).unwrap().ends_with(".12Z"));
        assert_eq!(
            now.unwrap().replace_nanosecond(1_000_000_000),
            Err(error::ComponentRange)
        );
        assert!(format_description::parse("[year]").is_err());
    }
}
