//! What a proven caller may do: a pure function of its line in HOSTINFO and its
//! request. Nothing here reads a file or asks the system.

use std::net::IpAddr;

use crate::auth::{AuthenticatedHost, AuthenticatedUser};
use crate::config::applications::{Applications, Who};
use crate::config::hostinfo::Entry;
use crate::config::name::UserName;
use crate::config::words::shell_word;
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::noise::Keys;
use crate::protocol::request::{Command, LOGIN_SHELL, Request, Service};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Id, Known, Machine};
use crate::sys::account::Account;

/// A request that policy has granted, to whom. Only [`grant`] and [`grant_application`]
/// make one: a command only from a [`AuthenticatedHost`] host.
pub struct Granted<S, W = AuthenticatedHost> {
    service: S,
    to: W,
}

/// Who may start an application: a host that has proven itself, or a person whom PAM
/// has believed.
pub enum Caller {
    /// Remote GUI login: a host of HOSTINFO asks, for this account.
    Host(Known<Box<AuthenticatedHost>>, Account),
    /// PC login.
    AuthenticatedUser(Box<AuthenticatedUser>),
}

impl Caller {
    /// What is asked for.
    pub const fn request(&self) -> &Request {
        match self {
            Self::Host(known, _) => known.inner().request(),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.request(),
        }
    }

    /// Whom the application runs as.
    pub const fn account(&self) -> &Account {
        match self {
            Self::Host(_, account) => account,
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.account(),
        }
    }

    /// The address that the call comes from.
    pub const fn peer(&self) -> IpAddr {
        match self {
            Self::Host(known, _) => known.inner().peer(),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.peer(),
        }
    }

    /// Our own proof for it, where it has given one.
    pub const fn server_proof(&self) -> Option<[u8; 32]> {
        match self {
            Self::Host(known, _) => Some(known.inner().server_proof()),
            Self::AuthenticatedUser(_) => None,
        }
    }

    /// Message 2 around an answer, and the keys, where it was not yet made.
    ///
    /// # Errors
    /// It was made before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        match self {
            Self::Host(known, _) => known.inner_mut().message_2(payload),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.message_2(payload),
        }
    }

    /// The machine that the doors know: a host's, or the person's.
    pub fn machine(&self) -> Id {
        Id::of(match self {
            Self::Host(known, _) => known.inner().machine(),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.machine(),
        })
    }

    /// The machines that ask: a host's and that of the user whom it vouches for.
    pub fn machines(&self) -> Vec<Id> {
        match self {
            Self::Host(known, _) => known.inner().machines(),
            Self::AuthenticatedUser(authenticated_user) => {
                vec![Id::of(authenticated_user.machine())]
            }
        }
    }

    /// The host that asks, where one does.
    pub const fn host(&self) -> Option<&Entry> {
        match self {
            Self::Host(known, _) => Some(known.inner().caller()),
            Self::AuthenticatedUser(_) => None,
        }
    }
}

/// The services `exec` and `subsystem`: which command, as whom, with which variables.
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
    /// As they are, the first the program's path, without any shell; a subsystem's come from
    /// the settings.
    Direct(Vec<Vec<u8>>),
}

impl<S, W> Granted<S, W> {
    /// What was granted.
    pub const fn service(&self) -> &S {
        &self.service
    }

    /// To whom.
    pub const fn to(&self) -> &W {
        &self.to
    }

    /// To whom, for the answer.
    pub const fn to_mut(&mut self) -> &mut W {
        &mut self.to
    }
}

impl<S> Granted<S> {
    /// To which host.
    pub const fn authenticated(&self) -> &AuthenticatedHost {
        &self.to
    }

    /// To which host, for the answer.
    pub const fn authenticated_mut(&mut self) -> &mut AuthenticatedHost {
        &mut self.to
    }
}

/// The service `gui`: an application of the table, and where it is to be displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gui {
    /// Its name in the table.
    pub name: String,
    /// The program and all its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Variables that the table gives it.
    pub own: Vec<(String, String)>,
    /// Variables that the caller passes on.
    pub passed: Vec<(String, Vec<u8>)>,
    /// `GUI_HOST`.
    pub host: String,
    /// `GUI_PORT`.
    pub port: u16,
    /// Whether it is left running by itself.
    pub detach: bool,
}

/// Decides which application a caller may start. `groups`: those of the table's that
/// his account is in. `serves`: the only user that this daemon can be.
///
/// # Errors
/// The application is not there, or not for him, or not for his way in.
pub fn grant_application(
    to: Caller,
    groups: &[String],
    table: &Applications,
    serves: Option<&str>,
) -> Result<Granted<Gui, Caller>, Refusal> {
    let request = to.request();
    let cause = match &to {
        Caller::Host(..) => Cause::Application,
        Caller::AuthenticatedUser(_) => Cause::Login,
    };
    let refuse = |words: String| Refusal::new(cause, words);
    let (Service::Gui(display), Command::Words(words)) = (&request.service, &request.command)
    else {
        return Err(refuse("it asks for no application".into()));
    };
    let Some((name, arguments)) = words.split_first() else {
        return Err(refuse("it names no application".into()));
    };
    let name = String::from_utf8_lossy(name).into_owned();
    let Account {
        name: user, uid, ..
    } = to.account();
    let Some(application) = table.get(&name) else {
        return Err(refuse(format!("there is no [gui.{name}]")));
    };
    let is_for = |who: &Who| match who {
        Who::Everybody => *uid != 0,
        Who::User(named) => named.as_str() == user,
        Who::Group(group) => groups.iter().any(|g| g == group.as_str()),
    };
    if !application.users.iter().any(is_for) {
        return Err(refuse(format!(
            "users of [gui.{name}] does not name {user}"
        )));
    }
    if !application.remote && to.host().is_some() {
        let words = format!("[gui.{name}] has no remote = true: {user} must give a password");
        return Err(refuse(words));
    }
    if !application.arguments && !arguments.is_empty() {
        return Err(refuse(format!("[gui.{name}] has no arguments = true")));
    }
    if let Some(own) = serves.filter(|own| *own != user) {
        return Err(refuse(format!(
            "this daemon runs as {own} and cannot be {user}"
        )));
    }
    let own = application.command.iter().map(|w| w.as_bytes().to_vec());
    let passes = |n: &str| {
        to.host()
            .map_or_else(|| is_locale(n), |entry| entry.may_pass(n))
    };
    let passed = request.environment.iter().filter(|(n, _)| passes(n));
    let service = Gui {
        argv: own.chain(arguments.iter().cloned()).collect(),
        own: application.environment.clone().into_iter().collect(),
        passed: passed.cloned().collect(),
        host: display
            .host
            .clone()
            .unwrap_or_else(|| to.peer().to_string()),
        port: display.port,
        detach: display.detach,
        name,
    };
    Ok(Granted { service, to })
}

/// As whom a proven host's request for an application would run, before its account has
/// been looked up.
///
/// # Errors
/// The user is not allowed to this host.
pub fn user_of(
    authenticated: &AuthenticatedHost,
    serves: Option<&str>,
) -> Result<UserName, Refusal> {
    allowed_user(authenticated, serves)
}

/// Whether a proven caller may be this account, once it has been looked up: whoever a
/// host's signer vouches for is root by no other name either, unless that name is given.
///
/// # Errors
/// It is root's.
pub fn check_account(authenticated: &AuthenticatedHost, account: &Account) -> Result<(), Refusal> {
    let entry = authenticated.caller();
    if !authenticated.is_vouched() || account.uid != 0 || entry.users.name_their_users() {
        return Ok(());
    }
    let words = format!(
        "{} is root here, and users= of {} does not name him",
        account.name, entry.name
    );
    Err(Refusal::new(Cause::User, words))
}

/// Decides on a proven caller's request. `program`: the words of the subsystem that it
/// names, as the settings have them, or why they have none. `serves`: the only user that this
/// daemon can be, when it does not run as root.
///
/// # Errors
/// The user, the command or the subsystem is not allowed to this host, or not there.
pub fn grant(
    known: Known<AuthenticatedHost>,
    program: Option<Result<Vec<String>, Fault>>,
    serves: Option<&str>,
) -> Result<Granted<Exec>, Refusal> {
    let authenticated = known.into_inner();
    let entry = authenticated.caller();
    let request = authenticated.request();
    let is_subsystem = match request.service {
        Service::Exec => false,
        Service::Subsystem => true,
        Service::Gui(_) | Service::Enrol => {
            return Err(Refusal::new(Cause::Command, "it asks for no command"));
        }
    };
    let user = allowed_user(&authenticated, serves)?;
    let form = if is_subsystem {
        allowed_subsystem(entry, &request.command, program)?
    } else {
        allowed_form(entry, &request.command)?
    };
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
        to: authenticated,
    })
}

/// As whom it would run: for a host that asks itself, whom `run-as=` names; for one of
/// its users, as `users=` has it.
fn allowed_user(
    authenticated: &AuthenticatedHost,
    serves: Option<&str>,
) -> Result<UserName, Refusal> {
    let refuse = |words: String| Refusal::new(Cause::User, words);
    let name = |text: &str| UserName::parse(text).map_err(|e| refuse(e.to_string()));
    let (entry, request) = (authenticated.caller(), authenticated.request());
    let asked = name(&request.user)?;
    let user = if authenticated.is_vouched() {
        let caller = &request.caller_user;
        let user = entry.user_for(caller, &asked);
        user.ok_or_else(|| {
            let words = format!("users= of {} does not let {caller} be {asked}", entry.name);
            refuse(words)
        })?
    } else if entry.may_run_as(&asked) {
        asked
    } else {
        return Err(refuse(format!(
            "run-as= of {} does not name {asked}",
            entry.name
        )));
    };
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
        [word] if word == LOGIN_SHELL.as_bytes() => {
            let words = format!(
                "it asks for a login shell, since no command was given, and commands= of {} allows none",
                entry.name
            );
            return Err(Refusal::new(Cause::Command, words));
        }
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

fn allowed_subsystem(
    entry: &Entry,
    command: &Command,
    program: Option<Result<Vec<String>, Fault>>,
) -> Result<Form, Refusal> {
    let refuse = |words: String| Refusal::new(Cause::Subsystem, words);
    let name = command.shown();
    if !entry.may_ask_subsystem(&name) {
        let why = match entry.subsystems {
            Some(_) => "does not name it",
            None => "is not there, and its commands= allows no other program",
        };
        return Err(refuse(format!(
            "subsystem {name}: subsystems= of {} {why}",
            entry.name
        )));
    }
    let program = program.unwrap_or_else(|| Err(Fault::new("it was not looked up")));
    let words = program.map_err(|why| refuse(format!("subsystem {name}: {why}")))?;
    if entry.subsystems.is_some() {
        let words = words.into_iter().map(String::into_bytes).collect();
        return Ok(Form::Direct(words));
    }
    // Nobody named it for this host, which has it because it may run any command: then the
    // account's shell decides, as for a command. It may be nologin, or a restricted one.
    let quoted: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    Ok(Form::Shell(quoted.join(" ").into_bytes()))
}

/// What a person may pass; `LC_` alone is no category.
fn is_locale(name: &str) -> bool {
    let category = name.strip_prefix("LC_");
    name == "LANG" || category.is_some_and(|category| !category.is_empty())
}
