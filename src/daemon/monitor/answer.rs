//! How the monitor answers each of the gate's questions. The path of a request, top to bottom:
//!
//! `Greeted` → `Opened` → (the doors, [`super::doors`]: `Admitted` → `AuthenticatedHost` → `Known`)
//! → (the rest of a long command) → `Granted` → (the account) → `Running` → the relay.
//!
//! Runs in the monitor.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Monitor;
use super::accounts::Known as User;
use super::look_ups::LookUp;
use super::preauth::{Acceptance, Asked, Pending, Preauth, Reject};
use super::refuse::{Checked, LEFT};
use super::sessions::shares::Holder;
use super::talk::Talk;
use crate::auth::hash::{self, ProofContext};
use crate::auth::policy;
use crate::auth::{AuthenticatedHost, Greeted, NotGreeted, Opened};
use crate::ipc::gate::{Complaint, Connection, Order, Question};
use crate::log::Level;
use crate::protocol::answer::Answer;
use crate::protocol::prompt::Text;
use crate::protocol::record::{self, Kind};
use crate::protocol::{Malformed, limits};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Admitted, Known, Machine as _};
use crate::sys::account::UserRecord;
use crate::sys::socket;

impl Monitor {
    /// Logs a step of a request, for `-d`.
    pub(super) fn step(&mut self, what: &str, pairs: &[(&str, &dyn std::fmt::Display)]) {
        self.log.say(Level::Debug, what, pairs);
    }

    /// Answers one question of the gate.
    pub(super) fn answer(&mut self, question: &Question<'_>, fds: Vec<OwnedFd>, now: Instant) {
        match *question {
            Question::Hello(c, from, record) => self.greet(c, from, record),
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
            Question::Left(c) => self.handle_left(c),
            Question::Empty => self.gate_is_empty = true,
            Question::TurnedAway(why, from) => {
                let pairs: [(&str, &dyn std::fmt::Display); 2] =
                    [("peer", &from), ("cause", &why.name())];
                if why != Complaint::Probe {
                    self.log.log_ratelimited(Level::Warning, "closed", &pairs);
                }
            }
        }
    }

    /// Handles a Hello: draws a nonce, and does nothing else.
    fn greet(&mut self, c: Connection, from: IpAddr, record: &[u8]) {
        let full = self.unauthenticated.len() >= self.settings.limits.silent.saturating_mul(2);
        if full || self.unauthenticated.contains_key(&c) {
            self.forget(c);
            return self.close(c, "a second hello, or too many connections", Some(from));
        }
        match Greeted::new(record, &self.host) {
            Ok(greeted) => {
                self.step("hello", &[("connection", &c), ("peer", &from)]);
                let order = Order::ServerHello(c, greeted.server_hello()).encode();
                self.unauthenticated
                    .insert(c, Preauth::Greeted(Box::new(greeted)));
                self.send_to_gate(order);
                self.doors.prepare();
                self.prepare_look_up(from);
            }
            Err(NotGreeted::Malformed(m)) => self.close(c, m.0, Some(from)),
            Err(NotGreeted::Fault(e)) => {
                self.log.say(Level::Error, "fault", &[("why", &e)]);
                self.close(c, "no random bytes", Some(from));
            }
        }
    }

    /// Handles a ClientHello: opens it, and then asks the doors.
    fn decide(
        &mut self,
        c: Connection,
        record: &[u8],
        socket: Option<OwnedFd>,
        now: Instant,
    ) -> Result<(), Reject> {
        let Some(Preauth::Greeted(greeted)) = self.unauthenticated.remove(&c) else {
            return Err(Reject::Closed("a ClientHello out of turn", None));
        };
        // The kernel drops a descriptor that does not fit our limit: the shortage is ours, not the
        // peer's fault.
        let lost = || {
            let words = "no descriptor was left for its socket (limit of open files)";
            Refusal::new(Cause::Busy, words).from_unauthenticated(true)
        };
        let socket = socket.ok_or_else(lost)?;
        if !socket::is_stream(socket.as_fd()) {
            return Err(Reject::Closed("a ClientHello with another socket", None));
        }
        let peer = socket::peer(socket.as_fd());
        let peer = peer.map_err(|_| Reject::Closed("the peer has disconnected", None))?;
        if socket::has_bytes(socket.as_fd()) {
            return Err(Reject::Closed(
                "bytes behind a ClientHello",
                Some(peer.ip()),
            ));
        }
        let prepared = self.key_cache.take();
        let opened = greeted.open(record, &self.host, prepared).map_err(|r| {
            self.look_up_dummy(now);
            r.of(peer.ip())
        })?;
        self.key_cache.opened(&self.host.public, opened.machine());
        self.step("opened", &[("connection", &c), ("peer", &peer)]);
        self.arrive(c, opened, socket, peer.ip(), now)
    }

    /// Verifies an admitted host against HOSTINFO and its cookie.
    pub(super) fn authenticate_host(
        &mut self,
        admitted: Admitted<Opened>,
        peer: IpAddr,
    ) -> Result<AuthenticatedHost, Refusal> {
        let table = self
            .hosts
            .table()
            .map_err(|e| Refusal::new(Cause::NoHostinfo, e))?;
        // Check the folders above cookies and keys once for this proof.
        let paths = self.paths.clone().once();
        let authenticated = hash::authenticate_host(
            admitted,
            &ProofContext {
                table,
                resolved: &|name| self.hosts.addresses_of(name),
                paths: &paths,
                name: &self.settings.name,
                host_key: &self.host.public,
                shared: &|machine| self.key_cache.agree(&self.host, machine),
                peer,
            },
        )
        .map_err(Refusal::worked_out)?;
        self.key_cache
            .authenticated(&self.host.public, authenticated.machine());
        if authenticated.is_newly_recorded() {
            let host = &authenticated.caller().name;
            self.log.say(
                Level::Info,
                "machine-recorded",
                &[("host", host), ("peer", &peer)],
            );
        }
        Ok(authenticated)
    }

    /// Sends AuthContinue: the client is admitted, but its command does not fit the ClientHello.
    pub(super) fn ask_for_command(
        &mut self,
        c: Connection,
        mut known: Known<AuthenticatedHost>,
        socket: OwnedFd,
        talk: Option<Box<Talk>>,
        welcome: Vec<Text>,
        length: u32,
    ) -> Result<(), Reject> {
        let payload = Answer::SendCommand.encode()?;
        let (talk, record) = match talk {
            Some(mut talk) => {
                let record = talk.seal(&payload)?;
                (*talk, record)
            }
            None => {
                let (message, keys) = known.inner_mut().message_2(&payload)?;
                (Talk::new(&keys)?, record::compose(Kind::Answer, &message)?)
            }
        };
        let order = Order::Continue(c, length, &record).encode();
        self.step("long-command", &[("connection", &c), ("length", &length)]);
        let length = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(limits::COMMAND);
        let asked = Asked {
            known,
            socket,
            talk,
            welcome,
            encoding: Vec::new(),
            length,
        };
        self.unauthenticated
            .insert(c, Preauth::Asked(Box::new(asked)));
        self.send_to_gate(order);
        Ok(())
    }

    /// Takes a piece of a long command; the last one continues the request.
    fn take_piece(&mut self, c: Connection, record: &[u8], now: Instant) -> Result<(), Reject> {
        let preauth = self.unauthenticated.remove(&c);
        if let Some(Preauth::LoggingIn(id)) = preauth {
            self.unauthenticated.insert(c, Preauth::LoggingIn(id));
            return self.take_answers(id, record, now);
        }
        if let Some(Preauth::AtDoor(admission)) = preauth {
            return self.take_applicants_answer(c, admission, record, now);
        }
        let Some(Preauth::Asked(mut asked)) = preauth else {
            // It was on its way when its connection was refused.
            self.unauthenticated.extend(preauth.map(|s| (c, s)));
            return Ok(());
        };
        let peer = asked.known.inner().peer();
        let refuse = |m: Malformed| Refusal::new(Cause::Request, m).of(peer);
        let piece = asked.talk.open(record).map_err(refuse)?;
        asked.encoding.extend_from_slice(&piece);
        if piece.is_empty() || asked.encoding.len() > asked.length {
            return Err(refuse(Malformed("a command of another length than announced")).into());
        }
        if asked.encoding.len() < asked.length {
            self.unauthenticated.insert(c, Preauth::Asked(asked));
            return Ok(());
        }
        if socket::has_bytes(asked.socket.as_fd()) {
            return Err(Reject::Closed("bytes behind a command", Some(peer)));
        }
        let Asked {
            known,
            socket,
            talk,
            welcome,
            encoding,
            ..
        } = *asked;
        let known = hash::with_command(known, &encoding).map_err(|r| r.of(peer))?;
        let acceptance = Acceptance::Talk(Box::new(talk));
        self.grant(c, known, socket, acceptance, welcome, now)
    }

    /// Applies the policy, then looks up the account.
    pub(super) fn grant(
        &mut self,
        connection: Connection,
        known: Known<AuthenticatedHost>,
        socket: OwnedFd,
        acceptance: Acceptance,
        welcome: Vec<Text>,
        now: Instant,
    ) -> Result<(), Reject> {
        let from = known.inner().peer();
        let program = self.subsystem_of(known.inner().request());
        let granted = policy::grant(known, program, self.accounts.serves());
        let granted = granted.map_err(|r| r.of(from))?;
        if let Some(why) = self.cannot_start_for(&Holder::of(granted.authenticated())) {
            return Err(Refusal::new(Cause::Busy, why).of(from).into());
        }
        let user = granted.service().user.clone();
        self.step("granted", &[("connection", &connection), ("user", &user)]);
        let pending = Pending {
            connection,
            granted,
            socket,
            acceptance,
            welcome,
        };
        let registry = self.poll.registry();
        let found = self
            .accounts
            .find(&mut self.look_ups, registry, user.as_str(), now);
        match found {
            User::User(record) => self.start(pending, &record, now),
            User::Looking(which) => {
                self.step("look-up", &[("connection", &connection), ("user", &user)]);
                self.unauthenticated
                    .insert(connection, Preauth::Waiting(which));
                self.pending.entry(which).or_default().push(pending);
                Ok(())
            }
            User::Busy(why) => Err(Refusal::new(Cause::Busy, why).of(from).into()),
        }
    }

    /// Returns why no job may be started now, if so.
    pub(super) fn cannot_start(&self) -> Option<&'static str> {
        let sessions = self.sessions.len() + self.logins.detached_count();
        if sessions >= self.settings.limits.sessions {
            return Some("too many sessions");
        }
        if self.inetd.is_none() && sessions >= self.room {
            return Some("too many sessions for the limit of open files");
        }
        // A client that was greeted before SIGTERM is new all the same.
        if self.stopping.is_some() {
            return Some("the daemon is stopping");
        }
        // Without a relay a command must not even begin.
        if self.relay.channel().is_none() {
            return Some("the relay has died and is being restarted");
        }
        None
    }

    /// Does the same, including the shares of these holders.
    pub(super) fn cannot_start_for(&self, holders: &[Holder]) -> Option<String> {
        let why = self.cannot_start().map(str::to_owned);
        why.or_else(|| self.has_its_share(holders))
    }

    /// Handles the end of a user's look-up.
    pub(super) fn user_found(
        &mut self,
        which: LookUp,
        found: Result<Option<&UserRecord>, &str>,
        now: Instant,
    ) {
        let (found, unusable) = found.map_or_else(|why| (None, Some(why)), |found| (found, None));
        self.accounts.heard(which, found, now);
        self.accounts.look_again(&mut self.look_ups);
        self.caller_found(which, found.map(|record| &record.account));
        for pending in self.pending.remove(&which).unwrap_or_default() {
            let connection = pending.connection;
            self.unauthenticated.remove(&connection);
            let peer = pending.granted.authenticated().peer();
            let holders = Holder::of(pending.granted.authenticated());
            let outcome = match (found, self.cannot_start_for(&holders)) {
                (_, Some(why)) => Err(Refusal::new(Cause::Busy, why).of(peer).into()),
                (Some(record), None) => self.start(pending, record, now),
                (None, None) => {
                    let user = &pending.granted.service().user;
                    let words = match unusable {
                        Some(why) => format!("user {user} cannot be used: {why}"),
                        None => format!("there is no user {user}, or it was not found in time"),
                    };
                    Err(Refusal::new(Cause::Account, words).of(peer).into())
                }
            };
            self.conclude(connection, outcome);
        }
    }

    /// Handles the outcome of a step.
    pub(super) fn conclude(&mut self, c: Connection, outcome: Result<(), Reject>) {
        match outcome {
            Ok(()) => {}
            Err(Reject::Closed(why, peer)) => self.close(c, why, peer),
            Err(Reject::Left(peer)) => self.part(Some(c), peer, LEFT, &Checked::default()),
            Err(Reject::Refused(refusal)) => self.refuse(c, &refusal),
        }
    }
}
