//! The shares of the sessions: no host and no user may hold all of them if others may connect too.
//! Runs in the monitor.

use super::{SessionInfo, Sessions};
use crate::auth::AuthenticatedHost;
use crate::config::settings::Limits;
use crate::daemon::monitor::Monitor;

/// A holder of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super) enum Holder {
    /// A host, by its name here: its own sessions and those of its users.
    Host(String),
    /// A user that a host vouches for, by both names.
    UserOf(String, String),
    /// A user who has logged in.
    User(String),
}

impl Holder {
    /// Returns the holders of an authenticated client's sessions.
    pub(in super::super) fn of(authenticated: &AuthenticatedHost) -> Vec<Self> {
        let host = authenticated.caller().name.to_string();
        let user = &authenticated.request().caller_user;
        let user = authenticated
            .is_vouched()
            .then(|| Self::UserOf(host.clone(), user.to_string()));
        [Self::Host(host)].into_iter().chain(user).collect()
    }
}

/// Returns three quarters, at least one.
const fn share(of: usize) -> usize {
    of - of / 4
}

impl SessionInfo {
    /// Whether the session counts for a holder.
    fn are_of(&self, holder: &Holder) -> bool {
        self.holders.contains(holder)
    }
}

impl Sessions {
    /// Counts a session that has begun.
    pub(super) fn count_in(&mut self, info: &SessionInfo) {
        for holder in &info.holders {
            *self.held.entry(holder.clone()).or_default() += 1;
        }
    }

    /// Stops counting a session.
    pub(super) fn count_out(&mut self, info: &SessionInfo) {
        for holder in &info.holders {
            if let Some(held) = self.held.get_mut(holder) {
                *held -= 1;
                if *held == 0 {
                    self.held.remove(holder);
                }
            }
        }
    }
}

impl Monitor {
    /// Returns why one of these holders may have no further session, if so.
    pub(in super::super) fn share_exceeded(&self, holders: &[Holder]) -> Option<String> {
        holders.iter().find_map(|holder| self.has_all(holder))
    }

    fn has_all(&self, holder: &Holder) -> Option<String> {
        let held = self.sessions.held.get(holder).copied().unwrap_or(0);
        let detached = self.logins.detached_count_of(|info| info.are_of(holder));
        let limits = &self.settings.limits;
        let (most, name, by) = match holder {
            Holder::Host(host) => (self.share_of_host(host), host.clone(), "sessions-per-host"),
            Holder::UserOf(host, user) => {
                let share = share_of_user(limits, self.share_of_host(host));
                (share, format!("{user} of {host}"), "sessions-per-user")
            }
            // A daemon that serves one user only has no other to reserve sessions for.
            Holder::User(_) if self.accounts.serves().is_some() => return None,
            Holder::User(user) => {
                let share = share_of_user(limits, limits.sessions);
                (share, user.clone(), "sessions-per-user")
            }
        };
        let held = held + detached;
        (held >= most).then(|| format!("{name} has {held} sessions, which is its share ({by})"))
    }

    fn share_of_host(&self, host: &str) -> usize {
        let limits = &self.settings.limits;
        let entries = self.hosts.table().map_or(&[][..], |table| table.entries());
        let mut asking = entries.iter().filter(|entry| entry.may_ask());
        let own = entries.iter().find(|entry| entry.name.as_str() == host);
        if let Some(own) = own.and_then(|entry| entry.sessions) {
            return own;
        }
        match limits.sessions_per_host {
            0 if asking.nth(1).is_none() && self.settings.gui.all().next().is_none() => {
                limits.sessions
            }
            0 => share(limits.sessions),
            most => most,
        }
    }
}

const fn share_of_user(limits: &Limits, of: usize) -> usize {
    match limits.sessions_per_user {
        0 => share(of),
        most => most,
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_three_quarters_and_never_nothing() {
        let all = [1, 2, 3, 4, 8, 4096].map(share);
        assert_eq!(all, [1, 2, 3, 3, 6, 3072]);
    }
}
