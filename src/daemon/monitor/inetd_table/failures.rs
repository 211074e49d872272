//! Wrong guesses whose refusals were not sent yet. Until then each counts as a PAM slot of its
//! source, in all monitors, so that a client guesses no faster by not waiting for the answer.
//!
//! Runs in the monitor. The records are in the table, which all monitors share. Must not trust one
//! that lasts longer than is possible.

use std::io::Result;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::penalties::{Penalty, SIZE};
use super::{FAILURES, GUESSED, GUESSES, Table};
use crate::daemon::sources::Source;

/// The longest that one counts: the maximum of `[daemon] refusal-interval`.
const LONGEST: Duration = Duration::from_secs(60);

impl Table {
    /// Notes a wrong guess of a source, whose refusal is sent after this time.
    ///
    /// # Errors
    /// Fails if the table cannot be written.
    pub(in super::super) fn note_failed_guess(
        &self,
        source: Source,
        refusal_in: Duration,
        now: Duration,
    ) -> Result<()> {
        self.locked(|table| {
            let family = usize::from(source.is_v6());
            let mut all = table.failures(family, now)?;
            all.push(Penalty {
                number: source.number(),
                end: now + refusal_in.min(LONGEST),
            });
            // If there are too many, those that end first are forgotten.
            if all.len() > GUESSES {
                all.sort_unstable_by_key(|f| f.end);
                all.drain(..all.len() - GUESSES);
            }
            let mut bytes = Vec::with_capacity(all.len() * SIZE);
            all.iter().for_each(|f| f.write(&mut bytes));
            let at = FAILURES.get(family).copied().unwrap_or_default();
            table.file.write_all_at(&bytes, at)?;
            table.set_count(GUESSED + family, all.len())
        })
    }

    /// Returns how many wrong guesses of a source count. The caller must hold the lock.
    pub(super) fn unreported_guesses(&self, source: Source, now: Duration) -> Result<usize> {
        let all = self.failures(usize::from(source.is_v6()), now)?;
        Ok(all.iter().filter(|f| f.number == source.number()).count())
    }

    /// Returns those of a family that are not over, and not longer than is possible.
    fn failures(&self, family: usize, now: Duration) -> Result<Vec<Penalty>> {
        let at = FAILURES.get(family).copied().unwrap_or_default();
        let bytes = self.read_many(at, self.count(GUESSED + family)?, SIZE)?;
        let all = bytes.chunks_exact(SIZE).filter_map(Penalty::parse);
        Ok(all
            .filter(|f| f.end > now && f.end <= now + LONGEST)
            .collect())
    }
}
