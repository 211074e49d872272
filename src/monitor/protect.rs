//! When the monitor's own place among those whom the kernel ends for want of memory is
//! lowered ([`crate::sys::oom`]): as long as no job is being started.

use std::time::{Duration, Instant};

use crate::sys::job::Starter;
use crate::sys::oom;

/// How long after a job's start it is first seen whether that has a memory of its own, and
/// the longest pause between two looks: it may wait for a slow home folder.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The monitor's value, and when it is lowered again.
#[derive(Default)]
pub(super) struct Protection {
    own: oom::Protection,
    next: Option<(Instant, Duration)>,
}

impl Protection {
    /// Lowers the value at once: no job was started yet.
    pub(super) fn begin(&mut self) {
        self.own.lower();
    }

    /// A job is about to be started, which inherits the value: the original is taken back
    /// for a while.
    pub(super) fn make_way(&mut self, now: Instant) {
        self.own.lift();
        self.soon(now);
    }

    /// Lowers the value soon, if it is not lowered.
    pub(super) fn soon(&mut self, now: Instant) {
        if self.own.is_lifted() {
            self.next = Some((now + PAUSE, PAUSE));
        }
    }

    /// When it must be seen to.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Lowers the value again, unless a job shares our memory still.
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
