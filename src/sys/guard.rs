//! What the guard needs: a table of process groups in memory that it shares with the monitor, and a
//! process that is not a child of the monitor.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::oom::OomPriority;

/// Numbers in memory that this process shares only with the process that [`run_alone`] forks, which
/// can only read them. No other fork gets the memory: a compromised one must not control which
/// processes the guard signals. Memory is allocated as the numbers are used.
pub struct Numbers {
    at: NonNull<AtomicI32>,
    length: NonZeroUsize,
}

impl Numbers {
    /// Allocates this many numbers, all 0.
    ///
    /// # Errors
    /// No memory.
    pub fn new(length: NonZeroUsize) -> nix::Result<Self> {
        let use_of_it = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, to which there is no other pointer.
        let at =
            unsafe { mmap_anonymous(None, Self::bytes(length), use_of_it, MapFlags::MAP_SHARED) }?;
        let numbers = Self {
            at: at.cast(),
            length,
        };
        numbers.pass_on(false)?;
        Ok(numbers)
    }

    /// Sets whether forks inherit the mapping.
    #[cfg(target_os = "linux")]
    fn pass_on(&self, to_forks: bool) -> nix::Result<()> {
        use nix::sys::mman::{MmapAdvise, madvise};
        let advice = match to_forks {
            true => MmapAdvise::MADV_DOFORK,
            false => MmapAdvise::MADV_DONTFORK,
        };
        // SAFETY: the whole mapping of `new`; this changes nothing in this process's memory.
        unsafe { madvise(self.at.cast(), Self::bytes(self.length).get(), advice) }
    }

    /// This system has no such setting.
    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn pass_on(&self, _: bool) -> nix::Result<()> {
        Ok(())
    }

    /// Forks a process that inherits the mapping.
    fn fork_with_them(&self) -> nix::Result<Option<Pid>> {
        self.pass_on(true)?;
        let forked = super::job::fork_quietly();
        if !matches!(forked, Ok(None)) {
            // This does not fail: for a whole mapping it needs no memory.
            let _ = self.pass_on(false);
        }
        forked
    }

    /// Continues in a fork of this process, which inherits the mapping; the fork's own forks do
    /// not.
    ///
    /// # Errors
    /// The errors of `fork`.
    pub fn in_fork<T>(&self, fork: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
        self.pass_on(true)?;
        let forked = fork();
        self.pass_on(false)?;
        forked
    }

    /// Makes the mapping read-only in this process.
    fn only_read(&self) -> nix::Result<()> {
        let length = Self::bytes(self.length).get();
        // SAFETY: the whole mapping of `new`, to which the caller no longer writes.
        unsafe { mprotect(self.at.cast(), length, ProtFlags::PROT_READ) }
    }

    fn bytes(length: NonZeroUsize) -> NonZeroUsize {
        let size = NonZeroUsize::MIN.saturating_add(size_of::<AtomicI32>() - 1);
        length.saturating_mul(size)
    }

    fn all(&self) -> &[AtomicI32] {
        // SAFETY: the mapping has this length, is page-aligned, zeroed by the kernel, and lives as
        // long as this value; its numbers are atomic, so another process may change them.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length.get()) }
    }

    /// Returns the atomic number at a position.
    pub fn word(&self, place: usize) -> Option<&AtomicI32> {
        self.all().get(place)
    }

    /// Returns the number at a position; 0 beyond the last.
    pub fn get(&self, place: usize) -> i32 {
        let number = self.word(place);
        number.map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// Sets the number at a position. Returns `false` if there is no such position.
    pub fn set(&self, place: usize, value: i32) -> bool {
        let number = self.word(place);
        number
            .map(|number| number.store(value, Ordering::Release))
            .is_some()
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which is no longer used.
        let _ = unsafe { munmap(self.at.cast(), Self::bytes(self.length).get()) };
    }
}

/// Runs `run` in a copy of this process that is not its child, with this channel as its only
/// descriptor, and read access to these numbers. Only for a process that has one thread. No search
/// for this process's children finds it, and this process does not have to reap it.
///
/// # Errors
/// The process could not be created.
pub fn run_alone(
    run: impl FnOnce(&Numbers) -> u8,
    numbers: &Numbers,
    channel: BorrowedFd<'_>,
) -> nix::Result<()> {
    run_forked(super::job::fork_quietly, run, numbers, channel)
}

/// Implements [`run_alone`]. `fork`: how the intermediate process makes the copy.
fn run_forked(
    fork: impl FnOnce() -> nix::Result<Option<Pid>>,
    run: impl FnOnce(&Numbers) -> u8,
    numbers: &Numbers,
    channel: BorrowedFd<'_>,
) -> nix::Result<()> {
    if let Some(between) = numbers.fork_with_them()? {
        // The intermediate process exits at once, with 0 or the error number.
        let ended = loop {
            match waitpid(between, None) {
                Err(Errno::EINTR) => {}
                ended => break ended?,
            }
        };
        let WaitStatus::Exited(_, error) = ended else {
            return Err(Errno::ECHILD);
        };
        return if error == 0 {
            Ok(())
        } else {
            Err(Errno::from_raw(error))
        };
    }
    let status = match numbers.only_read().and_then(|()| fork()) {
        Ok(Some(_)) => 0,
        Ok(None) => {
            super::process::init_process(channel, None, OomPriority::Monitor);
            run(numbers)
        }
        Err(e) => u8::try_from(e as i32).unwrap_or(u8::MAX),
    };
    // SAFETY: ends the child without running what its parent would run at exit.
    unsafe { libc::_exit(status.into()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Regression: a daemon that goes into the background is a fork, and died when it started its
    /// first job.
    #[test]
    fn a_daemon_in_the_background_takes_its_numbers_along() {
        let numbers = Numbers::new(NonZeroUsize::MIN).unwrap();
        let Some(pid) = numbers.in_fork(crate::sys::job::fork_quietly).unwrap() else {
            numbers.set(0, 7);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) }
        };
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
        assert_eq!(numbers.get(0), 7);
    }

    /// Regression: the failure was mistaken for a started guard.
    #[test]
    fn a_second_fork_that_fails_is_an_error() {
        let (ours, theirs) = crate::sys::passing::pair().unwrap();
        let fail = || Err(Errno::EAGAIN);
        let numbers = Numbers::new(NonZeroUsize::MIN).unwrap();
        let run = run_forked(fail, |_| 0, &numbers, theirs.as_fd());
        assert_eq!(run, Err(Errno::EAGAIN));
        assert_eq!(run_alone(|_| 0, &numbers, theirs.as_fd()), Ok(()));
        drop(ours);
    }

    /// Returns the permissions with which this process has these numbers mapped, such as `rw-s`.
    fn mapped(numbers: &Numbers) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = format!("{:x}-", numbers.at.as_ptr() as usize);
        let line = maps.lines().find(|line| line.starts_with(&start))?;
        line.split(' ').nth(1).map(str::to_owned)
    }

    /// Regression: every process that was forked without its own program could write to them: under
    /// inetd, gate, relay and look-up process.
    #[test]
    fn a_fork_has_no_numbers_and_the_guard_only_reads_them() {
        use crate::ipc::{Channel, Incoming};
        use std::os::fd::AsFd;

        let numbers = Numbers::new(NonZeroUsize::MIN.saturating_add(1999)).unwrap();
        assert_eq!((numbers.get(1999), numbers.get(2000)), (0, 0));
        assert!(!numbers.set(2000, 1));
        numbers.set(1999, 7);
        for _ in 0..2 {
            let (channel, theirs) = Channel::pair().unwrap();
            let guard = |numbers: &Numbers| {
                let socket = super::super::socket::inherited(super::super::process::CHANNEL);
                let mut channel = Channel::new(socket.unwrap());
                let said = format!("{} {:?}", numbers.get(1999), mapped(numbers));
                channel.send(said.into_bytes(), Vec::new()).unwrap();
                0
            };
            run_alone(guard, &numbers, theirs.as_fd()).unwrap();
            drop(theirs);
            channel.wait();
            let said = match channel.receive(&mut [0; 64]).unwrap() {
                Incoming::Message(said, _) => String::from_utf8(said.to_vec()).unwrap(),
                Incoming::Nothing | Incoming::Gone => String::new(),
            };
            assert_eq!(said, "7 Some(\"r--s\")");
            // The next fork does not inherit them either.
            match crate::sys::job::fork_quietly().unwrap() {
                Some(pid) => {
                    let ended = waitpid(pid, None).unwrap();
                    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(pid, 0));
                }
                None => {
                    let has = mapped(&numbers).is_some();
                    // SAFETY: ends the child at once.
                    unsafe { libc::_exit(has.into()) }
                }
            }
        }
    }
}
