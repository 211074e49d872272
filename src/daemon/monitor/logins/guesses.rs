//! Guesses: the cost of an answer that PAM took and did not accept, whether or not its peer waits
//! for the refusal. Runs in the monitor.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::reject::Checked;
use super::{Answered, Login, Logins, Slot, Stage};
use crate::daemon::sources::{self, Source};
use crate::ipc::gate::Connection;
use crate::ipc::login::Order;
use crate::refusal::{Cause, Refusal};

/// Hold the PAM slot for a minimum time after a failure. Otherwise its release leaks how long PAM
/// took, which is longer if there is such a user.
const REST: Duration = Duration::from_millis(100);

/// A wrong guess.
pub(in super::super) struct Guess {
    from: IpAddr,
    /// When its answers came, or its request.
    asked: Instant,
    /// When PAM began to check them.
    begun: Option<Instant>,
    /// Whether it holds its login slot until the refusal is sent.
    pub(super) has_slot: bool,
}

/// A login's refusal, and its cost.
pub(in super::super) struct Denial {
    pub(in super::super) refusal: Refusal,
    /// `None`: the peer has left.
    pub(in super::super) connection: Option<Connection>,
    pub(in super::super) checked: Checked,
    pub(super) guess: Guess,
}

impl Denial {
    /// Whether it was a wrong guess.
    pub(super) fn is_of_guess(&self) -> bool {
        self.refusal.cause == Cause::Login || self.checked.has_guessed
    }
}

/// A wrong guess whose refusal was not sent yet.
pub(super) struct Failed {
    pub(super) source: Source,
    pub(super) until: Instant,
    /// Whether it still holds its login slot.
    pub(super) has_slot: bool,
}

impl Login {
    /// Returns the guess, in case it is wrong.
    const fn guess(&self) -> Guess {
        Guess {
            from: self.peer,
            asked: self.asked,
            begun: self.begun,
            has_slot: matches!(self.slot, Slot::User),
        }
    }

    /// Returns its refusal and what that costs. Takes the connection.
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

    /// Whether PAM has an answer and has not decided.
    pub(in super::super) const fn is_undecided(&self) -> bool {
        let is_open = matches!(
            self.stage,
            Stage::Queued(_) | Stage::Prompted(_) | Stage::Checking
        );
        is_open && matches!(self.answers, Answered::Taken)
    }

    /// Has the worker take PAM to its verdict without the peer, within the time limit, so that the
    /// modules handle a wrong guess as usual.
    pub(super) fn conclude(&mut self, check: Duration) {
        self.stage = Stage::Concluding;
        // If it waits for an answer, there is none.
        if self.late.is_none() {
            self.tell(&Order::NoAnswer, Vec::new());
            self.late = Some(Instant::now() + check);
        }
    }
}

impl Logins {
    /// Whether a worker takes PAM to a verdict that no peer waits for.
    pub(in super::super) fn concludes(&self) -> bool {
        let concludes = |l: &Login| matches!(l.stage, Stage::Concluding);
        self.all.values().any(concludes)
    }

    /// Notes a wrong guess of a source, which counts until its refusal is sent. The number of such
    /// notes is limited.
    pub(super) fn note_failed_guess(&mut self, guess: &Guess, interval: Duration, now: Instant) {
        const MOST: usize = 4096;
        let until = sources::refusal_leaves_at(guess.asked, guess.begun, now, interval);
        let rests = guess.begun.map(|begun| begun + REST);
        self.resting.extend(rests.filter(|until| *until > now));
        self.shared
            .note_failed_guess(guess.from, until.saturating_duration_since(now));
        self.failed.truncate(MOST - 1);
        self.failed.push_front(Failed {
            source: Source::of(guess.from),
            until,
            has_slot: guess.has_slot,
        });
    }
}
