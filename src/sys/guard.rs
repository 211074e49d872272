//! The guard's two needs: a table of process groups in memory that it shares with the
//! monitor, and a process that is nobody's child.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::wait::waitpid;

use super::oom::Standing;

/// Numbers in memory that this process shares with those that it forks from now on. Memory
/// is taken as the numbers are used.
pub struct Numbers {
    at: NonNull<AtomicI32>,
    length: NonZeroUsize,
}

impl Numbers {
    /// So many numbers, all 0.
    ///
    /// # Errors
    /// No memory.
    pub fn new(length: NonZeroUsize) -> nix::Result<Self> {
        let use_of_it = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which nothing else knows.
        let at =
            unsafe { mmap_anonymous(None, Self::bytes(length), use_of_it, MapFlags::MAP_SHARED) }?;
        Ok(Self {
            at: at.cast(),
            length,
        })
    }

    fn bytes(length: NonZeroUsize) -> NonZeroUsize {
        let size = NonZeroUsize::MIN.saturating_add(size_of::<AtomicI32>() - 1);
        length.saturating_mul(size)
    }

    fn all(&self) -> &[AtomicI32] {
        // SAFETY: the mapping is so long, page-aligned, zeroed by the kernel, and lives as
        // long as this value; its numbers are atomic, so that others may change them.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length.get()) }
    }

    /// The number at a place; 0 beyond the last.
    pub fn get(&self, place: usize) -> i32 {
        let number = self.all().get(place);
        number.map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// Sets the number at a place. `false`: there is no such place.
    pub fn set(&self, place: usize, value: i32) -> bool {
        let number = self.all().get(place);
        number
            .map(|number| number.store(value, Ordering::Release))
            .is_some()
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nobody uses any more.
        let _ = unsafe { munmap(self.at.cast(), Self::bytes(self.length).get()) };
    }
}

/// Runs this in a copy of this process that is nobody's child, with this channel and none
/// else of its descriptors; for a process that has one thread. It is found by nobody who
/// looks for children of ours, and nobody has to reap it.
///
/// # Errors
/// No process was to be had.
pub fn run_alone(run: impl FnOnce() -> u8, channel: BorrowedFd<'_>) -> nix::Result<()> {
    if let Some(between) = super::job::fork_quietly()? {
        // It ends at once.
        let _ = waitpid(between, None);
        return Ok(());
    }
    let status = match super::job::fork_quietly() {
        Ok(Some(_)) => 0,
        Ok(None) => {
            super::process::settle_in(channel, None, Standing::Monitor);
            run()
        }
        Err(_) => 1,
    };
    // SAFETY: ends the child without running what its parent would run at exit.
    unsafe { libc::_exit(status.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shared_with_a_fork() {
        let numbers = Numbers::new(NonZeroUsize::MIN.saturating_add(1999)).unwrap();
        assert_eq!((numbers.get(1999), numbers.get(2000)), (0, 0));
        assert!(!numbers.set(2000, 1));
        let (ours, theirs) = nix::unistd::pipe().unwrap();
        match crate::sys::job::fork_quietly().unwrap() {
            Some(pid) => {
                drop(theirs);
                nix::unistd::read(&ours, &mut [0]).unwrap();
                waitpid(pid, None).unwrap();
            }
            None => {
                numbers.set(1999, 7);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) }
            }
        }
        assert_eq!(numbers.get(1999), 7);
    }
}
