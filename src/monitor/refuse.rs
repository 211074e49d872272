//! How the monitor sends a stranger away: refused with a reference, closed without a
//! word, or forgotten because he has left. The log says why; the wire never does.

use std::net::IpAddr;
use std::time::Instant;

use super::Monitor;
use super::answer::Stranger;
use crate::channel::gate::{Connection, Order};
use crate::log::Level;
use crate::refusal::{Cause, Refusal};
use crate::secret;
use crate::wire::answer::Reference;

/// What PAM had checked of what is refused.
#[derive(Default)]
pub(super) struct Checked {
    /// When it began.
    pub(super) begun: Option<Instant>,
    /// Whether somebody had been asked.
    pub(super) answered: bool,
}

impl Checked {
    /// Whether a guess is refused, though PAM could not tell whether it was right: that may
    /// depend on who he says he is, and what it costs, in penalties and turns, must not.
    pub(super) fn has_guessed(&self, cause: Cause) -> bool {
        cause == Cause::Pam && self.answered
    }
}

impl Monitor {
    /// Refuses a request: `denied` on the wire, the cause in the log, and the penalty.
    pub(super) fn refuse(&mut self, c: Connection, refusal: &Refusal) {
        self.refuse_checked(c, refusal, Checked::default());
    }

    /// Refuses what PAM began to check then.
    pub(super) fn refuse_checked(&mut self, c: Connection, refusal: &Refusal, checked: Checked) {
        self.leave_login(c);
        let Ok(reference) = secret::random().map(Reference) else {
            return self.close(c, "no random bytes", refusal.peer);
        };
        let peer = shown_peer(refusal.peer);
        let pairs: [(&str, &dyn std::fmt::Display); 4] = [
            ("ref", &reference.to_hex()),
            ("peer", &peer),
            ("cause", &refusal.cause.name()),
            ("why", &refusal.words),
        ];
        if refusal.cause.is_after_proof() && !refusal.is_strangers {
            self.log.say(Level::Warning, "denied", &pairs);
        } else {
            self.log.say_noise(Level::Warning, "denied", &pairs);
        }
        let penalty = &self.settings.penalties.authfail;
        let seconds = if refusal.cause.is_unproven() || checked.has_guessed(refusal.cause) {
            penalty.as_secs()
        } else {
            0
        };
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let ago = checked
            .begun
            .map_or(0, |at| at.elapsed().as_millis().max(1));
        let ago = u32::try_from(ago).unwrap_or(u32::MAX);
        self.tell_gate(Order::Deny(c, reference, seconds, ago).encode());
    }

    pub(super) fn close(&mut self, c: Connection, why: &str, peer: Option<IpAddr>) {
        self.leave_login(c);
        let peer = shown_peer(peer);
        self.log.say_noise(
            Level::Warning,
            "turned-away",
            &[("peer", &peer), ("cause", &"malformed"), ("why", &why)],
        );
        self.tell_gate(Order::Close(c).encode());
    }

    pub(super) fn forget(&mut self, c: Connection) {
        match self.strangers.remove(&c) {
            // The look-up goes on, for the others and the next who ask.
            Some(Stranger::Waiting(which)) => {
                if let Some(waiting) = self.pending.get_mut(&which) {
                    waiting.retain(|p| p.connection != c);
                }
            }
            Some(Stranger::LoggingIn(id)) => self.abandon_login(id),
            Some(Stranger::AtDoor(_)) => self.doors.forget(c),
            Some(Stranger::Greeted(_) | Stranger::Asked(_)) | None => {}
        }
    }

    /// Forgets a stranger who is refused or closed, and his login with him.
    fn leave_login(&mut self, c: Connection) {
        if let Some(Stranger::LoggingIn(id)) = self.strangers.remove(&c) {
            self.abandon_login(id);
        }
    }
}

fn shown_peer(peer: Option<IpAddr>) -> String {
    peer.map_or_else(|| "?".to_owned(), |p| p.to_string())
}
