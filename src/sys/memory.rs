//! Settings of the allocator that keep a held session small.

/// Limits the allocator to one arena for all threads, and makes it return big buffers to the system
/// as soon as they are freed. By default glibc gives each of the relay's threads its own heap, and
/// each heap keeps some pages.
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

/// Returns freed memory to the system, after many sessions have ended.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// glibc's tunables, set in the environment of a process of this program when it starts
/// (`ld.so(8)`; other C libraries have none). glibc keeps a few stacks of ended threads for the
/// next ones, instead of 40 MiB, which is some pages of every thread that has ever run. No thread
/// keeps a cache of freed blocks (`tcache_count`): in one arena they lie between blocks that other
/// sessions use, so 6 KiB of each session that has moved bytes could not be returned to the system.
pub(super) const TUNABLES: &std::ffi::CStr =
    c"GLIBC_TUNABLES=glibc.pthread.stack_cache_size=2097152:glibc.malloc.tcache_count=0";

/// Counts objects that take memory, and detects when most of a large number are gone and the memory
/// is worth returning.
#[derive(Debug, Default)]
pub struct PeakCounter {
    now: std::sync::atomic::AtomicUsize,
    most: std::sync::atomic::AtomicUsize,
}

impl PeakCounter {
    /// This many at once leave memory behind that is worth returning.
    const WORTH: usize = 64;

    /// Creates a count of zero.
    pub const fn new() -> Self {
        use std::sync::atomic::AtomicUsize;
        Self {
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    /// Adds one.
    pub fn enter(&self) {
        use std::sync::atomic::Ordering;
        let now = self.now.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// Subtracts one.
    pub fn leave(&self) {
        use std::sync::atomic::Ordering;
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets the count.
    pub fn is(&self, now: usize) {
        use std::sync::atomic::Ordering;
        self.now.store(now, Ordering::Relaxed);
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// Returns memory to the system, if most of a large number are gone. To be called after their
    /// memory is freed.
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
