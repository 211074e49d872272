//! How the monitor rejects unauthenticated connections: refused with a reference, closed without an
//! answer, or forgotten because the peer has left. The log has the reason; the peer is never sent
//! it. Runs in the monitor.

use std::net::IpAddr;
use std::time::Instant;

use super::Monitor;
use super::preauth::Preauth;
use crate::auth::hash;
use crate::daemon::sources;
use crate::ipc::gate::{Complaint, Connection, Order};
use crate::log::{Level, log, log_ratelimited};
use crate::protocol::answer::Reference;
use crate::refusal::Refusal;
use crate::registry::Id;
use crate::registry::asked::Question;
use crate::secret;

/// The reason for a connection whose only obstacle is that its peer has left.
pub(super) const LEFT: &str = "the peer left before it was admitted";

/// What PAM had checked of a refused request.
#[derive(Default)]
pub(super) struct Checked {
    /// When the check began.
    pub(super) begun: Option<Instant>,
    /// Whether this refuses a guess that PAM has not judged. Whether PAM has may depend on the user
    /// name; the cost in penalties and slots must not.
    pub(super) has_guessed: bool,
}

impl Checked {
    /// Returns how long ago PAM began, in milliseconds, for the gate; 0 if it did not.
    fn ago(&self) -> u32 {
        let ago = self.begun.map_or(0, |at| at.elapsed().as_millis().max(1));
        u32::try_from(ago).unwrap_or(u32::MAX)
    }
}

impl Monitor {
    /// Refuses a request: sends `denied`, logs the cause, and sets the penalty.
    pub(super) fn refuse(&mut self, c: Connection, refusal: &Refusal) {
        self.refuse_checked(Some(c), refusal, &Checked::default());
    }

    /// Refuses a request that PAM may have begun to check. Logs it even without a connection, whose
    /// end the gate has then reported before.
    pub(super) fn refuse_checked(
        &mut self,
        c: Option<Connection>,
        refusal: &Refusal,
        checked: &Checked,
    ) {
        if let Some(c) = c {
            self.leave_login(c);
        }
        let reference = match (secret::random().map(Reference), c) {
            (Ok(reference), _) => reference,
            (Err(_), Some(c)) => return self.close(c, "no random bytes", refusal.peer),
            (Err(_), None) => return,
        };
        let peer = shown_peer(refusal.peer);
        let is_limited = !refusal.cause.is_after_proof() || refusal.is_unauthenticated;
        if !is_limited || self.log.may_log(Level::Warning, "denied") {
            self.log.say(
                Level::Warning,
                "denied",
                &[
                    ("ref", &reference.to_hex()),
                    ("peer", &peer),
                    ("cause", &refusal.cause.name()),
                    ("why", &refusal.words),
                ],
            );
        }
        if refusal.cause.is_unproven() && checked.begun.is_none() {
            self.do_dummy_work(refusal.is_work_done);
        }
        let penalty = &self.settings.penalties.authfail;
        let seconds = if refusal.cause.is_unproven() || checked.has_guessed {
            penalty.as_secs()
        } else {
            0
        };
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        if let Some(c) = c {
            self.send_to_gate(Order::Deny(c, reference, seconds, checked.ago()).encode());
        }
    }

    /// Closes a connection that would have been accepted if its peer had not left. It holds its
    /// slot as long as a refused one.
    pub(super) fn close_departed(
        &mut self,
        c: Option<Connection>,
        peer: IpAddr,
        why: &str,
        checked: &Checked,
    ) {
        if let Some(c) = c {
            self.leave_login(c);
        }
        log_ratelimited!(
            self.log,
            Warning,
            "closed",
            peer,
            cause = Complaint::Left.name(),
            why
        );
        let price = sources::price(Complaint::Left, &self.limits());
        match (c, secret::random().map(Reference)) {
            // The peer has left and does not read the refusal.
            (Some(c), Ok(reference)) => {
                self.send_to_gate(Order::Deny(c, reference, price, checked.ago()).encode());
            }
            (Some(c), Err(_)) => self.send_to_gate(Order::Close(c).encode()),
            (None, _) => {}
        }
    }

    /// Does the work that other refusals include. Otherwise the answers to other connections would
    /// show how long this one took.
    fn do_dummy_work(&mut self, is_work_done: bool) {
        self.key_cache.make_up(&self.host);
        if is_work_done {
            return;
        }
        self.refresh_hosts();
        if let Ok(table) = self.hosts.table() {
            let paths = self.paths.clone().once();
            hash::verify_dummy_proof(table, &paths, &self.host.public);
        }
    }

    /// Queries the registry about no machine, for a handshake that did not open.
    pub(super) fn look_up_dummy(&mut self, now: Instant) {
        let nobody = Question::Look(Id([0; 16]));
        // No connection waits for the answer.
        let _ = self.doors.ask(self.poll.registry(), None, nobody, now);
    }

    pub(super) fn close(&mut self, c: Connection, why: &str, peer: Option<IpAddr>) {
        self.leave_login(c);
        let peer = shown_peer(peer);
        log_ratelimited!(self.log, Warning, "closed", peer, cause = "malformed", why);
        self.send_to_gate(Order::Close(c).encode());
    }

    pub(super) fn forget(&mut self, c: Connection) {
        match self.unauthenticated.remove(&c) {
            // The look-up goes on, for others that wait for it and for later requests.
            Some(Preauth::Waiting(which)) => {
                if let Some(waiting) = self.pending.get_mut(&which) {
                    waiting.retain(|p| p.connection != c);
                }
            }
            Some(Preauth::LoggingIn(id)) => self.abandon_login(id),
            Some(Preauth::AtDoor(_)) => self.doors.forget(c),
            Some(Preauth::Greeted(_) | Preauth::Asked(_)) | None => {}
        }
    }

    /// Handles a peer that has left. What it has sent for a decision is still decided; all else
    /// ends.
    pub(super) fn handle_left(&mut self, c: Connection) {
        log!(self.log, Debug, "left", connection = c);
        match self.unauthenticated.get_mut(&c) {
            // It is decided already, and the gate will get the order.
            None => return,
            Some(Preauth::AtDoor(admission)) if admission.is_decided_without_peer() => {
                admission.has_left = true;
                return;
            }
            Some(Preauth::LoggingIn(id)) => {
                let id = *id;
                if self.login_goes_on_without_peer(id) {
                    return;
                }
            }
            Some(
                Preauth::AtDoor(_) | Preauth::Greeted(_) | Preauth::Asked(_) | Preauth::Waiting(_),
            ) => {}
        }
        self.forget(c);
        self.send_to_gate(Order::Taken(c).encode());
    }

    /// Forgets an unauthenticated connection that is refused or closed, and its login.
    fn leave_login(&mut self, c: Connection) {
        if let Some(Preauth::LoggingIn(id)) = self.unauthenticated.remove(&c) {
            self.abandon_login(id);
        }
    }
}

fn shown_peer(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "?".to_owned(), |p| p.to_string())
}
