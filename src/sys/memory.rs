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
