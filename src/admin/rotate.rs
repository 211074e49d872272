//! `cosadm host rotate`: another cookie for a host that may ask this one, beside
//! the one that it has, and the end of the older one.
//!
//! No record says which of two live cookies the host asks with, so neither is
//! dropped unless the command line says which: `--finish` the older one,
//! `--again` the newer one.

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

/// Gives a host a new cookie beside its old one and prints a new card; or,
/// with `--finish`, drops the old one.
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
            "{host} may ask this host nothing: neither run-as= nor users=; {invite} lets it"
        );
        return Err(Fault::at(&paths.hostinfo(), entry.line, words).into());
    }
    if before.len() == cookie::LIVE_MAX && !call.given("again") {
        return Err(two_are_live(&paths, &host).into());
    }
    let draft = Invitation::make(
        &paths,
        &host,
        (&entry.addresses, None),
        (call.port()?, BY_LINE),
        out,
    )?;
    let written = output.write(&draft.card.print())?;
    // The oldest stays: with --again it is the one that the host asks with.
    let mut after = vec![draft.card.cookie.clone()];
    after.extend(before.last().cloned());
    cookie::write_in(&paths, &host, &after)?;
    // The lock is held until the card is out, so that what was can be put back.
    draft.hand_over(out, written, || withdrawn(&paths, &host, &before))?;
    let forgotten = machines::forget(&paths, &host)?;
    drop(lock);
    if forgotten {
        out.tell(format!("{host}: its recorded machine key is forgotten; the next machine with a cookie is recorded"));
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
            "the older cookie stays good; once {host} has joined: {}",
            finish_command(&paths, &host).trim_matches('`')
        ));
    }
    Ok(())
}

/// `--finish` prints no card.
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
        "{host}: its older cookie is dropped; that of the last card alone is good now"
    ));
    // The record is forgotten with each new card, so one that is there was made since.
    let unseen = if machines::recorded(paths, host).is_ok_and(|known| known.is_none()) {
        format!("{host} has not asked this host since that card was printed. ")
    } else {
        String::new()
    };
    out.tell(format!(
        "{unseen}Where {host} has not joined with it, it is shut out now; {} prints another card",
        paths.cosadm(format_args!("host rotate {host}"))
    ));
    Ok(())
}

fn finish_command(paths: &Paths, host: &HostName) -> String {
    paths.cosadm(format_args!("host rotate {host} --finish"))
}

/// Why a third cookie is refused.
fn two_are_live(paths: &Paths, host: &HostName) -> Fault {
    let words = format!(
        "two cookies of {host} are live already, and no record says which it asks with. Where {host} has joined \
         with the last card, {} drops the older one; where that card is lost, {} replaces the newer one",
        finish_command(paths, host),
        paths.cosadm(format_args!("host rotate {host} --again"))
    );
    Fault::of(&paths.cookie_in(host), words)
}

/// Puts the cookies back as they were, and says so.
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
