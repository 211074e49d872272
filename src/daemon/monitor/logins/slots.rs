//! The login slots: a limited number of logins is under way, and idle ones cannot deny the others a
//! slot. Runs in the monitor.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use super::{Failed, Login, LoginId, LoginSubject, Logins, Stage};
use crate::daemon::sources::Source;

/// The kind of slot that a login takes. Hosts have a set of their own, as large as that of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Slot {
    /// Of a user who has not authenticated.
    User,
    /// Of an authenticated host.
    Host,
    /// None: it only closes the PAM session of a worker that died.
    CleanupWorker,
}

impl Slot {
    pub(super) const fn of(who: &LoginSubject) -> Self {
        match who {
            LoginSubject::LoginClaim(_) => Self::User,
            LoginSubject::Host(..) => Self::Host,
        }
    }
}

/// Whether there is a slot for one more login.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Room {
    /// There is one.
    Free,
    /// There is one if this login is evicted: the oldest, of the source that holds the most, that
    /// PAM is not working on.
    Instead(LoginId),
    /// There is none.
    Full,
}

impl Logins {
    /// Returns how many logins are undecided.
    pub(super) fn under_way(&self) -> usize {
        let undecided = |l: &&Login| l.is_under_way() && !l.is_cleanup();
        self.all.values().filter(undecided).count()
    }

    /// Returns whether one more login of this kind and source may begin, given this many slots.
    pub(in super::super) fn room(
        &mut self,
        who: &LoginSubject,
        from: IpAddr,
        slots: usize,
    ) -> Room {
        let slot = Slot::of(who);
        if slot == Slot::User && !self.shared.take_slot(from, slots) {
            return Room::Full;
        }
        let same = |l: &&Login| l.slot == slot && l.is_under_way();
        // A refused login holds its slot until the refusal is sent.
        let now = Instant::now();
        let unreported = |f: &&Failed| slot == Slot::User && f.has_slot && f.until > now;
        let of = |source: Source| {
            let all = self.all.values().filter(same);
            let failed = self.failed.iter().filter(unreported);
            all.filter(|l| Source::of(l.peer) == source).count()
                + failed.filter(|f| f.source == source).count()
        };
        let all = self.all.values().filter(same).count();
        if all + self.failed.iter().filter(unreported).count() < slots {
            return Room::Free;
        }
        // Evict prompted and queued logins only; those of a source that guessed wrong may stay
        // queued for long. What PAM is working on goes on.
        let idle = |l: &Login| matches!(l.stage, Stage::Prompted(_) | Stage::Queued(_));
        let waits = self.all.iter().filter(|(_, l)| same(l) && idle(l));
        let largest = waits
            .map(|(id, l)| (of(Source::of(l.peer)), Reverse(*id)))
            .max();
        let failed = self
            .failed
            .iter()
            .enumerate()
            .filter(|(_, f)| unreported(f));
        let refused = failed.map(|(at, f)| (of(f.source), at)).max();
        let own = of(Source::of(from));
        match (largest, refused) {
            // Only its slot is taken: its refusal is sent all the same.
            (largest, Some((held, at)))
                if held > own && largest.is_none_or(|(most, _)| held >= most) =>
            {
                if let Some(failed) = self.failed.get_mut(at) {
                    failed.has_slot = false;
                }
                Room::Free
            }
            (Some((held, oldest)), _) if held > own => Room::Instead(oldest.0),
            _ => Room::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ipc::login::{Begin, Task};
    use crate::sys::process;

    /// Regression: under inetd it kept the login slot of the login that it cleans up after.
    #[test]
    fn a_cleanup_worker_holds_no_login_slot() {
        let begin = Begin {
            user: "alice".into(),
            remote_host: "192.0.2.1".into(),
            remote_user: String::new(),
            task: Task::CloseOnly(Vec::new()),
            groups: Vec::new(),
            limits: process::Limits::now(),
        };
        let until = Instant::now() + Duration::from_secs(60);
        let from = IpAddr::from([192, 0, 2, 1]);
        let mut logins = Logins::default();
        logins.add(Login::cleanup_worker(from, begin, until));
        assert_eq!(logins.under_way(), 0);
    }
}
