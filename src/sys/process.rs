//! Our own processes: starting the program anew in another role, waiting for
//! children, signalling process groups.

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

/// The exit statuses of our processes.
pub const SUCCESS: u8 = 0;
/// The same of one that could not do its work.
pub const FAILURE: u8 = 1;

/// The descriptor on which a process of ours finds its channel.
pub const CHANNEL: i32 = 3;

/// Starts this very program again under another name, with one descriptor, its
/// channel, as number 3, stderr kept until it calls [`quiet`], nothing else of ours and
/// no environment but what its allocator is told; in a session of its own, so that what
/// a terminal sends to the monitor's group (Ctrl-C) is for the monitor to judge.
/// A fork alone would take the monitor's secrets along. The caller waits until it has
/// executed the program.
///
/// # Errors
/// No process was to be had.
pub fn again(name: &str, channel: BorrowedFd<'_>, standing: OomPriority) -> nix::Result<Pid> {
    start(
        &super::inherited::own_program(),
        None,
        name,
        channel,
        standing,
    )
}

/// The login worker's program: one of its own beside this one, so that PAM's library is
/// in no other process. Opened once, as the running program itself is: should another
/// version take its place meanwhile, that is for the daemon that is started then.
pub struct LoginProgram {
    path: CString,
    /// Where the system can execute what is open.
    file: Option<OwnedFd>,
}

impl LoginProgram {
    /// The one beside this program.
    ///
    /// # Errors
    /// It is not there, not a program, or others could put another in its place.
    pub fn open() -> Result<Self, Fault> {
        use std::fs::OpenOptions;
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
        let path = super::inherited::own_path()?.with_file_name("cosserver-login");
        let wrong = |e: &dyn std::fmt::Display| Fault::of(&path, e);
        let missing = |e: std::io::Error| {
            wrong(&format_args!(
                "{e}; it must lie beside cosserver, where make install puts it"
            ))
        };
        // What is judged is what will run: the open file, not what has its name then.
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
        // Without /proc it has no name by which it could be executed.
        #[cfg(target_os = "linux")]
        let file = file.filter(|_| super::inherited::has_proc());
        let file = file.as_ref().map(above_a_childs).transpose()?;
        let path = CString::new(path.as_os_str().as_bytes());
        Ok(Self {
            path: path.map_err(|_| Fault::new("a NUL byte in our own path"))?,
            file,
        })
    }

    /// Starts a login worker, as gate and relay are started.
    ///
    /// # Errors
    /// No process was to be had.
    pub fn start(&self, channel: BorrowedFd<'_>) -> nix::Result<Pid> {
        const OPEN: &CStr = c"/proc/self/fd/4";
        let path = self.file.as_ref().map_or(&*self.path, |_| OPEN);
        let file = self.file.as_ref();
        let name = "cosserver: login";
        start(path, file, name, channel, OomPriority::Original)
    }
}

/// The same open file under a number above those that a child of ours uses.
fn above_a_childs(file: &File) -> nix::Result<OwnedFd> {
    let high = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(CHANNEL + 2))?;
    // SAFETY: the kernel has just made this descriptor for us.
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
        settle_in(channel, file, standing);
        // SAFETY: both arrays end with a null pointer, and what they point to lives.
        unsafe { libc::execve(own.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
        127
    })
}

/// What gate, relay and look-up process run, to be forked where no program of their own is
/// executed.
pub struct Apart {
    /// The gate's life.
    pub gate: fn() -> u8,
    /// The relay's.
    pub relay: fn() -> u8,
    /// The look-up process's.
    pub lookup: fn() -> u8,
}

/// Runs this in a copy of this process instead, in the same surroundings as
/// [`again`]. Only for a process that has one thread and has read no secret yet: what
/// it knows, the copy knows, and where things lie in its memory.
///
/// # Errors
/// No process was to be had.
pub fn apart(run: fn() -> u8, channel: BorrowedFd<'_>, standing: OomPriority) -> nix::Result<Pid> {
    if let Some(child) = super::job::fork_quietly()? {
        return Ok(child);
    }
    settle_in(channel, None, standing);
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
    // SAFETY: an array of pointers, the last of which is null, or none.
    while let Some(entry) = unsafe { next.as_ref() }.filter(|entry| !entry.is_null()) {
        // SAFETY: a string of this process's own memory.
        let length = unsafe { libc::strlen(*entry) };
        // SAFETY: as above; nobody reads it any more.
        unsafe { std::ptr::write_bytes(*entry, 0, length) };
        // SAFETY: not beyond the null pointer, which this one was not.
        next = unsafe { next.add(1) };
    }
    // SAFETY: as for the first.
    unsafe { libc::clearenv() };
}

/// A child of ours: signals as at the start, a session of its own, its channel, no
/// input or output, and nothing else of ours open but stderr. `file`: what number 4 is
/// to be until a program is executed.
pub(super) fn settle_in(channel: BorrowedFd<'_>, file: Option<&OwnedFd>, standing: OomPriority) {
    super::job::default_signals();
    oom::take(standing);
    // SAFETY: takes nothing, and fails for no child that was just made.
    unsafe { libc::setsid() };
    // SAFETY: duplicates onto number 3, which is then kept over exec.
    unsafe { libc::dup2(channel.as_raw_fd(), CHANNEL) };
    if channel.as_raw_fd() == CHANNEL {
        // SAFETY: it stands there already: only keep it over exec.
        unsafe { libc::fcntl(CHANNEL, libc::F_SETFD, 0) };
    }
    null_onto_stdin_and_stdout();
    let mut last = CHANNEL;
    if let Some(file) = file {
        last = CHANNEL + 1;
        // SAFETY: duplicates onto number 4, which is closed once it is executed.
        unsafe { libc::dup3(file.as_raw_fd(), last, libc::O_CLOEXEC) };
    }
    // Not what the daemon itself was started with either.
    super::job::close_from(last + 1);
}

fn null_onto_stdin_and_stdout() {
    // SAFETY: the string ends with NUL.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    for number in [0, 1] {
        // SAFETY: duplicates onto the standard numbers.
        unsafe { libc::dup2(null, number) };
    }
    if null > CHANNEL {
        // SAFETY: opened above, and used no more.
        unsafe { libc::close(null) };
    }
}

/// Points stderr to nothing, where stdout points already: a process of ours that
/// was taken over is to write no line into the monitor's log.
pub fn quiet() {
    // SAFETY: duplicates onto a standard number.
    unsafe { libc::dup2(1, 2) };
}

/// Has this process killed when the one that started it ends, or no longer. (Linux; else
/// it finds out when it speaks next.)
pub fn ends_with_parent(ends: bool) {
    #[cfg(target_os = "linux")]
    {
        let signal = if ends { libc::SIGKILL } else { 0 };
        // SAFETY: takes a number, and concerns this process alone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    }
    let _ = ends;
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it, which may be a real-time one.
    Killed(i32),
}

/// How often it is asked how a child ended, where the call fails.
const ATTEMPTS: usize = 3;

/// How a child ended, if it has; it stays unreaped, so that neither its number
/// nor its process group can become another's. By the raw call: nix's has no
/// answer where a real-time signal was the cause.
pub fn ended(pid: Pid) -> Option<Ended> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let id = libc::id_t::try_from(pid.as_raw()).ok()?;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // Its end is told once: a call that failed is made again.
    let done = (0..ATTEMPTS).find_map(|_| {
        // SAFETY: the structure is large enough and lives for the call.
        let done =
            Errno::result(unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), flags) });
        matches!(done, Ok(_) | Err(Errno::ECHILD)).then_some(done)
    })?;
    if done.is_err() {
        // Reaped by nobody but us; if it is gone all the same, it has ended.
        return Some(Ended::Exited(255));
    }
    // SAFETY: every bit pattern is one, and it was zeroed.
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

/// Reaps a child that has ended. `false`: it has not.
pub fn reap(pid: Pid) -> bool {
    !matches!(
        waitpid(pid, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)
    )
}

/// Signals a whole process group, whose leader has not been reaped.
pub fn signal_group(leader: Pid, signal: Signal) {
    // The group may be gone, or not yet made: the leader is there in any case.
    if killpg(leader, signal).is_err() {
        let _ = kill(leader, signal);
    }
}

/// Signals one child of ours.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// Does this with the file permissions of a user and its primary group; the other groups
/// are this process's own. `None`, and on other systems than Linux: as this process.
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

/// The name that `ps` and `/proc` show for this process, at most 15 bytes.
pub fn set_name(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = CString::new(name) {
        // SAFETY: the string ends with NUL; the kernel copies it.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// Goes into the background: the parent waits until the child has said that it
/// is ready, or has failed, and then exits with that. Returns in the child,
/// with the descriptor to say it on (one byte, then closed).
///
/// # Errors
/// No process was to be had.
pub fn to_background() -> nix::Result<OwnedFd> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread, so the child is as whole as its parent.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(write);
            let mut byte = [0];
            let ready = nix::unistd::read(&read, &mut byte) == Ok(1);
            // SAFETY: the child goes on with everything; the parent has nothing to clean up.
            unsafe { libc::_exit(i32::from(!ready)) }
        }
        ForkResult::Child => {
            drop(read);
            nix::unistd::setsid()?;
            // No file system is to be kept busy: every path of ours is absolute.
            nix::unistd::chdir("/")?;
            null_onto_stdin_and_stdout();
            Ok(write)
        }
    }
}

/// What stderr was before [`silence_stderr`].
pub struct SavedStderr(OwnedFd);

/// Points stdin, stdout and, unless `stderr` is to stay, stderr to nothing: a
/// daemon in the background must not keep the terminal or the pipe of whoever
/// started it, nor inetd's connection. What it starts inherits that.
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
    /// Puts stderr back, to complain on it.
    pub fn undo(&self) {
        // SAFETY: duplicates onto a standard number.
        unsafe { libc::dup2(self.0.as_raw_fd(), 2) };
    }
}

/// No core file and no tracing by others: this process holds secrets. The hard
/// limit stays, or an ordinary user could not give it back to a job.
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
