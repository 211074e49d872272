//! The admission of a connection, top to bottom: the outer door is checked for its machine, the
//! client authenticates, the inner door is checked, the user may be prompted, and the connection is
//! admitted.
//!
//! `Opened` → `Admitted` → `LoginClaim`, `AuthenticatedMachine` or `AuthenticatedHost` → `Known`.
//! Runs in the monitor. Another process accesses the registry's files ([`registry_client`]); this
//! module makes the decisions from its answers.

mod awaited;
mod denied;
mod guesses;
pub(super) mod pending_admission;
mod prompt;
mod registry_client;
mod registry_worker;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Monitor;
use super::logins::Who;
use super::preauth::{Acceptance, Preauth, Reject};
use crate::auth::policy;
use crate::auth::{self, AuthenticatedMachine, LoginClaim, Opened, Shows};
use crate::config::paths::Paths;
use crate::ipc::gate::Connection;
use crate::log::Level;
use crate::protocol::prompt::{Style, Text};
use crate::protocol::request::{Command, Service};
use crate::refusal::{Cause, Refusal};
use crate::registry::asked::{Answer as Told, Question};
use crate::registry::{
    self, AccessDecision, AdmissionPass, Admitted, Id, Known, Machine, MachineStatus, Name,
    RegistrationOutcome, RegistrationState,
};
use crate::sys::socket;

pub(super) use awaited::Awaited;
pub(super) use guesses::Guesses;
pub(super) use pending_admission::PendingAdmission;
use pending_admission::{Applicant, Step};
use registry_client::Ticket;
pub(super) use registry_client::{RegistryClient, Told as Heard};

impl Monitor {
    /// Handles an opened handshake: queries the registry about its machine before it looks at
    /// anything else of it.
    pub(super) fn arrive(
        &mut self,
        c: Connection,
        opened: Opened,
        socket: OwnedFd,
        peer: IpAddr,
        now: Instant,
    ) -> Result<(), Reject> {
        let id = Id::of(opened.machine());
        let local = socket::local(socket.as_fd());
        let is_local = peer.is_loopback() || local.is_ok_and(|own| own.ip() == peer);
        let admission = PendingAdmission {
            socket,
            peer,
            is_local,
            step: Step::Arrives(Box::new(opened)),
            ticket: None,
            welcome: String::new(),
            has_left: false,
        };
        self.ask_doors(c, Box::new(admission), Question::Look(id), now)
    }

    /// Queries the registry about a pending admission, which waits for the answer.
    fn ask_doors(
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
            Ok(registry_client::Asked::Now(told)) => self.doors_say(c, *admission, told, now),
            Ok(registry_client::Asked::Later(ticket)) => {
                admission.ticket = Some(ticket);
                self.unauthenticated.insert(c, Preauth::AtDoor(admission));
                Ok(())
            }
            Err(e) => Err(trouble(e.to_string())),
        }
    }

    /// Logs the outcome of a registry write that no connection waits for.
    pub(super) fn log_note(&mut self, told: Told) {
        match told {
            Told::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)) => {
                let pairs: [(&str, &dyn std::fmt::Display); 2] =
                    [("machine", &pass.id()), ("host", &name)];
                self.log.say(Level::Info, "auto-registered", &pairs);
            }
            Told::Fault(why) => {
                self.log
                    .log_ratelimited(Level::Error, "registry", &[("why", &why)])
            }
            Told::RegistrationOutcome(RegistrationOutcome::Wrong(_))
            | Told::MachineStatus(_)
            | Told::Done => {}
        }
    }

    /// Handles the registry's answer to this connection's question.
    fn doors_told(&mut self, c: Connection, ticket: Ticket, told: Told, now: Instant) {
        match self.unauthenticated.remove(&c) {
            Some(Preauth::AtDoor(admission)) if admission.ticket == Some(ticket) => {
                let outcome = self.doors_say(c, *admission, told, now);
                self.conclude(c, outcome);
            }
            // // The peer has left, or this is another connection of the same number.
            other => {
                self.unauthenticated.extend(other.map(|s| (c, s)));
                if let Told::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)) = told
                {
                    self.log_registered(pass.id(), &name, &"left");
                }
            }
        }
    }

    /// Handles messages of the registry worker.
    pub(super) fn handle_registry(&mut self, now: Instant) {
        let registry = self.poll.registry();
        let heard = self.doors.hear(registry, &mut self.unreaped, now);
        self.pass_on(heard, now);
    }

    /// Handles registry questions that are overdue.
    pub(super) fn tend_doors(&mut self, now: Instant) {
        let registry = self.poll.registry();
        let heard = self.doors.tend(registry, &mut self.unreaped, now);
        self.pass_on(heard, now);
    }

    fn pass_on(&mut self, heard: Vec<Heard>, now: Instant) {
        for Heard {
            whose,
            ticket,
            answer,
        } in heard
        {
            match (whose, answer) {
                (Some(c), answer) => self.doors_told(c, ticket, answer, now),
                (None, answer) => self.log_note(answer),
            }
        }
    }

    fn doors_say(
        &mut self,
        c: Connection,
        admission: PendingAdmission,
        told: Told,
        now: Instant,
    ) -> Result<(), Reject> {
        let (peer, is_unauthenticated) = (admission.peer, admission.is_unauthenticated());
        let outcome = self.go_through(c, admission, told, now);
        outcome.map_err(|halt| match halt {
            Reject::Refused(refusal) if refusal.peer.is_none() => {
                Reject::Refused(refusal.of(peer).from_unauthenticated(is_unauthenticated))
            }
            Reject::Refused(_) | Reject::Closed(..) | Reject::Left(_) => halt,
        })
    }

    fn go_through(
        &mut self,
        c: Connection,
        admission: PendingAdmission,
        told: Told,
        now: Instant,
    ) -> Result<(), Reject> {
        let PendingAdmission {
            socket,
            peer,
            is_local,
            step,
            ticket: _,
            welcome,
            has_left,
        } = admission;
        let admission = |step, welcome| {
            Box::new(PendingAdmission {
                socket,
                peer,
                is_local,
                step,
                ticket: None,
                welcome,
                has_left,
            })
        };
        match (step, told) {
            (_, Told::Fault(why)) => Err(Refusal::new(Cause::Registry, why).into()),
            (Step::Arrives(opened), Told::MachineStatus(status)) => {
                let admitted = Admitted::by(*opened, &status)?;
                self.step("admitted", &[("connection", &c), ("machine", &status.id)]);
                let welcome = status.welcome.clone();
                if let Some(name) = self.name_to_await(&admitted, peer, now) {
                    let step = Step::AwaitsName(Box::new(admitted));
                    let admission = admission(step, welcome);
                    self.unauthenticated.insert(c, Preauth::AtDoor(admission));
                    self.await_name(c, name, peer, now);
                    return Ok(());
                }
                let applicant = self.recognise(c, admitted, peer)?;
                let machine = applicant.machine();
                if machine == status.id {
                    let admission = admission(Step::VouchedFor(applicant), welcome);
                    return self.at_inner_door(c, admission, &status, now);
                }
                // A signer may vouch for a user with its own key: the inner door checks the host's
                // machine.
                let admission = admission(Step::VouchedFor(applicant), welcome);
                self.ask_doors(c, admission, Question::Look(machine), now)
            }
            (Step::VouchedFor(applicant), Told::MachineStatus(status)) => {
                if status.excluded {
                    let words = format!("machine {} is on the exclude list", status.id);
                    return Err(Refusal::new(Cause::Excluded, words).into());
                }
                let welcome = status.welcome.clone();
                let admission = admission(Step::VouchedFor(applicant), welcome);
                self.at_inner_door(c, admission, &status, now)
            }
            (
                Step::Registers(applicant, talk),
                Told::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)),
            ) => {
                let id = pass.id();
                self.log_registered(id, &name, &peer);
                // Ask again: the manager may have closed the inner door to it during the
                // registration.
                let admission = admission(Step::Registered(applicant, talk), welcome);
                self.ask_doors(c, admission, Question::Look(id), now)
            }
            (Step::Registered(applicant, talk), Told::MachineStatus(status)) => {
                let is_host = applicant.host().is_some();
                let admission = admission(Step::Registered(applicant, talk), welcome);
                match registry::decide(&status, is_host, is_local) {
                    AccessDecision::Allow(pass) => self.let_in(c, *admission, &pass, now),
                    AccessDecision::Prompt(_) | AccessDecision::Deny(_) => {
                        let words = format!(
                            "machine {}: it was denied before it was registered",
                            status.id
                        );
                        Err(Refusal::new(Cause::UnknownMachine, words).into())
                    }
                }
            }
            (
                Step::Registers(applicant, _),
                Told::RegistrationOutcome(RegistrationOutcome::Wrong(why)),
            ) => {
                let words = format!("machine {}: {why}", applicant.machine());
                Err(Refusal::new(Cause::Activation, words).into())
            }
            (
                Step::Arrives(_)
                | Step::AwaitsName(_)
                | Step::VouchedFor(_)
                | Step::Prompted(..)
                | Step::Registers(..)
                | Step::Registered(..),
                Told::MachineStatus(_) | Told::RegistrationOutcome(_) | Told::Done,
            ) => Err(Refusal::new(
                Cause::Registry,
                "an unexpected answer from the registry process",
            )
            .into()),
        }
    }

    /// Logs that a machine is now on the inner door's list, whether or not its user still waits.
    fn log_registered(&mut self, id: Id, name: &Name, peer: &dyn std::fmt::Display) {
        let pairs: [(&str, &dyn std::fmt::Display); 3] =
            [("machine", &id), ("name", name), ("peer", peer)];
        self.log.say(Level::Info, "registered", &pairs);
    }

    /// Authenticates what the outer door has admitted, as far as it can without PAM.
    fn recognise(
        &mut self,
        c: Connection,
        admitted: Admitted<Opened>,
        peer: IpAddr,
    ) -> Result<Applicant, Reject> {
        match auth::shows(&admitted).map_err(|r| r.of(peer))? {
            Shows::Password => {
                let login_claim = LoginClaim::new(admitted, peer)?;
                Ok(Applicant::LoginClaim(Box::new(login_claim)))
            }
            Shows::Machine => {
                let authenticated_machine = AuthenticatedMachine::new(admitted, peer)?;
                Ok(Applicant::AuthenticatedMachine(Box::new(
                    authenticated_machine,
                )))
            }
            Shows::Proof => {
                let authenticated = self
                    .authenticate_host(admitted, peer)
                    .map_err(|r| r.of(peer))?;
                let host = &authenticated.caller().name;
                self.step("proven", &[("connection", &c), ("host", host)]);
                if !matches!(authenticated.request().service, Service::Gui(_)) {
                    return Ok(Applicant::Exec(Box::new(authenticated)));
                }
                let user = policy::user_of(&authenticated, self.accounts.serves());
                let user = user.map_err(|r| r.of(peer))?;
                Ok(Applicant::Gui(Box::new(authenticated), user))
            }
        }
    }

    /// Applies the inner door's decision about the applicant's machine.
    fn at_inner_door(
        &mut self,
        c: Connection,
        admission: Box<PendingAdmission>,
        status: &MachineStatus,
        now: Instant,
    ) -> Result<(), Reject> {
        let Step::VouchedFor(applicant) = &admission.step else {
            return Err(Refusal::new(Cause::Registry, "no registration is pending").into());
        };
        match registry::decide(status, applicant.host().is_some(), admission.is_local) {
            AccessDecision::Allow(pass) => {
                self.note_admission(applicant, &pass, status, admission.is_local, now);
                self.let_in(c, *admission, &pass, now)
            }
            AccessDecision::Prompt(want) => self.prompt_applicant(c, admission, want),
            AccessDecision::Deny(why) => {
                let remedy = remedy(&self.paths, status, applicant.host().is_some());
                let words = format!("machine {}: {why}; {remedy}", status.id);
                Err(Refusal::new(Cause::UnknownMachine, words).into())
            }
        }
    }

    /// Has the registry record what is new about an admitted machine. No connection waits for that.
    fn note_admission(
        &mut self,
        applicant: &Applicant,
        pass: &AdmissionPass,
        status: &MachineStatus,
        is_local: bool,
        now: Instant,
    ) {
        let id = pass.id();
        let question = match applicant
            .host()
            .map(|p| Name::parse(p.caller().name.as_str()))
        {
            Some(Ok(name)) if pass.introduce => Question::Introduce(id, name, !is_local),
            _ if status.state == (RegistrationState::Known { unseen: true }) => Question::Saw(id),
            _ => return,
        };
        if let Err(why) = self.doors.note(self.poll.registry(), question, now) {
            self.log
                .log_ratelimited(Level::Error, "registry", &[("why", &why)]);
        }
    }

    /// Continues with the request of an applicant that both doors have admitted.
    fn let_in(
        &mut self,
        c: Connection,
        admission: PendingAdmission,
        pass: &AdmissionPass,
        now: Instant,
    ) -> Result<(), Reject> {
        let PendingAdmission {
            socket,
            peer,
            step,
            welcome,
            has_left,
            ..
        } = admission;
        if has_left {
            return Err(Reject::Left(peer));
        }
        let (applicant, talk) = match step {
            Step::VouchedFor(applicant) => (applicant, None),
            Step::Registered(applicant, talk) => (applicant, Some(talk)),
            Step::Arrives(_) | Step::AwaitsName(_) | Step::Prompted(..) | Step::Registers(..) => {
                return Err(Refusal::new(Cause::Registry, "no admission is pending").into());
            }
        };
        let welcome = greeting(welcome);
        let of = |r: Refusal| r.of(peer);
        self.step("known", &[("connection", &c), ("machine", &pass.id())]);
        match applicant {
            Applicant::Exec(authenticated) => {
                let known = Known::by(*authenticated, pass).map_err(of)?;
                if let Command::Follows { length, .. } = known.inner().request().command {
                    return self.ask_for_command(c, known, socket, talk, welcome, length);
                }
                let acceptance = talk.map_or(Acceptance::Message2, Acceptance::Talk);
                self.grant(c, known, socket, acceptance, welcome, now)
            }
            Applicant::Gui(authenticated, user) => {
                let known = Known::by(authenticated, pass).map_err(of)?;
                self.begin_login(c, Who::Host(known, user), socket, talk, welcome, now)
            }
            Applicant::LoginClaim(login_claim) => {
                let known = Known::by(login_claim, pass).map_err(of)?;
                self.begin_login(c, Who::LoginClaim(known), socket, talk, welcome, now)
            }
            Applicant::AuthenticatedMachine(authenticated_machine) => {
                let known = Known::by(authenticated_machine, pass).map_err(of)?;
                self.accept_registration(c, known, socket, talk, welcome, now)
            }
        }
    }
}

/// Returns the command that admits a denied machine, for the log.
fn remedy(paths: &Paths, status: &MachineStatus, is_host: bool) -> String {
    let add = format!("machine add {} --name NAME", status.id);
    let (add, close) = (paths.cosadm(add), paths.cosadm("door close"));
    let is_known = matches!(status.state, RegistrationState::Known { .. });
    let is_left_out = !status.included && status.level == registry::Level::Closed;
    if is_known && is_left_out && !is_host {
        format!("{close} allows the machines that are authorized by then")
    } else {
        // It puts the machine on the include list as well.
        format!("{add} authorizes it")
    }
}

/// Returns the welcome text for an admitted client.
fn greeting(welcome: String) -> Vec<Text> {
    let style = Style::Info;
    let welcome = Some(welcome).filter(|w| !w.is_empty());
    let welcome = welcome.map(|words| Text { style, words });
    welcome.into_iter().collect()
}
