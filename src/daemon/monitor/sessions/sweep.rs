//! One sweep of all processes of the system, for all sessions that have to end.
//!
//! Runs in the monitor, in slices, between which it handles other events: there may be many
//! thousands of processes. Owns what it has found. Must not signal a process unless its session is
//! to be killed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::sys::session::{self, Found, Number, Walk};

/// How long the monitor sweeps before it handles other events.
pub(super) const SLICE: Duration = Duration::from_millis(1);

/// Processes looked at between two checks of the time.
const BETWEEN: usize = 32;

/// A session that is searched for.
pub(super) struct Wanted {
    pub(super) id: u64,
    pub(super) number: Number,
    /// Whether what is found is killed, and then whether the first group is spared.
    pub(super) kills: bool,
    pub(super) spares_group: bool,
    pub(super) found: Found,
}

/// A sweep that is under way.
pub(super) struct Sweep {
    walk: Walk,
    wanted: Vec<Wanted>,
    /// The index in `wanted` of each leader's session. A session whose number was reused is not in
    /// it, so it is gone at the end of the sweep.
    slots: HashMap<i32, usize>,
    began: Instant,
    spent: Duration,
}

impl Sweep {
    /// Begins a sweep for these. `Err`: there is no `/proc`.
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
        let slots = own.map(|(place, w)| (w.number.leader().as_raw(), place));
        let slots = slots.collect();
        Ok(Self {
            walk,
            wanted,
            slots,
            began: now,
            spent: Duration::ZERO,
        })
    }

    /// Returns when it began: it continues at once.
    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    /// Continues for about this time. `true`: every process was looked at.
    pub(super) fn go_on(&mut self, slice: Duration) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..BETWEEN {
                let Some(pid) = self.walk.next() else {
                    self.spent += start.elapsed();
                    return true;
                };
                let leader = session::of(pid).map(|leader| leader.as_raw());
                let place = leader.and_then(|leader| self.slots.get(&leader));
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

    /// Returns what it has found, whether that is complete, and how long it took.
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
#[cfg(target_os = "linux")]
#[allow(
    clippy::disallowed_methods,
    reason = "a session has to be made of something"
)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use nix::unistd::Pid;

    use super::*;

    const PROCESSES: usize = 100;

    /// However many processes there are, a slice handles only a few of them. The session is the
    /// test's own: the leader of the session in which it runs may have ended.
    #[test]
    fn sweep_runs_in_slices_and_finds_every_process() {
        let script = format!(
            "for i in $(seq {PROCESSES}); do sleep 60 & echo $!; done; read x; kill $(jobs -p)"
        );
        let mut leader = Command::new("setsid")
            .args(["bash", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(leader.stdout.take().unwrap()).lines();
        let lines = lines.map_while(Result::ok).take(PROCESSES);
        let processes: Vec<i32> = lines.map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(processes.len(), PROCESSES);
        let wanted = Wanted {
            id: 0,
            number: Number::kept(Pid::from_raw(i32::try_from(leader.id()).unwrap())),
            kills: false,
            spares_group: false,
            found: Found::default(),
        };
        let now = Instant::now();
        let Ok(mut sweep) = Sweep::begin([wanted].into_iter(), now) else {
            panic!("the tests have /proc");
        };
        let mut slices = 1;
        while !sweep.go_on(Duration::ZERO) {
            slices += 1;
        }
        assert!(slices > processes.len() / BETWEEN, "{slices}");
        let (found, _) = sweep.into_found();
        let (wanted, is_whole) = &found[0];
        assert!(is_whole);
        assert!(wanted.found.apart.is_empty());
        assert!(
            processes
                .iter()
                .all(|pid| wanted.found.in_group.contains(pid))
        );
        drop(leader.stdin.take());
        leader.wait().unwrap();
    }
}
