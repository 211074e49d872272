//! How `cosadm` finds the monitors that inetd has started.
//!
//! They have no listening socket. Each holds a lock on one byte of the table that they share while
//! it runs, and is found by that lock. Used by those monitors and by `cosadm`. Must send the
//! processes that it finds SIGHUP and nothing else.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::fault::Fault;
use crate::sys::locks;

/// Where these bytes begin, behind all that the table itself locks (`monitor/inetd_table.rs`), and
/// how many there are.
const LIVES: u32 = (1 << 30) + (8 << 20);
const ROOM: u32 = 1 << 20;

/// How many bytes to try for a free one. Process IDs differ, so two processes can want the same
/// byte only where IDs exceed a million.
const TRIES: u32 = 16;

/// Locks a byte until this process ends. Returns `false` if no byte was free.
///
/// # Errors
/// The file system cannot lock.
pub fn be_found(table: &File) -> nix::Result<bool> {
    for n in 0..TRIES {
        let own = std::process::id().wrapping_add(n) % ROOM;
        if locks::take(table, LIVES + own)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tells all of them to read again which hosts and users they serve. Returns how many were
/// signalled.
///
/// # Errors
/// The table exists, but cannot be opened or queried.
pub fn tell_all(table: &Path) -> Result<u64, Fault> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(table);
    let file = match opened {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        other => other.map_err(|e| Fault::of(table, e))?,
    };
    let of = |e: std::io::Error| Fault::of(table, e);
    if file.metadata().map_err(of)?.uid() != geteuid().as_raw() {
        return Err(Fault::of(table, "it belongs to another user"));
    }
    let mut told = 0;
    // The kernel names any one holder in a range: search both sides of it.
    let mut left = vec![(LIVES, ROOM)];
    while let Some((from, count)) = left.pop() {
        let held = locks::held(&file, from, count).map_err(|e| of(e.into()))?;
        let Some((at, _)) = held else { continue };
        let behind = at.saturating_add(1);
        let before = at.saturating_sub(from);
        let after = from.saturating_add(count).saturating_sub(behind);
        left.extend([(from, before), (behind, after)].iter().filter(|p| p.1 > 0));
        told += u64::from(locks::signal_holder(&file, at, Signal::SIGHUP));
    }
    Ok(told)
}
