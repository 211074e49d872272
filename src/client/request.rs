//! What is asked of a host: the command's words as they are, the user there,
//! who calls, and the few variables that go along. Run by the client.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::{User, getuid};

use super::args::Call;
use super::means::Question;
use super::values::Display;
use crate::config::hostinfo::Entry;
use crate::config::name::UserName;
use crate::fault::Fault;
use crate::wire::limits::{COMMAND, VARIABLE_NAME, VARIABLE_VALUE, VARIABLES};
use crate::wire::request::{self, Command, Gui, Request, Service};

/// Composes the request of a call.
///
/// # Errors
/// The command is longer than a request may be, or the caller has no name.
pub fn compose(call: &Call, entry: &Entry) -> Result<Question, Fault> {
    let caller_user = caller()?;
    let user = call.user.as_ref().or(entry.user.as_ref());
    let user = user.unwrap_or(&caller_user).to_string();
    let (command, follows) = request::pack_words(call.words.clone()).map_err(|e| {
        Fault::new(format!(
            "{e} ({COMMAND} bytes in all); send the rest on standard input"
        ))
    })?;
    let request = Request {
        service: Service::Exec,
        user,
        caller_user,
        command,
        environment: passed_on(env::vars_os(), &call.send_env),
    };
    question(request, follows)
}

/// Composes the request for an application: its name and arguments, and its display.
///
/// # Errors
/// They are longer than a request may be, or the caller has no name.
pub fn compose_gui(call: &Call, entry: &Entry, display: &Display) -> Result<Question, Fault> {
    let caller_user = caller()?;
    let user = call.user.as_ref().or(entry.user.as_ref());
    let user = user.unwrap_or(&caller_user).to_string();
    let request = Request {
        service: Service::Gui(Gui {
            host: display.host.clone(),
            port: display.port.get(),
            detach: call.detach,
        }),
        user,
        caller_user,
        command: Command::Words(call.words.clone()),
        environment: passed_on(env::vars_os(), &call.send_env),
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
    };
    question(request, None)
}

fn question(asked: Request, follows: Option<Vec<u8>>) -> Result<Question, Fault> {
    let request = asked.encode().map_err(|e| Fault::new(e.to_string()))?;
    Ok(Question {
        asked,
        request,
        follows,
    })
}

/// The name of the user who calls. Root's is known without asking.
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

/// The variables that go along, as far as they fit a request: locale, git's
/// protocol, and those that were asked for, which the server passes over unless
/// its table allows them.
fn passed_on(
    all: impl Iterator<Item = (OsString, OsString)>,
    asked_for: &[String],
) -> Vec<(String, Vec<u8>)> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    all.filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.as_bytes());
        let passed = name == "LANG" || name == "GIT_PROTOCOL" || name.starts_with("LC_");
        let passed = passed || asked_for.contains(&name);
        let fits = name.len() <= VARIABLE_NAME && value.len() <= VARIABLE_VALUE;
        (passed && fits && !value.is_empty() && name.bytes().all(plain))
            .then(|| (name, value.to_vec()))
    })
    .take(VARIABLES)
    .collect()
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
        let names = |asked_for: &[&str]| -> Vec<String> {
            let all = all.iter().map(|(n, v)| (n.into(), v.into()));
            let asked_for: Vec<String> = asked_for.iter().map(|n| (*n).to_owned()).collect();
            let passed = passed_on(all, &asked_for);
            passed.into_iter().map(|(n, _)| n).collect()
        };
        assert_eq!(names(&[]), ["LANG", "LC_TIME", "GIT_PROTOCOL"]);
        let more = ["TAG", "LANG", "TA*", "NONE"];
        assert_eq!(names(&more), ["LANG", "LC_TIME", "GIT_PROTOCOL", "TAG"]);
        let many = (0..100).map(|n| (format!("LC_{n}").into(), "C".into()));
        assert_eq!(passed_on(many, &[]).len(), VARIABLES);
    }
}
