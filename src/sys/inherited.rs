//! What this process was started with: its starter's descriptors, and its own program's
//! path. Called first of all, before anything is opened.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::socket::LISTENERS;

/// Closes every descriptor that this process was started with, but the standard ones and
/// the sockets that a service manager passes to this very process (`LISTEN_FDS`).
///
/// A lock or a pipe of whoever started the daemon would else stay open for as long as it
/// runs. Only for a process that has opened nothing yet.
pub fn close() {
    super::job::close_from(3_i32.saturating_add(passed()));
}

/// How many sockets the service manager passes, from number 3 on; 0 where they are another
/// process's, or more than this program takes.
fn passed() -> i32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<i32>().ok());
    if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
        return 0;
    }
    let most = i32::try_from(LISTENERS).unwrap_or(0);
    number("LISTEN_FDS").map_or(0, |count| count.clamp(0, most))
}

/// Whether what `/proc` shows of this process can be used.
#[cfg(target_os = "linux")]
pub(super) fn has_proc() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| std::fs::symlink_metadata("/proc/self/exe").is_ok())
}

/// The path of this program.
///
/// # Errors
/// The system does not say it.
pub fn own_path() -> std::io::Result<PathBuf> {
    #[cfg(target_os = "linux")]
    if !has_proc() {
        return executed_as();
    }
    std::env::current_exe()
}

/// The path by which this program was executed, where `/proc` does not say which file it
/// is. Asked first before the process changes its folder.
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
        // SAFETY: the kernel put a string that ends with NUL there, for this process's life.
        let path = unsafe { CStr::from_ptr(at) };
        std::path::absolute(OsStr::from_bytes(path.to_bytes())).ok()
    });
    let unknown = || std::io::Error::other("the path of this program is not known without /proc");
    path.clone().ok_or_else(unknown)
}

/// This program's own file, to be executed: the running one, even if another has taken its
/// path, where `/proc` is there to name it.
pub(super) fn own_program() -> CString {
    #[cfg(target_os = "linux")]
    if has_proc() {
        return c"/proc/self/exe".into();
    }
    let path = own_path().unwrap_or_default();
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
