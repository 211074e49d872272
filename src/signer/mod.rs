//! The signer: vouches to another host for a user of this one (mechanism `vouch`).
//!
//! An ordinary user may not read his host's cookies. He says in typed fields what he
//! wants to ask of which host; what is signed is built here, with the name in it that
//! the kernel has for him, and nothing else is ever signed. Run by the monitor, for
//! whoever calls at its socket, and by the set-uid program `cos-sign`; the client
//! knows the fields alone. It reads the secrets for each signature anew, and keeps none.
#![forbid(unsafe_code)]

pub mod fields;
pub mod program;

use crate::config::hostinfo::{Entry, Method};
use crate::config::name::{HostName, UserName};
use crate::config::paths::Paths;
use crate::config::{cookie, keys, known_hosts};
use crate::curve;
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::proof::{self, Claim, Side, Voucher};
use crate::protocol::request::{Request, Service};
use crate::secret::Secret;
use fields::{Ask, Signed};

/// The user number that the kernel shows for whoever has none here, a process of
/// another user namespace, where nothing else is set.
const OVERFLOW: u32 = 65_534;
/// Where it is set.
const OVERFLOW_FILE: &str = "/proc/sys/kernel/overflowuid";

/// The name by which a host knows this one: `as=` of its line, else this machine's own.
///
/// # Errors
/// The machine's name is no host name.
pub fn caller_name(entry: &Entry) -> Result<HostName, Fault> {
    if let Some(name) = &entry.as_name {
        return Ok(name.clone());
    }
    HostName::of_this_machine().map_err(|e| e.while_doing("the host's line has no as="))
}

/// Whether a user of that number can be vouched for at all.
///
/// # Errors
/// It may be anybody's.
pub fn check_number(uid: u32) -> Result<(), Fault> {
    if matches!(uid, OVERFLOW | u32::MAX) || Some(uid) == overflow() {
        let words =
            format!("user {uid} may be anybody (a container's user who has no number here)");
        return Err(Fault::new(words));
    }
    Ok(())
}

/// What the kernel has been told to show, where it can be told.
fn overflow() -> Option<u32> {
    let text = std::fs::read_to_string(OVERFLOW_FILE).ok()?;
    text.trim().parse().ok()
}

/// Signs a request of this user, whose name the kernel's number for him has, to a host
/// of this place's table.
///
/// # Errors
/// That host is not reached so, the key is none that is pinned for it, the secrets are
/// not there or not to be trusted, or the fields make no request.
pub fn sign(paths: &Paths, entry: &Entry, user: &UserName, ask: &Ask) -> Result<Signed, Fault> {
    let host = &entry.name;
    if ask.service == Service::Enrol {
        return Err(unfit(fields::NOT_SIGNED));
    }
    if entry.method != Method::Cos {
        return Err(Fault::new(format!("{host} is reached by {}", entry.method)));
    }
    if !known_hosts::pins(paths, host)?.contains(&ask.pin) {
        let words = format!("the key is none that is pinned for {host}");
        return Err(Fault::of(&paths.known_hosts(), words));
    }
    let cookies = cookie::load_out(paths, host)?;
    let cookie = cookies.get(usize::from(ask.which));
    let cookie = cookie
        .ok_or_else(|| Fault::of(&paths.cookie_out(host), "there are not so many cookies"))?;
    let machine = keys::load_machine_key(paths)?;
    let shared = curve::agree(machine.private.expose(), &ask.pin.0)
        .map(|shared| Secret::new(*shared))
        .ok_or_else(|| {
            Fault::of(
                &paths.known_hosts(),
                format!("the key of {host} is of low order"),
            )
        })?;

    let request = Request {
        service: ask.service.clone(),
        user: ask.user.clone(),
        caller_user: user.clone(),
        command: ask.command.clone(),
        environment: ask.environment.clone(),
        linger: ask.linger,
    };
    let request = request.encode().map_err(unfit)?;
    let (caller, server) = (caller_name(entry)?, entry.server_name());
    let claim = Claim {
        caller: caller.as_str(),
        server: server.as_str(),
        caller_key: &ask.key,
        server_key: &ask.pin,
        nonce: &ask.nonce,
        request: &request,
        voucher: Some(Voucher {
            machine: &machine.public,
            shared: &shared,
        }),
    };
    let made = |side| proof::make(cookie, side, &claim).map_err(unfit);
    let (proof, expected) = (made(Side::Client)?, made(Side::Server)?);
    Ok(Signed {
        caller: caller.to_string(),
        server: server.to_string(),
        proof,
        expected,
        machine: machine.public,
        cookies: u8::try_from(cookies.len()).unwrap_or(u8::MAX),
        request,
    })
}

fn unfit(m: Malformed) -> Fault {
    Fault::new(m.to_string())
}

#[cfg(test)]
mod tests;
