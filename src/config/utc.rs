//! Times as text, in UTC (RFC 3339, to the second). Pure.

const DAY: u64 = 86_400;

/// Days from 1 March of year 0 to 1 January 1970. A year that begins in March has its leap day
/// last.
const EPOCH: u64 = 719_468;

/// Formats seconds since 1970, as `2026-11-30T19:00:00Z`.
pub fn format(since: u64) -> String {
    let (days, second) = ((since / DAY).saturating_add(EPOCH), since % DAY);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year + era * 400 + next;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Parses what [`format`] writes; `None` if it is anything else.
pub fn parse(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        let is_number = digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let since = days.checked_sub(EPOCH)? * DAY + hour * 3_600 + minute * 60 + second;
    // The separators, and the last day of each month.
    (format(since) == text).then_some(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        // date -u -d @N +%FT%TZ
        for (since, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_764_529_199, "2025-11-30T18:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!((format(since).as_str(), parse(text)), (text, Some(since)));
        }
        for wrong in [
            "",
            "2025-11-30",
            "2025-02-29T00:00:00Z",
            "2025-11-31T00:00:00Z",
            "2025-11-30T24:00:00Z",
            "2025-11-30 18:59:59Z",
            "2025-11-30T18:59:59",
            "1969-12-31T23:59:59Z",
            "+025-11-30T18:59:59Z",
            "ü025-11-30T18:59:59Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
