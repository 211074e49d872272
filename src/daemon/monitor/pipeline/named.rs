//! A request for a named service (seed 003), once both doors have admitted its caller: the caller's
//! account is looked up, the service's lists decide, and what was granted is started.
//!
//! Runs in the monitor. `auth::policy` decides. Must not tell an absent service from a forbidden one
//! but in the log: both take the same look-ups, and are refused alike.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::fcntl::OFlag;
#[cfg(target_os = "linux")]
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{pipe2, write};

use super::start;
use super::step::{Outcome, Step};
use crate::auth::policy::{
    self, AccountUse, Connect, ConnectTo, Granted, GrantedService, ServiceCaller, ServiceContext,
};
use crate::config::named_services::Backend;
use crate::config::times::WeekTime;
use crate::daemon::monitor::backends::Target;
use crate::daemon::monitor::names::FoundUser;
use crate::daemon::monitor::parts::Parts;
use crate::daemon::monitor::preauth::{AwaitsAccount, Pending, Preauth};
use crate::daemon::monitor::sessions::shares::Holder;
use crate::fault::Fault;
use crate::ipc::gate::Connection;
use crate::log::{log, log_ratelimited};
use crate::refusal::{Cause, Refusal};
use crate::sys::account::UserRecord;
use crate::sys::neighbours;

/// What a new pipe holds (pipe(7): 64 KiB), and to which size one is enlarged, bytes.
#[cfg(target_os = "linux")]
const NEW_PIPE: usize = 64 * 1024;
#[cfg(target_os = "linux")]
const LARGE_PIPE: libc::c_int = 1 << 20;

/// Looks up the account that the caller has here, then decides.
pub(super) fn begin(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<ServiceCaller>,
    now: Instant,
) -> Outcome {
    let host = pending.request.host();
    let (peer, holders) = (host.peer(), Holder::of(host));
    let busy = |why| Err(Refusal::new(Cause::Busy, why).of(peer).into());
    if let Some(why) = parts.cannot_start_for(&holders) {
        return busy(why);
    }
    let Some(user) = pending.request.user() else {
        return decide(parts, c, pending, None, now);
    };
    match parts.names.find_user(&parts.ground, user.as_str(), now) {
        FoundUser::User(record) => decide(parts, c, pending, Some(&record), now),
        FoundUser::Looking(which) => {
            log!(parts.ground.log, Debug, "look-up", connection = c, user);
            let groups = parts.ground.settings.service.groups().to_vec();
            let awaits = AwaitsAccount::Caller(Box::new(pending), groups);
            Ok(Step::Wait(Preauth::AwaitsAccount(which, awaits)))
        }
        FoundUser::Busy(why) => busy(why),
    }
}

/// Applies the service's lists, and starts what is granted. `found`: the caller's account here.
pub(super) fn decide(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<ServiceCaller>,
    found: Option<&UserRecord>,
    now: Instant,
) -> Outcome {
    let peer = pending.request.host().peer();
    // A locked or expired account is no user here.
    let usable = found.filter(|record| parts.names.check(record, AccountUse::LogIn).is_ok());
    let hardware = match parts.ground.settings.service.names_hardware() {
        true => neighbours::hardware_of(peer).unwrap_or_else(|e| {
            let why = format!("the table of neighbours cannot be read: {e}");
            log_ratelimited!(parts.ground.log, Warning, "fault", why);
            None
        }),
        false => None,
    };
    let (caller, rest) = pending.split();
    let time = WeekTime::now().map_err(|e| Refusal::new(Cause::System, e));
    let granted = time.and_then(|time| {
        let context = ServiceContext {
            services: &parts.ground.settings.service,
            account: usable,
            serves: parts.names.serves(),
            hardware,
            time,
        };
        policy::grant_service(caller, &context)
    });
    match granted.map_err(|refusal| refusal.of(peer))? {
        GrantedService::Job(granted) => {
            let user = &granted.service().user;
            let is_found = |record: &&UserRecord| record.account.name == user.as_str();
            match usable.filter(is_found) {
                Some(record) => start::start(parts, c, rest.with(granted), record, now),
                None => super::await_account(parts, c, rest.with(granted), now),
            }
        }
        GrantedService::Names(granted) => {
            let names = filled_pipe(granted.service());
            let names = names.map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
            start::tell(parts, c, rest.with(granted), names, now)
        }
        GrantedService::Backend(granted) => {
            let user = &granted.service().user;
            let is_found = |record: &&UserRecord| record.account.name == user.as_str();
            match usable.filter(is_found) {
                Some(record) => connect(parts, c, rest.with(granted), record, now),
                None => await_account(parts, c, rest.with(granted), now),
            }
        }
    }
}

// ---- forward ----

/// Looks up the account of the user that a backend's connection belongs to.
fn await_account(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<Granted<Connect>>,
    now: Instant,
) -> Outcome {
    let peer = pending.request.authenticated().peer();
    let user = &pending.request.service().user;
    match parts.names.find_user(&parts.ground, user.as_str(), now) {
        FoundUser::User(record) => connect(parts, c, pending, &record, now),
        FoundUser::Looking(which) => {
            let awaits = AwaitsAccount::Backend(Box::new(pending));
            Ok(Step::Wait(Preauth::AwaitsAccount(which, awaits)))
        }
        FoundUser::Busy(why) => Err(Refusal::new(Cause::Busy, why).of(peer).into()),
    }
}

/// Connects to a backend with the account that was found.
pub(super) fn connect_with_account(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<Granted<Connect>>,
    found: Result<Option<&UserRecord>, &String>,
    now: Instant,
) -> Outcome {
    let (name, user) = (
        &pending.request.service().name,
        &pending.request.service().user,
    );
    let words = match found {
        Ok(Some(record)) => return connect(parts, c, pending, record, now),
        Ok(None) => {
            format!("[service.{name}]: there is no user {user}, or it was not found in time")
        }
        Err(why) => format!("[service.{name}]: user {user} cannot be used: {why}"),
    };
    let peer = pending.request.authenticated().peer();
    Err(Refusal::new(Cause::Account, words).of(peer).into())
}

/// Begins to connect to a granted backend as this user.
fn connect(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<Granted<Connect>>,
    record: &UserRecord,
    now: Instant,
) -> Outcome {
    let granted = &pending.request;
    let peer = granted.authenticated().peer();
    let Connect {
        name,
        to,
        account_use,
        ..
    } = granted.service();
    let refuse = |why: String| {
        let words = format!("[service.{name}]: {why}");
        Refusal::new(Cause::Service, words).of(peer)
    };
    parts.names.check(record, *account_use).map_err(refuse)?;
    // A daemon that is not root is that user already.
    let becomes_user = parts.names.serves().is_none();
    let targets = match to {
        ConnectTo::Program(command) => {
            if parts.ground.is_inetd {
                let why = "wait = true needs a daemon that stands by itself, not one of inetd";
                return Err(refuse(why.into()).into());
            }
            let (ground, jobs) = (&mut parts.ground, &mut parts.jobs);
            let (all, account) = (&mut parts.shared_programs, &record.account);
            let path = all.socket_of(ground, jobs, name, command, account, becomes_user);
            vec![Target::Unix(path.map_err(|e| refuse(e.to_string()))?)]
        }
        ConnectTo::Backend(Backend::Unix(path)) => vec![Target::Unix(path.clone())],
        ConnectTo::Backend(Backend::Tcp { host, port }) => match host.parse() {
            Ok(address) => vec![Target::Tcp(SocketAddr::new(address, *port))],
            Err(_) => {
                let which = parts.names.find_backend(&parts.ground, host, now);
                let which = which.map_err(refuse)?;
                log!(parts.ground.log, Debug, "name", connection = c, host);
                let state = Preauth::AwaitsAddress(which, Box::new((pending, record.clone())));
                return Ok(Step::Wait(state));
            }
        },
    };
    begin_connecting(parts, c, pending, record, targets, now)
}

/// Connects to a backend whose host's addresses were found.
pub(super) fn connect_to_host(
    parts: &mut Parts,
    c: Connection,
    (pending, record): (Pending<Granted<Connect>>, UserRecord),
    found: &Result<Vec<IpAddr>, String>,
    now: Instant,
) -> Outcome {
    let granted = &pending.request;
    let Connect { name, to, .. } = granted.service();
    let refuse = |why: &str| {
        let words = format!("[service.{name}]: {why}");
        Refusal::new(Cause::Service, words).of(granted.authenticated().peer())
    };
    let ConnectTo::Backend(Backend::Tcp { host, port }) = to else {
        return Err(refuse("its backend has no address").into());
    };
    let addresses = found
        .as_ref()
        .map_err(|why| refuse(&format!("{host}: {why}")))?;
    let targets = addresses
        .iter()
        .map(|ip| Target::Tcp(SocketAddr::new(*ip, *port)));
    let targets = targets.collect();
    begin_connecting(parts, c, pending, &record, targets, now)
}

/// Begins to connect to the first of these addresses that answers.
fn begin_connecting(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<Granted<Connect>>,
    record: &UserRecord,
    targets: Vec<Target>,
    now: Instant,
) -> Outcome {
    let granted = &pending.request;
    let Connect { name, user, .. } = granted.service();
    let peer = granted.authenticated().peer();
    let becomes_user = parts.names.serves().is_none();
    let account = becomes_user.then_some(&record.account);
    log!(
        parts.ground.log,
        Debug,
        "backend",
        connection = c,
        user,
        service = name
    );
    let (backends, jobs) = (&mut parts.backends, &mut parts.jobs);
    let begun = backends.begin(jobs, (c, peer), name, account, targets, now);
    begun.map_err(|why| {
        let words = format!("[service.{name}]: {why}");
        Refusal::new(Cause::Busy, words).of(peer)
    })?;
    Ok(Step::Wait(Preauth::AwaitsBackend(Box::new(pending))))
}

/// Accepts the connection whose backend is connected, or refuses it.
pub(super) fn connected(
    parts: &mut Parts,
    c: Connection,
    pending: Pending<Granted<Connect>>,
    outcome: Result<OwnedFd, String>,
    now: Instant,
) -> Outcome {
    let host = pending.request.authenticated();
    let (peer, holders) = (host.peer(), Holder::of(host));
    match (outcome, parts.cannot_start_for(&holders)) {
        (_, Some(why)) => Err(Refusal::new(Cause::Busy, why).of(peer).into()),
        (Ok(backend), None) => start::connected(parts, c, pending, backend, now),
        (Err(why), None) => {
            let Connect { name, to, .. } = pending.request.service();
            let to = match to {
                ConnectTo::Backend(to) => to.to_string(),
                ConnectTo::Program(_) => "its program".to_owned(),
            };
            let words = format!("[service.{name}]: {to}: {why}");
            Err(Refusal::new(Cause::Service, words).of(peer).into())
        }
    }
}

// ---- what they need ----

/// Returns the reading end of a pipe that holds this text and then ends.
///
/// # Errors
/// The pipe cannot be made, or has no room for the text.
fn filled_pipe(text: &str) -> Result<OwnedFd, Fault> {
    let (ours, its) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    #[cfg(target_os = "linux")]
    if text.len() > NEW_PIPE {
        // If this fails, the write below is short.
        let _ = fcntl(&its, FcntlArg::F_SETPIPE_SZ(LARGE_PIPE));
    }
    let written = write(&its, text.as_bytes())?;
    match written == text.len() {
        true => Ok(ours),
        false => Err(Fault::new(
            "a pipe has no room for the names of all services",
        )),
    }
}
