//! What this process inherits at its start: descriptors, and the path of its program.
//!
//! Called before the process opens anything.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::socket::LISTENERS;

/// Closes every descriptor that this process was started with, except the standard ones and the
/// sockets that a service manager passes to this process (`LISTEN_FDS`).
///
/// Otherwise a lock or a pipe of the process that started the daemon would stay open as long as the
/// daemon runs. Only for a process that has opened nothing yet.
pub fn close() {
    super::job::close_from(3_i32.saturating_add(passed()));
}

/// Returns how many sockets the service manager passes, from number 3 on; 0 if they are for another
/// process. At most as many as this program takes.
fn passed() -> i32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<i32>().ok());
    if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
        return 0;
    }
    let most = i32::try_from(LISTENERS).unwrap_or(0);
    number("LISTEN_FDS").map_or(0, |count| count.clamp(0, most))
}

/// Returns a descriptor that this program was started with, whose number its command line has.
///
/// # Errors
/// There is no descriptor with that number.
pub fn descriptor(number: i32) -> std::io::Result<File> {
    // SAFETY: asks the kernel whether the number is an open descriptor.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the caller got the number on its command line, and owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
}

/// Returns whether `/proc` shows this process.
#[cfg(target_os = "linux")]
pub(super) fn has_proc() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| std::fs::symlink_metadata("/proc/self/exe").is_ok())
}

/// Returns the path of this program.
///
/// # Errors
/// The system does not report it.
pub fn own_path() -> std::io::Result<PathBuf> {
    #[cfg(target_os = "linux")]
    if !has_proc() {
        return executed_as();
    }
    std::env::current_exe()
}

/// Returns the path by which this program was executed, for systems where `/proc` does not show the
/// file. First called before the process changes its working directory.
#[cfg(target_os = "linux")]
fn executed_as() -> std::io::Result<PathBuf> {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        // SAFETY: asks for a number that the kernel gave this process.
        let at = unsafe { libc::getauxval(libc::AT_EXECFN) };
        let at = std::ptr::with_exposed_provenance::<libc::c_char>(usize::try_from(at).ok()?);
        if at.is_null() {
            return None;
        }
        // SAFETY: the kernel put a string there that ends with NUL and lives as long as this
        // process.
        let path = unsafe { CStr::from_ptr(at) };
        std::path::absolute(OsStr::from_bytes(path.to_bytes())).ok()
    });
    let unknown = || std::io::Error::other("the path of this program is not known without /proc");
    path.clone().ok_or_else(unknown)
}

/// Returns the path for executing this program's own file: through `/proc` the running file, even
/// if another file has replaced it at its path.
pub(super) fn own_program() -> CString {
    #[cfg(target_os = "linux")]
    if has_proc() {
        return c"/proc/self/exe".into();
    }
    let path = own_path().unwrap_or_default();
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
