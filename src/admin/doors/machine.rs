//! `cosadm machine`: the authorized machines of the inner door.

use super::super::call::Call;
use super::super::out::{Failure, Out};
use super::exclude::goes_on;
use super::{Both, done, id, machine_id, named, namesakes, rows};
use crate::cli::json::Json;
use crate::config::hostinfo::HostTable;
use crate::config::machines;
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::registry::{Id, Inner, Level, List, Name, Outer, Seen};

/// Lists the authorized machines.
pub(in crate::admin) fn list(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let machines = Both::open(&paths)?.inner.machines_by_name()?;
    let seen = Seen::of(&paths).all()?;
    let words = ("machines", "no machine is authorized");
    let listed = machines.into_iter().map(|machine| {
        // A record of the time before it was deleted says nothing.
        let seen = seen.get(&machine.id).copied();
        let seen = seen.filter(|at| *at >= machine.authorized);
        (machine, seen)
    });
    let listed: Vec<_> = listed.collect();
    rows::list(out, call.given("json"), words, &listed)
}

/// Authorizes a machine, without a registration by that machine.
pub(in crate::admin) fn add(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let id = id(call, 0)?;
    let missing = || Failure::Usage("--name is missing: give the machine's name".to_owned());
    let name = named(call)?.ok_or_else(missing)?;
    let mut doors = Both::open(&paths)?;
    let remote = !call.given("local");
    let added = doors.inner.add(&id, &name, remote)?;
    // A closed outer door denies a machine that it does not include.
    let is_closed = doors.outer.level()? == Level::Closed;
    let included = is_closed
        && doors.outer.get(List::Include, &id)?.is_none()
        && doors.outer.put(List::Include, &id, name.as_str())?;
    let fields = vec![
        ("id", Json::text(id)),
        ("name", Json::text(&name)),
        ("added", Json::Bool(added)),
        ("included", Json::Bool(included)),
    ];
    let mut words = if added {
        format!("{name} ({id}) is authorized")
    } else {
        format!("{id} was authorized already; its name is now {name}")
    };
    if included {
        words += "; the outer door is closed, so it is now on the include list";
    }
    done(call, out, fields, words)?;
    warn_of_namesake(out, &doors.inner, &name, Some(&id))?;
    if let Some(words) = still_denied(&paths, &doors.outer, &id)? {
        out.tell(words);
    }
    Ok(())
}

/// Reports another machine of the same name. Names need not be unique.
pub(super) fn warn_of_namesake(
    out: &Out,
    inner: &Inner,
    name: &Name,
    own: Option<&Id>,
) -> Result<(), Fault> {
    let same = namesakes(inner, name, 2)?;
    if let Some(other) = same.iter().find(|m| Some(&m.id) != own) {
        let (id, name) = (other.id, &other.name);
        out.tell(format!("another machine is called {name} as well: {id}"));
    }
    Ok(())
}

/// Explains why a machine that was just authorized is still denied, if it is excluded.
fn still_denied(paths: &Paths, outer: &Outer, id: &Id) -> Result<Option<String>, Fault> {
    if outer.get(List::Exclude, id)?.is_some() {
        let delete = paths.cosadm(format_args!("exclude delete {id}"));
        return Ok(Some(format!(
            "it is on the exclude list, and is denied until {delete}"
        )));
    }
    Ok(None)
}

/// Deletes a machine.
pub(in crate::admin) fn delete(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let mut doors = Both::open(&paths)?;
    let id = machine_id(&paths, &doors.inner, (call, 0), out)?;
    let exclude = call.given("exclude");
    let deleted = remove(&paths, &mut doors, &id, exclude)?;
    let name = &deleted.name;
    let mut fields = vec![
        ("id", Json::text(id)),
        ("name", Json::text(name)),
        ("deleted", Json::Bool(true)),
        ("excluded", Json::Bool(exclude)),
    ];
    fields.push(("host", Json::maybe(deleted.host.as_ref())));
    let words = if exclude {
        let goes_on = goes_on(&paths, &id);
        format!("{name} ({id}) is deleted and on the exclude list; {goes_on}")
    } else {
        format!("{name} ({id}) is deleted")
    };
    done(call, out, fields, words)?;
    if !exclude && doors.outer.get(List::Include, &id)?.is_some() {
        let delete = paths.cosadm(format_args!("sestab delete I {id}"));
        out.tell(format!(
            "it is still on the include list: if it is authorized again, the closed outer door allows it; {delete} removes it"
        ));
    }
    if let Some(warning) = deleted.warning {
        out.tell(warning);
    }
    Ok(())
}

/// A machine that was deleted.
pub(super) struct Deleted {
    name: Name,
    /// The host in the host table whose machine this was.
    host: Option<String>,
    /// The warning about that host.
    pub(super) warning: Option<String>,
}

/// Deletes a machine and optionally excludes it. It is excluded first: a kill between the two
/// steps then leaves it denied.
///
/// # Errors
/// Returns an error if there is no such machine, or if a file cannot be written.
pub(super) fn remove(
    paths: &Paths,
    doors: &mut Both,
    id: &Id,
    exclude: bool,
) -> Result<Deleted, Fault> {
    let none = || {
        let list = paths.cosadm("machine list");
        Fault::new(format!(
            "{id} is not among the authorized machines; {list} shows them"
        ))
    };
    let machine = doors.inner.machine(id)?.ok_or_else(none)?;
    if exclude {
        doors.outer.put(List::Exclude, id, machine.name.as_str())?;
    }
    if !doors.inner.delete(id)? {
        return Err(none());
    }
    let host = host_of(paths, id);
    let warning = host.as_ref().map(|host| {
        let add = paths.cosadm(format_args!("machine add {id} --name {host}"));
        let what = format!(
            "this is the machine of host {host} in hostinfo: it is denied from now on, whatever its cookie"
        );
        if exclude {
            let delete = paths.cosadm(format_args!("exclude delete {id}"));
            format!("{what}; {delete} and {add} allow it again")
        } else {
            format!(
                "{what}, unless it registers again while the outer door is open; {add} allows it again"
            )
        }
    });
    let name = machine.name;
    Ok(Deleted {
        name,
        host,
        warning,
    })
}

/// Returns the host in the host table whose recorded machine this is.
fn host_of(paths: &Paths, id: &Id) -> Option<String> {
    let table = HostTable::load(paths).ok()?;
    let is = |key: &crate::secret::PublicKey| Id::of(key) == *id;
    let mut names = table.entries().iter().map(|entry| &entry.name);
    let found = names.find(|name| {
        let key = machines::recorded(paths, name).ok().flatten();
        key.as_ref().is_some_and(is)
    });
    found.map(ToString::to_string)
}

/// Renames a machine.
pub(in crate::admin) fn rename(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let name = super::name(call.operand(1))?;
    let mut doors = Both::open(&paths)?;
    let id = machine_id(&paths, &doors.inner, (call, 0), out)?;
    if !doors.inner.rename(&id, &name)? {
        let list = paths.cosadm("machine list");
        let words = format!("{id} is not among the authorized machines; {list} shows them");
        return Err(Fault::new(words).into());
    }
    let fields = vec![("id", Json::text(id)), ("name", Json::text(&name))];
    done(call, out, fields, format!("{id} is {name} now"))?;
    Ok(warn_of_namesake(out, &doors.inner, &name, Some(&id))?)
}
