//! Gate and relay: started, configured, replaced when they die, and sent their orders.
//!
//! Runs in the monitor. Owns both processes, the listening sockets, and the sandbox that they
//! enter. Must not decide about connections: it sends the orders that the pipeline gives.

use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::children::Child;
use super::event_source;
use super::ground::Ground;
use crate::fault::Fault;
use crate::ipc::Incoming;
use crate::ipc::gate::{List, Order};
use crate::ipc::relay::Session;
use crate::log::log;
use crate::sys::passing;
use crate::sys::sandbox::{SandboxConfig, SandboxStatus};

/// Networks in one message to the gate.
const NETWORKS: usize = 1024;

/// The shortest delay before a child is started again that could not be started.
const PAUSE: Duration = Duration::from_millis(100);

/// One of the two children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Gate = 0,
    Relay = 1,
}

/// Gate and relay.
pub(super) struct Processes {
    gate: Child,
    relay: Child,
    /// When a dead child may be started again.
    restart: [Option<Instant>; 2],
    sandbox_config: Option<SandboxConfig>,
    listeners: Vec<TcpListener>,
    /// The gate has no connection, and gets no other.
    gate_is_empty: bool,
    /// The gate was lost since the last [`Self::take_gate_loss`].
    has_lost_gate: bool,
}

impl Processes {
    /// Returns them, to be started.
    pub(super) const fn new(
        gate: Child,
        relay: Child,
        sandbox_config: Option<SandboxConfig>,
        listeners: Vec<TcpListener>,
    ) -> Self {
        Self {
            gate,
            relay,
            restart: [None, None],
            sandbox_config,
            listeners,
            gate_is_empty: false,
            has_lost_gate: false,
        }
    }

    /// Returns the sockets that the gate accepts from.
    pub(super) fn listeners(&self) -> &[TcpListener] {
        &self.listeners
    }

    /// Whether a session can be handed over.
    pub(super) const fn has_relay(&self) -> bool {
        self.relay.channel().is_some()
    }

    /// Whether there is a gate: without it, its connections are gone.
    pub(super) const fn has_gate(&self) -> bool {
        self.gate.channel().is_some()
    }

    /// Whether the gate has no connection, and gets no other.
    pub(super) const fn gate_is_empty(&self) -> bool {
        self.gate_is_empty
    }

    /// Notes that the gate has no connection, and gets no other.
    pub(super) const fn note_gate_empty(&mut self) {
        self.gate_is_empty = true;
    }

    /// Whether the gate was lost since the last call: its connections are gone.
    pub(super) const fn take_gate_loss(&mut self) -> bool {
        std::mem::replace(&mut self.has_lost_gate, false)
    }

    // ---- orders ----

    /// Sends the gate an order.
    pub(super) fn send_to_gate(&mut self, ground: &mut Ground, order: &Order<'_>) {
        if !self.gate.send(order.encode(), Vec::new()) {
            self.lose(ground, Which::Gate, Instant::now());
        }
    }

    /// Gives the gate a connection, as if the gate had accepted it.
    pub(super) fn adopt(&mut self, ground: &mut Ground, connection: OwnedFd) {
        if !self.gate.send(Order::Adopt.encode(), vec![connection]) {
            self.lose(ground, Which::Gate, Instant::now());
        }
    }

    /// Gives the relay a session. If the relay is dead, the descriptors are closed.
    pub(super) fn send_to_relay(
        &mut self,
        ground: &mut Ground,
        session: &Session,
        fds: Vec<OwnedFd>,
    ) {
        // Under inetd that may not have been done yet.
        let is_sandboxed = self.relay.send_in(self.sandbox_config.as_ref()).is_ok();
        if !is_sandboxed || !self.relay.send(session.encode(), fds) {
            self.lose(ground, Which::Relay, Instant::now());
        }
    }

    /// Has the relay sandbox itself, unless that was done before: under inetd it waits for that. If
    /// it has died, its first session fails.
    pub(super) fn prepare_relay(&mut self) {
        let _ = self.relay.send_in(self.sandbox_config.as_ref());
    }

    /// Sends the gate its limits, which a reload may have changed.
    pub(super) fn send_limits(&mut self, ground: &mut Ground) {
        let limits = ground.gate_limits();
        self.send_to_gate(ground, &Order::Limits(limits));
    }

    /// Sends the gate the networks that HOSTINFO lists, and those that are never penalised.
    pub(super) fn send_networks(&mut self, ground: &mut Ground, listed: &[(IpAddr, u8)]) {
        let exempt = ground.settings.penalties.exempt.iter();
        let exempt: Vec<_> = exempt.map(|n| n.parts()).collect();
        for (list, networks) in [(List::Listed, listed), (List::Exempt, &exempt)] {
            self.send_to_gate(ground, &Order::Networks(list, true, Vec::new()));
            for part in networks.chunks(NETWORKS) {
                self.send_to_gate(ground, &Order::Networks(list, false, part.to_vec()));
            }
        }
    }

    /// Sends as many listening sockets with each message as it can carry.
    fn send_listeners(&mut self) -> Result<(), Fault> {
        for part in self.listeners.chunks(passing::DESCRIPTORS) {
            let copies: std::io::Result<Vec<OwnedFd>> = part
                .iter()
                .map(|l| l.try_clone().map(OwnedFd::from))
                .collect();
            if !self.gate.send(Order::Listen.encode(), copies?) {
                return Err(Fault::new("the gate takes no listening sockets"));
            }
        }
        Ok(())
    }

    /// Stops accepting. No process is started any more, so no restart is waited for.
    pub(super) fn stop_listening(&mut self, ground: &mut Ground) {
        self.restart = [None, None];
        self.listeners.clear();
        self.send_to_gate(ground, &Order::StopListening);
    }

    // ---- messages ----

    /// Returns the gate's next message. `None`: there is none now, or the gate is lost.
    pub(super) fn gate_message(
        &mut self,
        ground: &mut Ground,
        buffer: &mut [u8],
        now: Instant,
    ) -> Option<(Zeroizing<Vec<u8>>, Vec<OwnedFd>)> {
        if !self.gate.flush() {
            self.lose(ground, Which::Gate, now);
        }
        loop {
            match self.gate.channel()?.receive(buffer) {
                Ok(Incoming::Message(message, fds)) => {
                    if self.gate.due().is_none() {
                        return Some((message, fds));
                    }
                    self.take_report(ground, Which::Gate, &message, now);
                }
                Ok(Incoming::Nothing) => return None,
                Ok(Incoming::Gone) | Err(_) => self.lose(ground, Which::Gate, now),
            }
        }
    }

    /// Has the rest of the gate's messages reported again, so that a gate that asks without pause
    /// does not starve the others.
    pub(super) fn look_at_gate_again(&mut self, ground: &mut Ground, now: Instant) {
        if self.gate.look_again(ground.registry()).is_err() {
            self.lose(ground, Which::Gate, now);
        }
    }

    /// Handles messages of the relay, which sends nothing here but its report.
    pub(super) fn handle_relay(&mut self, ground: &mut Ground, buffer: &mut [u8], now: Instant) {
        if !self.relay.flush() {
            self.lose(ground, Which::Relay, now);
        }
        while let Some(channel) = self.relay.channel() {
            match channel.receive(buffer) {
                Ok(Incoming::Message(message, _)) if self.relay.due().is_some() => {
                    self.take_report(ground, Which::Relay, &message, now);
                }
                Ok(Incoming::Nothing) => return,
                Ok(Incoming::Message(..) | Incoming::Gone) | Err(_) => {
                    self.lose(ground, Which::Relay, now);
                }
            }
        }
    }

    /// Handles a child's sandbox report. One that reports a failure, or something else, is lost.
    fn take_report(&mut self, ground: &mut Ground, which: Which, message: &[u8], now: Instant) {
        match self.child(which).report(message) {
            Some(Ok(sandbox_status)) => {
                return self.log_sandbox_status(ground, which, sandbox_status);
            }
            Some(Err(why)) => {
                let name = self.child(which).name();
                let why = why.while_doing("its sandbox");
                log!(ground.log, Error, "lost", process = name, why);
            }
            None => {}
        }
        self.lose(ground, which, now);
    }

    fn log_sandbox_status(&mut self, ground: &mut Ground, which: Which, status: SandboxStatus) {
        let name = self.child(which).name();
        log!(
            ground.log,
            Info,
            "started",
            process = name,
            chroot = status.chroot,
            landlock = status.landlock,
            seccomp = status.seccomp
        );
        for (protection, why) in status.missing() {
            ground.warn_of_missing(name, protection, &why);
        }
    }

    /// Watches for writability each child that has messages waiting.
    pub(super) fn watch_unsent(&mut self, ground: &mut Ground, now: Instant) {
        for which in [Which::Gate, Which::Relay] {
            if self.child(which).update_watch(ground.registry()).is_err() {
                self.lose(ground, which, now);
            }
        }
    }

    // ---- start and loss ----

    /// Starts a child, and configures a gate with these networks that HOSTINFO lists.
    ///
    /// # Errors
    /// Fails if no process or descriptor is available, or if it dies at once.
    pub(super) fn start(
        &mut self,
        ground: &mut Ground,
        which: Which,
        listed: &[(IpAddr, u8)],
    ) -> Result<(), Fault> {
        let sandbox_config = self.sandbox_config.clone();
        let (child, event_source) = match which {
            Which::Gate => (&mut self.gate, event_source::GATE),
            Which::Relay => (&mut self.relay, event_source::RELAY),
        };
        // Under inetd the client waits. Otherwise the daemon waits, and reports whether it starts.
        let sandbox_status = if ground.is_inetd {
            child.begin()?;
            if which == Which::Gate {
                child.send_in(sandbox_config.as_ref())?;
            }
            None
        } else {
            Some(child.start(sandbox_config.as_ref())?)
        };
        child.watch(ground.registry(), event_source)?;
        if let Some(sandbox_status) = sandbox_status {
            self.log_sandbox_status(ground, which, sandbox_status);
        }
        if which == Which::Gate {
            self.configure_gate(ground, listed);
        }
        Ok(())
    }

    /// Sends limits, networks, and listeners.
    fn configure_gate(&mut self, ground: &mut Ground, listed: &[(IpAddr, u8)]) {
        self.gate_is_empty = false;
        self.send_limits(ground);
        self.send_networks(ground, listed);
        if let Err(e) = self.send_listeners() {
            // A gate that does not listen everywhere is unusable: start a new one.
            log!(ground.log, Error, "fault", why = e);
            self.lose(ground, Which::Gate, Instant::now());
        }
    }

    /// Handles a child that is dead or must be killed: reaps it, and has a new one started.
    pub(super) fn lose(&mut self, ground: &mut Ground, which: Which, now: Instant) {
        let is_wanted = !ground.is_inetd || !self.gate_is_empty;
        let child = self.child(which);
        if child.channel().is_none() {
            return;
        }
        let is_unconfined = is_wanted && child.due().is_some();
        let (pid, when) = child.discard(now);
        let name = child.name();
        ground.unreaped.extend(pid);
        // A child that died by itself sends no further SIGCHLD.
        ground.reap();
        if which == Which::Gate {
            self.gate_is_empty = true;
            self.has_lost_gate = true;
        }
        if is_unconfined {
            let why = "it died, or timed out, before its sandbox was ready";
            log!(ground.log, Error, "lost", process = name, why);
        }
        if !ground.is_inetd && !ground.is_stopping {
            log!(ground.log, Error, "lost", process = name);
            if let Some(slot) = self.restart.get_mut(which as usize) {
                *slot = Some(when);
            }
        }
    }

    /// Starts again a child that is due.
    fn start_again(
        &mut self,
        ground: &mut Ground,
        which: Which,
        listed: &[(IpAddr, u8)],
        now: Instant,
    ) {
        let restart = self.restart.get_mut(which as usize);
        if restart.and_then(|at| at.take_if(|at| *at <= now)).is_none() || ground.is_stopping {
            return;
        }
        if let Err(e) = self.start(ground, which, listed) {
            log!(ground.log, Error, "fault", why = e);
            let (pid, when) = self.child(which).discard(now);
            ground.unreaped.extend(pid);
            if let Some(restart) = self.restart.get_mut(which as usize) {
                *restart = Some(when.max(now + PAUSE));
            }
        }
    }

    /// Returns when something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let restarts = self.restart.into_iter().flatten();
        restarts
            .chain(self.gate.due())
            .chain(self.relay.due())
            .min()
    }

    /// Starts the children that are due, and gives up those that have not reported their sandbox.
    pub(super) fn expire(&mut self, ground: &mut Ground, listed: &[(IpAddr, u8)], now: Instant) {
        for which in [Which::Gate, Which::Relay] {
            self.start_again(ground, which, listed, now);
            if self.child(which).due().is_some_and(|at| at <= now) {
                self.lose(ground, which, now);
            }
        }
    }

    /// Kills both and waits for their end.
    pub(super) fn finish(&mut self) {
        for which in [Which::Gate, Which::Relay] {
            let (pid, _) = self.child(which).discard(Instant::now());
            if let Some(pid) = pid {
                let _ = nix::sys::wait::waitpid(pid, None);
            }
        }
    }

    const fn child(&mut self, which: Which) -> &mut Child {
        match which {
            Which::Gate => &mut self.gate,
            Which::Relay => &mut self.relay,
        }
    }
}
