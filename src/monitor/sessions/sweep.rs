//! One look at every process of the system, for all sessions that have to end.
//!
//! The monitor goes on with it in slices, between which it serves everybody else: there may be
//! many thousands of processes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::sys::session::{self, Found, Number, Walk};

/// How long the monitor looks before it turns to something else.
pub(super) const SLICE: Duration = Duration::from_millis(1);

/// So many processes are looked at between two looks at the clock.
const BETWEEN: usize = 32;

/// A session that is looked for.
pub(super) struct Wanted {
    pub(super) id: u64,
    pub(super) number: Number,
    /// Whether what is found is killed; and where so, whether that is also for the first group.
    pub(super) kills: bool,
    pub(super) spares_group: bool,
    pub(super) found: Found,
}

/// A look that is under way.
pub(super) struct Sweep {
    walk: Walk,
    wanted: Vec<Wanted>,
    /// Where in it the session of a leader is. One whose number has become another's is found
    /// by nobody, and at the end to be gone.
    places: HashMap<i32, usize>,
    began: Instant,
    spent: Duration,
}

impl Sweep {
    /// Begins to look for these. `Err`: there is no `/proc`.
    pub(super) fn begin(
        wanted: impl Iterator<Item = Wanted>,
        now: Instant,
    ) -> Result<Self, Vec<Wanted>> {
        let Some(walk) = Walk::begin() else {
            return Err(wanted.collect());
        };
        let wanted: Vec<Wanted> = wanted.collect();
        let numbered = wanted.iter().enumerate();
        let own = numbered.filter(|(_, w)| w.number.is_its_own());
        let places = own.map(|(place, w)| (w.number.leader().as_raw(), place));
        let places = places.collect();
        Ok(Self {
            walk,
            wanted,
            places,
            began: now,
            spent: Duration::ZERO,
        })
    }

    /// When it began: it goes on at once.
    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    /// Goes on for about so long. `true`: every process was looked at.
    pub(super) fn go_on(&mut self, slice: Duration) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..BETWEEN {
                let Some(pid) = self.walk.next() else {
                    self.spent += start.elapsed();
                    return true;
                };
                let leader = session::of(pid).map(|leader| leader.as_raw());
                let place = leader.and_then(|leader| self.places.get(&leader));
                if let Some(w) = place.and_then(|place| self.wanted.get_mut(*place)) {
                    let (kills, spares) = (w.kills, w.spares_group);
                    let signal = |is_apart| (kills && (is_apart || !spares)).then_some(KILL);
                    w.found.enter(pid, &w.number, signal);
                }
            }
            if start.elapsed() >= slice {
                self.spent += start.elapsed();
                return false;
            }
        }
    }

    /// What it has found, whether that is all there was; and how long it took.
    pub(super) fn into_found(self) -> (Vec<(Wanted, bool)>, Duration) {
        let walk = &self.walk;
        let found = self.wanted.into_iter().map(|mut w| {
            if !w.number.is_its_own() {
                w.found = Found::default();
            }
            let is_whole = w.found.is_whole(walk, &w.number);
            (w, is_whole)
        });
        (found.collect(), self.spent)
    }
}

const KILL: Signal = Signal::SIGKILL;

#[cfg(test)]
mod tests {
    use nix::unistd::{getpid, getsid};

    use super::*;
    use crate::sys::forked::Forked;

    /// However many processes there are, nobody waits for more than a few of them.
    #[test]
    fn it_is_made_in_slices_and_misses_nobody() {
        let sleep = || std::thread::sleep(Duration::from_secs(60));
        let crowd: Vec<Forked> = (0..100).map(|_| Forked::start(sleep).unwrap()).collect();
        let own = getsid(None).unwrap();
        let wanted = Wanted {
            id: 0,
            number: Number::kept(own),
            kills: false,
            spares_group: false,
            found: Found::default(),
        };
        let now = Instant::now();
        let Ok(mut sweep) = Sweep::begin([wanted].into_iter(), now) else {
            return;
        };
        let mut slices = 1;
        while !sweep.go_on(Duration::ZERO) {
            slices += 1;
        }
        assert!(slices > crowd.len() / BETWEEN, "{slices}");
        let (found, _) = sweep.into_found();
        let (wanted, is_whole) = &found[0];
        assert!(is_whole);
        let has = |pid: nix::unistd::Pid| {
            let pid = pid.as_raw();
            wanted.found.in_group.contains(&pid) || wanted.found.apart.contains(&pid)
        };
        assert!(has(getpid()) || own == getpid());
        assert!(crowd.iter().all(|one| has(one.pid)));
        for one in crowd {
            one.end();
        }
    }
}
