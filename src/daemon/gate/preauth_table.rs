//! The hall where strangers wait: accepting them, reading what is due, asking
//! the monitor, and turning out those who are late. What the monitor orders is
//! done in [`orders`], and how a connection ends in [`leaving`].

mod leaving;
mod orders;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::connection::{PreauthConnection, ReadOutcome, Stage};
use super::sources::Sources;
use crate::fault::Fault;
use crate::ipc::Channel;
use crate::ipc::gate::{Complaint, Connection, Limits, Question};
use crate::ipc::watch::Watch;
use crate::sys::socket;

/// Tokens below are the channel and the listeners; a connection's token is its
/// number, which begins here.
const FIRST_CONNECTION: usize = socket::LISTENERS + 1;

/// Connections accepted in one go, so that the others get their turn.
const AT_ONCE: usize = 64;

/// How long nobody is accepted after an error that may well come again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a refused peer may take to read its refusal.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the monitor may take for a verdict: beyond any limit of its own, of which
/// `[login] time` is the longest.
const VERDICT: Duration = Duration::from_secs(660);

/// All strangers, and the way to the monitor.
pub(super) struct PreauthTable {
    pub(super) monitor: Channel,
    registry: Registry,
    listeners: Vec<TcpListener>,
    limits: Option<Limits>,
    unauthenticated: HashMap<Connection, PreauthConnection>,
    deadlines: BTreeSet<(Instant, Connection)>,
    sources: Sources,
    parked: usize,
    next: Connection,
    paused: Option<Instant>,
    /// Those whose next record may have come already: they get their turn when
    /// the others have had theirs and the monitor keeps up.
    eager: Vec<Connection>,
    /// Most strangers at once since memory was last given back.
    crowd: usize,
}

impl PreauthTable {
    pub(super) fn new(monitor: Channel, registry: Registry) -> Self {
        Self {
            monitor,
            registry,
            listeners: Vec::new(),
            limits: None,
            unauthenticated: HashMap::new(),
            deadlines: BTreeSet::new(),
            sources: Sources::default(),
            parked: 0,
            next: FIRST_CONNECTION as Connection,
            paused: None,
            eager: Vec::new(),
            crowd: 0,
        }
    }

    /// When something must be done at the latest.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, _)| *at);
        let eager = Some(now).filter(|_| self.may_go_on());
        [first, self.paused, eager].into_iter().flatten().min()
    }

    /// Watches the monitor for room while messages wait for it.
    pub(super) fn update(&self, watch: &mut Watch) -> Result<(), Fault> {
        watch.update(&self.registry, &self.monitor)
    }

    /// Whether somebody's next record can be carried now: a monitor that does not
    /// keep up is given time, and tells by reading when it has it.
    fn may_go_on(&self) -> bool {
        !self.eager.is_empty() && !self.monitor.is_waiting()
    }

    /// One more record from each of those who may have sent it already.
    pub(super) fn go_on(&mut self, now: Instant) -> Result<(), Fault> {
        if self.may_go_on() {
            for connection in std::mem::take(&mut self.eager) {
                let stage = self.unauthenticated.get(&connection).map(|s| s.stage);
                if stage == Some(Stage::Asked) {
                    self.connection_is_ready(connection, now)?;
                }
            }
        }
        Ok(())
    }

    /// A socket is ready.
    pub(super) fn ready(&mut self, token: Token, now: Instant) -> Result<(), Fault> {
        match token.0.checked_sub(1).and_then(|n| self.listeners.get(n)) {
            Some(_) if token.0 < FIRST_CONNECTION => self.accept(token.0 - 1, now),
            _ => self.connection_is_ready(token.0 as Connection, now),
        }
    }

    /// Accepts who is waiting. Without descriptors the oldest stranger makes room;
    /// where there is none it pauses.
    fn accept(&mut self, which: usize, now: Instant) -> Result<(), Fault> {
        let Some(limits) = self.limits else {
            return Ok(());
        };
        for _ in 0..AT_ONCE {
            let Some(listener) = self.listeners.get(which) else {
                return Ok(());
            };
            match listener.accept() {
                Ok((stream, peer)) => {
                    let socket = OwnedFd::from(stream);
                    if socket::set_nonblocking(&socket).is_ok() {
                        self.take_in(socket, peer.ip().to_canonical(), &limits, now)?;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if is_of_one_connection(&e) => {}
                Err(e) => {
                    let short = matches!(
                        e.raw_os_error(),
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
                    );
                    if !short || !self.evict_greediest(now)? {
                        self.paused = Some(now + PAUSE);
                        return Ok(());
                    }
                }
            }
        }
        // More may be waiting, and an edge comes once.
        self.paused = Some(now);
        Ok(())
    }

    /// Gives a new connection its slot, or makes room for it, or turns it away.
    fn take_in(
        &mut self,
        socket: OwnedFd,
        from: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Fault> {
        self.sources.forgive(now);
        if self.sources.held(from) >= self.sources.slots(from, limits, now) {
            let oldest = self.sources.of(from).find(|c| self.may_go(*c));
            let Some(oldest) = oldest else {
                return self.ask(&Question::TurnedAway(Complaint::NoSlot, from), Vec::new());
            };
            self.turn_out(oldest, Complaint::Crowd, now)?;
        }
        if self.sources.is_full(from, limits) {
            self.evict_greediest(now)?;
        }
        let connection = self.next;
        if self.sources.is_full(from, limits) || self.register(&socket, connection).is_err() {
            return self.ask(&Question::TurnedAway(Complaint::NoSlot, from), Vec::new());
        }
        let _ = socket::prepare(socket.as_fd());
        let _ = socket::notice_loss(socket.as_fd(), limits.keep_alive);
        self.next += 1;
        let deadline = now + Duration::from_secs(limits.hello.into());
        self.sources.enter(from, connection);
        self.deadlines.insert((deadline, connection));
        self.unauthenticated.insert(
            connection,
            PreauthConnection::new(socket, from, now, deadline),
        );
        self.crowd = self.crowd.max(self.unauthenticated.len());
        self.connection_is_ready(connection, now)
    }

    fn register(&self, socket: &OwnedFd, connection: Connection) -> Result<(), Fault> {
        let token = Token(usize::try_from(connection).unwrap_or(usize::MAX));
        // What we send is short: a peer whose window does not take it is closed at
        // its deadline, and needs no event of its own.
        let interest = Interest::READABLE;
        self.registry
            .register(&mut SourceFd(&socket.as_raw_fd()), token, interest)?;
        Ok(())
    }

    fn may_go(&self, connection: Connection) -> bool {
        self.unauthenticated
            .get(&connection)
            .is_some_and(PreauthConnection::may_be_evicted)
    }

    /// `false`: there is nobody who may be evicted.
    fn evict_greediest(&mut self, now: Instant) -> Result<bool, Fault> {
        let oldest = self.sources.by_greed().find(|c| self.may_go(*c));
        if let Some(oldest) = oldest {
            self.turn_out(oldest, Complaint::Crowd, now)?;
        }
        Ok(oldest.is_some())
    }

    fn connection_is_ready(&mut self, connection: Connection, now: Instant) -> Result<(), Fault> {
        let Some(preauth) = self.unauthenticated.get_mut(&connection) else {
            return Ok(());
        };
        if !preauth.flush() {
            return match preauth.has_answered {
                true => self.turn_out(connection, Complaint::Left, now),
                false => self.forget(connection),
            };
        }
        match preauth.read() {
            ReadOutcome::Nothing => Ok(()),
            ReadOutcome::Record(record) => self.ask_about(connection, &record, now),
            // What it has sent is judged all the same.
            ReadOutcome::Left if preauth.stage.awaits_verdict() => self.leaves(connection),
            // Its slot is its own until the refusal would have left: not to wait for it
            // makes nobody faster.
            ReadOutcome::Left if preauth.stage == Stage::Parked => Ok(()),
            ReadOutcome::Left if preauth.stage.due().is_none() => self.forget(connection),
            ReadOutcome::Left if preauth.has_spoken() => {
                self.turn_out(connection, Complaint::Left, now)
            }
            // A port scan: nothing to say in the log. Under inetd it is the monitor that
            // remembers what it costs.
            ReadOutcome::Left => {
                let from = preauth.from;
                self.punish(connection, Complaint::Probe, now);
                if self.listeners.is_empty() {
                    self.ask(&Question::TurnedAway(Complaint::Probe, from), Vec::new())?;
                }
                self.forget(connection)
            }
            ReadOutcome::Malformed => self.turn_out(connection, Complaint::Malformed, now),
        }
    }

    /// Carries a record to the monitor, unopened.
    fn ask_about(
        &mut self,
        connection: Connection,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(preauth) = self.unauthenticated.get_mut(&connection) else {
            return Ok(());
        };
        let stage = std::mem::replace(&mut preauth.stage, Stage::Asking);
        preauth.known = true;
        match stage {
            Stage::Accepted => {
                let from = preauth.from;
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::Hello(connection, from, record), Vec::new())
            }
            Stage::Greeted => {
                preauth.asked_at = now;
                let Ok(copy) = preauth.socket.try_clone() else {
                    // No descriptors: the one who asks goes, and the others stay.
                    return self.turn_out(connection, Complaint::Crowd, now);
                };
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::ClientHello(connection, record), vec![copy])
            }
            Stage::Asked => {
                // More may have come: the deadline stays. Once all of it is there,
                // the next byte is no longer for us.
                if preauth.take_piece(record.len()) {
                    preauth.stage = Stage::Asked;
                    self.eager.push(connection);
                } else {
                    self.postpone(connection, now + VERDICT);
                }
                self.ask(&Question::Sealed(connection, record), Vec::new())
            }
            Stage::Prompted => {
                preauth.stage = Stage::Checking;
                preauth.has_answered = true;
                // The refusal of a login leaves at a multiple of the interval after its
                // last answer.
                preauth.asked_at = now;
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::Sealed(connection, record), Vec::new())?;
                // He may have hung up with it, and an edge comes once.
                self.connection_is_ready(connection, now)
            }
            Stage::Asking | Stage::Awaiting | Stage::Checking | Stage::Parked | Stage::Leaving => {
                Ok(())
            }
        }
    }

    fn ask(&mut self, question: &Question<'_>, fds: Vec<OwnedFd>) -> Result<(), Fault> {
        self.monitor.send(question.encode(), fds)
    }

    fn postpone(&mut self, connection: Connection, deadline: Instant) {
        if let Some(s) = self.unauthenticated.get_mut(&connection) {
            self.deadlines.remove(&(s.deadline, connection));
            s.deadline = deadline;
            self.deadlines.insert((deadline, connection));
        }
    }

    /// Turns out who is late, and sends the refusals whose time has come.
    pub(super) fn pass_deadlines(&mut self, now: Instant) -> Result<(), Fault> {
        if self.paused.is_some_and(|at| at <= now) {
            self.paused = None;
            for which in 0..self.listeners.len() {
                self.accept(which, now)?;
            }
        }
        while let Some((at, connection)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            let stage = self.unauthenticated.get(&connection).map(|s| s.stage);
            match stage {
                Some(Stage::Parked) => self.send_refusal(connection, now)?,
                Some(stage) => match stage.when_late() {
                    Some(complaint) => self.turn_out(connection, complaint, now)?,
                    None => self.forget(connection)?,
                },
                None => drop(self.deadlines.remove(&(at, connection))),
            }
        }
        Ok(())
    }

    fn send_refusal(&mut self, connection: Connection, now: Instant) -> Result<(), Fault> {
        self.parked = self.parked.saturating_sub(1);
        self.postpone(connection, now + FAREWELL);
        let Some(preauth) = self.unauthenticated.get_mut(&connection) else {
            return Ok(());
        };
        preauth.stage = Stage::Leaving;
        if !preauth.say_refusal() {
            return self.forget(connection);
        }
        // It may have hung up meanwhile, and an edge comes once.
        self.connection_is_ready(connection, now)
    }
}

/// Whether an error of accept(2) is about the connection that it would have given:
/// it was gone, or its network is, before we took it. The next may be right.
fn is_of_one_connection(e: &std::io::Error) -> bool {
    #[cfg(target_os = "linux")]
    if e.raw_os_error() == Some(libc::ENONET) {
        return true;
    }
    matches!(
        e.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
        )
    )
}
