//! The signer: vouches to another host for a user of this one (mechanism `vouch`).
//!
//! An ordinary user cannot read the host's cookies. The user states in typed fields what to request
//! of which host. The signer builds the signed data from them, with the user name that the kernel
//! reports, and signs nothing else.
//!
//! Runs in the monitor, for processes that connect to its socket, and in the set-uid program
//! `cos-sign`. The client uses only the fields. The signer reads the secrets again for each
//! signature, and keeps none.
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

/// The kernel's default overflow uid: the uid it shows for a process of another user namespace that
/// has no uid here.
const OVERFLOW: u32 = 65_534;
/// The file that holds the overflow uid in use.
const OVERFLOW_FILE: &str = "/proc/sys/kernel/overflowuid";

/// Returns the name by which a host knows this one: `as=` of its entry, else the machine's own
/// name.
///
/// # Errors
/// The machine's name is not a host name.
pub fn caller_name(entry: &Entry) -> Result<HostName, Fault> {
    if let Some(name) = &entry.as_name {
        return Ok(name.clone());
    }
    HostName::of_this_machine().map_err(|e| e.while_doing("the host's line has no as="))
}

/// Checks that a user with this uid can be vouched for.
///
/// # Errors
/// The uid may belong to any user.
pub fn check_number(uid: u32) -> Result<(), Fault> {
    if matches!(uid, OVERFLOW | u32::MAX) || Some(uid) == overflow() {
        let words =
            format!("user {uid} may be any user (a container's user without a number here)");
        return Err(Fault::new(words));
    }
    Ok(())
}

/// Returns the overflow uid that the kernel is set to, if it can be read.
fn overflow() -> Option<u32> {
    let text = std::fs::read_to_string(OVERFLOW_FILE).ok()?;
    text.trim().parse().ok()
}

/// Signs a request of this user to a host of the host table. The user's name was found by the uid
/// that the kernel reports.
///
/// # Errors
/// The host is not reached by cosserver's protocol, the key is not pinned for it, the secrets are
/// missing or not trusted, or the fields do not make a request.
pub fn sign(paths: &Paths, entry: &Entry, user: &UserName, ask: &Ask) -> Result<Signed, Fault> {
    let host = &entry.name;
    if ask.service == Service::Enrol {
        return Err(unfit(fields::NOT_SIGNED));
    }
    if entry.method != Method::Cos {
        return Err(Fault::new(format!("{host} is reached by {}", entry.method)));
    }
    if !known_hosts::pins(paths, host)?.contains(&ask.pin) {
        let words = format!("the key is not one that is pinned for {host}");
        return Err(Fault::of(&paths.known_hosts(), words));
    }
    let cookies = cookie::load_out(paths, host)?;
    let cookie = cookies.get(usize::from(ask.which));
    let cookie =
        cookie.ok_or_else(|| Fault::of(&paths.cookie_out(host), "there is no such cookie"))?;
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
