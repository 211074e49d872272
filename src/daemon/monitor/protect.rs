//! The times at which the monitor's OOM score is lowered ([`crate::sys::oom`]): while no job is
//! being started, and always if memory is short.
//!
//! Runs in the monitor. Owns the score. Must not lower it while a job that has just been started
//! still shares the monitor's memory.

use std::time::{Duration, Instant};

use crate::sys::job::Starter;
use crate::sys::oom;
use crate::sys::shortage::Gauge;

/// The delay after a job's start until the first check whether it has its own memory, and the
/// longest delay between two checks: it may wait for a slow home folder.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The monitor's score, and when it is lowered again.
#[derive(Default)]
pub(super) struct Protection {
    own: oom::Protection,
    gauge: Gauge,
    next: Option<(Instant, Duration)>,
}

impl Protection {
    /// Lowers the score at once: no job was started yet.
    pub(super) fn begin(&mut self) {
        self.own.lower();
        self.gauge = Gauge::new();
    }

    /// Restores the original score for a while, because a job that is about to be started inherits
    /// it. Not if memory is short: the job's start would use up the rest, and the kernel would kill
    /// this process for it. The job is then started with its own memory and score, which is slower.
    pub(super) fn restore_score(&mut self, starter: &mut Starter, now: Instant) {
        if self.gauge.is_short() && self.own.may_be_lowered() {
            if !starter.shares_memory() {
                self.own.lower();
            }
            starter.fork_next();
        } else {
            self.own.lift();
        }
        self.soon(now);
    }

    /// Lowers the score soon, if it is not lowered.
    pub(super) fn soon(&mut self, now: Instant) {
        if self.own.is_lifted() {
            self.next = Some((now + PAUSE, PAUSE));
        }
    }

    /// Returns when [`Self::go_on`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Lowers the score again, unless a job still shares our memory.
    pub(super) fn go_on(&mut self, starter: &mut Starter, now: Instant) {
        let Some((_, pause)) = self.next.take() else {
            return;
        };
        if starter.shares_memory() {
            let pause = LONGEST_PAUSE.min(pause.saturating_mul(2));
            self.next = Some((now + pause, pause));
        } else {
            self.own.lower();
        }
    }
}
