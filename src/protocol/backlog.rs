//! Bytes of a stream that wait for its reader.
//!
//! Used by the relay for a job's input and by the client for a command's outputs. Does no I/O: the
//! caller writes. The bytes are kept in pieces, so that a long backlog takes no more memory than it
//! has bytes, and gives the memory back as it becomes shorter. The stream's window bounds it.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Size of a piece, bytes: a size that the allocator returns to the system by itself.
const PIECE: usize = 64 * 1024;

/// The most pieces for one call of writev(2).
const AT_ONCE: usize = 16;

/// The most emptied pieces that are kept for the next bytes: new ones cost a page fault for each
/// page.
const SPARES: usize = 16;

/// Bytes that wait.
#[derive(Debug, Default)]
pub struct Backlog {
    /// None of them is empty, and all but the last are full.
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were already taken.
    taken: usize,
    length: usize,
    /// Emptied pieces.
    spares: Vec<Vec<u8>>,
}

impl Backlog {
    /// Returns an empty backlog, which holds no memory.
    pub const fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            taken: 0,
            length: 0,
            spares: Vec::new(),
        }
    }

    /// Bytes that wait.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Returns whether no bytes wait.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len());
        while !bytes.is_empty() {
            let last = match self.pieces.back_mut() {
                Some(last) if last.len() < PIECE => last,
                _ => {
                    let spare = self.spares.pop();
                    let piece = spare.unwrap_or_else(|| Vec::with_capacity(PIECE));
                    self.pieces.push_back(piece);
                    continue;
                }
            };
            let n = PIECE.saturating_sub(last.len()).min(bytes.len());
            let (now, later) = bytes.split_at(n);
            last.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Returns the first bytes, as one call can write them.
    pub fn parts(&self) -> Vec<IoSlice<'_>> {
        let mut skip = self.taken;
        let pieces = self.pieces.iter().take(AT_ONCE);
        pieces
            .map(|piece| {
                let from = std::mem::take(&mut skip);
                IoSlice::new(piece.get(from..).unwrap_or_default())
            })
            .collect()
    }

    /// Removes `bytes` bytes from the beginning.
    pub fn take(&mut self, bytes: usize) {
        let mut left = bytes.min(self.length);
        self.length = self.length.saturating_sub(left);
        while let Some(first) = self.pieces.front() {
            let here = first.len().saturating_sub(self.taken);
            if here > left {
                self.taken = self.taken.saturating_add(left);
                return;
            }
            left = left.saturating_sub(here);
            self.taken = 0;
            let emptied = self.pieces.pop_front();
            if let Some(mut piece) = emptied.filter(|_| self.spares.len() < SPARES) {
                piece.clear();
                self.spares.push(piece);
            }
        }
    }

    /// Returns whether it holds unused memory.
    pub fn holds_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Frees the unused memory.
    pub fn free_unused(&mut self) {
        self.spares = Vec::new();
        if self.is_empty() {
            self.pieces = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_of_their_coming() {
        let mut backlog = Backlog::new();
        assert!(backlog.is_empty() && backlog.parts().is_empty() && !backlog.holds_spare());
        let all: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut source, mut got) = (all.as_slice(), Vec::new());
        let sizes = [1, 0, PIECE - 1, PIECE, 3, PIECE + 1, 300_000];
        let takes = [0, 7, PIECE, 100, 2 * PIECE, 1, 250_000];
        for (n, most) in sizes.into_iter().cycle().zip(takes.into_iter().cycle()) {
            let (now, later) = source.split_at(n.min(source.len()));
            source = later;
            backlog.push(now);
            let mut room = most;
            for part in backlog.parts() {
                let n = part.len().min(room);
                got.extend_from_slice(&part[..n]);
                room -= n;
            }
            backlog.take(most - room);
            assert_eq!(backlog.len() + got.len() + source.len(), all.len());
            if source.is_empty() && backlog.is_empty() {
                break;
            }
        }
        assert!(got == all);
        assert!(backlog.holds_spare());
        backlog.free_unused();
        assert!(!backlog.holds_spare());
        assert_eq!(backlog.pieces.capacity(), 0);
    }

    #[test]
    fn backlog_frees_memory_of_sent_bytes() {
        let mut backlog = Backlog::new();
        let held = |b: &Backlog| b.pieces.iter().map(Vec::capacity).sum::<usize>();
        backlog.push(&vec![7; 16 << 20]);
        assert_eq!(held(&backlog), 16 << 20);
        backlog.take(15 << 20);
        assert_eq!(held(&backlog), 1 << 20);
        // More than there is: nothing remains.
        backlog.take(usize::MAX);
        assert_eq!((held(&backlog), backlog.len()), (0, 0));
        backlog.push(b"x");
        assert_eq!(backlog.parts().len(), 1);
    }
}
