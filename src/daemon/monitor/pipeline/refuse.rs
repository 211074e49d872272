//! How unauthenticated connections are rejected: refused with a reference, closed without an
//! answer, or forgotten because the peer has left. The log has the reason; the peer is never sent
//! it.
//!
//! Runs in the monitor. Must let no refusal show how far its request had come.

use std::net::IpAddr;
use std::time::Instant;

use crate::auth::hash;
use crate::daemon::monitor::logins::{Denial, LoginId};
use crate::daemon::monitor::parts::Parts;
use crate::daemon::monitor::preauth::{Departure, Preauth};
use crate::daemon::monitor::reject::{Checked, Reject};
use crate::daemon::sources;
use crate::ipc::gate::{Complaint, Connection, Order};
use crate::log::{Level, log, log_ratelimited};
use crate::protocol::answer::Reference;
use crate::refusal::{Cause, Refusal};
use crate::registry::Id;
use crate::registry::asked::Question;
use crate::secret;

/// The reason for a connection whose only obstacle is that its peer has left.
pub(super) const LEFT: &str = "the peer left before it was admitted";

/// Ends a connection whose step has failed.
pub(super) fn reject(parts: &mut Parts, c: Connection, reject: Reject) {
    match reject {
        Reject::Closed(why, peer) => close(parts, c, why, peer),
        Reject::Left(peer) => close_departed(parts, Some(c), peer, LEFT, &Checked::default()),
        Reject::Refused(refusal) => refuse(parts, c, &refusal),
    }
}

/// Refuses a request: sends `denied`, logs the cause, and sets the penalty.
pub(super) fn refuse(parts: &mut Parts, c: Connection, refusal: &Refusal) {
    refuse_checked(parts, Some(c), refusal, &Checked::default());
}

/// Refuses a login.
pub(in super::super) fn deny(parts: &mut Parts, denial: Option<Denial>) {
    if let Some(denial) = denial {
        refuse_checked(parts, denial.connection, &denial.refusal, &denial.checked);
    }
}

/// Refuses a request that PAM may have begun to check. Logs it even without a connection, whose end
/// the gate has then reported before.
fn refuse_checked(parts: &mut Parts, c: Option<Connection>, refusal: &Refusal, checked: &Checked) {
    if let Some(c) = c {
        leave_login(parts, c);
    }
    let reference = match (secret::random().map(Reference), c) {
        (Ok(reference), _) => reference,
        (Err(_), Some(c)) => return close(parts, c, "no random bytes", refusal.peer),
        (Err(_), None) => return,
    };
    let log = &mut parts.ground.log;
    let is_limited = !refusal.cause.is_after_proof() || refusal.is_unauthenticated;
    if !is_limited || log.may_log(Level::Warning, "denied") {
        log.say(
            Level::Warning,
            "denied",
            &[
                ("ref", &reference.to_hex()),
                ("peer", &shown_peer(refusal.peer)),
                ("cause", &refusal.cause.name()),
                ("why", &refusal.words),
            ],
        );
    }
    if refusal.cause.is_unproven() && checked.begun.is_none() {
        do_dummy_work(parts, refusal.is_work_done);
    }
    let penalty = &parts.ground.settings.penalties.authfail;
    let seconds = if refusal.cause.is_unproven() || checked.has_guessed {
        penalty.as_secs()
    } else {
        0
    };
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    if let Some(c) = c {
        parts.order(&Order::Deny(c, reference, seconds, checked.ago()));
    }
}

/// Closes a connection that would have been accepted if its peer had not left. It holds its slot as
/// long as a refused one.
pub(super) fn close_departed(
    parts: &mut Parts,
    c: Option<Connection>,
    peer: IpAddr,
    why: &str,
    checked: &Checked,
) {
    if let Some(c) = c {
        leave_login(parts, c);
    }
    log_ratelimited!(
        parts.ground.log,
        Warning,
        "closed",
        peer,
        cause = Complaint::Left.name(),
        why
    );
    let price = sources::price(Complaint::Left, &parts.ground.gate_limits());
    match (c, secret::random().map(Reference)) {
        // The peer has left and does not read the refusal.
        (Some(c), Ok(reference)) => {
            parts.order(&Order::Deny(c, reference, price, checked.ago()));
        }
        (Some(c), Err(_)) => parts.order(&Order::Close(c)),
        (None, _) => {}
    }
}

/// Does the work that other refusals include. Otherwise the answers to other connections would show
/// how long this one took.
fn do_dummy_work(parts: &mut Parts, is_work_done: bool) {
    let ground = &mut parts.ground;
    parts.key_cache.make_up(&ground.host);
    if is_work_done {
        return;
    }
    parts.names.refresh(ground, Instant::now());
    if let Ok(table) = parts.names.table() {
        let paths = ground.paths.clone().once();
        hash::verify_dummy_proof(table, &paths, &ground.host.public);
    }
}

/// Queries the registry about no machine, for a handshake that did not open.
pub(super) fn look_up_dummy(parts: &mut Parts, now: Instant) {
    let nobody = Question::Look(Id([0; 16]));
    // No connection waits for the answer.
    let poll = parts.ground.poll.registry();
    let _ = parts.registry.ask(poll, None, nobody, now);
}

/// Closes a connection without an answer: its peer did not speak the protocol.
pub(super) fn close(parts: &mut Parts, c: Connection, why: &str, peer: Option<IpAddr>) {
    leave_login(parts, c);
    log_ratelimited!(
        parts.ground.log,
        Warning,
        "closed",
        peer = shown_peer(peer),
        cause = "malformed",
        why
    );
    parts.order(&Order::Close(c));
}

/// Forgets a connection that the gate has forgotten.
pub(super) fn forget(parts: &mut Parts, c: Connection) {
    match parts.connections.remove(c) {
        Some(Preauth::LoggingIn(id)) => abandon(parts, id),
        Some(Preauth::AtDoor(_)) => parts.registry.forget(c),
        // The look-up goes on, for others that wait for it and for later requests.
        Some(Preauth::AwaitsAccount(..)) => {}
        Some(Preauth::AwaitsBackend(_)) => parts.backends.abandon(c),
        // Its look-up ends at its own time limit; nothing waits for it.
        Some(Preauth::AwaitsAddress(..)) => {}
        Some(Preauth::Greeted(..) | Preauth::AwaitsCommand(_)) | None => {}
    }
}

/// Handles a peer that has left. What it has sent for a decision is still decided; all else ends.
pub(super) fn handle_left(parts: &mut Parts, c: Connection) {
    log!(parts.ground.log, Debug, "left", connection = c);
    match parts.connections.note_departure(c) {
        Departure::Decided | Departure::GoesOn => return,
        Departure::Login(id) => {
            let (goes_on, denial) = parts.logins.go_on_without_peer(&mut parts.ground, id);
            deny(parts, denial);
            if goes_on {
                return;
            }
        }
        Departure::Ends => {}
    }
    forget(parts, c);
    parts.order(&Order::Forget(c));
}

/// Handles the loss of the gate: its connections are gone.
pub(in super::super) fn gate_is_lost(parts: &mut Parts) {
    for id in parts.connections.clear() {
        abandon(parts, id);
    }
    if let Some(inetd) = &mut parts.inetd {
        inetd.gate_is_lost(&mut parts.ground);
    }
}

/// Refuses a login that PAM may not have decided yet.
pub(in super::super) fn interrupt(parts: &mut Parts, id: LoginId, cause: Cause, words: &str) {
    let denial = parts.logins.interrupt(&mut parts.ground, id, cause, words);
    deny(parts, denial);
}

/// Refuses all undecided requests of a machine that was excluded while it was connected (`cosadm
/// exclude add --now`). Returns how many there were.
pub(in super::super) fn refuse_undecided(parts: &mut Parts, machine: Id) -> usize {
    let words = "its machine has been excluded";
    parts.connections.forget_looks(machine);
    let all = parts.connections.of_machine(machine);
    for (c, peer) in &all {
        forget(parts, *c);
        refuse(parts, *c, &Refusal::new(Cause::Excluded, words).of(*peer));
    }
    let logins = parts.logins.of_machine(machine);
    for login in &logins {
        interrupt(parts, *login, Cause::Excluded, words);
    }
    all.len() + logins.len()
}

/// Forgets an unauthenticated connection that is refused or closed, and its login.
fn leave_login(parts: &mut Parts, c: Connection) {
    if let Some(Preauth::LoggingIn(id)) = parts.connections.remove(c) {
        abandon(parts, id);
    }
}

/// Handles a login whose peer has left or was refused, and which the gate has forgotten.
fn abandon(parts: &mut Parts, id: LoginId) {
    let denial = parts.logins.abandon(&mut parts.ground, id);
    // It has no connection any more, so this does not come back here.
    deny(parts, denial);
}

fn shown_peer(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "?".to_owned(), |p| p.to_string())
}
