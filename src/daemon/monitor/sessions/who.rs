//! The administrator's requests: lists the sessions, and hangs one up.
//!
//! Runs in the monitor. Must not wait for a session's thread: a byte count that has not come is
//! left out.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::shares::Holder;
use super::{Finished, SessionInfo, Sessions};
use crate::auth::policy::{Caller, Granted, Gui};
use crate::ipc::control::On;
use crate::ipc::relay::MonitorToRelay;
use crate::registry::Id;
use nix::unistd::Pid;

/// Returns the session information of an application.
pub(in super::super) fn info(granted: &Granted<Gui, Caller>) -> SessionInfo {
    let to = granted.to();
    SessionInfo {
        host: to.host().map_or_else(String::new, |h| h.name.to_string()),
        user: to.account().name.clone(),
        peer: to.peer(),
        caller: to.request().caller_user.to_string(),
        service: format!("gui {}", granted.service().name),
        machines: to.machines(),
        command: String::new(),
        holders: match to {
            Caller::Host(host, _) => Holder::of(host.inner()),
            Caller::AuthenticatedUser(_) => vec![Holder::User(to.account().name.clone())],
        },
    }
}

impl Sessions {
    /// Asks every session's thread for its byte counts. Returns the sessions that will answer.
    pub(in super::super) fn count_bytes(&mut self) -> Vec<u64> {
        let mut counting = Vec::new();
        for (id, session) in &mut self.all {
            session.counted = None;
            if !session.is_connected() {
                continue;
            }
            // One that has not answered the last question yet is not asked again.
            if !std::mem::replace(&mut session.counting, true)
                && session.send(&MonitorToRelay::Count)
            {
                self.unsent.push(*id);
            }
            counting.push(*id);
        }
        counting
    }

    /// Whether a session's thread has answered, or never will.
    pub(in super::super) fn has_counted(&self, id: u64) -> bool {
        let session = self.all.get(&id);
        session.is_none_or(|s| s.counted.is_some() || !s.is_connected())
    }

    /// Returns every session.
    pub(in super::super) fn who(&self) -> Vec<On> {
        let all = self.all.iter();
        all.map(|(id, s)| {
            let bytes = s.over.map(|(_, sent, got)| (sent, got)).or(s.counted);
            on(*id, &s.info, s.began, s.leader.pid(), bytes)
        })
        .collect()
    }

    /// Returns the sessions that a machine has requested.
    pub(in super::super) fn of_machine(&self, id: Id) -> Vec<u64> {
        let all = self.all.iter();
        let all = all.filter(|(_, s)| s.info.machines.contains(&id));
        all.map(|(id, _)| *id).collect()
    }

    /// Hangs up a session and its client. Returns whether it was there, and the session if it is
    /// over.
    pub(in super::super) fn kill(
        &mut self,
        id: u64,
        kill_after: Duration,
        now: Instant,
    ) -> (bool, Option<Finished>) {
        let Some(session) = self.all.get_mut(&id) else {
            return (false, None);
        };
        let was_hung = session.hung.is_some() || session.killed;
        if !was_hung {
            self.hang_up(id, kill_after, now);
        }
        // The thread that serves it sees the end of its channel, and hangs up.
        self.disconnect(id);
        let finished = if was_hung { None } else { self.look(id, now) };
        (true, finished)
    }
}

/// Returns a line of the session list.
pub(in super::super) fn on(
    id: u64,
    info: &SessionInfo,
    began: SystemTime,
    pid: Option<Pid>,
    bytes: Option<(u64, u64)>,
) -> On {
    let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    On {
        id,
        user: info.user.clone(),
        host: info.host.clone(),
        caller: info.caller.clone(),
        peer: info.peer,
        service: info.service.clone(),
        since: since.as_secs(),
        pid: pid
            .and_then(|p| u32::try_from(p.as_raw()).ok())
            .unwrap_or(0),
        bytes,
        detached: false,
        command: info.command.clone(),
    }
}
