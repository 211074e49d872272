//! Starting a job: fork, become the user, and exec.
//!
//! Run by the monitor, which has one thread. Everything that needs memory is
//! made before the fork; the child makes system calls only, so that it may
//! block (a home folder on a slow file system) without the monitor noticing.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;

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
    /// Whom it runs as; `None`: as this process does.
    pub user: Option<Identity>,
}

/// The numbers that a user is to the kernel.
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// The job's ends of its three pipes.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// What it reads.
    pub stdin: BorrowedFd<'a>,
    /// What it writes.
    pub stdout: BorrowedFd<'a>,
    /// Its errors.
    pub stderr: BorrowedFd<'a>,
}

/// Starts the program in a session and process group of its own, with the
/// signals, mask (022), limits and descriptors that a command expects, and hung up by
/// the kernel should this process die. A program that cannot be executed says
/// so on its stderr and exits 127 (126 where it may not be), as a shell does.
///
/// # Errors
/// No process was to be had.
pub fn start(program: &Program, ends: Ends<'_>, limits: Limits) -> nix::Result<Pid> {
    let argv = pointers(&program.argv);
    let environment = pointers(&program.environment);
    let fds = [
        ends.stdin.as_raw_fd(),
        ends.stdout.as_raw_fd(),
        ends.stderr.as_raw_fd(),
    ];
    let parent = nix::unistd::getpid();
    if let Some(pid) = fork_quietly()? {
        return Ok(pid);
    }
    let errno = become_job(program, &argv, &environment, fds, limits, parent);
    let status = complain(&program.path, errno);
    // SAFETY: ends the child without running what its parent would run at exit.
    unsafe { libc::_exit(status) }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Everything between fork and exec; returns only when it failed.
fn become_job(
    program: &Program,
    argv: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    fds: [RawFd; 3],
    limits: Limits,
    parent: Pid,
) -> Errno {
    default_signals();
    for (fd, number) in fds.into_iter().zip(0..) {
        // SAFETY: duplicates onto the standard numbers; the sources are above 2.
        if unsafe { libc::dup2(fd, number) } < 0 {
            return Errno::last();
        }
    }
    close_from(3);
    // SAFETY: plain system calls on this process alone.
    unsafe { libc::setsid() };
    for (which, limit) in [
        (libc::RLIMIT_NOFILE, limits.files),
        (libc::RLIMIT_CORE, limits.core),
    ] {
        let Some((soft, hard)) = limit else { continue };
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: the structure lives for the call.
        unsafe { libc::setrlimit(which, &raw const limit) };
    }
    if let Some(Err(e)) = program.user.as_ref().map(become_user) {
        return e;
    }
    die_with(parent);
    // SAFETY: sets a number of this process.
    unsafe { libc::umask(0o022) };
    // SAFETY: the string ends with NUL.
    if unsafe { libc::chdir(program.folder.as_ptr()) } != 0 {
        // SAFETY: as above.
        unsafe { libc::chdir(c"/".as_ptr()) };
    }
    // SAFETY: both arrays end with a null pointer, and what they point to lives.
    unsafe { libc::execve(program.path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

/// Groups, group, user: in this order, and each checked. The raw calls, because
/// the child must not run library code.
fn become_user(user: &Identity) -> Result<(), Errno> {
    // SAFETY: the slice lives for the call.
    let groups = unsafe { libc::setgroups(user.groups.len(), user.groups.as_ptr()) };
    Errno::result(groups)?;
    // SAFETY: sets numbers of this process.
    Errno::result(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })?;
    Ok(())
}

/// SIGHUP for this process when its parent dies (Linux; elsewhere the closed
/// pipes must do).
pub(super) fn die_with(parent: Pid) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: sets a number of this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGHUP) };
        // SAFETY: asks a number of this process.
        if unsafe { libc::getppid() } != parent.as_raw() {
            // SAFETY: ends the child; its parent died before the line above.
            unsafe { libc::_exit(129) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
}

/// Every signal that we have changed at its default, and none blocked.
pub(super) fn default_signals() {
    for s in CHANGED {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(s as libc::c_int, libc::SIG_DFL) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// The signals that this program catches or ignores.
const CHANGED: [Signal; 5] = [
    Signal::SIGPIPE,
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGINT,
];

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

/// Closes every descriptor from this number on.
pub(super) fn close_from(first: RawFd) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: nothing in this process uses a descriptor after this.
        if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) } == 0 {
            return;
        }
    }
    // SAFETY: asks a number of this process.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    for fd in first..i32::try_from(most).unwrap_or(1024).clamp(64, 65_536) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

fn complain(path: &CStr, errno: Errno) -> libc::c_int {
    for part in [c"cosserver: ", path, c": ", reason(errno), c"\n"] {
        let bytes = part.to_bytes();
        // SAFETY: the bytes live for the call. What cannot be written is lost.
        unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
    }
    if errno == Errno::ENOENT { 127 } else { 126 }
}

fn reason(errno: Errno) -> &'static CStr {
    const KNOWN: [(Errno, &CStr); 7] = [
        (Errno::ENOENT, c"no such file"),
        (Errno::EACCES, c"permission denied"),
        (Errno::EPERM, c"permission denied"),
        (Errno::ENOEXEC, c"not a program"),
        (Errno::E2BIG, c"the command or its environment is too long"),
        (Errno::EAGAIN, c"no resources left"),
        (Errno::ENOMEM, c"no resources left"),
    ];
    let known = KNOWN.iter().find(|(e, _)| *e == errno);
    known.map_or(c"it cannot be executed", |(_, words)| *words)
}
