//! Whose logins may be under way: so many places there are, and nobody who only sits
//! in them keeps the others out.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use super::{Failed, Login, LoginId, Logins, Stage, Who};
use crate::daemon::sources::Source;

/// Whose place a login takes. Hosts have as many as strangers, of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Slot {
    /// Somebody's who has still to prove himself.
    User,
    /// That of a host that has.
    Host,
    /// None: it only closes what another has left open.
    CleanupWorker,
}

impl Slot {
    pub(super) const fn of(who: &Who) -> Self {
        match who {
            Who::LoginClaim(_) => Self::User,
            Who::Host(..) => Self::Host,
        }
    }
}

/// Whether there is a place for one more.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Room {
    /// There is.
    Free,
    /// There is when this one goes, the oldest of the greediest source that PAM has not in
    /// hand.
    Instead(LoginId),
    /// There is none.
    Full,
}

impl Logins {
    /// How many are still to be decided.
    pub(super) fn under_way(&self) -> usize {
        self.all.values().filter(|l| l.is_under_way()).count()
    }

    /// Whether one more of these may come from there, where there are so many places.
    pub(in super::super) fn room(&mut self, who: &Who, from: IpAddr, slots: usize) -> Room {
        let slot = Slot::of(who);
        if slot == Slot::User && !self.shared.take_slot(from, slots) {
            return Room::Full;
        }
        let same = |l: &&Login| l.slot == slot && l.is_under_way();
        // Who is refused keeps his place until he is told.
        let now = Instant::now();
        let untold = |f: &&Failed| slot == Slot::User && f.has_slot && f.until > now;
        let of = |source: Source| {
            let all = self.all.values().filter(same);
            let failed = self.failed.iter().filter(untold);
            all.filter(|l| Source::of(l.peer) == source).count()
                + failed.filter(|f| f.source == source).count()
        };
        let all = self.all.values().filter(same).count();
        if all + self.failed.iter().filter(untold).count() < slots {
            return Room::Free;
        }
        // Who sits and is waited for, and who waits for a turn: of those whose source has
        // guessed wrong that may be long. What PAM has in hand goes on.
        let idle = |l: &Login| matches!(l.stage, Stage::Prompted(_) | Stage::Queued(_));
        let waits = self.all.iter().filter(|(_, l)| same(l) && idle(l));
        let greediest = waits
            .map(|(id, l)| (of(Source::of(l.peer)), Reverse(*id)))
            .max();
        let failed = self.failed.iter().enumerate().filter(|(_, f)| untold(f));
        let refused = failed.map(|(at, f)| (of(f.source), at)).max();
        let own = of(Source::of(from));
        match (greediest, refused) {
            // The place alone: he is told all the same.
            (greediest, Some((held, at)))
                if held > own && greediest.is_none_or(|(most, _)| held >= most) =>
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
