//! What the inner door asks of whoever sits at an unknown machine, and his answer.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use super::visit::{Step, Visit};
use crate::channel::gate::{Connection, Order};
use crate::door::asked::Question;
use crate::door::{Name, Want};
use crate::log::Level;
use crate::monitor::Monitor;
use crate::monitor::answer::{Halt, Stranger};
use crate::monitor::talk::Talk;
use crate::refusal::{Cause, Refusal};
use crate::sources::{Networks, Source};
use crate::sys::socket;
use crate::wire::Malformed;
use crate::wire::answer::Answer;
use crate::wire::prompt::{Answers, Asks, Style, Text};
use crate::wire::record::{self, Kind};

/// So many strangers may be prompted by the inner door at the same time: each of them may
/// answer what takes a hash to be looked up, one after the other.
const PROMPTED: usize = 64;

impl Monitor {
    /// An unknown machine, while the outer door is open: whoever sits there is asked.
    pub(super) fn prompt_visitor(
        &mut self,
        c: Connection,
        mut visit: Box<Visit>,
        want: Want,
    ) -> Result<(), Halt> {
        self.make_room_at_the_door(visit.peer)?;
        let Step::VouchedFor(mut visitor) = visit.step else {
            return Err(Refusal::new(Cause::Doors, "nobody is at the inner door").into());
        };
        let text = |style, words: &str| Text {
            style,
            words: words.to_owned(),
        };
        let (by, texts) = match want {
            Want::Name => (
                Asks::Name,
                vec![
                    text(Style::Info, "This machine is not registered here yet."),
                    text(Style::Shown, "Enter your name: "),
                ],
            ),
            Want::Activation => (
                Asks::Activation,
                vec![
                    text(
                        Style::Info,
                        "You have not been authorized to sign on to this system.",
                    ),
                    text(
                        Style::Info,
                        "In order to do so you must enter an ACTIVATION password.",
                    ),
                    text(Style::Hidden, "Please enter your ACTIVATION password: "),
                ],
            ),
        };
        let machine = visitor.machine();
        let payload = Answer::Prompts { by, texts }.encode()?;
        let (message, keys) = visitor.message_2(&payload)?;
        let talk = Box::new(Talk::new(&keys)?);
        let record = record::compose(Kind::Answer, &message)?;
        visit.step = Step::Prompted(visitor, want, talk);
        visit.ticket = None;
        let seconds = self.settings.login.time.as_secs().max(1);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let what = match want {
            Want::Name => "name",
            Want::Activation => "activation",
        };
        let pairs: [(&str, &dyn std::fmt::Display); 3] = [
            ("machine", &machine),
            ("peer", &visit.peer),
            ("want", &what),
        ];
        self.log.say_noise(Level::Info, "asked", &pairs);
        self.strangers.insert(c, Stranger::AtDoor(visit));
        self.tell_gate(Order::Prompt(c, seconds, &record).encode());
        Ok(())
    }

    /// What was typed at the door: the machine is registered by it, or not.
    pub(in super::super) fn take_visitors_answer(
        &mut self,
        c: Connection,
        mut visit: Box<Visit>,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Halt> {
        let peer = visit.peer;
        let Step::Prompted(visitor, want, mut talk) = visit.step else {
            return Err(Halt::Closed("answers that nobody asked for", Some(peer)));
        };
        if socket::has_bytes(visit.socket.as_fd()) {
            return Err(Halt::Closed("bytes behind answers", Some(peer)));
        }
        let refuse = |m: Malformed| Halt::from(Refusal::new(Cause::Handshake, m).of(peer));
        let envelope = record::parse(record, &[Kind::Sealed]).map_err(refuse)?;
        let mut body = zeroize::Zeroizing::new(envelope.content.to_vec());
        let text = talk.opener.open(&mut body).map_err(refuse)?;
        let answers = Answers::decode(text, 1).map_err(refuse)?;
        let typed = answers.all().first().cloned().unwrap_or_default();
        let (id, remote) = (visitor.machine(), !visit.is_local);
        let question = match want {
            Want::Name => {
                let name = std::str::from_utf8(&typed).map_err(|e| e.to_string());
                let name = name.and_then(|n| Name::parse(n).map_err(|e| e.to_string()));
                let wrong = |why| {
                    Refusal::new(Cause::Activation, why)
                        .of(peer)
                        .of_stranger(true)
                };
                Question::Register(id, name.map_err(wrong)?, remote)
            }
            Want::Activation => {
                let interval = self.settings.daemon.refusal_interval;
                let exempt = self.settings.penalties.exempt.iter();
                let exempt: Networks = exempt.map(|n| n.parts()).collect();
                if !exempt.has(peer) && !self.guesses.take(peer, interval, now) {
                    let words = "too many activation passwords from there; it was not looked up";
                    let refusal = Refusal::new(Cause::Busy, words).of(peer);
                    return Err(refusal.of_stranger(true).into());
                }
                let shown = format!("{}@{peer}", visitor.caller());
                let name = Name::parse(&shown).or_else(|_| Name::parse(&peer.to_string()));
                let name = name.map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
                Question::Activate(id, typed, name, remote)
            }
        };
        visit.step = Step::Registers(visitor, talk);
        self.ask_doors(c, visit, question, now)
    }

    /// One more is to be prompted: where there are too many, the one that waits longest of
    /// the source that has most makes room. Who has answered is not sent away.
    fn make_room_at_the_door(&mut self, newcomer: IpAddr) -> Result<(), Halt> {
        let at_door = self.strangers.iter().filter_map(|(c, s)| match s {
            Stranger::AtDoor(v) => Some((*c, v)),
            Stranger::Greeted(_)
            | Stranger::Asked(_)
            | Stranger::Waiting(_)
            | Stranger::LoggingIn(_) => None,
        });
        let prompted: Vec<_> = at_door.filter(|(_, v)| v.is_prompted()).collect();
        if prompted.len() < PROMPTED {
            return Ok(());
        }
        let of = |from: IpAddr| {
            let source = Source::of(from);
            let same = prompted
                .iter()
                .filter(|(_, v)| Source::of(v.peer) == source);
            same.count()
        };
        let sit = prompted.iter().filter(|(_, v)| !v.has_answered());
        let greediest = sit.map(|(c, v)| (of(v.peer), std::cmp::Reverse(*c), v.peer));
        match greediest.max() {
            Some((held, oldest, peer)) if held > of(newcomer) => {
                let words = "it was there longest, and others wanted to register too";
                let refusal = Refusal::new(Cause::Busy, words).of(peer);
                self.refuse(oldest.0, &refusal.of_stranger(true));
                Ok(())
            }
            _ => Err(Refusal::new(Cause::Busy, "too many are being registered").into()),
        }
    }
}
