//! Signals to a session's first process group, and whether a process is left in it.
//!
//! Runs in the monitor. Must not signal a group by a number that may have been reused.

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{Leader, Session};
use crate::daemon::monitor::guard::Groups;
use crate::protocol::stream::{self, End};
use crate::sys::session::Number;
use crate::sys::{pidfd, process};

impl Session {
    /// Signals the whole first process group.
    pub(super) fn signal(&self, signal: Signal) {
        match &self.pidfd {
            Some(group) if self.reaped => {
                if let Some(pid) = self.leader.pid() {
                    pidfd::signal_led(group, pid, signal);
                }
            }
            None if self.reaped => {}
            _ => {
                if let Some(pid) = self.leader.pid() {
                    process::signal_group(pid, signal);
                }
            }
        }
    }

    /// Signals the first process group at the client's request.
    pub(super) fn pass_on(&mut self, wish: stream::Signal) {
        let signal = match wish {
            stream::Signal::Hangup => Signal::SIGHUP,
            stream::Signal::Interrupt => Signal::SIGINT,
            stream::Signal::Quit => Signal::SIGQUIT,
            stream::Signal::Terminate => Signal::SIGTERM,
        };
        self.passed_on |= bit(signal as i32);
        self.signal(signal);
    }

    /// Whether its client has ended the job: with SIGTERM or SIGHUP, or the job died of another
    /// signal that the client sent.
    pub(super) fn was_ended_by_client(&self) -> bool {
        let mut end = 0;
        if let Some(End::Killed(n)) = self.end {
            end = bit(n.into());
        }
        let ending = bit(Signal::SIGTERM as i32) | bit(Signal::SIGHUP as i32) | end;
        self.passed_on & ending != 0
    }

    /// Returns the session's number, if the system may show its processes by it.
    pub(super) fn number(&self) -> Option<Number> {
        let pid = self.leader.pid().filter(|_| !self.is_unseen)?;
        if !self.reaped {
            return Some(Number::kept(pid));
        }
        let copy = self.pidfd.as_ref().and_then(|fd| fd.try_clone().ok());
        Some(Number::loose(pid, copy))
    }

    /// Whether no process is left of a job that has ended and whose thread is gone, as far as its
    /// first group shows. `false` also if the system cannot tell.
    pub(super) fn is_gone(&mut self, groups: &Groups) -> bool {
        if self.leader.pid().is_none() {
            return self.end.is_some() && self.channel.is_none();
        }
        let (Some(group), Some(_), None) = (&self.pidfd, &self.end, &self.channel) else {
            return false;
        };
        if let (false, Leader::Ours(pid)) = (self.reaped, self.leader) {
            // A zombie counts, so this must succeed if the system has that call.
            self.reaped = pidfd::signal_group(group, None).is_ok() && groups.reap(pid);
        }
        self.reaped && pidfd::signal_group(group, None) == Err(Errno::ESRCH)
    }
}

/// Returns a signal's bit in a set of signals.
fn bit(signal: i32) -> u32 {
    let place = u32::try_from(signal).unwrap_or(u32::MAX);
    1_u32.checked_shl(place).unwrap_or(0)
}
