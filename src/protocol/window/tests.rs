//! Windows over simulated paths: a clock that the test moves, and a sender limited only by credit.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "the numbers are the tests' own, and one that overflows fails its test"
)]

use std::sync::Arc;

use super::*;
use crate::protocol::budget::Budget;
use crate::protocol::stream::Allowance;

const MIB: u32 = 1 << 20;
const CREDIT: usize = limits::CREDIT as usize;

/// A sender, a path and a reader.
struct Fixture {
    start: Instant,
    /// Microseconds since the start.
    now: u64,
    /// Microseconds one way.
    delay: u64,
    allowance: Allowance,
    data: VecDeque<(u64, usize)>,
    grants: VecDeque<(u64, u32)>,
    window: Window,
    /// Bytes that wait for the reader, and all that it has read.
    waiting: usize,
    read: usize,
    /// The most bytes that were in transit or waited.
    most: usize,
}

impl Fixture {
    fn new(budget: &Arc<Budget>, delay: u64) -> Self {
        Self {
            start: Instant::now(),
            now: 0,
            delay,
            allowance: Allowance::default(),
            data: VecDeque::new(),
            grants: VecDeque::new(),
            window: Window::new(Share::of(Arc::clone(budget))),
            waiting: 0,
            read: 0,
            most: 0,
        }
    }

    /// Runs for this many microseconds in steps of 100: the source has `source` bytes in each step,
    /// and the reader takes `reader`.
    fn run(&mut self, microseconds: u64, source: usize, reader: usize) -> usize {
        let before = self.read;
        for _ in 0..microseconds / 100 {
            self.now += 100;
            let now = self.start + Duration::from_micros(self.now);
            while self.grants.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = self.grants.pop_front().unwrap();
                self.allowance.granted(bytes).unwrap();
            }
            let n = source.min(self.allowance.left());
            if n > 0 {
                self.allowance.spend(n);
                self.data.push_back((self.now + self.delay, n));
            }
            while self.data.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = self.data.pop_front().unwrap();
                self.window.received(bytes, now).unwrap();
                self.waiting += bytes;
            }
            let n = reader.min(self.waiting);
            self.waiting -= n;
            self.read += n;
            if let Some(grant) = self.window.consumed(n, self.waiting, now) {
                self.grants.push_back((self.now + self.delay, grant));
            }
            let under_way: usize = self.data.iter().map(|(_, n)| n).sum();
            self.most = self.most.max(under_way + self.waiting);
            assert!(under_way + self.waiting <= self.window.size as usize);
        }
        self.read - before
    }
}

/// 1 Gbit/s in steps of 100 microseconds.
const GIGABIT: usize = 12_500;
const FAR: Duration = Duration::from_millis(80);
const SECOND: u64 = 1_000_000;
const ALL: usize = usize::MAX;

#[test]
fn a_long_path_is_filled_within_some_round_trips() {
    let budget = Arc::new(Budget::new(64 << 20));
    let mut far = Fixture::new(&budget, 40_000);
    far.window.set_round_trip(Some(FAR));
    let first = far.run(SECOND, GIGABIT, ALL);
    let later = far.run(SECOND, GIGABIT, ALL);
    assert!(first > 85_000_000, "{first}");
    assert_eq!(later, 125_000_000);
    assert!(far.window.size() > 10 * MIB, "{}", far.window.size());
    assert_eq!(budget.promised(), (far.window.size() - MIB) as usize);
    // A window that does not grow carries a tenth of it.
    let mut small = Fixture::new(&Arc::default(), 40_000);
    let carried = small.run(2 * SECOND, GIGABIT, ALL);
    assert!(carried < 30_000_000, "{carried}");
    assert_eq!(small.window.size(), limits::CREDIT);
    assert!(small.most <= CREDIT);
}

#[test]
fn a_window_is_no_larger_than_the_sender_can_use() {
    let budget = Arc::new(Budget::new(64 << 20));
    // Paths for which the initial window is enough.
    for (delay, rate) in [(20, 100_000), (2_000, GIGABIT), (40_000, 100)] {
        let mut near = Fixture::new(&budget, delay);
        let carried = near.run(2 * SECOND, rate, ALL);
        assert!(carried > rate * 19_000, "{carried} of {rate} at {delay}");
        assert_eq!(near.window.size(), limits::CREDIT, "{rate} at {delay}");
    }
    // 30 MB/s at 80 ms: 2.4 MB are in transit.
    let mut middle = Fixture::new(&budget, 40_000);
    middle.run(2 * SECOND, 3_000, ALL);
    assert_eq!(middle.run(SECOND, 3_000, ALL), 30_000_000);
    let size = middle.window.size();
    assert!((3 * MIB..=6 * MIB).contains(&size), "{size}");
}

#[test]
fn a_reader_that_does_not_keep_up_gets_no_more() {
    let budget = Arc::new(Budget::new(64 << 20));
    // A reader that never reads, one behind a pipe that holds a mebibyte, slow ones.
    let mut never = Fixture::new(&budget, 40_000);
    never.run(SECOND, GIGABIT, 0);
    assert_eq!(never.waiting, CREDIT);
    let mut pipe = Fixture::new(&budget, 40_000);
    while pipe.read < CREDIT {
        let room = CREDIT - pipe.read;
        pipe.run(100, GIGABIT, room);
    }
    pipe.run(SECOND, GIGABIT, 0);
    assert!(pipe.waiting <= CREDIT, "{}", pipe.waiting);
    for reader in [10, 100, 500] {
        let mut slow = Fixture::new(&budget, 40_000);
        slow.run(20 * SECOND, GIGABIT, reader);
        assert_eq!(slow.window.size(), limits::CREDIT, "{reader}");
        assert!(slow.most <= CREDIT, "{reader}");
    }
    // A reader that pauses, and takes everything at once.
    let mut fits = Fixture::new(&budget, 40_000);
    for _ in 0..20 {
        fits.run(SECOND, GIGABIT, 0);
        fits.run(100, GIGABIT, ALL);
    }
    assert!(fits.window.size() <= 2 * MIB, "{}", fits.window.size());
    assert_eq!(budget.promised(), (fits.window.size() - MIB) as usize);
}

#[test]
fn stalled_reader_keeps_its_credit_and_continues() {
    let budget = Arc::new(Budget::new(64 << 20));
    let mut far = Fixture::new(&budget, 40_000);
    far.run(2 * SECOND, GIGABIT, ALL);
    far.run(SECOND, GIGABIT, 0);
    let size = far.window.size();
    assert!(far.waiting <= size as usize && far.waiting + CREDIT / 4 > size as usize);
    far.run(SECOND, GIGABIT, ALL);
    assert_eq!(far.run(SECOND, GIGABIT, ALL), 125_000_000);
    // A slow reader shrinks it, and the bytes go back to the budget.
    far.run(120 * SECOND, GIGABIT, 150);
    assert_eq!(far.window.size(), limits::CREDIT);
    assert!(far.waiting <= CREDIT);
    assert_eq!(budget.promised(), 0);
    // Once the reader is fast again, the window grows again.
    far.run(2 * SECOND, GIGABIT, ALL);
    assert_eq!(far.run(SECOND, GIGABIT, ALL), 125_000_000);
}

#[test]
fn idle_stream_starts_with_the_initial_window() {
    let budget = Arc::new(Budget::new(64 << 20));
    let mut far = Fixture::new(&budget, 40_000);
    far.run(2 * SECOND, GIGABIT, ALL);
    far.run(9 * SECOND, 0, ALL);
    let size = far.window.size();
    far.run(SECOND / 5, GIGABIT, ALL);
    assert_eq!(far.window.size(), size);
    // A grant cannot be taken back, and counts until it is used up.
    far.run(11 * SECOND, 0, ALL);
    let promised = (size - MIB) as usize;
    assert_eq!(budget.promised(), promised);
    far.run(2 * SECOND, 100, ALL);
    assert!(budget.promised() < promised);
    far.run(20 * SECOND, 100, ALL);
    assert_eq!((budget.promised(), far.window.size()), (0, limits::CREDIT));
}

#[test]
fn budget_limits_all_windows_and_is_refilled() {
    let budget = Arc::new(Budget::new(8 << 20));
    let mut scenes: Vec<Fixture> = (0..6).map(|_| Fixture::new(&budget, 40_000)).collect();
    for fixture in &mut scenes {
        fixture.run(2 * SECOND, GIGABIT, ALL);
        assert!(budget.promised() <= 8 << 20);
    }
    let beyond = |s: &Fixture| (s.window.size() - limits::CREDIT) as usize;
    assert_eq!(scenes.iter().map(beyond).sum::<usize>(), budget.promised());
    assert!(beyond(&scenes[0]) <= 4 << 20 && beyond(&scenes[0]) > beyond(&scenes[5]));
    // What is still in transit is not read.
    scenes[0].window.close();
    assert_eq!(
        budget.promised(),
        scenes[1..].iter().map(beyond).sum::<usize>()
    );
    let now = scenes[0].start + Duration::from_micros(scenes[0].now);
    let open = scenes[0].window.open as usize;
    assert_eq!(scenes[0].window.consumed(CREDIT, 0, now), None);
    scenes[0].window.received(open, now).unwrap();
    assert!(scenes[0].window.received(1, now).is_err());
    drop(scenes);
    assert_eq!(budget.promised(), 0);
}

/// TCP's own start: what is in transit doubles in each round trip. The window stays ahead of it,
/// where the kernel reports the round trip; else the sender waits once.
#[test]
fn slow_starting_sender_is_not_delayed() {
    let budget = Arc::new(Budget::new(64 << 20));
    for (kernels, least) in [(Some(FAR), 99), (None, 70)] {
        let mut far = Fixture::new(&budget, 40_000);
        far.window.set_round_trip(kernels);
        let (mut in_one, mut sent) = (15_000, 0);
        // In steps of an eighth of a round trip, up to 1 Gbit/s.
        for step in 1..=160 {
            let part = (in_one / 8).min(125_000 * 10);
            far.run(10_000, part / 100, ALL);
            sent += part / 100 * 100;
            if step % 8 == 0 {
                in_one *= 2;
            }
        }
        far.run(SECOND, 0, ALL);
        let percent = far.read * 100 / sent;
        assert!(percent >= least, "{percent} with {kernels:?}");
    }
}

/// A kernel's round trip may be the one to a proxy.
#[test]
fn what_a_grant_takes_counts_more_than_what_the_kernel_says() {
    let budget = Arc::new(Budget::new(64 << 20));
    for kernels in [20, 2_000] {
        let mut far = Fixture::new(&budget, 40_000);
        far.window
            .set_round_trip(Some(Duration::from_micros(kernels)));
        far.run(2 * SECOND, GIGABIT, ALL);
        assert_eq!(far.run(SECOND, GIGABIT, ALL), 125_000_000, "{kernels}");
    }
}

/// The sender's own silence does not count as distance, whenever it occurs.
#[test]
fn pauses_of_the_source_are_no_round_trips() {
    let budget = Arc::new(Budget::new(64 << 20));
    let mut near = Fixture::new(&budget, 20);
    for _ in 0..40 {
        // A mebibyte, and then a long pause.
        near.run(100, CREDIT, ALL);
        near.run(3 * SECOND, 0, ALL);
    }
    assert_eq!(near.window.size(), limits::CREDIT);
    // Shorter pauses may count: then the window is no larger than what arrives between them needs.
    for _ in 0..40 {
        near.run(100, CREDIT, ALL);
        near.run(SECOND / 2, 0, ALL);
    }
    assert!(near.window.size() <= 8 * MIB, "{}", near.window.size());
}

#[test]
fn data_beyond_the_credit_is_refused_and_grants_bring_as_much() {
    let now = Instant::now();
    let mut window = Window::default();
    assert!(window.received(CREDIT + 1, now).is_err());
    window.received(CREDIT, now).unwrap();
    assert!(window.received(1, now).is_err());
    assert_eq!(window.consumed(CREDIT / 4 - 1, 0, now), None);
    assert!(window.received(1, now).is_err());
    assert_eq!(window.consumed(1, 0, now), Some(limits::CREDIT / 4));
    window.received(CREDIT / 4, now).unwrap();
    assert!(window.received(1, now).is_err());
    assert!(window.received(usize::MAX, now).is_err());
}
