//! Signals for the remote command. They arrive as events on a descriptor, and no handler runs. Runs
//! in the client, once the command has been accepted. Before that, a signal ends the client as it
//! would end any program, and the server hangs up whatever it may have started.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as Kind;

use crate::protocol::stream::Signal;
use crate::sys::client_signals::Caught;

/// How long a server that has not answered a signal may be silent.
const SIGNAL_ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a command may continue after HUP or TERM.
const UNENDED: Duration = Duration::from_secs(60);
/// Signals of one kind within this time count as one.
const TOGETHER: Duration = Duration::from_millis(100);

pub(super) const SILENT: &str =
    "the host does not answer the signal (5 s); the connection is closed, the command may run on";
const RUNS_ON: &str = "the command has not ended 60 s after the signal; it is hung up now";
const UNREAD: &str = "the output was not read within 60 s after the signal; the rest is dropped";

const FORWARDED: [Kind; 4] = [Kind::SIGHUP, Kind::SIGINT, Kind::SIGQUIT, Kind::SIGTERM];

/// The caught signals. Dropping this restores the previous mask.
pub struct Signals(Caught);

impl Signals {
    /// Catches HUP, INT, QUIT and TERM from now on, unless they are ignored.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn catch() -> io::Result<Self> {
        Caught::of(FORWARDED).map(Self)
    }

    /// Catches none: each has its usual effect on this process.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn none() -> io::Result<Self> {
        Caught::of([]).map(Self)
    }

    /// Returns the next signal that has come, if there is one.
    ///
    /// # Errors
    /// The system's error.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        Ok(self.0.next()?.and_then(Signal::of))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What to do with a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it to the command.
    Send,
    /// It repeats the one just before: a program that ends its whole group, as timeout(1) does,
    /// sends us two.
    Repeated,
    /// End the client.
    Stop,
}

/// Tracks whether the server still takes signals, so that a user can always end the client.
#[derive(Debug, Default)]
pub struct SignalReceiver {
    /// Since when the server has been silent, if it has a signal to answer.
    silent_since: Option<Instant>,
    /// The first signal that is to end the command, and when it came.
    ending: Option<(Signal, Instant)>,
}

impl SignalReceiver {
    /// Records that the server has sent something.
    pub fn server_answered(&mut self, now: Instant) {
        if let Some(since) = &mut self.silent_since {
            *since = now;
        }
    }

    /// Records that the server has taken the signals.
    pub const fn answered(&mut self) {
        self.silent_since = None;
    }

    /// Whether HUP or TERM was to end the command.
    pub const fn is_to_end(&self) -> bool {
        self.ending.is_some()
    }

    /// Returns what to do with a signal that comes now. INT and QUIT may come any number of times;
    /// a second HUP or TERM ends the client.
    #[must_use]
    pub fn take(&mut self, signal: Signal, now: Instant) -> Verdict {
        if matches!(signal, Signal::Hangup | Signal::Terminate) {
            match self.ending {
                None => self.ending = Some((signal, now)),
                Some((first, at)) if now.saturating_duration_since(at) < TOGETHER => {
                    if first == signal {
                        return Verdict::Repeated;
                    }
                }
                Some(_) => return Verdict::Stop,
            }
        }
        self.silent_since.get_or_insert(now);
        Verdict::Send
    }

    /// Returns when and why the client ends by itself, unless something happens before.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let silence = self
            .silent_since
            .and_then(|at| at.checked_add(SIGNAL_ANSWER_WITHIN));
        let end = self.ending.and_then(|(_, at)| at.checked_add(UNENDED));
        let silence = silence.map(|at| (at, SILENT));
        silence
            .into_iter()
            .chain(end.map(|at| (at, RUNS_ON)))
            .min_by_key(|(at, _)| *at)
    }

    /// As [`Self::deadline`], after the command's end, while its output is still being written.
    pub fn deadline_after_the_end(&self) -> Option<(Instant, &'static str)> {
        let end = self.ending.and_then(|(_, at)| at.checked_add(UNENDED));
        end.map(|at| (at, UNREAD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn unread_output_does_not_delay_a_terminated_client() {
        let begin = Instant::now();
        let mut receiver = SignalReceiver::default();
        assert_eq!(receiver.deadline_after_the_end(), None);
        let _ = receiver.take(Signal::Interrupt, begin);
        assert_eq!(receiver.deadline_after_the_end(), None);
        let _ = receiver.take(Signal::Terminate, begin + SECOND);
        let end = Some((begin + SECOND + UNENDED, UNREAD));
        assert_eq!(receiver.deadline_after_the_end(), end);
    }

    #[test]
    fn a_server_that_does_not_answer_a_signal_is_left_after_five_seconds() {
        let begin = Instant::now();
        for signal in [
            Signal::Hangup,
            Signal::Interrupt,
            Signal::Quit,
            Signal::Terminate,
        ] {
            let mut receiver = SignalReceiver::default();
            assert_eq!(receiver.deadline(), None);
            assert_eq!(receiver.take(signal, begin), Verdict::Send);
            assert_eq!(
                receiver.deadline(),
                Some((begin + SIGNAL_ANSWER_WITHIN, SILENT))
            );
            // Another signal does not extend the time.
            let _ = receiver.take(Signal::Interrupt, begin + SECOND);
            assert_eq!(
                receiver.deadline(),
                Some((begin + SIGNAL_ANSWER_WITHIN, SILENT))
            );
            // Data does.
            receiver.server_answered(begin + 2 * SECOND);
            let silent = Some((begin + 2 * SECOND + SIGNAL_ANSWER_WITHIN, SILENT));
            assert_eq!(receiver.deadline(), silent);
        }
    }

    #[test]
    fn a_server_that_keeps_sending_has_a_limit_too() {
        let begin = Instant::now();
        for signal in [Signal::Hangup, Signal::Terminate] {
            let mut receiver = SignalReceiver::default();
            assert_eq!(receiver.take(signal, begin), Verdict::Send);
            let mut at = begin;
            while at < begin + UNENDED {
                at += SECOND;
                receiver.server_answered(at);
            }
            assert_eq!(receiver.deadline(), Some((begin + UNENDED, RUNS_ON)));
            // The same limit applies to a server that answers.
            receiver.answered();
            assert_eq!(receiver.deadline(), Some((begin + UNENDED, RUNS_ON)));
        }
        // The keyboard's signals may mean anything to the command.
        let mut receiver = SignalReceiver::default();
        for n in 0..100 {
            let at = begin + n * SECOND;
            assert_eq!(receiver.take(Signal::Interrupt, at), Verdict::Send);
            assert_eq!(receiver.take(Signal::Quit, at), Verdict::Send);
            receiver.answered();
            assert_eq!(receiver.deadline(), None);
        }
    }

    #[test]
    fn a_second_hangup_or_termination_ends_the_client() {
        let begin = Instant::now();
        let both = [Signal::Hangup, Signal::Terminate];
        for (first, second) in both.into_iter().flat_map(|a| both.map(|b| (a, b))) {
            let mut receiver = SignalReceiver::default();
            assert_eq!(receiver.take(first, begin), Verdict::Send);
            receiver.answered();
            let soon = if first == second {
                Verdict::Repeated
            } else {
                Verdict::Send
            };
            assert_eq!(receiver.take(second, begin + TOGETHER / 2), soon);
            assert_eq!(receiver.take(second, begin + TOGETHER), Verdict::Stop);
        }
    }
}
