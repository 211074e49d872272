//! The places of everything in the file of tokens: the header, the table of anonymous tokens, the
//! records. Pure.

/// Bytes of a record. The names in it have 255 bytes at most, all other fields 176. Four fill a
/// page of memory, and none crosses the border of two: the kernel writes each in one piece.
pub(super) const RECORD: usize = 1024;

/// Most tokens of users and hosts: ten times what a very large site has. They take 1 GiB of memory
/// if the run folder is on a tmpfs.
pub const MOST: u32 = 1 << 20;

/// Most anonymous tokens, and entries of their table, which is read as a whole when one is issued:
/// 32 KiB take some microseconds.
pub const ANONYMOUS_MOST: u32 = 1024;

/// Most slots.
pub(super) const SLOTS: u32 = MOST + ANONYMOUS_MOST;

/// Bytes of an entry of that table.
pub(super) const ENTRY: usize = 32;

/// Where the parts of the header begin: what identifies the file, the lists, where to sweep.
pub(super) const IDENTITY: u64 = 0;
pub(super) const LISTS_AT: u64 = 64;
pub(super) const CURSOR: u64 = 128;

/// Where the table of anonymous tokens begins.
const TABLE: u64 = 1024;

/// Where the records begin.
pub(super) const RECORDS: u64 = TABLE + 1024 * 32;

/// Returns the place of a record.
pub(super) fn record(slot: u32) -> u64 {
    RECORDS + u64::from(slot) * 1024
}

/// Returns the place of an entry.
pub(super) fn entry(number: u16) -> u64 {
    TABLE + u64::from(number) * 32
}

/// Copies a value to its place in a record or entry.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let to = bytes.get_mut(at..).and_then(|b| b.get_mut(..value.len()));
    if let Some(to) = to {
        to.copy_from_slice(value);
    }
}

/// Returns the value at a place of a record or entry; zeros beyond its end.
pub(super) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let there = bytes.get(at..).and_then(<[u8]>::first_chunk);
    there.copied().unwrap_or([0; N])
}

/// Returns the number at a place.
pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

/// Returns the short number at a place.
pub(super) fn short(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

/// Returns the checksum of some bytes.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 8] {
    use sha2::{Digest, Sha256};
    get(&Sha256::digest(bytes), 0)
}
