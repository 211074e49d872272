//! Authorization: what an authenticated caller may do, as a pure function of its HOSTINFO entry and
//! its request. Runs in the monitor. Must not read files or query the system.

mod named;

use std::net::IpAddr;

use crate::auth::{AuthenticatedHost, AuthenticatedUser};
use crate::config::applications::{AllowedUser, Applications};
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

pub use named::{
    Connect, ConnectTo, GrantedService, ServiceCaller, ServiceContext, ServiceJob, grant_service,
};

/// A granted request and its caller. Only [`grant`], [`grant_application`] and [`grant_service`]
/// create one. A command
/// is granted only to an [`AuthenticatedHost`].
pub struct Granted<S, W = AuthenticatedHost> {
    service: S,
    to: W,
}

/// A caller that may start an application: an authenticated host, or a user authenticated by PAM.
pub enum Caller {
    /// Remote GUI login: a host of HOSTINFO asks for this account.
    Host(Known<Box<AuthenticatedHost>>, Account),
    /// PC login.
    AuthenticatedUser(Box<AuthenticatedUser>),
}

impl Caller {
    /// Returns the request.
    pub const fn request(&self) -> &Request {
        match self {
            Self::Host(known, _) => known.inner().request(),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.request(),
        }
    }

    /// Returns the account that the application runs as.
    pub const fn account(&self) -> &Account {
        match self {
            Self::Host(_, account) => account,
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.account(),
        }
    }

    /// Returns the address that the caller connects from.
    pub const fn peer(&self) -> IpAddr {
        match self {
            Self::Host(known, _) => known.inner().peer(),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.peer(),
        }
    }

    /// Returns this host's own proof for the caller, if the caller has given one.
    pub const fn server_proof(&self) -> Option<[u8; 32]> {
        match self {
            Self::Host(known, _) => Some(known.inner().server_proof()),
            Self::AuthenticatedUser(_) => None,
        }
    }

    /// Builds message 2 around an answer, and returns the session keys, if it was not yet built.
    ///
    /// # Errors
    /// It was built before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        match self {
            Self::Host(known, _) => known.inner_mut().message_2(payload),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.message_2(payload),
        }
    }

    /// Returns the ID of the machine that the doors know: the host's, or the user's.
    pub fn machine(&self) -> Id {
        Id::of(match self {
            Self::Host(known, _) => known.inner().machine(),
            Self::AuthenticatedUser(authenticated_user) => authenticated_user.machine(),
        })
    }

    /// Returns the IDs of the calling machines: a host's, and that of the user it vouches for.
    pub fn machines(&self) -> Vec<Id> {
        match self {
            Self::Host(known, _) => known.inner().machines(),
            Self::AuthenticatedUser(authenticated_user) => {
                vec![Id::of(authenticated_user.machine())]
            }
        }
    }

    /// Returns the host that asks, if any.
    pub const fn host(&self) -> Option<&Entry> {
        match self {
            Self::Host(known, _) => Some(known.inner().caller()),
            Self::AuthenticatedUser(_) => None,
        }
    }
}

/// The services `exec` and `subsystem`, and the program of a named service: the command, its user
/// and its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The user that it runs as.
    pub user: UserName,
    /// How the words are run.
    pub form: Form,
    /// The variables that are passed on.
    pub environment: Vec<(String, Vec<u8>)>,
    /// What a named service's program gets besides.
    pub service: Option<ServiceJob>,
}

impl Exec {
    /// Returns how it uses its user's account.
    pub fn account_use(&self) -> AccountUse {
        let service = self.service.as_ref();
        service.map_or(AccountUse::LogIn, |service| service.account_use)
    }
}

/// How an account is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountUse {
    /// By the user, who logs in or runs commands: its password must not be locked.
    LogIn,
    /// By a service that has a user of its own.
    Service,
}

/// How the words of a command are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Joined by single spaces and run by the account's shell, as rsh and sshd do.
    Shell(Vec<u8>),
    /// Run as they are, without a shell; the first word is the program's path. A subsystem's words
    /// come from the settings.
    Direct(Vec<Vec<u8>>),
}

impl<S, W> Granted<S, W> {
    /// Returns what was granted.
    pub const fn service(&self) -> &S {
        &self.service
    }

    /// Returns the caller.
    pub const fn to(&self) -> &W {
        &self.to
    }

    /// Returns the caller, for building the answer.
    pub const fn to_mut(&mut self) -> &mut W {
        &mut self.to
    }
}

impl<S> Granted<S> {
    /// Returns the host.
    pub const fn authenticated(&self) -> &AuthenticatedHost {
        &self.to
    }

    /// Returns the host, for building the answer.
    pub const fn authenticated_mut(&mut self) -> &mut AuthenticatedHost {
        &mut self.to
    }
}

/// The service `gui`: an application of the table, and its display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gui {
    /// Its name in the table.
    pub name: String,
    /// The program and all its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Variables that the table sets.
    pub own: Vec<(String, String)>,
    /// Variables that the caller passes on.
    pub passed: Vec<(String, Vec<u8>)>,
    /// `GUI_HOST`.
    pub host: String,
    /// `GUI_PORT`.
    pub port: u16,
    /// Whether it keeps running after its connection has ended.
    pub detach: bool,
}

/// Decides whether a caller may start an application. `groups` are those groups of the table that
/// the account is in. `serves` is the only user that this daemon can run as.
///
/// # Errors
/// The application does not exist, or is not allowed to this user, or not by this way of login.
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
    let is_for = |who: &AllowedUser| match who {
        AllowedUser::Anyone => *uid != 0,
        AllowedUser::User(named) => named.as_str() == user,
        AllowedUser::Group(group) => groups.iter().any(|g| g == group.as_str()),
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
            "this daemon runs as {own} and cannot run it as {user}"
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

/// Returns the user that an authenticated host's application would run as, before the account is
/// looked up.
///
/// # Errors
/// The user is not allowed to this host.
pub fn user_of(
    authenticated: &AuthenticatedHost,
    serves: Option<&str>,
) -> Result<UserName, Refusal> {
    allowed_user(authenticated, serves)
}

/// Checks whether an authenticated caller may use this account, after its lookup. A user that a
/// host's signer vouches for must not become root under another name of uid 0, unless `users=`
/// lists that name.
///
/// # Errors
/// The account is root's.
pub fn check_account(authenticated: &AuthenticatedHost, account: &Account) -> Result<(), Refusal> {
    let entry = authenticated.caller();
    if !authenticated.is_vouched() || account.uid != 0 || entry.users.name_their_users() {
        return Ok(());
    }
    let words = format!(
        "{} is root here, and users= of {} does not name that user",
        account.name, entry.name
    );
    Err(Refusal::new(Cause::User, words))
}

/// Decides on an authenticated caller's request. `program` holds the words of the named subsystem
/// from the settings, or why there are none. `serves` is the only user that this daemon can run as,
/// if it does not run as root.
///
/// # Errors
/// The user, the command or the subsystem is not allowed to this host, or does not exist.
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
        Service::Gui(_) | Service::Named(_) | Service::List(_) | Service::Enrol => {
            return Err(Refusal::new(Cause::Command, "the request has no command"));
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
            service: None,
        },
        to: authenticated,
    })
}

/// Returns the user that it would run as: by `run-as=` if the host itself asks, by `users=` if one
/// of its users asks.
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
            let words = format!(
                "users= of {} does not allow {caller} to run as {asked}",
                entry.name
            );
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
            "this daemon runs as {own} and cannot run commands as another user"
        ))),
        _ => Ok(user),
    }
}

fn allowed_form(entry: &Entry, command: &Command) -> Result<Form, Refusal> {
    let Command::Words(words) = command else {
        return Err(Refusal::new(Cause::Command, "the command was not received"));
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
            ", which was sent as one argument with spaces; commands= needs separate arguments"
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
            None => "is not set, and its commands= allows no other program",
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
    // The subsystem is not listed for this host, which may use it because it may run any command.
    // The account's shell decides then, as for a command. It may be nologin or a restricted shell.
    let quoted: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    Ok(Form::Shell(quoted.join(" ").into_bytes()))
}

/// Returns whether a PC user may pass this variable; `LC_` without a category is not accepted.
fn is_locale(name: &str) -> bool {
    let category = name.strip_prefix("LC_");
    name == "LANG" || category.is_some_and(|category| !category.is_empty())
}
