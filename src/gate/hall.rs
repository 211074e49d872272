//! The hall where strangers wait: accepting them, reading what is due, asking
//! the monitor, sending what it orders, and turning out those who are late.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::connection::{Came, Stage, Stranger};
use super::sources::{Networks, Sources};
use crate::channel::Channel;
use crate::channel::gate::{Complaint, Connection, Limits, List, Order, Question};
use crate::fault::Fault;
use crate::sys::socket;

/// Tokens below are the channel and the listeners; a connection's token is its
/// number, which begins here.
const FIRST_CONNECTION: usize = 64;

/// Connections accepted in one go, so that the others get their turn.
const AT_ONCE: usize = 64;

/// How long the monitor may take for a verdict: beyond any limit of its own.
const VERDICT: Duration = Duration::from_secs(60);

/// All strangers, and the way to the monitor.
pub(super) struct Hall {
    pub(super) monitor: Channel,
    pub(super) registry: Registry,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) limits: Option<Limits>,
    pub(super) strangers: HashMap<Connection, Stranger>,
    pub(super) deadlines: BTreeSet<(Instant, Connection)>,
    pub(super) sources: Sources,
    pub(super) parked: usize,
    next: Connection,
    pub(super) paused: Option<Instant>,
    /// Most strangers at once since memory was last given back.
    pub(super) crowd: usize,
}

impl Hall {
    pub(super) fn new(monitor: Channel, registry: Registry) -> Self {
        Self {
            monitor,
            registry,
            listeners: Vec::new(),
            limits: None,
            strangers: HashMap::new(),
            deadlines: BTreeSet::new(),
            sources: Sources::default(),
            parked: 0,
            next: FIRST_CONNECTION as Connection,
            paused: None,
            crowd: 0,
        }
    }

    /// When something must be done at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, _)| *at);
        [first, self.paused].into_iter().flatten().min()
    }

    /// A socket is ready.
    pub(super) fn ready(&mut self, token: Token, now: Instant) -> Result<(), Fault> {
        match token.0.checked_sub(1).and_then(|n| self.listeners.get(n)) {
            Some(_) if token.0 < FIRST_CONNECTION => self.accept(token.0 - 1, now),
            _ => self.stranger_is_ready(token.0 as Connection, now),
        }
    }

    /// Accepts who is waiting. Without descriptors it pauses, and says nothing.
    pub(super) fn accept(&mut self, which: usize, now: Instant) -> Result<(), Fault> {
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
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
                    ) =>
                {
                    // The oldest stranger makes room; the rest wait in the backlog.
                    self.evict_greediest(now)?;
                    self.paused = Some(now + Duration::from_millis(100));
                    return Ok(());
                }
                // The connection was gone before we took it.
                Err(_) => {}
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
        if self.sources.is_full(from, limits) {
            return self.ask(&Question::TurnedAway(Complaint::NoSlot, from), Vec::new());
        }
        let _ = socket::prepare(socket.as_fd(), limits.keep_alive);
        let connection = self.next;
        self.next += 1;
        let deadline = now + Duration::from_secs(limits.hello.into());
        self.register(&socket, connection)?;
        self.sources.enter(from, connection);
        self.deadlines.insert((deadline, connection));
        self.strangers
            .insert(connection, Stranger::new(socket, from, now, deadline));
        self.crowd = self.crowd.max(self.strangers.len());
        self.stranger_is_ready(connection, now)
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
        self.strangers
            .get(&connection)
            .is_some_and(|s| s.stage.may_be_evicted())
    }

    fn evict_greediest(&mut self, now: Instant) -> Result<(), Fault> {
        let oldest = self.sources.by_greed().find(|c| self.may_go(*c));
        match oldest {
            Some(oldest) => self.turn_out(oldest, Complaint::Crowd, now),
            None => Ok(()),
        }
    }

    fn stranger_is_ready(&mut self, connection: Connection, now: Instant) -> Result<(), Fault> {
        let Some(stranger) = self.strangers.get_mut(&connection) else {
            return Ok(());
        };
        if !stranger.flush() {
            return self.forget(connection);
        }
        match stranger.read() {
            Came::Nothing => Ok(()),
            Came::Record(record) => self.ask_about(connection, &record, now),
            Came::Left if stranger.has_spoken() && stranger.stage.due().is_some() => {
                self.turn_out(connection, Complaint::Left, now)
            }
            Came::Left => self.forget(connection),
            Came::Malformed => self.turn_out(connection, Complaint::Malformed, now),
        }
    }

    /// Carries a record to the monitor, unopened.
    fn ask_about(
        &mut self,
        connection: Connection,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(stranger) = self.strangers.get_mut(&connection) else {
            return Ok(());
        };
        let stage = std::mem::replace(&mut stranger.stage, Stage::Asking);
        stranger.known = true;
        match stage {
            Stage::Accepted => {
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::Hello(connection, record), Vec::new())
            }
            Stage::Greeted => {
                stranger.asked_at = now;
                let copy = stranger.socket.try_clone()?;
                self.postpone(connection, now + VERDICT);
                self.ask(&Question::ClientHello(connection, record), vec![copy])
            }
            Stage::Asked => {
                // More may come at once: the deadline stays.
                stranger.stage = Stage::Asked;
                self.ask(&Question::Sealed(connection, record), Vec::new())?;
                self.stranger_is_ready(connection, now)
            }
            Stage::Asking | Stage::Parked | Stage::Leaving => Ok(()),
        }
    }

    pub(super) fn ask(&mut self, question: &Question<'_>, fds: Vec<OwnedFd>) -> Result<(), Fault> {
        self.monitor.send(question.encode(), fds)
    }

    pub(super) fn postpone(&mut self, connection: Connection, deadline: Instant) {
        if let Some(s) = self.strangers.get_mut(&connection) {
            self.deadlines.remove(&(s.deadline, connection));
            s.deadline = deadline;
            self.deadlines.insert((deadline, connection));
        }
    }

    /// Does what the monitor says.
    pub(super) fn obey(
        &mut self,
        order: Order<'_>,
        fds: Vec<OwnedFd>,
        now: Instant,
    ) -> Result<(), Fault> {
        match order {
            Order::Limits(limits) => self.limits = Some(limits),
            Order::Networks(list, first, networks) => {
                let list = match list {
                    List::Listed => &mut self.sources.listed,
                    List::Exempt => &mut self.sources.exempt,
                };
                if first {
                    *list = Networks::default();
                }
                for (ip, prefix) in networks {
                    list.add(ip, prefix);
                }
            }
            Order::Listen => self.listen(fds)?,
            Order::StopListening => self.listeners.clear(),
            Order::Adopt => self.adopt(fds, now)?,
            Order::ServerHello(c, record) => {
                self.send_and_expect(c, record, Stage::Greeted, now)?
            }
            Order::Continue(c, record) => self.send_and_expect(c, record, Stage::Asked, now)?,
            Order::Taken(c) | Order::Close(c) => {
                if let Some(s) = self.strangers.get_mut(&c) {
                    s.known = false;
                }
                self.forget(c)?;
            }
            Order::Deny(c, reference, penalty) => self.park(c, reference, penalty, now)?,
        }
        Ok(())
    }

    fn listen(&mut self, fds: Vec<OwnedFd>) -> Result<(), Fault> {
        for fd in fds {
            let listener = TcpListener::from(fd);
            let token = Token(self.listeners.len() + 1);
            let fd = listener.as_raw_fd();
            self.registry
                .register(&mut SourceFd(&fd), token, Interest::READABLE)?;
            self.listeners.push(listener);
        }
        Ok(())
    }

    fn adopt(&mut self, fds: Vec<OwnedFd>, now: Instant) -> Result<(), Fault> {
        let Some(limits) = self.limits else {
            return Ok(());
        };
        for socket in fds {
            let from = socket::peer(socket.as_fd())?.ip();
            self.take_in(socket, from, &limits, now)?;
        }
        Ok(())
    }

    fn send_and_expect(
        &mut self,
        connection: Connection,
        record: &[u8],
        stage: Stage,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(limits) = self.limits else {
            return Ok(());
        };
        let Some(stranger) = self.strangers.get_mut(&connection) else {
            return Ok(());
        };
        if stage == Stage::Greeted && stranger.spoke_early() {
            return self.turn_out(connection, Complaint::Malformed, now);
        }
        stranger.stage = stage;
        stranger.unsent = record.to_vec();
        self.postpone(
            connection,
            now + Duration::from_secs(limits.handshake.into()),
        );
        self.stranger_is_ready(connection, now)
    }
}
