//! Whether a caller may use a named service, as a pure function of the service's lists and of what
//! is known of the caller. Runs in the monitor, and in `cosadm explain`. Must not read files or query
//! the system.

use std::net::IpAddr;

use crate::config::name::{HostName, UserName};
use crate::config::named_services::ServiceUser;
use crate::config::rules::{
    Compression, Condition, HardwareAddress, MachineId, Rule, Rules, TokenKind,
};
use crate::config::times::WeekTime;
use crate::protocol::hello::Suite;
use crate::sys::id_number::IdNumber;

/// What is known of a caller and its connection. What is `None` is not known.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The user that the caller is here.
    pub user: Option<&'a str>,
    /// The names of that user's groups, of those that rules name.
    pub groups: Option<&'a [String]>,
    /// The calling host.
    pub host: Option<&'a HostName>,
    /// The calling machine.
    pub machine: Option<MachineId>,
    /// How the caller has authenticated.
    pub token: TokenKind,
    /// The address that the caller connects from.
    pub address: Option<IpAddr>,
    /// Its hardware address, if it is on the same link.
    pub hardware: Option<HardwareAddress>,
    /// The time on this host's clock.
    pub time: WeekTime,
    /// The cipher of the connection.
    pub suite: Option<Suite>,
    /// The compression of the connection.
    pub compression: Option<Compression>,
}

/// The decision, and the rule that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// This rule of `allow` applies, and none of `deny`.
    Allowed(&'a Rule),
    /// This rule of `deny` applies.
    Denied(&'a Rule),
    /// No rule applies.
    Unlisted,
}

impl Verdict<'_> {
    /// Whether the caller may use the service.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// Decides: `deny` comes first, and what no rule of `allow` covers is not allowed. The order of the
/// rules in a list means nothing, except that the first one that applies is reported.
///
/// A rule of `allow` applies if all its conditions are known to hold; one of `deny` unless one of
/// them is known not to hold. So nobody avoids a rule by keeping a fact unknown.
pub fn decide<'a>(rules: &'a Rules, facts: &Facts<'_>) -> Verdict<'a> {
    let mut denials = rules.deny.iter();
    if let Some(rule) = denials.find(|rule| all(rule, |c| holds(c, facts) != Some(false))) {
        return Verdict::Denied(rule);
    }
    let mut allowances = rules.allow.iter();
    let allowed = allowances.find(|rule| all(rule, |c| holds(c, facts) == Some(true)));
    allowed.map_or(Verdict::Unlisted, Verdict::Allowed)
}

fn all(rule: &Rule, is: impl Fn(&Condition) -> bool) -> bool {
    rule.conditions().iter().all(is)
}

/// Returns the conditions of a rule that do not hold, or are not known to.
pub fn unmet<'a>(rule: &'a Rule, facts: &Facts<'_>) -> impl Iterator<Item = &'a Condition> {
    let is_unmet = move |condition: &&Condition| holds(condition, facts) != Some(true);
    rule.conditions().iter().filter(is_unmet)
}

/// Returns the conditions of a rule that are about something that is not known.
pub fn unknown<'a>(rule: &'a Rule, facts: &Facts<'_>) -> impl Iterator<Item = &'a Condition> {
    let is_unknown = move |condition: &&Condition| holds(condition, facts).is_none();
    rule.conditions().iter().filter(is_unknown)
}

/// Returns the user that a service belongs to for a caller that may use it. `caller`: the name and the
/// number of the user that the caller is here, or why it is none.
///
/// # Errors
/// `"@caller"` is no user here, or is root.
pub fn user_of(
    runs_as: &ServiceUser,
    caller: Result<(&str, IdNumber), String>,
) -> Result<UserName, String> {
    match (runs_as, caller) {
        (ServiceUser::User(user), _) => Ok(user.clone()),
        (ServiceUser::Caller, Ok((_, IdNumber::ROOT))) => {
            Err("as = \"@caller\" does not make the caller root".into())
        }
        (ServiceUser::Caller, Ok((name, _))) => {
            UserName::parse(name).map_err(|fault| fault.to_string())
        }
        (ServiceUser::Caller, Err(why)) => Err(why),
    }
}

/// Returns whether a condition holds; `None`: what it is about is not known.
fn holds(condition: &Condition, facts: &Facts<'_>) -> Option<bool> {
    Some(match condition {
        Condition::User(user) => facts.user? == user.as_str(),
        Condition::Group(group) => facts.groups?.iter().any(|name| name == group.as_str()),
        Condition::Host(host) => facts.host? == host,
        Condition::Machine(id) => facts.machine? == *id,
        Condition::Token(kind) => facts.token == *kind,
        Condition::Address(network) => network.contains(facts.address?),
        Condition::Hardware(address) => facts.hardware? == *address,
        Condition::Time(times) => times.contains(facts.time),
        Condition::Suite(suite) => facts.suite? == *suite,
        Condition::Compression(how) => facts.compression? == *how,
    })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
