//! A descriptor that becomes readable when a process has ended: pidfd (Linux
//! 5.3). Where there is none the monitor looks at all its jobs on SIGCHLD.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

/// The descriptor of a child that has not been reaped, closed on exec.
/// `None` where the system has no such thing.
#[cfg(target_os = "linux")]
pub fn open(pid: Pid) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `None`: this system has no such thing.
#[cfg(not(target_os = "linux"))]
pub fn open(_: Pid) -> Option<OwnedFd> {
    None
}
