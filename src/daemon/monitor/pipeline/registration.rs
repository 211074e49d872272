//! Registration at the inner door: what its user is prompted for, what is done with the answer, what
//! the registry notes of a machine that is admitted without a prompt, and how a denied one can be
//! admitted.
//!
//! Runs in the monitor. The registry worker registers the machine (under inetd, the monitor does).
//! Must not admit it: [`super`] asks the registry again first.

use std::os::fd::AsFd;
use std::time::Instant;

use super::super::conversation;
use super::super::parts::Parts;
use super::super::preauth::{
    Applicant, Arrival, PendingAdmission, Preauth, Progress, RoomForPrompt,
};
use super::super::reject::Reject;
use super::step::{Outcome, Step};
use super::{prompt, refuse};
use crate::config::paths::Paths;
use crate::ipc::gate::{Connection, Order};
use crate::log::{Log, log, log_ratelimited};
use crate::protocol::Malformed;
use crate::protocol::answer::Answer;
use crate::protocol::prompt::Answers;
use crate::refusal::{Cause, Refusal};
use crate::registry::asked::{Answer as RegistryAnswer, Question as RegistryQuestion};
use crate::registry::{
    self, AdmissionPass, Id, MachineStatus, Name, PromptFor, RegistrationOutcome, RegistrationState,
};
use crate::sys::socket;

/// Prompts the user of an unknown machine while the outer door is open.
pub(super) fn prompt_user(
    parts: &mut Parts,
    c: Connection,
    arrival: Arrival,
    mut applicant: Applicant,
    want: PromptFor,
) -> Outcome {
    let peer = arrival.peer;
    match parts.connections.room_for_prompt(peer) {
        RoomForPrompt::Free => {}
        RoomForPrompt::Instead(oldest, peer) => {
            let words = "its prompt was the oldest, and was closed for another machine's";
            let refusal = Refusal::new(Cause::Busy, words).of(peer);
            refuse::refuse(parts, oldest, &refusal.from_unauthenticated(true));
        }
        RoomForPrompt::Full => {
            let words = "too many registrations in progress";
            return Err(Refusal::new(Cause::Busy, words).into());
        }
    }
    let (by, texts) = prompt::texts(want);
    let payload = Answer::Prompts { by, texts }.encode()?;
    let message_2 = |payload: &[u8]| applicant.message_2(payload);
    let (record, conversation) = conversation::begin(&payload, message_2)?;
    let (machine, want_name) = (applicant.machine(), prompt::name(want));
    log_ratelimited!(
        parts.ground.log,
        Info,
        "asked",
        machine,
        peer,
        want = want_name
    );
    let seconds = parts.ground.settings.login.time.as_secs().max(1);
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    parts.order(&Order::Prompt(c, seconds, &record));
    let progress = Progress::Prompted(applicant, want, conversation);
    let admission = PendingAdmission::new(arrival, progress);
    Ok(Step::Wait(Preauth::AtDoor(admission)))
}

/// Takes the answer to the inner door's prompt. Returns the question to the registry worker that
/// registers the machine.
pub(super) fn take_answer(
    parts: &mut Parts,
    admission: PendingAdmission,
    record: &[u8],
    now: Instant,
) -> Result<(Arrival, Progress, RegistryQuestion), Reject> {
    let PendingAdmission {
        arrival, progress, ..
    } = admission;
    let peer = arrival.peer;
    let Progress::Prompted(applicant, want, mut conversation) = progress else {
        return Err(Reject::Closed("answers without a prompt", Some(peer)));
    };
    if socket::has_bytes(arrival.socket.as_fd()) {
        return Err(Reject::Closed(
            "data after the answers, before the reply",
            Some(peer),
        ));
    }
    let refuse = |m: Malformed| Reject::from(Refusal::new(Cause::Handshake, m).of(peer));
    let text = conversation.open(record).map_err(refuse)?;
    let answers = Answers::decode(&text, 1).map_err(refuse)?;
    let typed = answers.all().first().cloned().unwrap_or_default();
    let (id, is_remote) = (applicant.machine(), !arrival.is_local);
    let question = match want {
        PromptFor::Name => {
            let name = std::str::from_utf8(&typed).map_err(|e| e.to_string());
            let name = name.and_then(|n| Name::parse(n).map_err(|e| e.to_string()));
            let wrong = |why| {
                let refusal = Refusal::new(Cause::Activation, why).of(peer);
                refusal.from_unauthenticated(true)
            };
            RegistryQuestion::Register(id, name.map_err(wrong)?, is_remote)
        }
        PromptFor::Activation => {
            let interval = parts.ground.settings.daemon.refusal_interval;
            let is_exempt = parts.ground.exempt().has(peer);
            if !is_exempt && !parts.guesses.take(peer, interval, now) {
                let words = "too many activation passwords from this address; it was not checked";
                let refusal = Refusal::new(Cause::Busy, words).of(peer);
                return Err(refusal.from_unauthenticated(true).into());
            }
            let shown = format!("{}@{peer}", applicant.caller());
            let name = Name::parse(&shown).or_else(|_| Name::parse(&peer.to_string()));
            let name = name.map_err(|e| Refusal::new(Cause::System, e).of(peer))?;
            RegistryQuestion::Activate(id, typed, name, is_remote)
        }
    };
    let progress = Progress::Registers(applicant, conversation);
    Ok((arrival, progress, question))
}

// ---- notes, for which no connection waits ----

/// Has the registry record what is new about an admitted machine. No connection waits for that.
pub(super) fn note_admission(
    parts: &mut Parts,
    arrival: &Arrival,
    applicant: &Applicant,
    pass: &AdmissionPass,
    status: &MachineStatus,
    now: Instant,
) {
    let (id, is_remote) = (pass.id(), !arrival.is_local);
    let name = applicant.host();
    let question = match name.map(|host| Name::parse(host.caller().name.as_str())) {
        Some(Ok(name)) if pass.introduce => RegistryQuestion::Introduce(id, name, is_remote),
        _ if status.state == (RegistrationState::Known { unseen: true }) => {
            RegistryQuestion::Visited(id)
        }
        _ => return,
    };
    let poll = parts.ground.poll.registry();
    if let Err(why) = parts.registry.note(poll, question, now) {
        log_ratelimited!(parts.ground.log, Error, "registry", why);
    }
}

/// Logs the outcome of a registry write that no connection waits for.
pub(in super::super) fn log_note(log: &mut Log, answer: RegistryAnswer) {
    match answer {
        RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)) => {
            log!(
                log,
                Info,
                "auto-registered",
                machine = pass.id(),
                host = name
            );
        }
        RegistryAnswer::Fault(why) => log_ratelimited!(log, Error, "registry", why),
        RegistryAnswer::RegistrationOutcome(RegistrationOutcome::Wrong(_))
        | RegistryAnswer::MachineStatus(_)
        | RegistryAnswer::Done => {}
    }
}

/// Logs that a machine is now on the inner door's list, whether or not its user still waits.
pub(super) fn log_registered(
    parts: &mut Parts,
    machine: Id,
    name: &Name,
    peer: &dyn std::fmt::Display,
) {
    log!(parts.ground.log, Info, "registered", machine, name, peer);
}

/// Returns the command that admits a denied machine, for the log.
pub(super) fn remedy(paths: &Paths, status: &MachineStatus, is_host: bool) -> String {
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
