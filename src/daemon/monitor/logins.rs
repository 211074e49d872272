//! The logins under way and their workers: who waits for his turn with PAM, who is
//! asked, what runs. What is decided about them stands in [`super::login`].
//!
//! A worker that waits for a person's answer takes no turn: so many may wait, few
//! may check at the same time, because a check costs a core and some 20 MB.

mod detached;
mod guesses;
mod machines;
mod shared;
mod slots;
mod times;
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

use super::table::{self, Table};
use super::talk::Talk;
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
use guesses::Failed;
pub(super) use guesses::{Denial, Guess};
use shared::Shared;
pub(super) use slots::{Room, Slot};
pub(super) use times::Late;
use worker::Worker;

/// Why one that PAM did not have in hand is refused.
pub(super) const MADE_ROOM: &str = "it was there longest, and others wanted to log in too";

/// A login's number; a number is never used twice.
pub(super) type LoginId = u64;

/// Who logs in.
pub(super) enum Who {
    /// Somebody whom PAM is to ask.
    LoginClaim(Known<Box<LoginClaim>>),
    /// A host that has proven itself asks, for this user.
    Host(Known<Box<AuthenticatedHost>>, UserName),
}

/// Where a login stands.
pub(super) enum Stage {
    /// It waits for its turn, to tell its worker this.
    Queued(Order),
    /// PAM works.
    Checking,
    /// So many answers are due from the peer.
    Prompted(usize),
    /// Its peer was refused before PAM had decided: the worker takes PAM to its verdict.
    Concluding,
    /// The application is being started; our ends of its pipes, unless it is left alone.
    Launching(Box<Granted<Gui, Caller>>, Option<[OwnedFd; 3]>),
    /// It runs, in this session; PAM's variables, for whoever must close the PAM session.
    Running(u64, Vec<CString>),
    /// It runs by itself; the same, and its leader.
    Detached(Pid, Vec<CString>),
    /// It has ended; its worker reaps it when this session is over. The same.
    Ended(u64, Vec<CString>),
    /// It is over; the worker closes the PAM session and ends.
    Over,
}

/// How far the peer's answers to PAM's prompts have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// None was given.
    Nothing,
    /// One was, and waits for its turn.
    Given,
    /// PAM has one, and has not said yes or no: what ends here was a guess.
    Taken,
    /// PAM has said what it makes of them.
    Judged,
}

/// One login.
pub(super) struct Login {
    /// The gate's connection, until it is accepted or refused.
    pub(super) connection: Option<Connection>,
    pub(super) peer: IpAddr,
    slot: Slot,
    /// Who asks for what, for the log.
    pub(super) asks: String,
    /// The machines that ask.
    machines: Vec<Id>,
    /// What is said to him when he is accepted, beside what PAM says.
    pub(super) welcome: Vec<Text>,
    /// Until it is known who he is.
    pub(super) who: Option<Who>,
    pub(super) socket: Option<OwnedFd>,
    /// Once message 2 is out.
    pub(super) talk: Option<Box<Talk>>,
    pub(super) stage: Stage,
    /// When the whole login must be done.
    pub(super) until: Instant,
    /// When the worker must have said something.
    pub(super) late: Option<Instant>,
    /// When its request came, or its last answers.
    pub(super) asked: Instant,
    /// When its last turn began.
    pub(super) begun: Option<Instant>,
    /// What has become of the peer's answers to PAM.
    pub(super) answers: Answered,
    /// Whether its peer has left, and is not to be asked or served any more.
    pub(super) has_left: bool,
    pub(super) begin: Begin,
    /// Of what goes on by itself.
    pub(super) detached: Option<Detached>,
    worker: Option<Worker>,
}

impl Login {
    pub(super) fn new(
        connection: Connection,
        peer: IpAddr,
        who: Who,
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
            talk: None,
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

    /// Nobody's login: its worker closes what another has left open, and ends.
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
            talk: None,
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

    /// Whether it only closes what another has left open.
    pub(super) const fn is_cleanup(&self) -> bool {
        matches!(self.slot, Slot::CleanupWorker)
    }

    /// Whether it is somebody's who has still to prove himself.
    pub(super) const fn is_unauthenticated(&self) -> bool {
        matches!(self.who, Some(Who::LoginClaim(_)))
    }

    /// Starts what was granted.
    pub(super) fn launch(&mut self, launch: Launch, fds: [OwnedFd; 3]) -> bool {
        self.tell(&Order::Launch(launch), fds.into())
    }

    /// Whether its peer is still to be told what it comes to.
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
    /// Where there is something to log in for.
    program: Option<LoginProgram>,
    all: BTreeMap<LoginId, Login>,
    next: LoginId,
    /// Sources that have guessed wrong, until they are told.
    failed: VecDeque<Failed>,
    /// Turns in which PAM said no rest until then: see [`guesses`].
    resting: Vec<Instant>,
    /// Applications whose worker has died, to be killed then.
    leftovers: Vec<Leftover>,
    /// Under inetd: what they have of the places and turns of all monitors.
    shared: Shared,
}

impl Logins {
    /// With the program of their workers, where there is something to log in for.
    pub(super) fn new(program: Option<LoginProgram>) -> Self {
        Self {
            program,
            ..Self::default()
        }
    }

    /// The same, once there is: the program that was open first stays, as our own does.
    pub(super) fn go_on(&mut self, program: Option<LoginProgram>) {
        self.program = self.program.take().or(program);
    }

    /// Places and turns are those of all monitors, from now on.
    pub(super) fn share(&mut self, table: Option<Rc<Table>>) {
        self.shared = Shared::new(table);
    }

    /// Takes a login that waits for its turn.
    pub(super) fn add(&mut self, mut login: Login) -> LoginId {
        let id = self.next;
        self.next += 1;
        login.stage = Stage::Queued(Order::Begin(login.begin.clone()));
        self.all.insert(id, login);
        id
    }

    /// Gives back what no login needs now of the places and turns of all monitors.
    pub(super) fn hand_back(&mut self) {
        let now = Instant::now();
        self.resting.retain(|until| *until > now);
        let untold = self.failed.iter().filter(|f| f.has_slot && f.until > now);
        let in_places = self.under_way() + untold.count();
        self.shared.hand_back(self.busy(), in_places);
    }

    /// How many turns are taken.
    fn busy(&self) -> usize {
        let working = self.all.values().filter(|l| l.takes_a_pam_slot());
        working.count() + self.resting.len()
    }

    /// A login.
    pub(super) fn get(&mut self, id: LoginId) -> Option<&mut Login> {
        self.all.get_mut(&id)
    }

    /// Forgets a login and its worker, whose number is left to be reaped.
    pub(super) fn remove(&mut self, id: LoginId) -> Option<(Login, Option<Pid>)> {
        let login = self.all.remove(&id)?;
        let pid = login.worker.as_ref().map(|w| w.pid);
        Some((login, pid))
    }

    /// Kills a login's worker: its channel's end comes as its last event.
    pub(super) fn kill(&self, id: LoginId) {
        if let Some(worker) = self.all.get(&id).and_then(|l| l.worker.as_ref()) {
            process::signal(worker.pid, Signal::SIGKILL);
        }
    }

    /// The login that waits longest, of the source that has the fewest turns now. The
    /// last turn is for none that has all the others: whoever guesses from one place
    /// makes nobody else wait.
    /// Wrong guesses that have not been told yet count as turns: nobody guesses
    /// faster by not waiting for the answer.
    fn next_for_pam(&self, most: usize) -> Option<LoginId> {
        let for_one = table::for_one(most);
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

    /// Gives the next one his turn, if there is one to be had: his worker is started, or
    /// told to go on. What failed is told, with whose it was.
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
        // What another has left open is closed at once.
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

    /// Whether it has one of the places that all monitors share.
    pub(super) fn has_shared_slot(&self) -> bool {
        self.shared.has_slot()
    }

    /// Whether a login waits for its turn.
    pub(super) fn is_queued(&self, id: LoginId) -> bool {
        let login = self.all.get(&id);
        login.is_some_and(|l| matches!(l.stage, Stage::Queued(_)))
    }

    /// Whether something is being started, or must still be closed or killed. (What runs is
    /// a session, what runs by itself needs nobody, and a worker closes its PAM session
    /// alone.)
    pub(super) fn is_busy(&self) -> bool {
        let busy = |l: &Login| l.is_cleanup() || matches!(l.stage, Stage::Launching(..));
        self.all.values().any(busy) || !self.leftovers.is_empty()
    }
}
