//! The last step of a command: starts the job, accepts the connection, and gives both to the relay.
//! Also the last step of a registration, whose session is empty.
//!
//! Runs in the monitor. Must start nothing that was not granted.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::step::{Outcome, Step};
use crate::auth::policy::{self, Connect, Exec, Granted};
use crate::auth::{AuthenticatedHost, AuthenticatedMachine};
use crate::config::hostinfo::Entry;
use crate::config::linger::Linger;
use crate::daemon::monitor::conversation::{self, Conversation};
use crate::daemon::monitor::ground::Ground;
use crate::daemon::monitor::parts::{Handover, Parts};
use crate::daemon::monitor::preauth::Pending;
use crate::daemon::monitor::sessions::shares::Holder;
use crate::daemon::monitor::sessions::{Leader, SessionInfo};
use crate::fault::Fault;
use crate::ipc::Channel;
use crate::ipc::gate::{Connection, Order};
use crate::ipc::relay::Session;
use crate::log::{Level, Log, log, log_ratelimited};
use crate::protocol::answer::Answer;
use crate::protocol::limits;
use crate::protocol::prompt::Text;
use crate::protocol::request::{ENROL, EXEC, Request};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Id, Known, Machine};
use crate::sys::account::{Account, UserRecord};
use crate::sys::socket;

/// Starts the job of a granted request, accepts the connection, and gives both to the relay.
pub(super) fn start(
    parts: &mut Parts,
    connection: Connection,
    pending: Pending<Granted<Exec>>,
    record: &UserRecord,
    now: Instant,
) -> Outcome {
    let Pending {
        request: mut granted,
        socket,
        conversation,
        welcome,
    } = pending;
    let account = &record.account;
    let peer = granted.authenticated().peer();
    // A named service has its own rule: "@caller" never becomes root, and an administrator may name
    // root.
    if granted.service().service.is_none() {
        policy::check_account(granted.authenticated(), account).map_err(|r| r.of(peer))?;
    }
    // Locked or expired accounts, and nologin(5).
    let usable = parts.names.check(record, granted.service().account_use());
    usable.map_err(|why| Refusal::new(Cause::Account, why).of(peer))?;
    let channel = Channel::pair().map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
    // The job first: it starts during the handshake's key agreement.
    // `serves` names the only user of a daemon that is not root, whose jobs are that user's already.
    let becomes_user = parts.names.serves().is_none();
    let (ground, jobs) = (&mut parts.ground, &mut parts.jobs);
    let running = jobs.start(ground, &granted, account, becomes_user, &socket, now);
    let running = running.map_err(|r| r.of(peer))?;
    let pid = running.pid();
    let host = granted.authenticated_mut();
    let payload = host.acceptance(welcome);
    let message_2 = |payload: &[u8]| host.message_2(payload);
    let accepted = payload.and_then(|p| conversation::accept(conversation, &p, message_2));
    let (answer, keys) = accepted.inspect_err(|_| jobs.kill(ground, pid))?;
    // Sent from here, so that the client works while the relay begins.
    let answer = socket::send_now(socket.as_fd(), answer);
    let host = granted.authenticated();
    let session = Session {
        answer,
        keys,
        linger: linger(ground, Some(host.caller()), host.request()),
        windows: ground.windows(),
        is_backend: false,
    };
    let id = jobs.sessions_mut().number();
    let handover = Handover {
        id,
        info: info(host, granted.service().user.as_str()),
        leader: Leader::Ours(pid),
        streams: running.into_pipes(),
        socket,
        channel,
        session,
    };
    match parts.hand_over(handover, now) {
        Ok(()) => {
            log_start(&mut parts.ground.log, id, &granted, account);
            parts.jobs.note_session(&parts.ground, now);
        }
        Err(e) => {
            let why = e.while_doing("a command was killed at once");
            log!(parts.ground.log, Error, "fault", why);
            parts.jobs.kill(&mut parts.ground, pid);
        }
    }
    parts.order(&Order::Forget(connection));
    Ok(Step::Done)
}

/// Accepts a connection whose session only has output, which is all there at once.
pub(super) fn tell<S>(
    parts: &mut Parts,
    connection: Connection,
    pending: Pending<Granted<S>>,
    output: OwnedFd,
    now: Instant,
) -> Outcome {
    let peer = pending.request.authenticated().peer();
    let [stdin, _, stderr] = closed_pipes().map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
    let info = info(pending.request.authenticated(), "");
    let streams = [stdin, output, stderr];
    accept_without_job(parts, connection, pending, info, streams, false, now)
}

/// Accepts a connection whose backend is connected at this socket.
pub(super) fn connected(
    parts: &mut Parts,
    connection: Connection,
    pending: Pending<Granted<Connect>>,
    backend: OwnedFd,
    now: Instant,
) -> Outcome {
    let granted = &pending.request;
    let host = granted.authenticated();
    let peer = host.peer();
    let failed = |e: Fault| Refusal::new(Cause::System, e).of(peer);
    let [_, _, stderr] = closed_pipes().map_err(failed)?;
    // A host that lost power would keep the session for ever. Fails for a Unix socket alone.
    let keep_alive = parts.ground.settings.daemon.keep_alive.as_secs();
    let keep_alive = u32::try_from(keep_alive).unwrap_or(u32::MAX);
    let _ = socket::notice_loss(backend.as_fd(), keep_alive);
    let copy = backend.try_clone().map_err(|e| failed(e.into()))?;
    let info = SessionInfo {
        command: granted.service().name.clone(),
        ..info(host, granted.service().user.as_str())
    };
    let streams = [copy, backend, stderr];
    accept_without_job(parts, connection, pending, info, streams, true, now)
}

/// Accepts a connection whose session has these streams and no job.
fn accept_without_job<S>(
    parts: &mut Parts,
    connection: Connection,
    pending: Pending<Granted<S>>,
    info: SessionInfo,
    streams: [OwnedFd; 3],
    is_backend: bool,
    now: Instant,
) -> Outcome {
    let Pending {
        request: mut granted,
        socket,
        conversation,
        welcome,
    } = pending;
    let host = granted.authenticated_mut();
    let peer = host.peer();
    let channel = Channel::pair().map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
    let payload = host.acceptance(welcome)?;
    let (answer, keys) = conversation::accept(conversation, &payload, |p| host.message_2(p))?;
    let answer = socket::send_now(socket.as_fd(), answer);
    let id = parts.jobs.sessions_mut().number();
    log!(
        parts.ground.log,
        Info,
        "exec",
        session = id,
        host = info.host,
        peer,
        machine = Id::of(host.machine()),
        user = info.user,
        caller = info.caller,
        service = info.service,
        command = info.command
    );
    let handover = Handover {
        id,
        info,
        leader: Leader::NoProcess,
        streams,
        socket,
        channel,
        session: Session {
            answer,
            keys,
            // A backend's session lasts until both directions have ended.
            linger: if is_backend { limits::UNTIL_CLOSED } else { 0 },
            windows: parts.ground.windows(),
            is_backend,
        },
    };
    match parts.hand_over(handover, now) {
        Ok(()) => parts.end_without_process(id, now),
        Err(e) => log!(parts.ground.log, Error, "fault", why = e),
    }
    parts.order(&Order::Forget(connection));
    Ok(Step::Done)
}

/// Returns what is known of a host's session as this user.
fn info(host: &AuthenticatedHost, user: &str) -> SessionInfo {
    SessionInfo {
        host: host.caller().name.to_string(),
        user: user.to_owned(),
        peer: host.peer(),
        caller: host.request().caller_user.to_string(),
        service: host.request().service.name().to_owned(),
        machines: host.machines(),
        command: host.request().command.shown(),
        holders: Holder::of(host),
    }
}

fn log_start(log: &mut Log, id: u64, granted: &Granted<Exec>, account: &Account) {
    let host = granted.authenticated();
    let request = host.request();
    let (command, service) = (request.command.shown(), request.service.name());
    let (peer, machine) = (host.peer(), Id::of(host.machine()));
    let mut pairs: Vec<(&str, &dyn std::fmt::Display)> = vec![
        ("session", &id),
        ("host", &host.caller().name),
        ("peer", &peer),
        ("machine", &machine),
        ("user", &account.name),
        ("caller", &request.caller_user),
    ];
    // The event is about commands; other services add their names.
    if service != EXEC {
        pairs.push(("service", &service));
    }
    pairs.push(("command", &command));
    log.say(Level::Info, "exec", &pairs);
}

/// Tells a machine that it is registered.
pub(super) fn accept_registration(
    parts: &mut Parts,
    connection: Connection,
    known: Known<Box<AuthenticatedMachine>>,
    socket: OwnedFd,
    conversation: Option<Box<Conversation>>,
    texts: Vec<Text>,
    now: Instant,
) -> Outcome {
    let mut machine = known.into_inner();
    let peer = machine.peer();
    if let Some(why) = parts.cannot_start() {
        let refusal = Refusal::new(Cause::Busy, why).of(peer);
        return Err(refusal.from_unauthenticated(true).into());
    }
    let proof = None;
    let payload = Answer::Accept { proof, texts }.encode()?;
    let message_2 = |payload: &[u8]| machine.message_2(payload);
    let (answer, keys) = conversation::accept(conversation, &payload, message_2)?;
    let id = Id::of(machine.machine());
    let session = parts.jobs.sessions_mut().number();
    // An admitted machine can cause any number of these.
    log_ratelimited!(
        parts.ground.log,
        Info,
        "enrol",
        session,
        peer,
        machine = id,
        caller = machine.caller_user()
    );
    let answer = socket::send_now(socket.as_fd(), answer);
    parts.order(&Order::Forget(connection));
    let windows = parts.ground.windows();
    let handed = closed_pipes().and_then(|streams| {
        let handover = Handover {
            id: session,
            info: SessionInfo {
                host: String::new(),
                user: String::new(),
                peer,
                caller: machine.caller_user().to_string(),
                service: ENROL.to_owned(),
                machines: vec![id],
                command: String::new(),
                holders: Vec::new(),
            },
            leader: Leader::Detached,
            streams,
            socket,
            channel: Channel::pair()?,
            session: Session {
                answer,
                keys,
                linger: 0,
                windows,
                is_backend: false,
            },
        };
        parts.hand_over(handover, now)
    });
    match handed {
        Ok(()) => {
            parts.end_without_process(session, now);
        }
        Err(e) => log!(parts.ground.log, Error, "fault", why = e),
    }
    Ok(Step::Done)
}

/// Returns a session's linger time in milliseconds: the request's own, else that of the host's
/// line, else the daemon's.
pub(super) fn linger(ground: &Ground, host: Option<&Entry>, request: &Request) -> u32 {
    let asked = request.linger.map(|seconds| match seconds {
        limits::UNTIL_CLOSED => Linger::UntilClosed,
        seconds => Linger::Seconds(seconds),
    });
    let of_line = || host.and_then(|entry| entry.linger);
    asked.or_else(of_line).map_or_else(
        || u32::try_from(ground.settings.exec.linger.as_millis()).unwrap_or(u32::MAX),
        Linger::milliseconds,
    )
}

/// Returns pipes whose other ends are closed: nothing to read, and no reader.
pub(super) fn closed_pipes() -> Result<[OwnedFd; 3], Fault> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let (_, stdin) = pipe2(flags)?;
    let (stdout, _) = pipe2(flags)?;
    let (stderr, _) = pipe2(flags)?;
    Ok([stdin, stdout, stderr])
}
