//! PAM's prompts in a login, the peer's answers, and the acceptance of the peer. Runs in the
//! monitor. Must not send the gate anything: it returns what is to be sent.

use std::os::fd::AsFd;
use std::time::Instant;

use super::super::conversation;
use super::super::ground::Ground;
use super::super::reject::Reject;
use super::{Answered, Login, LoginId, LoginSubject, Logins, Stage};
use crate::auth::policy::{Caller, Granted, Gui};
use crate::ipc::gate::Connection;
use crate::ipc::login::{Order, WorkerToMonitor};
use crate::protocol::Malformed;
use crate::protocol::answer::Answer;
use crate::protocol::noise::Keys;
use crate::protocol::prompt::{self, Answers, Asks, Text};
use crate::refusal::{Cause, Refusal};
use crate::sys::socket;

/// A prompt to be sent to a peer.
pub(in super::super) struct Prompt {
    pub(in super::super) connection: Connection,
    pub(in super::super) record: Vec<u8>,
    /// Within how many seconds the answers are due.
    pub(in super::super) seconds: u32,
    /// How many answers are due.
    pub(in super::super) prompts: usize,
}

impl Login {
    /// Returns the next record to the peer with this answer: message 2, or a sealed one.
    fn say(&mut self, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        if let Some(conversation) = &mut self.conversation {
            return conversation.seal(payload);
        }
        let who = &mut self.who;
        let (record, conversation) = conversation::begin(payload, |payload| match who {
            Some(LoginSubject::LoginClaim(known)) => known.inner_mut().message_2(payload),
            Some(LoginSubject::Host(known, _)) => known.inner_mut().message_2(payload),
            None => Err(Malformed("message 2 without a handshake")),
        })?;
        self.conversation = Some(conversation);
        Ok(record)
    }

    /// Returns the accepting record, and the relay's keys.
    pub(in super::super) fn accept(
        &mut self,
        granted: &mut Granted<Gui, Caller>,
        texts: Vec<Text>,
    ) -> Result<(Vec<u8>, Keys), Malformed> {
        let told = texts.into_iter().filter(|t| !t.style.is_prompt());
        let texts = std::mem::take(&mut self.welcome).into_iter().chain(told);
        let texts = prompt::fit(texts.collect());
        let proof = granted.to().server_proof();
        let payload = Answer::Accept { proof, texts }.encode()?;
        let message_2 = |payload: &[u8]| granted.to_mut().message_2(payload);
        conversation::accept(self.conversation.take(), &payload, message_2)
    }

    /// Takes the peer's answers, which then wait for a PAM slot.
    fn take_answers(&mut self, record: &[u8], now: Instant) -> Result<(), Reject> {
        let peer = self.peer;
        let (Stage::Prompted(expected), Some(conversation)) = (&self.stage, &mut self.conversation)
        else {
            return Err(Reject::Closed("answers without a prompt", Some(peer)));
        };
        let has_more = |socket: &std::os::fd::OwnedFd| socket::has_bytes(socket.as_fd());
        if self.socket.as_ref().is_some_and(has_more) {
            return Err(Reject::Closed("bytes behind answers", Some(peer)));
        }
        let refuse = |m: Malformed| Reject::from(Refusal::new(Cause::Handshake, m).of(peer));
        let text = conversation.open(record).map_err(refuse)?;
        let answers = Answers::decode(&text, *expected).map_err(refuse)?;
        self.asked = now;
        if self.answers == Answered::Nothing {
            self.answers = Answered::Given;
        }
        self.stage = Stage::Queued(Order::Answers(answers.all().to_vec()));
        Ok(())
    }
}

impl Logins {
    /// Returns the prompt that PAM wants sent to the peer. Kills the worker if an unauthenticated
    /// peer has left.
    ///
    /// # Errors
    /// The prompt fits no record.
    pub(in super::super) fn prompt(
        &mut self,
        id: LoginId,
        texts: Vec<Text>,
        now: Instant,
    ) -> Result<Option<Prompt>, Malformed> {
        let Some(login) = self.get(id) else {
            return Ok(None);
        };
        let Some(connection) = login.connection else {
            self.kill(id);
            return Ok(None);
        };
        let prompts = texts.iter().filter(|t| t.style.is_prompt()).count();
        let by = Asks::Login;
        let record = login.say(&Answer::Prompts { by, texts }.encode()?)?;
        login.stage = Stage::Prompted(prompts);
        // In whole seconds, rounded up.
        let left = login.until.saturating_duration_since(now);
        let left = left.as_millis().div_ceil(1000).max(1);
        Ok(Some(Prompt {
            connection,
            record,
            seconds: u32::try_from(left).unwrap_or(u32::MAX),
            prompts,
        }))
    }

    /// Takes the peer's answers, which wait for a PAM slot.
    ///
    /// # Errors
    /// The peer has broken the protocol.
    pub(in super::super) fn take_answers(
        &mut self,
        id: LoginId,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Reject> {
        let login = self.get(id);
        login.map_or(Ok(()), |login| login.take_answers(record, now))
    }

    /// Handles messages of a worker whose peer was refused before PAM decided: there is no answer
    /// to any prompt, and any verdict ends the login.
    pub(in super::super) fn handle_conclusion(
        &mut self,
        ground: &mut Ground,
        id: LoginId,
        message: &WorkerToMonitor,
    ) {
        match message {
            WorkerToMonitor::Ask(_) => {
                if let Some(login) = self.get(id) {
                    // If it is dead, the end of its channel follows.
                    login.tell(&Order::NoAnswer, Vec::new());
                }
            }
            WorkerToMonitor::Authenticated(_)
            | WorkerToMonitor::Refused(..)
            | WorkerToMonitor::Failed(_) => {
                self.hang_up(ground, id);
            }
            WorkerToMonitor::Running(_)
            | WorkerToMonitor::Exited(_)
            | WorkerToMonitor::Killed(_) => self.kill(id),
        }
    }
}
