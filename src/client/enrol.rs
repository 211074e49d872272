//! `cos enrol`: has this machine registered at the inner door of a host. Run by the
//! client.
//!
//! The host proves itself first, by a key that is pinned or that a person has agreed to.
//! Then it looks at the machine key of the handshake, and asks for a name or an
//! activation password where it does not know it.

use super::args::Call;
use super::asker::Asker;
use super::door::Door;
use super::greet::{Answer, OurHello};
use super::means::Means;
use super::meet::{self, Met};
use super::say::{self, Voice};
use super::talk::Talk;
use super::{denied_because, denied_unasked, outcome, pump, request, route};
use crate::config::hostinfo::Method;
use crate::config::keys;
use crate::fault::Fault;
use crate::wire::prompt::Asks;

/// The walk of a registration, to the status that it exits with.
///
/// # Errors
/// What failed here, in a sentence.
pub(super) fn walk(call: &Call, voice: &Voice) -> Result<u8, Fault> {
    let (places, route) = route::find_any(call)?;
    if route.entry.method != Method::Cos {
        return Err(Fault::new(format!(
            "it is reached by {}, which knows no machines",
            route.entry.method
        )));
    }
    let question = request::compose_enrolment()?;
    let mut asker = Asker::new(call.password_fd, call.batch, call.host.clone())?;
    let hello = OurHello::asking(true)?;
    let Met {
        greeted,
        key,
        machine,
        prepared,
        is_new,
    } = meet::meet(call, &places, &route, &hello, &asker, voice)?;
    let mut pin = || {
        if is_new {
            return meet::pin(&places, &route, &key, voice);
        }
        Ok(())
    };
    let door = Door::to_enrol(&call.host, call.name.as_deref(), &mut asker);
    let mut talk = Talk::new(voice, door).for_a_person();
    talk = talk.once_proven(&mut pin);
    let means = Means::Machine(&machine, &key);
    let id = keys::fingerprint(&machine.public);
    match greeted.ask(means, &question, prepared, &mut talk)? {
        Answer::Accepted(accepted) => {
            let words = match talk.asked() {
                Some(_) => format!("{} has registered this machine: {id}\n", call.host),
                None => format!("{} lets this machine in already: {id}\n", call.host),
            };
            // What is accepted is registered; and standard output is closed with the
            // session's, which ends at once.
            say::tell(&words)?;
            outcome(pump::carry(*accepted, true, &call.host)?, voice)
        }
        Answer::Denied(reference) => Err(match talk.asked() {
            Some(by) => denied_because(&call.host, reference, refused(by)),
            None => denied_unasked(call, reference, &shut(&id, is_new)),
        }),
    }
}

/// Why a machine is turned away that was asked for nothing, as far as it can be known
/// here; and that a refusal, which anybody can send, has proven no key.
fn shut(id: &str, is_new: bool) -> String {
    let pinned = if is_new {
        "; a refusal does not prove the key that you agreed to, so that it is not pinned"
    } else {
        ""
    };
    format!(
        "its outer door may be closed, or it registers nobody now, or keeps this machine out, whose ID is {id}{pinned}"
    )
}

/// The same for one who asked for more than to be known: the machine may be registered,
/// and he refused.
pub(super) fn refused_behind(by: Asks, call: &Call) -> String {
    let (why, enrol) = (refused(by), call.enrolment());
    format!(
        "either {why}; or this machine is registered now, and what was asked for was refused: {enrol} tells which"
    )
}

/// The same for one that has answered the door. What was not written down is still good.
const fn refused(by: Asks) -> &'static str {
    match by {
        Asks::Name | Asks::Login => {
            "the name was not taken: the door was closed, or takes names no more, or the host could not write \
             it down"
        }
        Asks::Activation => {
            "the activation password was not taken: wrong, used already, the door was closed, or the host could \
             not write it down"
        }
    }
}
