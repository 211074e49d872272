//! How many sessions the limit of open files allows: none is started that the relay could not take.
//! Pure: runs in the monitor.

use crate::config::settings::Settings;
use crate::ipc::relay::SESSION_DESCRIPTORS;

/// Descriptors that one of our processes has besides those of sessions: in the relay those of
/// clients that are still to hang up (256), in the monitor those of requests that wait for a
/// decision, and some.
const BESIDES: u64 = 320;

/// Descriptors of a session in the relay. The monitor has fewer for each.
const EACH: u64 = SESSION_DESCRIPTORS as u64;

/// Returns how many open files these settings need in one of our processes: for the relay's
/// sessions, or the gate's connections.
pub(super) fn wanted(settings: &Settings) -> u64 {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let sessions = number(settings.limits.sessions).saturating_mul(EACH);
    let silent = number(settings.limits.silent);
    sessions.max(silent).saturating_add(BESIDES)
}

/// Returns how many sessions this many open files allow; at least one.
pub(super) fn sessions(descriptors: u64) -> usize {
    let room = descriptors.saturating_sub(BESIDES) / EACH;
    usize::try_from(room).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_sessions_as_the_relay_has_descriptors_for() {
        assert_eq!([0, 320, 324].map(sessions), [1; 3]);
        assert_eq!(sessions(1024), 140);
        assert_eq!(sessions(320 + 5 * 4096), 4096);
    }
}
