//! The conversation with a host from its first answer until it accepts: who answers what
//! it asks, and what of its words is shown. Run by the client.
//!
//! The inner door asks first, and once; then PAM, where a person logs in. Whoever asks is
//! named on the wire, so that no answer reaches the wrong one.

use std::io::IsTerminal;
use std::os::fd::BorrowedFd;

use super::asker::{self, Asker};
use super::door::Door;
use super::messages::Reporter;
use crate::fault::Fault;
use crate::protocol::limits::ROUNDS;
use crate::protocol::prompt::{Answers, Asks, Text};

/// What is done once the host has proven its key.
pub type OnceAuthenticated<'a> = &'a mut dyn FnMut() -> Result<(), Fault>;

/// A conversation.
pub struct Talk<'a> {
    reporter: &'a Reporter,
    door: Door<'a>,
    login: Option<&'a mut Asker>,
    proven: Option<OnceAuthenticated<'a>>,
    /// Standard error is a person's, and no command's.
    is_persons: bool,
    /// By whom we were asked last.
    asked: Option<Asks>,
    rounds: usize,
}

/// Why a question was not answered.
pub enum Unanswered {
    /// Nobody could, or would.
    Fault(Fault),
    /// It was not his turn to ask.
    OutOfTurn,
}

impl<'a> Talk<'a> {
    /// One in which nobody but the door may ask.
    pub const fn new(reporter: &'a Reporter, door: Door<'a>) -> Self {
        Self {
            reporter,
            door,
            login: None,
            proven: None,
            is_persons: false,
            asked: None,
            rounds: 0,
        }
    }

    /// The same, where this asker answers the prompts of a login.
    pub fn with_login(mut self, asker: &'a mut Asker) -> Self {
        self.login = Some(asker);
        self
    }

    /// The same, which does that once the host has proven its key.
    pub fn once_authenticated(mut self, then: OnceAuthenticated<'a>) -> Self {
        self.proven = Some(then);
        self
    }

    /// The same, where a person is told whatever the host has to tell.
    pub const fn for_a_person(mut self) -> Self {
        self.is_persons = true;
        self
    }

    /// Whether the answer may have to wait for its turn with PAM.
    pub const fn is_login(&self) -> bool {
        self.login.is_some()
    }

    /// By whom we were asked last, if at all.
    pub const fn asked(&self) -> Option<Asks> {
        self.asked
    }

    /// Tells a step.
    pub(super) fn step(&self, words: impl FnOnce() -> String) {
        self.reporter.step(words);
    }

    /// Does what waits for the host's proof.
    ///
    /// # Errors
    /// It failed.
    pub fn is_proven(&mut self) -> Result<(), Fault> {
        self.reporter
            .step(|| "the host has proven its key".to_owned());
        match &mut self.proven {
            Some(then) => then(),
            None => Ok(()),
        }
    }

    /// The answers to the prompts of one message. `vouched`: this host's signer speaks
    /// for us, and the door looks at this host's machine. `line`: the connection, which
    /// ends the waiting for a person once something comes on it.
    ///
    /// # Errors
    /// Nobody answers, the host does not wait for it, it is not his turn, or the host does not stop asking.
    pub fn answer(
        &mut self,
        by: Asks,
        texts: &[Text],
        vouched: bool,
        line: BorrowedFd<'_>,
    ) -> Result<Answers, Unanswered> {
        let first = self.asked.is_none();
        self.asked = Some(by);
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > ROUNDS {
            return Err(Unanswered::Fault(Fault::new(format!(
                "it asks more than {ROUNDS} times, which no login needs; it was given up"
            ))));
        }
        for text in texts.iter().filter(|t| t.style.is_prompt()) {
            self.reporter.step(|| format!("it asks {:?}", text.words));
        }
        let answers = match (by, &mut self.login) {
            (Asks::Login, Some(asker)) => asker.answer(texts, line),
            (Asks::Name | Asks::Activation, _) if first => {
                self.door.answer(by, texts, vouched, line)
            }
            (Asks::Login, None) | (Asks::Name | Asks::Activation, _) => {
                return Err(Unanswered::OutOfTurn);
            }
        };
        answers.map_err(Unanswered::Fault)
    }

    /// Shows what came with the acceptance: the host's welcome, and what PAM tells. The
    /// standard error of a command that nobody watches has none of it.
    pub fn welcome(&self, texts: &[Text]) {
        let is_watched = || self.reporter.is_verbose() || std::io::stderr().is_terminal();
        if !texts.is_empty() && (self.is_persons || is_watched()) {
            texts.iter().for_each(asker::tell);
        }
    }
}
