//! The gate's configuration: its limits, the networks with reserved slots, the listening sockets.
//! Also HOSTINFO, which defines those networks. Runs in the monitor.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::hosts::{Names, Refreshed};
use super::look_ups::LookUp;
use super::{Monitor, Which};
use crate::fault::Fault;
use crate::ipc::gate::{Limits, List, Order};
use crate::log::{log, log_ratelimited};
use crate::sys::passing;

/// Networks in one message to the gate.
const NETWORKS: usize = 1024;

impl Monitor {
    /// Sends limits, networks, and listeners.
    pub(super) fn configure_gate(&mut self) {
        self.gate_is_empty = false;
        self.send_to_gate(Order::Limits(self.limits()).encode());
        self.send_networks();
        if let Err(e) = self.send_listeners() {
            // A gate that does not listen everywhere is unusable: start a new one.
            log!(self.log, Error, "fault", why = e);
            self.lost(Which::Gate, Instant::now());
        }
    }

    /// Sends as many with each message as it can carry.
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

    fn send_networks(&mut self) {
        let exempt = self
            .settings
            .penalties
            .exempt
            .iter()
            .map(|n| n.parts())
            .collect();
        let listed = self.hosts.networks();
        self.listed = listed.iter().copied().collect();
        for (list, networks) in [(List::Listed, listed), (List::Exempt, exempt)] {
            self.send_to_gate(Order::Networks(list, true, Vec::new()).encode());
            for part in networks.chunks(NETWORKS) {
                self.send_to_gate(Order::Networks(list, false, part.to_vec()).encode());
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
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

    // ---- HOSTINFO ----

    /// Loads HOSTINFO again if it has changed.
    pub(super) fn refresh_hosts(&mut self) {
        if matches!(self.hosts.refresh(&self.paths), Refreshed::New) {
            self.hosts_are_new();
        }
    }

    pub(super) fn hosts_are_new(&mut self) {
        match self.hosts.table() {
            Ok(table) => {
                let hosts = table.entries().len();
                log!(self.log, Info, "hostinfo", hosts);
                for fault in table.faults() {
                    log!(self.log, Warning, "hostinfo", fault);
                }
            }
            Err(e) => log!(self.log, Error, "hostinfo", fault = e),
        }
        self.resolve_names(Instant::now());
        self.send_networks();
    }

    pub(super) fn resolve_names(&mut self, now: Instant) {
        let registry = self.poll.registry();
        if let Err(e) = self.hosts.resolve(&mut self.look_ups, registry, now) {
            let why = format!("names are not resolved, and keep the addresses that they had: {e}");
            log!(self.log, Warning, "hostinfo", fault = why);
        }
    }

    /// Handles the end of a host's look-up.
    pub(super) fn host_found(
        &mut self,
        which: LookUp,
        found: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) {
        let name = self.hosts.looked_up(which).cloned();
        let (names, unresolved) = self.hosts.look_up_ended(which, found, now);
        self.resolve_names(now);
        if let Some((name, why)) = unresolved {
            let why = format!("its name does not resolve ({why}); it will be looked up again");
            log_ratelimited!(self.log, Warning, "hostinfo", host = name, fault = why);
        }
        if names == Names::All {
            let left = self.hosts.unresolved();
            let names = if left == 0 { "resolved" } else { "unresolved" };
            log_ratelimited!(self.log, Info, "hostinfo", names, left);
        }
        if names != Names::Same {
            self.send_networks();
        }
        if names == Names::All || !self.hosts.is_resolving() || self.has_listed_caller() {
            self.go_on(now);
        }
        if let Some(name) = name {
            self.name_is_known(&name, now);
        }
    }
}
