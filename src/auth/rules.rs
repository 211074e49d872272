//! Whether a caller may use a named service, as a pure function of the service's lists and of what
//! is known of the caller. Runs in the monitor, and in `cosadm explain`. Must not read files or query
//! the system.

use std::net::IpAddr;

use crate::config::name::HostName;
use crate::config::rules::{
    Compression, Condition, HardwareAddress, MachineId, Rule, Rules, TokenKind,
};
use crate::config::times::WeekTime;
use crate::protocol::hello::Suite;

/// What is known of a caller and its connection.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The user that the caller is here; `None` for an anonymous caller.
    pub user: Option<&'a str>,
    /// The names of that user's groups, of those that rules name.
    pub groups: &'a [String],
    /// The calling host, if one has authenticated.
    pub host: Option<&'a HostName>,
    /// The calling machine. The daemon knows this and all below; `cosadm explain` may not.
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
pub fn decide<'a>(rules: &'a Rules, facts: &Facts<'_>) -> Verdict<'a> {
    let applies = |rule: &&Rule| applies(rule, facts);
    if let Some(rule) = rules.deny.iter().find(applies) {
        return Verdict::Denied(rule);
    }
    let allowed = rules.allow.iter().find(applies);
    allowed.map_or(Verdict::Unlisted, Verdict::Allowed)
}

/// Returns the conditions of a rule that do not hold.
pub fn unmet<'a>(rule: &'a Rule, facts: &Facts<'_>) -> impl Iterator<Item = &'a Condition> {
    rule.conditions()
        .iter()
        .filter(move |condition| !holds(condition, facts))
}

fn applies(rule: &Rule, facts: &Facts<'_>) -> bool {
    let mut conditions = rule.conditions().iter();
    conditions.all(|condition| holds(condition, facts))
}

/// Whether a condition holds. One about something that is not known does not.
fn holds(condition: &Condition, facts: &Facts<'_>) -> bool {
    match condition {
        Condition::User(user) => facts.user == Some(user.as_str()),
        Condition::Group(group) => facts.groups.iter().any(|name| name == group.as_str()),
        Condition::Host(host) => facts.host == Some(host),
        Condition::Machine(id) => facts.machine == Some(*id),
        Condition::Token(kind) => facts.token == *kind,
        Condition::Address(network) => facts.address.is_some_and(|own| network.contains(own)),
        Condition::Hardware(address) => facts.hardware == Some(*address),
        Condition::Time(times) => times.contains(facts.time),
        Condition::Suite(suite) => facts.suite == Some(*suite),
        Condition::Compression(how) => facts.compression == Some(*how),
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
