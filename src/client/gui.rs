//! `cos gui`: logs in to a host and starts an application there. Runs in the client.
//!
//! The host authenticates first, by a key that is pinned or that the user has agreed to. Then its
//! questions are answered. Inside an application that was started in this way, a host of the table
//! is asked by hash instead, without a password.

use std::env;
use std::num::NonZeroU16;

use super::agreed_key::{self, Agreed};
use super::asker::Asker;
use super::auth_method::{AuthMethod, Question};
use super::call::Call;
use super::conversation::Conversation;
use super::denied::{denied, denied_because, denied_without_prompt};
use super::dial::{Dialing, Times};
use super::door::Door;
use super::greet::{Accepted, Answer, Greeted, OurHello};
use super::messages::{self, Reporter};
use super::pump::{self, StandardStreams};
use super::route::{self, Places, Route};
use super::signer::{self, LocalSigner};
use super::values::Display;
use super::{Own, enrol, outcome, request};
use crate::config::hostinfo::Method;
use crate::config::words::quoted;
use crate::config::{cookie, keys};
use crate::fault::Fault;
use crate::protocol::noise::Prepared;
use crate::protocol::prompt::Asks;

/// The port where a PC listens for its applications (seed 000).
const DISPLAY_PORT: NonZeroU16 = NonZeroU16::new(9003).unwrap();

/// Logs in, runs the application and returns the exit status.
///
/// # Errors
/// What failed here, in a sentence.
pub(super) fn run_gui(call: &Call, reporter: &Reporter) -> Result<u8, Fault> {
    let (places, route) = route::find_any(call)?;
    if route.entry.method != Method::Cos {
        return Err(Fault::new(format!(
            "it is reached by {}, which cannot start applications",
            route.entry.method
        )));
    }
    let (display, inherited) = display(call)?;
    let question = request::compose_gui(call, &route.entry, &display)?;
    let who = format!("{}@{}", question.asked.user, call.host);
    let mut asker = Asker::new(call.password_fd, call.batch, who)?;
    // Remote GUI login: we run inside such an application, and have a cookie, or a signer that has
    // one.
    let paths = &places.table;
    let has = || match paths.is_anothers() {
        true => LocalSigner::is_there(paths),
        false => cookie::load_out(paths, &route.entry.name).is_ok(),
    };
    let accepted = if inherited && route.is_listed() && has() {
        reporter.step(|| "remote GUI login, by hash".to_owned());
        let asked = (&question, &display);
        by_cookie(call, &places, &route, asked, &mut asker, reporter)?
    } else {
        if inherited && route.is_listed() && paths.is_anothers() {
            asker.note_missing_alternative(signer::none(paths, &call.host));
        }
        by_password(call, &places, &route, &question, &mut asker, reporter)?
    };
    reporter.step(|| "accepted; the application is started".to_owned());
    let streams = StandardStreams {
        no_input: call.no_input,
        ..StandardStreams::default()
    };
    outcome(pump::carry(accepted, streams, &call.host)?, call, reporter)
}

/// Returns where to display the application: as the command line says, else where GUI_HOST and
/// GUI_PORT say, else here. Also returns whether these two variables are set.
fn display(call: &Call) -> Result<(Display, bool), Fault> {
    let host = env::var("GUI_HOST").ok().filter(|h| !h.is_empty());
    let port = env::var("GUI_PORT").ok().filter(|p| !p.is_empty());
    let ours = match (host, port) {
        (Some(host), Some(port)) => {
            let port = port.parse().map_err(|_| {
                Fault::new(format!(
                    "GUI_PORT={} is not a port; unset it, or give --display",
                    quoted(&port)
                ))
            })?;
            Some(Display {
                host: Some(host),
                port,
            })
        }
        _ => None,
    };
    let inherited = ours.is_some();
    let here = || Display {
        host: None,
        port: DISPLAY_PORT,
    };
    let display = call.display.clone().or(ours).unwrap_or_else(here);
    Ok((display, inherited))
}

fn by_cookie(
    call: &Call,
    places: &Places,
    route: &Route,
    (question, display): (&Question, &Display),
    asker: &mut Asker,
    reporter: &Reporter,
) -> Result<Accepted, Fault> {
    let addresses = route.addresses(call)?;
    let paths = &places.table;
    let own = Own::load(places, route)?;
    let hello = OurHello::new()?;
    let mut reference = None;
    for auth_method in own.attempts().filter(|m| !m.is_in_vain()) {
        let (key, pin) = auth_method.keys();
        let mut dialing = Dialing::begin(&addresses, Times::of(call));
        dialing.greet(hello.record());
        let dialed = dialing.finish(hello.record())?;
        let prepared =
            Prepared::for_initiator(key, pin).map_err(|m| Fault::of(&paths.known_hosts(), m))?;
        let greeted = Greeted::wait(dialed, &hello)?;
        let door = Door::during_request(&call.host, call.enrolment(), asker.may_ask_a_person());
        let mut conversation = Conversation::new(reporter, door)
            .interactive()
            .with_login(asker);
        match greeted.ask(auth_method, question, prepared, &mut conversation)? {
            Answer::Accepted(accepted) => return Ok(*accepted),
            Answer::Denied(denied) => {
                let asked = conversation.asked();
                if let Some(by @ (Asks::Name | Asks::Activation)) = asked {
                    let why = enrol::refused_behind(by);
                    return Err(denied_because(&call.host, denied, why));
                }
                reference = Some(denied);
            }
        }
    }
    reporter.step(|| "no cookie was accepted".to_owned());
    Err(reference.map_or_else(
        || own.nothing_pinned(paths, route),
        |r| denied(&call.host, r).with_remedy(with_a_password(display)),
    ))
}

/// Returns the remedy for a user who was denied without a password prompt.
fn with_a_password(display: &Display) -> String {
    let host = display.host.as_deref().unwrap_or_default();
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    format!(
        "to log in with a password instead of in this host's name: env -u GUI_HOST -u GUI_PORT cos gui --display {host}:{} ...",
        display.port
    )
}

fn by_password(
    call: &Call,
    places: &Places,
    route: &Route,
    question: &Question,
    asker: &mut Asker,
    reporter: &Reporter,
) -> Result<Accepted, Fault> {
    let hello = OurHello::asking(true)?;
    let Agreed {
        greeted,
        key,
        machine,
        prepared,
        is_new,
    } = agreed_key::connect(call, places, route, &hello, asker, reporter)?;
    let mut pin = || {
        if is_new {
            return agreed_key::pin(places, route, &key, reporter);
        }
        Ok(())
    };
    let door = Door::during_request(&call.host, call.enrolment(), asker.may_ask_a_person());
    let missing = asker.missing_alternative();
    let print_missing = || {
        if let Some(why) = &missing {
            messages::fault(Some(&call.host), why);
        }
    };
    let mut conversation = Conversation::new(reporter, door).interactive();
    conversation = conversation.with_login(asker).once_authenticated(&mut pin);
    let auth_method = AuthMethod::Password(&machine, &key);
    let answer = greeted.ask(auth_method, question, prepared, &mut conversation);
    match answer.inspect_err(|_| print_missing())? {
        Answer::Accepted(accepted) => Ok(*accepted),
        Answer::Denied(reference) => {
            print_missing();
            // The host tells no cause, but we know how far the conversation went.
            let why = match conversation.asked() {
                Some(Asks::Login) => "wrong password, or no such user or application",
                Some(by) => enrol::refused_behind(by),
                None => {
                    let id = keys::fingerprint(&machine.public);
                    let note = enrol::not_pinned(is_new);
                    return Err(denied_without_prompt(&call.host, reference, &id, note));
                }
            };
            Err(denied_because(&call.host, reference, why))
        }
    }
}
