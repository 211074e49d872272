//! `cosadm exclude`: the machines that the outer door always denies.

use super::super::call::Call;
use super::super::out::{Failure, Out};
use super::super::who;
use super::{done, id, inner, machine_id, machine_in_time, many, named, outer, rows};
use crate::cli::json::Json;
use crate::config::keys;
use crate::config::paths::Paths;
use crate::config::words::shown;
use crate::fault::Fault;
use crate::ipc::inetd;
use crate::registry::{Id, List, Outer};

/// Lists the excluded machines.
pub(in crate::admin) fn list(call: &Call, out: &Out) -> Result<(), Failure> {
    let outer = outer(&call.paths()?)?;
    let words = ("excluded", "no machine is excluded");
    let items = outer.items_by_name(List::Exclude)?;
    rows::list(out, call.given("json"), words, &items)
}

/// Excludes a machine, and with `--now` ends its sessions and logins.
pub(in crate::admin) fn add(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let mut outer = outer(&paths)?;
    // Ask the inner door only about a name: excluding an ID must not wait for it.
    let id = match Id::parse(call.operand(0)) {
        Ok(id) => id,
        Err(_) => machine_id(&paths, &inner(&paths, &outer)?, (call, 0), out)?,
    };
    let (added, name) = put(call, &mut outer, List::Exclude, &id)?;
    if keys::load_machine_key(&paths).is_ok_and(|pair| Id::of(&pair.public) == id) {
        out.tell("that is the machine ID of this configuration folder itself");
    }
    let hang_up = || {
        // If one of the two fails, the other still happens.
        let told = inetd::tell_all(&paths.inetd_table());
        Ok((who::cut(&paths, id.0)?, told?))
    };
    let cut = call.given("now").then(hang_up).transpose();
    let cut = cut.map_err(|e: Fault| e.while_doing("it is excluded, but not hung up"))?;
    // Look the name up only after the exclusion, because the inner door may hang. The exclusion
    // does not depend on the name.
    let name = name
        .unwrap_or_else(|| named_by_the_inner_door(&paths, &mut outer, List::Exclude, &id, out));
    let called = if name.is_empty() {
        id.to_string()
    } else {
        format!("{} ({id})", shown(&name))
    };
    let mut words = if added {
        format!("{called} is excluded")
    } else {
        format!("{called} is excluded already")
    };
    match cut {
        None => words += &format!("; {}", goes_on(&paths, &id)),
        Some((None, 0)) => words += "; no daemon runs, so there is nothing to hang up",
        Some((count, told)) => {
            if let Some(count) = count {
                words += &format!("; {} hung up", sessions_or_logins(count));
            }
            if told > 0 {
                let daemons = many(told, "daemon");
                words += &format!("; {daemons} of inetd told to hang up its sessions there");
            }
        }
    }
    let (count, told) = cut.unzip();
    let fields = vec![
        ("id", Json::text(id)),
        ("name", Json::text(&name)),
        ("added", Json::Bool(added)),
        ("cut", count.flatten().map(Json::Number).into()),
        ("told", told.map(Json::Number).into()),
    ];
    done(call, out, fields, words)
}

/// Returns the hint that excluding does not end what the machine has running.
pub(super) fn goes_on(paths: &Paths, id: &Id) -> String {
    let now = paths.cosadm(format_args!("exclude add {id} --now"));
    format!("its existing sessions continue, and {now} hangs them up")
}

/// Puts a machine on a list, with the given name or the one that the list has. Does not ask the
/// inner door for a name, because it may hang; the caller does so later. Returns whether the
/// entry is new, and the name.
pub(super) fn put(
    call: &Call,
    outer: &mut Outer,
    list: List,
    id: &Id,
) -> Result<(bool, Option<String>), Failure> {
    let name = match named(call)? {
        Some(name) => Some(name.as_str().to_owned()),
        None => outer.get(list, id)?.map(|item| item.name),
    };
    let name = name.filter(|name| !name.is_empty());
    let added = outer.put(list, id, name.as_deref().unwrap_or(""))?;
    Ok((added, name))
}

/// Copies the inner door's name of a machine to its entry on a list, and returns it. Returns an
/// empty name if the inner door cannot be read in time.
pub(super) fn named_by_the_inner_door(
    paths: &Paths,
    outer: &mut Outer,
    list: List,
    id: &Id,
    out: &Out,
) -> String {
    let name = name_of(paths, outer, id);
    match outer.rename(list, id, &name) {
        Ok(true) => name,
        Ok(false) => String::new(),
        Err(e) => {
            out.tell(e.while_doing("it is listed, but without its name"));
            String::new()
        }
    }
}

/// Returns the name that a list, or else the inner door, has for a machine. Returns an empty name
/// if neither has one, or if the inner door cannot be read in time.
pub(super) fn known_name(
    paths: &Paths,
    outer: &Outer,
    list: List,
    id: &Id,
) -> Result<String, Fault> {
    Ok(match outer.get(list, id)? {
        Some(item) => item.name,
        None => name_of(paths, outer, id),
    })
}

/// Returns the inner door's name of a machine, empty if there is none or it cannot be read in time.
fn name_of(paths: &Paths, outer: &Outer, id: &Id) -> String {
    let machine = machine_in_time(paths, outer, id).ok().flatten();
    machine.map_or_else(String::new, |m| m.name.as_str().to_owned())
}

/// Removes a machine from the exclude list.
pub(in crate::admin) fn delete(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let id = id(call, 0)?;
    if !outer(&paths)?.delete(List::Exclude, &id)? {
        return Err(not_there(&paths, List::Exclude, &id).into());
    }
    let fields = vec![("id", Json::text(id)), ("deleted", Json::Bool(true))];
    done(call, out, fields, format!("{id} is not excluded any more"))
}

/// Returns the error for a machine that is not on a list.
pub(super) fn not_there(paths: &Paths, list: List, id: &Id) -> Fault {
    let (what, list) = match list {
        List::Include => ("include", paths.cosadm("sestab list I")),
        List::Exclude => ("exclude", paths.cosadm("exclude list")),
    };
    Fault::new(format!("{id} is not on the {what} list; {list} shows it"))
}

/// Formats how many sessions or logins were ended.
fn sessions_or_logins(count: u64) -> String {
    match count {
        0 | 1 => many(count, "session or login"),
        _ => format!("{count} sessions or logins"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_sessions_or_logins() {
        assert_eq!(sessions_or_logins(0), "no session or login");
        assert_eq!(sessions_or_logins(1), "1 session or login");
        assert_eq!(sessions_or_logins(4), "4 sessions or logins");
    }
}
