//! The reading side's account of a stream: how much its sender may still send, when it is granted
//! more, and how large the window is.
//!
//! Used by the relay for a job's input and by the client for a command's outputs. Pure: the caller
//! passes the time in.
//!
//! A window begins with [`limits::CREDIT`] and keeps that size as long as it is enough. Where the
//! path is long, the window becomes four times what arrives in a round trip, if the reader keeps
//! up. The caller passes in the kernel's estimate of the round trip. A sender that waits gives a
//! better measure: data stops at exactly the byte that was granted last, and the next data arrives
//! a round trip after the grant that allowed it. That works through a proxy too. A window shrinks
//! when consumed bytes are not granted again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::budget::Share;
use super::{Malformed, limits};

/// The least credit that is worth a record of its own.
const STEP: u32 = limits::CREDIT / 4;

/// While the sender accelerates, a window has room for the data of this many round trips: a sender
/// that doubles its rate with each of them is not delayed by grants in transit.
const GROWING: u64 = 4;

/// The same, once the sender no longer accelerates: what is in transit in both directions, and a
/// margin.
const SETTLED: u64 = 2;

/// A kernel's round trip below this does not count as distance.
const SHORTEST: Duration = Duration::from_millis(1);

/// Where the kernel knows of no distance, a grant's round trip below this does not count as
/// distance either: scheduling of the processes takes as long.
const SCHEDULING_DELAY: Duration = Duration::from_millis(8);

/// Where the kernel knows of no distance, this many grants must have shown one.
const SHOWN: u32 = 8;

/// Silence above this is the sender's own pause, however long the path.
const LONGEST: Duration = Duration::from_secs(1);

/// A stream that was silent for this long starts again with a small window.
const IDLE: Duration = Duration::from_secs(10);

/// A grant of which the sender has used nothing yet.
#[derive(Debug)]
struct Grant {
    bytes: u32,
    made: Instant,
}

/// The reading side's account of a stream.
#[derive(Debug)]
pub struct Window {
    /// Bytes that the sender may still send.
    open: u32,
    /// Bytes that the reader has taken and that were not granted again.
    consumed: u32,
    /// Most bytes that the sender can make the receiver hold: those of `open`, those of `consumed`,
    /// and those that wait for the reader.
    size: u32,
    /// The size to which it shrinks.
    aim: u32,
    share: Share,
    /// Grants that the sender has not begun to use, the oldest first, and the granted bytes before
    /// the first of them.
    grants: VecDeque<Grant>,
    before_next: u32,
    /// When all that was granted before the oldest of `grants` had arrived, if nothing has arrived
    /// since.
    used_up: Option<Instant>,
    /// The shortest round trip of a grant that the sender waited for.
    waited_for: Option<Duration>,
    /// How many such round trips there were.
    waits: u32,
    /// The kernel's round trip, used where no grant has shown one.
    kernels: Option<Duration>,
    /// How many round trips' data the window has room for.
    trips: u64,
    /// Bytes that have arrived since `trip_began`, for about a round trip.
    trip: u64,
    trip_began: Option<Instant>,
    /// The window that the sender can use, where that is larger than it has.
    wanted: Option<u32>,
    /// Total bytes: arrived, and taken by the reader.
    received: u64,
    taken: u64,
    /// When data last arrived.
    heard: Option<Instant>,
    /// The most bytes that have arrived in a round trip since `received` was at `since`.
    peak: u64,
    since: u64,
    is_closed: bool,
}

impl Default for Window {
    /// Returns a window that never grows.
    fn default() -> Self {
        Self::new(Share::default())
    }
}

impl Window {
    /// Returns a window that grows as far as its share of a budget allows.
    pub const fn new(share: Share) -> Self {
        Self {
            open: limits::CREDIT,
            consumed: 0,
            size: limits::CREDIT,
            aim: limits::CREDIT,
            share,
            grants: VecDeque::new(),
            before_next: limits::CREDIT,
            used_up: None,
            waited_for: None,
            waits: 0,
            kernels: None,
            trips: GROWING,
            trip: 0,
            trip_began: None,
            wanted: None,
            received: 0,
            taken: 0,
            heard: None,
            peak: 0,
            since: 0,
            is_closed: false,
        }
    }

    /// Sets the kernel's round trip. It counts until a grant has shown a better one. It is ignored
    /// where it is too short to be the distance.
    pub fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.kernels = round_trip.filter(|trip| *trip >= SHORTEST);
    }

    /// Records bytes that arrived.
    ///
    /// # Errors
    /// The sender had no credit for them.
    pub fn received(&mut self, bytes: usize, now: Instant) -> Result<(), Malformed> {
        let bytes = u32::try_from(bytes)
            .ok()
            .filter(|n| *n <= self.open)
            .ok_or(Malformed("data beyond the stream's credit"))?;
        if bytes == 0 {
            return Ok(());
        }
        self.open = self.open.saturating_sub(bytes);
        self.received = self.received.saturating_add(bytes.into());
        if self.heard.is_some_and(|at| since(at, now) >= IDLE) {
            self.aim = limits::CREDIT;
        }
        self.heard = Some(now);
        let mut waited = self.used_up.take().map(|at| since(at, now));
        let mut left = bytes;
        while left > self.before_next {
            let Some(grant) = self.grants.pop_front() else {
                break;
            };
            left = left.saturating_sub(self.before_next);
            self.before_next = grant.bytes;
            self.learn(waited.take(), since(grant.made, now));
        }
        self.before_next = self.before_next.saturating_sub(left);
        if self.before_next == 0 {
            self.used_up = Some(now);
        }
        self.measure(bytes, now);
        Ok(())
    }

    /// Learns from data that arrived `trip` after the grant that allowed it, and `waited` after all
    /// other credit had been used up, if it had.
    fn learn(&mut self, waited: Option<Duration>, trip: Duration) {
        // Where the silence was a small part of the trip, the sender was about to continue by
        // itself.
        let has_waited = waited.is_some_and(|waited| waited.saturating_mul(8) >= trip);
        if has_waited && trip <= LONGEST {
            self.waits = self.waits.saturating_add(1);
            self.waited_for.get_or_insert(trip);
            self.trips = GROWING;
        }
        // No grant takes less than a round trip, whether or not the sender waited.
        self.waited_for = self.waited_for.map(|least| least.min(trip));
    }

    /// Counts what arrives in a round trip, and computes the window that this needs.
    fn measure(&mut self, bytes: u32, now: Instant) {
        let (least, shown) = self
            .kernels
            .map_or((SCHEDULING_DELAY, SHOWN), |_| (SHORTEST, 1));
        let of_grants = self.waited_for.filter(|_| self.waits >= shown);
        let round_trip = of_grants.or(self.kernels);
        let Some(round_trip) = round_trip.filter(|trip| *trip >= least) else {
            return;
        };
        self.trip = self.trip.saturating_add(bytes.into());
        let passed = since(*self.trip_began.get_or_insert(now), now);
        let mut in_one = self.trip;
        if passed >= round_trip {
            let all = u128::from(self.trip).saturating_mul(round_trip.as_micros());
            let one = all.checked_div(passed.as_micros()).unwrap_or(0);
            in_one = u64::try_from(one).unwrap_or(u64::MAX);
            (self.trip, self.trip_began) = (0, Some(now));
        }
        self.peak = self.peak.max(in_one);
        let wanted = size_for(in_one, self.trips);
        if wanted > self.aim {
            self.wanted = Some(wanted);
        }
    }

    /// Records bytes that the reader has taken, while `waiting` bytes wait for it. Returns a grant
    /// to send once it is worth a record.
    pub fn consumed(&mut self, bytes: usize, waiting: usize, now: Instant) -> Option<u32> {
        if self.is_closed {
            return None;
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.consumed = self.consumed.saturating_add(bytes);
        self.taken = self.taken.saturating_add(bytes.into());
        let more = self.grow(waiting);
        self.shrink();
        if self.consumed < STEP && more == 0 {
            return None;
        }
        let grant = std::mem::take(&mut self.consumed).saturating_add(more);
        self.open = self.open.saturating_add(grant);
        self.grants.push_back(Grant {
            bytes: grant,
            made: now,
        });
        Some(grant)
    }

    /// Makes the window as large as the sender was seen to need, if the reader keeps up. Returns
    /// the bytes by which it grew.
    fn grow(&mut self, waiting: usize) -> u32 {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        // A pipe holds as much as this without any reader.
        let is_read = self.taken > limits::CREDIT.into() && waiting <= self.size / 8;
        let Some(wanted) = self.wanted.take().filter(|_| is_read) else {
            return 0;
        };
        if wanted <= self.size {
            self.aim = self.aim.max(wanted);
            return 0;
        }
        let more = self.share.take(wanted.saturating_sub(self.size), STEP);
        self.size = self.size.saturating_add(more);
        self.aim = self.size;
        self.begin_period();
        more
    }

    /// Shrinks a window that has not grown for long, by half at most, and only by consumed bytes
    /// that need not be granted again.
    fn shrink(&mut self) {
        let period = u64::from(self.size).saturating_mul(2);
        if self.received.saturating_sub(self.since) >= period {
            self.trips = SETTLED;
            let enough = size_for(self.peak, SETTLED).max(self.size / 2);
            self.aim = self.aim.min(enough.max(limits::CREDIT));
            self.begin_period();
        }
        let less = self.size.saturating_sub(self.aim).min(self.consumed);
        self.consumed = self.consumed.saturating_sub(less);
        self.size = self.size.saturating_sub(less);
        self.share.give(less);
    }

    /// Frees unused memory.
    pub fn free_unused(&mut self) {
        self.grants.shrink_to_fit();
    }

    const fn begin_period(&mut self) {
        self.since = self.received;
        self.peak = 0;
    }

    /// Closes the window: the stream has ended and was read, or it has no reader, so nothing that
    /// arrives is kept. What was promised no longer counts, and nothing more is granted.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.share = Share::default();
        self.grants = VecDeque::new();
    }

    /// Returns the most that the sender can make the receiver hold, bytes.
    pub const fn size(&self) -> u32 {
        self.size
    }
}

/// Returns the window for this many bytes in a round trip, in whole steps.
fn size_for(in_one: u64, trips: u64) -> u32 {
    let step = u64::from(STEP);
    let size = in_one.saturating_mul(trips).div_ceil(step);
    let size = u32::try_from(size.saturating_mul(step)).unwrap_or(u32::MAX);
    size.min(limits::CREDIT_MAX)
}

fn since(then: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(then)
}

#[cfg(test)]
mod tests;
