//! Authorization of named services (seed 003): which one a caller may use, as a pure function of the
//! services' tables, the caller and its account here.
//!
//! An absent service, a forbidden one and a misspelt one are refused alike: only the log differs.

use super::{AccountUse, Exec, Form, Granted, allowed_user};
use crate::auth::AuthenticatedHost;
use crate::auth::rules::{self, Facts, Verdict};
use crate::config::name::UserName;
use crate::config::named_services::{Backend, Kind, NamedService, NamedServices, ServiceUser};
use crate::config::rules::{Compression, HardwareAddress, TokenKind};
use crate::config::times::WeekTime;
use crate::protocol::request::{Command, Service};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Id, Known};
use crate::sys::account::UserRecord;

/// An admitted caller of named services, and the user that it is here.
pub struct ServiceCaller {
    host: AuthenticatedHost,
    /// The user, or why it is none here.
    user: Result<UserName, String>,
}

/// What a service's lists are applied to, besides the caller.
#[derive(Clone, Copy)]
pub struct ServiceContext<'a> {
    /// The services of the settings.
    pub services: &'a NamedServices,
    /// The caller's account here, if there is one that may be used.
    pub account: Option<&'a UserRecord>,
    /// The only user that this daemon can run as, if it does not run as root.
    pub serves: Option<&'a str>,
    /// The caller's hardware address, if it is known.
    pub hardware: Option<HardwareAddress>,
    /// The time on this host's clock.
    pub time: WeekTime,
}

/// A granted request for a named service.
pub enum GrantedService {
    /// A program is to be started.
    Job(Granted<Exec>),
    /// A backend is to be connected to.
    Backend(Granted<Connect>),
    /// This text is to be told: the names of services.
    Names(Granted<String>),
}

/// A service of the kind `forward`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The service's name in the settings.
    pub name: String,
    /// The user that the connection belongs to.
    pub user: UserName,
    /// How it uses that user's account.
    pub account_use: AccountUse,
    /// What is connected to.
    pub to: ConnectTo,
}

/// What a connection of a named service leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectTo {
    /// A backend that runs by itself.
    Backend(Backend),
    /// The program of an inetd service that serves all connections, which is started if it does not
    /// run.
    Program(Vec<String>),
}

/// What the program of a named service gets besides what every job gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceJob {
    /// The service's name in the settings.
    pub name: String,
    /// How it uses its user's account.
    pub account_use: AccountUse,
    /// Whether its standard input and output are one socket, as inetd's are.
    pub is_inetd: bool,
    /// The variables that describe the caller and the request.
    pub variables: Vec<(&'static str, String)>,
}

impl ServiceCaller {
    /// Returns the caller behind an admitted request.
    pub fn new(known: Known<AuthenticatedHost>) -> Self {
        let host = known.into_inner();
        let user = allowed_user(&host, None).map_err(|refusal| refusal.words);
        Self { host, user }
    }

    /// Returns the user that the caller is here, if any.
    pub fn user(&self) -> Option<&UserName> {
        self.user.as_ref().ok()
    }

    /// Returns the calling host.
    pub const fn host(&self) -> &AuthenticatedHost {
        &self.host
    }

    fn decide<'a>(&self, service: &'a NamedService, context: &ServiceContext<'_>) -> Verdict<'a> {
        let account = context.account.map(|record| &record.account);
        let groups = context
            .account
            .and_then(|record| record.named_groups.as_deref());
        let facts = Facts {
            user: account.map(|account| account.name.as_str()),
            groups,
            host: Some(&self.host.caller().name),
            machine: Some(Id::of(self.host.machine()).0),
            token: TokenKind::Host,
            address: Some(self.host.peer()),
            hardware: context.hardware,
            time: context.time,
            suite: Some(self.host.suite()),
            compression: Some(Compression::None),
        };
        rules::decide(&service.rules, &facts)
    }

    /// Returns the user that a service runs as for this caller.
    fn runs_as(
        &self,
        service: &NamedService,
        context: &ServiceContext<'_>,
    ) -> Result<UserName, String> {
        let caller = match (&self.user, context.account) {
            (Ok(_), Some(record)) => Ok((record.account.name.as_str(), record.account.uid)),
            (Ok(user), None) => Err(format!("{user} is no user that can be used")),
            (Err(why), _) => Err(why.clone()),
        };
        let user = rules::user_of(&service.runs_as, caller)?;
        match context.serves {
            Some(own) if own != user.as_str() => {
                Err(format!("this daemon runs as {own} and cannot be {user}"))
            }
            _ => Ok(user),
        }
    }
}

/// Decides on a caller's request for a named service, or for their names.
///
/// # Errors
/// The service does not exist, or the caller may not use it, or not so.
pub fn grant_service(
    caller: ServiceCaller,
    context: &ServiceContext<'_>,
) -> Result<GrantedService, Refusal> {
    let refuse = |words: String| Refusal::new(Cause::Service, words);
    let request = caller.host.request();
    if let Service::List(offer) = &request.service {
        let names = names(&caller, context);
        let service = match formatted(&names, &offer.formats) {
            Some(text) => text,
            None => {
                return Err(refuse(
                    "it takes neither of the formats text and json".into(),
                ));
            }
        };
        let to = caller.host;
        return Ok(GrantedService::Names(Granted { service, to }));
    }
    let Command::Words(words) = &request.command else {
        return Err(refuse("its words were not received".into()));
    };
    let (name, args) = words.split_first().unwrap_or((const { &Vec::new() }, &[]));
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let Some(service) = context.services.get(&name) else {
        return Err(refuse(format!("there is no [service.{name}]")));
    };
    match caller.decide(service, context) {
        Verdict::Allowed(_) => {}
        Verdict::Denied(rule) => {
            let line = rule.line();
            let words = format!("[service.{name}]: line {line} denies it: {rule}");
            return Err(refuse(words));
        }
        Verdict::Unlisted => {
            let who = match (&caller.user, context.account) {
                (Ok(user), Some(_)) => format!("{user} of {}", caller.host.caller().name),
                (Ok(user), None) => format!("{user}, who has no account that can be used here,"),
                (Err(why), _) => format!("this caller, who is no user here ({why})"),
            };
            return Err(refuse(format!(
                "[service.{name}]: allow does not list {who}"
            )));
        }
    }
    let user = caller.runs_as(service, context);
    let user = user.map_err(|why| refuse(format!("[service.{name}]: {why}")))?;
    let offered = match &request.service {
        Service::Named(offer) => offer.formats.as_slice(),
        Service::Exec
        | Service::Subsystem
        | Service::Gui(_)
        | Service::List(_)
        | Service::Enrol => &[],
    };
    let format = choose_format(&service.formats, offered);
    let format = format.map_err(|why| refuse(format!("[service.{name}]: {why}")))?;
    let (command, is_inetd) = match &service.kind {
        Kind::Command {
            command,
            args: patterns,
        } => {
            let is_allowed = args.is_empty() || patterns.iter().any(|p| p.allows(args));
            let shown = || String::from_utf8_lossy(&args.join(&b' ')).into_owned();
            if !is_allowed {
                let shown = shown();
                let words = format!("[service.{name}]: args does not allow: {shown}");
                return Err(refuse(words));
            }
            (command, false)
        }
        Kind::Forward { .. } | Kind::Inetd { .. } if !args.is_empty() => {
            let words = format!("[service.{name}]: only kind = \"command\" takes arguments");
            return Err(refuse(words));
        }
        Kind::Forward { .. } | Kind::Inetd { wait: true, .. } => {
            let to = match &service.kind {
                Kind::Forward { to } => ConnectTo::Backend(to.clone()),
                Kind::Command { command, .. } | Kind::Inetd { command, .. } => {
                    ConnectTo::Program(command.clone())
                }
            };
            let account_use = account_use(&service.runs_as);
            let service = Connect {
                name,
                user,
                account_use,
                to,
            };
            let to = caller.host;
            return Ok(GrantedService::Backend(Granted { service, to }));
        }
        Kind::Inetd { command, .. } => (command, true),
    };
    let own = command.iter().map(|word| word.clone().into_bytes());
    let mut variables = vec![
        ("COS_SERVICE", name.clone()),
        ("COS_ARGS", encoded(args)),
        ("COS_MACHINE", Id::of(caller.host.machine()).to_string()),
        ("COS_RIGHTS", "host".to_owned()),
    ];
    variables.extend(format.map(|format| ("COS_FORMAT", format)));
    let entry = caller.host.caller();
    let passed = request.environment.iter();
    let service = Exec {
        user,
        form: Form::Direct(own.chain(args.iter().cloned()).collect()),
        environment: passed.filter(|(n, _)| entry.may_pass(n)).cloned().collect(),
        service: Some(ServiceJob {
            name,
            account_use: account_use(&service.runs_as),
            is_inetd,
            variables,
        }),
    };
    let to = caller.host;
    Ok(GrantedService::Job(Granted { service, to }))
}

fn account_use(runs_as: &ServiceUser) -> AccountUse {
    match runs_as {
        ServiceUser::Caller => AccountUse::LogIn,
        ServiceUser::User(_) => AccountUse::Service,
    }
}

/// Returns the format of a service's result: the first that the caller takes of those that there are,
/// or the service's usual one if the caller takes any.
fn choose_format(own: &[String], taken: &[String]) -> Result<Option<String>, String> {
    if taken.is_empty() {
        return Ok(own.first().cloned());
    }
    let found = taken.iter().find(|format| own.contains(format));
    let found = found.ok_or_else(|| format!("formats has none of {}", taken.join(", ")));
    found.cloned().map(Some)
}

/// Returns the names of the services that a caller may use.
fn names(caller: &ServiceCaller, context: &ServiceContext<'_>) -> Vec<String> {
    let usable = context.services.all().filter(|(_, service)| {
        caller.decide(service, context).is_allowed() && caller.runs_as(service, context).is_ok()
    });
    usable.map(|(name, _)| name.to_owned()).collect()
}

/// Returns names in the first of these formats that there is: one on each line, or a JSON array.
/// `None`: there is none of them.
fn formatted(names: &[String], formats: &[String]) -> Option<String> {
    let lines = || names.iter().map(|name| format!("{name}\n")).collect();
    // A service's name needs no escape.
    let json = || {
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        format!("[{}]\n", quoted.join(","))
    };
    if formats.is_empty() {
        return Some(lines());
    }
    formats.iter().find_map(|format| match format.as_str() {
        "text" => Some(lines()),
        "json" => Some(json()),
        _ => None,
    })
}

/// Returns arguments as one text, as in the query of a URL: separated by `&`, with `%` and two
/// hexadecimal digits for every byte that is no letter, no digit and none of `-._~=/:,+@`.
fn encoded(args: &[Vec<u8>]) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~=/:,+@".contains(&b);
    let one = |arg: &Vec<u8>| -> String {
        let byte = |b: &u8| match plain(*b) {
            true => char::from(*b).to_string(),
            false => format!("%{b:02X}"),
        };
        arg.iter().map(byte).collect()
    };
    let all: Vec<String> = args.iter().map(one).collect();
    all.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_first_format_that_there_is() {
        let names = ["pg".to_owned(), "uptime".to_owned()];
        let all = |formats: &[&str]| {
            let formats: Vec<String> = formats.iter().map(|f| (*f).to_owned()).collect();
            formatted(&names, &formats)
        };
        assert_eq!(all(&[]).unwrap(), "pg\nuptime\n");
        assert_eq!(
            all(&["xml", "json", "text"]).unwrap(),
            "[\"pg\",\"uptime\"]\n"
        );
        assert_eq!(all(&["text"]), all(&[]));
        assert_eq!(all(&["xml"]), None);
        assert_eq!(formatted(&[], &["json".into()]).unwrap(), "[]\n");
    }

    #[test]
    fn the_caller_chooses_the_format() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let choose = |own: &[&str], taken: &[&str]| choose_format(&list(own), &list(taken));
        assert_eq!(choose(&[], &[]), Ok(None));
        assert_eq!(choose(&["text", "json"], &[]), Ok(Some("text".into())));
        assert_eq!(
            choose(&["text", "json"], &["xml", "json", "text"]),
            Ok(Some("json".into()))
        );
        assert!(choose(&["text"], &["json"]).is_err());
        assert!(choose(&[], &["json"]).is_err());
    }

    #[test]
    fn arguments_become_one_text() {
        let all = |args: &[&[u8]]| encoded(&args.iter().map(|a| a.to_vec()).collect::<Vec<_>>());
        assert_eq!(all(&[]), "");
        assert_eq!(all(&[b"daily", b"month=11"]), "daily&month=11");
        assert_eq!(all(&[b"a&b", b"%", b" \xff\n"]), "a%26b&%25&%20%FF%0A");
    }
}
