//! The penalties of sources: when each ends, in time since boot.
//!
//! Runs in the monitor. The records are in the table, which all monitors share. Must not trust one
//! that lasts longer than is possible.

use std::io::Result;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::{PENALTIES, SOURCES, Table};
use crate::daemon::sources::{self, Source};
use crate::ipc::gate::Limits;

/// Bytes of a record: the source's number, and the end in nanoseconds.
pub(super) const SIZE: usize = 16;

/// One source's penalty.
#[derive(Clone, Copy)]
pub(super) struct Penalty {
    pub(super) number: u64,
    pub(super) end: Duration,
}

impl Penalty {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (number, end) = bytes.split_first_chunk::<8>()?;
        let end = end.first_chunk::<8>()?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            end: Duration::from_nanos(u64::from_le_bytes(*end)),
        })
    }

    pub(super) fn write(&self, into: &mut Vec<u8>) {
        let end = u64::try_from(self.end.as_nanos()).unwrap_or(u64::MAX);
        into.extend_from_slice(&self.number.to_le_bytes());
        into.extend_from_slice(&end.to_le_bytes());
    }
}

impl Table {
    /// Returns what is left of a source's penalty. The caller must hold the lock.
    pub(super) fn penalty_left(
        &self,
        source: Source,
        limits: &Limits,
        now: Duration,
    ) -> Result<Duration> {
        let all = self.penalties(source.is_v6(), limits, now)?;
        let found = all.iter().find(|p| p.number == source.number());
        Ok(found.map_or(Duration::ZERO, |p| p.end.saturating_sub(now)))
    }

    /// Adds to a source's penalty. If there are too many, those that end first are forgotten.
    ///
    /// # Errors
    /// Fails if the table cannot be written.
    pub(in super::super) fn penalise(
        &self,
        source: Source,
        seconds: u32,
        limits: &Limits,
        now: Duration,
    ) -> Result<()> {
        if seconds == 0 {
            return Ok(());
        }
        self.locked(|table| {
            let family = usize::from(source.is_v6());
            let mut all = table.penalties(source.is_v6(), limits, now)?;
            let mine = all.iter().position(|p| p.number == source.number());
            let left = mine.map(|at| all.swap_remove(at).end.saturating_sub(now));
            let left = sources::after(left.unwrap_or_default(), seconds, limits);
            all.push(Penalty {
                number: source.number(),
                end: now + left,
            });
            let most = usize::try_from(limits.penalty_sources).unwrap_or(SOURCES);
            let most = most.clamp(1, SOURCES);
            if all.len() > most {
                all.sort_unstable_by_key(|p| p.end);
                all.drain(..all.len() - most);
            }
            let mut bytes = Vec::with_capacity(all.len() * SIZE);
            all.iter().for_each(|p| p.write(&mut bytes));
            let at = PENALTIES.get(family).copied().unwrap_or_default();
            table.file.write_all_at(&bytes, at)?;
            table.set_count(family, all.len())
        })
    }

    /// Returns those of a family that are not over, and not longer than is possible.
    fn penalties(&self, is_v6: bool, limits: &Limits, now: Duration) -> Result<Vec<Penalty>> {
        let family = usize::from(is_v6);
        let at = PENALTIES.get(family).copied().unwrap_or_default();
        let bytes = self.read_many(at, self.count(family)?, SIZE)?;
        let latest = now + Duration::from_secs(limits.penalty_max.into());
        let all = bytes.chunks_exact(SIZE).filter_map(Penalty::parse);
        Ok(all.filter(|p| p.end > now && p.end <= latest).collect())
    }
}
