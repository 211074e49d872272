//! A login's worker as the monitor sees it: started with the first turn, and told what to
//! do over a channel of its own.

use std::os::fd::{AsFd, OwnedFd};

use mio::Registry;
use nix::unistd::Pid;

use super::super::event_source;
use super::{Login, LoginId, Logins};
use crate::fault::Fault;
use crate::ipc::Channel;
use crate::ipc::login::Order;
use crate::ipc::watch::Watch;
use crate::sys::process::LoginProgram;

/// There is no program of login workers: none was needed.
const NO_APPLICATION: &str = "there is no [gui.NAME] in cosserver.toml: add one, and reload";

/// A worker that runs.
pub(super) struct Worker {
    pub(super) pid: Pid,
    channel: Channel,
    watch: Watch,
}

impl Login {
    /// The worker's channel, while it lives, with what has waited for room sent.
    pub(in super::super) fn channel(&mut self) -> Option<&Channel> {
        let worker = self.worker.as_mut()?;
        // Should it fail, the worker is gone, and its channel's end comes.
        let _ = worker.channel.flush();
        Some(&worker.channel)
    }

    /// Tells the worker something. `false`: it is dead.
    pub(in super::super) fn tell(&mut self, order: &Order, fds: Vec<OwnedFd>) -> bool {
        let worker = self.worker.as_mut();
        worker.is_some_and(|w| w.channel.send(order.encode(), fds).is_ok())
    }

    /// Starts the worker, or tells the one that waits to go on.
    pub(super) fn begin_pam(
        &mut self,
        registry: &Registry,
        program: Option<&LoginProgram>,
        id: LoginId,
        order: &Order,
    ) -> Result<(), Fault> {
        if self.worker.is_none() {
            let (channel, theirs) = Channel::pair()?;
            let program = program.ok_or_else(|| Fault::new(NO_APPLICATION))?;
            let watch = Watch::new(registry, &channel, event_source::login(id))?;
            let pid = program.start(theirs.as_fd())?;
            self.worker = Some(Worker {
                pid,
                channel,
                watch,
            });
        }
        if self.tell(order, Vec::new()) {
            Ok(())
        } else {
            Err(Fault::new("the login worker died"))
        }
    }
}

impl Logins {
    /// Watches for room the channels of workers for which orders wait.
    pub(in super::super) fn watch_unsent(&mut self, registry: &Registry) {
        for login in self.all.values_mut() {
            if let Some(worker) = &mut login.worker {
                // Without it the order goes with the worker's next word, or its time is over.
                let _ = worker.watch.update(registry, &worker.channel);
            }
        }
    }
}
