//! A login's path, top to bottom: begun, prompted, answered, authenticated, granted, started,
//! accepted, ended.
//!
//! `LoginClaim` or `AuthenticatedHost` → (PAM, in a worker) → `Caller` → `Granted` → running. Runs
//! in the monitor. Decides by itself only what comes next: PAM and `policy` decide the rest.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::unistd::Pid;

use super::refuse::{LEFT, close_departed, deny, interrupt};
use super::start::{closed_pipes, linger};
use super::step::{Outcome, Step};
use crate::auth::LoginClaim;
use crate::auth::policy::{self, Caller, Granted, Gui};
use crate::config::name::UserName;
use crate::daemon::monitor::conversation::Conversation;
use crate::daemon::monitor::logins::{
    Detached, Launched, Login, LoginEvent, LoginId, LoginSubject, MADE_ROOM, Room, WorkerEvent,
};
use crate::daemon::monitor::parts::{Handover, Parts};
use crate::daemon::monitor::preauth::Preauth;
use crate::daemon::monitor::reject::Reject;
use crate::daemon::monitor::sessions::shares::Holder;
use crate::daemon::monitor::sessions::who::info;
use crate::daemon::monitor::sessions::{Leader, SessionInfo};
use crate::fault::Fault;
use crate::ipc::Channel;
use crate::ipc::gate::{Connection, Order};
use crate::ipc::login::{Begin, Launch, PamAccount, Started, Task, WorkerToMonitor};
use crate::ipc::relay::Session;
use crate::log::{Log, log};
use crate::protocol::prompt::Text;
use crate::protocol::request::Command;
use crate::protocol::stream::End;
use crate::refusal::{Cause, Refusal};
use crate::services::gui;
use crate::sys::account::Account;
use crate::sys::socket;

/// Most bytes of an application's name in the log.
const NAME: usize = 64;

/// Begins a request for an application: it waits for a PAM slot.
pub(super) fn begin(
    parts: &mut Parts,
    connection: Connection,
    who: LoginSubject,
    socket: OwnedFd,
    conversation: Option<Box<Conversation>>,
    welcome: Vec<Text>,
    now: Instant,
) -> Outcome {
    let (peer, request, user, remote_user, task) = match &who {
        LoginSubject::LoginClaim(known) => {
            let c = known.inner();
            (c.peer(), c.request(), c.user(), "", Task::Authenticate)
        }
        LoginSubject::Host(known, user) => {
            let p = known.inner();
            let (request, caller) = (p.request(), p.request().caller_user.as_str());
            (p.peer(), request, user, caller, Task::Trust)
        }
    };
    let asks = asks(user, &request.command);
    let ground = &parts.ground;
    let begin = Begin {
        user: user.to_string(),
        remote_host: peer.to_string(),
        remote_user: remote_user.to_owned(),
        task,
        groups: ground.settings.gui.groups(),
        limits: ground.inherited,
    };
    if socket::has_hung_up(socket.as_fd()) {
        return Err(Reject::Left(peer));
    }
    let is_unauthenticated = matches!(who, LoginSubject::LoginClaim(_));
    let busy = |words| {
        let refusal = Refusal::new(Cause::Busy, format!("{asks}{words}")).of(peer);
        Err(refusal.from_unauthenticated(is_unauthenticated).into())
    };
    if let Some(why) = parts.cannot_start() {
        return busy(why);
    }
    let slots = parts.ground.settings.login.waiting;
    match parts.logins.room(&who, peer, slots) {
        Room::Free => {}
        Room::Instead(oldest) => interrupt(parts, oldest, Cause::Busy, MADE_ROOM),
        Room::Full => return busy("too many logins in progress"),
    }
    let user = &begin.user;
    log!(parts.ground.log, Debug, "login", connection, user);
    let until = now + parts.ground.settings.login.time;
    let login = Login::new(connection, peer, who, socket, begin, asks, until);
    let login = login.with(conversation, welcome);
    Ok(Step::Wait(Preauth::LoggingIn(parts.logins.add(login))))
}

/// Gives PAM slots to waiting logins while any are free. Called whenever a login begins to wait,
/// and in each pass of the event loop, since many events free a slot.
pub(in crate::daemon::monitor) fn grant_pam_slots(parts: &mut Parts, now: Instant) {
    if !parts.logins.have_changed() {
        return;
    }
    let login = &parts.ground.settings.login;
    let (most, check) = (login.checks, login.check);
    loop {
        let poll = parts.ground.poll.registry();
        match parts.logins.grant_pam_slot(poll, most, check, now) {
            None => break,
            Some((_, Ok(()))) => {}
            Some((id, Err(e))) => {
                let ground = &mut parts.ground;
                let denial = parts
                    .logins
                    .refuse(ground, id, Cause::System, &e.to_string());
                deny(parts, denial);
            }
        }
    }
    if let Some(inetd) = &mut parts.inetd {
        if let Some(login) = parts.connections.login() {
            inetd.note_pam_slot(&mut parts.ground, parts.logins.is_queued(login));
        }
    }
}

/// Takes the peer's answers, which wait for a PAM slot. A peer that breaks the protocol after PAM
/// has an answer is refused for a wrong guess, and not only closed.
pub(super) fn take_answers(parts: &mut Parts, id: LoginId, record: &[u8], now: Instant) -> Outcome {
    let taken = parts.logins.take_answers(id, record, now);
    let undecided = parts.logins.get(id).is_some_and(|l| l.is_undecided());
    match taken {
        Err(Reject::Closed(why, _)) if undecided => {
            interrupt(parts, id, Cause::Handshake, why);
        }
        Err(Reject::Refused(refusal)) if undecided => {
            interrupt(parts, id, refusal.cause, &refusal.words);
        }
        taken => taken?,
    }
    grant_pam_slots(parts, now);
    Ok(Step::Done)
}

/// Handles the messages of a login's worker.
pub(in crate::daemon::monitor) fn handle_worker(
    parts: &mut Parts,
    id: LoginId,
    buffer: &mut [u8],
    now: Instant,
) {
    // Only until the login is refused: then its PAM slot is another's.
    while let Some(event) = parts.logins.next_event(id, buffer) {
        match event {
            WorkerEvent::Message(message) => handle_message(parts, id, message, now),
            WorkerEvent::Ended => {
                worker_ended(parts, id, now);
                break;
            }
        }
    }
    grant_pam_slots(parts, now);
}

fn handle_message(parts: &mut Parts, id: LoginId, message: WorkerToMonitor, now: Instant) {
    let event = parts.logins.handle_message(&mut parts.ground, id, message);
    let outcome = match event {
        LoginEvent::Nothing => Ok(()),
        LoginEvent::Prompt(texts) => prompt(parts, id, texts, now),
        LoginEvent::Authenticated(account) => grant(parts, id, account, now),
        LoginEvent::Runs(started) => {
            accept(parts, id, started, now);
            Ok(())
        }
        LoginEvent::ApplicationEnded(end) => {
            application_ended(parts, id, end, now);
            Ok(())
        }
        LoginEvent::Denied(denial) => {
            deny(parts, denial);
            Ok(())
        }
        LoginEvent::Departed(departed) => {
            let (denial, peer) = (departed.denial, departed.peer);
            let why = &denial.refusal.words;
            close_departed(parts, denial.connection, peer, why, &denial.checked);
            Ok(())
        }
    };
    match outcome {
        Ok(()) => {}
        Err(Reject::Refused(refusal)) => interrupt(parts, id, refusal.cause, &refusal.words),
        Err(Reject::Closed(why, _)) => interrupt(parts, id, Cause::System, why),
        Err(Reject::Left(_)) => interrupt(parts, id, Cause::System, LEFT),
    }
}

/// Prompts the peer for PAM.
fn prompt(parts: &mut Parts, id: LoginId, texts: Vec<Text>, now: Instant) -> Result<(), Reject> {
    if let Some(prompt) = parts.logins.prompt(id, texts, now)? {
        let (connection, prompts) = (prompt.connection, prompt.prompts);
        log!(parts.ground.log, Debug, "prompt", connection, prompts);
        parts.order(&Order::Prompt(connection, prompt.seconds, &prompt.record));
    }
    Ok(())
}

/// Decides whether the authenticated user may start the requested application.
fn grant(parts: &mut Parts, id: LoginId, found: PamAccount, now: Instant) -> Result<(), Reject> {
    let holders = match parts.logins.get(id).and_then(|login| login.subject()) {
        Some(LoginSubject::Host(host, _)) => Holder::of(host.inner()),
        Some(LoginSubject::LoginClaim(_)) => vec![Holder::User(found.account.name.clone())],
        None => Vec::new(),
    };
    let cannot = parts.cannot_start_for(&holders);
    let (serves, settings) = (parts.names.serves(), &parts.ground.settings);
    let Some(login) = parts.logins.get(id) else {
        return Ok(());
    };
    let peer = login.peer();
    if let Some(why) = cannot {
        return Err(Refusal::new(Cause::Busy, why).of(peer).into());
    }
    let caller = match login.take_subject() {
        Some(LoginSubject::LoginClaim(login_claim)) => {
            Caller::AuthenticatedUser(Box::new(LoginClaim::believed(login_claim, found.account)))
        }
        Some(LoginSubject::Host(host, _)) => {
            let account = same_user(login.user(), found.account)?;
            policy::check_account(host.inner(), &account).map_err(|r| r.of(peer))?;
            Caller::Host(host, account)
        }
        None => {
            let why = "the worker reported an account twice";
            return Err(Reject::Closed(why, Some(peer)));
        }
    };
    let granted = policy::grant_application(caller, &found.groups, &settings.gui, serves)
        .map_err(|r| r.of(peer))?;
    let application = gui::prepare(&granted, &settings.exec.path)?;
    let detach = granted.service().detach;
    let streams = gui::Streams::new(detach)?;
    let launch = Launch {
        path: application.path,
        argv: application.argv,
        defaults: application.defaults,
        fixed: application.fixed,
        becomes_user: serves.is_none(),
        detach,
    };
    let until = now + settings.login.check;
    if login.launch(granted, launch, streams, until) {
        Ok(())
    } else {
        let died = Refusal::new(Cause::System, "the login worker died");
        Err(died.of(peer).into())
    }
}

/// Accepts the connection of an application that runs, and gives it to the relay.
fn accept(parts: &mut Parts, id: LoginId, started: Started, now: Instant) {
    let Some(login) = parts.logins.get(id) else {
        return;
    };
    let Some(launched) = login.take_launched() else {
        return;
    };
    let Launched {
        mut granted,
        streams,
        connection,
        socket,
    } = launched;
    parts.jobs.protect_soon(now);
    let pid = Pid::from_raw(started.pid);
    let detach = granted.service().detach;
    let session = parts.jobs.sessions_mut().number();
    let info = info(&granted);
    if detach {
        let detached = Detached::new(session, info.clone(), Some(pid));
        login.detach(detached, pid, started.variables);
    } else {
        login.run(session, started.variables);
    }
    let accepted = login.accept(&mut granted, started.texts);
    log_start(&mut parts.ground.log, session, &granted);
    if let Some(connection) = connection {
        parts.connections.remove(connection);
        parts.order(&Order::Forget(connection));
    }
    let Some(socket) = socket.filter(|_| connection.is_some()) else {
        // The peer has left. An application that was to run detached goes on.
        if !detach {
            hang_up_unreported(parts, id, session, info, "client-gone", now);
        }
        return;
    };
    let leader = if detach {
        Leader::Detached
    } else {
        Leader::Workers(pid)
    };
    let (host, request) = (granted.to().host(), granted.to().request());
    let (linger, windows) = (linger(&parts.ground, host, request), parts.ground.windows());
    let handed = accepted
        .map_err(|m| Fault::new(m.to_string()))
        .and_then(|(answer, keys)| {
            let answer = socket::send_now(socket.as_fd(), answer);
            let handover = Handover {
                id: session,
                info: info.clone(),
                leader,
                streams: streams.map_or_else(closed_pipes, Ok)?,
                socket,
                channel: Channel::pair()?,
                session: Session {
                    answer,
                    keys,
                    linger,
                    windows,
                    is_backend: false,
                },
            };
            parts.hand_over(handover, now)
        });
    match handed {
        Err(e) => {
            log!(parts.ground.log, Error, "fault", why = e);
            if !detach {
                hang_up_unreported(parts, id, session, info, "cut", now);
            }
        }
        Ok(()) if detach => parts.end_without_process(session, now),
        Ok(()) => {}
    }
}

/// Hangs up an application that runs already and has not become a session.
fn hang_up_unreported(
    parts: &mut Parts,
    id: LoginId,
    session: u64,
    info: SessionInfo,
    why: &'static str,
    now: Instant,
) {
    parts.logins.hang_up(&mut parts.ground, id);
    let unseen = Detached::new(session, info, None);
    parts.session_ended(Some(unseen.finished(why, None, now)));
}

// ---- the end ----

/// Handles the end of an application, which its worker waits to reap.
fn application_ended(parts: &mut Parts, id: LoginId, end: End, now: Instant) {
    let check = parts.ground.settings.login.check;
    let (session, detached) = parts.logins.application_ended(id, &end, check, now);
    parts.session_ended(detached);
    let Some(session) = session else {
        return;
    };
    let finished = parts
        .jobs
        .sessions_mut()
        .application_ended(session, end, now);
    parts.session_ended(finished);
    // Otherwise when the session is over: until then only its leader reserves the group's number.
    if parts.jobs.sessions().may_be_reaped(session) {
        parts.logins.session_is_over(session, check);
    }
}

/// Handles the end of a worker: hangs up what it leaves, and refuses its peer.
fn worker_ended(parts: &mut Parts, id: LoginId, now: Instant) {
    let Some(orphaned) = parts.logins.worker_ended(&mut parts.ground, id, now) else {
        return;
    };
    parts.session_ended(orphaned.detached);
    if let Some(session) = orphaned.session {
        let kill_after = parts.ground.kill_after();
        let sessions = parts.jobs.sessions_mut();
        let finished = sessions.orphaned(session, kill_after, now);
        parts.session_ended(finished);
    }
    deny(parts, orphaned.denial);
}

fn log_start(log: &mut Log, session: u64, granted: &Granted<Gui, Caller>) {
    let (to, service) = (granted.to(), granted.service());
    let host = to.host().map_or("", |h| h.name.as_str());
    log!(
        log,
        Info,
        "login",
        session,
        host,
        peer = to.peer(),
        machine = to.machine(),
        user = to.account().name,
        caller = to.request().caller_user,
        application = service.name,
        display = format_args!("{}:{}", service.host, service.port),
        detached = service.detach
    );
}

/// Returns the user and the request, for the start of a refusal's log text.
fn asks(user: &UserName, command: &Command) -> String {
    let first = match command {
        Command::Words(words) => words.first(),
        Command::Follows { .. } => None,
    };
    let application = first.map_or(&[][..], |w| w.get(..NAME).unwrap_or(w));
    let application = String::from_utf8_lossy(application);
    format!("{user} asks for {application}: ")
}

/// Checks that a host's user is the requested one, whatever a PAM module changed.
fn same_user(user: &str, account: Account) -> Result<Account, Refusal> {
    if account.name == user {
        return Ok(account);
    }
    let words = format!("PAM changed the user to {} from {user}", account.name);
    Err(Refusal::new(Cause::User, words))
}
