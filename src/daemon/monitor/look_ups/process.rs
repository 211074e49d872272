//! One look-up process, and its questions.
//!
//! Runs in the monitor. Owns the process, the channel to it, and its questions. Must not wait for
//! it without a time limit, nor close a socket on which it may have left descriptors.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::super::accounts::has_a_name;
use super::{Found, LookUp, LookUpEvent};
use crate::fault::Fault;
use crate::ipc::lookup::{Answer, Begin, GROUPS, HOSTS, MOST_GROUPS, Question};
use crate::ipc::{self, Channel, Incoming};
use crate::sys::account::{Account, UserRecord};
use crate::sys::id_number::IdNumber;
use crate::sys::oom::OomPriority;
use crate::sys::process;
use crate::sys::untrusted::{self, Caller, Unclosed};

/// How long a look-up of a user may take.
pub(super) const USER: Duration = Duration::from_secs(10);
/// The same for a host: three name servers are asked twice, for 5 s each, and there may be a
/// directory besides.
const HOST: Duration = Duration::from_secs(40);
/// How long a new process may take until it is sandboxed: it needs some milliseconds, but inetd may
/// start hundreds at the same time.
const STARTING: Duration = Duration::from_secs(30);
/// How long a process stays when there is nothing to look up.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Most look-ups of users by name at the same time.
pub(in super::super) const USERS_AT_ONCE: usize = 8;
/// What is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Users = 0,
    Hosts = 1,
}

impl Kind {
    pub(super) const fn of(question: &Question) -> Self {
        match question {
            Question::User(..) | Question::Number(..) => Self::Users,
            Question::Host(_) => Self::Hosts,
        }
    }

    pub(super) const fn time(self) -> Duration {
        match self {
            Self::Users => USER,
            Self::Hosts => HOST,
        }
    }

    /// Returns how many questions one process may have at a time, and how many processes there may
    /// be.
    pub(super) const fn most(self) -> (usize, usize) {
        match self {
            // This many for names, and half as many besides for user IDs, which local users cause.
            Self::Users => (1, USERS_AT_ONCE + USERS_AT_ONCE / 2),
            Self::Hosts => (HOSTS, 1),
        }
    }
}

/// A question that was asked.
pub(super) struct Asked {
    pub(super) number: LookUp,
    pub(super) question: Question,
    pub(super) until: Instant,
    /// It was asked before, of a process that has died.
    pub(super) again: bool,
    /// The groups received so far.
    pub(super) groups: Vec<IdNumber>,
}

impl Asked {
    pub(super) fn failed(self, why: &str) -> LookUpEvent {
        let found = match Kind::of(&self.question) {
            Kind::Users => Found::User(Ok(None)),
            Kind::Hosts => Found::Host(Err(why.to_owned())),
        };
        LookUpEvent::Found(self.number, found)
    }
}

/// Why a question was not asked.
#[derive(Debug)]
pub(in super::super) enum NotAsked {
    /// The maximum of look-ups is under way: there is room when one of them has ended.
    NoRoom,
    /// No process is available, or the name is invalid.
    Failed(Fault),
}

impl From<Fault> for NotAsked {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("too many look-ups"),
            Self::Failed(fault) => fault.fmt(f),
        }
    }
}

/// The user that a look-up process was told to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum RunsAs {
    /// It was not told yet.
    NotTold,
    /// It keeps its own user.
    Own,
    /// This user, and this group.
    User(IdNumber, IdNumber),
}

impl RunsAs {
    /// Returns what [`Begin`] tells a process.
    pub(super) const fn of(user: Option<(IdNumber, IdNumber)>) -> Self {
        match user {
            None => Self::Own,
            Some((user, group)) => Self::User(user, group),
        }
    }
}

/// A look-up process.
pub(in super::super) struct Process {
    pub(super) kind: Kind,
    pid: Pid,
    /// It receives no descriptors: a faulty module may cause others' descriptors to be sent there.
    pub(super) channel: Channel<Caller>,
    /// Where `channel` leaves its socket if there is unread data.
    unclosed: Rc<RefCell<Unclosed>>,
    runs_as: RunsAs,
    /// Until when it must be ready; `None`: it is.
    pub(super) due: Option<Instant>,
    pub(super) asked: Vec<Asked>,
    pub(super) idle_until: Instant,
    /// It ends with its last question: what it has read may be out of date.
    pub(super) is_stale: bool,
}

impl Process {
    /// Starts one: executes this program again, or runs the given function in a fork of this
    /// process. It runs no module before it is told which user to become.
    ///
    /// # Errors
    /// Fails if no process or descriptor is available.
    pub(in super::super) fn launch(copy: Option<fn() -> u8>) -> Result<Self, Fault> {
        let unclosed = Rc::default();
        let own = nix::unistd::geteuid().as_raw();
        let (ours, theirs) = untrusted::pair(own, &unclosed)?;
        let pid = match copy {
            Some(run) => process::fork_main(run, theirs.as_fd(), OomPriority::Original)?,
            None => process::again("cosserver: lookup", theirs.as_fd(), OomPriority::Original)?,
        };
        Ok(Self::of(pid, ours, unclosed))
    }

    pub(super) fn of(pid: Pid, ours: Caller, unclosed: Rc<RefCell<Unclosed>>) -> Self {
        let now = Instant::now();
        Self {
            kind: Kind::Users,
            pid,
            channel: Channel::new(ours),
            unclosed,
            runs_as: RunsAs::NotTold,
            due: Some(now + STARTING),
            asked: Vec::new(),
            idle_until: now + IDLE,
            is_stale: false,
        }
    }

    /// Returns the user that it was told to become.
    pub(in super::super) const fn runs_as(&self) -> RunsAs {
        self.runs_as
    }

    /// Tells it which user to become.
    ///
    /// # Errors
    /// Fails if it has died.
    pub(in super::super) fn begin(
        &mut self,
        user: Option<(IdNumber, IdNumber)>,
        warm: bool,
    ) -> Result<(), Fault> {
        let begin = Begin { user, warm };
        self.runs_as = RunsAs::of(user);
        self.channel.send(begin.encode(), Vec::new())
    }

    /// Asks a process that has no other questions, and waits for the answer.
    ///
    /// # Errors
    /// Fails if it has died, or did not answer in time.
    pub(in super::super) fn ask_and_wait(
        &mut self,
        question: &Question,
        limit: Duration,
    ) -> Result<Option<UserRecord>, Fault> {
        let until = Instant::now() + limit;
        let message = question.encode(0);
        let message = message.ok_or_else(|| Fault::new("no user can have that name"))?;
        self.channel.send(message, Vec::new())?;
        let mut buffer = vec![0; ipc::MESSAGE];
        let mut groups = Vec::new();
        loop {
            match self.channel.receive_until(&mut buffer, until)? {
                Incoming::Nothing => return Err(Fault::new("it did not answer in time")),
                Incoming::Gone => return Err(Fault::new("the look-up process has died")),
                Incoming::Message(message, _) => match Answer::decode(&message) {
                    Some(Answer::Ready(_)) if self.due.take().is_some() => {}
                    Some(Answer::Failed(why)) => return Err(Fault::new(why)),
                    Some(Answer::Groups(0, more)) => add_groups(&mut groups, more)?,
                    Some(Answer::User(0, found)) => {
                        return record_of(question, found, groups).map_err(Fault::new);
                    }
                    _ => {
                        return Err(Fault::new(
                            "the look-up process sent a message that answers no question",
                        ));
                    }
                },
            }
        }
    }

    /// Registers its channel with the event loop.
    ///
    /// # Errors
    /// Fails if the event loop takes no more.
    pub(super) fn watch(&self, registry: &Registry, event_source: Token) -> Result<(), Fault> {
        let fd = self.channel.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), event_source, Interest::READABLE)?;
        Ok(())
    }

    /// Whether it ends when it has been idle for long: it has no question, and is ready or will get
    /// none.
    pub(super) fn may_end_idle(&self) -> bool {
        self.asked.is_empty() && (self.due.is_none() || self.is_stale)
    }

    /// Kills it. Returns its process ID, to be reaped, and its socket if a child must close that.
    pub(super) fn end(self) -> (Pid, Unclosed) {
        process::signal(self.pid, Signal::SIGKILL);
        drop(self.channel);
        (self.pid, self.unclosed.take())
    }

    /// Asks it a question. Returns the question if it is dead.
    pub(super) fn send(&mut self, asked: Asked, message: Vec<u8>) -> Result<(), Asked> {
        match self.channel.send(message, Vec::new()) {
            Ok(()) => {
                self.asked.push(asked);
                Ok(())
            }
            Err(_) => Err(asked),
        }
    }
}

/// Looks a user up with a process of its own, and waits for it up to the limit. For what a daemon
/// must know before it serves.
///
/// # Errors
/// Fails if no process is available, or if it does not answer in time.
pub(in super::super) fn ask_once(
    user: Option<(IdNumber, IdNumber)>,
    question: &Question,
    limit: Duration,
) -> Result<Option<UserRecord>, Fault> {
    let mut process = Process::launch(None)?;
    let begun = process.begin(user, false);
    let found = begun.and_then(|()| process.ask_and_wait(question, limit));
    let (pid, unclosed) = process.end();
    untrusted::leave_open(unclosed);
    // A process blocked in disk I/O may not even die: its next parent reaps it.
    if found.is_ok() {
        let _ = nix::sys::wait::waitpid(pid, None);
    }
    found
}

pub(super) fn add_groups(groups: &mut Vec<IdNumber>, more: Vec<IdNumber>) -> Result<(), Fault> {
    // All messages but the last must be full: one group per message would keep the monitor busy.
    if groups.len() % GROUPS != 0 {
        return Err(Fault::new("groups in more messages than they need"));
    }
    groups.extend(more);
    if groups.len() > MOST_GROUPS {
        return Err(Fault::new("an account with more groups than any can have"));
    }
    Ok(())
}

/// Returns the record with its groups, if it is that of the requested user. A module may return
/// another's, and shadow(5), which says who is locked, would then be checked for the wrong user.
pub(super) fn record_of(
    question: &Question,
    found: Result<Option<Box<UserRecord>>, String>,
    groups: Vec<IdNumber>,
) -> Result<Option<UserRecord>, String> {
    let Some(mut record) = found?.filter(|record| has_a_name(&record.account)) else {
        return Ok(None);
    };
    let Account { name, uid, .. } = &record.account;
    let asked_groups = match question {
        Question::User(asked, groups) => (asked == name).then_some(groups),
        Question::Number(asked, groups) => (uid == asked).then_some(groups),
        Question::Host(_) => None,
    };
    if let Some(asked) = asked_groups {
        if let Some(groups) = &mut record.named_groups {
            groups.retain(|group| asked.contains(group));
        }
        return whole(*record, groups).map(Some).map_err(|e| e.to_string());
    }
    Err(format!(
        "the user database returns another record, of user {name} with number {uid}"
    ))
}

/// Returns the record with its groups: those sent before it, or, if they are few, with it.
fn whole(mut record: UserRecord, mut groups: Vec<IdNumber>) -> Result<UserRecord, Fault> {
    let own = std::mem::take(&mut record.account.groups);
    if !own.is_empty() {
        add_groups(&mut groups, own)?;
    }
    record.account.groups = groups;
    Ok(record)
}
