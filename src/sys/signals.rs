//! Signals as events: the handler writes one byte into a pipe and does nothing
//! else (regreSSHion: a handler that did more). The loop reads the pipe.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{pipe2, read};

/// The last signal's number, the real-time ones counted (Linux).
const LAST: libc::c_int = 64;

static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handler(number: libc::c_int) {
    let byte = number.to_ne_bytes();
    let errno = Errno::last_raw();
    // SAFETY: write(2) is async-signal-safe; the pipe does not block, and its
    // descriptor is never closed once it is in PIPE. A full pipe loses nothing:
    // the loop will look anyway.
    unsafe {
        libc::write(
            PIPE.load(Ordering::Relaxed),
            byte.as_ptr().cast(),
            byte.len(),
        )
    };
    Errno::set_raw(errno);
}

/// The reading end of the pipe that the handlers write to.
pub struct Signals {
    read: OwnedFd,
    _write: OwnedFd,
}

impl Signals {
    /// Catches these signals from now on. Once in a process.
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

    /// The signals that have come since the last call, each at most once for
    /// every time the handler ran.
    pub fn take(&self) -> Vec<Signal> {
        let mut bytes = [0_u8; 256];
        let mut all = Vec::new();
        loop {
            match read(&self.read, &mut bytes) {
                // An edge comes once: what is there is read now.
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

/// Every signal at its default and none blocked, whatever this process was
/// started with (nohup, a shell's trap): what it starts must not inherit that.
pub fn all_default() {
    for s in 1..=LAST {
        // SAFETY: the default action runs no code of ours. Those that cannot be
        // changed (KILL, STOP, the C library's own) are refused.
        unsafe { libc::signal(s, libc::SIG_DFL) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Writes to a closed pipe or socket become errors instead of ending us.
///
/// # Errors
/// None that a valid signal has.
pub fn ignore_sigpipe() -> io::Result<()> {
    ignore(&[Signal::SIGPIPE])
}

/// The same for gate and relay, which no signal that is meant for the daemon
/// ends either: they end when their channel to the monitor does, and the jobs
/// have their grace until then.
///
/// # Errors
/// None that a valid signal has.
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
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}
