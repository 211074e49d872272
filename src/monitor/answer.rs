//! The verdict: what the monitor says to each of the gate's questions. The whole
//! walk of a request is here, top to bottom:
//!
//! `Greeted` → `Opened` → `Proven` → (the rest of a long command) → `Granted` →
//! (the account) → `Running` → the relay.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::accounts::{Found, LookUp};
use super::sessions::Whose;
use super::{Monitor, token};
use crate::channel::Channel;
use crate::channel::gate::{Connection, Order, Question};
use crate::channel::relay::Session;
use crate::credential::hash::{self, Against};
use crate::credential::{Greeted, NotGreeted, Opened, Proven};
use crate::log::Level;
use crate::policy::{self, Exec, Granted};
use crate::refusal::{Cause, Refusal};
use crate::secret;
use crate::service::exec::{self, Running, Setting};
use crate::sys::account::Account;
use crate::sys::socket;
use crate::wire::answer::{Answer, Reference};
use crate::wire::noise::Keys;
use crate::wire::record::{self, Kind};
use crate::wire::request::Command;
use crate::wire::seal::{Opener, Sealer};
use crate::wire::{Malformed, limits};

/// A stranger, as far as the monitor knows him.
pub(super) enum Stranger {
    /// The ServerHello is out.
    Greeted(Box<Greeted>),
    /// Proven; the rest of a long command is coming.
    Asked(Box<Asked>),
    /// Granted; the account is being looked up.
    Waiting(LookUp),
}

/// A proven caller whose command is still coming.
pub(super) struct Asked {
    proven: Proven,
    socket: OwnedFd,
    talk: Talk,
    encoding: Vec<u8>,
    length: usize,
}

/// A conversation that goes on after message 2.
struct Talk {
    keys: Keys,
    sealer: Sealer,
    opener: Opener,
}

/// How the connection will be told that it is accepted.
enum Acceptance {
    /// By message 2, which is still to be made.
    Message2,
    /// By the next record of a conversation.
    Talk(Box<Talk>),
}

/// A granted request that waits for its account.
pub(super) struct Pending {
    connection: Connection,
    granted: Granted<Exec>,
    socket: OwnedFd,
    acceptance: Acceptance,
}

/// What a step came to, when the walk did not end in a running job.
enum Halt {
    /// Refused: the peer hears `denied`, the log why.
    Refused(Refusal),
    /// Something that must not be answered at all.
    Closed(&'static str),
}

impl From<Refusal> for Halt {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<Malformed> for Halt {
    fn from(m: Malformed) -> Self {
        Self::Refused(Refusal::new(Cause::Handshake, m))
    }
}

impl Monitor {
    /// Answers one question of the gate.
    pub(super) fn answer(&mut self, question: &Question<'_>, fds: Vec<OwnedFd>, now: Instant) {
        match *question {
            Question::Hello(c, record) => self.greet(c, record),
            Question::ClientHello(c, record) => {
                let socket = fds.into_iter().next();
                let outcome = self.decide(c, record, socket, now);
                self.conclude(c, outcome);
            }
            Question::Sealed(c, record) => {
                let outcome = self.take_piece(c, record, now);
                self.conclude(c, outcome);
            }
            Question::Gone(c) => self.forget(c),
            Question::Empty => self.gate_is_empty = true,
            Question::TurnedAway(why, from) => {
                let pairs: [(&str, &dyn std::fmt::Display); 2] =
                    [("peer", &from), ("cause", &why.name())];
                self.log.say_noise(Level::Warning, "turned-away", &pairs);
            }
        }
    }

    /// Hello: a nonce is drawn, and nothing else happens.
    fn greet(&mut self, c: Connection, record: &[u8]) {
        let full = self.strangers.len() >= self.settings.limits.silent.saturating_mul(2);
        if full || self.strangers.contains_key(&c) {
            return self.close(c, "a gate that greets twice, or too many");
        }
        match Greeted::new(record, &self.host) {
            Ok(greeted) => {
                let order = Order::ServerHello(c, greeted.server_hello()).encode();
                self.strangers
                    .insert(c, Stranger::Greeted(Box::new(greeted)));
                self.tell_gate(order);
            }
            Err(NotGreeted::Malformed(m)) => self.close(c, m.0),
            Err(NotGreeted::Fault(e)) => {
                self.log.say(Level::Error, "fault", &[("why", &e)]);
                self.close(c, "no random bytes");
            }
        }
    }

    /// ClientHello: opened, proven, and granted or asked for more.
    fn decide(
        &mut self,
        c: Connection,
        record: &[u8],
        socket: Option<OwnedFd>,
        now: Instant,
    ) -> Result<(), Halt> {
        let Some(Stranger::Greeted(greeted)) = self.strangers.remove(&c) else {
            return Err(Halt::Closed("a ClientHello out of turn"));
        };
        let socket = socket.filter(|s| socket::is_stream(s.as_fd()));
        let socket = socket.ok_or(Halt::Closed("a ClientHello without its socket"))?;
        let peer = socket::peer(socket.as_fd()).map_err(|_| Halt::Closed("the peer has left"))?;
        if socket::has_bytes(socket.as_fd()) {
            return Err(Halt::Closed("bytes behind a ClientHello"));
        }
        let prepared = self.stock.take();
        let opened = greeted
            .open(record, &self.host, prepared)
            .map_err(|r| r.of(peer.ip()))?;
        let proven = self.prove(opened, peer.ip()).map_err(|r| r.of(peer.ip()))?;
        if let Command::Follows { length, .. } = proven.request().command {
            return self.ask_for_command(c, proven, socket, length);
        }
        self.grant(c, proven, socket, Acceptance::Message2, now)
    }

    fn prove(&mut self, opened: Opened, peer: std::net::IpAddr) -> Result<Proven, Refusal> {
        self.refresh_hosts();
        let table = self
            .hosts
            .table()
            .map_err(|e| Refusal::new(Cause::NoHostinfo, e))?;
        let proven = hash::prove(
            opened,
            &Against {
                table,
                resolved: &|name| self.hosts.addresses_of(name),
                place: &self.place,
                name: &self.settings.name,
                host_key: &self.host.public,
                peer,
            },
        )?;
        self.stock.proven(&self.host.public, proven.machine());
        if proven.is_newly_recorded() {
            let host = &proven.caller().name;
            self.log.say(
                Level::Info,
                "machine-recorded",
                &[("host", host), ("peer", &peer)],
            );
        }
        Ok(proven)
    }

    /// AuthContinue: the caller is proven, its command too long for the greeting.
    fn ask_for_command(
        &mut self,
        c: Connection,
        mut proven: Proven,
        socket: OwnedFd,
        length: u32,
    ) -> Result<(), Halt> {
        let (message, keys) = proven.message_2(&Answer::SendCommand.encode()?)?;
        let record = record::compose(Kind::Answer, &message)?;
        let sealer = Sealer::new(keys.suite, &keys.to_client)?;
        let opener = Opener::new(keys.suite, &keys.to_server)?;
        let length = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(limits::COMMAND);
        let talk = Talk {
            keys,
            sealer,
            opener,
        };
        let asked = Asked {
            proven,
            socket,
            talk,
            encoding: Vec::new(),
            length,
        };
        self.strangers.insert(c, Stranger::Asked(Box::new(asked)));
        self.tell_gate(Order::Continue(c, &record).encode());
        Ok(())
    }

    /// A piece of a long command; with the last one the walk goes on.
    fn take_piece(&mut self, c: Connection, record: &[u8], now: Instant) -> Result<(), Halt> {
        let Some(Stranger::Asked(mut asked)) = self.strangers.remove(&c) else {
            return Err(Halt::Closed("a piece of a command out of turn"));
        };
        let mut body = record::parse(record, &[Kind::Sealed])?.content.to_vec();
        let piece = asked.talk.opener.open(&mut body)?;
        asked.encoding.extend_from_slice(piece);
        if piece.is_empty() || asked.encoding.len() > asked.length {
            return Err(Malformed("a command of another length than was said").into());
        }
        if asked.encoding.len() < asked.length {
            self.strangers.insert(c, Stranger::Asked(asked));
            return Ok(());
        }
        let Asked {
            proven,
            socket,
            mut talk,
            encoding,
            ..
        } = *asked;
        let peer = proven.peer();
        let proven = proven.with_command(&encoding).map_err(|r| r.of(peer))?;
        talk.keys.to_server.counter = talk.opener.counter();
        self.grant(c, proven, socket, Acceptance::Talk(Box::new(talk)), now)
    }

    /// Policy, then the account.
    fn grant(
        &mut self,
        connection: Connection,
        proven: Proven,
        socket: OwnedFd,
        acceptance: Acceptance,
        now: Instant,
    ) -> Result<(), Halt> {
        let from = proven.peer();
        let granted = policy::grant(proven, self.accounts.serves()).map_err(|r| r.of(from))?;
        if self.sessions.len() >= self.settings.limits.sessions {
            return Err(Refusal::new(Cause::Busy, "too many sessions")
                .of(from)
                .into());
        }
        let user = granted.service().user.clone();
        let pending = Pending {
            connection,
            granted,
            socket,
            acceptance,
        };
        match self.accounts.find(user.as_str(), now) {
            Found::Account(account) => self.start(pending, &account, now),
            Found::Looking(which) => {
                self.watch_look_up(which);
                self.strangers.insert(connection, Stranger::Waiting(which));
                self.pending.insert(which, pending);
                Ok(())
            }
            Found::Busy => Err(Refusal::new(Cause::Busy, "too many account look-ups")
                .of(from)
                .into()),
        }
    }

    /// A look-up has something to say.
    pub(super) fn account_found(&mut self, which: LookUp, now: Instant) {
        let Some(found) = self.accounts.hear(which, now) else {
            return;
        };
        let Some(pending) = self.pending.remove(&which) else {
            return;
        };
        let connection = pending.connection;
        self.strangers.remove(&connection);
        let outcome = match found {
            Some(account) => self.start(pending, &account, now),
            None => {
                let user = &pending.granted.service().user;
                let words = format!("there is no user {user}, or it was not found in time");
                Err(Refusal::new(Cause::Account, words)
                    .of(pending.granted.proven().peer())
                    .into())
            }
        };
        self.conclude(connection, outcome);
    }

    /// Starts the job, accepts the connection, and gives both to the relay.
    fn start(&mut self, mut pending: Pending, account: &Account, now: Instant) -> Result<(), Halt> {
        let setting = Setting {
            path: &self.settings.exec.path,
            becomes_user: self.accounts.serves().is_none(),
            limits: self.inherited,
        };
        // The job first: it starts while we do the handshake's arithmetic.
        let running = exec::start(&pending.granted, account, &setting)
            .map_err(|r| r.of(pending.granted.proven().peer()))?;
        let id = self.sessions.next_id();
        self.log_start(id, &pending.granted, account);
        match accept(&mut pending) {
            Ok((answer, keys)) => {
                self.hand_over(pending, running, answer, keys, now);
                Ok(())
            }
            Err(m) => {
                crate::sys::process::signal_group(running.pid, nix::sys::signal::Signal::SIGKILL);
                self.corpses.push(running.pid);
                Err(m.into())
            }
        }
    }

    fn hand_over(
        &mut self,
        pending: Pending,
        running: Running,
        answer: Vec<u8>,
        keys: Keys,
        now: Instant,
    ) {
        let proven = pending.granted.proven();
        let whose = Whose {
            host: proven.caller().name.to_string(),
            user: pending.granted.service().user.to_string(),
            peer: proven.peer(),
        };
        let linger = u32::try_from(self.settings.exec.linger.as_millis()).unwrap_or(u32::MAX);
        let session = Session {
            answer,
            keys,
            linger,
        };
        let pair = Channel::pair();
        let added = pair.and_then(|(ours, theirs)| {
            self.sessions
                .add(self.poll.registry(), whose, running.pid, ours, now)?;
            Ok(theirs)
        });
        match added {
            Ok(theirs) => {
                let Running {
                    stdin,
                    stdout,
                    stderr,
                    ..
                } = running;
                let fds = vec![pending.socket, theirs, stdin, stdout, stderr];
                // Should the relay be dead, the descriptors go, and the session's
                // channel ends: the job is hung up by the same path as always.
                self.tell_relay(session.encode(), fds);
            }
            Err(e) => {
                self.log.say(Level::Error, "fault", &[("why", &e)]);
                crate::sys::process::signal_group(running.pid, nix::sys::signal::Signal::SIGKILL);
                self.corpses.push(running.pid);
            }
        }
        self.tell_gate(Order::Taken(pending.connection).encode());
    }

    fn log_start(&mut self, id: u64, granted: &Granted<Exec>, account: &Account) {
        let proven = granted.proven();
        let (host, caller) = (&proven.caller().name, &proven.request().caller_user);
        let command = match &proven.request().command {
            Command::Words(words) => shown(&words.join(&b' ')),
            Command::Follows { .. } => String::new(),
        };
        let peer = proven.peer();
        self.log.say(
            Level::Info,
            "exec",
            &[
                ("session", &id),
                ("host", host),
                ("peer", &peer),
                ("user", &account.name),
                ("caller", caller),
                ("command", &command),
            ],
        );
    }

    /// What a walk came to that did not end in a running job.
    fn conclude(&mut self, c: Connection, outcome: Result<(), Halt>) {
        match outcome {
            Ok(()) => {}
            Err(Halt::Closed(why)) => self.close(c, why),
            Err(Halt::Refused(refusal)) => self.refuse(c, &refusal),
        }
    }

    fn refuse(&mut self, c: Connection, refusal: &Refusal) {
        self.strangers.remove(&c);
        let Ok(reference) = secret::random().map(Reference) else {
            return self.close(c, "no random bytes");
        };
        let peer = refusal
            .peer
            .map_or_else(|| "?".to_owned(), |p| p.to_string());
        self.log.say_noise(
            Level::Warning,
            "denied",
            &[
                ("ref", &reference.to_hex()),
                ("peer", &peer),
                ("cause", &refusal.cause.name()),
                ("why", &refusal.words),
            ],
        );
        let penalty = &self.settings.penalties.authfail;
        let seconds = if refusal.cause.is_unproven() {
            penalty.as_secs()
        } else {
            0
        };
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.tell_gate(Order::Deny(c, reference, seconds).encode());
    }

    fn close(&mut self, c: Connection, why: &str) {
        self.strangers.remove(&c);
        self.log.say_noise(
            Level::Warning,
            "closed",
            &[("cause", &"malformed"), ("why", &why)],
        );
        self.tell_gate(Order::Close(c).encode());
    }

    fn forget(&mut self, c: Connection) {
        if let Some(Stranger::Waiting(which)) = self.strangers.remove(&c) {
            // The look-up goes on, for the next who asks.
            self.pending.remove(&which);
        }
    }

    fn watch_look_up(&mut self, which: LookUp) {
        use mio::unix::SourceFd;
        use std::os::fd::AsRawFd;
        if let Some(helper) = self.accounts.helper(which) {
            let fd = helper.answer.as_raw_fd();
            let interest = mio::Interest::READABLE;
            let token = token::look_up(which);
            let _ = self
                .poll
                .registry()
                .register(&mut SourceFd(&fd), token, interest);
        }
    }
}

/// The record that accepts the connection, and its keys.
fn accept(pending: &mut Pending) -> Result<(Vec<u8>, Keys), Malformed> {
    let proven = pending.granted.proven_mut();
    let payload = proven.acceptance()?;
    match std::mem::replace(&mut pending.acceptance, Acceptance::Message2) {
        Acceptance::Message2 => {
            let (message, keys) = proven.message_2(&payload)?;
            Ok((record::compose(Kind::Answer, &message)?, keys))
        }
        Acceptance::Talk(mut talk) => {
            let mut text = payload;
            let tag = talk.sealer.seal(&mut text)?;
            text.extend_from_slice(&tag);
            talk.keys.to_client.counter = talk.sealer.counter();
            Ok((record::compose(Kind::Sealed, &text)?, talk.keys))
        }
    }
}

/// What a log shows of a command: its first 200 bytes.
fn shown(command: &[u8]) -> String {
    const MOST: usize = 200;
    let mut text = String::from_utf8_lossy(command.get(..MOST).unwrap_or(command)).into_owned();
    if command.len() > MOST {
        text.push('…');
    }
    text
}
