//! `cos enrol`: registers this machine at the inner door of a host. Runs in the client.
//!
//! The host authenticates first, by a key that is pinned or that the user has agreed to. Then it
//! checks the machine key of the handshake, and asks for a name or an activation password if it
//! does not know the key.

use super::agreed_key::{self, Agreed};
use super::asker::Asker;
use super::auth_method::AuthMethod;
use super::call::Call;
use super::conversation::Conversation;
use super::denied::{denied_because, denied_without_prompt};
use super::door::Door;
use super::greet::{Answer, OurHello};
use super::messages::{self, Reporter};
use super::pump::{self, StandardStreams};
use super::{outcome, request, route};
use crate::config::hostinfo::Method;
use crate::config::keys;
use crate::fault::Fault;
use crate::protocol::prompt::Asks;

/// Registers this machine and returns the exit status.
///
/// # Errors
/// What failed here, in a sentence.
pub(super) fn enrol(call: &Call, reporter: &Reporter) -> Result<u8, Fault> {
    let (places, route) = route::find_any(call)?;
    if route.entry.method != Method::Cos {
        return Err(Fault::new(format!(
            "it is reached by {}, which cannot register machines",
            route.entry.method
        )));
    }
    let question = request::compose_enrolment()?;
    let mut asker = Asker::new(call.password_fd, call.batch, call.host.clone())?;
    let hello = OurHello::asking(true)?;
    let Agreed {
        greeted,
        key,
        machine,
        prepared,
        is_new,
    } = agreed_key::connect(call, &places, &route, &hello, &asker, reporter)?;
    let mut pin = || {
        if is_new {
            return agreed_key::pin(&places, &route, &key, reporter);
        }
        Ok(())
    };
    let door = Door::to_enrol(&call.host, call.name.as_deref(), &mut asker);
    let mut conversation = Conversation::new(reporter, door).interactive();
    conversation = conversation.once_authenticated(&mut pin);
    let auth_method = AuthMethod::Machine(&machine, &key);
    let id = keys::fingerprint(&machine.public);
    match greeted.ask(auth_method, &question, prepared, &mut conversation)? {
        Answer::Accepted(accepted) => {
            let words = match conversation.asked() {
                Some(_) => format!("{} has registered this machine: {id}\n", call.host),
                None => format!("{} already allows this machine: {id}\n", call.host),
            };
            // Once accepted, the machine is registered. Print this before the session, which ends
            // at once and closes standard output.
            messages::tell(&words)?;
            let streams = StandardStreams {
                no_input: true,
                ..StandardStreams::default()
            };
            outcome(pump::carry(*accepted, streams, &call.host)?, call, reporter)
        }
        Answer::Denied(reference) => Err(match conversation.asked() {
            Some(by) => denied_because(&call.host, reference, refused(by)),
            None => denied_without_prompt(&call.host, reference, &id, not_pinned(is_new)),
        }),
    }
}

/// Returns the note that the key which the user has agreed to is not pinned: any host can send a
/// refusal, so a refusal proves no key.
pub(super) const fn not_pinned(is_new: bool) -> &'static str {
    if is_new {
        "; its key is not pinned, since a refusal does not prove it"
    } else {
        ""
    }
}

/// Returns why a machine was refused after it answered the inner door.
const fn refused(by: Asks) -> &'static str {
    match by {
        Asks::Name | Asks::Login => "the name was not accepted",
        Asks::Activation => "the activation password was not accepted",
    }
}

/// As [`refused`], for a call that has another request: the machine may be registered now, and that
/// request refused.
pub(super) const fn refused_behind(by: Asks) -> &'static str {
    match by {
        Asks::Name | Asks::Login => "the name was not accepted, or the request was refused",
        Asks::Activation => "the activation password was not accepted, or the request was refused",
    }
}
