//! The first step of a set-uid program: drops everything that its caller could control.

use nix::sys::resource::Resource;
use nix::sys::stat::{Mode, umask};

use super::rlimits;

/// Limit of open files: enough to look up a name and read a few files.
const FILES: u64 = 256;

/// Closes all descriptors but the standard ones, empties the environment, and sets signals, mask,
/// working directory and limits to those of a program started by init. The process ends by itself
/// after `seconds`.
pub fn drop_inheritance(seconds: u32) {
    super::signals::all_default();
    let _ = super::signals::ignore_sigpipe();
    super::job::close_from(3);
    // SAFETY: this process has one thread, and no reference into its environment.
    unsafe { libc::clearenv() };
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let _ = nix::unistd::chdir("/");
    super::process::keep_private();
    for which in [
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_CPU,
        Resource::RLIMIT_AS,
    ] {
        let _ = rlimits::set(which, rlimits::UNLIMITED, rlimits::UNLIMITED);
    }
    let _ = rlimits::set(Resource::RLIMIT_NOFILE, FILES, FILES);
    nix::unistd::alarm::set(seconds);
}
