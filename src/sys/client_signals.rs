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
        Self::set(&signals.into_iter().filter(|s| !is_ignored(*s)).collect())
    }

    fn set(caught: &SigSet) -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        // First, so that no signal stays blocked if it fails.
        let descriptor = SignalFd::with_flags(caught, flags)?;
        caught.thread_block()?;
        Ok(Self { descriptor, before })
    }

    /// Catches the signals that would end or stop this program, except those of its own faults.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn all() -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        let held = Signal::iterator().filter(|s| !NOT_HELD.contains(s) && !before.contains(*s));
        let held: SigSet = held.filter(|s| !is_ignored(*s)).collect();
        Self::set(&with_real_time(held, &before))
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

/// Adds the real-time signals, of which nix knows none, except those that are ignored or in
/// `before`.
fn with_real_time(signals: SigSet, before: &SigSet) -> SigSet {
    let mut set = *signals.as_ref();
    for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: the set is initialized, and the number is that of a signal.
        let is_held = unsafe { libc::sigismember(before.as_ref(), number) } == 1;
        if !is_held && !is_number_ignored(number) {
            // SAFETY: as before.
            unsafe { libc::sigaddset(&mut set, number) };
        }
    }
    // SAFETY: the set is an initialized one with valid signals added.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// Returns whether a signal is ignored now, as `nohup` leaves SIGHUP for the programs that it
/// starts.
pub fn is_ignored(signal: Signal) -> bool {
    is_number_ignored(signal as libc::c_int)
}

fn is_number_ignored(number: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action changes nothing; `action` is large enough for the old one.
    let done = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) };
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

    /// Regression: one at a password prompt left the terminal without echo.
    #[test]
    fn all_signals_include_the_real_time_ones() {
        let blocked = || -> Vec<libc::c_int> {
            let mask = SigSet::thread_get_mask().unwrap();
            let all = 1..=libc::SIGRTMAX();
            // SAFETY: the set is initialized, and the number is that of a signal.
            all.filter(|n| unsafe { libc::sigismember(mask.as_ref(), *n) } == 1)
                .collect()
        };
        let before = blocked();
        let held = Caught::all().unwrap();
        let now = blocked();
        for number in (libc::SIGRTMIN()..=libc::SIGRTMAX()).chain([libc::SIGTERM]) {
            assert!(
                now.contains(&number) || is_number_ignored(number),
                "{number}"
            );
        }
        assert!(!now.contains(&libc::SIGSEGV));
        drop(held);
        assert_eq!(blocked(), before);
    }

    #[test]
    fn rust_ignores_sigpipe_and_no_other() {
        assert!(is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGHUP));
    }
}
