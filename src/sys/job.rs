//! Starts a job: a child that becomes the user and executes the program.
//!
//! Runs in the monitor, which has one thread. Everything that needs memory is allocated before the
//! child starts. The child makes system calls only, so it may block (a home directory on a slow
//! file system) without delaying the monitor.

pub(super) mod calls;
mod child;
#[cfg(direct_calls)]
mod stack;
mod start;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::atomic::AtomicI32;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{SockaddrLike, SockaddrStorage, UnixAddr};
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
    /// Its arguments, starting with the name it is called by.
    pub argv: Vec<CString>,
    /// Its whole environment, `NAME=value`.
    pub environment: Vec<CString>,
    /// Its working directory; `/` if that cannot be entered.
    pub folder: CString,
    /// Its file mode creation mask.
    pub mask: u16,
    /// The user it runs as; `None`: the user of this process.
    pub user: Option<Identity>,
}

/// A user's IDs for the kernel.
pub struct Identity {
    /// User ID.
    pub uid: IdNumber,
    /// Primary group ID.
    pub gid: IdNumber,
    /// All groups.
    pub groups: Vec<IdNumber>,
}

/// The job's standard descriptors.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// Whether they are pipes made for this job. The user then becomes their owner; otherwise the
    /// job could not open `/dev/stdin`, `/dev/stdout` and `/dev/stderr`.
    pub are_its_own: bool,
    /// What it reads.
    pub stdin: BorrowedFd<'a>,
    /// What it writes.
    pub stdout: BorrowedFd<'a>,
    /// Its errors.
    pub stderr: BorrowedFd<'a>,
}

/// A backend's address, as connect(2) takes it.
pub struct BackendAddress(Vec<u8>);

impl BackendAddress {
    /// Returns the address of a Unix socket.
    ///
    /// # Errors
    /// The path is too long (108 bytes on Linux).
    pub fn unix(path: &Path) -> nix::Result<Self> {
        Ok(Self::of(&UnixAddr::new(path)?))
    }

    /// Returns the address of a TCP port.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::of(&SockaddrStorage::from(address))
    }

    fn of(address: &impl SockaddrLike) -> Self {
        let length = usize::try_from(address.len()).unwrap_or(0);
        // SAFETY: the address has that many bytes, and lives for the call.
        let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), length) };
        Self(bytes.to_vec())
    }
}

/// Everything that the child needs, so that it asks no other process.
enum Plan {
    /// It becomes a program.
    Execute(ExecPlan),
    /// It connects a socket, and ends.
    Connect(ConnectPlan),
}

impl Plan {
    /// Returns the user that the child becomes, if another one.
    const fn user(&self) -> Option<&Identity> {
        match self {
            Self::Execute(execution) => execution.program.user.as_ref(),
            Self::Connect(connection) => connection.user.as_ref(),
        }
    }
}

/// A connection to be made by a user.
struct ConnectPlan {
    user: Option<Identity>,
    /// The socket, above 2.
    socket: RawFd,
    to: BackendAddress,
    parent: Pid,
}

/// A program to be executed.
struct ExecPlan {
    program: Program,
    /// Pointers to the program's strings, ended by a null pointer.
    argv: Vec<*const libc::c_char>,
    /// The same for its environment.
    environment: Vec<*const libc::c_char>,
    /// Its standard descriptors, all above 2.
    fds: [RawFd; 3],
    /// Whether the user becomes their owner.
    gives_fds: bool,
    limits: Limits,
    parent: Pid,
}

impl Starter {
    /// Starts the program in its own session and process group, with the signals, mask, limits and
    /// descriptors that a command expects. The kernel sends it SIGHUP if this process dies. A
    /// program that cannot be executed says so on its stderr and exits with 127 (126 if permission
    /// is denied), as in a shell. `leader`: where the kernel writes the process ID before the
    /// program runs, on Linux on a processor for which system calls are made directly.
    ///
    /// # Errors
    /// The process could not be created.
    pub fn job(
        &mut self,
        program: Program,
        ends: Ends<'_>,
        limits: Limits,
        leader: Option<&AtomicI32>,
    ) -> nix::Result<Pid> {
        let plan = Plan::Execute(ExecPlan {
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
        });
        self.start(plan, leader)
    }

    /// Starts a child that becomes this user, connects the socket to this address, and exits with
    /// the error's number, 0 if there is none. It may take as long as the backend takes. The kernel
    /// records the child's user as the socket's peer.
    ///
    /// # Errors
    /// The process could not be created.
    pub fn connect(
        &mut self,
        user: Option<Identity>,
        socket: BorrowedFd<'_>,
        to: BackendAddress,
    ) -> nix::Result<Pid> {
        let plan = Plan::Connect(ConnectPlan {
            user,
            socket: socket.as_raw_fd(),
            to,
            parent: nix::unistd::getpid(),
        });
        self.start(plan, None)
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Forks with every signal blocked. A signal to the child before its handlers are reset would be
/// taken for one to the parent, because both share the handlers' pipe. The child unblocks the
/// signals with [`default_signals`].
pub(super) fn fork_quietly() -> nix::Result<Option<Pid>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: this process has one thread, so the child is as whole as its parent.
    let pid = Errno::result(unsafe { libc::fork() });
    if pid != Ok(0) {
        before.thread_set_mask()?;
    }
    pid.map(|pid| (pid != 0).then(|| Pid::from_raw(pid)))
}
