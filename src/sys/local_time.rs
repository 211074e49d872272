//! The weekday and the time of day where this host is (localtime_r(3)). Used by the monitor, and by
//! `cosadm explain`.

use std::mem::MaybeUninit;

unsafe extern "C" {
    /// Reads the zone (tzset(3)), which `libc` does not declare.
    fn tzset();
}

/// Returns the days since Monday (0 to 6) and the minutes since midnight (0 to 1439) on this host's
/// clock at a moment, in seconds since 1970. `None`: the system cannot say.
///
/// A change of `/etc/localtime` counts from the next call on.
pub fn at(seconds: i64) -> Option<(u8, u16)> {
    let time = libc::time_t::try_from(seconds).ok()?;
    let mut local = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: tzset(3) only reads the environment and a file; the callers have one thread, or none
    // of theirs changes the environment.
    unsafe { tzset() };
    // SAFETY: both pointers are valid, and the second is to room for the result.
    let done = unsafe { libc::localtime_r(&time, local.as_mut_ptr()) };
    if done.is_null() {
        return None;
    }
    // SAFETY: localtime_r succeeded and has filled it.
    let local = unsafe { local.assume_init() };
    // The C library counts the days from Sunday.
    let day = u8::try_from((local.tm_wday + 6) % 7).ok()?;
    let minute = u16::try_from(local.tm_hour * 60 + local.tm_min).ok()?;
    Some((day, minute))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central European Time, without the file of the zone: summer time begins on the last Sunday
    /// of March at 2:00, and ends on the last Sunday of October at 3:00.
    const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    const NAME: &str = "sys::local_time::tests::day_and_minute_follow_summer_time";

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "the test runs itself in another zone"
    )]
    fn day_and_minute_follow_summer_time() {
        // The zone is the process's: another process has it.
        if std::env::var_os("TZ").is_none_or(|zone| zone != ZONE) {
            let mut own = std::process::Command::new(std::env::current_exe().unwrap());
            let done = own.args(["--exact", NAME]).env("TZ", ZONE).output();
            let done = done.unwrap();
            let told = String::from_utf8_lossy(&done.stdout);
            assert!(told.contains("1 passed"), "{told}");
            return;
        }
        for (seconds, day, hours, minutes) in [
            (1_796_079_599, 0, 23, 59), // 2026-11-30T22:59:59Z
            (1_796_079_600, 1, 0, 0),   // 2026-11-30T23:00:00Z
            (1_806_195_599, 6, 1, 59),  // 2027-03-28T00:59:59Z
            (1_806_195_600, 6, 3, 0),   // 2027-03-28T01:00:00Z
            (1_824_944_399, 6, 2, 59),  // 2027-10-31T00:59:59Z
            (1_824_944_400, 6, 2, 0),   // 2027-10-31T01:00:00Z
            (1_824_948_000, 6, 3, 0),   // 2027-10-31T02:00:00Z
        ] {
            assert_eq!(at(seconds), Some((day, hours * 60 + minutes)), "{seconds}");
        }
        assert_eq!(at(i64::MAX), None);
    }
}
