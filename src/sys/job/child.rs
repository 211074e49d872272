//! A job's child between its start and exec.
//!
//! Run in the child, which may share its parent's memory: it makes system calls
//! only, by [`super::calls`], and changes nothing of the parent's but its own stack.

use std::ffi::CStr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;

use super::calls;
use super::{Identity, Plan};

/// Becomes the program, or says on its stderr why not and exits: 127 where it
/// is missing, 126 where it may not be executed, as a shell does.
pub(super) fn run(plan: &Plan) -> ! {
    let errno = become_job(plan);
    calls::exit(complain(&plan.program.path, errno))
}

/// Returns only when it failed.
fn become_job(plan: &Plan) -> Errno {
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
        // Where this fails (a container's root without CAP_CHOWN) only the names under
        // /dev are closed to the job: its descriptors serve it all the same.
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

/// Groups, group, user: in this order, each checked, and looked at when all is done: a call
/// that changed nothing would leave the job root.
fn become_user(user: &Identity) -> Result<(), Errno> {
    calls::groups(&user.groups)?;
    calls::group(user.gid)?;
    calls::user(user.uid)?;
    match calls::is_user(user.uid, user.gid) {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}

/// SIGHUP for this process when its parent dies.
pub(in crate::sys) fn die_with(parent: i32) {
    calls::die_with_parent();
    if cfg!(target_os = "linux") && calls::parent() != parent {
        // It died before the line above.
        calls::exit(129);
    }
}

/// Every signal that the daemon catches or ignores at its default.
fn default_actions() {
    for signal in CHANGED {
        calls::default_action(signal);
    }
}

/// Every signal that the daemon has changed at its default, and none blocked.
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

/// No process of ours takes more descriptors than these, whatever the system would
/// allow (a thousand million, some): each may have to be closed by its number.
pub(in crate::sys) const DESCRIPTORS: i32 = 1 << 20;

/// Closes every descriptor from this number on.
pub(in crate::sys) fn close_from(first: RawFd) {
    if calls::close_range(first).is_ok() || close_listed(first) {
        return;
    }
    close_each(first);
}

/// The same for a kernel without close_range(2) that has `/proc`: what is open there.
/// Whether all is closed.
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

/// The first entry of a folder as the kernel lists it: the number that is its name, if it
/// is one, and the entries behind it.
fn entry(bytes: &[u8]) -> Option<(Option<RawFd>, &[u8])> {
    /// Where the entry's length and its name stand in it.
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

/// The same where there is no `/proc` either: every number up to the limit, which
/// [`super::super::process::raise_descriptors`] keeps within what can be counted.
pub(super) fn close_each(first: RawFd) {
    // SAFETY: asks a number of this process, and cannot fail in a way that matters.
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

fn complain(path: &CStr, errno: Errno) -> i32 {
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
