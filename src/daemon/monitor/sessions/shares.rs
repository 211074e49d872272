//! The shares of the sessions: no host and no user may hold all of them if others may connect too.
//!
//! Runs in the monitor. Counts the sessions of each holder in [`Sessions`]. Must not refuse a
//! session: it returns whose share is exceeded, and the caller refuses.

use super::{SessionInfo, Sessions};
use crate::auth::AuthenticatedHost;
use crate::config::hostinfo::Entry;
use crate::config::settings::Limits;

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
    pub(in super::super) fn are_of(&self, holder: &Holder) -> bool {
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

/// What decides how many sessions a holder may have.
pub(in super::super) struct Shares<'a> {
    /// The limits of the settings.
    pub(in super::super) limits: &'a Limits,
    /// The hosts in HOSTINFO.
    pub(in super::super) hosts: &'a [Entry],
    /// Whether users may log in.
    pub(in super::super) has_logins: bool,
    /// Whether the daemon serves one user only.
    pub(in super::super) serves_one: bool,
}

impl Shares<'_> {
    /// Returns the most sessions of a holder, its name, and the setting that says so. `None`: the
    /// holder has no share.
    fn of(&self, holder: &Holder) -> Option<(usize, String, &'static str)> {
        let limits = self.limits;
        Some(match holder {
            Holder::Host(host) => (self.of_host(host), host.clone(), "sessions-per-host"),
            Holder::UserOf(host, user) => {
                let share = share_of_user(limits, self.of_host(host));
                (share, format!("{user} of {host}"), "sessions-per-user")
            }
            // A daemon that serves one user only has no other to reserve sessions for.
            Holder::User(_) if self.serves_one => return None,
            Holder::User(user) => {
                let share = share_of_user(limits, limits.sessions);
                (share, user.clone(), "sessions-per-user")
            }
        })
    }

    fn of_host(&self, host: &str) -> usize {
        let limits = self.limits;
        let mut asking = self.hosts.iter().filter(|entry| entry.may_ask());
        let own = self.hosts.iter().find(|entry| entry.name.as_str() == host);
        if let Some(own) = own.and_then(|entry| entry.sessions) {
            return own;
        }
        match limits.sessions_per_host {
            0 if asking.nth(1).is_none() && !self.has_logins => limits.sessions,
            0 => share(limits.sessions),
            most => most,
        }
    }
}

impl Sessions {
    /// Returns why one of these holders may have no further session, if so. `detached`: how many
    /// detached applications a holder has besides.
    pub(in super::super) fn share_exceeded(
        &self,
        holders: &[Holder],
        shares: &Shares<'_>,
        detached: impl Fn(&Holder) -> usize,
    ) -> Option<String> {
        holders.iter().find_map(|holder| {
            let held = self.held.get(holder).copied().unwrap_or(0) + detached(holder);
            let (most, name, by) = shares.of(holder)?;
            (held >= most).then(|| format!("{name} has {held} sessions, which is its share ({by})"))
        })
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
