//! The rate limit of activation-password guesses by source. A peer that does not wait for its
//! refusal is no faster than one that does. Runs in the monitor.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::daemon::sources::Source;

/// Answers of one source that are looked up in the time that a refusal takes: users behind one
/// address may register at the same time.
const AT_A_TIME: usize = 4;

/// Most answers that are remembered.
const MOST: usize = 4_096;

/// Answers that were looked up lately, the oldest first.
#[derive(Default)]
pub(in super::super) struct Guesses(VecDeque<(Source, Instant)>);

impl Guesses {
    /// Counts one more answer of a source. `false`: there were too many, and it must not be looked
    /// up.
    pub(in super::super) fn take(
        &mut self,
        from: IpAddr,
        interval: Duration,
        now: Instant,
    ) -> bool {
        let source = Source::of(from);
        while self.0.front().is_some_and(|(_, until)| *until <= now) {
            self.0.pop_front();
        }
        let same = self.0.iter().filter(|(s, _)| *s == source).count();
        if same >= AT_A_TIME || self.0.len() >= MOST {
            return false;
        }
        self.0.push_back((source, now + interval));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_per_source_and_interval_are_limited() {
        let (mut guesses, begun) = (Guesses::default(), Instant::now());
        let interval = Duration::from_secs(2);
        let ip = |n| IpAddr::from([192, 0, 2, n]);
        for _ in 0..AT_A_TIME {
            assert!(guesses.take(ip(1), interval, begun));
        }
        assert!(!guesses.take(ip(1), interval, begun));
        assert!(guesses.take(ip(2), interval, begun));
        assert!(guesses.take(ip(1), interval, begun + interval));
    }
}
