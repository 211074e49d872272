//! The logins under way and their workers: which wait for a PAM slot, which are prompted, which
//! run. [`super::pipeline::login`] decides about them.
//!
//! Runs in the monitor. A worker that waits for a user's answer holds no PAM slot: many may wait,
//! few may check at the same time, because a check costs a core and some 20 MB.

mod detached;
mod ending;
mod guesses;
mod machines;
mod prompts;
mod shared;
mod slots;
mod times;
mod transitions;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::Registry;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::conversation::Conversation;
use super::inetd_table::{self, Table};
use crate::auth::policy::{Caller, Granted, Gui};
use crate::auth::{AuthenticatedHost, LoginClaim};
use crate::config::name::UserName;
use crate::daemon::sources::Source;
use crate::fault::Fault;
use crate::ipc::gate::Connection;
use crate::ipc::login::{Begin, Launch, Order};
use crate::protocol::prompt::Text;
use crate::registry::{Id, Known};
use crate::sys::process::{self, LoginProgram};

pub(super) use detached::Detached;
use detached::Leftover;
pub(super) use guesses::Denial;
use guesses::Failed;
use shared::Shared;
pub(super) use slots::Room;
use slots::Slot;
use times::Late;
pub(super) use transitions::{Launched, LoginEvent};
use worker::Worker;
pub(super) use worker::WorkerEvent;

/// Why a login is refused that makes room for another while PAM is not working on it.
pub(super) const MADE_ROOM: &str = "its login was the oldest, and was ended for another's";

/// A login's number, which is never reused.
pub(super) type LoginId = u64;

/// Who logs in.
pub(super) enum LoginSubject {
    /// A user whom PAM has still to authenticate.
    LoginClaim(Known<Box<LoginClaim>>),
    /// An authenticated host, for this user.
    Host(Known<Box<AuthenticatedHost>>, UserName),
}

/// The stage of a login.
enum Stage {
    /// Waits for a PAM slot, to send its worker this order.
    Queued(Order),
    /// PAM works.
    Checking,
    /// The peer owes this many answers.
    Prompted(usize),
    /// Its peer was refused, or has left, before PAM decided: the worker takes PAM to its verdict.
    Concluding,
    /// The application is being started; our ends of its pipes, unless it is started detached.
    Launching(Box<Granted<Gui, Caller>>, Option<[OwnedFd; 3]>),
    /// The application runs in this session; PAM's variables, for the worker that closes the PAM
    /// session.
    Running(u64, Vec<CString>),
    /// The application runs detached: its leader, and PAM's variables.
    Detached(Pid, Vec<CString>),
    /// The application has ended; its worker reaps it when this session is over. PAM's variables.
    Ended(u64, Vec<CString>),
    /// Over: the worker closes the PAM session and ends.
    Over,
}

/// How far PAM has got with the peer's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// The peer has given none.
    Nothing,
    /// The peer has given one, which waits for a PAM slot.
    Given,
    /// PAM has one and has not decided: if the login ends here, it counts as a guess.
    Taken,
    /// PAM has decided.
    Judged,
}

/// One login.
pub(super) struct Login {
    /// The gate's connection, until it is accepted or refused.
    connection: Option<Connection>,
    peer: IpAddr,
    slot: Slot,
    /// The user and the request, for the log.
    asks: String,
    /// The machines that made the request.
    machines: Vec<Id>,
    /// What the user is shown on acceptance, besides PAM's messages.
    welcome: Vec<Text>,
    /// The applicant, until PAM has decided.
    who: Option<LoginSubject>,
    socket: Option<OwnedFd>,
    /// The conversation, once message 2 is sent.
    conversation: Option<Box<Conversation>>,
    stage: Stage,
    /// Deadline of the whole login.
    until: Instant,
    /// Deadline of the worker's next message.
    late: Option<Instant>,
    /// When its request or its last answers came.
    asked: Instant,
    /// When it last got a PAM slot.
    begun: Option<Instant>,
    /// How far PAM has got with the peer's answers.
    answers: Answered,
    /// Whether its peer has left and must not be prompted or served any more.
    has_left: bool,
    begin: Begin,
    /// Set for a detached application.
    detached: Option<Detached>,
    worker: Option<Worker>,
}

impl Login {
    pub(super) fn new(
        connection: Connection,
        peer: IpAddr,
        who: LoginSubject,
        socket: OwnedFd,
        begin: Begin,
        asks: String,
        until: Instant,
    ) -> Self {
        Self {
            connection: Some(connection),
            peer,
            slot: Slot::of(&who),
            asks,
            machines: who.machines(),
            welcome: Vec::new(),
            who: Some(who),
            socket: Some(socket),
            conversation: None,
            stage: Stage::Checking,
            until,
            late: None,
            asked: Instant::now(),
            begun: None,
            answers: Answered::Nothing,
            has_left: false,
            begin,
            detached: None,
            worker: None,
        }
    }

    /// Returns a login without a peer: its worker closes the PAM session of a worker that died.
    pub(super) fn cleanup_worker(peer: IpAddr, begin: Begin, until: Instant) -> Self {
        Self {
            connection: None,
            peer,
            slot: Slot::CleanupWorker,
            asks: String::new(),
            machines: Vec::new(),
            welcome: Vec::new(),
            who: None,
            socket: None,
            conversation: None,
            stage: Stage::Checking,
            until,
            late: None,
            asked: Instant::now(),
            begun: None,
            answers: Answered::Nothing,
            has_left: false,
            begin,
            detached: None,
            worker: None,
        }
    }

    /// Adds a conversation that has begun, and what the user is shown on acceptance.
    pub(super) fn with(self, conversation: Option<Box<Conversation>>, welcome: Vec<Text>) -> Self {
        Self {
            conversation,
            welcome,
            ..self
        }
    }

    /// Returns the peer's address.
    pub(super) const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Whether its worker only closes the PAM session of another.
    pub(super) const fn is_cleanup(&self) -> bool {
        matches!(self.slot, Slot::CleanupWorker)
    }

    /// Whether its user has not authenticated yet.
    pub(super) const fn is_unauthenticated(&self) -> bool {
        matches!(self.who, Some(LoginSubject::LoginClaim(_)))
    }

    fn send_launch(&mut self, launch: Launch, fds: [OwnedFd; 3]) -> bool {
        self.tell(&Order::Launch(launch), fds.into())
    }

    /// Whether its peer still waits for the outcome.
    pub(super) const fn is_under_way(&self) -> bool {
        matches!(
            self.stage,
            Stage::Queued(_) | Stage::Checking | Stage::Prompted(_) | Stage::Launching(..)
        )
    }

    const fn takes_a_pam_slot(&self) -> bool {
        matches!(
            self.stage,
            Stage::Checking | Stage::Concluding | Stage::Launching(..)
        )
    }
}

/// All logins.
#[derive(Default)]
pub(super) struct Logins {
    /// The workers' program, if there are applications to log in for.
    program: Option<LoginProgram>,
    all: BTreeMap<LoginId, Login>,
    next: LoginId,
    /// Sources of wrong guesses, until the refusal is sent.
    failed: VecDeque<Failed>,
    /// The PAM slots of refused logins, held until these times: see [`guesses`].
    resting: Vec<Instant>,
    /// Applications whose worker has died, and when to kill them.
    leftovers: Vec<Leftover>,
    /// Under inetd: the login slots and PAM slots held in the table of all monitors.
    shared: Shared,
    /// Whether a PAM slot may be free, or a login wait for one, since [`Self::have_changed`].
    have_changed: bool,
}

impl Logins {
    /// Takes the workers' program, if there are applications to log in for.
    pub(super) fn new(program: Option<LoginProgram>) -> Self {
        Self {
            program,
            ..Self::default()
        }
    }

    /// Sets the program after a reload. The one that was opened first stays, like our own program.
    pub(super) fn set_program(&mut self, program: Option<LoginProgram>) {
        self.program = self.program.take().or(program);
    }

    /// Shares login slots and PAM slots with all monitors from now on.
    pub(super) fn share(&mut self, table: Option<Rc<Table>>) {
        self.shared = Shared::new(table);
    }

    /// Whether a PAM slot may be free, or a login wait for one, since the last call.
    pub(super) const fn have_changed(&mut self) -> bool {
        std::mem::replace(&mut self.have_changed, false)
    }

    /// Adds a login, which waits for a PAM slot.
    pub(super) fn add(&mut self, mut login: Login) -> LoginId {
        let id = self.next;
        self.next += 1;
        login.stage = Stage::Queued(Order::Begin(login.begin.clone()));
        self.all.insert(id, login);
        self.have_changed = true;
        id
    }

    /// Releases the shared login slots and PAM slots that no login needs now.
    pub(super) fn hand_back(&mut self) {
        let now = Instant::now();
        self.resting.retain(|until| *until > now);
        let unreported = self.failed.iter().filter(|f| f.has_slot && f.until > now);
        let in_places = self.under_way() + unreported.count();
        self.shared.hand_back(self.busy(), in_places);
    }

    /// Returns how many PAM slots are in use.
    fn busy(&self) -> usize {
        let working = self.all.values().filter(|l| l.takes_a_pam_slot());
        working.count() + self.resting.len()
    }

    /// Returns a login.
    pub(super) fn get(&mut self, id: LoginId) -> Option<&mut Login> {
        self.have_changed = true;
        self.all.get_mut(&id)
    }

    /// Kills a login's worker. The end of its channel follows as its last event.
    pub(super) fn kill(&self, id: LoginId) {
        if let Some(worker) = self.all.get(&id).and_then(|l| l.worker.as_ref()) {
            process::signal(worker.pid, Signal::SIGKILL);
        }
    }

    /// Returns the login that has waited longest, of the source that holds the fewest PAM slots
    /// now. No source gets the last slot if it holds all the others, so that guesses from one place
    /// delay no others. Wrong guesses whose refusal is not sent yet count as slots: a client
    /// guesses no faster by not waiting for the answer.
    fn next_for_pam(&self, most: usize) -> Option<LoginId> {
        let for_one = inetd_table::for_one(most);
        let pam_slots = |peer: IpAddr| {
            let source = Source::of(peer);
            let same = |l: &&Login| l.takes_a_pam_slot() && Source::of(l.peer) == source;
            let failed = self.failed.iter().filter(|f| f.source == source);
            self.all.values().filter(same).count() + failed.count()
        };
        let queued = self.all.iter();
        let queued = queued.filter(|(_, l)| matches!(l.stage, Stage::Queued(_)));
        let first = queued.map(|(id, l)| (pam_slots(l.peer), *id)).min();
        first
            .filter(|(pam_slots, _)| *pam_slots < for_one)
            .map(|(_, id)| id)
    }

    /// Gives the next login a PAM slot if one is free: starts its worker, or tells it to continue.
    /// Returns the login and whether that failed.
    pub(super) fn grant_pam_slot(
        &mut self,
        registry: &Registry,
        most: usize,
        check: Duration,
        now: Instant,
    ) -> Option<(LoginId, Result<(), Fault>)> {
        self.hand_back();
        self.failed.retain(|f| f.until > now);
        let cleanup_worker = |(id, l): (&LoginId, &Login)| {
            (l.is_cleanup() && matches!(l.stage, Stage::Queued(_))).then_some(*id)
        };
        // A cleanup worker needs no slot.
        let id = match self.all.iter().find_map(cleanup_worker) {
            Some(cleanup_worker) => cleanup_worker,
            None => {
                let id = self.next_for_pam(most).filter(|_| self.busy() < most)?;
                let peer = self.all.get(&id)?.peer;
                if !self.shared.take_pam_slot(peer, most, now) {
                    return None;
                }
                id
            }
        };
        let login = self.all.get_mut(&id)?;
        let Stage::Queued(order) = std::mem::replace(&mut login.stage, Stage::Checking) else {
            return None;
        };
        login.late = Some(now + check);
        login.begun = Some(now);
        if login.answers == Answered::Given {
            login.answers = Answered::Taken;
        }
        Some((
            id,
            login.begin_pam(registry, self.program.as_ref(), id, &order),
        ))
    }

    /// Whether a login holds one of the login slots that all monitors share.
    pub(super) fn has_shared_slot(&self) -> bool {
        self.shared.has_slot()
    }

    /// Whether a login waits for a PAM slot.
    pub(super) fn is_queued(&self, id: LoginId) -> bool {
        let login = self.all.get(&id);
        login.is_some_and(|l| matches!(l.stage, Stage::Queued(_)))
    }

    /// Whether something is being started, or must still be closed or killed. A running application
    /// counts as a session, a detached one needs no process of ours, and a worker closes its PAM
    /// session by itself.
    pub(super) fn is_busy(&self) -> bool {
        let busy = |l: &Login| l.is_cleanup() || matches!(l.stage, Stage::Launching(..));
        self.all.values().any(busy) || !self.leftovers.is_empty()
    }
}
