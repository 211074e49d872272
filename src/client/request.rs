//! The request to a host: the command's words unchanged, the remote user, the calling user, and the
//! few variables that are passed. Runs in the client.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::{User, getuid};

use super::auth_method::Question;
use super::call::{Call, CallKind};
use super::values::Display;
use crate::config::hostinfo::Entry;
use crate::config::linger::Linger;
use crate::config::name::UserName;
use crate::config::words::quoted;
use crate::fault::Fault;
use crate::protocol::limits::{
    COMMAND, COMMAND_IN_HELLO, GREETING_BODY, UNTIL_CLOSED, VARIABLES, VARIABLES_IN_HELLO,
};
use crate::protocol::name::is_service_name;
use crate::protocol::request::{Command, Gui, Offer, Request, Service, encode_words, is_variable};
use crate::protocol::rest;
use crate::protocol::wanted::Environment;

/// Composes the request of a call.
///
/// # Errors
/// The command is longer than a request may be, or the caller has no name.
pub fn compose(call: &Call, entry: &Entry) -> Result<Question, Fault> {
    let caller_user = caller()?;
    let user = user(call, entry)?;
    let environment = environment(call)?;
    match call.kind {
        CallKind::Command => {}
        CallKind::Subsystem => {
            check_subsystem(call)?;
            let parts = (Service::Subsystem, user, caller_user, environment);
            return compose_whole(call, parts);
        }
        CallKind::Named => {
            let parts = (Service::Named(offer(call)), user, caller_user, environment);
            return compose_whole(call, parts);
        }
        CallKind::List => {
            let request = Request {
                service: Service::List(offer(call)),
                user,
                caller_user,
                command: Command::Words(Vec::new()),
                environment: Vec::new(),
                linger: None,
            };
            return question(request, None);
        }
    }
    let longest = longest(&environment);
    // Encode the words separately first, to know which of the two is too long.
    let words = encode_words(&call.words).map_err(|e| {
        Fault::new(format!(
            "{e} ({COMMAND} bytes in all); send the rest on standard input"
        ))
    })?;
    let packed = rest::pack(call.words.clone(), environment);
    let packed = packed.map_err(|_| too_long(longest, COMMAND.saturating_sub(words.len())))?;
    let request = Request {
        service: Service::Exec,
        user,
        caller_user,
        command: packed.command,
        environment: packed.environment,
        linger: linger(call),
    };
    let follows = packed.follows;
    question(request, follows)
}

/// Returns the remote user: from the command line, else from the host's line, else the caller.
///
/// # Errors
/// The caller has no name.
pub fn user(call: &Call, entry: &Entry) -> Result<String, Fault> {
    let named = call.user.as_ref().or(entry.user.as_ref());
    named.map_or_else(|| caller().map(|u| u.to_string()), |u| Ok(u.to_string()))
}

/// Returns what the host may choose from.
fn offer(call: &Call) -> Offer {
    Offer {
        formats: call.formats.clone(),
    }
}

/// Checks that the call's only word is the name of a subsystem.
fn check_subsystem(call: &Call) -> Result<(), Fault> {
    match call.words.as_slice() {
        [name] if is_service_name(name) => Ok(()),
        words => {
            let line = String::from_utf8_lossy(&words.join(&b' ')).into_owned();
            Err(Fault::new(format!(
                "-s: {} is not the name of a subsystem, such as sftp",
                quoted(&line)
            )))
        }
    }
}

/// Composes a request of which no part may follow: for a subsystem or a named service.
fn compose_whole(
    call: &Call,
    (service, user, caller_user, environment): (Service, String, UserName, Environment),
) -> Result<Question, Fault> {
    let words = encode_words(&call.words).ok();
    if words.is_none_or(|words| words.len() > COMMAND_IN_HELLO) {
        let words = format!("the arguments have more than {COMMAND_IN_HELLO} bytes");
        return Err(Fault::new(words).with_remedy("send the rest on standard input"));
    }
    let longest = longest(&environment);
    let most = COMMAND_IN_HELLO.saturating_add(VARIABLES_IN_HELLO);
    let packed = rest::pack(call.words.clone(), environment).ok();
    let packed = packed.filter(|packed| packed.follows.is_none());
    let packed = packed.ok_or_else(|| too_long(longest, most))?;
    let request = Request {
        service,
        user,
        caller_user,
        command: packed.command,
        environment: packed.environment,
        linger: linger(call),
    };
    question(request, None)
}

/// Composes the request for an application: its name and arguments, and its display.
///
/// # Errors
/// They are longer than a request may be, or the caller has no name.
pub fn compose_gui(call: &Call, entry: &Entry, display: &Display) -> Result<Question, Fault> {
    let caller_user = caller()?;
    let user = user(call, entry)?;
    let environment = environment(call)?;
    // A request that is slightly too long is detected when the message is made.
    if rest::length_of(&environment) > GREETING_BODY {
        return Err(too_long(longest(&environment), GREETING_BODY));
    }
    let request = Request {
        service: Service::Gui(Gui {
            host: display.host.clone(),
            port: display.port.get(),
            detach: call.detach,
        }),
        user,
        caller_user,
        command: Command::Words(call.words.clone()),
        environment,
        linger: linger(call),
    };
    question(request, None)
}

/// Composes the request to register this machine.
///
/// # Errors
/// The caller has no name.
pub fn compose_enrolment() -> Result<Question, Fault> {
    let caller_user = caller()?;
    let request = Request {
        service: Service::Enrol,
        user: caller_user.to_string(),
        caller_user,
        command: Command::Words(Vec::new()),
        environment: Vec::new(),
        linger: None,
    };
    question(request, None)
}

/// Returns the quiet time that the call asks for, in the wire's seconds.
fn linger(call: &Call) -> Option<u32> {
    call.linger.map(|linger| match linger {
        Linger::Seconds(seconds) => seconds,
        Linger::UntilClosed => UNTIL_CLOSED,
    })
}

fn question(asked: Request, follows: Option<Vec<u8>>) -> Result<Question, Fault> {
    let request = asked.encode().map_err(|e| Fault::new(e.to_string()))?;
    Ok(Question {
        asked,
        request,
        follows,
    })
}

/// Returns the name of the calling user. Root's is known without a lookup.
fn caller() -> Result<UserName, Fault> {
    let uid = getuid();
    if uid.is_root() {
        return UserName::parse("root");
    }
    match User::from_uid(uid) {
        Ok(Some(user)) => UserName::parse(&user.name),
        Ok(None) => Err(Fault::new(format!(
            "user {uid} of this machine has no name"
        ))),
        Err(e) => Err(Fault::from(e).while_doing(format!("the name of user {uid}"))),
    }
}

/// Returns the variables that are passed with a call: our own, and those that it sets.
fn environment(call: &Call) -> Result<Environment, Fault> {
    let mut all = passed_on(env::vars_os(), &call.send_env)?;
    // As in ssh, SetEnv takes precedence over SendEnv, and the first of two SetEnv counts.
    for (name, value) in call.set_env.iter().rev() {
        if !is_variable(name) {
            let words = "a name has letters, digits and _, at most 255";
            return Err(Fault::new(format!(
                "SetEnv: {} cannot be sent: {words}",
                quoted(name)
            )));
        }
        all.retain(|(other, _)| other != name);
        if all.len() == VARIABLES {
            return Err(Fault::new(format!(
                "SetEnv: {name} cannot be sent: at most {VARIABLES} variables are allowed"
            )));
        }
        all.push((name.clone(), value.clone().into_bytes()));
    }
    Ok(all)
}

/// Returns the variables to pass: locale, git's protocol, and the requested ones, by name or by a
/// pattern in ssh's form. The server ignores the requested ones unless its table allows them.
///
/// # Errors
/// One of them cannot be passed; the fault names it.
fn passed_on(
    all: impl Iterator<Item = (OsString, OsString)>,
    asked_for: &[String],
) -> Result<Environment, Fault> {
    let mut passed = Environment::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else {
            continue;
        };
        let by_name = asked_for.contains(&name);
        let of_itself = name == "LANG" || name == "GIT_PROTOCOL" || name.starts_with("LC_");
        if !by_name && !of_itself && !asked_for.iter().any(|p| matches(p, &name)) {
            continue;
        }
        if !is_variable(&name) {
            if by_name {
                let words = "a name has letters, digits and _, at most 255";
                return Err(Fault::new(format!(
                    "SendEnv: {} cannot be sent: {words}",
                    quoted(&name)
                )));
            }
            continue;
        }
        if passed.len() == VARIABLES {
            return Err(Fault::new(format!(
                "SendEnv: {} cannot be sent: at most {VARIABLES} variables are allowed",
                quoted(&name)
            )));
        }
        passed.push((name, value.as_bytes().to_vec()));
    }
    Ok(passed)
}

/// Whether a name matches a pattern of ssh_config(5): `*` matches any characters, `?` matches one.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern.get(1..).unwrap_or_default().trim_start_matches('*');
            name.char_indices()
                .map(|(at, _)| at)
                .chain([name.len()])
                .any(|at| matches(rest, name.get(at..).unwrap_or_default()))
        }
        Some(c) => {
            let mut names = name.chars();
            let is_one = names.next().is_some_and(|n| c == '?' || c == n);
            is_one
                && matches(
                    pattern.get(c.len_utf8()..).unwrap_or_default(),
                    names.as_str(),
                )
        }
    }
}

/// Returns the longest variable's name, and the number of bytes of its value.
fn longest(environment: &[(String, Vec<u8>)]) -> Option<(String, usize)> {
    let all = environment.iter().map(|(n, v)| (n.clone(), v.len()));
    all.max_by_key(|(_, length)| *length)
}

fn too_long(longest: Option<(String, usize)>, most: usize) -> Fault {
    let (name, length) = longest.unwrap_or_default();
    let words = format!(
        "SendEnv: {} ({length} bytes) is too long: all variables may have {most} bytes",
        quoted(&name)
    );
    Fault::new(words).with_remedy(without(&name))
}

/// Returns how to call without a variable. Its name is valid, and so is a single word for the
/// shell.
pub(super) fn without(name: &str) -> String {
    format!("to call without it: env -u {name} cos ...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_and_gits_protocol_go_along_and_no_more() {
        let long = "v".repeat(257);
        let all = [
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", ""),
            ("LC_TIME", "C"),
            ("LC_X-Y", "z"),
            ("LC_LONG", &long),
            ("LANGUAGE", "de"),
            ("GIT_PROTOCOL", "version=2"),
            ("HOME", "/root"),
            ("TAG", "1"),
        ];
        let names = |asked_for: &[&str]| -> Result<Vec<String>, Fault> {
            let all = all.iter().map(|(n, v)| (n.into(), v.into()));
            let asked_for: Vec<String> = asked_for.iter().map(|n| (*n).to_owned()).collect();
            let passed = passed_on(all, &asked_for)?;
            Ok(passed.into_iter().map(|(n, _)| n).collect())
        };
        let always = ["LANG", "LC_ALL", "LC_TIME", "LC_LONG", "GIT_PROTOCOL"];
        assert_eq!(names(&[]).unwrap(), always);
        let with_tag = [&always[..], &["TAG"]].concat();
        for asked_for in [&["TAG", "LANG", "TAG?", "NONE"][..], &["T*G"], &["*A?"]] {
            assert_eq!(names(asked_for).unwrap(), with_tag, "{asked_for:?}");
        }
        // A pattern does not select a variable whose name is invalid.
        assert_eq!(names(&["LC_X*"]).unwrap(), always);
        let told = names(&["LC_X-Y"]).unwrap_err().to_string();
        assert!(told.contains("LC_X-Y"), "{told}");
    }

    #[test]
    fn a_message_about_a_long_name_stays_one_short_line() {
        let name = "N".repeat(255);
        let fault = too_long(Some((name.clone(), 1 << 20)), 1 << 20);
        let told = format!("cos: hostb: {fault}");
        assert!(told.chars().count() <= 160, "{told}");
        assert!(fault.remedy().unwrap().contains(&name));
        let all = [(name.into(), "".into())];
        let asked_for = ["N".repeat(256)];
        assert!(passed_on(all.into_iter(), &asked_for).unwrap().is_empty());
    }

    #[test]
    fn a_variable_that_cannot_be_sent_is_named() {
        let many = |count| (0..count).map(|n| (format!("V{n}").into(), "".into()));
        let all = ["V*".to_owned()];
        assert_eq!(passed_on(many(VARIABLES), &all).unwrap().len(), VARIABLES);
        let told = passed_on(many(VARIABLES + 1), &all)
            .unwrap_err()
            .to_string();
        assert!(told.contains("V1024"), "{told}");
    }
}
