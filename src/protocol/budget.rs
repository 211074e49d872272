//! The memory that the windows of all streams together may promise beyond their initial size.
//!
//! The relay has one budget, which its threads share, and a client has one. A promise counts from
//! the grant that makes it until the window has shrunk or the stream has ended: a grant cannot be
//! taken back. No stream takes more than it leaves for the others, so a stream that takes all that
//! it can get leaves something for the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The limit of promised bytes, and the bytes that are promised.
#[derive(Debug, Default)]
pub struct Budget {
    limit: AtomicUsize,
    promised: AtomicUsize,
}

impl Budget {
    /// Returns a budget of `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            promised: AtomicUsize::new(0),
        }
    }

    /// Sets the limit. Promises beyond it stay in force.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns the bytes that are promised now.
    pub fn promised(&self) -> usize {
        self.promised.load(Ordering::Relaxed)
    }

    /// Takes at most `wanted` bytes, in multiples of `step`, for a stream that already holds
    /// `held`. Returns the number of bytes taken, which leaves as much for others as the stream
    /// then holds.
    fn take(&self, held: usize, wanted: usize, step: usize) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut got = 0;
        let _ = self
            .promised
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |promised| {
                let free = limit.saturating_sub(promised);
                let most = free.saturating_sub(held) / 2;
                got = most.min(wanted);
                got = got.saturating_sub(got.checked_rem(step).unwrap_or(0));
                promised.checked_add(got)
            });
        got
    }

    fn give(&self, bytes: usize) {
        let less = |promised: usize| Some(promised.saturating_sub(bytes));
        let _ = self
            .promised
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The part of a budget that one stream holds. Dropping it gives the part back.
#[derive(Debug, Default)]
pub struct Share {
    /// `None`: it can take nothing.
    budget: Option<Arc<Budget>>,
    held: usize,
}

impl Share {
    /// Returns an empty share of this budget.
    pub const fn of(budget: Arc<Budget>) -> Self {
        Self {
            budget: Some(budget),
            held: 0,
        }
    }

    /// Takes at most `wanted` bytes, in multiples of `step`, and returns the number of bytes taken.
    pub(super) fn take(&mut self, wanted: u32, step: u32) -> u32 {
        let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let Some(budget) = &self.budget else {
            return 0;
        };
        let got = budget.take(self.held, size(wanted), size(step));
        self.held = self.held.saturating_add(got);
        u32::try_from(got).unwrap_or(wanted)
    }

    /// Gives `bytes` bytes back.
    pub(super) fn give(&mut self, bytes: u32) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.held);
        self.held = self.held.saturating_sub(bytes);
        if let Some(budget) = &self.budget {
            budget.give(bytes);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give(self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    #[test]
    fn largest_share_leaves_as_much_for_the_next() {
        let budget = Arc::new(Budget::new(64 << 20));
        let mut shares = Vec::new();
        let mut got = Vec::new();
        for _ in 0..12 {
            let mut share = Share::of(Arc::clone(&budget));
            got.push(share.take(15 * MIB, MIB) / MIB);
            // A stream that got less than it wanted gets nothing more by asking again.
            assert!(got.last() == Some(&15) || share.take(MIB, MIB) == 0);
            shares.push(share);
        }
        assert_eq!(got, [15, 15, 15, 9, 5, 2, 1, 1, 0, 0, 0, 0]);
        assert_eq!(budget.promised(), 63 << 20);
        // What is given back can be taken again. A dropped share gives back all that it holds.
        shares[0].give(15 * MIB);
        assert_eq!(shares[11].take(15 * MIB, MIB), 8 * MIB);
        drop(shares);
        assert_eq!(budget.promised(), 0);
    }

    #[test]
    fn empty_or_lowered_budget_grants_nothing() {
        assert_eq!(Share::default().take(MIB, 1), 0);
        let budget = Arc::new(Budget::new(4 << 20));
        let mut share = Share::of(Arc::clone(&budget));
        assert_eq!(share.take(15 * MIB, MIB), 2 * MIB);
        budget.set_limit(0);
        assert_eq!(share.take(MIB, 1), 0);
        share.give(9 * MIB);
        assert_eq!(budget.promised(), 0);
        assert_eq!(share.take(MIB, 1), 0);
    }
}
