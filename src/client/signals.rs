//! Signals for the remote command: they arrive as events on a descriptor, and
//! no handler runs. Run by the client, once the command has been accepted;
//! before that a signal ends the client as it would end any program, and the
//! server hangs up whatever it may have started.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as Kind};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys::client_signals::is_ignored;
use crate::wire::stream::Signal;

/// A signal that comes so long after another one, with nothing from the server
/// in between, is not sent any more: there is nobody who would take it.
const UNHEARD: Duration = Duration::from_secs(5);

const FORWARDED: [Kind; 4] = [Kind::SIGHUP, Kind::SIGINT, Kind::SIGQUIT, Kind::SIGTERM];

/// Those that nobody can hold, that neither end nor stop a program, or that it causes by
/// a fault of its own, which would come again for ever.
const NOT_HELD: [Kind; 12] = [
    Kind::SIGKILL,
    Kind::SIGSTOP,
    Kind::SIGCHLD,
    Kind::SIGCONT,
    Kind::SIGURG,
    Kind::SIGWINCH,
    Kind::SIGSEGV,
    Kind::SIGBUS,
    Kind::SIGFPE,
    Kind::SIGILL,
    Kind::SIGTRAP,
    Kind::SIGSYS,
];

/// The signals that are caught; dropping it gives them back to their default.
pub struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Catches HUP, INT, QUIT and TERM from now on, but for those that are
    /// ignored (by nohup, or in a shell's background): they stay so.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn catch() -> io::Result<Self> {
        Self::catch_of(FORWARDED.into_iter(), SigSet::thread_get_mask()?)
    }

    /// Catches those that would end or stop the client, but for its own faults. They
    /// stay pending, and are delivered when this is dropped.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn hold() -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        let held = Kind::iterator().filter(|k| !NOT_HELD.contains(k) && !before.contains(*k));
        Self::catch_of(held, before)
    }

    fn catch_of(kinds: impl Iterator<Item = Kind>, before: SigSet) -> io::Result<Self> {
        let mut caught = SigSet::empty();
        for kind in kinds.filter(|k| !is_ignored(*k)) {
            caught.add(kind);
        }
        caught.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            descriptor: SignalFd::with_flags(&caught, flags)?,
            before,
        })
    }

    /// The next signal that has come, if there is one.
    ///
    /// # Errors
    /// What the system says.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        let came = self.descriptor.read_signal()?;
        let number = came.and_then(|c| u8::try_from(c.ssi_signo).ok());
        Ok(number.and_then(Signal::of))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// Whether the server still takes signals, so that a user can always get away.
#[derive(Debug, Default)]
pub struct Hearing(Option<Instant>);

impl Hearing {
    /// Takes note that the server has said something.
    pub fn heard(&mut self) {
        self.0 = None;
    }

    /// Takes note of a signal that comes now; whether to send it. If not, the
    /// server has been silent since an earlier one for too long.
    #[must_use]
    pub fn may_send(&mut self, now: Instant) -> bool {
        let first = *self.0.get_or_insert(now);
        now.saturating_duration_since(first) < UNHEARD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_server_gets_signals_for_five_seconds() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut hearing = Hearing::default();
        assert!(hearing.may_send(at(0)));
        assert!(hearing.may_send(at(4_999)));
        assert!(!hearing.may_send(at(5_000)));
        // One that speaks gets them for ever.
        hearing.heard();
        assert!(hearing.may_send(at(60_000)));
        assert!(hearing.may_send(at(61_000)));
    }
}
