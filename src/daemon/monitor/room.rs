//! Whether one more session may be started: the limits of sessions, of open files and of each
//! holder. None is started that the relay could not take. Runs in the monitor.

use super::Monitor;
use super::sessions::shares::Holder;
use crate::config::settings::Settings;
use crate::ipc::relay::SESSION_DESCRIPTORS;
use crate::log::log;

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

impl Monitor {
    /// Returns why no job may be started now, if so.
    pub(super) fn cannot_start(&self) -> Option<&'static str> {
        let sessions = self.sessions.len() + self.logins.detached_count();
        if sessions >= self.settings.limits.sessions {
            return Some("too many sessions");
        }
        if self.inetd.is_none() && sessions >= self.room {
            return Some("too many sessions for the limit of open files");
        }
        // A client that was greeted before SIGTERM is new all the same.
        if self.stopping.is_some() {
            return Some("the daemon is stopping");
        }
        // Without a relay a command must not even begin.
        if self.relay.channel().is_none() {
            return Some("the relay has died and is being restarted");
        }
        None
    }

    /// Does the same, including the shares of these holders.
    pub(super) fn cannot_start_for(&self, holders: &[Holder]) -> Option<String> {
        let why = self.cannot_start().map(str::to_owned);
        why.or_else(|| self.share_exceeded(holders))
    }

    /// Warns if the settings allow more sessions than the limit of open files does.
    pub(super) fn warn_of_few_descriptors(&mut self) {
        let (wanted, room) = (self.settings.limits.sessions, self.room);
        if self.inetd.is_some() || wanted <= room {
            return;
        }
        let why = format!(
            "limits.sessions is {wanted}, but the limit of open files allows {room}: raise it (LimitNOFILE=, ulimit -n)"
        );
        log!(self.log, Warning, "few-open-files", why);
    }
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
