//! One child, gate or relay: its process, its channel and its sandbox report, and when the next may
//! start.
//!
//! Runs in the monitor. Owns the process and the channel to it. Must not start it again by itself:
//! [`super::processes`] does.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::fault::Fault;
use crate::ipc::watch::Watch;
use crate::ipc::{Channel, Incoming, sandbox_config};
use crate::sys::oom::OomPriority;
use crate::sys::process;
use crate::sys::sandbox::{Role, SandboxConfig, SandboxStatus};

/// A child that lived this long did not fail to start.
const LIVED: Duration = Duration::from_secs(10);
/// First and longest delay before the next start, after a child that did not live that long.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a new child may take until it is sandboxed while the monitor waits. It needs some
/// milliseconds.
const STARTING: Duration = Duration::from_secs(3);
/// The same where the monitor does not wait: inetd may start hundreds at the same time.
const BEGINNING: Duration = Duration::from_secs(30);

/// A child process: gate or relay.
pub(super) struct Child {
    role: Role,
    pid: Option<Pid>,
    channel: Option<Channel>,
    /// Its channel from its start until it is sandboxed, if the monitor waits for that.
    coming: Option<Channel>,
    /// Whether it has still to be sent its sandbox configuration.
    needs_config: bool,
    /// Until when it must have reported its sandbox, if the monitor does not wait for that.
    due: Option<Instant>,
    watch: Option<Watch>,
    started: Instant,
    failures: u32,
}

impl Child {
    /// Returns a child that is still to be started.
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            pid: None,
            channel: None,
            coming: None,
            needs_config: false,
            due: None,
            watch: None,
            started: Instant::now(),
            failures: 0,
        }
    }

    /// Returns its name in the log.
    pub(super) const fn name(&self) -> &'static str {
        match self.role {
            Role::Gate => "gate",
            Role::Relay => "relay",
        }
    }

    /// Starts it: executes this program again, or runs the given function in a fork of this
    /// process. It initializes itself and then waits for its sandbox configuration.
    ///
    /// # Errors
    /// Fails if no process or descriptor is available.
    pub(super) fn launch(&mut self, copy: Option<fn() -> u8>) -> Result<(), Fault> {
        self.started = Instant::now();
        let (argv0, (ours, theirs)) = match self.role {
            // It hands over the sockets of connections.
            Role::Gate => ("cosserver: gate", Channel::receiving_pair()?),
            Role::Relay => ("cosserver: relay", Channel::pair()?),
        };
        let standing = match self.role {
            Role::Gate => OomPriority::Original,
            Role::Relay => OomPriority::Relay,
        };
        self.pid = Some(match copy {
            Some(run) => process::fork_main(run, theirs.as_fd(), standing)?,
            None => process::again(argv0, theirs.as_fd(), standing)?,
        });
        self.coming = Some(ours);
        self.needs_config = true;
        Ok(())
    }

    /// Sends it its sandbox configuration, unless that was done before. It sandboxes itself.
    ///
    /// # Errors
    /// Fails if it has died.
    pub(super) fn send_in(&mut self, into: Option<&SandboxConfig>) -> Result<(), Fault> {
        let channel = self.coming.as_mut().or(self.channel.as_mut());
        if let Some(channel) = channel.filter(|_| self.needs_config) {
            channel.send(sandbox_config::order(into), Vec::new())?;
            self.needs_config = false;
            self.due = Some(Instant::now() + BEGINNING);
        }
        Ok(())
    }

    /// Starts it, unless that was done before, and waits until it is sandboxed.
    ///
    /// # Errors
    /// Fails if no process or descriptor is available, or if it dies at once.
    pub(super) fn start(&mut self, into: Option<&SandboxConfig>) -> Result<SandboxStatus, Fault> {
        if self.coming.is_none() {
            self.launch(None)?;
        }
        self.send_in(into)?;
        let gone = || Fault::new("it is gone");
        let ours = self.coming.take().ok_or_else(gone)?;
        self.due = None;
        let sandbox_status = wait_for_report(&ours, STARTING)
            .map_err(|e| e.while_doing(format!("the {}", self.name())))?;
        self.channel = Some(ours);
        Ok(sandbox_status)
    }

    /// Treats it as started without waiting for its sandbox. It reads messages only once it is
    /// sandboxed. Its first message reports that, and must be given to [`Self::report`].
    ///
    /// # Errors
    /// Fails if no process or descriptor is available.
    pub(super) fn begin(&mut self) -> Result<(), Fault> {
        if self.coming.is_none() {
            self.launch(None)?;
        }
        self.channel = self.coming.take();
        Ok(())
    }

    /// Returns until when it must have reported its sandbox, if it has not.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes its first message: its sandbox status, or why it could not sandbox itself. `None`: the
    /// message is no report.
    pub(super) fn report(&mut self, message: &[u8]) -> Option<Result<SandboxStatus, Fault>> {
        self.due = None;
        sandbox_config::parse_report(message)
    }

    /// Registers its channel with the event loop.
    ///
    /// # Errors
    /// Fails if the event loop takes no more.
    pub(super) fn watch(&mut self, registry: &Registry, event_source: Token) -> Result<(), Fault> {
        let watch = self
            .channel
            .as_ref()
            .map(|c| Watch::new(registry, c, event_source));
        self.watch = watch.transpose()?;
        Ok(())
    }

    /// Has unread data reported again: events are edge-triggered.
    ///
    /// # Errors
    /// A registered channel has none.
    pub(super) fn look_again(&mut self, registry: &Registry) -> Result<(), Fault> {
        match (&mut self.watch, &self.channel) {
            (Some(watch), Some(channel)) => watch.renew(registry, channel),
            _ => Ok(()),
        }
    }

    /// Watches for writability while messages wait.
    ///
    /// # Errors
    /// A registered channel has none.
    pub(super) fn update_watch(&mut self, registry: &Registry) -> Result<(), Fault> {
        match (&mut self.watch, &self.channel) {
            (Some(watch), Some(channel)) => watch.update(registry, channel),
            _ => Ok(()),
        }
    }

    /// Returns its channel, while it lives.
    pub(super) const fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// Sends it a message. `false`: it is dead, or must be treated as dead.
    pub(super) fn send(&mut self, message: Vec<u8>, fds: Vec<std::os::fd::OwnedFd>) -> bool {
        self.channel
            .as_mut()
            .is_some_and(|c| c.send(message, fds).is_ok())
    }

    /// Sends queued messages.
    pub(super) fn flush(&mut self) -> bool {
        self.channel.as_mut().is_none_or(|c| c.flush().is_ok())
    }

    /// Kills it. Returns its process ID, to be reaped, and when the next one may be started.
    pub(super) fn discard(&mut self, now: Instant) -> (Option<Pid>, Instant) {
        (self.channel, self.watch, self.coming, self.due) = (None, None, None, None);
        let pid = self.pid.take();
        if let Some(pid) = pid {
            process::signal(pid, Signal::SIGKILL);
        }
        if now.saturating_duration_since(self.started) >= LIVED {
            self.failures = 0;
            return (pid, now);
        }
        let pause = PAUSE
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(LONGEST_PAUSE);
        let first = self.failures == 0;
        self.failures = self.failures.saturating_add(1).min(16);
        (pid, if first { now } else { now + pause })
    }
}

fn wait_for_report(channel: &Channel, limit: Duration) -> Result<SandboxStatus, Fault> {
    let mut buffer = [0; 1024];
    match channel.receive_until(&mut buffer, Instant::now() + limit)? {
        Incoming::Message(message, _) => {
            let sandbox_status = sandbox_config::parse_report(&message);
            let wrong = || Fault::new("it reported something else");
            let sandbox_status = sandbox_status.ok_or_else(wrong)?;
            sandbox_status.map_err(|e| e.while_doing("its sandbox"))
        }
        Incoming::Nothing => Err(Fault::new("it did not start in time")),
        Incoming::Gone => Err(Fault::new("it died before its sandbox was ready")),
    }
}
