//! `cosadm explain`: whether a caller may use a named service, and which rule decides. Uses the
//! daemon's own decision (`auth::rules`) on the facts of the command line. Must not change anything.

use std::net::IpAddr;

use super::call::Call;
use super::out::{Failure, Out};
use crate::auth::rules::{self, Facts, Verdict};
use crate::cli::json::Json;
use crate::config::hostinfo::{Addresses, HostTable};
use crate::config::name::{HostName, UserName};
use crate::config::named_services::NamedService;
use crate::config::paths::Paths;
use crate::config::rules::{
    Compression, Condition, HardwareAddress, KEYS, MachineId, TokenKind, condition_of,
};
use crate::config::settings::Settings;
use crate::config::times::WeekTime;
use crate::config::words::{did_you_mean, quoted};
use crate::fault::Fault;
use crate::protocol::hello::Suite;
use crate::sys::account::{self, UserRecord};

/// What the command line says of a caller.
#[derive(Default)]
struct Asked {
    service: Option<String>,
    user: Option<UserName>,
    groups: Vec<String>,
    host: Option<HostName>,
    machine: Option<MachineId>,
    token: Option<TokenKind>,
    address: Option<IpAddr>,
    hardware: Option<HardwareAddress>,
    time: Option<WeekTime>,
    suite: Option<Suite>,
    compression: Option<Compression>,
}

/// Explains the decision on a caller. Exits with 1 if the service is denied.
pub(super) fn explain(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let asked = Asked::parse(call.operands())?;
    let settings = Settings::load(&paths.settings())?;
    let services = &settings.service;
    let name = asked.service.as_deref();
    let name = name.ok_or_else(|| usage("name the service: service=NAME"))?;
    let Some(service) = services.get(name) else {
        let hint = did_you_mean(name, services.all().map(|(name, _)| name));
        return Err(Fault::new(format!("there is no [service.{name}]{hint}")).into());
    };
    let groups = asked.groups(services.groups())?;
    let listed = match &asked.host {
        Some(host) if asked.address.is_none() => listed(&paths, host)?,
        Some(_) | None => None,
    };
    let account = match &asked.user {
        Some(user) => account::look_up(user.as_str()).map_err(Fault::new)?,
        None => None,
    };
    let facts = Facts {
        user: account.as_ref().map(|account| account.name.as_str()),
        groups: groups.as_deref(),
        host: asked.host.as_ref(),
        machine: asked.machine,
        token: asked.token.unwrap_or(TokenKind::Host),
        address: asked.address.or(listed),
        hardware: asked.hardware,
        time: asked.time.map_or_else(WeekTime::now, Ok)?,
        suite: asked.suite,
        compression: Some(asked.compression.unwrap_or(Compression::None)),
    };
    let verdict = rules::decide(&service.rules, &facts);
    let caller = match (&account, &asked.user) {
        (Some(account), _) => Ok((account.name.as_str(), account.uid)),
        (None, Some(user)) => Err(format!("there is no user {user} here")),
        (None, None) => Err("the caller is no user here, or is not given".to_owned()),
    };
    let user = rules::user_of(&service.runs_as, caller);
    let is_allowed = verdict.is_allowed() && user.is_ok();
    let text = match call.given("json") {
        true => format!("{}\n", json(&verdict, is_allowed)),
        false => words(service, verdict, &facts, &user),
    };
    out.say(&text)?;
    match is_allowed {
        true => Ok(()),
        false => Err(Failure::Found),
    }
}

fn usage(words: impl Into<String>) -> Failure {
    Failure::Usage(format!("{}; see `cosadm explain --help`", words.into()))
}

impl Asked {
    fn parse(operands: &[String]) -> Result<Self, Failure> {
        let mut asked = Self::default();
        for operand in operands {
            let (key, value) = operand
                .split_once('=')
                .ok_or_else(|| usage(format!("{} is no KEY=VALUE", quoted(operand))))?;
            let again = match key {
                "service" => asked.service.replace(value.to_owned()).is_some(),
                "time" => {
                    let time = WeekTime::parse(value).ok_or_else(|| {
                        let value = quoted(value);
                        usage(format!("time: {value} is no moment, as in \"Mon 07:30\""))
                    })?;
                    asked.time.replace(time).is_some()
                }
                _ => {
                    let keys = KEYS.iter().map(|key| key.name).chain(["service"]);
                    let condition = condition_of(key, value).ok_or_else(|| {
                        let hint = did_you_mean(key, keys);
                        usage(format!("unknown key {}{hint}", quoted(key)))
                    })?;
                    asked.take(condition.map_err(|why| usage(format!("{key}: {why}")))?)?
                }
            };
            if again {
                return Err(usage(format!("{key} is given twice")));
            }
        }
        Ok(asked)
    }

    /// Takes a fact. Returns whether it was given before.
    fn take(&mut self, fact: Condition) -> Result<bool, Failure> {
        Ok(match fact {
            Condition::User(user) => self.user.replace(user).is_some(),
            Condition::Group(group) => {
                self.groups.push(group.to_string());
                false
            }
            Condition::Host(host) => self.host.replace(host).is_some(),
            Condition::Machine(id) => self.machine.replace(id).is_some(),
            Condition::Token(kind) => self.token.replace(kind).is_some(),
            Condition::Address(network) => {
                let address = network.single().map(|one| one.ip());
                let address = address.ok_or_else(|| usage("address: a network is no address"))?;
                self.address.replace(address).is_some()
            }
            Condition::Hardware(address) => self.hardware.replace(address).is_some(),
            Condition::Suite(suite) => self.suite.replace(suite).is_some(),
            Condition::Compression(how) => self.compression.replace(how).is_some(),
            // Its key is taken before.
            Condition::Time(_) => true,
        })
    }

    /// Returns the groups that are given, else those of these that the user is in, if there is one.
    fn groups(&self, named: &[String]) -> Result<Option<Vec<String>>, Failure> {
        if !self.groups.is_empty() {
            return Ok(Some(self.groups.clone()));
        }
        let Some(user) = &self.user else {
            return Ok(None);
        };
        let found = UserRecord::look_up(user.as_str()).map_err(Fault::new)?;
        Ok(found.and_then(|record| record.in_groups(named.to_vec()).named_groups))
    }
}

/// Returns the address that the host table lists for a host, if it is one alone.
fn listed(paths: &Paths, host: &HostName) -> Result<Option<IpAddr>, Failure> {
    let table = HostTable::load(paths)?;
    let entry = table.get(host);
    Ok(match entry.map(|entry| &entry.addresses) {
        Some(Addresses::Listed(networks)) => match networks.as_slice() {
            [one] => one.single().map(|one| one.ip()),
            _ => None,
        },
        Some(Addresses::ByName) | None => None,
    })
}

/// Returns the decision in words: what decides, or why no rule does.
fn words(
    service: &NamedService,
    verdict: Verdict<'_>,
    facts: &Facts<'_>,
    user: &Result<UserName, String>,
) -> String {
    let mut text = match verdict {
        Verdict::Allowed(rule) => format!("allowed by line {}: {rule}\n", rule.line()),
        Verdict::Denied(rule) => format!("denied by line {}: {rule}\n", rule.line()),
        Verdict::Unlisted => "denied: no rule of allow applies\n".to_owned(),
    };
    if let Verdict::Denied(rule) = verdict {
        let unknown: Vec<String> = rules::unknown(rule, facts)
            .map(ToString::to_string)
            .collect();
        if !unknown.is_empty() {
            let unknown = unknown.join(", ");
            text.push_str(&format!("  not known, so it counts in deny: {unknown}\n"));
        }
    }
    if verdict.is_allowed() {
        text.push_str(&match user {
            Ok(user) => format!("as {user}\n"),
            Err(why) => format!("but denied: {why}\n"),
        });
    }
    if verdict == Verdict::Unlisted {
        for rule in &service.rules.allow {
            let unmet: Vec<String> = rules::unmet(rule, facts).map(ToString::to_string).collect();
            let (line, unmet) = (rule.line(), unmet.join(", "));
            text.push_str(&format!(
                "  line {line}: {unmet} does not hold, or is not known\n"
            ));
        }
    }
    text
}

fn json(verdict: &Verdict<'_>, is_allowed: bool) -> Json {
    let rule = match verdict {
        Verdict::Allowed(rule) | Verdict::Denied(rule) => Some(*rule),
        Verdict::Unlisted => None,
    };
    Json::Object(vec![
        ("allowed", Json::Bool(is_allowed)),
        ("line", rule.map(|rule| Json::count(rule.line())).into()),
        ("rule", Json::maybe(rule)),
    ])
}
