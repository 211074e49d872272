//! The child that becomes a job, or connects a socket, between its start and exec or its exit.
//!
//! Runs in the child, which may share its parent's memory: it makes system calls only, by
//! [`super::calls`], and writes no memory of the parent's but its own stack.

use std::ffi::CStr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use super::calls;
use super::{ConnectPlan, ExecPlan, Identity, Plan};

/// Carries out the plan. A program that cannot be executed is reported on its stderr, with the exit
/// status 127 if it is missing and 126 if it may not be executed, as in a shell. A connection exits
/// with the number of its error, 0 if there is none.
pub(super) fn run(plan: &Plan) -> ! {
    match plan {
        Plan::Execute(execution) => {
            let errno = become_job(execution);
            calls::exit(print_exec_error(&execution.program.path, errno))
        }
        Plan::Connect(connection) => {
            let failed = connect(connection).err();
            calls::exit(failed.map_or(0, |errno| errno as i32))
        }
    }
}

/// Connects the socket as the user. Keeps no other descriptor open meanwhile.
fn connect(connection: &ConnectPlan) -> Result<(), Errno> {
    default_actions();
    calls::duplicate(connection.socket, 0)?;
    close_from(1);
    calls::new_session();
    if let Some(user) = &connection.user {
        // Firewalls match the socket's owner (iptables --uid-owner), which is still root. If this
        // fails, only such rules are affected.
        calls::own(0, user.uid, user.gid);
        become_user(user)?;
    }
    die_with(connection.parent.as_raw());
    calls::unblock();
    calls::connect(0, &connection.to.0)
}

/// Becomes the program. Returns only if that failed.
fn become_job(plan: &ExecPlan) -> Errno {
    let program = &plan.program;
    default_actions();
    for (fd, number) in plan.fds.into_iter().zip(0..) {
        // The sources are above 2.
        if let Err(e) = calls::duplicate(fd, number) {
            return e;
        }
    }
    close_from(3);
    calls::new_session();
    for (which, limit) in [
        (Resource::RLIMIT_NOFILE, plan.limits.files),
        (Resource::RLIMIT_CORE, plan.limits.core),
    ] {
        if let Some((soft, hard)) = limit {
            calls::limit(which, soft, hard);
        }
    }
    if let (true, Some(user)) = (plan.gives_fds, &program.user) {
        // If this fails (a container's root without CAP_CHOWN), the job cannot open the names under
        // /dev, but its descriptors still work.
        for number in 0..3 {
            calls::own(number, user.uid, user.gid);
        }
    }
    if let Some(Err(e)) = program.user.as_ref().map(become_user) {
        return e;
    }
    die_with(plan.parent.as_raw());
    calls::mask(program.mask);
    if let Err(e) = calls::enter(&program.folder) {
        say(&[
            c"home folder ",
            &program.folder,
            c": ",
            reason(e),
            c"; the command runs in /",
        ]);
        let _ = calls::enter(c"/");
    }
    calls::unblock();
    // SAFETY: the plan's arrays end with a null pointer and point into the plan.
    unsafe { calls::execute(&program.path, plan.argv.as_ptr(), plan.environment.as_ptr()) }
}

/// Sets groups, group and user, in this order. Checks each call, and the IDs at the end: a call
/// that succeeded without effect would leave the job as root.
fn become_user(user: &Identity) -> Result<(), Errno> {
    calls::groups(&user.groups)?;
    calls::group(user.gid)?;
    calls::user(user.uid)?;
    match calls::is_user(user.uid, user.gid) {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}

/// Requests SIGHUP for this process when its parent dies.
pub(in crate::sys) fn die_with(parent: i32) {
    calls::die_with_parent();
    if cfg!(target_os = "linux") && calls::parent() != parent {
        // The parent died before the request.
        calls::exit(129);
    }
}

/// Resets every signal that the daemon catches or ignores to its default action.
fn default_actions() {
    for signal in CHANGED {
        calls::default_action(signal);
    }
}

/// Resets every signal that the daemon has changed to its default action, and unblocks all.
pub(in crate::sys) fn default_signals() {
    default_actions();
    calls::unblock();
}

/// The signals that this program catches or ignores.
const CHANGED: [Signal; 6] = [
    Signal::SIGPIPE,
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGUSR1,
];

/// The most descriptors that a process of this program uses, even if the system allows more (on
/// some systems a thousand million): each may have to be closed by its number.
pub(in crate::sys) const DESCRIPTORS: i32 = 1 << 20;

/// Closes every descriptor from `first` on.
pub(in crate::sys) fn close_from(first: RawFd) {
    if calls::close_range(first).is_ok() || close_listed(first) {
        return;
    }
    close_each(first);
}

/// Closes the open descriptors that `/proc` lists, on a kernel without close_range(2). Returns
/// whether all are closed.
pub(super) fn close_listed(first: RawFd) -> bool {
    let Ok(folder) = calls::open_folder(c"/proc/self/fd") else {
        return false;
    };
    let mut buffer = [0_u8; 2048];
    let done = loop {
        match calls::entries(folder, &mut buffer) {
            Ok(0) => break true,
            Ok(length) => {
                let mut rest = buffer.get(..length).unwrap_or_default();
                while let Some((fd, next)) = entry(rest) {
                    if let Some(fd) = fd.filter(|fd| *fd >= first && *fd != folder) {
                        calls::close(fd);
                    }
                    rest = next;
                }
            }
            Err(_) => break false,
        }
    };
    calls::close(folder);
    done
}

/// Parses the first directory entry as the kernel lists it. Returns the number that is its name, if
/// it is one, and the entries after it.
fn entry(bytes: &[u8]) -> Option<(Option<RawFd>, &[u8])> {
    /// The offsets of the entry's length and name.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let length = bytes.get(LENGTH..)?.first_chunk::<2>()?;
    let length = usize::from(u16::from_ne_bytes(*length));
    let (whole, next) = bytes.split_at_checked(length)?;
    let mut number: Option<RawFd> = None;
    for digit in whole.get(NAME..)?.iter().take_while(|b| **b != 0) {
        if !digit.is_ascii_digit() {
            return Some((None, next));
        }
        let more = RawFd::from(digit - b'0');
        number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(more)?);
    }
    Some((number, next))
}

/// Closes every number up to the limit, if there is no `/proc` either.
/// [`super::super::process::raise_descriptors`] keeps the limit low enough for that.
pub(super) fn close_each(first: RawFd) {
    // SAFETY: asks for a number of this process; a failure is handled below.
    let most = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    let most = i32::try_from(most).unwrap_or(DESCRIPTORS);
    for fd in first..most.clamp(64, DESCRIPTORS) {
        calls::close(fd);
    }
}

/// Writes a line to the job's stderr.
fn say(parts: &[&CStr]) {
    calls::write(2, b"cosserver: ");
    for part in parts {
        calls::write(2, part.to_bytes());
    }
    calls::write(2, b"\n");
}

fn print_exec_error(path: &CStr, errno: Errno) -> i32 {
    say(&[path, c": ", reason(errno)]);
    if errno == Errno::ENOENT { 127 } else { 126 }
}

fn reason(errno: Errno) -> &'static CStr {
    const KNOWN: [(Errno, &CStr); 8] = [
        (Errno::ENOENT, c"no such file"),
        (Errno::EACCES, c"permission denied"),
        (Errno::EPERM, c"permission denied"),
        (Errno::ENOTDIR, c"not a folder"),
        (Errno::ENOEXEC, c"not a program"),
        (Errno::E2BIG, c"the command or its environment is too long"),
        (Errno::EAGAIN, c"no resources left"),
        (Errno::ENOMEM, c"no resources left"),
    ];
    let known = KNOWN.iter().find(|(e, _)| *e == errno);
    known.map_or(c"it cannot be executed", |(_, words)| *words)
}
