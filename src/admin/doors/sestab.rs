//! `cosadm sestab`: the ten calls on the session table (seed 002) and its two lists "I" and "E".

use super::super::call::Call;
use super::super::out::{Failure, Out};
use super::decision_text::decision_text;
use super::exclude::{known_name, named_by_the_inner_door, not_there, put};
use super::{BUT_HOSTS, day, done, id, machine_in_time, many, outer, rows, seconds, word};
use crate::cli::json::Json;
use crate::config::keys;
use crate::config::paths::Paths;
use crate::config::words::{quoted, shown};
use crate::fault::Fault;
use crate::registry::{Doors, Id, Level, List, Outer, RegistrationState};

/// Parses an operand as the letter of a list.
fn which(letter: &str) -> Result<List, Failure> {
    let wrong = || {
        let letter = quoted(letter);
        let words = format!("{letter} is not a list: I is the include list, E the exclude list");
        Failure::Usage(words)
    };
    List::of(letter).ok_or_else(wrong)
}

const fn field(list: List) -> &'static str {
    match list {
        List::Include => "include",
        List::Exclude => "exclude",
    }
}

/// Returns whether the list is enforced at this level.
fn is_enforced(list: List, level: Level) -> bool {
    list == List::Exclude || level == Level::Closed
}

/// Lists one list, or both.
pub(in crate::admin) fn list(call: &Call, out: &Out) -> Result<(), Failure> {
    let only = call.optional(0).map(which).transpose()?;
    let outer = outer(&call.paths()?)?;
    let level = outer.level()?;
    let lists: Vec<List> = match only {
        Some(list) => vec![list],
        None => vec![List::Include, List::Exclude],
    };
    let is_json = call.given("json");
    let mut parts = out.parts();
    if is_json {
        let level = level.number();
        parts.put(&format!("{{\"level\":{level}"))?;
    }
    for list in lists {
        if is_json {
            parts.put(&format!(",\"{}\":[", field(list)))?;
        } else {
            let how = if is_enforced(list, level) {
                "enforced"
            } else {
                "not enforced"
            };
            let count = many(outer.count(list)?, "machine");
            let letter = list.letter();
            parts.put(&format!(
                "{letter} ({} list, {how}): {count}\n",
                field(list)
            ))?;
        }
        rows::write(&mut parts, is_json, &outer.items_by_name(list)?)?;
        if is_json {
            parts.put("]")?;
        }
    }
    if is_json {
        parts.put("}\n")?;
    }
    parts.end()
}

/// Shows one machine on a list.
pub(in crate::admin) fn get(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let (list, id) = (which(call.operand(0))?, id(call, 1)?);
    let item = outer(&paths)?.get(list, &id)?;
    let item = item.ok_or_else(|| not_there(&paths, list, &id))?;
    if call.given("json") {
        let fields = vec![
            ("list", Json::text(list.letter())),
            ("id", Json::text(item.id)),
            ("name", Json::text(&item.name)),
            ("since", seconds(item.since)),
        ];
        return out.say(&format!("{}\n", Json::Object(fields)));
    }
    let (name, since) = (shown(&item.name), day(item.since));
    out.say(&format!("{name:<20} {id} {since}\n"))
}

/// Puts a machine on a list.
pub(in crate::admin) fn set(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let (list, id) = (which(call.operand(0))?, id(call, 1)?);
    let mut outer = outer(&paths)?;
    let (added, name) = put(call, &mut outer, list, &id)?;
    // Look the name up only after the change, because the inner door may hang.
    let name = match name {
        Some(name) => name,
        None => named_by_the_inner_door(&paths, &mut outer, list, &id, out),
    };
    let fields = vec![
        ("list", Json::text(list.letter())),
        ("id", Json::text(id)),
        ("name", Json::text(&name)),
        ("added", Json::Bool(added)),
    ];
    let how = if added { "is on" } else { "was on" };
    done(
        call,
        out,
        fields,
        format!("{id} {how} the {} list", field(list)),
    )?;
    // An inner door that cannot be read is not reported here: this command does not need it.
    let is_unknown = || matches!(machine_in_time(&paths, &outer, &id), Ok(None));
    if list == List::Include && is_unknown() {
        let add = paths.cosadm(format_args!("machine add {id} --name NAME"));
        out.tell(format!(
            "the inner door does not know this machine, so the list alone does not allow it; {add} \
             authorizes it"
        ));
    }
    Ok(())
}

/// Removes a machine from a list.
pub(in crate::admin) fn delete(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let (list, id) = (which(call.operand(0))?, id(call, 1)?);
    if !outer(&paths)?.delete(list, &id)? {
        return Err(not_there(&paths, list, &id).into());
    }
    let fields = vec![
        ("list", Json::text(list.letter())),
        ("id", Json::text(id)),
        ("deleted", Json::Bool(true)),
    ];
    done(
        call,
        out,
        fields,
        format!("{id} is off the {} list", field(list)),
    )
}

/// Enforces a list.
pub(in crate::admin) fn enable(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    match which(call.operand(0))? {
        List::Include => enforce(&paths, &mut outer(&paths)?)?,
        // The exclude list is always enforced.
        List::Exclude => drop(outer(&paths)?),
    }
    told(call, out, &paths)
}

/// Stops enforcing a list.
pub(in crate::admin) fn disable(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    if which(call.operand(0))? == List::Exclude {
        let delete = paths.cosadm("exclude delete ID");
        let words = format!("the exclude list is always enforced; {delete} takes a machine off it");
        return Err(Fault::new(words).into());
    }
    outer(&paths)?.set_level(Level::Open)?;
    told(call, out, &paths)
}

/// Enforces the include list, unless it is empty.
fn enforce(paths: &Paths, outer: &mut Outer) -> Result<(), Fault> {
    if outer.count(List::Include)? > 0 {
        return outer.set_level(Level::Closed);
    }
    let words = if outer.level()? == Level::Closed {
        format!("the include list is empty, and the outer door remains closed: {BUT_HOSTS}")
    } else {
        format!("enforcing an empty include list would deny every machine; {BUT_HOSTS}")
    };
    Err(Fault::new(words).with_remedy(format!(
        "to fill it with the authorized machines: {}",
        paths.cosadm("door close")
    )))
}

/// Reports the level after a change.
fn told(call: &Call, out: &Out, paths: &Paths) -> Result<(), Failure> {
    let level = outer(paths)?.level()?;
    let fields = vec![
        ("level", Json::Number(level.number().into())),
        ("outer_door", Json::text(word(level))),
    ];
    done(call, out, fields, super::door::now(paths))
}

/// Describes the closed outer door with an empty include list; `None`: it is not so.
pub(super) fn denies_all(paths: &Paths, outer: &Outer) -> Result<Option<String>, Fault> {
    if outer.level()? != Level::Closed || outer.count(List::Include)? > 0 {
        return Ok(None);
    }
    let close = paths.cosadm("door close");
    Ok(Some(format!(
        "the include list is empty: hosts of hostinfo that prove their cookie are allowed, and no \
         others, until {close} adds the authorized machines"
    )))
}

/// Shows or sets the security level.
pub(in crate::admin) fn level(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let Some(given) = call.optional(0) else {
        let level = outer(&paths)?.level()?;
        let number = level.number();
        if call.given("json") {
            let door = Json::text(word(level));
            let fields = vec![("level", Json::Number(number.into())), ("outer_door", door)];
            return out.say(&format!("{}\n", Json::Object(fields)));
        }
        return out.say(&format!("{number}\n"));
    };
    let wrong = || {
        let given = quoted(given);
        let words = "0 is neither door, 1 the inner door only, 2 both";
        Failure::Usage(format!("{given} is not a security level: {words}"))
    };
    let level = given.parse().ok().and_then(Level::of).ok_or_else(wrong)?;
    let mut outer = outer(&paths)?;
    outer.set_level(level)?;
    if let Some(words) = denies_all(&paths, &outer)? {
        out.tell(words);
    }
    drop(outer);
    told(call, out, &paths)
}

/// Shows a machine's ID, by default this machine's, and the access decision on it.
pub(in crate::admin) fn inquire(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let own = keys::load_machine_key(&paths).map(|pair| Id::of(&pair.public));
    let id = match call.optional(0) {
        Some(_) => id(call, 0)?,
        None => own.clone()?,
    };
    let is_local = own.is_ok_and(|own| own == id);
    let outer = outer(&paths)?;
    let lists = [List::Include, List::Exclude];
    let names = lists.map(|list| known_name(&paths, &outer, list, &id));
    let [included, excluded] = names;
    let name = Some(included?).filter(|name| !name.is_empty());
    let name = name.map_or(excluded, Ok)?;
    drop(outer);
    let status = Doors::of(&paths).look(id)?;
    let any = decision_text(&status, false, is_local);
    let host = decision_text(&status, true, is_local);
    let here = decision_text(&status, false, true);
    // The inner door is not asked about an excluded machine, or at level 0.
    let is_asked = !status.excluded && status.level != Level::Off;
    let state = is_asked.then_some(match status.state {
        RegistrationState::Never => "unknown",
        RegistrationState::Deleted => "deleted",
        RegistrationState::Known { .. } => "authorized",
    });
    if call.given("json") {
        let fields = vec![
            ("id", Json::text(id)),
            ("name", Json::text(&name)),
            ("level", Json::Number(status.level.number().into())),
            ("included", Json::Bool(status.included)),
            ("excluded", Json::Bool(status.excluded)),
            ("standing", Json::maybe(state)),
            ("meets", Json::text(any.word)),
            ("meets_as_host", Json::text(host.word)),
            ("meets_from_here", Json::text(here.word)),
            ("meaning", Json::text(&any.words)),
        ];
        return out.say(&format!("{}\n", Json::Object(fields)));
    }
    let not = |on| if on { "" } else { "not " };
    let asked = state.map_or_else(String::new, |s| format!(", {s} at the inner door"));
    let called = if name.is_empty() {
        id.to_string()
    } else {
        format!("{id} {}", shown(&name))
    };
    let from_here = if here.word == "in" && status.remote_only && status.level != Level::Off {
        "remote-only is on: connections from this host itself are allowed\n"
    } else {
        ""
    };
    out.say(&format!(
        "{called}\n{}included, {}excluded{asked}\nit {}\nas a host that proves its cookie, it {}\n{from_here}",
        not(status.included),
        not(status.excluded),
        any.words,
        host.words,
    ))
}
