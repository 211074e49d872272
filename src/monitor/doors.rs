//! How a stranger comes through the doors, top to bottom: he arrives, the outer door is
//! asked about his machine, he shows who he is, the inner door is asked, he may be
//! prompted, and he is let in.
//!
//! `Opened` → `Admitted` → `Claimant`, `Newcomer` or `Proven` → `Known`. The files of the
//! doors are another process's ([`desk`]); what is decided by them stands here.

mod awaited;
mod away;
mod desk;
mod guesses;
mod keeper;
mod prompt;
mod visit;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Monitor;
use super::answer::{Acceptance, Halt, Stranger};
use super::logins::Who;
use crate::channel::gate::Connection;
use crate::config::place::Place;
use crate::config::words;
use crate::credential::{self, Claimant, Newcomer, Opened, Shows};
use crate::door::asked::{Answer as Told, Question};
use crate::door::{self, Admitted, Id, Known, Lodged, Machine, Name, Pass, Sight, Standing, Way};
use crate::log::Level;
use crate::policy;
use crate::refusal::{Cause, Refusal};
use crate::sys::socket;
use crate::wire::prompt::{Style, Text};
use crate::wire::request::{Command, Service};

pub(super) use awaited::Awaited;
use desk::Ticket;
pub(super) use desk::{Desk, Keeps, Told as Heard};
pub(super) use guesses::Guesses;
pub(super) use visit::Visit;
use visit::{Step, Visitor};

impl Monitor {
    /// A handshake has opened: the doors are asked about its machine, before anything else
    /// of it is looked at.
    pub(super) fn arrive(
        &mut self,
        c: Connection,
        opened: Opened,
        socket: OwnedFd,
        peer: IpAddr,
        now: Instant,
    ) -> Result<(), Halt> {
        let id = Id::of(opened.machine());
        let local = socket::local(socket.as_fd());
        let is_local = peer.is_loopback() || local.is_ok_and(|own| own.ip() == peer);
        let visit = Visit {
            socket,
            peer,
            is_local,
            step: Step::Arrives(Box::new(opened)),
            ticket: None,
            welcome: String::new(),
            has_left: false,
        };
        self.ask_doors(c, Box::new(visit), Question::Look(id), now)
    }

    /// Asks the doors about a visitor, who waits meanwhile.
    fn ask_doors(
        &mut self,
        c: Connection,
        mut visit: Box<Visit>,
        question: Question,
        now: Instant,
    ) -> Result<(), Halt> {
        if let (Question::Look(id), Some(seat)) = (&question, &mut self.inetd) {
            seat.machines.retain(|known| known != id);
            seat.machines.push(*id);
        }
        let (peer, is_strangers) = (visit.peer, visit.is_strangers());
        let trouble = |why: String| {
            let refusal = Refusal::new(Cause::Doors, why).of(peer);
            Halt::from(refusal.of_stranger(is_strangers))
        };
        match self.doors.ask(self.poll.registry(), Some(c), question, now) {
            Ok(desk::Asked::Now(told)) => self.doors_say(c, *visit, told, now),
            Ok(desk::Asked::Later(ticket)) => {
                visit.ticket = Some(ticket);
                self.strangers.insert(c, Stranger::AtDoor(visit));
                Ok(())
            }
            Err(e) => Err(trouble(e.to_string())),
        }
    }

    /// What was to be written down, and nobody waits for, is; or is not.
    pub(super) fn log_note(&mut self, told: Told) {
        match told {
            Told::Lodged(Lodged::Registered(pass, name)) => {
                let pairs: [(&str, &dyn std::fmt::Display); 2] =
                    [("machine", &pass.id()), ("host", &name)];
                self.log.say(Level::Info, "introduced", &pairs);
            }
            Told::Fault(why) => self.log.say_noise(Level::Error, "doors", &[("why", &why)]),
            Told::Lodged(Lodged::Wrong(_)) | Told::Sight(_) | Told::Done => {}
        }
    }

    /// The doors have answered about this connection's question.
    fn doors_told(&mut self, c: Connection, ticket: Ticket, told: Told, now: Instant) {
        match self.strangers.remove(&c) {
            Some(Stranger::AtDoor(visit)) if visit.ticket == Some(ticket) => {
                let outcome = self.doors_say(c, *visit, told, now);
                self.conclude(c, outcome);
            }
            // He has left meanwhile, or it is another of the same number.
            other => {
                self.strangers.extend(other.map(|s| (c, s)));
                if let Told::Lodged(Lodged::Registered(pass, name)) = told {
                    self.log_registered(pass.id(), &name, &"left");
                }
            }
        }
    }

    /// A door process has something to say.
    pub(super) fn hear_doors(&mut self, which: Keeps, now: Instant) {
        let registry = self.poll.registry();
        let heard = self.doors.hear(registry, which, &mut self.corpses, now);
        self.pass_on(heard, now);
    }

    /// What the doors should have answered by now.
    pub(super) fn tend_doors(&mut self, now: Instant) {
        let registry = self.poll.registry();
        let heard = self.doors.tend(registry, &mut self.corpses, now);
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
        visit: Visit,
        told: Told,
        now: Instant,
    ) -> Result<(), Halt> {
        let (peer, is_strangers) = (visit.peer, visit.is_strangers());
        let outcome = self.go_through(c, visit, told, now);
        outcome.map_err(|halt| match halt {
            Halt::Refused(refusal) if refusal.peer.is_none() => {
                Halt::Refused(refusal.of(peer).of_stranger(is_strangers))
            }
            Halt::Refused(_) | Halt::Closed(..) | Halt::Left(_) => halt,
        })
    }

    fn go_through(
        &mut self,
        c: Connection,
        visit: Visit,
        told: Told,
        now: Instant,
    ) -> Result<(), Halt> {
        let Visit {
            socket,
            peer,
            is_local,
            step,
            ticket: _,
            welcome,
            has_left,
        } = visit;
        let visit = |step, welcome| {
            Box::new(Visit {
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
            (_, Told::Fault(why)) => Err(Refusal::new(Cause::Doors, why).into()),
            (Step::Arrives(opened), Told::Sight(sight)) => {
                let admitted = Admitted::by(*opened, &sight)?;
                self.step("admitted", &[("connection", &c), ("machine", &sight.id)]);
                let welcome = sight.welcome.clone();
                if let Some(name) = self.name_to_await(&admitted, peer, now) {
                    let step = Step::AwaitsName(Box::new(admitted));
                    let visit = visit(step, welcome);
                    self.strangers.insert(c, Stranger::AtDoor(visit));
                    self.await_name(c, name, peer, now);
                    return Ok(());
                }
                let visitor = self.recognise(c, admitted, peer)?;
                let machine = visitor.machine();
                if machine == sight.id {
                    let visit = visit(Step::VouchedFor(visitor), welcome);
                    return self.at_inner_door(c, visit, &sight, now);
                }
                // It is the host's machine that counts where its signer vouches for a user.
                let visit = visit(Step::VouchedFor(visitor), welcome);
                self.ask_doors(c, visit, Question::Look(machine), now)
            }
            (Step::VouchedFor(visitor), Told::Sight(sight)) => {
                if sight.excluded {
                    let words = format!("machine {} is on the exclude list", sight.id);
                    return Err(Refusal::new(Cause::Excluded, words).into());
                }
                let welcome = sight.welcome.clone();
                let visit = visit(Step::VouchedFor(visitor), welcome);
                self.at_inner_door(c, visit, &sight, now)
            }
            (Step::Registers(visitor, talk), Told::Lodged(Lodged::Registered(pass, name))) => {
                let id = pass.id();
                self.log_registered(id, &name, &peer);
                // While that took its time, the manager may have closed the door to it.
                let visit = visit(Step::Registered(visitor, talk), welcome);
                self.ask_doors(c, visit, Question::Look(id), now)
            }
            (Step::Registered(visitor, talk), Told::Sight(sight)) => {
                let is_host = visitor.host().is_some();
                let visit = visit(Step::Registered(visitor, talk), welcome);
                match door::way(&sight, is_host, is_local) {
                    Way::In(pass) => self.let_in(c, *visit, &pass, now),
                    Way::Ask(_) | Way::Away(_) => {
                        let words = format!("machine {}: it was kept out meanwhile", sight.id);
                        Err(Refusal::new(Cause::UnknownMachine, words).into())
                    }
                }
            }
            (Step::Registers(visitor, _), Told::Lodged(Lodged::Wrong(why))) => {
                let words = format!("machine {}: {why}", visitor.machine());
                Err(Refusal::new(Cause::Activation, words).into())
            }
            (
                Step::Arrives(_)
                | Step::AwaitsName(_)
                | Step::VouchedFor(_)
                | Step::Prompted(..)
                | Step::Registers(..)
                | Step::Registered(..),
                Told::Sight(_) | Told::Lodged(_) | Told::Done,
            ) => Err(Refusal::new(Cause::Doors, "the door process answered out of turn").into()),
        }
    }

    /// A machine is on the inner door's list now, whether or not its user waits for that.
    fn log_registered(&mut self, id: Id, name: &Name, peer: &dyn std::fmt::Display) {
        let pairs: [(&str, &dyn std::fmt::Display); 3] =
            [("machine", &id), ("name", name), ("peer", peer)];
        self.log.say(Level::Info, "registered", &pairs);
    }

    /// Who it is that the outer door has let through: what he shows is looked at now.
    fn recognise(
        &mut self,
        c: Connection,
        admitted: Admitted<Opened>,
        peer: IpAddr,
    ) -> Result<Visitor, Halt> {
        match credential::shows(&admitted).map_err(|r| r.of(peer))? {
            Shows::Password => {
                let claimant = Claimant::new(admitted, peer)?;
                Ok(Visitor::Claimant(Box::new(claimant)))
            }
            Shows::Machine => {
                let newcomer = Newcomer::new(admitted, peer)?;
                Ok(Visitor::Newcomer(Box::new(newcomer)))
            }
            Shows::Proof => {
                let proven = self.prove(admitted, peer).map_err(|r| r.of(peer))?;
                let host = &proven.caller().name;
                self.step("proven", &[("connection", &c), ("host", host)]);
                if !matches!(proven.request().service, Service::Gui(_)) {
                    return Ok(Visitor::Exec(Box::new(proven)));
                }
                let user = policy::user_of(&proven, self.accounts.serves());
                let user = user.map_err(|r| r.of(peer))?;
                Ok(Visitor::Gui(Box::new(proven), user))
            }
        }
    }

    /// The inner door has been asked about his machine.
    fn at_inner_door(
        &mut self,
        c: Connection,
        visit: Box<Visit>,
        sight: &Sight,
        now: Instant,
    ) -> Result<(), Halt> {
        let Step::VouchedFor(visitor) = &visit.step else {
            return Err(Refusal::new(Cause::Doors, "nobody is at the inner door").into());
        };
        match door::way(sight, visitor.host().is_some(), visit.is_local) {
            Way::In(pass) => {
                self.note_visit(visitor, &pass, sight, visit.is_local, now);
                self.let_in(c, *visit, &pass, now)
            }
            Way::Ask(want) => self.prompt_visitor(c, visit, want),
            Way::Away(why) => {
                let remedy = remedy(&self.place, sight, visitor.host().is_some());
                let words = format!("machine {}: {why}; {remedy}", sight.id);
                Err(Refusal::new(Cause::UnknownMachine, words).into())
            }
        }
    }

    /// What is to be written down of somebody who passes: nobody waits for that.
    fn note_visit(
        &mut self,
        visitor: &Visitor,
        pass: &Pass,
        sight: &Sight,
        is_local: bool,
        now: Instant,
    ) {
        let id = pass.id();
        let question = match visitor
            .host()
            .map(|p| Name::parse(p.caller().name.as_str()))
        {
            Some(Ok(name)) if pass.introduce => Question::Introduce(id, name, !is_local),
            _ if sight.standing == (Standing::Known { unseen: true }) => Question::Saw(id),
            _ => return,
        };
        if let Err(why) = self.doors.note(self.poll.registry(), question, now) {
            self.log.say_noise(Level::Error, "doors", &[("why", &why)]);
        }
    }

    /// Both doors let him in: he goes on with what he came for.
    fn let_in(
        &mut self,
        c: Connection,
        visit: Visit,
        pass: &Pass,
        now: Instant,
    ) -> Result<(), Halt> {
        let Visit {
            socket,
            peer,
            step,
            welcome,
            has_left,
            ..
        } = visit;
        if has_left {
            return Err(Halt::Left(peer));
        }
        let (visitor, talk) = match step {
            Step::VouchedFor(visitor) => (visitor, None),
            Step::Registered(visitor, talk) => (visitor, Some(talk)),
            Step::Arrives(_) | Step::AwaitsName(_) | Step::Prompted(..) | Step::Registers(..) => {
                return Err(Refusal::new(Cause::Doors, "nobody is to be let in").into());
            }
        };
        let welcome = greeting(welcome);
        let of = |r: Refusal| r.of(peer);
        self.step("known", &[("connection", &c), ("machine", &pass.id())]);
        match visitor {
            Visitor::Exec(proven) => {
                let known = Known::by(*proven, pass).map_err(of)?;
                if let Command::Follows { length, .. } = known.who().request().command {
                    return self.ask_for_command(c, known, socket, talk, welcome, length);
                }
                let acceptance = talk.map_or(Acceptance::Message2, Acceptance::Talk);
                self.grant(c, known, socket, acceptance, welcome, now)
            }
            Visitor::Gui(proven, user) => {
                let known = Known::by(proven, pass).map_err(of)?;
                self.begin_login(c, Who::Host(known, user), socket, talk, welcome, now)
            }
            Visitor::Claimant(claimant) => {
                let known = Known::by(claimant, pass).map_err(of)?;
                self.begin_login(c, Who::Claimant(known), socket, talk, welcome, now)
            }
            Visitor::Newcomer(newcomer) => {
                let known = Known::by(newcomer, pass).map_err(of)?;
                self.accept_newcomer(c, known, socket, talk, welcome, now)
            }
        }
    }
}

/// What lets a machine in that is sent away.
fn remedy(place: &Place, sight: &Sight, is_host: bool) -> String {
    let add = format!("machine add {} --name NAME", sight.id);
    let (add, close) = (
        words::cosadm(place, add),
        words::cosadm(place, "door close"),
    );
    let is_known = matches!(sight.standing, Standing::Known { .. });
    let is_left_out = !sight.included && sight.level == door::Level::Closed;
    if is_known && is_left_out && !is_host {
        format!("{close} lets in whoever is authorized by then")
    } else {
        // It puts the machine on the include list as well.
        format!("{add} lets it in")
    }
}

/// What is said to whoever is let in.
fn greeting(welcome: String) -> Vec<Text> {
    let style = Style::Info;
    let welcome = Some(welcome).filter(|w| !w.is_empty());
    let welcome = welcome.map(|words| Text { style, words });
    welcome.into_iter().collect()
}
