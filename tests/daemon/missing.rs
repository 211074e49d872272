//! The daemon's program under a seccomp filter that denies system calls.
#![cfg(target_os = "linux")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a test installs a filter of its own"
)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::COSSERVER;

/// Loads a word of the kernel's data about a call, at this offset.
pub fn load(at: u32) -> libc::sock_filter {
    instruction(0x20, 0, 0, at)
}

/// Skips this many instructions if the word differs.
pub fn unless(word: u32, skip: u8) -> libc::sock_filter {
    instruction(0x15, 0, skip, word)
}

pub fn answer(with: u32) -> libc::sock_filter {
    instruction(0x06, 0, 0, with)
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Offset of the low half of a call's first argument.
#[cfg(target_endian = "little")]
pub const FIRST_ARGUMENT: u32 = 16;
#[cfg(target_endian = "big")]
pub const FIRST_ARGUMENT: u32 = 20;

pub const ALLOW: u32 = 0x7fff_0000;

pub fn errno(error: i32) -> u32 {
    0x0005_0000 | u32::try_from(error).unwrap()
}

/// Returns the daemon's program under a seccomp filter, which its children inherit.
pub fn under(filter: Vec<libc::sock_filter>) -> Command {
    filtered(Command::new(COSSERVER), filter)
}

/// Puts a command under a seccomp filter, which its children inherit.
pub fn filtered(mut command: Command, mut filter: Vec<libc::sock_filter>) -> Command {
    let length = u16::try_from(filter.len()).unwrap();
    let install = move || {
        let program = libc::sock_fprog {
            len: length,
            filter: filter.as_mut_ptr(),
        };
        // By prctl(2): seccomp(2) may be the denied call.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
        };
        if done == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    unsafe { command.pre_exec(install) };
    command
}

/// Returns the daemon's program without one system call: it fails with this error.
pub fn without(call: libc::c_long, error: i32) -> Command {
    let number = u32::try_from(call).unwrap();
    let filter = [
        load(0),
        unless(number, 1),
        answer(errno(error)),
        answer(ALLOW),
    ];
    under(filter.to_vec())
}
