//! Whose logins may be under way: so many places there are, and nobody who only sits
//! in them keeps the others out.

use std::net::IpAddr;

use super::{Login, LoginId, Logins, Stage, Who};
use crate::sources::Source;

/// Whose place a login takes. Hosts have as many as strangers, of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Place {
    /// Somebody's who has still to prove himself.
    Stranger,
    /// That of a host that has.
    Host,
    /// None: it only closes what another has left open.
    Heir,
}

impl Place {
    pub(super) const fn of(who: &Who) -> Self {
        match who {
            Who::Claimant(_) => Self::Stranger,
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
    pub(in super::super) fn room(&mut self, who: &Who, from: IpAddr, places: usize) -> Room {
        let place = Place::of(who);
        if place == Place::Stranger && !self.shared.take_place(from, places) {
            return Room::Full;
        }
        let same = |l: &&Login| l.place == place && l.is_under_way();
        if self.all.values().filter(same).count() < places {
            return Room::Free;
        }
        let of = |from: IpAddr| {
            let all = self.all.values().filter(same);
            all.filter(|l| Source::of(l.peer) == Source::of(from))
                .count()
        };
        // Who sits and is waited for, and who waits for a turn: of those whose source has
        // guessed wrong that may be long. What PAM has in hand goes on.
        let idle = |l: &Login| matches!(l.stage, Stage::Prompted(_) | Stage::Queued(_));
        let waits = self.all.iter().filter(|(_, l)| same(l) && idle(l));
        let greediest = waits
            .map(|(id, l)| (of(l.peer), std::cmp::Reverse(*id)))
            .max();
        match greediest {
            Some((held, oldest)) if held > of(from) => Room::Instead(oldest.0),
            _ => Room::Full,
        }
    }
}
