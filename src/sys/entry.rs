//! The program entry of the client and the daemon: C's own `main`, without Rust's runtime
//! initialization.
//!
//! That initialization reads `/proc/self/maps` and sets up a handler for stack overflow, which
//! takes a tenth of the time of a client's whole run. This module does the rest of its work: it
//! opens descriptors 0, 1 and 2 if they are closed, so that no file or socket of this program can
//! get one of these numbers, and ignores SIGPIPE. The guard page below the stack is the kernel's
//! and stays. Where the standard library does not find the arguments by itself (it does with glibc
//! on Linux), Rust's runtime is used.

use std::io;

/// Defines the program's entry, which calls a function without arguments and exits with its result.
/// The file must have `#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)),
/// no_main)]`.
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
    // SAFETY: polls the three descriptors of that array, and does not wait.
    let found = unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) };
    if found != 0 {
        for fd in fds.iter().filter(|f| f.revents & libc::POLLNVAL != 0) {
            open_null(fd.fd)?;
        }
    }
    // SAFETY: ignoring a signal runs no code of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}

/// Opens `/dev/null` as `fd`, which must be the lowest free descriptor.
fn open_null(fd: libc::c_int) -> io::Result<()> {
    // SAFETY: the path is a C string; the descriptor is a standard one from now on, which no value
    // owns or closes.
    let got = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    if got == fd {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
