//! The hand-over of an accepted connection to the relay: of a command, of an application, or of a
//! registration, which only ends.

use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::daemon::monitor::Monitor;
use crate::daemon::monitor::sessions::{Leader, SessionInfo};
use crate::fault::Fault;
use crate::ipc::Channel;
use crate::ipc::relay::Session;

/// All that makes a session.
pub(in crate::daemon::monitor) struct Handover {
    /// Its number.
    pub(in crate::daemon::monitor) id: u64,
    pub(in crate::daemon::monitor) info: SessionInfo,
    pub(in crate::daemon::monitor) leader: Leader,
    /// The job's standard input, output and error.
    pub(in crate::daemon::monitor) streams: [OwnedFd; 3],
    /// The connection.
    pub(in crate::daemon::monitor) socket: OwnedFd,
    /// The session's channel: the monitor's end, and the relay's.
    pub(in crate::daemon::monitor) channel: (Channel, OwnedFd),
    /// What the relay is told.
    pub(in crate::daemon::monitor) session: Session,
}

impl Monitor {
    /// Enters the session and gives its descriptors to the relay. If the relay is dead, they are
    /// closed, and the session's channel ends: the job is hung up on the usual path.
    ///
    /// # Errors
    /// The event loop does not take the channel, or the job.
    pub(in crate::daemon::monitor) fn hand_over(
        &mut self,
        handover: Handover,
        now: Instant,
    ) -> Result<(), Fault> {
        let Handover {
            id,
            info,
            leader,
            streams: [stdin, stdout, stderr],
            socket,
            channel: (ours, theirs),
            session,
        } = handover;
        let registry = self.poll.registry();
        self.sessions.add(registry, id, info, leader, ours, now)?;
        self.send_to_relay(
            session.encode(),
            vec![socket, theirs, stdin, stdout, stderr],
        );
        Ok(())
    }
}
