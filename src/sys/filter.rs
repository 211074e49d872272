//! What every seccomp filter of ours has besides its list of system calls (seccompiler makes
//! the rest): instructions between its check of the architecture and its list.
//!
//! Runs in gate, relay and look-up process, each before its filter stands; the gate takes the
//! commands alone that no filter lets through. Owns nothing: the callers own list and program. Must not make a
//! filter let through what its list denies.

use seccompiler::sock_filter;

/// Commands of fcntl(2) by which a descriptor's owner and signal are set: with O_ASYNC it sends
/// SIGKILL to any process of the same user, and no landlock before Linux 6.12 is in the way.
pub(super) const OWNER_COMMANDS: [u64; 3] = [F_SETOWN, F_SETSIG, F_SETOWN_EX];

// Those of `asm-generic/fcntl.h`, which every architecture with a filter uses.
const F_SETOWN: u64 = 8;
const F_SETSIG: u64 = 10;
const F_SETOWN_EX: u64 = 15;

/// FIOSETOWN and SIOCSPGRP, requests of ioctl(2) that set a socket's owner.
pub(super) const OWNER_REQUESTS: [u64; 2] = [0x8901, 0x8902];

/// Instructions of seccompiler's own check of the architecture.
const ARCHITECTURE_CHECK: usize = 3;

/// The bit that an x32 call has in its number. Its architecture is x86-64's, and so the
/// check of that lets it pass.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Fails every x32 call with this error: under its own number it stands on no list, and a
/// list of what is denied would let it pass.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
pub(super) fn without_x32(program: &mut Vec<sock_filter>, errno: i32) {
    #[cfg(target_arch = "x86_64")]
    insert(program, [load_number(), unless_bit(X32, 1), fail(errno)]);
    let _ = (program, errno);
}

/// Fails clone3(2) with ENOSYS: its flags lie behind a pointer that no filter can read. The C
/// library takes clone(2) instead.
pub(super) fn without_clone3(program: &mut Vec<sock_filter>) {
    if let Ok(number) = u32::try_from(libc::SYS_clone3) {
        let unless_clone3 = instruction(0x15, 0, 1, number);
        insert(program, [load_number(), unless_clone3, fail(libc::ENOSYS)]);
    }
}

fn insert(program: &mut Vec<sock_filter>, all: [sock_filter; 3]) {
    let at = ARCHITECTURE_CHECK.min(program.len());
    program.splice(at..at, all);
}

fn load_number() -> sock_filter {
    instruction(0x20, 0, 0, 0)
}

/// Skips so many instructions, unless the number has this bit.
#[cfg(target_arch = "x86_64")]
fn unless_bit(bit: u32, skip: u8) -> sock_filter {
    instruction(0x45, 0, skip, bit)
}

fn fail(errno: i32) -> sock_filter {
    instruction(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
