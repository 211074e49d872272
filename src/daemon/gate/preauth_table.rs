//! The table of unauthenticated connections.
//!
//! Runs in the gate. Owns the connections, their deadlines, the listeners and the channel to the
//! monitor. Accepts connections, reads the record that is due, asks the monitor, and closes
//! connections that miss their deadline. [`orders`] carries out the monitor's orders; [`leaving`]
//! ends connections. Must not decrypt a record, decide about a request, or wait for a peer.

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

/// Number and token of the first connection. Lower tokens are the channel and the listeners.
const FIRST_CONNECTION: usize = socket::LISTENERS + 1;

/// Most connections accepted at a time, so that other events are handled too.
const AT_ONCE: usize = 64;

/// How long accepting pauses after an error that may recur at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a refused peer may take to read its refusal.
const LINGERING_CLOSE: Duration = Duration::from_secs(5);

/// How long the monitor may take for a decision. Longer than any limit of the monitor's own, of
/// which `[login] time` is the longest.
const VERDICT: Duration = Duration::from_secs(660);

/// All unauthenticated connections, and the channel to the monitor.
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
    /// Connections whose next record may have arrived already. They are read after the other
    /// events, and only while the monitor keeps up.
    eager: Vec<Connection>,
    /// Largest number of unauthenticated connections since memory was last returned to the system.
    peak: usize,
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
            peak: 0,
        }
    }

    /// Returns the earliest time at which something must be done.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, _)| *at);
        let eager = Some(now).filter(|_| self.may_go_on());
        [first, self.paused, eager].into_iter().flatten().min()
    }

    /// Watches the channel for room while messages wait for the monitor.
    pub(super) fn update(&self, watch: &mut Watch) -> Result<(), Fault> {
        watch.update(&self.registry, &self.monitor)
    }

    /// Whether a further record can be forwarded now. A monitor that does not keep up gets time:
    /// its next read shows that it can take more.
    fn may_go_on(&self) -> bool {
        !self.eager.is_empty() && !self.monitor.is_waiting()
    }

    /// Reads one more record from each connection that may have sent one already.
    pub(super) fn go_on(&mut self, now: Instant) -> Result<(), Fault> {
        if self.may_go_on() {
            for connection in std::mem::take(&mut self.eager) {
                let stage = self.unauthenticated.get(&connection).map(|s| s.stage);
                if stage == Some(Stage::AwaitsCommand) {
                    self.connection_is_ready(connection, now)?;
                }
            }
        }
        Ok(())
    }

    /// Handles a socket that is ready.
    pub(super) fn ready(&mut self, token: Token, now: Instant) -> Result<(), Fault> {
        match token.0.checked_sub(1).and_then(|n| self.listeners.get(n)) {
            Some(_) if token.0 < FIRST_CONNECTION => self.accept(token.0 - 1, now),
            _ => self.connection_is_ready(token.0 as Connection, now),
        }
    }

    /// Accepts the connections that wait. If descriptors or memory run out, evicts the oldest
    /// connection of the greediest source; if none may be evicted, pauses.
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
                    if !short || !self.evict_from_largest_source(now)? {
                        self.paused = Some(now + PAUSE);
                        return Ok(());
                    }
                }
            }
        }
        // More connections may be waiting, and an edge comes only once.
        self.paused = Some(now);
        Ok(())
    }

    /// Gives a new connection a slot, evicts another to make room, or rejects it.
    fn take_in(
        &mut self,
        socket: OwnedFd,
        from: IpAddr,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Fault> {
        self.sources.expire_penalties(now);
        if self.sources.held(from) >= self.sources.slots(from, limits, now) {
            let oldest = self.sources.of(from).find(|c| self.may_go(*c));
            let Some(oldest) = oldest else {
                return self.ask(&Question::Rejected(Complaint::NoSlot, from), Vec::new());
            };
            self.close_with_penalty(oldest, Complaint::Evicted, now)?;
        }
        if self.sources.is_full(from, limits) {
            self.evict_from_largest_source(now)?;
        }
        let connection = self.next;
        if self.sources.is_full(from, limits) || self.register(&socket, connection).is_err() {
            return self.ask(&Question::Rejected(Complaint::NoSlot, from), Vec::new());
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
        self.peak = self.peak.max(self.unauthenticated.len());
        self.connection_is_ready(connection, now)
    }

    fn register(&self, socket: &OwnedFd, connection: Connection) -> Result<(), Fault> {
        let token = Token(usize::try_from(connection).unwrap_or(usize::MAX));
        // What we send is short. If the peer's window does not take it, the deadline closes the
        // connection, so no event for room is needed.
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

    /// Evicts the oldest connection of the greediest source. Returns `false` if none may be
    /// evicted.
    fn evict_from_largest_source(&mut self, now: Instant) -> Result<bool, Fault> {
        let oldest = self.sources.largest_first().find(|c| self.may_go(*c));
        if let Some(oldest) = oldest {
            self.close_with_penalty(oldest, Complaint::Evicted, now)?;
        }
        Ok(oldest.is_some())
    }

    fn connection_is_ready(&mut self, connection: Connection, now: Instant) -> Result<(), Fault> {
        let Some(preauth) = self.unauthenticated.get_mut(&connection) else {
            return Ok(());
        };
        if !preauth.flush() {
            return match preauth.has_answered {
                true => self.close_with_penalty(connection, Complaint::Left, now),
                false => self.forget(connection),
            };
        }
        match preauth.read() {
            ReadOutcome::Nothing => Ok(()),
            ReadOutcome::Record(record) => self.ask_about(connection, &record, now),
            // The monitor still decides about what the peer has sent.
            ReadOutcome::Left if preauth.stage.awaits_verdict() => self.leaves(connection),
            // The slot stays taken until the refusal would have left, so that hanging up early
            // gains nothing.
            ReadOutcome::Left if preauth.stage == Stage::Parked => Ok(()),
            ReadOutcome::Left if preauth.stage.due().is_none() => self.forget(connection),
            ReadOutcome::Left if preauth.has_spoken() => {
                self.close_with_penalty(connection, Complaint::Left, now)
            }
            // A port scan: not logged. Under inetd the monitor keeps the penalty.
            ReadOutcome::Left => {
                let from = preauth.from;
                self.penalise(connection, Complaint::Probe, now);
                if self.listeners.is_empty() {
                    self.ask(&Question::Rejected(Complaint::Probe, from), Vec::new())?;
                }
                self.forget(connection)
            }
            ReadOutcome::Malformed => {
                self.close_with_penalty(connection, Complaint::Malformed, now)
            }
        }
    }

    /// Forwards a record to the monitor, without decrypting it.
    fn ask_about(
        &mut self,
        connection: Connection,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(preauth) = self.unauthenticated.get_mut(&connection) else {
            return Ok(());
        };
        let stage = std::mem::replace(&mut preauth.stage, Stage::AwaitsDecision);
        preauth.known = true;
        match stage {
            Stage::Accepted => {
                let from = preauth.from;
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::Hello(connection, from, record), Vec::new())
            }
            Stage::Greeted => {
                preauth.requested_at = now;
                let Ok(copy) = preauth.socket.try_clone() else {
                    // No descriptors left: close this connection, so that the others stay.
                    return self.close_with_penalty(connection, Complaint::Evicted, now);
                };
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::ClientHello(connection, record), vec![copy])
            }
            Stage::AwaitsCommand => {
                // More records may follow: keep the deadline. After the last piece, the next byte
                // is not for the gate.
                if preauth.take_piece(record.len()) {
                    preauth.stage = Stage::AwaitsCommand;
                    self.eager.push(connection);
                } else {
                    self.postpone(connection, now + VERDICT);
                }
                self.ask(&Question::Sealed(connection, record), Vec::new())
            }
            Stage::Prompted => {
                preauth.stage = Stage::Checking;
                preauth.has_answered = true;
                // The refusal of a login leaves at a multiple of the interval after its last
                // answer.
                preauth.requested_at = now;
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::Sealed(connection, record), Vec::new())?;
                // The peer may have hung up right after it, and an edge comes only once.
                self.connection_is_ready(connection, now)
            }
            Stage::AwaitsDecision
            | Stage::AwaitsName
            | Stage::Checking
            | Stage::Parked
            | Stage::Leaving => Ok(()),
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

    /// Closes connections whose deadline has passed, and sends the refusals that are due.
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
                    Some(complaint) => self.close_with_penalty(connection, complaint, now)?,
                    None => self.forget(connection)?,
                },
                None => drop(self.deadlines.remove(&(at, connection))),
            }
        }
        Ok(())
    }

    fn send_refusal(&mut self, connection: Connection, now: Instant) -> Result<(), Fault> {
        self.parked = self.parked.saturating_sub(1);
        self.postpone(connection, now + LINGERING_CLOSE);
        let Some(preauth) = self.unauthenticated.get_mut(&connection) else {
            return Ok(());
        };
        preauth.stage = Stage::Leaving;
        if !preauth.say_refusal() {
            return self.forget(connection);
        }
        // The peer may have hung up in the meantime, and an edge comes only once.
        self.connection_is_ready(connection, now)
    }
}

/// Whether an error of accept(2) concerns only the connection that it would have returned: the
/// connection, or its network, was gone before it was accepted. The next accept may succeed.
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
