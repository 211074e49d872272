//! PAM's prompts in a login, and the peer's answers. Runs in the monitor.

use std::os::fd::AsFd;
use std::time::Instant;

use super::Monitor;
use super::logins::{Answered, LoginId, Stage};
use super::preauth::Reject;
use crate::ipc::gate::Order;
use crate::ipc::login::{Order as ToWorker, WorkerToMonitor};
use crate::log::log;
use crate::protocol::Malformed;
use crate::protocol::answer::Answer;
use crate::protocol::prompt::{Answers, Asks, Text};
use crate::refusal::{Cause, Refusal};
use crate::sys::socket;

impl Monitor {
    /// Prompts the peer for PAM. Kills the worker if an unauthenticated peer has left.
    pub(super) fn prompt(
        &mut self,
        id: LoginId,
        texts: Vec<Text>,
        now: Instant,
    ) -> Result<(), Reject> {
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let Some(connection) = login.connection else {
            self.logins.kill(id);
            return Ok(());
        };
        let prompts = texts.iter().filter(|t| t.style.is_prompt()).count();
        let record = login.say(
            &Answer::Prompts {
                by: Asks::Login,
                texts,
            }
            .encode()?,
        )?;
        login.stage = Stage::Prompted(prompts);
        // In whole seconds, rounded up.
        let left = login.until.saturating_duration_since(now);
        let left = left.as_millis().div_ceil(1000).max(1);
        let seconds = u32::try_from(left).unwrap_or(u32::MAX);
        log!(self.log, Debug, "prompt", connection, prompts);
        self.send_to_gate(Order::Prompt(connection, seconds, &record).encode());
        Ok(())
    }

    /// Handles messages of a worker whose peer was refused before PAM decided: there is no answer
    /// to any prompt, and any verdict ends the login.
    pub(super) fn handle_conclusion(&mut self, id: LoginId, word: &WorkerToMonitor) {
        match word {
            WorkerToMonitor::Ask(_) => {
                if let Some(login) = self.logins.get(id) {
                    // If it is dead, the end of its channel follows.
                    login.tell(&ToWorker::NoAnswer, Vec::new());
                }
            }
            WorkerToMonitor::Known(_)
            | WorkerToMonitor::Refused(..)
            | WorkerToMonitor::Failed(_) => {
                self.hang_up_login(id);
            }
            WorkerToMonitor::Running(_)
            | WorkerToMonitor::Exited(_)
            | WorkerToMonitor::Killed(_) => self.logins.kill(id),
        }
    }

    /// Takes the peer's answers, which wait for a PAM slot. A peer that breaks the protocol after
    /// PAM has an answer is refused for a wrong guess, and not only closed.
    pub(super) fn take_answers(
        &mut self,
        id: LoginId,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Reject> {
        let taken = self.queue_answers(id, record, now);
        let undecided = self.logins.get(id).is_some_and(|l| l.is_undecided());
        match taken {
            Err(Reject::Closed(why, _)) if undecided => {
                self.interrupt_login(id, Cause::Handshake, why);
                Ok(())
            }
            Err(Reject::Refused(refusal)) if undecided => {
                self.interrupt_login(id, refusal.cause, &refusal.words);
                Ok(())
            }
            taken => taken,
        }
    }

    fn queue_answers(&mut self, id: LoginId, record: &[u8], now: Instant) -> Result<(), Reject> {
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let (Stage::Prompted(expected), Some(conversation)) =
            (&login.stage, &mut login.conversation)
        else {
            return Err(Reject::Closed("answers without a prompt", Some(login.peer)));
        };
        let peer = login.peer;
        if login
            .socket
            .as_ref()
            .is_some_and(|s| socket::has_bytes(s.as_fd()))
        {
            return Err(Reject::Closed("bytes behind answers", Some(peer)));
        }
        let refuse = |m: Malformed| Reject::from(Refusal::new(Cause::Handshake, m).of(peer));
        let text = conversation.open(record).map_err(refuse)?;
        let answers = Answers::decode(&text, *expected).map_err(refuse)?;
        login.asked = now;
        if login.answers == Answered::Nothing {
            login.answers = Answered::Given;
        }
        login.stage = Stage::Queued(ToWorker::Answers(answers.all().to_vec()));
        self.grant_pam_slots(now);
        Ok(())
    }
}
