//! A private folder for one test, removed when the test ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::paths::Paths;

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cosserver-unit-{}-{number}", std::process::id());
        let path = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
        fs::create_dir(&path).unwrap();
        chmod(&path, 0o700);
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths::of_dir(&self.0)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A read-only file could not be written again.
        let _ = fs::remove_file(&path);
        fs::write(&path, content).unwrap();
        chmod(&path, mode);
        path
    }

    pub(crate) fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        chmod(&path, mode);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Pseudo-random numbers that are the same in every run (xorshift64*).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound.max(1)
    }

    /// Makes one to four small changes to a text: changes, drops, doubles or inserts a byte, moves
    /// a piece, or cuts off the end.
    pub(crate) fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        const SPICE: &[u8] = b"\n\r\t #\"'=,/*?[]\\.-:\0\xff\xc3azAZ09{}";
        let mut text = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len().max(1));
            let byte = SPICE[self.below(SPICE.len())];
            if text.is_empty() {
                text.push(byte);
                continue;
            }
            match self.below(7) {
                0 => text[at] = byte,
                1 => text[at] ^= 1 << self.below(8),
                2 => drop(text.remove(at)),
                3 => text.insert(at, byte),
                4 => text.truncate(at),
                5 => {
                    let end = (at + self.below(40)).min(text.len());
                    let piece = text[at..end].to_vec();
                    let to = self.below(text.len());
                    text.splice(to..to, piece);
                }
                _ => {
                    let end = (at + self.below(20)).min(text.len());
                    text.drain(at..end);
                }
            }
        }
        text
    }
}
