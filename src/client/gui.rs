//! `cos gui`: logs in to a host and starts an application there. Run by the client.
//!
//! The host proves itself first, by a key that is pinned or that a person has agreed
//! to; then its questions are answered. Inside an application that was started so, a
//! host of the table is asked by hash instead, without a password.

use std::env;
use std::num::NonZeroU16;

use super::args::Call;
use super::asker::{Asker, Login};
use super::dial::Dialing;
use super::greet::{Accepted, Answer, Greeted, OurHello};
use super::means::{Means, Question};
use super::route::{self, Places, Route};
use super::say::Voice;
use super::signer::{self, Desk};
use super::values::Display;
use super::{Own, denied, outcome, pump, request};
use crate::config::hostinfo::Method;
use crate::config::place::Place;
use crate::config::{cookie, keys, known_hosts};
use crate::fault::Fault;
use crate::secret::PublicKey;
use crate::wire::noise::Prepared;

/// Where a PC listens for its applications (seed 000).
const DISPLAY_PORT: NonZeroU16 = NonZeroU16::new(9003).unwrap();

/// The walk of a login, to the status that it exits with.
///
/// # Errors
/// What failed here, in a sentence.
pub(super) fn walk(call: &Call, voice: &Voice) -> Result<u8, Fault> {
    let (places, route) = route::find_any(call)?;
    if route.entry.method != Method::Cos {
        return Err(Fault::new(format!(
            "it is reached by {}, which starts no application",
            route.entry.method
        )));
    }
    let (display, inherited) = display(call)?;
    let question = request::compose_gui(call, &route.entry, &display)?;
    let who = format!("{}@{}", question.asked.user, call.host);
    let mut asker = Asker::new(call.password_fd, call.batch, who)?;
    // Remote GUI login: we are such an application ourselves, and have a cookie, or a
    // signer that has.
    let place = &places.table;
    let has = || match place.is_anothers() {
        true => Desk::is_there(place),
        false => cookie::load_out(place, &route.entry.name).is_ok(),
    };
    let accepted = if inherited && route.is_listed() && has() {
        voice.step(|| "remote GUI login, by hash".to_owned());
        let asked = (&question, &display);
        by_cookie(call, &places, &route, asked, &mut asker, voice)?
    } else {
        if inherited && route.is_listed() && place.is_anothers() {
            asker.would_not_ask(signer::none(place, &call.host));
        }
        by_password(call, &places, &route, &question, &mut asker, voice)?
    };
    voice.step(|| "accepted; the application is started".to_owned());
    outcome(pump::carry(accepted, call.no_input)?, voice)
}

/// Where it is to be displayed: as the command line says, as our own display is, or
/// here. And whether it is our own display's.
fn display(call: &Call) -> Result<(Display, bool), Fault> {
    let host = env::var("GUI_HOST").ok().filter(|h| !h.is_empty());
    let port = env::var("GUI_PORT").ok().filter(|p| !p.is_empty());
    let ours = match (host, port) {
        (Some(host), Some(port)) => {
            let port = port.parse().map_err(|_| {
                Fault::new(format!(
                    "GUI_PORT={port:?} is no port; unset it, or give --display"
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
    voice: &Voice,
) -> Result<Accepted, Fault> {
    let addresses = route.addresses(call)?;
    let place = &places.table;
    let own = Own::load(places, route)?;
    let hello = OurHello::new()?;
    let mut reference = None;
    for means in own.attempts().filter(|m| !m.is_in_vain()) {
        let (key, pin) = means.keys();
        let mut dialing = Dialing::begin(&addresses, call.connect_timeout);
        dialing.greet(hello.record());
        let dialed = dialing.finish(hello.record())?;
        let prepared =
            Prepared::for_initiator(key, pin).map_err(|m| Fault::of(&place.known_hosts(), m))?;
        let greeted = Greeted::wait(dialed, &hello, call.connect_timeout)?;
        let mut nothing = || Ok(());
        let login = Login::new(asker, &mut nothing, voice);
        match greeted.ask(means, question, prepared, Some(login))? {
            Answer::Accepted(accepted) => return Ok(*accepted),
            Answer::Denied(denied) => reference = Some(denied),
        }
    }
    voice.step(|| "no cookie was accepted".to_owned());
    Err(reference.map_or_else(
        || own.nothing_pinned(place, route),
        |r| {
            let denied = denied(&call.host, r);
            Fault::new(format!("{denied}; {}", with_a_password(display)))
        },
    ))
}

/// What somebody can do who was denied without having been asked for a password.
fn with_a_password(display: &Display) -> String {
    let host = display.host.as_deref().unwrap_or_default();
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    format!(
        "inside an application (GUI_HOST and GUI_PORT are set) it is asked in this host's name; to give a \
         password: env -u GUI_HOST -u GUI_PORT cos gui --display {host}:{} ...",
        display.port
    )
}

fn by_password(
    call: &Call,
    places: &Places,
    route: &Route,
    question: &Question,
    asker: &mut Asker,
    voice: &Voice,
) -> Result<Accepted, Fault> {
    let addresses = route.addresses(call)?;
    let hello = OurHello::asking(true)?;
    let greet = || -> Result<(Greeted<'_>, PublicKey), Fault> {
        let mut dialing = Dialing::begin(&addresses, call.connect_timeout);
        dialing.greet(hello.record());
        voice.step(|| format!("connecting to {addresses:?}"));
        let dialed = dialing.finish(hello.record())?;
        voice.step(|| format!("connected to {}", dialed.address));
        let greeted = Greeted::wait(dialed, &hello, call.connect_timeout)?;
        let key = greeted.host_key().copied();
        let key = key.ok_or_else(|| Fault::new("it does not show its key"))?;
        Ok((greeted, key))
    };
    let (mut greeted, key) = greet()?;
    let machine = keys::own_machine_key(&places.own)?;
    let place = &places.own;
    let mut pins = known_hosts::pins(&places.table, &route.entry.name)?;
    if places.table.dir != place.dir {
        pins.extend(known_hosts::pins(place, &route.entry.name)?);
    }
    let prepared = Prepared::for_initiator(&machine, &key)
        .map_err(|m| Fault::new(format!("the key that it shows is none: {m}")))?;
    let is_new = !pins.contains(&key);
    voice.step(|| {
        let known = if is_new { "not pinned" } else { "pinned" };
        format!("its key is {}, {known}", keys::fingerprint(&key))
    });
    if is_new {
        // Comparing takes longer than the host waits for a handshake, and a place of its
        // strangers: nobody holds it meanwhile.
        drop(greeted);
        check_key(call, place, route, &key, &pins, asker)?;
        let now;
        (greeted, now) = greet()?;
        if now != key {
            return Err(Fault::new(format!(
                "it showed the key {} before, and now {}; somebody may be in between. Nothing was sent",
                keys::fingerprint(&key),
                keys::fingerprint(&now)
            )));
        }
    }
    // Anybody can show any key: what is pinned has been proven.
    let mut pin = || {
        if is_new && known_hosts::pin(place, &route.entry.name, &key)? {
            voice.step(|| "its key is pinned from now on".to_owned());
        }
        Ok(())
    };
    let login = Login::new(asker, &mut pin, voice);
    match greeted.ask(
        Means::Password(&machine, &key),
        question,
        prepared,
        Some(login),
    )? {
        Answer::Accepted(accepted) => Ok(*accepted),
        // One text for every cause: the host does not say more, and we know no more.
        Answer::Denied(reference) => Err(Fault::new(format!(
            "denied (reference {}): wrong password, or no such user or application for him; \
             the administrator of {} finds the reason in its log by that reference",
            reference.to_hex(),
            call.host
        ))),
    }
}

/// Asks about a key that is not pinned. Where another one is, everything stops.
fn check_key(
    call: &Call,
    place: &Place,
    route: &Route,
    key: &PublicKey,
    pins: &[PublicKey],
    asker: &Asker,
) -> Result<(), Fault> {
    let (name, file) = (&route.entry.name, place.known_hosts());
    if let Some(pinned) = pins.first() {
        return Err(Fault::of(
            &file,
            format!(
                "THE KEY OF {name} HAS CHANGED: it shows {}, and {} is pinned; somebody may be in between. \
                 Nothing was sent. If its administrator says that the key is new, take the line of {name} out",
                keys::fingerprint(key),
                keys::fingerprint(pinned)
            ),
        ));
    }
    let question = format!(
        "The key of {} is not known here. It shows the fingerprint\n  {}\n\
         Compare it: \"cosadm check\" on that host prints it as that of host.key.\n\
         Is it right, and to be pinned? (yes/no) ",
        call.host,
        keys::fingerprint(key)
    );
    let agreed = asker.confirm(&question).map_err(|e| {
        Fault::of(
            &file,
            format!(
                "no key is pinned for {name}, which shows {} (fingerprint {}): {e}. Compare that with what \
                 \"cosadm check\" on that host prints of host.key; then log in once at a terminal, \
                 or add the line \"{name} {}\"",
                key.to_hex(),
                keys::fingerprint(key),
                key.to_hex()
            ),
        )
    })?;
    if !agreed {
        return Err(Fault::new("its key was not agreed to; nothing was sent"));
    }
    Ok(())
}
