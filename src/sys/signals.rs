//! Signals as events: the handler only writes the signal's number into a pipe (regreSSHion was a
//! handler that did more). The event loop reads the pipe.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{pipe2, read};

/// The last signal's number, including the real-time ones (Linux).
const LAST: libc::c_int = 64;

static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handler(number: libc::c_int) {
    let byte = number.to_ne_bytes();
    let errno = Errno::last_raw();
    // SAFETY: write(2) is async-signal-safe; the pipe does not block, and its descriptor is never
    // closed once it is in PIPE. A full pipe loses nothing: the event loop will read it anyway.
    unsafe {
        libc::write(
            PIPE.load(Ordering::Relaxed),
            byte.as_ptr().cast(),
            byte.len(),
        )
    };
    Errno::set_raw(errno);
}

/// The read end of the pipe that the handler writes to.
pub struct Signals {
    read: OwnedFd,
    _write: OwnedFd,
}

impl Signals {
    /// Catches these signals from now on. Only once in a process.
    ///
    /// # Errors
    /// No descriptors are left, or it was called before.
    pub fn catch(which: &[Signal]) -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        if PIPE.swap(write.as_raw_fd(), Ordering::Relaxed) != -1 {
            return Err(io::Error::other("signals are caught already"));
        }
        let action = SigAction::new(
            SigHandler::Handler(handler),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        for s in which {
            // SAFETY: the handler only calls write(2).
            unsafe { sigaction(*s, &action) }?;
        }
        Ok(Self {
            read,
            _write: write,
        })
    }

    /// Returns the signals received since the last call, each at most once for every time the
    /// handler ran.
    pub fn take(&self) -> Vec<Signal> {
        let mut bytes = [0_u8; 256];
        let mut all = Vec::new();
        loop {
            match read(&self.read, &mut bytes) {
                // The event is edge-triggered, so the pipe is read until empty.
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return all,
                Ok(n) => {
                    let came = bytes.get(..n).unwrap_or_default().chunks_exact(4);
                    let numbers = came.filter_map(|b| b.try_into().ok().map(i32::from_ne_bytes));
                    all.extend(numbers.filter_map(|n| Signal::try_from(n).ok()));
                }
            }
        }
    }
}

impl std::os::fd::AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// Sets every signal to its default action and unblocks all, whatever this process was started with
/// (nohup, a shell's trap): the processes that it starts must not inherit that.
pub fn all_default() {
    for s in 1..=LAST {
        // SAFETY: the default action runs no code of this program. The call fails for signals that
        // cannot be changed (KILL, STOP, the C library's own).
        unsafe { libc::signal(s, libc::SIG_DFL) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Ignores SIGPIPE, so that writes to a closed pipe or socket fail instead of ending this process.
///
/// # Errors
/// None for a valid signal.
pub fn ignore_sigpipe() -> io::Result<()> {
    ignore(&[Signal::SIGPIPE])
}

/// Ignores the same and, for gate and relay, the signals that are meant for the daemon. Gate and
/// relay end when their channel to the monitor does; the jobs have their grace period until then.
///
/// # Errors
/// None for a valid signal.
pub fn leave_to_the_monitor() -> io::Result<()> {
    ignore(&[
        Signal::SIGPIPE,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
    ])
}

fn ignore(which: &[Signal]) -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in which {
        // SAFETY: ignoring a signal runs no code of this program.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}
