//! A login's path through the monitor, top to bottom: begun, prompted, answered, authenticated,
//! granted, started, accepted. [`super::login_end`] has its end.
//!
//! `LoginClaim` or `AuthenticatedHost` → (PAM, in a worker) → `Caller` → `Granted` → running. Runs
//! in the monitor.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::unistd::{Pid, pipe2};

use super::Monitor;
use super::conversation::Conversation;
use super::login_end::ASKED_ON;
use super::logins::{Answered, Detached, Login, LoginId, LoginSubject, MADE_ROOM, Room, Stage};
use super::pipeline::Handover;
use super::preauth::{Preauth, Reject};
use super::refuse::LEFT;
use super::sessions::shares::Holder;
use super::sessions::who::info;
use super::sessions::{Leader, SessionInfo};
use crate::auth::LoginClaim;
use crate::auth::policy::{self, Caller, Granted, Gui};
use crate::config::name::UserName;
use crate::ipc::gate::{Connection, Order};
use crate::ipc::login::{Begin, Known, Launch, Started, Task, WorkerToMonitor};
use crate::ipc::relay::Session;
use crate::ipc::{Channel, Incoming};
use crate::log::log;
use crate::protocol::prompt::Text;
use crate::protocol::request::Command;
use crate::protocol::stream::End;
use crate::refusal::{Cause, Refusal};
use crate::services::gui;
use crate::sys::account::Account;
use crate::sys::socket;

/// Most bytes of an application's name in the log.
const NAME: usize = 64;

impl Monitor {
    /// Begins a request for an application: it waits for a PAM slot.
    pub(super) fn begin_login(
        &mut self,
        connection: Connection,
        who: LoginSubject,
        socket: OwnedFd,
        conversation: Option<Box<Conversation>>,
        welcome: Vec<Text>,
        now: Instant,
    ) -> Result<(), Reject> {
        let (peer, request, user, remote_user, task) = match &who {
            LoginSubject::LoginClaim(known) => {
                let c = known.inner();
                let request = c.request();
                (c.peer(), request, c.user(), "", Task::Authenticate)
            }
            LoginSubject::Host(known, user) => {
                let p = known.inner();
                let (request, caller) = (p.request(), p.request().caller_user.as_str());
                (p.peer(), request, user, caller, Task::Trust)
            }
        };
        let asks = asks(user, &request.command);
        let begin = Begin {
            user: user.to_string(),
            remote_host: peer.to_string(),
            remote_user: remote_user.to_owned(),
            task,
            groups: self.settings.gui.groups(),
            limits: self.inherited,
        };
        if socket::has_hung_up(socket.as_fd()) {
            return Err(Reject::Left(peer));
        }
        let is_unauthenticated = matches!(who, LoginSubject::LoginClaim(_));
        let refuse = |words| {
            Err(Refusal::new(Cause::Busy, format!("{asks}{words}"))
                .of(peer)
                .from_unauthenticated(is_unauthenticated)
                .into())
        };
        if let Some(why) = self.cannot_start() {
            return refuse(why);
        }
        match self.logins.room(&who, peer, self.settings.login.waiting) {
            Room::Free => {}
            Room::Instead(oldest) => {
                self.interrupt_login(oldest, Cause::Busy, MADE_ROOM);
            }
            Room::Full => return refuse("too many logins in progress"),
        }
        log!(self.log, Debug, "login", connection, user = begin.user);
        let until = now + self.settings.login.time;
        let mut login = Login::new(connection, peer, who, socket, begin, asks, until);
        (login.conversation, login.welcome) = (conversation, welcome);
        let id = self.logins.add(login);
        self.unauthenticated
            .insert(connection, Preauth::LoggingIn(id));
        self.grant_pam_slots(now);
        Ok(())
    }

    /// Gives PAM slots to waiting logins while any are free.
    pub(super) fn grant_pam_slots(&mut self, now: Instant) {
        let (most, check) = (self.settings.login.checks, self.settings.login.check);
        loop {
            let registry = self.poll.registry();
            match self.logins.grant_pam_slot(registry, most, check, now) {
                None => return self.note_pam_slot(),
                Some((_, Ok(()))) => {}
                Some((id, Err(e))) => self.refuse_login(id, Cause::System, &e.to_string()),
            }
        }
    }

    /// Handles the messages of a login's worker.
    pub(super) fn handle_worker(&mut self, id: LoginId, buffer: &mut [u8], now: Instant) {
        // Only until the login is refused: then its PAM slot is another's.
        while let Some(login) = self.logins.get(id) {
            match login.channel().map(|c| c.receive(buffer)) {
                Some(Ok(Incoming::Message(message, _))) => {
                    match WorkerToMonitor::decode(&message) {
                        Some(word) => self.handle_worker_message(id, word, now),
                        None => self.logins.kill(id),
                    }
                }
                Some(Ok(Incoming::Nothing)) => break,
                Some(Ok(Incoming::Gone) | Err(_)) | None => {
                    self.worker_ended(id, now);
                    break;
                }
            }
        }
        self.grant_pam_slots(now);
    }

    fn handle_worker_message(&mut self, id: LoginId, word: WorkerToMonitor, now: Instant) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        if matches!(login.stage, Stage::Concluding) {
            return self.handle_conclusion(id, &word);
        }
        login.late = None;
        if let (WorkerToMonitor::Known(_), Answered::Taken) = (&word, login.answers) {
            login.answers = Answered::Judged;
        }
        let outcome = match (word, &login.stage) {
            (WorkerToMonitor::Ask(_), Stage::Checking) if login.has_left => {
                return self.interrupt_login(id, Cause::Login, ASKED_ON);
            }
            (WorkerToMonitor::Known(_), Stage::Checking) if login.has_left => {
                return self.part_login(id);
            }
            (WorkerToMonitor::Ask(texts), Stage::Checking) => self.prompt(id, texts, now),
            (WorkerToMonitor::Known(known), Stage::Checking) => self.grant_login(id, known, now),
            (WorkerToMonitor::Running(started), Stage::Launching(..)) => {
                self.accept_login(id, started, now)
            }
            (WorkerToMonitor::Exited(n), _) => {
                return self.application_ended(id, End::Exited(n), now);
            }
            (WorkerToMonitor::Killed(n), _) => {
                return self.application_ended(id, End::Killed(n), now);
            }
            (WorkerToMonitor::Refused(code, words), Stage::Checking | Stage::Launching(..)) => {
                let words = format!("PAM: {words} ({code})");
                return self.refuse_login(id, Cause::Login, &words);
            }
            (WorkerToMonitor::Failed(words), Stage::Checking) => {
                return self.refuse_login(id, Cause::Pam, &words);
            }
            (WorkerToMonitor::Failed(words), Stage::Launching(..)) => {
                return self.refuse_login(id, Cause::System, &words);
            }
            _ => return self.logins.kill(id),
        };
        match outcome {
            Ok(()) => {}
            Err(Reject::Refused(refusal)) => {
                self.interrupt_login(id, refusal.cause, &refusal.words);
            }
            Err(Reject::Closed(why, _)) => self.interrupt_login(id, Cause::System, why),
            Err(Reject::Left(_)) => self.interrupt_login(id, Cause::System, LEFT),
        }
    }

    /// Decides whether the authenticated user may start the requested application.
    fn grant_login(&mut self, id: LoginId, known: Known, now: Instant) -> Result<(), Reject> {
        let holders = match self.logins.get(id).and_then(|login| login.who.as_ref()) {
            Some(LoginSubject::Host(host, _)) => Holder::of(host.inner()),
            Some(LoginSubject::LoginClaim(_)) => vec![Holder::User(known.account.name.clone())],
            None => Vec::new(),
        };
        let cannot = self.cannot_start_for(&holders);
        let (serves, becomes_user) = (self.accounts.serves(), self.accounts.serves().is_none());
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let peer = login.peer;
        if let Some(why) = cannot {
            return Err(Refusal::new(Cause::Busy, why).of(peer).into());
        }
        let caller = match login.who.take() {
            Some(LoginSubject::LoginClaim(login_claim)) => Caller::AuthenticatedUser(Box::new(
                LoginClaim::believed(login_claim, known.account),
            )),
            Some(LoginSubject::Host(host, _)) => {
                let account = same_user(&login.begin, known.account)?;
                policy::check_account(host.inner(), &account).map_err(|r| r.of(peer))?;
                Caller::Host(host, account)
            }
            None => {
                return Err(Reject::Closed(
                    "the worker reported an account twice",
                    Some(peer),
                ));
            }
        };
        let granted = policy::grant_application(caller, &known.groups, &self.settings.gui, serves)
            .map_err(|r| r.of(peer))?;
        // A PAM module may have changed the user; the session is that user's.
        login.begin.user.clone_from(&granted.to().account().name);
        let application = gui::prepare(&granted, &self.settings.exec.path)?;
        let detach = granted.service().detach;
        let streams = gui::Streams::new(detach)?;
        let launch = Launch {
            path: application.path,
            argv: application.argv,
            defaults: application.defaults,
            fixed: application.fixed,
            becomes_user,
            detach,
        };
        login.late = Some(now + self.settings.login.check);
        login.stage = Stage::Launching(Box::new(granted), streams.ours);
        if login.launch(launch, streams.its) {
            Ok(())
        } else {
            Err(Refusal::new(Cause::System, "the login worker died")
                .of(peer)
                .into())
        }
    }

    /// Accepts the connection of an application that runs, and gives it to the relay.
    fn accept_login(&mut self, id: LoginId, started: Started, now: Instant) -> Result<(), Reject> {
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let stage = std::mem::replace(&mut login.stage, Stage::Over);
        let Stage::Launching(mut granted, streams) = stage else {
            return Ok(());
        };
        self.protection.soon(now);
        let pid = Pid::from_raw(started.pid);
        let detach = granted.service().detach;
        let session = self.sessions.number();
        login.stage = if detach {
            login.detached = Some(Detached::new(session, info(&granted), Some(pid)));
            Stage::Detached(pid, started.variables)
        } else {
            Stage::Running(session, started.variables)
        };
        let accepted = login.accept(&mut granted, started.texts);
        let (connection, socket) = (login.connection.take(), login.socket.take());
        let socket = socket.filter(|_| !login.has_left);
        let linger = self.linger(granted.to().host(), granted.to().request());
        self.log_login(session, &granted);
        let (Some(connection), Some(socket)) = (connection, socket) else {
            if let Some(connection) = connection {
                self.unauthenticated.remove(&connection);
                self.send_to_gate(Order::Taken(connection).encode());
            }
            // The peer has left. An application that was to run detached goes on.
            if !detach {
                self.hang_up_unreported(id, session, info(&granted), "client-gone", now);
            }
            return Ok(());
        };
        self.unauthenticated.remove(&connection);
        self.send_to_gate(Order::Taken(connection).encode());
        let leader = if detach {
            Leader::Detached
        } else {
            Leader::Workers(pid)
        };
        let handed = accepted
            .map_err(|m| crate::fault::Fault::new(m.to_string()))
            .and_then(|(answer, keys)| {
                let answer = socket::send_now(socket.as_fd(), answer);
                let streams = streams.map_or_else(nothing, Ok)?;
                let info = info(&granted);
                let to_relay = Session {
                    answer,
                    keys,
                    linger,
                    windows: self.windows(),
                };
                let handover = Handover {
                    id: session,
                    info,
                    leader,
                    streams,
                    socket,
                    channel: Channel::pair()?,
                    session: to_relay,
                };
                self.hand_over(handover, now)
            });
        if let Err(e) = handed {
            log!(self.log, Error, "fault", why = e);
            if !detach {
                self.hang_up_unreported(id, session, info(&granted), "cut", now);
            }
        } else if detach {
            let finished = self.sessions.told(session, End::Exited(0), now);
            self.log_end(finished);
        }
        Ok(())
    }

    /// Hangs up an application that runs already and has not become a session.
    fn hang_up_unreported(
        &mut self,
        id: LoginId,
        session: u64,
        info: SessionInfo,
        why: &'static str,
        now: Instant,
    ) {
        self.hang_up_login(id);
        let unseen = Detached::new(session, info, None);
        self.log_end(Some(unseen.finished(why, None, now)));
    }

    fn log_login(&mut self, session: u64, granted: &Granted<Gui, Caller>) {
        let (to, service) = (granted.to(), granted.service());
        let host = to.host().map_or("", |h| h.name.as_str());
        let display = format!("{}:{}", service.host, service.port);
        log!(
            self.log,
            Info,
            "login",
            session,
            host,
            peer = to.peer(),
            machine = to.machine(),
            user = to.account().name,
            caller = to.request().caller_user,
            application = service.name,
            display,
            detached = service.detach
        );
    }
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
fn same_user(begin: &Begin, account: Account) -> Result<Account, Refusal> {
    if account.name == begin.user {
        return Ok(account);
    }
    let words = format!(
        "PAM changed the user to {} from {}",
        account.name, begin.user
    );
    Err(Refusal::new(Cause::User, words))
}

/// Returns pipes whose other ends are closed: nothing to read, and no reader.
pub(super) fn nothing() -> Result<[OwnedFd; 3], crate::fault::Fault> {
    let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
    let (_, stdin) = pipe2(flags)?;
    let (stdout, _) = pipe2(flags)?;
    let (stderr, _) = pipe2(flags)?;
    Ok([stdin, stdout, stderr])
}
