//! Process descriptors: a pidfd becomes readable when its process has ended (Linux 5.3). Without
//! them the monitor checks all its jobs on SIGCHLD.
//!
//! A pidfd also stands for the process group that its process leads, as long as the group has a
//! member (Linux 6.9).

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Opens the descriptor of a child that has not been reaped, closed on exec. `None` if the system
/// has no pidfds.
#[cfg(target_os = "linux")]
pub fn open(pid: Pid) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the call takes two integers and accesses no memory of this process.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just created this descriptor.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns `None`: this system has no pidfds.
#[cfg(not(target_os = "linux"))]
pub fn open(_: Pid) -> Option<OwnedFd> {
    None
}

/// Returns whether a process has ended, reaped or not.
pub fn has_ended(process: &OwnedFd) -> bool {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) != Ok(0)
}

/// Returns whether a process has not been reaped, as far as the system tells: until then no other
/// process gets its ID.
pub fn is_there(process: &OwnedFd) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let (fd, nothing) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: without a siginfo_t the call accesses no memory of this process.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, 0, nothing, 0) };
        match Errno::result(done) {
            Ok(_) => return true,
            Err(Errno::ESRCH) => return false,
            Err(_) => {}
        }
    }
    !has_ended(process)
}

/// Signals one process, by the descriptor that [`open`] returned. Without one, it is signalled by
/// its ID.
pub fn signal(process: Option<&OwnedFd>, pid: Pid, signal: Signal) {
    #[cfg(target_os = "linux")]
    if let Some(process) = process {
        use std::os::fd::AsRawFd;
        let nothing = std::ptr::null::<libc::siginfo_t>();
        let (fd, number) = (process.as_raw_fd(), signal as libc::c_int);
        // SAFETY: without a siginfo_t the call accesses no memory of this process.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, nothing, 0) };
        // If the system call is missing or denied, use the process ID.
        if matches!(Errno::result(done), Ok(_) | Err(Errno::ESRCH)) {
            return;
        }
    }
    let _ = process;
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Signals the process group that a process leads, or has led. Unlike the ID, the descriptor never
/// refers to another process, even after the leader was reaped. With `None` sends nothing and only
/// checks whether the group has a member; a leader that was not reaped counts.
///
/// # Errors
/// ESRCH: the group has no member any more. Any other: the system does not support this, or the
/// remaining members may not be signalled.
#[cfg(target_os = "linux")]
pub fn signal_group(leader: &OwnedFd, signal: Option<Signal>) -> nix::Result<()> {
    use std::os::fd::AsRawFd;
    /// `PIDFD_SIGNAL_PROCESS_GROUP`: libc does not define it yet.
    const GROUP: libc::c_uint = 1 << 2;
    let number = signal.map_or(0, |s| s as libc::c_int);
    let nothing = std::ptr::null::<libc::siginfo_t>();
    let fd = leader.as_raw_fd();
    // SAFETY: without a siginfo_t the call accesses no memory of this process.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, nothing, GROUP) };
    Errno::result(done).map(drop)
}

/// Signals the process group of a leader that other processes may have reaped. Before Linux 6.9 a
/// group has only an ID, which is safe to use only while its leader has not ended.
pub fn signal_led(leader: &OwnedFd, pid: Pid, signal: Signal) {
    match signal_group(leader, Some(signal)) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(_) if has_ended(leader) => {}
        Err(_) => super::process::signal_group(pid, signal),
    }
}

/// Returns an error: this system has no pidfds.
#[cfg(not(target_os = "linux"))]
pub fn signal_group(_: &OwnedFd, _: Option<Signal>) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}

#[cfg(all(test, target_os = "linux"))]
#[allow(
    clippy::disallowed_methods,
    reason = "a process group has to be made of something"
)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_group_is_there_until_its_last_member_has_ended() {
        let mut leader = Command::new("/bin/sh")
            .args(["-c", "exec 3<&0; cat <&3 & exit"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = leader.stdin.take();
        let mut stdout = leader.stdout.take().unwrap();
        let group = open(Pid::from_raw(i32::try_from(leader.id()).unwrap())).unwrap();
        assert!(leader.wait().unwrap().success());
        match signal_group(&group, None) {
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => return,
            there => assert_eq!(there, Ok(())),
        }
        drop(stdin);
        stdout.read_to_end(&mut Vec::new()).unwrap();
        // The process that inherits the last member has still to reap it.
        let end = Instant::now() + Duration::from_secs(30);
        while signal_group(&group, None) != Err(Errno::ESRCH) {
            assert!(Instant::now() < end, "it does not become empty");
            std::thread::yield_now();
        }
        assert_eq!(
            signal_group(&group, Some(Signal::SIGKILL)),
            Err(Errno::ESRCH)
        );
    }
}
