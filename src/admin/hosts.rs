//! `cosadm host list`, `show` and `remove`.

use std::fmt::Write as _;

use super::call::Call;
use super::edit::{Lock, Text};
use super::invite::{from, joined};
use super::out::{Failure, Out};
use crate::cli::json::Json;
use crate::config::hostinfo::{Addresses, Entry, HostTable, UserPair, Users};
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::config::{cookie, keys, known_hosts, machines, secure};
use crate::fault::Fault;
use crate::registry::{AccessDecision, Doors, Id, RegistrationState, decide};
use crate::secret::PublicKey;

/// What is stored about a host besides its line.
pub(super) struct Known {
    /// How many live cookies it can use to request commands from this host.
    pub(super) cookies_in: Result<usize, Fault>,
    /// How many cookies this host has for its own requests to it.
    pub(super) cookies_out: Result<usize, Fault>,
    /// The machine key recorded for it.
    pub(super) recorded: Result<Option<PublicKey>, Fault>,
    /// The keys pinned for it.
    pub(super) pins: Result<Vec<PublicKey>, Fault>,
}

impl Known {
    pub(super) fn of(paths: &Paths, host: &HostName) -> Self {
        let count = |file| cookie::load(paths, file).map(|cookies| cookies.map_or(0, |c| c.len()));
        Self {
            cookies_in: count(&paths.cookie_in(host)),
            cookies_out: count(&paths.cookie_out(host)),
            recorded: machines::recorded(paths, host),
            pins: known_hosts::pins(paths, host),
        }
    }

    /// Returns the faults in the files of the host.
    pub(super) fn faults(&self) -> Vec<&Fault> {
        let faults = [
            self.cookies_in.as_ref().err(),
            self.cookies_out.as_ref().err(),
            self.recorded.as_ref().err(),
            self.pins.as_ref().err(),
        ];
        faults.into_iter().flatten().collect()
    }
}

/// Explains why a host is denied because its line contradicts what is recorded for it.
pub(super) fn contradiction(paths: &Paths, entry: &Entry, known: &Known) -> Option<String> {
    let rotate = || paths.cosadm(format_args!("host rotate {}", entry.name));
    if entry.may_ask() && matches!(known.cookies_in, Ok(0)) {
        let option = if entry.run_as.is_empty() {
            "users="
        } else {
            "run-as="
        };
        return Some(format!(
            "it has {option} and no cookie, so it is denied; {} makes one",
            rotate()
        ));
    }
    match (&entry.machine_key, &known.recorded) {
        (Some(only), Ok(Some(recorded))) if only != recorded => Some(format!(
            "machine-key= differs from the recorded key, so it is denied; {} removes the record",
            rotate()
        )),
        (Some(_) | None, _) => None,
    }
}

/// Explains why a host is denied although its line allows it.
pub(super) fn denied(paths: &Paths, entry: &Entry, known: &Known) -> Option<String> {
    if !entry.may_ask() {
        return None;
    }
    let files = [
        known.cookies_in.as_ref().err(),
        known.recorded.as_ref().err(),
    ];
    let unreadable = files.into_iter().flatten().next();
    unreadable
        .map(|fault| format!("it is denied: {fault}"))
        .or_else(|| contradiction(paths, entry, known))
        .or_else(|| denied_by_doors(paths, known))
}

/// Returns whether the inner door has a machine.
fn is_authorized(paths: &Paths, id: Id) -> bool {
    let status = Doors::of(paths).look(id);
    status.is_ok_and(|s| matches!(s.state, RegistrationState::Known { .. }))
}

/// Explains why the machine that is recorded for a host is denied by the doors.
fn denied_by_doors(paths: &Paths, known: &Known) -> Option<String> {
    let id = Id::of(known.recorded.as_ref().ok()?.as_ref()?);
    let status = Doors::of(paths).look(id).ok()?;
    let add = format!("machine add {id} --name NAME");
    let why = match decide(&status, true, false) {
        AccessDecision::Allow(_) => return None,
        // The client of a command never answers a prompt.
        AccessDecision::Prompt(_) => {
            return Some(format!(
                "it is denied by the registry: its machine was deleted; {} allows it",
                paths.cosadm(&add)
            ));
        }
        AccessDecision::Deny(why) => why,
    };
    let remedy = if status.excluded {
        format!("exclude delete {id}")
    } else {
        add
    };
    Some(format!(
        "it is denied by the registry: {why}; {} allows it",
        paths.cosadm(remedy)
    ))
}

/// Describes what a line means, in sentences.
pub(super) fn meaning(paths: &Paths, entry: &Entry, known: &Known) -> String {
    let mut text = if !entry.may_ask() {
        "it may ask this host nothing".to_owned()
    } else if let Some(why) = denied(paths, entry, known) {
        why
    } else {
        let mut what = entry.commands.as_ref().map_or_else(
            || "any command".to_owned(),
            |list| {
                list.iter()
                    .map(|c| format!("`{c}`"))
                    .collect::<Vec<_>>()
                    .join(" or ")
            },
        );
        match entry.subsystems.as_deref() {
            None => {}
            Some([]) => what.push_str(" (no subsystem)"),
            Some(names) => {
                let _ = write!(what, " or the subsystem {}", names.join(" or "));
            }
        }
        let users = joined(&entry.run_as).replace(',', " or ");
        let (from, its) = (
            from(&entry.addresses, &entry.name),
            describe_users(&entry.users),
        );
        if users.is_empty() {
            format!("{its} may run {what} here, from {from}")
        } else {
            format!("it may run {what} here as {users}, from {from}; {its}")
        }
    };
    if let Ok(Some(key)) = &known.recorded {
        let _ = write!(text, ", with the machine key {}", keys::fingerprint(key));
    } else if let Some(key) = &entry.machine_key {
        let _ = write!(
            text,
            ", with the machine key {} alone",
            keys::fingerprint(key)
        );
    }
    if matches!(known.cookies_out, Ok(0)) && entry.method.as_str() == "cos" {
        text.push_str("; this host does not ask it");
        return text;
    }
    let plain = entry.addresses.plain();
    let at = if plain.is_empty() {
        format!("the name {}", entry.server_name())
    } else {
        joined(&plain).replace(',', ", ")
    };
    let port = entry
        .port
        .map(|port| format!(", port {port}"))
        .unwrap_or_default();
    let _ = write!(
        text,
        "; this host asks it by {} at {at}{port}",
        entry.method
    );
    if let Some(name) = &entry.as_name {
        let _ = write!(text, " under the name {name}");
    }
    if let Some(user) = &entry.user {
        let _ = write!(text, " as {user}");
    }
    text
}

/// Describes which of a host's users may run commands as which users here.
pub(super) fn describe_users(users: &Users) -> String {
    match users {
        Users::SameName => {
            "its users each as the user of the same name here, never root".to_owned()
        }
        Users::Pairs(pairs) if pairs.is_empty() => "none of its users".to_owned(),
        Users::Pairs(pairs) => {
            let one = |p: &UserPair| format!("{} as {}", p.there, p.here);
            let all: Vec<String> = pairs.iter().map(one).collect();
            format!("of its users {}", all.join(", "))
        }
    }
}

/// Lists the hosts.
pub(super) fn list(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let table = HostTable::load(&paths)?;
    let hosts = || {
        table
            .entries()
            .iter()
            .map(|entry| (entry, Known::of(&paths, &entry.name)))
    };
    if call.given("json") {
        let hosts = hosts().map(|(entry, known)| json(&paths, entry, &known));
        let value = Json::Object(vec![
            ("hosts", Json::List(hosts.collect())),
            ("faults", Json::texts(table.faults())),
        ]);
        return out.say(&format!("{value}\n"));
    }
    table.faults().iter().for_each(|fault| out.tell(fault));
    if table.entries().is_empty() && table.faults().is_empty() {
        out.tell(format!("no host is in {}", paths.hostinfo().display()));
        out.tell(format!(
            "to allow one to run commands here: {}",
            paths.cosadm("host invite NAME")
        ));
    }
    let mut text = String::new();
    let width = table
        .entries()
        .iter()
        .map(|e| e.name.as_str().len())
        .max()
        .unwrap_or(0);
    for (entry, known) in hosts() {
        let _ = writeln!(
            text,
            "{:width$}  {}",
            entry.name,
            meaning(&paths, entry, &known)
        );
    }
    out.say(&text)
}

/// Shows one host.
pub(super) fn show(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let host = HostName::parse(call.operand(0))?;
    let entry = crate::config::hostinfo::find(&paths, &host)?;
    let entry =
        entry.ok_or_else(|| Fault::of(&paths.hostinfo(), format!("{host} is not in it")))?;
    let known = Known::of(&paths, &host);
    if call.given("json") {
        return out.say(&format!("{}\n", json(&paths, &entry, &known)));
    }
    let mut text = format!(
        "{host} (line {} of {}): {}.\n",
        entry.line,
        paths.hostinfo().display(),
        meaning(&paths, &entry, &known)
    );
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<24} {value}");
    };
    let count = |cookies: &Result<usize, Fault>| match cookies {
        Ok(count) => count.to_string(),
        Err(fault) => fault.to_string(),
    };
    row("cookies, it asks us", count(&known.cookies_in));
    row("cookies, we ask it", count(&known.cookies_out));
    match &known.recorded {
        Ok(Some(key)) => row("recorded machine key", key.to_hex()),
        Ok(None) => row("recorded machine key", "none yet".into()),
        Err(fault) => row("recorded machine key", fault.to_string()),
    }
    match &known.pins {
        Ok(pins) => pins.iter().for_each(|key| {
            row(
                "pinned key",
                format!("{}, fingerprint {}", key.to_hex(), keys::fingerprint(key)),
            )
        }),
        Err(fault) => row("pinned key", fault.to_string()),
    }
    for command in entry.commands.iter().flatten() {
        row("it may run", command.to_string());
    }
    for name in entry.subsystems.iter().flatten() {
        row("it may ask for", format!("the subsystem {name}"));
    }
    out.say(&text)
}

/// Removes a host: its lines, cookies, recorded key and pins.
pub(super) fn remove(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let host = HostName::parse(call.operand(0))?;
    let lock = Lock::take(&paths)?;
    let mut text = Text::read(&paths, &lock)?;
    text.remove(&host);
    let recorded = machines::recorded(&paths, &host).ok().flatten();
    // Remove the cookies first: that needs no space on a full disk, and without them the trust has
    // ended no matter what remains. A failed step does not stop the others.
    let steps: [(&str, Result<bool, Fault>); 5] = [
        (
            "the cookies by which it asks this host",
            secure::remove(&paths.cookie_in(&host)),
        ),
        (
            "the cookies by which this host asks it",
            secure::remove(&paths.cookie_out(&host)),
        ),
        ("its recorded machine key", machines::forget(&paths, &host)),
        ("its line", text.save_if_changed(&host, &lock)),
        ("its pinned keys", known_hosts::unpin(&paths, &host)),
    ];
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for (what, done) in steps {
        match done {
            Ok(true) => removed.push(what),
            Ok(false) => {}
            Err(fault) => {
                failed.push(fault.while_doing(format_args!("{host}: {what} not removed")))
            }
        }
    }
    if !removed.is_empty() {
        out.tell(format!("{host}: removed {}", removed.join(", ")));
        out.tell("a running cosserver sees it at the next request");
    }
    let id = recorded.as_ref().map(Id::of);
    if let Some(id) = id.filter(|id| is_authorized(&paths, *id)) {
        let delete = paths.cosadm(format_args!("machine delete {id}"));
        out.tell(format!(
            "its machine is still authorized in the registry; {delete} deletes it there"
        ));
    }
    let last = failed.pop();
    failed.iter().for_each(|fault| out.tell(fault));
    match last {
        Some(fault) => Err(fault.into()),
        None if removed.is_empty() => {
            Err(Fault::of(&paths.hostinfo(), format!("{host} is not in it")).into())
        }
        None => Ok(()),
    }
}

/// Returns a host as JSON.
fn json(paths: &Paths, entry: &Entry, known: &Known) -> Json {
    let key = |key: &PublicKey| Json::text(key.to_hex());
    let count = |cookies: &Result<usize, Fault>| cookies.as_ref().ok().map(|n| Json::count(*n));
    let recorded = known.recorded.as_ref().ok().and_then(Option::as_ref);
    let pins = known.pins.as_ref().ok();
    let pins = pins.map(|pins| pins.iter().map(key).collect());
    let addresses = match &entry.addresses {
        Addresses::Listed(networks) => Json::texts(networks),
        Addresses::ByName => Json::Null,
    };
    Json::Object(vec![
        ("name", Json::text(&entry.name)),
        ("line", Json::count(entry.line)),
        ("method", Json::text(entry.method)),
        ("addresses", addresses),
        ("port", entry.port.map(|p| Json::Number(p.into())).into()),
        ("as", Json::maybe(entry.as_name.as_ref())),
        ("server", Json::text(entry.server_name())),
        ("user", Json::maybe(entry.user.as_ref())),
        ("run_as", Json::texts(&entry.run_as)),
        (
            "users",
            match &entry.users {
                Users::SameName => Json::Null,
                Users::Pairs(pairs) => Json::texts(pairs),
            },
        ),
        ("commands", entry.commands.as_ref().map(Json::texts).into()),
        (
            "subsystems",
            entry.subsystems.as_ref().map(Json::texts).into(),
        ),
        ("accept_env", Json::texts(&entry.accept_env)),
        ("machine_key", entry.machine_key.as_ref().map(key).into()),
        ("recorded_machine_key", recorded.map(key).into()),
        ("cookies_in", count(&known.cookies_in).into()),
        ("cookies_out", count(&known.cookies_out).into()),
        ("pins", pins.map(Json::List).into()),
        ("faults", Json::texts(known.faults())),
        ("denied", Json::maybe(denied(paths, entry, known))),
        ("meaning", Json::text(meaning(paths, entry, known))),
    ])
}
