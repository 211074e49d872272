//! Checks which system calls with a fallback in the monitor are missing on this system.
//!
//! Called once, when a standalone daemon starts, so that the log can say so. Decides nothing: each
//! caller falls back by itself when its own call fails.

use nix::errno::Errno;

/// Returns the missing features, each with the system's error.
pub fn missing() -> Vec<(&'static str, std::io::Error)> {
    let mut all = vec![("close_range", close_range())];
    #[cfg(target_os = "linux")]
    {
        all.extend(pidfds());
        let procfs = std::fs::symlink_metadata("/proc/self/exe").map(drop);
        all.push(("/proc", procfs));
    }
    let missing = all.into_iter();
    missing
        .filter_map(|(name, answer)| Some((name, answer.err()?)))
        .collect()
}

#[cfg(target_os = "linux")]
fn answer(outcome: libc::c_long) -> std::io::Result<()> {
    Ok(Errno::result(outcome).map(drop)?)
}

/// Checks with a range that contains no descriptor.
#[cfg(target_os = "linux")]
fn close_range() -> std::io::Result<()> {
    let (first, last) = (u32::MAX, u32::MAX);
    // SAFETY: no descriptor has this number, so none is closed.
    answer(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) })
}

#[cfg(not(target_os = "linux"))]
fn close_range() -> std::io::Result<()> {
    Ok(())
}

/// Asks for a descriptor of this process, and whether it can be signalled by it, with signal 0,
/// which sends nothing.
#[cfg(target_os = "linux")]
fn pidfds() -> Vec<(&'static str, std::io::Result<()>)> {
    use std::os::fd::AsRawFd;
    let Some(own) = super::pidfd::open(nix::unistd::getpid()) else {
        return vec![("pidfd_open", Err(std::io::Error::last_os_error()))];
    };
    let nothing = std::ptr::null::<libc::siginfo_t>();
    let (call, fd) = (libc::SYS_pidfd_send_signal, own.as_raw_fd());
    // SAFETY: without a siginfo_t the call accesses no memory of this process.
    let sent = unsafe { libc::syscall(call, fd, 0, nothing, 0) };
    vec![("pidfd_send_signal", answer(sent))]
}
