//! The jobs that run, and how each ends.
//!
//! A job's leader stays unreaped until its session is over, so that its process
//! group cannot become another's while it may still have to be signalled.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::token;
use crate::channel::relay::{Closing, News, Word};
use crate::channel::{Channel, Incoming};
use crate::fault::Fault;
use crate::sys::memory::Crowd;
use crate::sys::process::Ended;
use crate::sys::{pidfd, process};
use crate::wire::stream::{self, End};

/// Words of one session heard in one go.
const AT_ONCE: usize = 16;

/// Whose session it is, for the log.
#[derive(Debug, Clone)]
pub(super) struct Whose {
    pub(super) host: String,
    pub(super) user: String,
    pub(super) peer: IpAddr,
}

/// One session.
struct Session {
    whose: Whose,
    since: Instant,
    pid: Pid,
    pidfd: Option<OwnedFd>,
    channel: Option<Channel>,
    end: Option<End>,
    over: Option<(Closing, u64, u64)>,
    kill_at: Option<Instant>,
    killed: bool,
}

/// A session that is over, for the log.
pub(super) struct Finished {
    pub(super) id: u64,
    pub(super) whose: Whose,
    pub(super) lasted: Duration,
    pub(super) end: Option<End>,
    pub(super) how: &'static str,
    pub(super) sent: u64,
    pub(super) got: u64,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    all: HashMap<u64, Session>,
    /// Those that were hung up and may have to be killed.
    hanging: Vec<u64>,
    /// Whether some job had no pidfd.
    blind: bool,
    crowd: Crowd,
    next: u64,
}

impl Sessions {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number that the next session will have.
    pub(super) const fn next_id(&self) -> u64 {
        self.next
    }

    /// Takes a job that runs, and our end of its session's channel.
    ///
    /// # Errors
    /// It cannot be watched.
    pub(super) fn add(
        &mut self,
        registry: &Registry,
        whose: Whose,
        pid: Pid,
        channel: Channel,
        now: Instant,
    ) -> Result<(), Fault> {
        let id = self.next;
        self.next += 1;
        let fd = channel.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token::session(id), Interest::READABLE)?;
        let pidfd = pidfd::open(pid);
        self.blind |= pidfd.is_none();
        if let Some(fd) = &pidfd {
            let job = token::job(id);
            registry.register(&mut SourceFd(&fd.as_raw_fd()), job, Interest::READABLE)?;
        }
        let session = Session {
            whose,
            since: now,
            pid,
            pidfd,
            channel: Some(channel),
            end: None,
            over: None,
            kill_at: None,
            killed: false,
        };
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
        let mut buffer = [0; 256];
        for _ in 0..AT_ONCE {
            let channel = session.channel.as_ref()?;
            match channel.receive(&mut buffer) {
                Ok(Incoming::Message(message, _)) => match Word::decode(&message) {
                    Some(Word::Signal(s)) => process::signal_group(session.pid, signal(s)),
                    Some(Word::Over(how, sent, got)) => session.over = Some((how, sent, got)),
                    None => return self.close(id, kill_after, now),
                },
                Ok(Incoming::Nothing) => return None,
                Ok(Incoming::Gone) | Err(_) => return self.close(id, kill_after, now),
            }
        }
        // A client that never stops sending signals does not keep the others from
        // their turn.
        let fd = session.channel.as_ref()?.as_fd().as_raw_fd();
        let token = token::session(id);
        let again = registry.reregister(&mut SourceFd(&fd), token, Interest::READABLE);
        if again.is_err() {
            return self.close(id, kill_after, now);
        }
        None
    }

    /// A session's channel is at its end: the job has ended and its client knows
    /// it, or it is hung up, and killed after a grace.
    fn close(&mut self, id: u64, kill_after: Duration, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        session.channel = None;
        if matches!(session.over, Some((Closing::Told, ..))) && session.end.is_some() {
            return self.finish(id, now);
        }
        process::signal_group(session.pid, Signal::SIGHUP);
        session.kill_at = Some(now + kill_after);
        self.hanging.push(id);
        None
    }

    /// A job may have ended: tell its client. The session, if that was all.
    pub(super) fn job_ended(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.get_mut(&id)?;
        let status = process::ended(session.pid)?;
        if session.end.is_none() {
            let end = end_of(status);
            session.end = Some(end.clone());
            session.pidfd = None;
            if let Some(channel) = &mut session.channel {
                // Should it fail, the thread is gone, and its channel's end comes.
                let _ = channel.send(News::Ended(end).encode(), Vec::new());
            }
        }
        if session.killed {
            self.finish(id, now)
        } else {
            None
        }
    }

    /// Every job that the system does not tell of in particular: none, where it
    /// has pidfds.
    pub(super) fn unwatched(&self) -> Vec<u64> {
        if !self.blind {
            return Vec::new();
        }
        let unwatched = |s: &Session| s.pidfd.is_none() && (s.end.is_none() || s.killed);
        self.all
            .iter()
            .filter(|(_, s)| unwatched(s))
            .map(|(id, _)| *id)
            .collect()
    }

    /// When the next group must be killed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hanging
            .iter()
            .filter_map(|id| self.all.get(id)?.kill_at)
            .min()
    }

    /// Kills the groups whose grace is over; the sessions that are finished by it.
    pub(super) fn kill_late(&mut self, now: Instant) -> Vec<Finished> {
        let kill_at = |id: &u64| self.all.get(id).and_then(|s| s.kill_at);
        let (late, rest) = self
            .hanging
            .iter()
            .copied()
            .partition(|id| kill_at(id).is_none_or(|at| at <= now));
        self.hanging = rest;
        let late: Vec<u64> = late;
        let mut finished = Vec::new();
        for id in late {
            if let Some(session) = self.all.get_mut(&id) {
                process::signal_group(session.pid, Signal::SIGKILL);
                (session.kill_at, session.killed) = (None, true);
            }
            finished.extend(self.job_ended(id, now));
        }
        finished
    }

    /// Hangs every job up.
    pub(super) fn hang_up_all(&mut self, kill_after: Duration, now: Instant) {
        let all: Vec<u64> = self.all.keys().copied().collect();
        for id in all {
            let _ = self.job_ended(id, now);
        }
        for (id, session) in &mut self.all {
            if session.kill_at.is_none() && !session.killed {
                // A client whose job has ended may hear the rest of it meanwhile.
                if session.end.is_none() {
                    session.channel = None;
                }
                process::signal_group(session.pid, Signal::SIGHUP);
                session.kill_at = Some(now + kill_after);
                self.hanging.push(*id);
            }
        }
    }

    fn finish(&mut self, id: u64, now: Instant) -> Option<Finished> {
        let session = self.all.remove(&id)?;
        process::reap(session.pid);
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
            whose: session.whose,
            lasted: now.saturating_duration_since(session.since),
            end: session.end,
            how,
            sent,
            got,
        })
    }
}

const fn signal(s: stream::Signal) -> Signal {
    match s {
        stream::Signal::Hangup => Signal::SIGHUP,
        stream::Signal::Interrupt => Signal::SIGINT,
        stream::Signal::Quit => Signal::SIGQUIT,
        stream::Signal::Terminate => Signal::SIGTERM,
    }
}

fn end_of(ended: Ended) -> End {
    match ended {
        Ended::Killed(n) => End::Killed(u8::try_from(n).unwrap_or(127)),
        Ended::Exited(n) => End::Exited(u8::try_from(n & 0xff).unwrap_or(255)),
    }
}
