//! What every component of the monitor may use: the configuration, the host key, the log, the
//! event loop, and the list of children that are still to be reaped.
//!
//! Runs in the monitor. Holds no state of connections, logins or sessions.

use std::fmt::Display;
use std::time::Duration;

use mio::{Poll, Registry};
use nix::unistd::Pid;

use crate::config::paths::Paths;
use crate::config::settings::Settings;
use crate::daemon::sources::Networks;
use crate::ipc::gate::Limits;
use crate::log::{Log, log};
use crate::secret::KeyPair;
use crate::sys::process;

/// The configuration, and what belongs to the whole process.
pub(super) struct Ground {
    pub(super) paths: Paths,
    pub(super) settings: Settings,
    pub(super) host: KeyPair,
    pub(super) log: Log,
    pub(super) poll: Poll,
    /// The resource limits that a job gets back.
    pub(super) inherited: process::Limits,
    /// Dead children that were not reaped yet.
    pub(super) unreaped: Vec<Pid>,
    /// Whether it serves the one connection of inetd.
    pub(super) is_inetd: bool,
    /// Whether it was told to stop.
    pub(super) is_stopping: bool,
}

impl Ground {
    /// Returns the registry of the event loop.
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Returns how long a job has between hang-up and kill.
    pub(super) const fn kill_after(&self) -> Duration {
        self.settings.exec.hup_to_kill
    }

    /// Returns what the windows of all sessions may promise together, bytes.
    pub(super) const fn windows(&self) -> usize {
        self.settings.limits.windows.saturating_mul(1 << 20)
    }

    /// Returns the networks that are never penalised.
    pub(super) fn exempt(&self) -> Networks {
        let exempt = self.settings.penalties.exempt.iter();
        exempt.map(|n| n.parts()).collect()
    }

    /// Returns the limits that the gate enforces.
    pub(super) fn gate_limits(&self) -> Limits {
        let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (limits, penalties) = (&self.settings.limits, &self.settings.penalties);
        Limits {
            hello: seconds(limits.hello),
            handshake: seconds(limits.handshake),
            refusal: seconds(self.settings.daemon.refusal_interval),
            silent: count(limits.silent),
            silent_per_source: count(limits.silent_per_source),
            reserved: count(limits.reserved),
            refusals: count(limits.refusals),
            keep_alive: seconds(self.settings.daemon.keep_alive),
            penalty_silent: seconds(penalties.grace_exceeded),
            penalty_malformed: seconds(penalties.noauth),
            penalty_min: seconds(penalties.min),
            penalty_max: seconds(penalties.max),
            penalty_sources: count(penalties.sources),
        }
    }

    /// Logs a protection that is missing because the kernel, or a container's filter, refused it.
    pub(super) fn warn_of_missing(&mut self, process: &str, protection: &str, why: &dyn Display) {
        log!(
            self.log,
            Warning,
            "no-protection",
            process = process,
            protection = protection,
            why
        );
    }

    /// Reaps the dead children that have ended by now.
    pub(super) fn reap(&mut self) {
        self.unreaped.retain(|pid| !process::reap(*pid));
    }
}
