//! The stack of a child that shares our memory.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A child's stack, with a page below that nothing may touch.
pub(in crate::sys) struct Stack(NonNull<c_void>);

impl Stack {
    /// Bytes, the guard included: sixteen times what a debug build was seen to use.
    const SIZE: usize = 64 * 1024;

    /// The guard: the largest page of the systems that this is built for.
    const GUARD: usize = 16 * 1024;

    /// # Errors
    /// No memory.
    pub(in crate::sys) fn new() -> nix::Result<Self> {
        let size = std::num::NonZeroUsize::new(Self::SIZE).ok_or(Errno::EINVAL)?;
        let use_of_it = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let kind = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK;
        // SAFETY: a new mapping, which nothing else knows.
        let stack = Self(unsafe { mmap_anonymous(None, size, use_of_it, kind) }?);
        // SAFETY: its first part, which is used for nothing.
        unsafe { mprotect(stack.0, Self::GUARD, ProtFlags::PROT_NONE) }?;
        Ok(stack)
    }

    /// Where it begins: stacks grow down.
    pub(in crate::sys) fn top(&self) -> *mut c_void {
        // SAFETY: one past the mapping's last byte.
        unsafe { self.0.byte_add(Self::SIZE) }.as_ptr()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, and no child is on it: it would be lent.
        let _ = unsafe { munmap(self.0, Self::SIZE) };
    }
}
