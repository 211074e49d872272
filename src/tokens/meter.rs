//! Counts what is read and written, and stops before a write, as if the process were killed. For
//! tests only.

use std::cell::Cell;

#[derive(Default)]
pub(super) struct Meter {
    /// Reads so far, and their bytes.
    pub(super) reads: Cell<(usize, usize)>,
    /// Writes so far.
    pub(super) writes: Cell<usize>,
    /// Writes that are left; `None`: any number.
    pub(super) left: Cell<Option<usize>>,
    /// How many eighths of the one after that are written.
    pub(super) eighths: Cell<usize>,
}

impl Meter {
    pub(super) fn read(&self, bytes: usize) {
        let (reads, before) = self.reads.get();
        self.reads.set((reads + 1, before + bytes));
    }

    /// Returns `None`, or what is written of these bytes before the process is killed.
    pub(super) fn write<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self.left.get() {
            Some(0) => {
                let part = bytes.len() * self.eighths.take() / 8;
                Some(bytes.get(..part).unwrap_or_default())
            }
            left => {
                self.left.set(left.map(|left| left - 1));
                self.writes.set(self.writes.get() + 1);
                None
            }
        }
    }
}
