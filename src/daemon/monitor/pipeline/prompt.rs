//! The inner door's prompt to the user of an unknown machine, and the answer. Runs in the monitor.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use super::admission::{PendingAdmission, Step};
use crate::daemon::monitor::Monitor;
use crate::daemon::monitor::conversation::Conversation;
use crate::daemon::monitor::preauth::{Preauth, Reject};
use crate::daemon::sources::{Networks, Source};
use crate::ipc::gate::{Connection, Order};
use crate::log::log_ratelimited;
use crate::protocol::Malformed;
use crate::protocol::answer::Answer;
use crate::protocol::prompt::{Answers, Asks, Style, Text};
use crate::protocol::record::{self, Kind};
use crate::refusal::{Cause, Refusal};
use crate::registry::asked::Question;
use crate::registry::{Name, PromptFor};
use crate::sys::socket;

/// Most unauthenticated connections that the inner door prompts at the same time: each answer may
/// cost a hash, and they are checked one after the other.
const PROMPTED: usize = 64;

impl Monitor {
    /// Prompts the user of an unknown machine while the outer door is open.
    pub(super) fn prompt_applicant(
        &mut self,
        c: Connection,
        mut admission: Box<PendingAdmission>,
        want: PromptFor,
    ) -> Result<(), Reject> {
        self.make_room_for_prompt(admission.peer)?;
        let Step::VouchedFor(mut applicant) = admission.step else {
            return Err(Refusal::new(Cause::Registry, "no registration is pending").into());
        };
        let text = |style, words: &str| Text {
            style,
            words: words.to_owned(),
        };
        let (by, texts) = match want {
            PromptFor::Name => (
                Asks::Name,
                vec![
                    text(Style::Info, "This machine is not registered here yet."),
                    text(Style::Shown, "Enter your name: "),
                ],
            ),
            PromptFor::Activation => (
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
        let machine = applicant.machine();
        let payload = Answer::Prompts { by, texts }.encode()?;
        let (message, keys) = applicant.message_2(&payload)?;
        let conversation = Box::new(Conversation::new(&keys)?);
        let record = record::compose(Kind::Answer, &message)?;
        admission.step = Step::Prompted(applicant, want, conversation);
        admission.ticket = None;
        let seconds = self.settings.login.time.as_secs().max(1);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let what = match want {
            PromptFor::Name => "name",
            PromptFor::Activation => "activation",
        };
        log_ratelimited!(
            self.log,
            Info,
            "asked",
            machine,
            peer = admission.peer,
            want = what
        );
        self.unauthenticated.insert(c, Preauth::AtDoor(admission));
        self.send_to_gate(Order::Prompt(c, seconds, &record).encode());
        Ok(())
    }

    /// Takes the answer to the inner door's prompt, which may register the machine.
    pub(in crate::daemon::monitor) fn take_applicants_answer(
        &mut self,
        c: Connection,
        mut admission: Box<PendingAdmission>,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Reject> {
        let peer = admission.peer;
        let Step::Prompted(applicant, want, mut conversation) = admission.step else {
            return Err(Reject::Closed("answers without a prompt", Some(peer)));
        };
        if socket::has_bytes(admission.socket.as_fd()) {
            return Err(Reject::Closed("bytes behind answers", Some(peer)));
        }
        let refuse = |m: Malformed| Reject::from(Refusal::new(Cause::Handshake, m).of(peer));
        let text = conversation.open(record).map_err(refuse)?;
        let answers = Answers::decode(&text, 1).map_err(refuse)?;
        let typed = answers.all().first().cloned().unwrap_or_default();
        let (id, remote) = (applicant.machine(), !admission.is_local);
        let question = match want {
            PromptFor::Name => {
                let name = std::str::from_utf8(&typed).map_err(|e| e.to_string());
                let name = name.and_then(|n| Name::parse(n).map_err(|e| e.to_string()));
                let wrong = |why| {
                    Refusal::new(Cause::Activation, why)
                        .of(peer)
                        .from_unauthenticated(true)
                };
                Question::Register(id, name.map_err(wrong)?, remote)
            }
            PromptFor::Activation => {
                let interval = self.settings.daemon.refusal_interval;
                let exempt = self.settings.penalties.exempt.iter();
                let exempt: Networks = exempt.map(|n| n.parts()).collect();
                if !exempt.has(peer) && !self.guesses.take(peer, interval, now) {
                    let words =
                        "too many activation passwords from this address; it was not checked";
                    let refusal = Refusal::new(Cause::Busy, words).of(peer);
                    return Err(refusal.from_unauthenticated(true).into());
                }
                let shown = format!("{}@{peer}", applicant.caller());
                let name = Name::parse(&shown).or_else(|_| Name::parse(&peer.to_string()));
                let name = name.map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
                Question::Activate(id, typed, name, remote)
            }
        };
        admission.step = Step::Registers(applicant, conversation);
        self.ask_registry(c, admission, question, now)
    }

    /// Makes room for one more prompt. If there are too many, the connection that has waited
    /// longest of the source that has the most is evicted. One that has answered is not.
    fn make_room_for_prompt(&mut self, authenticated_machine: IpAddr) -> Result<(), Reject> {
        let at_door = self.unauthenticated.iter().filter_map(|(c, s)| match s {
            Preauth::AtDoor(v) => Some((*c, v)),
            Preauth::Greeted(_)
            | Preauth::Asked(_)
            | Preauth::Waiting(_)
            | Preauth::LoggingIn(_) => None,
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
        let unanswered = prompted.iter().filter(|(_, v)| !v.has_answered());
        let largest = unanswered.map(|(c, v)| (of(v.peer), std::cmp::Reverse(*c), v.peer));
        match largest.max() {
            Some((held, oldest, peer)) if held > of(authenticated_machine) => {
                let words = "its prompt was the oldest, and was closed for another machine's";
                let refusal = Refusal::new(Cause::Busy, words).of(peer);
                self.refuse(oldest.0, &refusal.from_unauthenticated(true));
                Ok(())
            }
            _ => Err(Refusal::new(Cause::Busy, "too many registrations in progress").into()),
        }
    }
}
