//! A login's worker as the monitor sees it: started with the login's first PAM slot, and given
//! orders over its own channel. Runs in the monitor.

use std::os::fd::{AsFd, OwnedFd};

use mio::Registry;
use nix::unistd::Pid;

use super::super::event_source;
use super::{Login, LoginId, Logins};
use crate::fault::Fault;
use crate::ipc::login::{Order, WorkerToMonitor};
use crate::ipc::watch::Watch;
use crate::ipc::{Channel, Incoming};
use crate::sys::process::LoginProgram;

/// The reason if the workers' program is not open: no application needed it.
const NO_APPLICATION: &str = "there is no [gui.NAME] in cosserver.toml: add one, and reload";

/// A worker that runs.
pub(super) struct Worker {
    pub(super) pid: Pid,
    channel: Channel,
    watch: Watch,
}

impl Login {
    /// Returns the worker's channel, while it lives. First sends messages that were waiting.
    fn channel(&mut self) -> Option<&Channel> {
        let worker = self.worker.as_mut()?;
        // If this fails, the worker is gone, and the channel's end follows.
        let _ = worker.channel.flush();
        Some(&worker.channel)
    }

    /// Sends the worker an order. `false`: it is dead.
    pub(in super::super) fn tell(&mut self, order: &Order, fds: Vec<OwnedFd>) -> bool {
        let worker = self.worker.as_mut();
        worker.is_some_and(|w| w.channel.send(order.encode(), fds).is_ok())
    }

    /// Starts the worker, or has the waiting one continue.
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

/// What a login's worker does.
pub(in super::super) enum WorkerEvent {
    /// A message.
    Message(WorkerToMonitor),
    /// It is gone.
    Ended,
}

impl Logins {
    /// Returns what a login's worker does next. Kills a worker that sends anything else.
    pub(in super::super) fn next_event(
        &mut self,
        id: LoginId,
        buffer: &mut [u8],
    ) -> Option<WorkerEvent> {
        loop {
            let login = self.get(id)?;
            match login.channel().map(|c| c.receive(buffer)) {
                Some(Ok(Incoming::Message(message, _))) => {
                    match WorkerToMonitor::decode(&message) {
                        Some(message) => return Some(WorkerEvent::Message(message)),
                        None => self.kill(id),
                    }
                }
                Some(Ok(Incoming::Nothing)) => return None,
                Some(Ok(Incoming::Gone) | Err(_)) | None => return Some(WorkerEvent::Ended),
            }
        }
    }

    /// Watches for writability the channels of workers that have orders waiting.
    pub(in super::super) fn watch_unsent(&mut self, registry: &Registry) {
        for login in self.all.values_mut() {
            if let Some(worker) = &mut login.worker {
                // If that fails, the order is sent after the worker's next message, or the login
                // times out.
                let _ = worker.watch.update(registry, &worker.channel);
            }
        }
    }
}
