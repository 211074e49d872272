//! The jobs that run, and how each ends.
//!
//! A job's leader stays unreaped until its session is over, so that the numbers of its
//! session and process group cannot become another's while they may still have to be
//! signalled. Only where there is no `/proc`, and a descriptor stands for the group, is the
//! leader of a job that was hung up reaped before: as long as it is there, nobody can tell
//! whether it is alone.

mod group;
mod hanging;
pub(super) mod shares;
mod sweep;
pub(super) mod who;

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::unistd::Pid;

use super::event_source;
use super::guard::Groups;
use crate::fault::Fault;
use crate::ipc::relay::{Closing, MonitorToRelay, RelayToMonitor};
use crate::ipc::watch::Watch;
use crate::ipc::{Channel, Incoming};
use crate::protocol::stream::End;
use crate::registry::Id;
use crate::sys::memory::Crowd;
use crate::sys::process::Ended;
use crate::sys::{pidfd, process};
use hanging::Hung;
use sweep::Sweep;

/// Words of one session heard in one go.
const AT_ONCE: usize = 16;

/// Whose session it is, for the log.
#[derive(Debug, Clone)]
pub(super) struct SessionInfo {
    pub(super) host: String,
    pub(super) user: String,
    pub(super) peer: IpAddr,
    /// Who called there, as his host says.
    pub(super) caller: String,
    /// `exec`, or `gui` and the application.
    pub(super) service: String,
    /// The machines that asked for it.
    pub(super) machines: Vec<Id>,
    /// What it runs, bounded; empty for an application, which `service` names.
    pub(super) command: String,
    /// Whose share of the sessions it is of.
    pub(super) holders: Vec<shares::Holder>,
}

/// Who leads the processes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leader {
    /// A child of ours.
    Ours(Pid),
    /// A login worker's child: the worker tells its end, and reaps it afterwards.
    Workers(Pid),
    /// Nobody: what was started goes on by itself.
    Nobody,
}

impl Leader {
    pub(super) const fn pid(self) -> Option<Pid> {
        match self {
            Self::Ours(pid) | Self::Workers(pid) => Some(pid),
            Self::Nobody => None,
        }
    }
}

/// One session.
struct Session {
    info: SessionInfo,
    since: Instant,
    began: SystemTime,
    /// Bytes sent and got, as its thread counted them when it was asked last.
    counted: Option<(u64, u64)>,
    leader: Leader,
    pidfd: Option<OwnedFd>,
    /// Its number may be another's by now: only `pidfd` counts.
    reaped: bool,
    channel: Option<Channel>,
    watch: Watch,
    /// Its thread was asked for its count, and has not answered yet.
    counting: bool,
    end: Option<End>,
    over: Option<(Closing, u64, u64)>,
    /// The signals that its client has sent, a bit each.
    passed_on: u32,
    hung: Option<Hung>,
    killed: bool,
    /// The system does not show its processes: its first group stands for them.
    is_unseen: bool,
}

impl Session {
    /// Tells its client how it ended. Whether that must wait until its thread reads.
    fn tell(&mut self, end: End) -> bool {
        self.end = Some(end.clone());
        self.send(&MonitorToRelay::Ended(end))
    }

    /// Tells its thread something. Whether that must wait until it reads.
    fn send(&mut self, message: &MonitorToRelay) -> bool {
        let Some(channel) = &mut self.channel else {
            return false;
        };
        // Should it fail, the thread is gone, and its channel's end comes.
        let _ = channel.send(message.encode(), Vec::new());
        channel.is_waiting()
    }
}

/// A session that is over, for the log.
pub(super) struct Finished {
    pub(super) id: u64,
    pub(super) info: SessionInfo,
    pub(super) lasted: Duration,
    pub(super) end: Option<End>,
    /// What was started goes on by itself: its end is another, and will be told.
    pub(super) goes_on: bool,
    pub(super) how: &'static str,
    /// How the relay closed it, where it did.
    pub(super) closing: Option<Closing>,
    pub(super) sent: u64,
    pub(super) got: u64,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    all: HashMap<u64, Session>,
    /// Those that were hung up and may have to be killed.
    hanging: Vec<u64>,
    /// The look for their processes that is under way.
    sweep: Option<Sweep>,
    /// When the next may begin.
    rested: Option<Instant>,
    /// Those for whose threads something began to wait since the last look.
    unsent: Vec<u64>,
    /// The jobs' groups, for the guard.
    groups: Groups,
    /// Whether some job had no pidfd.
    blind: bool,
    /// How many each has of them.
    held: HashMap<shares::Holder, usize>,
    crowd: Crowd,
    next: u64,
}

impl Sessions {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The jobs' groups.
    pub(super) const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The jobs' groups, to be changed.
    pub(super) const fn groups_mut(&mut self) -> &mut Groups {
        &mut self.groups
    }

    /// A number for a session, which no other will have.
    pub(super) const fn number(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Takes a job that runs as the session of this number, and our end of its channel.
    ///
    /// # Errors
    /// It cannot be watched.
    pub(super) fn add(
        &mut self,
        registry: &Registry,
        id: u64,
        info: SessionInfo,
        leader: Leader,
        channel: Channel,
        now: Instant,
    ) -> Result<(), Fault> {
        let watch = Watch::new(registry, &channel, event_source::session(id))?;
        let pidfd = leader.pid().and_then(pidfd::open);
        if let Leader::Ours(_) = leader {
            self.blind |= pidfd.is_none();
            if let Some(fd) = &pidfd {
                let job = event_source::job(id);
                registry.register(&mut SourceFd(&fd.as_raw_fd()), job, Interest::READABLE)?;
            }
        }
        let session = Session {
            info,
            since: now,
            began: SystemTime::now(),
            counted: None,
            leader,
            pidfd,
            reaped: false,
            channel: Some(channel),
            watch,
            counting: false,
            end: None,
            over: None,
            passed_on: 0,
            hung: None,
            killed: false,
            is_unseen: false,
        };
        self.count_in(&session.info);
        self.all.insert(id, session);
        self.crowd.enter();
        Ok(())
    }

    /// Hears what a session's thread says. The session, if it is over.
    pub(super) fn hear(
        &mut self,
        registry: &Registry,
        id: u64,
        kill_after: Duration,
        now: Instant,
    ) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let channel = session.channel.as_mut()?;
        // Should it fail, the thread is gone; what it has said before is read first.
        let _ = channel.flush();
        if session.watch.update(registry, channel).is_err() {
            return self.close(id, kill_after, now);
        }
        let mut buffer = [0; 256];
        for _ in 0..AT_ONCE {
            let channel = session.channel.as_ref()?;
            match channel.receive(&mut buffer) {
                Ok(Incoming::Message(message, _)) => match RelayToMonitor::decode(&message) {
                    Some(RelayToMonitor::Signal(wish)) => session.pass_on(wish),
                    Some(RelayToMonitor::Over(how, sent, got)) => {
                        session.over = Some((how, sent, got));
                        if !how.is_told() {
                            return self.close(id, kill_after, now);
                        }
                    }
                    Some(RelayToMonitor::Count(sent, got)) => {
                        (session.counted, session.counting) = (Some((sent, got)), false);
                    }
                    None => return self.close(id, kill_after, now),
                },
                Ok(Incoming::Nothing) => return None,
                Ok(Incoming::Gone) | Err(_) => return self.close(id, kill_after, now),
            }
        }
        // A client that never stops sending signals does not keep the others from
        // their turn.
        let channel = session.channel.as_ref()?;
        if session.watch.renew(registry, channel).is_err() {
            return self.close(id, kill_after, now);
        }
        None
    }

    /// Watches for room the channels on which something waits: it is sent when the thread
    /// has read. The sessions that are finished by it.
    pub(super) fn watch_unsent(
        &mut self,
        registry: &Registry,
        kill_after: Duration,
        now: Instant,
    ) -> Vec<Finished> {
        let mut finished = Vec::new();
        for id in std::mem::take(&mut self.unsent) {
            let Some(session) = self.all.get_mut(&id) else {
                continue;
            };
            let channel = session.channel.as_ref();
            let watched = channel.map(|c| session.watch.update(registry, c));
            if watched.is_some_and(|outcome| outcome.is_err()) {
                finished.extend(self.close(id, kill_after, now));
            }
        }
        finished
    }

    /// A session is at its end: the job has ended and its client knows it, or it is
    /// hung up, and killed after a grace.
    fn close(&mut self, id: u64, kill_after: Duration, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let is_told = session.over.is_some_and(|(how, ..)| how.is_told());
        if is_told && session.end.is_some() && session.hung.is_none() {
            return self.end_told(id, kill_after, now);
        }
        self.hang_up(id, kill_after, now);
        self.disconnect(id);
        self.look(id, now)
    }

    /// A job may have ended: tell its client. The session, if that was all.
    pub(super) fn job_ended(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        if let (None, Leader::Ours(pid)) = (&session.end, session.leader) {
            let end = end_of(process::ended(pid)?);
            self.unsent.extend(session.tell(end).then_some(id));
        }
        self.after_the_end(id, now)
    }

    /// What a login worker started has ended so. The session, if that was all.
    pub(super) fn told(&mut self, id: u64, end: End, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        // The worker has it unreaped still, so this must succeed where there is such a call. It
        // keeps what is hung up, and so its number, until nobody is left.
        session.reaped = matches!(session.leader, Leader::Workers(_))
            && (session.hung.is_none() || session.is_unseen)
            && session
                .pidfd
                .as_ref()
                .is_some_and(|group| pidfd::signal_group(group, None).is_ok());
        if session.end.is_none() {
            self.unsent.extend(session.tell(end).then_some(id));
        }
        self.after_the_end(id, now)
    }

    /// Whether a session's leader may be reaped by the worker whose child it is: nobody
    /// will signal its group by its number any more.
    pub(super) fn may_be_reaped(&self, id: u64) -> bool {
        self.all.get(&id).is_none_or(|s| s.reaped)
    }

    /// A login worker is dead, and what it started is hung up.
    pub(super) fn orphaned(
        &mut self,
        id: u64,
        kill_after: Duration,
        now: Instant,
    ) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        // Whoever reaps it now does not ask us.
        session.reaped = true;
        let end = End::NotStarted("its login worker died".into());
        self.unsent.extend(session.tell(end).then_some(id));
        self.hang_up(id, kill_after, now);
        self.look(id, now)
    }

    fn after_the_end(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        session.end.as_ref()?;
        if session.killed {
            self.finish(id, now)
        } else {
            self.look(id, now)
        }
    }

    /// Every job that the system does not tell of in particular: none, where it
    /// has pidfds.
    pub(super) fn unwatched(&self) -> Vec<u64> {
        if !self.blind {
            return Vec::new();
        }
        let ours = |s: &Session| matches!(s.leader, Leader::Ours(_));
        let unwatched = |s: &Session| s.pidfd.is_none() && (s.end.is_none() || s.killed) && ours(s);
        self.all
            .iter()
            .filter(|(_, s)| unwatched(s))
            .map(|(id, _)| *id)
            .collect()
    }

    fn finish(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.remove(&id)?;
        self.count_out(&session.info);
        if let Leader::Ours(pid) = session.leader {
            self.groups.leave(pid);
        }
        if let (false, Leader::Ours(pid)) = (session.reaped, session.leader) {
            process::reap(pid);
        }
        if session.hung.is_some() {
            self.hanging.retain(|other| *other != id);
        }
        if self.all.is_empty() {
            self.all.shrink_to(64);
        }
        self.crowd.leave();
        self.crowd.tidy();
        let (how, sent, got) = session
            .over
            .map_or(("cut", 0, 0), |(how, sent, got)| (how.name(), sent, got));
        Some(Finished {
            id,
            info: session.info,
            lasted: now.saturating_duration_since(session.since),
            end: session.end,
            goes_on: session.leader == Leader::Nobody,
            how,
            closing: session.over.map(|(how, ..)| how),
            sent,
            got,
        })
    }
}

fn end_of(ended: Ended) -> End {
    match ended {
        Ended::Killed(n) => End::Killed(u8::try_from(n).unwrap_or(127)),
        Ended::Exited(n) => End::Exited(u8::try_from(n & 0xff).unwrap_or(255)),
    }
}

#[cfg(test)]
mod tests;
