//! The conversation with a host from its first answer until it accepts: which part of the client
//! answers each prompt, and which of the host's texts are shown.
//!
//! Runs in the client. The inner door asks first, and only once. Then PAM asks, at a login. The
//! message names the part of the host that asks. Must not answer it with what was meant for the
//! other.

use std::io::IsTerminal;
use std::os::fd::BorrowedFd;

use super::asker::{self, Asker};
use super::door::Door;
use super::messages::Reporter;
use crate::fault::Fault;
use crate::protocol::limits::ROUNDS;
use crate::protocol::prompt::{Answers, Asks, Text};

/// Called once the host has proven its key.
pub type OnceAuthenticated<'a> = &'a mut dyn FnMut() -> Result<(), Fault>;

/// A conversation.
pub struct Conversation<'a> {
    reporter: &'a Reporter,
    door: Door<'a>,
    login: Option<&'a mut Asker>,
    once_authenticated: Option<OnceAuthenticated<'a>>,
    /// Standard error belongs to the user and not to a command.
    is_persons: bool,
    /// The part of the host that asked last.
    asked: Option<Asks>,
    rounds: usize,
}

/// Why a question was not answered.
pub enum Unanswered {
    /// There is no answer.
    Fault(Fault),
    /// The part of the host that asked may not ask at this point.
    OutOfTurn,
}

impl<'a> Conversation<'a> {
    /// Returns a conversation in which only the inner door may ask.
    pub const fn new(reporter: &'a Reporter, door: Door<'a>) -> Self {
        Self {
            reporter,
            door,
            login: None,
            once_authenticated: None,
            is_persons: false,
            asked: None,
            rounds: 0,
        }
    }

    /// Adds an asker that answers the prompts of a login.
    pub fn with_login(mut self, asker: &'a mut Asker) -> Self {
        self.login = Some(asker);
        self
    }

    /// Adds a function to call once the host has proven its key.
    pub fn once_authenticated(mut self, then: OnceAuthenticated<'a>) -> Self {
        self.once_authenticated = Some(then);
        self
    }

    /// Shows every text of the host, because standard error belongs to the user.
    pub const fn interactive(mut self) -> Self {
        self.is_persons = true;
        self
    }

    /// Whether this is a login, whose answers may wait for a PAM slot.
    pub const fn is_login(&self) -> bool {
        self.login.is_some()
    }

    /// Returns the part of the host that asked last, if any.
    pub const fn asked(&self) -> Option<Asks> {
        self.asked
    }

    /// Reports a step.
    pub(super) fn step(&self, words: impl FnOnce() -> String) {
        self.reporter.step(words);
    }

    /// Reports that the host has proven its key, and runs the function that was added for then.
    ///
    /// # Errors
    /// That function failed.
    pub fn run_once_authenticated(&mut self) -> Result<(), Fault> {
        self.reporter
            .step(|| "the host has proven its key".to_owned());
        match &mut self.once_authenticated {
            Some(then) => then(),
            None => Ok(()),
        }
    }

    /// Returns the answers to the prompts of one message. `vouched`: this host's signer signed the
    /// request, and the inner door checks this host's machine key. `line`: the connection; data on
    /// it ends the wait for the user.
    ///
    /// # Errors
    /// There is no answer, the host does not wait for it, that part of the host may not ask now, or
    /// the host asks too often.
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
                "it asks more than {ROUNDS} times; cos gave up"
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

    /// Shows the texts that came with the acceptance: the host's welcome, and PAM's messages.
    /// Nothing is shown where standard error is a command's and is not a terminal, except with
    /// `-v`.
    pub fn welcome(&self, texts: &[Text]) {
        let is_watched = || self.reporter.is_verbose() || std::io::stderr().is_terminal();
        if !texts.is_empty() && (self.is_persons || is_watched()) {
            texts.iter().for_each(asker::tell);
        }
    }
}
