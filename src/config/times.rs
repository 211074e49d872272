//! Weekdays and times of day, as an access rule lists them: `Mon-Fri 07:00-19:00`. Pure.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::words::quoted;
use crate::fault::Fault;
use crate::sys::local_time;

/// The names of the weekdays, Monday first.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// A moment on this host's clock and calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeekTime {
    /// Days since Monday, 0 to 6.
    pub day: u8,
    /// Minutes since midnight, 0 to 1439.
    pub minute: u16,
}

impl WeekTime {
    /// Returns the weekday and the minute on this host's clock.
    ///
    /// # Errors
    /// The clock is before 1970, or the system cannot convert it.
    pub fn now() -> Result<Self, Fault> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = since.ok().and_then(|now| i64::try_from(now.as_secs()).ok());
        let time = seconds.and_then(local_time::at);
        let (day, minute) = time.ok_or_else(|| Fault::new("this host's clock cannot be read"))?;
        Ok(Self { day, minute })
    }

    /// Parses a day and a time, as in `Mon 07:30`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, time) = text.trim().split_once(' ')?;
        let day = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name))?;
        let minute = time_of_day(time.trim_start()).filter(|minute| *minute < DAY)?;
        Some(Self {
            day: u8::try_from(day).ok()?,
            minute,
        })
    }
}

/// Times of a week. A time that ends after midnight belongs to the day on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    text: String,
    /// One bit for each day, Monday the lowest.
    days: u8,
    /// Minutes since midnight; equal: the whole day.
    from: u16,
    to: u16,
}

impl Times {
    /// Parses days, a time of day, or both: `Mon-Fri 07:00-19:00`, `Sat,Sun`, `22:00-06:00`.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            let form = "as in Mon-Fri 07:00-19:00";
            Fault::new(format!("{} is no time: {why}, {form}", quoted(text)))
        };
        let mut words = text.split_ascii_whitespace().peekable();
        let is_time = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let days = match words.next_if(|word| !is_time(word)) {
            Some(word) => days(word).ok_or_else(|| wrong("days are Mon to Sun"))?,
            None => 0x7f,
        };
        let time = words.next();
        if words.next().is_some() || text.trim().is_empty() {
            return Err(wrong("it has days, a time of day, or both"));
        }
        let (from, to) = match time {
            Some(word) => hours(word).ok_or_else(|| wrong("a time of day is 00:00-24:00"))?,
            None => (0, 0),
        };
        Ok(Self {
            text: text.to_owned(),
            days,
            from,
            to,
        })
    }

    /// Whether a moment is in these times.
    pub fn contains(&self, at: WeekTime) -> bool {
        let is_on = |day: usize| self.days & 1 << (day % 7) != 0;
        let today = is_on(at.day.into());
        if self.from < self.to {
            return today && self.from <= at.minute && at.minute < self.to;
        }
        if self.from == self.to {
            return today;
        }
        let yesterday = is_on(usize::from(at.day) + 6);
        today && self.from <= at.minute || yesterday && at.minute < self.to
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Parses days and ranges of days, with commas between them. A range may go over Sunday.
fn days(word: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut all = 0;
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7;
        for n in 0..=count {
            all |= 1 << ((first + n) % 7);
        }
    }
    Some(all)
}

fn hours(word: &str) -> Option<(u16, u16)> {
    let (from, to) = word.split_once('-')?;
    let (from, to) = (time_of_day(from)?, time_of_day(to)?);
    // At 24:00 nothing begins, and nothing lasts no time.
    if from == DAY || from == to {
        return None;
    }
    if (from, to) == (0, DAY) {
        return Some((0, 0));
    }
    Some((from, to))
}

fn time_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| -> Option<u16> {
        let is_right = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|_| is_right)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= DAY).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u8, hours: u16, minutes: u16) -> WeekTime {
        let minute = hours * 60 + minutes;
        WeekTime { day, minute }
    }

    /// Returns how many minutes of a week are in these times.
    fn minutes(text: &str) -> usize {
        let times = Times::parse(text).unwrap();
        let week = (0..7).flat_map(|day| (0..DAY).map(move |minute| WeekTime { day, minute }));
        week.filter(|at| times.contains(*at)).count()
    }

    #[test]
    fn times_contain_what_they_say() {
        let office = Times::parse("Mon-Fri 07:00-19:00").unwrap();
        assert!(office.contains(at(0, 7, 0)) && office.contains(at(4, 18, 59)));
        for outside in [at(0, 6, 59), at(4, 19, 0), at(5, 12, 0), at(6, 7, 0)] {
            assert!(!office.contains(outside), "{outside:?}");
        }
        // It begins on Friday and ends on Saturday.
        let night = Times::parse("fri 22:00-06:00").unwrap();
        assert!(night.contains(at(4, 22, 0)) && night.contains(at(5, 5, 59)));
        for outside in [at(4, 5, 0), at(5, 6, 0), at(5, 22, 0), at(3, 23, 0)] {
            assert!(!night.contains(outside), "{outside:?}");
        }
        let day = usize::from(DAY);
        for (text, count) in [
            ("Mon-Fri 07:00-19:00", 5 * 12 * 60),
            ("Sat,Sun", 2 * day),
            ("Sat-Mon", 3 * day),
            ("Sun", day),
            ("Sun-Sun", day),
            ("Mon-Sun", 7 * day),
            ("00:00-24:00", 7 * day),
            ("00:00-00:01", 7),
            ("23:59-24:00", 7),
            ("22:00-06:00", 7 * 8 * 60),
            ("Mon,Wed-Thu,Sat 12:00-12:30", 4 * 30),
        ] {
            assert_eq!(minutes(text), count, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_times() {
        for text in [
            "",
            " ",
            "Mo",
            "Mon-",
            "-Fri",
            "Mon--Fri",
            "Mon Fri",
            "Mon,,Tue",
            "07:00",
            "7:00-19:00",
            "07:00-7pm",
            "07:60-08:00",
            "24:00-01:00",
            "12:00-12:00",
            "00:00-24:01",
            "07:00-19:00 Mon",
            "Mon 07:00-19:00 x",
            "+1:00-02:00",
        ] {
            let why = Times::parse(text).expect_err(text).to_string();
            assert!(why.contains("as in Mon-Fri 07:00-19:00"), "{why}");
        }
    }
}
