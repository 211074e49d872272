//! One connection's path, top to bottom:
//!
//! 1. `greet`: Hello → `Greeted`.
//! 2. `open`: ClientHello → `Opened`. The registry is asked about the machine of the handshake.
//! 3. `after_registry`: the registry has answered. The outer door → `Admitted` ([`awaited`]: the host's name
//!    may have to be resolved first).
//! 4. `authenticate`: what the client presents → `AuthenticatedHost`, `LoginClaim` or
//!    `AuthenticatedMachine`.
//! 5. `at_inner_door`: allowed, denied, or its user is prompted ([`prompt`]), whose answer registers
//!    the machine.
//! 6. `after_doors` → `Known`: a user who logs in goes on in [`super::login`], a registration ends in
//!    [`enrol`]. The rest of a long command is taken.
//! 7. `grant`: the policy → `Granted`. The account is looked up.
//! 8. [`begin`]: the job is started, the connection is accepted and handed over to the relay.
//!
//! Each step consumes the state before it. One that waits leaves its state in
//! `Monitor::unauthenticated`; [`registry_answers`], a piece of a command, an answer, or the account
//! resumes it. One that fails ends the connection by `conclude`.
//!
//! Runs in the monitor. Decides by itself only what comes next: `auth`, `registry` and `policy`
//! decide the rest. Must not wait.

pub(super) mod admission;
pub(super) mod awaited;
mod begin;
mod enrol;
mod excluded;
pub(super) mod guesses;
mod handover;
mod prompt;
mod registry_answers;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Monitor;
use super::accounts::Known as User;
use super::conversation::Conversation;
use super::logins::LoginSubject;
use super::look_ups::LookUp;
use super::preauth::{Acceptance, Asked, Pending, Preauth, Reject};
use super::refuse::{Checked, LEFT};
use super::sessions::shares::Holder;
use crate::auth::hash::{self, ProofContext};
use crate::auth::policy;
use crate::auth::{
    self, AuthenticatedHost, AuthenticatedMachine, Greeted, LoginClaim, NotGreeted, Opened,
    PresentedCredential,
};
use crate::config::paths::Paths;
use crate::ipc::gate::{Connection, Order};
use crate::log::{log, log_ratelimited};
use crate::protocol::answer::Answer;
use crate::protocol::prompt::{Style, Text};
use crate::protocol::record::{self, Kind};
use crate::protocol::request::{Command, Service};
use crate::protocol::{Malformed, limits};
use crate::refusal::{Cause, Refusal};
use crate::registry::asked::{Answer as RegistryAnswer, Question};
use crate::registry::{
    self, AccessDecision, AdmissionPass, Admitted, Id, Known, Machine, MachineStatus, Name,
    RegistrationOutcome, RegistrationState,
};
use crate::sys::account::UserRecord;
use crate::sys::socket;
use admission::{Applicant, PendingAdmission, Step};

pub(super) use handover::Handover;

impl Monitor {
    // ---- hello, handshake ----

    /// Handles a Hello: draws a nonce, and does nothing else.
    pub(super) fn greet(&mut self, c: Connection, from: IpAddr, record: &[u8]) {
        let full = self.unauthenticated.len() >= self.settings.limits.silent.saturating_mul(2);
        if full || self.unauthenticated.contains_key(&c) {
            self.forget(c);
            return self.close(c, "a second hello, or too many connections", Some(from));
        }
        match Greeted::new(record, &self.host) {
            Ok(greeted) => {
                log!(self.log, Debug, "hello", connection = c, peer = from);
                let order = Order::ServerHello(c, greeted.server_hello()).encode();
                self.unauthenticated
                    .insert(c, Preauth::Greeted(Box::new(greeted)));
                self.send_to_gate(order);
                self.doors.prepare();
                self.prepare_look_up(from);
            }
            Err(NotGreeted::Malformed(m)) => self.close(c, m.0, Some(from)),
            Err(NotGreeted::Fault(e)) => {
                log!(self.log, Error, "fault", why = e);
                self.close(c, "no random bytes", Some(from));
            }
        }
    }

    /// Handles a ClientHello: opens it, and then asks the doors.
    pub(super) fn open(
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
        log!(self.log, Debug, "opened", connection = c, peer);
        self.arrive(c, opened, socket, peer.ip(), now)
    }

    /// Handles an opened handshake: queries the registry about its machine before it looks at
    /// anything else of it.
    pub(super) fn arrive(
        &mut self,
        c: Connection,
        opened: Opened,
        socket: OwnedFd,
        peer: IpAddr,
        now: Instant,
    ) -> Result<(), Reject> {
        let id = Id::of(opened.machine());
        let local = socket::local(socket.as_fd());
        let is_local = peer.is_loopback() || local.is_ok_and(|own| own.ip() == peer);
        let admission = PendingAdmission {
            socket,
            peer,
            is_local,
            step: Step::Arrives(Box::new(opened)),
            ticket: None,
            welcome: String::new(),
            has_left: false,
        };
        self.ask_registry(c, Box::new(admission), Question::Look(id), now)
    }

    // ---- outer door, credential, inner door ----

    /// Continues with the registry's answer.
    fn after_registry(
        &mut self,
        c: Connection,
        admission: PendingAdmission,
        told: RegistryAnswer,
        now: Instant,
    ) -> Result<(), Reject> {
        let PendingAdmission {
            socket,
            peer,
            is_local,
            step,
            ticket: _,
            welcome,
            has_left,
        } = admission;
        let admission = |step, welcome| {
            Box::new(PendingAdmission {
                socket,
                peer,
                is_local,
                step,
                ticket: None,
                welcome,
                has_left,
            })
        };
        match (step, told) {
            (_, RegistryAnswer::Fault(why)) => Err(Refusal::new(Cause::Registry, why).into()),
            (Step::Arrives(opened), RegistryAnswer::MachineStatus(status)) => {
                let admitted = Admitted::by(*opened, &status)?;
                log!(
                    self.log,
                    Debug,
                    "admitted",
                    connection = c,
                    machine = status.id
                );
                let welcome = status.welcome.clone();
                if let Some(name) = self.pending_name(&admitted, peer, now) {
                    let step = Step::AwaitsName(Box::new(admitted));
                    let admission = admission(step, welcome);
                    self.unauthenticated.insert(c, Preauth::AtDoor(admission));
                    self.await_name(c, name, peer, now);
                    return Ok(());
                }
                let applicant = self.authenticate(c, admitted, peer)?;
                let machine = applicant.machine();
                if machine == status.id {
                    let admission = admission(Step::VouchedFor(applicant), welcome);
                    return self.at_inner_door(c, admission, &status, now);
                }
                // A signer may vouch for a user with its own key: the inner door checks the host's
                // machine.
                let admission = admission(Step::VouchedFor(applicant), welcome);
                self.ask_registry(c, admission, Question::Look(machine), now)
            }
            (Step::VouchedFor(applicant), RegistryAnswer::MachineStatus(status)) => {
                if status.excluded {
                    let words = format!("machine {} is on the exclude list", status.id);
                    return Err(Refusal::new(Cause::Excluded, words).into());
                }
                let welcome = status.welcome.clone();
                let admission = admission(Step::VouchedFor(applicant), welcome);
                self.at_inner_door(c, admission, &status, now)
            }
            (
                Step::Registers(applicant, conversation),
                RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)),
            ) => {
                let id = pass.id();
                self.log_registered(id, &name, &peer);
                // Ask again: the manager may have closed the inner door to it during the
                // registration.
                let admission = admission(Step::Registered(applicant, conversation), welcome);
                self.ask_registry(c, admission, Question::Look(id), now)
            }
            (Step::Registered(applicant, conversation), RegistryAnswer::MachineStatus(status)) => {
                let is_host = applicant.host().is_some();
                let admission = admission(Step::Registered(applicant, conversation), welcome);
                match registry::decide(&status, is_host, is_local) {
                    AccessDecision::Allow(pass) => self.after_doors(c, *admission, &pass, now),
                    AccessDecision::Prompt(_) | AccessDecision::Deny(_) => {
                        let words = format!(
                            "machine {}: it was registered, and is denied now",
                            status.id
                        );
                        Err(Refusal::new(Cause::UnknownMachine, words).into())
                    }
                }
            }
            (
                Step::Registers(applicant, _),
                RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Wrong(why)),
            ) => {
                let words = format!("machine {}: {why}", applicant.machine());
                Err(Refusal::new(Cause::Activation, words).into())
            }
            (
                Step::Arrives(_)
                | Step::AwaitsName(_)
                | Step::VouchedFor(_)
                | Step::Prompted(..)
                | Step::Registers(..)
                | Step::Registered(..),
                RegistryAnswer::MachineStatus(_)
                | RegistryAnswer::RegistrationOutcome(_)
                | RegistryAnswer::Done,
            ) => Err(Refusal::new(
                Cause::Registry,
                "an unexpected answer from the registry process",
            )
            .into()),
        }
    }

    /// Continues once the host's name is resolved or has taken too long: verifies the proof, and asks
    /// the registry once more, which may have changed.
    fn after_name(
        &mut self,
        c: Connection,
        admission: PendingAdmission,
        now: Instant,
    ) -> Result<(), Reject> {
        let PendingAdmission { step, peer, .. } = admission;
        let Step::AwaitsName(admitted) = step else {
            return Ok(());
        };
        self.refresh_hosts();
        let applicant = self.authenticate(c, *admitted, peer)?;
        let machine = applicant.machine();
        let admission = PendingAdmission {
            step: Step::VouchedFor(applicant),
            ..admission
        };
        self.ask_registry(c, Box::new(admission), Question::Look(machine), now)
    }

    /// Authenticates what the outer door has admitted, as far as it can without PAM.
    fn authenticate(
        &mut self,
        c: Connection,
        admitted: Admitted<Opened>,
        peer: IpAddr,
    ) -> Result<Applicant, Reject> {
        match auth::presented_credential(&admitted).map_err(|r| r.of(peer))? {
            PresentedCredential::Password => {
                let login_claim = LoginClaim::new(admitted, peer)?;
                Ok(Applicant::LoginClaim(Box::new(login_claim)))
            }
            PresentedCredential::Machine => {
                let authenticated_machine = AuthenticatedMachine::new(admitted, peer)?;
                Ok(Applicant::AuthenticatedMachine(Box::new(
                    authenticated_machine,
                )))
            }
            PresentedCredential::Proof => {
                let authenticated = self
                    .authenticate_host(admitted, peer)
                    .map_err(|r| r.of(peer))?;
                let host = &authenticated.caller().name;
                log!(self.log, Debug, "proven", connection = c, host);
                if !matches!(authenticated.request().service, Service::Gui(_)) {
                    return Ok(Applicant::Exec(Box::new(authenticated)));
                }
                let user = policy::user_of(&authenticated, self.accounts.serves());
                let user = user.map_err(|r| r.of(peer))?;
                Ok(Applicant::Gui(Box::new(authenticated), user))
            }
        }
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
        .map_err(Refusal::with_work_done)?;
        self.key_cache
            .authenticated(&self.host.public, authenticated.machine());
        if authenticated.is_newly_recorded() {
            let host = &authenticated.caller().name;
            log!(self.log, Info, "machine-recorded", host, peer);
        }
        Ok(authenticated)
    }

    /// Applies the inner door's decision about the applicant's machine.
    fn at_inner_door(
        &mut self,
        c: Connection,
        admission: Box<PendingAdmission>,
        status: &MachineStatus,
        now: Instant,
    ) -> Result<(), Reject> {
        let Step::VouchedFor(applicant) = &admission.step else {
            return Err(Refusal::new(Cause::Registry, "no registration is pending").into());
        };
        match registry::decide(status, applicant.host().is_some(), admission.is_local) {
            AccessDecision::Allow(pass) => {
                self.note_admission(applicant, &pass, status, admission.is_local, now);
                self.after_doors(c, *admission, &pass, now)
            }
            AccessDecision::Prompt(want) => self.prompt_applicant(c, admission, want),
            AccessDecision::Deny(why) => {
                let remedy = remedy(&self.paths, status, applicant.host().is_some());
                let words = format!("machine {}: {why}; {remedy}", status.id);
                Err(Refusal::new(Cause::UnknownMachine, words).into())
            }
        }
    }

    /// Has the registry record what is new about an admitted machine. No connection waits for that.
    fn note_admission(
        &mut self,
        applicant: &Applicant,
        pass: &AdmissionPass,
        status: &MachineStatus,
        is_local: bool,
        now: Instant,
    ) {
        let id = pass.id();
        let question = match applicant
            .host()
            .map(|p| Name::parse(p.caller().name.as_str()))
        {
            Some(Ok(name)) if pass.introduce => Question::Introduce(id, name, !is_local),
            _ if status.state == (RegistrationState::Known { unseen: true }) => Question::Saw(id),
            _ => return,
        };
        if let Err(why) = self.doors.note(self.poll.registry(), question, now) {
            log_ratelimited!(self.log, Error, "registry", why);
        }
    }

    // ---- both doors have admitted it ----

    /// Continues with the request of an applicant that both doors have admitted.
    fn after_doors(
        &mut self,
        c: Connection,
        admission: PendingAdmission,
        pass: &AdmissionPass,
        now: Instant,
    ) -> Result<(), Reject> {
        let PendingAdmission {
            socket,
            peer,
            step,
            welcome,
            has_left,
            ..
        } = admission;
        if has_left {
            return Err(Reject::Left(peer));
        }
        let (applicant, conversation) = match step {
            Step::VouchedFor(applicant) => (applicant, None),
            Step::Registered(applicant, conversation) => (applicant, Some(conversation)),
            Step::Arrives(_) | Step::AwaitsName(_) | Step::Prompted(..) | Step::Registers(..) => {
                return Err(Refusal::new(Cause::Registry, "no admission is pending").into());
            }
        };
        let welcome = greeting(welcome);
        let of = |r: Refusal| r.of(peer);
        log!(
            self.log,
            Debug,
            "known",
            connection = c,
            machine = pass.id()
        );
        match applicant {
            Applicant::Exec(authenticated) => {
                let known = Known::by(*authenticated, pass).map_err(of)?;
                if let Command::Follows { length, .. } = known.inner().request().command {
                    return self.ask_for_command(c, known, socket, conversation, welcome, length);
                }
                let acceptance =
                    conversation.map_or(Acceptance::Message2, Acceptance::Conversation);
                self.grant(c, known, socket, acceptance, welcome, now)
            }
            Applicant::Gui(authenticated, user) => {
                let known = Known::by(authenticated, pass).map_err(of)?;
                self.begin_login(
                    c,
                    LoginSubject::Host(known, user),
                    socket,
                    conversation,
                    welcome,
                    now,
                )
            }
            Applicant::LoginClaim(login_claim) => {
                let known = Known::by(login_claim, pass).map_err(of)?;
                self.begin_login(
                    c,
                    LoginSubject::LoginClaim(known),
                    socket,
                    conversation,
                    welcome,
                    now,
                )
            }
            Applicant::AuthenticatedMachine(authenticated_machine) => {
                let known = Known::by(authenticated_machine, pass).map_err(of)?;
                self.accept_registration(c, known, socket, conversation, welcome, now)
            }
        }
    }

    /// Sends AuthContinue: the client is admitted, but its command does not fit the ClientHello.
    pub(super) fn ask_for_command(
        &mut self,
        c: Connection,
        mut known: Known<AuthenticatedHost>,
        socket: OwnedFd,
        conversation: Option<Box<Conversation>>,
        welcome: Vec<Text>,
        length: u32,
    ) -> Result<(), Reject> {
        let payload = Answer::SendCommand.encode()?;
        let (conversation, record) = match conversation {
            Some(mut conversation) => {
                let record = conversation.seal(&payload)?;
                (*conversation, record)
            }
            None => {
                let (message, keys) = known.inner_mut().message_2(&payload)?;
                (
                    Conversation::new(&keys)?,
                    record::compose(Kind::Answer, &message)?,
                )
            }
        };
        let order = Order::Continue(c, length, &record).encode();
        log!(self.log, Debug, "long-command", connection = c, length);
        let length = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(limits::COMMAND);
        let asked = Asked {
            known,
            socket,
            conversation,
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
    pub(super) fn take_piece(
        &mut self,
        c: Connection,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Reject> {
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
        let piece = asked.conversation.open(record).map_err(refuse)?;
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
            conversation,
            welcome,
            encoding,
            ..
        } = *asked;
        let known = hash::with_command(known, &encoding).map_err(|r| r.of(peer))?;
        let acceptance = Acceptance::Conversation(Box::new(conversation));
        self.grant(c, known, socket, acceptance, welcome, now)
    }

    // ---- authorization, account, start ----

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
        log!(self.log, Debug, "granted", connection, user);
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
                log!(self.log, Debug, "look-up", connection, user);
                self.unauthenticated
                    .insert(connection, Preauth::Waiting(which));
                self.pending.entry(which).or_default().push(pending);
                Ok(())
            }
            User::Busy(why) => Err(Refusal::new(Cause::Busy, why).of(from).into()),
        }
    }

    /// Handles the end of a user's look-up.
    pub(super) fn user_found(
        &mut self,
        which: LookUp,
        found: Result<Option<&UserRecord>, &str>,
        now: Instant,
    ) {
        let (found, unusable) = found.map_or_else(|why| (None, Some(why)), |found| (found, None));
        self.accounts.look_up_ended(which, found, now);
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
            Err(Reject::Left(peer)) => {
                self.close_departed(Some(c), peer, LEFT, &Checked::default())
            }
            Err(Reject::Refused(refusal)) => self.refuse(c, &refusal),
        }
    }
}

/// Returns the command that admits a denied machine, for the log.
fn remedy(paths: &Paths, status: &MachineStatus, is_host: bool) -> String {
    let add = format!("machine add {} --name NAME", status.id);
    let (add, close) = (paths.cosadm(add), paths.cosadm("door close"));
    let is_known = matches!(status.state, RegistrationState::Known { .. });
    let is_left_out = !status.included && status.level == registry::Level::Closed;
    if is_known && is_left_out && !is_host {
        format!("{close} allows the machines that are authorized by then")
    } else {
        // It puts the machine on the include list as well.
        format!("{add} authorizes it")
    }
}

/// Returns the welcome text for an admitted client.
fn greeting(welcome: String) -> Vec<Text> {
    let style = Style::Info;
    let welcome = Some(welcome).filter(|w| !w.is_empty());
    let welcome = welcome.map(|words| Text { style, words });
    welcome.into_iter().collect()
}
