//! The first thing of all in the client and the daemon: C's own `main`, without what
//! Rust's runtime does before it.
//!
//! That runtime reads `/proc/self/maps` and sets up a handler for overflowing
//! stacks, which takes a tenth of the time of a client's whole run. What it does besides
//! is done here: descriptors 0, 1 and 2 are open, so that no file or socket of
//! ours can land on them, and SIGPIPE is ignored. The guard page below the
//! stack is the kernel's and stays. Where the standard library does not find
//! the arguments by itself (it does with glibc on Linux), its runtime is used.

use std::io;

/// Defines the program's entry, which calls a function without arguments whose
/// result is the exit status. The file must have
/// `#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]`.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// C's `main`.
        #[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
        #[allow(unsafe_code, reason = "the C library calls it by this name")]
        // SAFETY: no other function of the program is called `main`.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            if $crate::sys::entry::prepare().is_err() {
                return 255;
            }
            i32::from($run())
        }

        #[cfg(not(all(target_os = "linux", target_env = "gnu", not(test))))]
        fn main() -> std::process::ExitCode {
            std::process::ExitCode::from($run())
        }
    };
}

/// Opens `/dev/null` for every standard descriptor that is closed, and ignores
/// SIGPIPE.
///
/// # Errors
/// There is no `/dev/null`.
pub fn prepare() -> io::Result<()> {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: three descriptors of that array are looked at; nothing is waited for.
    let found = unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) };
    if found != 0 {
        for fd in fds.iter().filter(|f| f.revents & libc::POLLNVAL != 0) {
            open_null(fd.fd)?;
        }
    }
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}

/// The lowest free descriptor is taken, which is this one.
fn open_null(fd: libc::c_int) -> io::Result<()> {
    // SAFETY: the path is a C string; the descriptor is the standard one from
    // now on, and nobody's to close.
    let got = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    if got == fd {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
