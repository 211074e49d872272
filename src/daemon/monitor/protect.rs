//! When the monitor's own place among those whom the kernel ends for want of memory is
//! lowered ([`crate::sys::oom`]): as long as no job is being started, and always where memory
//! is short.

use std::time::{Duration, Instant};

use crate::sys::job::Starter;
use crate::sys::oom;
use crate::sys::shortage::Gauge;

/// How long after a job's start it is first seen whether that has a memory of its own, and
/// the longest pause between two looks: it may wait for a slow home folder.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The monitor's value, and when it is lowered again.
#[derive(Default)]
pub(super) struct Protection {
    own: oom::Protection,
    gauge: Gauge,
    next: Option<(Instant, Duration)>,
}

impl Protection {
    /// Lowers the value at once: no job was started yet.
    pub(super) fn begin(&mut self) {
        self.own.lower();
        self.gauge = Gauge::new();
    }

    /// A job is about to be started, which inherits the value: the original is taken back
    /// for a while. Not where memory is short: a job's start is what uses the rest up, and
    /// the kernel would end this process for it. The job is then started at a higher price,
    /// with a memory and a value of its own.
    pub(super) fn make_way(&mut self, starter: &mut Starter, now: Instant) {
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
