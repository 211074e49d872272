//! How the monitor sends a stranger away: refused with a reference, closed without a
//! word, or forgotten because he has left. The log says why; the wire never does.

use std::net::IpAddr;
use std::time::Instant;

use super::Monitor;
use super::preauth::Preauth;
use crate::auth::hash;
use crate::daemon::sources;
use crate::ipc::gate::{Complaint, Connection, Order};
use crate::log::Level;
use crate::protocol::answer::Reference;
use crate::refusal::Refusal;
use crate::registry::Id;
use crate::registry::asked::Question;
use crate::secret;

/// Why one whom nothing else kept out goes no further.
pub(super) const LEFT: &str = "the peer left before it was let in";

/// What PAM had checked of what is refused.
#[derive(Default)]
pub(super) struct Checked {
    /// When it began.
    pub(super) begun: Option<Instant>,
    /// Whether a guess is refused, though PAM has not said whether it was right: that may
    /// depend on who he says he is, and what it costs, in penalties and turns, must not.
    pub(super) has_guessed: bool,
}

impl Checked {
    /// How long ago PAM began, milliseconds, for the gate; 0: it did not.
    fn ago(&self) -> u32 {
        let ago = self.begun.map_or(0, |at| at.elapsed().as_millis().max(1));
        u32::try_from(ago).unwrap_or(u32::MAX)
    }
}

impl Monitor {
    /// Refuses a request: `denied` on the wire, the cause in the log, and the penalty.
    pub(super) fn refuse(&mut self, c: Connection, refusal: &Refusal) {
        self.refuse_checked(Some(c), refusal, &Checked::default());
    }

    /// Refuses what PAM began to check then. Without a connection, whose end the gate has told
    /// of before, it is in the log all the same.
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
        let pairs: [(&str, &dyn std::fmt::Display); 4] = [
            ("ref", &reference.to_hex()),
            ("peer", &peer),
            ("cause", &refusal.cause.name()),
            ("why", &refusal.words),
        ];
        if refusal.cause.is_after_proof() && !refusal.is_unauthenticated {
            self.log.say(Level::Warning, "denied", &pairs);
        } else {
            self.log.log_ratelimited(Level::Warning, "denied", &pairs);
        }
        if refusal.cause.is_unproven() && checked.begun.is_none() {
            self.work_out(refusal.is_worked_out);
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

    /// Closes a connection that would have been accepted, had its peer not left. Its slot is its
    /// own as long as if it had been refused.
    pub(super) fn part(
        &mut self,
        c: Option<Connection>,
        peer: IpAddr,
        why: &str,
        checked: &Checked,
    ) {
        if let Some(c) = c {
            self.leave_login(c);
        }
        self.log.log_ratelimited(
            Level::Warning,
            "turned-away",
            &[
                ("peer", &peer),
                ("cause", &Complaint::Left.name()),
                ("why", &why),
            ],
        );
        let price = sources::price(Complaint::Left, &self.limits());
        match (c, secret::random().map(Reference)) {
            // Nobody reads the refusal.
            (Some(c), Ok(reference)) => {
                self.send_to_gate(Order::Deny(c, reference, price, checked.ago()).encode());
            }
            (Some(c), Err(_)) => self.send_to_gate(Order::Close(c).encode()),
            (None, _) => {}
        }
    }

    /// Does the rest of the work that other refusals are: how long this one takes shows in
    /// when another connection is answered.
    fn work_out(&mut self, is_worked_out: bool) {
        self.key_cache.make_up(&self.host);
        if is_worked_out {
            return;
        }
        self.refresh_hosts();
        if let Ok(table) = self.hosts.table() {
            let paths = self.paths.clone().once();
            hash::verify_dummy_proof(table, &paths, &self.host.public);
        }
    }

    /// Asks the doors about no machine, for a handshake that did not open.
    pub(super) fn look_up_dummy(&mut self, now: Instant) {
        let nobody = Question::Look(Id([0; 16]));
        // What it is, nobody waits for.
        let _ = self.doors.ask(self.poll.registry(), None, nobody, now);
    }

    pub(super) fn close(&mut self, c: Connection, why: &str, peer: Option<IpAddr>) {
        self.leave_login(c);
        let peer = shown_peer(peer);
        self.log.log_ratelimited(
            Level::Warning,
            "turned-away",
            &[("peer", &peer), ("cause", &"malformed"), ("why", &why)],
        );
        self.send_to_gate(Order::Close(c).encode());
    }

    pub(super) fn forget(&mut self, c: Connection) {
        match self.unauthenticated.remove(&c) {
            // The look-up goes on, for the others and the next who ask.
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

    /// A peer does not wait for what is being decided about it. What it has sent to be judged is
    /// judged; anything else is over.
    pub(super) fn handle_left(&mut self, c: Connection) {
        self.step("left", &[("connection", &c)]);
        match self.unauthenticated.get_mut(&c) {
            // It is decided, and the gate will hear of it.
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

    /// Forgets a stranger who is refused or closed, and his login with him.
    fn leave_login(&mut self, c: Connection) {
        if let Some(Preauth::LoggingIn(id)) = self.unauthenticated.remove(&c) {
            self.abandon_login(id);
        }
    }
}

fn shown_peer(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "?".to_owned(), |p| p.to_string())
}
