//! Signals to a program at a terminal, and the disposition of a signal, for which there is no safe
//! call. Runs in the client and in `cosadm`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that cannot be held, that neither end nor stop a program, or that a program causes by a
/// fault of its own. A held signal of the last kind would recur forever.
const NOT_HELD: [Signal; 12] = [
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGCHLD,
    Signal::SIGCONT,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// Caught signals: they are events on a descriptor, and no handler runs. Dropping this restores the
/// previous mask, and delivers those that are pending.
pub struct Caught {
    descriptor: SignalFd,
    before: SigSet,
}

impl Caught {
    /// Catches these signals from now on. Signals that are ignored (by nohup, or in a shell's
    /// background) stay ignored.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn of(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        let caught: SigSet = signals.into_iter().filter(|s| !is_ignored(*s)).collect();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        // First, so that no signal stays blocked if it fails.
        let descriptor = SignalFd::with_flags(&caught, flags)?;
        caught.thread_block()?;
        Ok(Self { descriptor, before })
    }

    /// Catches the signals that would end or stop this program, except those of its own faults.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn all() -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        Self::of(Signal::iterator().filter(|s| !NOT_HELD.contains(s) && !before.contains(*s)))
    }

    /// Returns the number of the next signal that has come, if there is one.
    ///
    /// # Errors
    /// The system's error.
    pub fn next(&self) -> io::Result<Option<u8>> {
        let signal = self.descriptor.read_signal()?;
        Ok(signal.and_then(|s| u8::try_from(s.ssi_signo).ok()))
    }
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Returns whether a signal is ignored now, as `nohup` leaves SIGHUP for the programs that it
/// starts.
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action changes nothing; `action` is large enough for the old one.
    let done =
        unsafe { libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr()) };
    if done != 0 {
        return false;
    }
    // SAFETY: sigaction succeeded and has filled it.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_ignores_sigpipe_and_no_other() {
        assert!(is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGHUP));
    }
}
