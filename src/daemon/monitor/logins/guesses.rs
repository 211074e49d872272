//! Guesses: what an answer that PAM took and did not accept costs, whether or not its peer
//! waits to be told.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::refuse::Checked;
use super::{Answered, Login, LoginId, Logins, Slot, Stage};
use crate::daemon::sources::{self, Source};
use crate::ipc::gate::Connection;
use crate::ipc::login::Order;
use crate::refusal::{Cause, Refusal};

/// A turn in which PAM said no is another's only so long after it began: when it is free
/// would else tell how long PAM took, which takes longer where there is such a user.
const REST: Duration = Duration::from_millis(100);

/// A guess that was wrong.
pub(in super::super) struct Guess {
    from: IpAddr,
    /// When its answers came, or its request.
    asked: Instant,
    /// When PAM began with them.
    begun: Option<Instant>,
    /// Whether it keeps its place until it is told.
    pub(in super::super) has_slot: bool,
}

/// A login's refusal, and what it costs.
pub(in super::super) struct Denial {
    pub(in super::super) refusal: Refusal,
    /// `None`: nobody is there to be told.
    pub(in super::super) connection: Option<Connection>,
    pub(in super::super) checked: Checked,
    pub(in super::super) guess: Guess,
}

impl Denial {
    /// Whether it was a wrong guess.
    pub(in super::super) fn is_of_guess(&self) -> bool {
        self.refusal.cause == Cause::Login || self.checked.has_guessed
    }
}

/// A wrong guess that has not been told yet.
pub(super) struct Failed {
    pub(super) source: Source,
    pub(super) until: Instant,
    /// Whether its place is still its own.
    pub(super) has_slot: bool,
}

impl Login {
    /// What was guessed, should it be wrong.
    const fn guess(&self) -> Guess {
        Guess {
            from: self.peer,
            asked: self.asked,
            begun: self.begun,
            has_slot: matches!(self.slot, Slot::User),
        }
    }

    /// Its refusal, with all that is to be done about it. The connection is the refusal's then.
    pub(in super::super) fn deny(&mut self, cause: Cause, words: &str) -> Denial {
        let words = format!("{}{words}", self.asks);
        let refusal = Refusal::new(cause, words).of(self.peer);
        Denial {
            refusal: refusal.from_unauthenticated(self.is_unauthenticated()),
            connection: self.connection.take(),
            checked: Checked {
                begun: self.begun,
                has_guessed: self.answers == Answered::Taken,
            },
            guess: self.guess(),
        }
    }

    /// Whether PAM has an answer, and has still to say what it makes of it.
    pub(in super::super) const fn is_undecided(&self) -> bool {
        let is_open = matches!(
            self.stage,
            Stage::Queued(_) | Stage::Prompted(_) | Stage::Checking
        );
        is_open && matches!(self.answers, Answered::Taken)
    }

    /// Has the worker take PAM to its verdict without its peer, within so long: whatever a module
    /// does about a wrong guess, it does.
    pub(in super::super) fn conclude(&mut self, check: Duration) {
        self.stage = Stage::Concluding;
        // Where it waits for an answer there is none.
        if self.late.is_none() {
            self.tell(&Order::NoAnswer, Vec::new());
            self.late = Some(Instant::now() + check);
        }
    }
}

impl Logins {
    /// Whether a worker takes PAM to a verdict that its peer does not wait for.
    pub(in super::super) fn concludes(&self) -> bool {
        let concludes = |l: &Login| matches!(l.stage, Stage::Concluding);
        self.all.values().any(concludes)
    }

    /// The logins in which PAM has an answer and has still to decide.
    pub(in super::super) fn undecided(&self) -> Vec<LoginId> {
        let all = self.all.iter().filter(|(_, l)| l.is_undecided());
        all.map(|(id, _)| *id).collect()
    }

    /// A source has guessed wrong, and will be told when its refusal leaves. So many are
    /// remembered.
    pub(in super::super) fn has_failed(&mut self, guess: Guess, interval: Duration, now: Instant) {
        const MOST: usize = 4096;
        let until = sources::told_at(guess.asked, guess.begun, now, interval);
        let rests = guess.begun.map(|begun| begun + REST);
        self.resting.extend(rests.filter(|until| *until > now));
        self.shared
            .has_failed(guess.from, until.saturating_duration_since(now));
        self.failed.truncate(MOST - 1);
        self.failed.push_front(Failed {
            source: Source::of(guess.from),
            until,
            has_slot: guess.has_slot,
        });
    }
}
