//! One connection's path, top to bottom:
//!
//! 1. [`greet`]: Hello → `Greeted`.
//! 2. [`open`]: ClientHello → `Opened`. The registry is asked about the machine of the handshake.
//! 3. [`at_outer_door`]: the registry has answered → `Admitted`. The host's name may have to be
//!    resolved first ([`await_name`]).
//! 4. [`authenticate`]: what the client presents → `AuthenticatedHost`, `LoginClaim` or
//!    `AuthenticatedMachine`.
//! 5. [`at_inner_door`]: allowed, denied, or its user is prompted ([`registration`]), whose
//!    answer registers the machine.
//! 6. [`after_doors`] → `Known`: a user who logs in goes on in [`login`], a registration ends. The
//!    rest of a long command is taken ([`take_command`]).
//! 7. [`grant`]: the policy → `Granted`. The account is looked up. For a named service ([`named`])
//!    the caller's account is looked up first, which the service's lists may name.
//! 8. [`start`](start::start): the job is started, the connection is accepted and handed over to
//!    the relay.
//! 9. The end: [`sessions`](super::sessions).
//!
//! Each step consumes the state before it, and calls the next, or returns what the connection waits
//! for. An event resumes it: a message of the gate ([`handle_question`]), the registry's answer, a
//! name, an account. A step that fails ends the connection ([`refuse`]).
//!
//! Runs in the monitor. Decides by itself only what comes next: `auth` (with its `policy`) and
//! `registry` decide the rest. Must not wait.

pub(super) mod login;
mod named;
mod prompt;
pub(super) mod refuse;
pub(super) mod registration;
mod start;
mod step;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::conversation::{self, Conversation};
use super::logins::LoginSubject;
use super::look_ups::LookUp;
use super::names::FoundUser;
use super::parts::Parts;
use super::preauth::{
    Applicant, Arrival, AwaitsAccount, AwaitsCommand, Pending, PendingAdmission, Preauth, Progress,
};
use super::registry_client::{Reply, TicketAnswer};
use super::reject::Reject;
use super::sessions::shares::Holder;
use crate::auth::hash::{self, ProofContext};
use crate::auth::policy::{self, Exec, Granted, ServiceCaller};
use crate::auth::{
    self, AuthenticatedHost, AuthenticatedMachine, Greeted, LoginClaim, NotGreeted, Opened,
    PresentedCredential,
};
use crate::config::name::HostName;
use crate::fault::Fault;
use crate::ipc::gate::{Complaint, Connection, Order, Question};
use crate::log::{log, log_ratelimited};
use crate::protocol::answer::Answer;
use crate::protocol::prompt::{Style, Text};
use crate::protocol::request::{Command, Request, Service};
use crate::protocol::{Malformed, limits};
use crate::refusal::{Cause, Refusal};
use crate::registry::asked::{Answer as RegistryAnswer, Question as RegistryQuestion};
use crate::registry::{
    self, AccessDecision, AdmissionPass, Admitted, Id, Known, Machine, MachineStatus,
    RegistrationOutcome,
};
use crate::sys::account::UserRecord;
use crate::sys::socket;
use refuse::{close, forget};
use step::{Outcome, Step};

// ---- events ----

/// Handles a message of the gate.
pub(super) fn handle_question(
    parts: &mut Parts,
    question: &Question<'_>,
    fds: Vec<OwnedFd>,
    now: Instant,
) {
    match *question {
        Question::Hello(c, from, record) => greet(parts, c, from, record, now),
        Question::ClientHello(c, record) => {
            let socket = fds.into_iter().next();
            let outcome = open(parts, c, record, socket, now);
            settle(parts, c, outcome, now);
        }
        Question::Sealed(c, record) => {
            let outcome = take_record(parts, c, record, now);
            settle(parts, c, outcome, now);
        }
        Question::Gone(c) => {
            forget(parts, c);
            login::grant_pam_slots(parts, now);
        }
        Question::Left(c) => {
            refuse::handle_left(parts, c);
            login::grant_pam_slots(parts, now);
        }
        Question::Empty => parts.processes.note_gate_empty(),
        Question::Rejected(why, peer) => {
            if why != Complaint::Probe {
                let cause = why.name();
                log_ratelimited!(parts.ground.log, Warning, "closed", peer, cause);
            }
        }
    }
}

/// Handles an answer of the registry.
pub(super) fn registry_answered(parts: &mut Parts, answer: TicketAnswer, now: Instant) {
    let TicketAnswer {
        connection,
        ticket,
        answer,
    } = answer;
    let Some(c) = connection else {
        return registration::log_note(&mut parts.ground.log, answer);
    };
    let answer = match parts.connections.ahead(c) {
        // Asked in `greet`: it is kept until the ClientHello.
        Some(ahead) => match ahead.note(ticket, answer) {
            Some(another) => another,
            None => return,
        },
        None => answer,
    };
    if let Some(admission) = parts.connections.take_at_door(c, ticket) {
        let outcome = after_registry(parts, c, *admission, answer, now);
        settle(parts, c, outcome, now);
    } else if let RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)) =
        answer
    {
        registration::log_registered(parts, pass.id(), &name, &"left");
    }
}

/// Handles the end of a user's look-up.
pub(super) fn user_found(
    parts: &mut Parts,
    which: LookUp,
    found: &Result<Option<Box<UserRecord>>, String>,
    now: Instant,
) {
    for (c, awaits) in parts.connections.take_pending(which) {
        if !parts.processes.has_gate() {
            break;
        }
        let host = awaits.host();
        let (peer, holders) = (host.peer(), Holder::of(host));
        let found = found.as_ref().map(Option::as_deref);
        let outcome = match (awaits, parts.cannot_start_for(&holders)) {
            (_, Some(why)) => Err(Refusal::new(Cause::Busy, why).of(peer).into()),
            (AwaitsAccount::Job(pending), None) => {
                start_with_account(parts, c, *pending, found, peer, now)
            }
            (AwaitsAccount::Backend(pending), None) => {
                named::connect_with_account(parts, c, *pending, found, now)
            }
            // The answer has not the groups that the lists name by now.
            (AwaitsAccount::Caller(pending, groups), None)
                if groups != parts.ground.settings.service.groups() =>
            {
                named::begin(parts, c, *pending, now)
            }
            (AwaitsAccount::Caller(pending, _), None) => {
                named::decide(parts, c, *pending, found.ok().flatten(), now)
            }
        };
        settle(parts, c, outcome, now);
    }
}

/// Handles the end of a look-up of a backend's host.
pub(super) fn backend_found(
    parts: &mut Parts,
    which: LookUp,
    found: &Result<Vec<IpAddr>, String>,
    now: Instant,
) {
    let waits = parts.connections.take_address(which);
    if let Some((c, waits)) = waits.filter(|_| parts.processes.has_gate()) {
        let outcome = named::connect_to_host(parts, c, *waits, found, now);
        settle(parts, c, outcome, now);
    }
}

/// Handles the end of an attempt to connect to a backend.
pub(super) fn backend_connected(
    parts: &mut Parts,
    c: Connection,
    outcome: Result<OwnedFd, String>,
    now: Instant,
) {
    let Some(pending) = parts.connections.take_backend(c) else {
        // Its peer has left.
        return;
    };
    if parts.processes.has_gate() {
        let outcome = named::connected(parts, c, *pending, outcome, now);
        settle(parts, c, outcome, now);
    }
}

/// Starts a granted command with the account that was found.
fn start_with_account(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<Granted<Exec>>,
    found: Result<Option<&UserRecord>, &String>,
    peer: IpAddr,
    now: Instant,
) -> Outcome {
    let user = &pending.request.service().user;
    let words = match found {
        Ok(Some(record)) => return start::start(parts, c, pending, record, now),
        Ok(None) => format!("there is no user {user}, or it was not found in time"),
        Err(why) => format!("user {user} cannot be used: {why}"),
    };
    Err(Refusal::new(Cause::Account, words).of(peer).into())
}

/// Continues with the connections that waited for a name whose look-up has ended.
pub(super) fn name_is_known(parts: &mut Parts, name: &HostName, now: Instant) {
    let all = parts.connections.take_named(name);
    continue_without_wait(parts, all, now);
}

/// Continues with connections that have waited long enough, with the addresses known so far.
pub(super) fn continue_overdue(parts: &mut Parts, now: Instant) {
    let all = parts.connections.take_overdue(now);
    continue_without_wait(parts, all, now);
}

fn continue_without_wait(
    parts: &mut Parts,
    all: Vec<(Connection, Box<PendingAdmission>)>,
    now: Instant,
) {
    for (c, admission) in all {
        if !parts.processes.has_gate() {
            break;
        }
        after_name(parts, c, *admission, now);
    }
}

/// Handles the outcome of a connection's step.
fn settle(parts: &mut Parts, c: Connection, outcome: Outcome, now: Instant) {
    match outcome {
        Ok(Step::Wait(state)) => {
            let is_login = matches!(state, Preauth::LoggingIn(_));
            parts.connections.insert(c, state);
            if is_login {
                login::grant_pam_slots(parts, now);
            }
        }
        Ok(Step::Done) => {}
        Err(reject) => refuse::reject(parts, c, reject),
    }
}

// ---- hello, handshake ----

/// Handles a Hello: draws a nonce, and prepares the look-ups that most likely follow.
fn greet(parts: &mut Parts, c: Connection, peer: IpAddr, record: &[u8], now: Instant) {
    let most = parts.ground.settings.limits.silent.saturating_mul(2);
    if parts.connections.len() >= most || parts.connections.has(c) {
        forget(parts, c);
        let why = "a second hello, or too many connections";
        return close(parts, c, why, Some(peer));
    }
    match Greeted::new(record, &parts.ground.host) {
        Ok(greeted) => {
            log!(parts.ground.log, Debug, "hello", connection = c, peer);
            parts.order(&Order::ServerHello(c, greeted.server_hello()));
            let poll = parts.ground.poll.registry();
            // Asks ahead only if the worker was asked about the last machine of this address: not
            // where the daemon reads the lists by itself.
            let ahead = parts.registry.prepare(poll, c, peer, now);
            let state = Preauth::Greeted(Box::new(greeted), ahead);
            parts.connections.insert(c, state);
            // Readies a look-up process for the user, unless accounts are cached.
            parts.names.prepare(&parts.ground, peer);
        }
        Err(NotGreeted::Malformed(m)) => close(parts, c, m.0, Some(peer)),
        Err(NotGreeted::Fault(e)) => {
            log!(parts.ground.log, Error, "fault", why = e);
            close(parts, c, "no random bytes", Some(peer));
        }
    }
}

/// Handles a ClientHello: opens it, and queries the registry about its machine before it looks at
/// anything else of it.
fn open(
    parts: &mut Parts,
    c: Connection,
    record: &[u8],
    socket: Option<OwnedFd>,
    now: Instant,
) -> Outcome {
    let (greeted, ahead) = match parts.connections.remove(c) {
        Some(Preauth::Greeted(greeted, ahead)) => (greeted, ahead),
        other => {
            // A login among these ends with its connection.
            if let Some(state) = other {
                parts.connections.insert(c, state);
            }
            return Err(Reject::Closed("a ClientHello out of turn", None));
        }
    };
    // The kernel drops a descriptor that does not fit our limit: the shortage is ours, not the
    // peer's fault.
    let lost = || {
        let words = "no descriptor was left for its socket (limit of open files)";
        Refusal::new(Cause::Busy, words).from_unauthenticated(true)
    };
    let socket = socket.ok_or_else(lost)?;
    if !socket::is_stream(socket.as_fd()) {
        return Err(Reject::Closed(
            "the gate sent no TCP socket with a ClientHello",
            None,
        ));
    }
    let address = socket::peer(socket.as_fd());
    let address = address.map_err(|_| Reject::Closed("the peer has disconnected", None))?;
    let peer = address.ip();
    if socket::has_bytes(socket.as_fd()) {
        return Err(Reject::Closed(
            "data after the ClientHello, before the answer",
            Some(peer),
        ));
    }
    let prepared = parts.key_cache.take();
    let opened = greeted.open(record, &parts.ground.host, prepared);
    let opened = opened.map_err(|refusal| {
        refuse::look_up_dummy(parts, now);
        refusal.of(peer)
    })?;
    let key = &parts.ground.host.public;
    parts.key_cache.opened(key, opened.machine());
    log!(
        parts.ground.log,
        Debug,
        "opened",
        connection = c,
        peer = address
    );
    let id = Id::of(opened.machine());
    let local = socket::local(socket.as_fd());
    let arrival = Arrival {
        is_local: peer.is_loopback() || local.is_ok_and(|own| own.ip() == peer),
        socket,
        peer,
        welcome: String::new(),
        has_left: false,
    };
    let progress = Progress::Arrives(Box::new(opened));
    if let Some(inetd) = &mut parts.inetd {
        inetd.note_machine(id);
    }
    let poll = parts.ground.poll.registry();
    let asked = parts.registry.look(poll, (c, peer), id, ahead, now);
    await_registry(parts, c, arrival, progress, asked, now)
}

// ---- outer door, credential, inner door ----

/// Queries the registry about a connection, which waits for the answer.
fn ask_registry(
    parts: &mut Parts,
    c: Connection,
    arrival: Arrival,
    progress: Progress,
    question: RegistryQuestion,
    now: Instant,
) -> Outcome {
    if let (RegistryQuestion::Look(id), Some(inetd)) = (&question, &mut parts.inetd) {
        inetd.note_machine(*id);
    }
    let poll = parts.ground.poll.registry();
    let asked = parts.registry.ask(poll, Some(c), question, now);
    await_registry(parts, c, arrival, progress, asked, now)
}

/// Continues with the registry's answer, or has the connection wait for it. A standalone
/// daemon has the answer at once if its lists are in its own state folder.
fn await_registry(
    parts: &mut Parts,
    c: Connection,
    arrival: Arrival,
    progress: Progress,
    reply: Result<Reply, Fault>,
    now: Instant,
) -> Outcome {
    let mut admission = PendingAdmission::new(arrival, progress);
    match reply {
        Ok(Reply::Ready(answer)) => after_registry(parts, c, *admission, answer, now),
        Ok(Reply::Pending(ticket)) => {
            admission.ticket = Some(ticket);
            Ok(Step::Wait(Preauth::AtDoor(admission)))
        }
        Err(e) => {
            let reject = Reject::from(Refusal::new(Cause::Registry, e));
            Err(reject.of(admission.arrival.peer, admission.is_unauthenticated()))
        }
    }
}

/// Continues with the registry's answer.
fn after_registry(
    parts: &mut Parts,
    c: Connection,
    admission: PendingAdmission,
    answer: RegistryAnswer,
    now: Instant,
) -> Outcome {
    let (peer, is_unauthenticated) = (admission.arrival.peer, admission.is_unauthenticated());
    let PendingAdmission {
        arrival, progress, ..
    } = admission;
    let outcome = match (progress, answer) {
        (_, RegistryAnswer::Fault(why)) => Err(Refusal::new(Cause::Registry, why).into()),
        (Progress::Arrives(opened), RegistryAnswer::MachineStatus(status)) => {
            at_outer_door(parts, c, arrival, *opened, &status, now)
        }
        (Progress::Authenticated(applicant), RegistryAnswer::MachineStatus(status)) => {
            at_inner_door(parts, c, arrival, applicant, &status, now)
        }
        (
            Progress::Registers(applicant, conversation),
            RegistryAnswer::RegistrationOutcome(outcome),
        ) => registered(parts, c, arrival, applicant, conversation, outcome, now),
        (Progress::Registered(applicant, conversation), RegistryAnswer::MachineStatus(status)) => {
            let conversation = Some(conversation);
            match registry::decide(&status, applicant.host().is_some(), arrival.is_local) {
                AccessDecision::Allow(pass) => {
                    after_doors(parts, c, arrival, applicant, conversation, &pass, now)
                }
                AccessDecision::Prompt(_) | AccessDecision::Deny(_) => {
                    let id = status.id;
                    let words = format!("machine {id}: it was registered, and is denied now");
                    Err(Refusal::new(Cause::UnknownMachine, words).into())
                }
            }
        }
        _ => {
            let words = "an unexpected answer from the registry process";
            Err(Refusal::new(Cause::Registry, words).into())
        }
    };
    outcome.map_err(|reject| reject.of(peer, is_unauthenticated))
}

/// Admits a machine at the outer door, and authenticates what it presents, unless its host's name
/// is to be resolved first.
fn at_outer_door(
    parts: &mut Parts,
    c: Connection,
    mut arrival: Arrival,
    opened: Opened,
    status: &MachineStatus,
    now: Instant,
) -> Outcome {
    let admitted = Admitted::by(opened, status)?;
    log!(
        parts.ground.log,
        Debug,
        "admitted",
        connection = c,
        machine = status.id
    );
    arrival.welcome.clone_from(&status.welcome);
    if let Some(name) = pending_name(parts, &admitted, arrival.peer, now) {
        await_name(parts, c, arrival, admitted, name, now);
        return Ok(Step::Done);
    }
    let applicant = authenticate(parts, c, admitted, arrival.peer)?;
    if applicant.machine() == status.id {
        return at_inner_door(parts, c, arrival, applicant, status, now);
    }
    ask_about_caller(parts, c, arrival, applicant, now)
}

/// Queries the registry about the caller's own machine. A signer may vouch for a user with its own
/// key: the inner door checks the host's machine. And a connection that waited for a name is
/// checked again.
fn ask_about_caller(
    parts: &mut Parts,
    c: Connection,
    arrival: Arrival,
    applicant: Applicant,
    now: Instant,
) -> Outcome {
    let question = RegistryQuestion::Look(applicant.machine());
    let progress = Progress::Authenticated(applicant);
    ask_registry(parts, c, arrival, progress, question, now)
}

/// Returns the name to look up before this handshake's proof is verified, if it is being looked up.
fn pending_name(
    parts: &mut Parts,
    admitted: &Admitted<Opened>,
    peer: IpAddr,
    now: Instant,
) -> Option<HostName> {
    parts.names.refresh(&mut parts.ground, now);
    let hosts = parts.names.hosts();
    if !hosts.have_names() {
        return None;
    }
    let resolved = |name: &HostName| hosts.addresses_of(name);
    let name = hash::unknown_by_name(admitted, hosts.table().ok()?, &resolved, peer)?;
    let is_wanted = parts.names.want(&mut parts.ground, &name, now);
    is_wanted.then_some(name)
}

/// Has a connection wait for its host's name. If too many wait, one of them goes on without it.
fn await_name(
    parts: &mut Parts,
    c: Connection,
    arrival: Arrival,
    admitted: Admitted<Opened>,
    name: HostName,
    now: Instant,
) {
    log!(parts.ground.log, Debug, "name", connection = c, host = name);
    let interval = parts.ground.settings.daemon.refusal_interval;
    let until = now + interval - interval / 10;
    let progress = Progress::AwaitsName(Box::new(admitted));
    let admission = PendingAdmission::new(arrival, progress);
    parts.connections.await_name(c, admission, name, until);
    parts.order(&Order::MayGo(c, true));
    if let Some((c, admission)) = parts.connections.take_surplus() {
        after_name(parts, c, *admission, now);
    }
}

/// Continues once the host's name is resolved or has taken too long: verifies the proof, and asks
/// the registry once more, which may have changed.
fn after_name(parts: &mut Parts, c: Connection, admission: PendingAdmission, now: Instant) {
    let PendingAdmission {
        arrival, progress, ..
    } = admission;
    let Progress::AwaitsName(admitted) = progress else {
        return;
    };
    parts.order(&Order::MayGo(c, false));
    parts.names.refresh(&mut parts.ground, now);
    let peer = arrival.peer;
    let outcome = authenticate(parts, c, *admitted, peer)
        .and_then(|applicant| ask_about_caller(parts, c, arrival, applicant, now));
    settle(
        parts,
        c,
        outcome.map_err(|reject| reject.of(peer, true)),
        now,
    );
}

/// Authenticates what the outer door has admitted, as far as it can without PAM.
fn authenticate(
    parts: &mut Parts,
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
            let machine = AuthenticatedMachine::new(admitted, peer)?;
            Ok(Applicant::AuthenticatedMachine(Box::new(machine)))
        }
        PresentedCredential::Proof => {
            let host = authenticate_host(parts, admitted, peer).map_err(|r| r.of(peer))?;
            let name = &host.caller().name;
            log!(
                parts.ground.log,
                Debug,
                "proven",
                connection = c,
                host = name
            );
            if !matches!(host.request().service, Service::Gui(_)) {
                return Ok(Applicant::Exec(Box::new(host)));
            }
            let user = policy::user_of(&host, parts.names.serves());
            let user = user.map_err(|r| r.of(peer))?;
            Ok(Applicant::Gui(Box::new(host), user))
        }
    }
}

/// Verifies an admitted host against HOSTINFO and its cookie.
fn authenticate_host(
    parts: &mut Parts,
    admitted: Admitted<Opened>,
    peer: IpAddr,
) -> Result<AuthenticatedHost, Refusal> {
    let (ground, key_cache) = (&mut parts.ground, &mut parts.key_cache);
    let hosts = parts.names.hosts();
    let table = hosts.table();
    let table = table.map_err(|e| Refusal::new(Cause::NoHostinfo, e))?;
    // Check the folders above cookies and keys once for this proof.
    let paths = ground.paths.clone().once();
    let key = &ground.host;
    let host = hash::authenticate_host(
        admitted,
        &ProofContext {
            table,
            resolved: &|name| hosts.addresses_of(name),
            paths: &paths,
            name: &ground.settings.name,
            host_key: &key.public,
            shared: &|machine| key_cache.agree(key, machine),
            peer,
        },
    )
    .map_err(Refusal::with_work_done)?;
    key_cache.authenticated(&key.public, host.machine());
    if host.is_newly_recorded() {
        let name = &host.caller().name;
        log!(ground.log, Info, "machine-recorded", host = name, peer);
    }
    Ok(host)
}

/// Applies the inner door's decision about the applicant's machine.
fn at_inner_door(
    parts: &mut Parts,
    c: Connection,
    mut arrival: Arrival,
    applicant: Applicant,
    status: &MachineStatus,
    now: Instant,
) -> Outcome {
    let is_host = applicant.host().is_some();
    if status.excluded {
        // Another machine than that of the handshake, or excluded in the meantime.
        let words = format!("machine {} is on the exclude list", status.id);
        return Err(Refusal::new(Cause::Excluded, words).into());
    }
    arrival.welcome.clone_from(&status.welcome);
    match registry::decide(status, is_host, arrival.is_local) {
        AccessDecision::Allow(pass) => {
            // Notes nothing of a machine that was seen before. Else the registry worker writes it;
            // nothing here waits for that or depends on it.
            registration::note_admission(parts, &arrival, &applicant, &pass, status, now);
            after_doors(parts, c, arrival, applicant, None, &pass, now)
        }
        AccessDecision::Prompt(want) => {
            registration::prompt_user(parts, c, arrival, applicant, want)
        }
        AccessDecision::Deny(why) => {
            let remedy = registration::remedy(&parts.ground.paths, status, is_host);
            let words = format!("machine {}: {why}; {remedy}", status.id);
            Err(Refusal::new(Cause::UnknownMachine, words).into())
        }
    }
}

// ---- registration ----

/// Continues with a registration. The registry is asked again: the manager may have closed the
/// inner door to the machine in the meantime.
fn registered(
    parts: &mut Parts,
    c: Connection,
    arrival: Arrival,
    applicant: Applicant,
    conversation: Box<Conversation>,
    outcome: RegistrationOutcome,
    now: Instant,
) -> Outcome {
    match outcome {
        RegistrationOutcome::Registered(pass, name) => {
            let id = pass.id();
            registration::log_registered(parts, id, &name, &arrival.peer);
            let progress = Progress::Registered(applicant, conversation);
            ask_registry(parts, c, arrival, progress, RegistryQuestion::Look(id), now)
        }
        RegistrationOutcome::Wrong(why) => {
            let words = format!("machine {}: {why}", applicant.machine());
            Err(Refusal::new(Cause::Activation, words).into())
        }
    }
}

// ---- both doors have admitted it ----

/// Continues with the request of an applicant that both doors have admitted.
fn after_doors(
    parts: &mut Parts,
    c: Connection,
    arrival: Arrival,
    applicant: Applicant,
    conversation: Option<Box<Conversation>>,
    pass: &AdmissionPass,
    now: Instant,
) -> Outcome {
    let Arrival {
        socket,
        peer,
        welcome,
        has_left,
        ..
    } = arrival;
    if has_left {
        return Err(Reject::Left(peer));
    }
    let welcome = greeting(welcome);
    let of = |r: Refusal| r.of(peer);
    log!(
        parts.ground.log,
        Debug,
        "known",
        connection = c,
        machine = pass.id()
    );
    match applicant {
        Applicant::Exec(host) => {
            let known = Known::by(*host, pass).map_err(of)?;
            if let Command::Follows { length, .. } = known.inner().request().command {
                return ask_for_command(parts, c, known, socket, conversation, welcome, length);
            }
            grant(parts, c, known, socket, conversation, welcome, now)
        }
        Applicant::Gui(host, user) => {
            let subject = LoginSubject::Host(Known::by(host, pass).map_err(of)?, user);
            login::begin(parts, c, subject, socket, conversation, welcome, now)
        }
        Applicant::LoginClaim(claim) => {
            let subject = LoginSubject::LoginClaim(Known::by(claim, pass).map_err(of)?);
            login::begin(parts, c, subject, socket, conversation, welcome, now)
        }
        Applicant::AuthenticatedMachine(machine) => {
            let known = Known::by(machine, pass).map_err(of)?;
            start::accept_registration(parts, c, known, socket, conversation, welcome, now)
        }
    }
}

/// Sends AuthContinue: the client is admitted, but its command does not fit the ClientHello.
fn ask_for_command(
    parts: &mut Parts,
    c: Connection,
    mut known: Known<AuthenticatedHost>,
    socket: OwnedFd,
    conversation: Option<Box<Conversation>>,
    welcome: Vec<Text>,
    length: u32,
) -> Outcome {
    let payload = Answer::SendCommand.encode()?;
    let (record, conversation) = match conversation {
        Some(mut conversation) => (conversation.seal(&payload)?, conversation),
        None => conversation::begin(&payload, |payload| known.inner_mut().message_2(payload))?,
    };
    log!(
        parts.ground.log,
        Debug,
        "long-command",
        connection = c,
        length
    );
    parts.order(&Order::Continue(c, length, &record));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(Step::Wait(Preauth::AwaitsCommand(Box::new(
        AwaitsCommand {
            known,
            socket,
            conversation,
            welcome,
            encoding: Vec::new(),
            length: length.min(limits::COMMAND),
        },
    ))))
}

/// Takes a Sealed record: the answers to a prompt, or a piece of a long command.
fn take_record(parts: &mut Parts, c: Connection, record: &[u8], now: Instant) -> Outcome {
    match parts.connections.remove(c) {
        Some(state @ Preauth::LoggingIn(id)) => {
            parts.connections.insert(c, state);
            login::take_answers(parts, id, record, now)
        }
        Some(Preauth::AtDoor(admission)) => {
            let asks = registration::take_answer(parts, *admission, record, now)?;
            let (arrival, progress, question) = asks;
            ask_registry(parts, c, arrival, progress, question, now)
        }
        Some(Preauth::AwaitsCommand(admitted)) => take_command(parts, c, admitted, record, now),
        // It was on its way when its connection was refused.
        Some(
            state @ (Preauth::Greeted(..)
            | Preauth::AwaitsAccount(..)
            | Preauth::AwaitsAddress(..)
            | Preauth::AwaitsBackend(_)),
        ) => Ok(Step::Wait(state)),
        None => Ok(Step::Done),
    }
}

/// Takes a piece of a long command; the last one continues the request.
fn take_command(
    parts: &mut Parts,
    c: Connection,
    mut admitted: Box<AwaitsCommand>,
    record: &[u8],
    now: Instant,
) -> Outcome {
    let peer = admitted.known.inner().peer();
    let refuse = |m: Malformed| Refusal::new(Cause::Request, m).of(peer);
    let piece = admitted.conversation.open(record).map_err(refuse)?;
    admitted.encoding.extend_from_slice(&piece);
    if piece.is_empty() || admitted.encoding.len() > admitted.length {
        return Err(refuse(Malformed("a command of another length than announced")).into());
    }
    if admitted.encoding.len() < admitted.length {
        return Ok(Step::Wait(Preauth::AwaitsCommand(admitted)));
    }
    let AwaitsCommand {
        known,
        socket,
        conversation,
        welcome,
        encoding,
        ..
    } = *admitted;
    if socket::has_bytes(socket.as_fd()) {
        return Err(Reject::Closed(
            "data after the command, before the answer",
            Some(peer),
        ));
    }
    let known = hash::with_command(known, &encoding).map_err(|r| r.of(peer))?;
    grant(parts, c, known, socket, Some(conversation), welcome, now)
}

// ---- authorization, account, start ----

/// Applies the policy, then looks up the account.
fn grant(
    parts: &mut Parts,
    c: Connection,
    known: Known<AuthenticatedHost>,
    socket: OwnedFd,
    conversation: Option<Box<Conversation>>,
    welcome: Vec<Text>,
    now: Instant,
) -> Outcome {
    let peer = known.inner().peer();
    let request = known.inner().request();
    let is_named = match request.service {
        Service::Named(_) | Service::List(_) => true,
        // A named service stands for the subsystem of its name.
        Service::Subsystem => {
            let services = &parts.ground.settings.service;
            services.get(&request.command.shown()).is_some()
        }
        Service::Exec | Service::Gui(_) | Service::Enrol => false,
    };
    if is_named {
        let pending = Pending {
            request: ServiceCaller::new(known),
            socket,
            conversation,
            welcome,
        };
        return named::begin(parts, c, pending, now);
    }
    let program = subsystem_of(parts, request);
    let granted = policy::grant(known, program, parts.names.serves());
    let granted = granted.map_err(|r| r.of(peer))?;
    if let Some(why) = parts.cannot_start_for(&Holder::of(granted.authenticated())) {
        return Err(Refusal::new(Cause::Busy, why).of(peer).into());
    }
    let pending = Pending {
        request: granted,
        socket,
        conversation,
        welcome,
    };
    await_account(parts, c, pending, now)
}

/// Starts a granted command once its user's account is known.
fn await_account(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<Granted<Exec>>,
    now: Instant,
) -> Outcome {
    let peer = pending.request.authenticated().peer();
    let user = pending.request.service().user.clone();
    log!(parts.ground.log, Debug, "granted", connection = c, user);
    // What was found a moment ago, else a look-up process is asked.
    match parts.names.find_user(&parts.ground, user.as_str(), now) {
        FoundUser::User(record) => start::start(parts, c, pending, &record, now),
        FoundUser::Looking(which) => {
            log!(parts.ground.log, Debug, "look-up", connection = c, user);
            let awaits = AwaitsAccount::Job(Box::new(pending));
            Ok(Step::Wait(Preauth::AwaitsAccount(which, awaits)))
        }
        FoundUser::Busy(why) => Err(Refusal::new(Cause::Busy, why).of(peer).into()),
    }
}

/// Looks up the program of the subsystem that a request names, if it names one.
fn subsystem_of(parts: &Parts, request: &Request) -> Option<Result<Vec<String>, Fault>> {
    match (&request.service, &request.command) {
        (Service::Subsystem, Command::Words(_)) => {
            let subsystems = &parts.ground.settings.subsystem;
            Some(subsystems.find(&request.command.shown()))
        }
        _ => None,
    }
}

/// Returns the welcome text for an admitted client.
fn greeting(welcome: String) -> Vec<Text> {
    let style = Style::Info;
    let welcome = Some(welcome).filter(|w| !w.is_empty());
    let welcome = welcome.map(|words| Text { style, words });
    welcome.into_iter().collect()
}
