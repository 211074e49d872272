//! What a set-uid program does first of all: it lets go of whatever its caller has
//! given it.

use nix::sys::resource::Resource;
use nix::sys::stat::{Mode, umask};

use super::rlimits;

/// Open files that suffice for a look-up of a name and a few files.
const FILES: u64 = 256;

/// Closes all but the standard descriptors, empties the environment, and has signals,
/// mask, folder and limits as a program started by init has them. The process ends by
/// itself after so many seconds.
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
