//! The stack of a child that shares this process's memory.

use std::ffi::c_void;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A child's stack, with a guard page below it.
pub(in crate::sys) struct Stack(NonNull<c_void>);

impl Stack {
    /// Size in bytes, including the guard: sixteen times the observed use of a debug build.
    const SIZE: usize = 64 * 1024;

    /// Size of the guard: the largest page of the supported systems.
    const GUARD: usize = 16 * 1024;

    /// # Errors
    /// No memory.
    pub(in crate::sys) fn new() -> nix::Result<Self> {
        let size = std::num::NonZeroUsize::new(Self::SIZE).ok_or(Errno::EINVAL)?;
        let use_of_it = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let kind = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK;
        // SAFETY: a new mapping, to which there is no other pointer.
        let stack = Self(unsafe { mmap_anonymous(None, size, use_of_it, kind) }?);
        // SAFETY: the first part of the mapping, which is not used.
        unsafe { mprotect(stack.0, Self::GUARD, ProtFlags::PROT_NONE) }?;
        Ok(stack)
    }

    /// Returns where the stack begins: stacks grow down.
    pub(in crate::sys) fn top(&self) -> *mut c_void {
        // SAFETY: one past the mapping's last byte.
        unsafe { self.0.byte_add(Self::SIZE) }.as_ptr()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, and no child uses it: it would be lent then.
        let _ = unsafe { munmap(self.0, Self::SIZE) };
    }
}
