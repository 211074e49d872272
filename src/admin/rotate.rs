//! `cosadm host rotate`: creates a second cookie for a host that may run commands here, and later
//! drops the older one.
//!
//! There is no record of which of two live cookies the host uses. So `rotate` drops one only if
//! the command line says which: `--finish` drops the older one, `--again` replaces the newer one.

use super::call::Call;
use super::card_output::CardOutput;
use super::edit::{Lock, Text};
use super::invite::Invitation;
use super::out::{Failure, Out};
use super::reach::BY_LINE;
use crate::config::hostinfo::Entry;
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::config::{cookie, machines, secure};
use crate::fault::Fault;
use crate::secret::Secret;

/// Creates a new cookie for a host besides its old one and prints a new card. With `--finish`,
/// drops the old one instead.
pub(super) fn rotate(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let host = HostName::parse(call.operand(0))?;
    let finish = call.given("finish");
    if finish {
        card_flags_are_absent(call)?;
    }
    let output = if finish {
        CardOutput::Stdout
    } else {
        CardOutput::of(call, out)?
    };
    let lock = Lock::take(&paths)?;
    let entry = Text::read(&paths, &lock)?.find(&host)?;
    let entry: Entry = entry.ok_or_else(|| {
        let invite = paths.cosadm(format_args!("host invite {host}"));
        Fault::of(
            &paths.hostinfo(),
            format!("{host} is not in it; {invite} invites it"),
        )
    })?;
    if finish {
        return Ok(finished(&paths, &host, out)?);
    }
    let before = cookie::load(&paths, &paths.cookie_in(&host))?.unwrap_or_default();
    if before.is_empty() && !entry.may_ask() {
        let invite = paths.cosadm(format_args!("host invite {host}"));
        let words = format!(
            "{host} may ask this host nothing: it has neither run-as= nor users=; {invite} allows it"
        );
        return Err(Fault::at(&paths.hostinfo(), entry.line, words).into());
    }
    if before.len() == cookie::LIVE_MAX && !call.given("again") {
        return Err(two_cookies_live(&paths, &host).into());
    }
    let draft = Invitation::make(
        &paths,
        &host,
        (&entry.addresses, None),
        (call.port()?, BY_LINE),
        out,
    )?;
    let written = output.write(&draft.card.print())?;
    // Keep the oldest: with --again it is the one that the host uses.
    let mut after = vec![draft.card.cookie.clone()];
    after.extend(before.last().cloned());
    cookie::write_in(&paths, &host, &after)?;
    // Hold the lock until the card is written, so that the old cookies can be restored.
    draft.hand_over(out, written, || withdrawn(&paths, &host, &before))?;
    let forgotten = machines::forget(&paths, &host)?;
    drop(lock);
    if forgotten {
        out.tell(format!("{host}: its recorded machine key is removed; the next machine with a cookie is recorded"));
    }
    match before.len() {
        0 => out.tell(format!(
            "{host} had no cookie; the one on the card is its only one"
        )),
        1 => {}
        _ => out.tell(format!(
            "{host}: the newer of its two cookies, that of the last card, is dropped"
        )),
    }
    if !before.is_empty() {
        out.tell(format!(
            "the older cookie stays valid; once {host} has joined: {}",
            finish_command(&paths, &host).trim_matches('`')
        ));
    }
    Ok(())
}

/// Rejects the flags of a card together with `--finish`, which prints no card.
fn card_flags_are_absent(call: &Call) -> Result<(), Failure> {
    for (flag, given) in [
        ("--port", call.value("port").is_some()),
        ("--again", call.given("again")),
        ("--output", call.value("output").is_some()),
    ] {
        if given {
            return Err(Failure::Usage(format!(
                "--finish prints no card, so {flag} has no meaning"
            )));
        }
    }
    Ok(())
}

/// Drops the older cookie.
fn finished(paths: &Paths, host: &HostName, out: &Out) -> Result<(), Fault> {
    let mut cookies = cookie::load_in(paths, host)?;
    if cookies.len() < cookie::LIVE_MAX {
        out.tell(format!(
            "{host}: it has one cookie already; nothing was changed"
        ));
        return Ok(());
    }
    cookies.truncate(1);
    cookie::write_in(paths, host, &cookies)?;
    out.tell(format!(
        "{host}: its older cookie is dropped; only that of the last card is valid now"
    ));
    // Each new card deletes the recorded key, so an existing one was recorded after that.
    let unseen = if machines::recorded(paths, host).is_ok_and(|known| known.is_none()) {
        format!("{host} has not asked this host since that card was printed. ")
    } else {
        String::new()
    };
    out.tell(format!(
        "{unseen}If {host} has not joined with it, it is denied now; {} prints another card",
        paths.cosadm(format_args!("host rotate {host}"))
    ));
    Ok(())
}

fn finish_command(paths: &Paths, host: &HostName) -> String {
    paths.cosadm(format_args!("host rotate {host} --finish"))
}

/// Explains why a third cookie is refused.
fn two_cookies_live(paths: &Paths, host: &HostName) -> Fault {
    let words =
        format!("two cookies of {host} are live already, and no record says which one it uses");
    Fault::of(&paths.cookie_in(host), words).with_remedy(format!(
        "if {host} has joined with the last card: {}",
        finish_command(paths, host)
    ))
}

/// Restores the old cookies, and returns the outcome in words.
fn withdrawn(paths: &Paths, host: &HostName, before: &[Secret]) -> String {
    let done = if before.is_empty() {
        secure::remove(&paths.cookie_in(host)).map(drop)
    } else {
        cookie::write_in(paths, host, before)
    };
    match (done, before.len()) {
        (Ok(()), 0) => format!("its cookie is withdrawn: {host} has none"),
        (Ok(()), 1) => format!("its cookie is withdrawn: {host} asks with the one it had"),
        (Ok(()), _) => format!("its cookie is withdrawn: {host} has the two it had"),
        (Err(fault), _) => format!(
            "its cookie could not be withdrawn ({fault}); {} replaces it",
            paths.cosadm(format_args!("host rotate {host} --again"))
        ),
    }
}
