//! The silent connections of all monitors: which hold a slot, and which are evicted. The rules are
//! the gate's, which has the same for the connections of one daemon.
//!
//! Runs in the monitor. The records are in the table, which all monitors share. Evicts by a mark
//! and a signal: the monitor of that connection ends it. Must not evict a connection about which
//! its monitor decides.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{HIGHEST, PREAUTH_AT, PREAUTH_LOCK, PREAUTH_SLOTS, Table, byte, place};
use crate::daemon::sources::{self, Source};
use crate::ipc::gate::Limits;
use crate::sys::locks::{self, Holder};

/// Bytes of a record: the source's number, its arrival in nanoseconds, the family, its stage, and
/// six that are unused.
pub(super) const SIZE: usize = 24;

/// How many slots of dead monitors are looked for when there is no room.
const LOOKED_AT: usize = 1024;

/// The stage of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum PreauthStage {
    /// We wait for it: it may be evicted.
    Waiting = 1,
    /// It waits for us.
    AwaitsDecision = 2,
    /// It was evicted, and no longer counts.
    Leaving = 3,
    /// It is asked for a password, or waits for a PAM slot: it may be evicted.
    Prompted = 4,
    /// It was refused, and holds its slot until the refusal is sent: it may be evicted.
    Refused = 5,
}

/// One slot that is in use, or was when its monitor died.
#[derive(Debug, Clone, Copy)]
struct Slot {
    number: usize,
    source: Source,
    since: u64,
    stage: PreauthStage,
}

impl Slot {
    fn parse(number: usize, bytes: &[u8]) -> Option<Self> {
        let (source, rest) = bytes.split_first_chunk::<8>()?;
        let (since, rest) = rest.split_first_chunk::<8>()?;
        let [family, stage] = *rest.first_chunk::<2>()?;
        let stage = match stage {
            1 => PreauthStage::Waiting,
            2 => PreauthStage::AwaitsDecision,
            3 => PreauthStage::Leaving,
            4 => PreauthStage::Prompted,
            5 => PreauthStage::Refused,
            _ => return None,
        };
        Some(Self {
            number,
            source: Source::numbered(u64::from_le_bytes(*source), family == 1),
            since: u64::from_le_bytes(*since),
            stage,
        })
    }

    fn compose(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let fields = [self.source.number(), self.since];
        let numbers = fields.iter().flat_map(|n| n.to_le_bytes());
        let ends = [u8::from(self.source.is_v6()), self.stage as u8];
        for (byte, value) in bytes.iter_mut().zip(numbers.chain(ends)) {
            *byte = value;
        }
        bytes
    }
}

/// Whether a connection may stay.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Admission {
    /// It has this slot.
    Slot(usize),
    /// There is none for its source, and no connection that can be evicted.
    NoSlot,
}

impl Table {
    /// Gives a new connection a slot, evicting another if necessary, or rejects it.
    ///
    /// # Errors
    /// Fails if the table cannot be written.
    pub(in super::super) fn admit(
        &self,
        source: Source,
        is_listed: bool,
        limits: &Limits,
        now: Duration,
    ) -> Result<Admission> {
        let mut evicted = Vec::new();
        let admitted = self.locked(|table| {
            let left = table.penalty_left(source, limits, now)?;
            let of_source = sources::slots(is_listed, left, limits);
            let in_all = sources::room(is_listed, limits).min(PREAUTH_SLOTS);
            let mut all = table.unauthenticated()?;
            let own = |s: &Slot| s.source == source;
            if table
                .make_room(&mut all, of_source, own, &mut evicted)?
                .is_none()
            {
                return Ok(Admission::NoSlot);
            }
            match table.make_room(&mut all, in_all, |_| true, &mut evicted)? {
                Some(left) if left < in_all => table.take_slot(source, now),
                _ => Ok(Admission::NoSlot),
            }
        })?;
        for slot in evicted {
            self.signal_eviction(slot);
        }
        Ok(admitted)
    }

    /// Makes room in a full group: frees the slots of dead monitors, or else evicts the oldest
    /// connection of the source that has the most. Returns how many are left; `None`: none may be
    /// evicted.
    fn make_room(
        &self,
        all: &mut Vec<Slot>,
        most: usize,
        group: impl Fn(&Slot) -> bool,
        evicted: &mut Vec<usize>,
    ) -> Result<Option<usize>> {
        let members = |all: &[Slot]| -> Vec<Slot> {
            let mut members: Vec<Slot> = all.iter().copied().filter(|s| group(s)).collect();
            members.sort_unstable_by_key(|s| s.since);
            members
        };
        if members(all).len() < most {
            return Ok(Some(members(all).len()));
        }
        let mut dead = HashSet::new();
        for slot in members(all).iter().take(LOOKED_AT) {
            if locks::holder(&self.file, byte(PREAUTH_LOCK, slot.number))? == Holder::NoOther {
                self.clear(slot.number)?;
                dead.insert(slot.number);
            }
        }
        all.retain(|s| !dead.contains(&s.number));
        let left = members(all);
        if left.len() < most {
            return Ok(Some(left.len()));
        }
        let mut held: HashMap<Source, usize> = HashMap::new();
        all.iter()
            .for_each(|s| *held.entry(s.source).or_default() += 1);
        let order_of_eviction = |s: &&Slot| (held.get(&s.source), s.source, Reverse(s.since));
        let waited_for = [
            PreauthStage::Waiting,
            PreauthStage::Prompted,
            PreauthStage::Refused,
        ];
        let may_go = left.iter().filter(|s| waited_for.contains(&s.stage));
        let Some(gone) = may_go.max_by_key(order_of_eviction) else {
            return Ok(None);
        };
        self.mark_leaving(gone)?;
        evicted.push(gone.number);
        all.retain(|s| s.number != gone.number);
        Ok(Some(left.len() - 1))
    }

    /// Makes room for a login from a source when all login slots are in use. Evicts the oldest one
    /// that PAM is not working on, of the source that has the most, if that has more than this
    /// source. Returns whether it did.
    ///
    /// # Errors
    /// Fails if the table cannot be written.
    pub(in super::super) fn make_slot(&self, source: Source) -> Result<bool> {
        let evicted = self.locked(|table| {
            let mut asked = table.unauthenticated()?;
            asked.retain(|s| matches!(s.stage, PreauthStage::Prompted | PreauthStage::Refused));
            let of = |source| asked.iter().filter(|s| s.source == source).count();
            let order_of_eviction = |s: &&Slot| (of(s.source), Reverse(s.since));
            let largest = asked.iter().max_by_key(order_of_eviction);
            let Some(gone) = largest.filter(|s| of(s.source) > of(source)) else {
                return Ok(None);
            };
            table.mark_leaving(gone)?;
            Ok(Some(gone.number))
        })?;
        evicted
            .into_iter()
            .for_each(|slot| self.signal_eviction(slot));
        Ok(evicted.is_some())
    }

    /// Takes the first free slot.
    fn take_slot(&self, source: Source, now: Duration) -> Result<Admission> {
        let highest = self.count(HIGHEST)?;
        let bytes = self.read_many(PREAUTH_AT, highest, SIZE)?;
        let slots = bytes.chunks_exact(SIZE).enumerate();
        let is_free = |s: Option<Slot>| s.is_none_or(|s| s.stage == PreauthStage::Leaving);
        let free = slots.filter(|(n, b)| is_free(Slot::parse(*n, b)));
        let free = free.map(|(n, _)| n).chain(highest..PREAUTH_SLOTS);
        // Last those of dead monitors.
        for number in free.chain(0..highest) {
            if locks::take(&self.file, byte(PREAUTH_LOCK, number))? {
                self.write(&Slot {
                    number,
                    source,
                    since: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
                    stage: PreauthStage::Waiting,
                })?;
                self.set_count(HIGHEST, highest.max(number + 1))?;
                return Ok(Admission::Slot(number));
            }
        }
        Ok(Admission::NoSlot)
    }

    /// Sets the stage of our own slot. `false`: it was evicted before.
    ///
    /// # Errors
    /// Fails if the table cannot be written.
    pub(in super::super) fn set_stage(&self, number: usize, stage: PreauthStage) -> Result<bool> {
        self.locked(|table| {
            let bytes: [u8; SIZE] = table.read(place(PREAUTH_AT, number, SIZE))?;
            match Slot::parse(number, &bytes) {
                Some(slot) if slot.stage != PreauthStage::Leaving => {
                    table.write(&Slot { stage, ..slot })?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    /// Whether our own may stay: it was not evicted.
    pub(in super::super) fn stays(&self, number: usize) -> bool {
        let bytes = self.read::<SIZE>(place(PREAUTH_AT, number, SIZE));
        let slot = bytes.ok().and_then(|bytes| Slot::parse(number, &bytes));
        slot.is_none_or(|s| s.stage != PreauthStage::Leaving)
    }

    /// Releases our own slot.
    pub(in super::super) fn leave(&self, number: usize) {
        let _ = self.locked(|table| {
            table.clear(number)?;
            let highest = table.count(HIGHEST)?;
            if highest == number + 1 {
                let bytes = table.read_many(PREAUTH_AT, number, SIZE)?;
                let used = bytes.chunks_exact(SIZE).enumerate();
                let mut used = used.filter_map(|(n, b)| Slot::parse(n, b));
                table.set_count(HIGHEST, used.next_back().map_or(0, |s| s.number + 1))?;
            }
            Ok(())
        });
        locks::release(&self.file, byte(PREAUTH_LOCK, number));
    }

    /// Returns those that count.
    fn unauthenticated(&self) -> Result<Vec<Slot>> {
        let bytes = self.read_many(PREAUTH_AT, self.count(HIGHEST)?, SIZE)?;
        let all = bytes.chunks_exact(SIZE).enumerate();
        let all = all.filter_map(|(n, bytes)| Slot::parse(n, bytes));
        Ok(all.filter(|s| s.stage != PreauthStage::Leaving).collect())
    }

    /// Returns how many count.
    #[cfg(test)]
    pub(super) fn unauthenticated_total(&self) -> Result<usize> {
        self.unauthenticated().map(|all| all.len())
    }

    /// Signals the monitor that holds a slot.
    fn signal_eviction(&self, number: usize) {
        locks::signal_holder(&self.file, byte(PREAUTH_LOCK, number), Signal::SIGUSR1);
    }

    /// Marks a slot as evicted: it no longer counts. The signal follows.
    fn mark_leaving(&self, slot: &Slot) -> Result<()> {
        let stage = PreauthStage::Leaving;
        self.write(&Slot { stage, ..*slot })
    }

    /// Returns the sources of those that count, in the order of their slots.
    #[cfg(test)]
    pub(super) fn unauthenticated_left(&self) -> Result<Vec<Source>> {
        Ok(self.unauthenticated()?.iter().map(|s| s.source).collect())
    }

    fn write(&self, slot: &Slot) -> Result<()> {
        let at = place(PREAUTH_AT, slot.number, SIZE);
        self.file.write_all_at(&slot.compose(), at)
    }

    fn clear(&self, number: usize) -> Result<()> {
        self.file
            .write_all_at(&[0; SIZE], place(PREAUTH_AT, number, SIZE))
    }
}
