//! What the allocator is told, so that a held session stays small.

/// One arena for all threads: glibc would otherwise give each of the relay's
/// threads a heap of its own, of which every one keeps some pages. And big
/// buffers go back to the system as soon as they are freed.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt sets numbers of the allocator, before any thread runs.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024) };
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024) };
    }
}

/// Gives freed memory back to the system, after a crowd has left.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// What glibc is told in the environment of a program of ours that is being started
/// (tunables, `ld.so(8)`; other C libraries know none). Of ended threads' stacks it keeps a
/// handful for the next ones, not 40 MiB, that is of every thread that has ever run some pages.
/// And no thread keeps a cache of freed pieces for itself (`tcache_count`): in one arena they lie
/// among what other sessions use, so that 6 KiB of each session that has moved bytes could not go
/// back to the system.
pub(super) const TUNABLES: &std::ffi::CStr =
    c"GLIBC_TUNABLES=glibc.pthread.stack_cache_size=2097152:glibc.malloc.tcache_count=0";

/// Counts how many there are of something that takes memory, and says when a
/// crowd of them has left and the memory is worth giving back.
#[derive(Debug, Default)]
pub struct Crowd {
    now: std::sync::atomic::AtomicUsize,
    most: std::sync::atomic::AtomicUsize,
}

impl Crowd {
    /// So many at once leave memory behind that is worth giving back.
    const WORTH: usize = 64;

    /// A count of none.
    pub const fn new() -> Self {
        use std::sync::atomic::AtomicUsize;
        Self {
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    /// One more.
    pub fn enter(&self) {
        use std::sync::atomic::Ordering;
        let now = self.now.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// One less.
    pub fn leave(&self) {
        use std::sync::atomic::Ordering;
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// There are so many now.
    pub fn is(&self, now: usize) {
        use std::sync::atomic::Ordering;
        self.now.store(now, Ordering::Relaxed);
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// Gives memory back to the system, if most of a crowd have left. To be called
    /// when what they used is free.
    pub fn tidy(&self) {
        use std::sync::atomic::Ordering;
        let (now, most) = (
            self.now.load(Ordering::Relaxed),
            self.most.load(Ordering::Relaxed),
        );
        if most >= Self::WORTH && now <= most / 8 {
            self.most.store(now, Ordering::Relaxed);
            trim();
        }
    }
}
