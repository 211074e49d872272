//! Which process the kernel ends first when memory runs out (`oom_score_adj`, Linux).
//!
//! The daemon's first process lowers its own value, so that a job is ended before it. What
//! it starts gets back the value that the daemon was started with, the relay one between.
//! Without CAP_SYS_RESOURCE it can only undo what has raised the value from 0.
//!
//! A job's child shares the monitor's memory until exec, and the kernel keeps the value the
//! same for all who share a memory. So the monitor takes its own value back before it
//! starts a job, which inherits that, and lowers it again when no job shares its memory any
//! more ([`super::job::Starter::shares_memory`]). Where memory is short ([`super::shortage`])
//! it keeps its value, and the job is forked.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicI32, Ordering};

use super::decimal::Decimal;

/// The file of a process's own value.
const OWN: &str = "/proc/self/oom_score_adj";

/// Never ended for want of memory.
const NEVER: i32 = -1000;

/// The relay's: ended after the jobs, which it would take along, unless it has grown to
/// half of the memory.
const RELAY: i32 = -500;

/// What the daemon was started with; [`UNCHANGED`]: this process has not lowered its own.
static ORIGINAL: AtomicI32 = AtomicI32::new(UNCHANGED);
const UNCHANGED: i32 = i32::MIN;

/// What a process of ours gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomPriority {
    /// What the daemon was started with.
    Original,
    /// One between that and the monitor's.
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

/// The file of the value, which is opened when it is needed first.
enum Own {
    Unread,
    Open(File),
    /// It cannot be read, or not be lowered.
    Useless,
}

impl Protection {
    /// That of this process, which is to be lowered later, if it may be.
    pub const fn new() -> Self {
        Self {
            file: Own::Unread,
            original: 0,
            is_lowered: false,
        }
    }

    /// Whether the value may be lowered at all, or is; reads it first.
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

    /// Whether the value may still be lowered, as far as that is known.
    pub const fn is_lifted(&self) -> bool {
        !matches!(self.file, Own::Useless) && !self.is_lowered
    }

    /// Lowers it, as far as this process may. Where it may not at all, it never tries again.
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

    /// Takes the original value back, which a job that is started now inherits.
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

/// Gives this process, which the monitor has just started, its value. It makes system calls
/// only: it may share the monitor's memory (which waits for it then).
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

/// Writes this process's own value. Whether it may.
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
    // SAFETY: opened above, and used no more.
    unsafe { libc::close(fd) };
    written > 0
}
