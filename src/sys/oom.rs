//! The order in which the kernel kills processes when memory runs out (`oom_score_adj`, Linux).
//!
//! The monitor lowers its own value, so that the kernel kills a job first. The processes that it
//! starts get the value that the daemon was started with; the relay gets one in between. Without
//! CAP_SYS_RESOURCE the monitor can only undo a value above 0.
//!
//! A job's child shares the monitor's memory until exec, and the kernel keeps the value the same
//! for all processes that share memory. So the monitor restores its original value before it starts
//! a job, which inherits that, and lowers it again when no job shares its memory any more
//! ([`super::job::Starter::shares_memory`]). If memory is short ([`super::shortage`]), the monitor
//! keeps its value lowered and forks the job.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicI32, Ordering};

use super::decimal::Decimal;

/// The file with a process's own value.
const OWN: &str = "/proc/self/oom_score_adj";

/// The value of a process that is never killed for lack of memory.
const NEVER: i32 = -1000;

/// The relay's value: it is killed after the jobs, which would end with it, unless it has grown to
/// half of the memory.
const RELAY: i32 = -500;

/// The value that the daemon was started with; [`UNCHANGED`]: this process has not lowered its own.
static ORIGINAL: AtomicI32 = AtomicI32::new(UNCHANGED);
const UNCHANGED: i32 = i32::MIN;

/// Which value a process of this program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomPriority {
    /// The value that the daemon was started with.
    Original,
    /// A value between that and the monitor's.
    Relay,
    /// The monitor's.
    Monitor,
}

/// The monitor's own value.
pub struct Protection {
    file: Own,
    original: i32,
    is_lowered: bool,
}

/// The file with the value, which is opened when first needed.
enum Own {
    Unread,
    Open(File),
    /// It cannot be read, or the value cannot be lowered.
    Useless,
}

impl Protection {
    /// Creates the state for this process, whose value may be lowered later.
    pub const fn new() -> Self {
        Self {
            file: Own::Unread,
            original: 0,
            is_lowered: false,
        }
    }

    /// Returns whether the value can be lowered, or is; reads it on the first call.
    pub fn may_be_lowered(&mut self) -> bool {
        if matches!(self.file, Own::Unread) {
            let file = OpenOptions::new().read(true).write(true).open(OWN);
            let value = file.ok().and_then(|mut file| {
                let mut text = String::new();
                file.read_to_string(&mut text).ok()?;
                Some((file, text.trim().parse().ok()?))
            });
            (self.file, self.original) = match value {
                Some((file, original)) => (Own::Open(file), original),
                None => (Own::Useless, 0),
            };
        }
        matches!(self.file, Own::Open(_))
    }

    /// Returns whether the value is not lowered and may be lowered, as far as known.
    pub const fn is_lifted(&self) -> bool {
        !matches!(self.file, Own::Useless) && !self.is_lowered
    }

    /// Lowers the value, as far as this process may. If it may not at all, never tries again.
    pub fn lower(&mut self) {
        if !self.may_be_lowered() || self.is_lowered {
            return;
        }
        let lower = [NEVER, 0]
            .into_iter()
            .filter(|value| *value < self.original);
        let lower: Vec<i32> = lower.collect();
        if lower.into_iter().any(|value| self.write(value)) {
            self.is_lowered = true;
            ORIGINAL.store(self.original, Ordering::Relaxed);
        } else {
            self.file = Own::Useless;
        }
    }

    /// Restores the original value, which a job that is started now inherits.
    pub fn lift(&mut self) {
        if self.is_lowered && self.write(self.original) {
            self.is_lowered = false;
        }
    }

    fn write(&mut self, value: i32) -> bool {
        let text = value.to_string();
        match &mut self.file {
            Own::Open(file) => file.write_all(text.as_bytes()).is_ok(),
            Own::Unread | Own::Useless => false,
        }
    }
}

impl Default for Protection {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets the value of this process, which the monitor has just started. Makes system calls only: it
/// may share the monitor's memory (the monitor then waits for it).
pub(super) fn take(standing: OomPriority) {
    let original = ORIGINAL.load(Ordering::Relaxed);
    match standing {
        OomPriority::Monitor => {
            write(NEVER);
        }
        _ if original == UNCHANGED => {}
        OomPriority::Relay if write(original.min(RELAY)) || write(original.max(0) / 2) => {}
        OomPriority::Relay | OomPriority::Original => {
            write(original);
        }
    }
}

/// Writes this process's own value. Returns whether that succeeded.
fn write(value: i32) -> bool {
    let text = Decimal::of(value);
    let text = text.as_bytes();
    // SAFETY: the string ends with NUL.
    let fd = unsafe { libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY) };
    if fd < 0 {
        return false;
    }
    // SAFETY: the bytes live for the call.
    let written = unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
    // SAFETY: opened above, and no longer used.
    unsafe { libc::close(fd) };
    written > 0
}
