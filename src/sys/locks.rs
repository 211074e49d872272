//! Locks on single bytes of a file, by which processes that know nothing of each other share slots.
//! The kernel releases a lock when its holder dies, however it dies.
//!
//! They are POSIX locks (fcntl), because those record their holder. They belong to a process and
//! not to a descriptor: a child inherits none, and a process that closes any descriptor of such a
//! file loses all its locks there. So a file with locks is opened once. Never waits.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::pidfd;

/// The holder of a byte's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// No process, or this one.
    NoOther,
    /// Another process, with this ID.
    Other(Pid),
    /// A process in another PID namespace, without a usable ID here.
    Elsewhere,
}

/// Locks a byte, unless another process holds it: then returns `false`.
///
/// # Errors
/// The file system does not support locks, or the kernel has no memory for one.
pub fn take(file: impl AsFd, byte: u32) -> nix::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Unlocks a byte.
pub fn release(file: impl AsFd, byte: u32) {
    let _ = fcntl(file, FcntlArg::F_SETLK(&lock(libc::F_UNLCK, byte)));
}

/// Returns the holder of a byte.
///
/// # Errors
/// The file system does not support locks.
pub fn holder(file: impl AsFd, byte: u32) -> nix::Result<Holder> {
    Ok(held(file, byte, 1)?.map_or(Holder::NoOther, |(_, holder)| holder))
}

/// Returns one of `count` bytes that other processes hold, and its holder; `None`: they hold none
/// of these.
///
/// # Errors
/// The file system does not support locks.
pub fn held(file: impl AsFd, from: u32, count: u32) -> nix::Result<Option<(u32, Holder)>> {
    let mut found = lock(libc::F_WRLCK, from);
    found.l_len = libc::off_t::from(i32::try_from(count).unwrap_or(i32::MAX));
    fcntl(file, FcntlArg::F_GETLK(&mut found))?;
    if i32::from(found.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let at = u32::try_from(found.l_start).unwrap_or(from).max(from);
    let holder = if found.l_pid > 0 {
        Holder::Other(Pid::from_raw(found.l_pid))
    } else {
        Holder::Elsewhere
    };
    Ok(Some((at, holder)))
}

/// Signals the process that holds a byte. Returns whether there is one. Uses a pidfd, opened before
/// the holder is checked again: so the process ID cannot have become another process's.
pub fn signal_holder(file: impl AsFd, byte: u32, signal: Signal) -> bool {
    let Ok(Holder::Other(pid)) = holder(&file, byte) else {
        return false;
    };
    let process = pidfd::open(pid);
    let is_there = holder(&file, byte) == Ok(Holder::Other(pid));
    if is_there {
        pidfd::signal(process.as_ref(), pid, signal);
    }
    is_there
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the constants of one system have two types, and are small"
)]
fn lock(kind: libc::c_int, byte: u32) -> libc::flock {
    // SAFETY: a structure that contains only numbers, for which zero is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = libc::off_t::from(i32::try_from(byte).unwrap_or(i32::MAX));
    lock.l_len = 1;
    lock
}

/// Returns how long this machine has been up, including sleep. The clock is the same in all
/// processes, and cannot be set.
pub fn uptime() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    let clock = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::CLOCK_MONOTONIC;
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_lock_is_held_until_its_process_dies() {
        let path = std::env::temp_dir().join(format!("cos-locks-{}", std::process::id()));
        let file = std::fs::File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (tell, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
        let Some(child) = super::super::job::fork_quietly().unwrap() else {
            super::super::job::default_signals();
            let taken = take(&file, 7) == Ok(true);
            let _ = nix::unistd::write(&tell, &[u8::from(taken)]);
            loop {
                nix::unistd::pause();
            }
        };
        let mut byte = [0];
        nix::unistd::read(&receiver, &mut byte).unwrap();
        assert_eq!(byte, [1]);
        assert_eq!(take(&file, 7), Ok(false));
        assert_eq!(holder(&file, 7), Ok(Holder::Other(child)));
        assert_eq!(holder(&file, 8), Ok(Holder::NoOther));
        let own = Some((7, Holder::Other(child)));
        assert_eq!((held(&file, 0, 8), held(&file, 7, 9)), (Ok(own), Ok(own)));
        assert_eq!((held(&file, 0, 7), held(&file, 8, 9)), (Ok(None), Ok(None)));
        assert_eq!(take(&file, 8), Ok(true));
        assert_eq!(
            holder(&file, 8),
            Ok(Holder::NoOther),
            "our own is no obstacle"
        );
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
        assert_eq!(holder(&file, 7), Ok(Holder::NoOther));
        assert_eq!(take(&file, 7), Ok(true));
        release(&file, 7);
        assert!(uptime() > Duration::ZERO);
    }
}
