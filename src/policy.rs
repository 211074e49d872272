//! What a proven caller may do: a pure function of its line in HOSTINFO and its
//! request. Nothing here reads a file or asks the system.

use crate::config::hostinfo::Entry;
use crate::config::name::UserName;
use crate::credential::Proven;
use crate::refusal::{Cause, Refusal};
use crate::wire::request::Command;

/// A request that policy has granted. Only [`grant`] makes one, only from a
/// [`Proven`] caller.
pub struct Granted<S> {
    service: S,
    proven: Proven,
}

/// The service `exec`: which command, as whom, with which variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The user to be.
    pub user: UserName,
    /// How the words are run.
    pub form: Form,
    /// Variables passed on.
    pub environment: Vec<(String, Vec<u8>)>,
}

/// How the words of a command are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Joined by single spaces, by the account's shell, as rsh and sshd do.
    Shell(Vec<u8>),
    /// As they are, the first the program's path, without any shell.
    Direct(Vec<Vec<u8>>),
}

impl<S> Granted<S> {
    /// What was granted.
    pub const fn service(&self) -> &S {
        &self.service
    }

    /// To whom.
    pub const fn proven(&self) -> &Proven {
        &self.proven
    }

    /// To whom, for the answer.
    pub const fn proven_mut(&mut self) -> &mut Proven {
        &mut self.proven
    }
}

/// Decides on a proven caller's request. `serves`: the only user that this
/// daemon can be, when it does not run as root.
///
/// # Errors
/// The user or the command is not allowed to this host.
pub fn grant(proven: Proven, serves: Option<&str>) -> Result<Granted<Exec>, Refusal> {
    let entry = proven.caller();
    let request = proven.request();
    let user = allowed_user(entry, &request.user, serves)?;
    let form = allowed_form(entry, &request.command)?;
    let environment = request
        .environment
        .iter()
        .filter(|(n, _)| entry.may_pass(n))
        .cloned()
        .collect();
    Ok(Granted {
        service: Exec {
            user,
            form,
            environment,
        },
        proven,
    })
}

fn allowed_user(entry: &Entry, asked: &str, serves: Option<&str>) -> Result<UserName, Refusal> {
    let refuse = |words: String| Refusal::new(Cause::User, words);
    let user = UserName::parse(asked).map_err(|e| refuse(e.to_string()))?;
    if !entry.may_run_as(&user) {
        return Err(refuse(format!(
            "run-as= of {} does not name {user}",
            entry.name
        )));
    }
    match serves {
        Some(own) if own != user.as_str() => Err(refuse(format!(
            "this daemon runs as {own} and can be nobody else"
        ))),
        _ => Ok(user),
    }
}

fn allowed_form(entry: &Entry, command: &Command) -> Result<Form, Refusal> {
    let Command::Words(words) = command else {
        return Err(Refusal::new(Cause::Command, "the command has not come"));
    };
    if entry.commands.is_none() {
        return Ok(Form::Shell(words.join(&b' ')));
    }
    if entry.may_run(words) {
        return Ok(Form::Direct(words.clone()));
    }
    let hint = match words.as_slice() {
        [word] if word.contains(&b' ') => {
            ", which came as one word with spaces in it, and commands= needs the words apart"
        }
        _ => "",
    };
    let words = format!(
        "commands= of {} does not allow this command{hint}: {}",
        entry.name,
        command.shown()
    );
    Err(Refusal::new(Cause::Command, words))
}
