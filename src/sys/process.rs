//! Processes of this program: starts the program again in another role, waits for children, signals
//! process groups.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::id_number::IdNumber;
pub use super::limits::{Limits, descriptors, raise_descriptors, restore};
use super::oom::{self, OomPriority};
use super::rlimits;
use crate::fault::Fault;

/// Exit status of a process of this program that succeeded.
pub const SUCCESS: u8 = 0;
/// Exit status of one that could not do its work.
pub const FAILURE: u8 = 1;

/// The descriptor on which a process of this program finds its channel.
pub const CHANNEL: i32 = 3;

/// Starts this program again under another name. It gets its channel as descriptor 3, stderr until
/// it calls [`quiet`], no other descriptor, and no environment but the allocator's settings. It
/// runs in its own session, so that the monitor decides about what a terminal sends to its process
/// group (Ctrl-C). A fork without exec would take the monitor's secrets along. The caller waits
/// until the child has executed the program.
///
/// # Errors
/// The process could not be created.
pub fn again(name: &str, channel: BorrowedFd<'_>, standing: OomPriority) -> nix::Result<Pid> {
    start(
        &super::inherited::own_program(),
        None,
        name,
        channel,
        standing,
    )
}

/// The login worker's program: a separate one beside this one, so that PAM's library is in no other
/// process. Opened once, like the running program itself: a new version that replaces the file is
/// used by the next daemon.
pub struct LoginProgram {
    path: CString,
    /// The open file, if the system can execute open files.
    file: Option<OwnedFd>,
}

impl LoginProgram {
    /// Opens the program beside this one.
    ///
    /// # Errors
    /// It is missing, not a program, or other users could replace it.
    pub fn open() -> Result<Self, Fault> {
        use std::fs::OpenOptions;
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
        let path = super::inherited::own_path()?.with_file_name("cosserver-login");
        let wrong = |e: &dyn std::fmt::Display| Fault::of(&path, e);
        let missing = |e: std::io::Error| {
            wrong(&format_args!(
                "{e}; it must be in cosserver's folder, where make install puts it"
            ))
        };
        // The checked file is the one that will run: the open file, not the one that has its name
        // later.
        let file = if cfg!(target_os = "linux") {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_PATH);
            Some(options.open(&path).map_err(missing)?)
        } else {
            None
        };
        let about = match &file {
            Some(file) => file.metadata(),
            None => std::fs::metadata(&path),
        };
        let about = about.map_err(missing)?;
        let mode = about.permissions().mode();
        if !about.is_file() || mode & 0o111 == 0 {
            return Err(wrong(
                &"it is no program; make install puts it beside cosserver",
            ));
        }
        let own = nix::unistd::geteuid().as_raw();
        if mode & 0o022 != 0 || (about.uid() != 0 && about.uid() != own) {
            return Err(wrong(
                &"others can write it: chown it to root, chmod it to 755",
            ));
        }
        // Without /proc the open file has no path by which it could be executed.
        #[cfg(target_os = "linux")]
        let file = file.filter(|_| super::inherited::has_proc());
        let file = file.as_ref().map(above_a_childs).transpose()?;
        let path = CString::new(path.as_os_str().as_bytes());
        Ok(Self {
            path: path.map_err(|_| Fault::new("a NUL byte in our own path"))?,
            file,
        })
    }

    /// Starts a login worker, in the same way as gate and relay.
    ///
    /// # Errors
    /// The process could not be created.
    pub fn start(&self, channel: BorrowedFd<'_>) -> nix::Result<Pid> {
        const OPEN: &CStr = c"/proc/self/fd/4";
        let path = self.file.as_ref().map_or(&*self.path, |_| OPEN);
        let file = self.file.as_ref();
        let name = "cosserver: login";
        start(path, file, name, channel, OomPriority::Original)
    }
}

/// Duplicates an open file to a number above those that a child uses.
fn above_a_childs(file: &File) -> nix::Result<OwnedFd> {
    let high = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(CHANNEL + 2))?;
    // SAFETY: the kernel has just created this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(high) })
}

fn start(
    own: &CStr,
    file: Option<&OwnedFd>,
    name: &str,
    channel: BorrowedFd<'_>,
    standing: OomPriority,
) -> nix::Result<Pid> {
    let argv0 = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let argv = [argv0.as_ptr(), std::ptr::null()];
    let environment = [super::memory::TUNABLES.as_ptr(), std::ptr::null()];
    super::job::start_ours(&|| {
        init_process(channel, file, standing);
        // SAFETY: both arrays end with a null pointer, and what they point to lives.
        unsafe { libc::execve(own.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
        127
    })
}

/// The functions of gate, relay and look-up process, for forking them without executing the program
/// again.
pub struct ChildMains {
    /// Runs the gate.
    pub gate: fn() -> u8,
    /// Runs the relay.
    pub relay: fn() -> u8,
    /// Runs the look-up process.
    pub lookup: fn() -> u8,
}

/// Runs `run` in a copy of this process, in the same environment as [`again`]. Only for a process
/// that has one thread and has read no secret yet: the copy knows everything that this process
/// knows, including its memory layout.
///
/// # Errors
/// The process could not be created.
pub fn fork_main(
    run: fn() -> u8,
    channel: BorrowedFd<'_>,
    standing: OomPriority,
) -> nix::Result<Pid> {
    if let Some(child) = super::job::fork_quietly()? {
        return Ok(child);
    }
    init_process(channel, None, standing);
    forget_environment();
    let status = run();
    // SAFETY: ends the child without running what its parent would run at exit.
    unsafe { libc::_exit(status.into()) }
}

/// Wipes the environment that this process was started with.
fn forget_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: this process has one thread, which is in this call.
    let mut next = unsafe { environ };
    // SAFETY: an array of pointers that ends with a null pointer, or a null pointer.
    while let Some(entry) = unsafe { next.as_ref() }.filter(|entry| !entry.is_null()) {
        // SAFETY: a string of this process's own memory.
        let length = unsafe { libc::strlen(*entry) };
        // SAFETY: as above; nothing reads it any more.
        unsafe { std::ptr::write_bytes(*entry, 0, length) };
        // SAFETY: not beyond the null pointer, because this entry was not null.
        next = unsafe { next.add(1) };
    }
    // SAFETY: as for `environ` above.
    unsafe { libc::clearenv() };
}

/// Sets up a child: default signals, its own session, its channel, no input or output, and no other
/// open descriptor but stderr. `file`: the file to have as descriptor 4 until a program is
/// executed.
pub(super) fn init_process(channel: BorrowedFd<'_>, file: Option<&OwnedFd>, standing: OomPriority) {
    super::job::default_signals();
    oom::take(standing);
    // SAFETY: takes no arguments, and does not fail in a new child.
    unsafe { libc::setsid() };
    // SAFETY: duplicates onto descriptor 3, which stays open over exec.
    unsafe { libc::dup2(channel.as_raw_fd(), CHANNEL) };
    if channel.as_raw_fd() == CHANNEL {
        // SAFETY: it has this number already: only clears close-on-exec.
        unsafe { libc::fcntl(CHANNEL, libc::F_SETFD, 0) };
    }
    null_onto_stdin_and_stdout();
    let mut last = CHANNEL;
    if let Some(file) = file {
        last = CHANNEL + 1;
        // SAFETY: duplicates onto descriptor 4, which is closed on exec.
        unsafe { libc::dup3(file.as_raw_fd(), last, libc::O_CLOEXEC) };
    }
    // Also the descriptors that the daemon itself was started with.
    super::job::close_from(last + 1);
}

fn null_onto_stdin_and_stdout() {
    // SAFETY: the string ends with NUL.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    for number in [0, 1] {
        // SAFETY: duplicates onto standard descriptors.
        unsafe { libc::dup2(null, number) };
    }
    if null > CHANNEL {
        // SAFETY: opened above, and no longer used.
        unsafe { libc::close(null) };
    }
}

/// Points stderr to `/dev/null`, like stdout: a compromised process must not write a line into the
/// monitor's log.
pub fn quiet() {
    // SAFETY: duplicates onto a standard descriptor.
    unsafe { libc::dup2(1, 2) };
}

/// Sets whether the kernel kills this process when its parent ends. (Linux; on other systems the
/// process learns of it when it next uses its channel.)
pub fn ends_with_parent(ends: bool) {
    #[cfg(target_os = "linux")]
    {
        let signal = if ends { libc::SIGKILL } else { 0 };
        // SAFETY: takes a number, and affects only this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    }
    let _ = ends;
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it; it may be a real-time one.
    Killed(i32),
}

/// How often the call is made if it fails.
const ATTEMPTS: usize = 3;

/// Returns how a child ended, if it has. The child stays unreaped, so that neither its process ID
/// nor its process group can become another's. Uses the raw call: nix's returns nothing if a
/// real-time signal was the cause.
pub fn ended(pid: Pid) -> Option<Ended> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let id = libc::id_t::try_from(pid.as_raw()).ok()?;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // The monitor gets one notice of the child's end, so a failed call is repeated.
    let done = (0..ATTEMPTS).find_map(|_| {
        // SAFETY: the structure is large enough and lives for the call.
        let done =
            Errno::result(unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), flags) });
        matches!(done, Ok(_) | Err(Errno::ECHILD)).then_some(done)
    })?;
    if done.is_err() {
        // Only this process reaps it; if it is gone all the same, it has ended.
        return Some(Ended::Exited(255));
    }
    // SAFETY: every bit pattern is valid, and it was zeroed.
    let info = unsafe { info.assume_init() };
    // SAFETY: after waitid the fields of a child's signal are valid, or still zero.
    if unsafe { info.si_pid() } == 0 {
        return None;
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    match info.si_code {
        libc::CLD_EXITED => Some(Ended::Exited(status)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Some(Ended::Killed(status)),
        _ => None,
    }
}

/// Reaps a child that has ended. Returns `false` if it has not.
pub fn reap(pid: Pid) -> bool {
    !matches!(
        waitpid(pid, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)
    )
}

/// Signals a whole process group. Its leader must not have been reaped.
pub fn signal_group(leader: Pid, signal: Signal) {
    // The group may be gone, or not yet exist: the leader exists in any case.
    if killpg(leader, signal).is_err() {
        let _ = kill(leader, signal);
    }
}

/// Signals one child of this process.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// Runs `what` with the file permissions of a user and its primary group; the supplementary groups
/// stay this process's own. With `None`, and on systems other than Linux, as this process.
pub fn as_user<T>(user: Option<(IdNumber, IdNumber)>, what: impl FnOnce() -> T) -> T {
    #[cfg(target_os = "linux")]
    if let Some((uid, gid)) = user {
        use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
        let before = (
            setfsgid(Gid::from_raw(gid.get())),
            setfsuid(Uid::from_raw(uid.get())),
        );
        let outcome = what();
        setfsuid(before.1);
        setfsgid(before.0);
        return outcome;
    }
    let _ = user;
    what()
}

/// Sets the name that `ps` and `/proc` show for this process, at most 15 bytes.
pub fn set_name(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = CString::new(name) {
        // SAFETY: the string ends with NUL; the kernel copies it.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// Goes into the background. The parent waits until the child has reported that it is ready, or has
/// failed, and exits accordingly. Returns in the child, with the descriptor to report on (one byte,
/// then closed).
///
/// # Errors
/// The process could not be created.
pub fn to_background() -> nix::Result<OwnedFd> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread, so the child is complete.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(write);
            let mut byte = [0];
            let ready = nix::unistd::read(&read, &mut byte) == Ok(1);
            // SAFETY: the child continues with everything; the parent has nothing to clean up.
            unsafe { libc::_exit(i32::from(!ready)) }
        }
        ForkResult::Child => {
            drop(read);
            nix::unistd::setsid()?;
            // So that no file system is busy; all paths of the daemon are absolute.
            nix::unistd::chdir("/")?;
            null_onto_stdin_and_stdout();
            Ok(write)
        }
    }
}

/// The stderr from before [`silence_stderr`].
pub struct SavedStderr(OwnedFd);

/// Points stdin, stdout and, unless `stderr`, stderr to `/dev/null`: a daemon in the background
/// must not keep the terminal or the pipe of the process that started it, nor inetd's connection.
/// Child processes inherit that.
///
/// # Errors
/// No descriptors are left.
pub fn silence_stderr(stderr: bool) -> std::io::Result<SavedStderr> {
    let before = super::socket::inherited(2)?;
    null_onto_stdin_and_stdout();
    if !stderr {
        quiet();
    }
    Ok(SavedStderr(before))
}

impl SavedStderr {
    /// Restores stderr, to report an error on it.
    pub fn undo(&self) {
        // SAFETY: duplicates onto a standard descriptor.
        unsafe { libc::dup2(self.0.as_raw_fd(), 2) };
    }
}

/// Disables core files, and tracing by other processes: this process holds secrets. The hard limit
/// stays, because without it an ordinary user could not restore a job's limit.
pub fn keep_private() {
    if let Ok((_, hard)) = rlimits::get(Resource::RLIMIT_CORE) {
        let _ = rlimits::set(Resource::RLIMIT_CORE, 0, hard);
    }
    #[cfg(target_os = "linux")]
    // SAFETY: sets a number of this process.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0)
    };
}
