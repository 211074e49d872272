//! Connections that wait for the registry: asks it, and resumes them with its answers.
//!
//! Runs in the monitor. Must not decide anything: [`super`] does.

use std::time::Instant;

use super::admission::PendingAdmission;
use crate::daemon::monitor::Monitor;
use crate::daemon::monitor::preauth::{Preauth, Reject};
use crate::daemon::monitor::registry_client::{Asked, Ticket, TicketAnswer};
use crate::ipc::gate::Connection;
use crate::log::{log, log_ratelimited};
use crate::refusal::{Cause, Refusal};
use crate::registry::asked::{Answer as RegistryAnswer, Question};
use crate::registry::{Id, Name, RegistrationOutcome};

impl Monitor {
    /// Queries the registry about a pending admission, which waits for the answer.
    pub(super) fn ask_registry(
        &mut self,
        c: Connection,
        mut admission: Box<PendingAdmission>,
        question: Question,
        now: Instant,
    ) -> Result<(), Reject> {
        if let (Question::Look(id), Some(connection)) = (&question, &mut self.inetd) {
            connection.machines.retain(|known| known != id);
            connection.machines.push(*id);
        }
        let (peer, is_unauthenticated) = (admission.peer, admission.is_unauthenticated());
        let trouble = |why: String| {
            let refusal = Refusal::new(Cause::Registry, why).of(peer);
            Reject::from(refusal.from_unauthenticated(is_unauthenticated))
        };
        match self.doors.ask(self.poll.registry(), Some(c), question, now) {
            Ok(Asked::Now(answer)) => self.resume_connection(c, *admission, answer, now),
            Ok(Asked::Later(ticket)) => {
                admission.ticket = Some(ticket);
                self.unauthenticated.insert(c, Preauth::AtDoor(admission));
                Ok(())
            }
            Err(e) => Err(trouble(e.to_string())),
        }
    }

    /// Handles the registry's answer to this connection's question.
    fn handle_registry_answer(
        &mut self,
        c: Connection,
        ticket: Ticket,
        answer: RegistryAnswer,
        now: Instant,
    ) {
        match self.unauthenticated.remove(&c) {
            Some(Preauth::AtDoor(admission)) if admission.ticket == Some(ticket) => {
                let outcome = self.resume_connection(c, *admission, answer, now);
                self.conclude(c, outcome);
            }
            // The peer has left, or this is another connection of the same number.
            other => {
                self.unauthenticated.extend(other.map(|s| (c, s)));
                if let RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Registered(
                    pass,
                    name,
                )) = answer
                {
                    self.log_registered(pass.id(), &name, &"left");
                }
            }
        }
    }

    fn resume_connection(
        &mut self,
        c: Connection,
        admission: PendingAdmission,
        answer: RegistryAnswer,
        now: Instant,
    ) -> Result<(), Reject> {
        let (peer, is_unauthenticated) = (admission.peer, admission.is_unauthenticated());
        let outcome = self.after_registry(c, admission, answer, now);
        outcome.map_err(|reject| match reject {
            Reject::Refused(refusal) if refusal.peer.is_none() => {
                Reject::Refused(refusal.of(peer).from_unauthenticated(is_unauthenticated))
            }
            Reject::Refused(_) | Reject::Closed(..) | Reject::Left(_) => reject,
        })
    }

    /// Handles messages of the registry worker.
    pub(in crate::daemon::monitor) fn handle_registry(&mut self, now: Instant) {
        let registry = self.poll.registry();
        let answers = self
            .doors
            .handle_messages(registry, &mut self.unreaped, now);
        self.pass_on(answers, now);
    }

    /// Handles registry questions that are overdue.
    pub(in crate::daemon::monitor) fn expire_registry_questions(&mut self, now: Instant) {
        let registry = self.poll.registry();
        let answers = self.doors.expire(registry, &mut self.unreaped, now);
        self.pass_on(answers, now);
    }

    fn pass_on(&mut self, answers: Vec<TicketAnswer>, now: Instant) {
        for TicketAnswer {
            whose,
            ticket,
            answer,
        } in answers
        {
            match (whose, answer) {
                (Some(c), answer) => self.handle_registry_answer(c, ticket, answer, now),
                (None, answer) => self.log_note(answer),
            }
        }
    }

    /// Logs the outcome of a registry write that no connection waits for.
    pub(in crate::daemon::monitor) fn log_note(&mut self, answer: RegistryAnswer) {
        match answer {
            RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)) => {
                log!(
                    self.log,
                    Info,
                    "auto-registered",
                    machine = pass.id(),
                    host = name
                );
            }
            RegistryAnswer::Fault(why) => {
                log_ratelimited!(self.log, Error, "registry", why)
            }
            RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Wrong(_))
            | RegistryAnswer::MachineStatus(_)
            | RegistryAnswer::Done => {}
        }
    }

    /// Logs that a machine is now on the inner door's list, whether or not its user still waits.
    pub(super) fn log_registered(&mut self, id: Id, name: &Name, peer: &dyn std::fmt::Display) {
        log!(self.log, Info, "registered", machine = id, name, peer);
    }
}
