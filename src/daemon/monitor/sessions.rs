//! The running jobs, and how each ends.
//!
//! A plain end: the event loop sees that the leader has ended, and calls [`Sessions::job_ended`],
//! which tells the relay. The relay tells the client, reports that, and closes its channel.
//! [`Sessions::handle_messages`] sees that and calls `close`, and this `finish`, which frees its
//! share and its entry in the guard's table, reaps the leader and returns a [`Finished`].
//! `Parts::session_ended` logs it, and has a login worker reap the leader that it kept.
//!
//! Runs in the monitor. A job's leader stays unreaped until its session is over. Until then its
//! session and process group may have to be signalled, so their numbers must not be reused. One
//! exception: without `/proc`, where a pidfd refers to the group, the leader of a job that was hung
//! up is reaped earlier. While it is unreaped, one cannot tell whether the group has other members.

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
use crate::sys::memory::PeakCounter;
use crate::sys::process::Ended;
use crate::sys::{pidfd, process};
use hanging::Hung;
use sweep::Sweep;

/// Most messages of one session handled in one pass.
const AT_ONCE: usize = 16;

/// Information on a session: for the log, the list of sessions, the shares, and an exclusion.
#[derive(Debug, Clone)]
pub(super) struct SessionInfo {
    pub(super) host: String,
    pub(super) user: String,
    pub(super) peer: IpAddr,
    /// The calling user, as the host reports it.
    pub(super) caller: String,
    /// `exec`, `subsystem`, `enrol`, or `gui` and the application.
    pub(super) service: String,
    /// The machines that made the request.
    pub(super) machines: Vec<Id>,
    /// The command, bounded; empty for an application, which `service` names.
    pub(super) command: String,
    /// The holders that this session counts for in the shares.
    pub(super) holders: Vec<shares::Holder>,
}

/// The leader of a session's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leader {
    /// A child of the monitor.
    Ours(Pid),
    /// A child of a login worker, which reports its end and reaps it afterwards.
    Workers(Pid),
    /// None: the application runs detached.
    Detached,
    /// None: the session has no process. It is a connection to a backend, or a text.
    NoProcess,
}

impl Leader {
    pub(super) const fn pid(self) -> Option<Pid> {
        match self {
            Self::Ours(pid) | Self::Workers(pid) => Some(pid),
            Self::Detached | Self::NoProcess => None,
        }
    }
}

/// One session.
struct Session {
    info: SessionInfo,
    since: Instant,
    began: SystemTime,
    /// Bytes sent and received, as its thread last reported them.
    counted: Option<(u64, u64)>,
    leader: Leader,
    pidfd: Option<OwnedFd>,
    /// Its number may be reused: only `pidfd` is valid.
    reaped: bool,
    channel: Option<Channel>,
    watch: Watch,
    /// Its thread was asked for its counts and has not answered yet.
    counting: bool,
    end: Option<End>,
    over: Option<(Closing, u64, u64)>,
    /// The signals that its client has sent, one bit each.
    passed_on: u32,
    hung: Option<Hung>,
    killed: bool,
    /// Its processes cannot be listed (no `/proc`): its first group stands for them.
    is_unseen: bool,
}

impl Session {
    /// Tells its client how it ended. Returns whether the message waits until its thread reads.
    fn tell(&mut self, end: End) -> bool {
        self.end = Some(end.clone());
        self.send(&MonitorToRelay::Ended(end))
    }

    /// Sends its thread a message. Returns whether it waits until the thread reads.
    fn send(&mut self, message: &MonitorToRelay) -> bool {
        let Some(channel) = &mut self.channel else {
            return false;
        };
        // If this fails, the thread is gone, and the channel's end follows.
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
    /// The application runs on detached: its own end is logged later.
    pub(super) goes_on: bool,
    pub(super) how: &'static str,
    /// How the relay closed it, if it did.
    pub(super) closing: Option<Closing>,
    pub(super) sent: u64,
    pub(super) got: u64,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    all: HashMap<u64, Session>,
    /// Sessions that were hung up and may have to be killed.
    hanging: Vec<u64>,
    /// The sweep of all processes that is under way.
    sweep: Option<Sweep>,
    /// When the next sweep may begin.
    rested: Option<Instant>,
    /// Sessions that have messages for their threads waiting since the last look.
    unsent: Vec<u64>,
    /// The jobs' process groups, for the guard.
    groups: Groups,
    /// Whether some job had no pidfd.
    blind: bool,
    /// How many sessions each holder has.
    held: HashMap<shares::Holder, usize>,
    peak: PeakCounter,
    next: u64,
}

impl Sessions {
    /// Returns how many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the jobs' groups.
    pub(super) const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Returns the jobs' groups, to be changed.
    pub(super) const fn groups_mut(&mut self) -> &mut Groups {
        &mut self.groups
    }

    /// Returns a new session number, which is never reused.
    pub(super) const fn number(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Adds a running job as the session of this number, with the monitor's end of its channel.
    ///
    /// # Errors
    /// Fails if the channel cannot be watched.
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
        self.peak.enter();
        Ok(())
    }

    /// Handles the messages of a session's thread. Returns the session if it is over.
    pub(super) fn handle_messages(
        &mut self,
        registry: &Registry,
        id: u64,
        kill_after: Duration,
        now: Instant,
    ) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let channel = session.channel.as_mut()?;
        // If this fails, the thread is gone; earlier messages from it are read first.
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
        // A client that sends signals without pause does not starve the others.
        let channel = session.channel.as_ref()?;
        if session.watch.renew(registry, channel).is_err() {
            return self.close(id, kill_after, now);
        }
        None
    }

    /// Watches for writability the channels that have messages waiting. Returns the sessions that
    /// are over because of it.
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

    /// Ends a session: either the job has ended and its client knows it, or it is hung up now and
    /// killed after the grace.
    fn close(&mut self, id: u64, kill_after: Duration, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let is_told = session.over.is_some_and(|(how, ..)| how.is_told());
        if is_told && session.end.is_some() && session.hung.is_none() {
            let is_signalled = session.leader.pid().is_some() && session.was_ended_by_client();
            if session.killed || !is_signalled {
                return self.finish(id, now);
            }
            // The client's signal has reached the job's first group only.
            self.hang_up_other_groups(id, kill_after, now);
            return None;
        }
        self.hang_up(id, kill_after, now);
        self.disconnect(id);
        self.look(id, now)
    }

    /// Checks whether a job has ended, and tells its client. Returns the session if it is over.
    pub(super) fn job_ended(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        if let (None, Leader::Ours(pid)) = (&session.end, session.leader) {
            let end = end_of(process::ended(pid)?);
            self.unsent.extend(session.tell(end).then_some(id));
        }
        self.after_the_end(id, now)
    }

    /// Handles the end of a login worker's application. Returns the session if it is over.
    pub(super) fn application_ended(
        &mut self,
        id: u64,
        end: End,
        now: Instant,
    ) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        // The worker has not reaped it yet, so this must succeed where the system has that call.
        // For a session that was hung up, the worker keeps it, and so its number, until no process
        // is left.
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

    /// Whether the login worker may reap the leader of a session: the monitor signals its group by
    /// number no more.
    pub(super) fn may_be_reaped(&self, id: u64) -> bool {
        self.all.get(&id).is_none_or(|s| s.reaped)
    }

    /// Hangs up the application of a login worker that died.
    pub(super) fn orphaned(
        &mut self,
        id: u64,
        kill_after: Duration,
        now: Instant,
    ) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        // Its new parent reaps it, without asking the monitor.
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
        } else if session.hung.is_some() {
            self.look(id, now)
        } else {
            None
        }
    }

    /// Returns every job whose end must be polled for: none where the system has pidfds.
    pub(super) fn jobs_without_pidfd(&self) -> Vec<u64> {
        if !self.blind {
            return Vec::new();
        }
        let ours = |s: &Session| matches!(s.leader, Leader::Ours(_));
        let jobs_without_pidfd =
            |s: &Session| s.pidfd.is_none() && (s.end.is_none() || s.killed) && ours(s);
        self.all
            .iter()
            .filter(|(_, s)| jobs_without_pidfd(s))
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
        self.peak.leave();
        self.peak.tidy();
        let (how, sent, got) = session
            .over
            .map_or(("cut", 0, 0), |(how, sent, got)| (how.name(), sent, got));
        Some(Finished {
            id,
            info: session.info,
            lasted: now.saturating_duration_since(session.since),
            end: session.end,
            goes_on: session.leader == Leader::Detached,
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
