//! Starting a job: a child that becomes the user and the program.
//!
//! Run by the monitor, which has one thread. Everything that needs memory is
//! made before the child; it makes system calls only, so that it may block (a
//! home folder on a slow file system) without the monitor noticing.

pub(super) mod calls;
mod child;
#[cfg(direct_calls)]
mod stack;
mod start;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::AtomicI32;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::Pid;

pub(super) use calls::is_user;
#[cfg(test)]
pub(super) use child::die_with;
pub(super) use child::{DESCRIPTORS, close_from, default_signals};
#[cfg(direct_calls)]
pub(super) use stack::Stack;
pub use start::Starter;
pub(super) use start::start_ours;

use super::id_number::IdNumber;
use super::process::Limits;

/// A program, its arguments and where it runs, ready for execve(2).
pub struct Program {
    /// The file to execute.
    pub path: CString,
    /// Its arguments, the name it is called by first.
    pub argv: Vec<CString>,
    /// Its whole environment, `NAME=value`.
    pub environment: Vec<CString>,
    /// The folder it starts in; `/` where that cannot be entered.
    pub folder: CString,
    /// Its file mode creation mask.
    pub mask: u16,
    /// Whom it runs as; `None`: as this process does.
    pub user: Option<Identity>,
}

/// The numbers that a user is to the kernel.
pub struct Identity {
    /// User number.
    pub uid: IdNumber,
    /// Primary group.
    pub gid: IdNumber,
    /// All groups.
    pub groups: Vec<IdNumber>,
}

/// The job's standard descriptors.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// Whether they are pipes made for this job. The user then owns them, or it could not
    /// open `/dev/stdin`, `/dev/stdout` and `/dev/stderr`.
    pub are_its_own: bool,
    /// What it reads.
    pub stdin: BorrowedFd<'a>,
    /// What it writes.
    pub stdout: BorrowedFd<'a>,
    /// Its errors.
    pub stderr: BorrowedFd<'a>,
}

/// All that the child needs, so that it need ask nobody.
struct Plan {
    program: Program,
    /// Into the program's strings, ended by a null pointer.
    argv: Vec<*const libc::c_char>,
    /// The same of its environment.
    environment: Vec<*const libc::c_char>,
    /// Its standard descriptors, all above 2.
    fds: [RawFd; 3],
    /// Whether the user is to own them.
    gives_fds: bool,
    limits: Limits,
    parent: Pid,
}

impl Starter {
    /// Starts the program in a session and process group of its own, with the
    /// signals, mask, limits and descriptors that a command expects, and hung up
    /// by the kernel should this process die. A program that cannot be executed says
    /// so on its stderr and exits 127 (126 where it may not be), as a shell does.
    /// `leader`: where the kernel writes its number before it runs, if this is Linux on a
    /// processor whose calls are made directly.
    ///
    /// # Errors
    /// No process was to be had.
    pub fn job(
        &mut self,
        program: Program,
        ends: Ends<'_>,
        limits: Limits,
        leader: Option<&AtomicI32>,
    ) -> nix::Result<Pid> {
        let plan = Plan {
            argv: pointers(&program.argv),
            environment: pointers(&program.environment),
            program,
            fds: [
                ends.stdin.as_raw_fd(),
                ends.stdout.as_raw_fd(),
                ends.stderr.as_raw_fd(),
            ],
            gives_fds: ends.are_its_own,
            limits,
            parent: nix::unistd::getpid(),
        };
        self.start(plan, leader)
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Forks with every signal blocked: a signal that came to the child before its
/// handlers are gone would be taken for one to the parent, whose pipe they share.
/// The child unblocks them with [`default_signals`].
pub(super) fn fork_quietly() -> nix::Result<Option<Pid>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: this process has one thread, so the child is as whole as its parent.
    let pid = Errno::result(unsafe { libc::fork() });
    if pid != Ok(0) {
        before.thread_set_mask()?;
    }
    pid.map(|pid| (pid != 0).then(|| Pid::from_raw(pid)))
}
