//! Administration of the outer and the inner door: subcommands and a menu that manage which
//! machines may connect (seed 002: SESTAB and IDMAINT).
//!
//! Runs in `cosadm`. `machine`, `exclude`, `otp`, `door`, `settings`, `sestab` and `edit` are
//! the subcommands, and `menu` is the program on a terminal. Both call the same functions.
//! `decision_text` describes the access decision in words, and `rows` writes long lists. Each
//! change is one replacement of a file. A stored password must never be shown again.

mod decision_text;
pub(super) mod door;
pub(super) mod edit;
pub(super) mod exclude;
pub(super) mod machine;
pub(super) mod menu;
pub(super) mod otp;
mod rows;
pub(super) mod sestab;
pub(super) mod settings;
mod typed;

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use decision_text::unknown_machine;
use rows::numbered;

use super::call::Call;
use super::out::{Failure, Out};
use crate::cli::json::Json;
use crate::config::paths::Paths;
use crate::config::secure;
use crate::fault::Fault;
use crate::registry::inner::Machine;
use crate::registry::{Doors, Id, Inner, Level, Name, Occurred, Outer};

/// Both doors of a host, opened.
struct Both {
    outer: Outer,
    inner: Inner,
}

impl Both {
    fn open(paths: &Paths) -> Result<Self, Fault> {
        let outer = outer(paths)?;
        let inner = inner(paths, &outer)?;
        Ok(Self { outer, inner })
    }

    /// Closes the outer door: the inner door's machines become the include list. Returns how many
    /// there are.
    fn close(&mut self, paths: &Paths) -> Result<u64, Fault> {
        let Self { outer, inner } = self;
        if inner.count()? == 0 {
            return Err(no_machine_authorized(paths, outer.level()?));
        }
        let machines = inner.machines()?.into_iter();
        outer.close(machines.map(|m| (m.id, m.name)).collect())
    }
}

/// What a closed outer door with an empty include list allows.
const BUT_HOSTS: &str = "hosts of hostinfo that prove their cookie are still allowed";

/// Explains why the outer door is not closed while no machine is authorized.
fn no_machine_authorized(paths: &Paths, level: Level) -> Fault {
    let outcome = match level {
        Level::Closed => "remains closed",
        Level::Off | Level::Open => "is not closed",
    };
    let words = format!(
        "the outer door {outcome}: no machine is authorized, so closing it would deny every machine; {BUT_HOSTS}"
    );
    Fault::new(words).with_remedy(format!(
        "to authorize one: {}",
        paths.cosadm("machine add ID --name NAME")
    ))
}

/// Opens the outer door's file.
fn outer(paths: &Paths) -> Result<Outer, Fault> {
    if matches!(paths.dir.try_exists(), Ok(false)) {
        return Err(missing(&paths.dir, "there is no such folder", paths));
    }
    let path = Outer::path(paths);
    if is_missing(&path) {
        let never = || missing(&path, "there is no such file", paths);
        return Err(Doors::lost(paths).unwrap_or_else(never));
    }
    Outer::open(paths)
}

/// Opens the inner door's file, in the folder that the outer door names.
fn inner(paths: &Paths, outer: &Outer) -> Result<Inner, Fault> {
    inner_in(paths, outer.folder()?.as_deref())
}

/// Opens the inner door's file in this folder, or by default in the state folder.
fn inner_in(paths: &Paths, folder: Option<&Path>) -> Result<Inner, Fault> {
    let path = Inner::path(paths, folder);
    if is_missing(&path) {
        if folder.is_none() {
            let never = || missing(&path, "there is no such file", paths);
            return Err(Doors::lost(paths).unwrap_or_else(never));
        }
        let words = format!(
            "there is no such file: is its folder mounted? {} makes one there, {} goes back to the \
             state folder",
            paths.cosadm("settings set folder DIR"),
            paths.cosadm("settings set folder default")
        );
        return Err(Fault::of(&path, words));
    }
    Inner::open(&path)
}

/// How long a command waits for the inner door if it can continue without the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns the inner door's entry of a machine, for a command that must not wait for a folder
/// that hangs.
///
/// # Errors
/// Returns an error if the inner door cannot be read, or not in time.
fn machine_in_time(paths: &Paths, outer: &Outer, id: &Id) -> Result<Option<Machine>, Fault> {
    let (paths, folder, id) = (paths.clone(), outer.folder()?, *id);
    in_time(PATIENCE, move || {
        inner_in(&paths, folder.as_deref())?.machine(&id)
    })
}

/// Runs `work` in a thread and waits for it, at most until the limit. A thread that takes longer
/// is abandoned, and ends with this process.
fn in_time<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (tell, told) = std::sync::mpsc::channel();
    // The send fails if the caller no longer waits. That is not an error.
    std::thread::Builder::new().spawn(move || drop(tell.send(work())))?;
    let late = |_| Err(Fault::new("the inner door did not answer in time"));
    told.recv_timeout(limit).unwrap_or_else(late)
}

fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

fn missing(path: &Path, what: &str, paths: &Paths) -> Fault {
    Fault::of(path, format!("{what}; {} makes it", paths.cosadm("init")))
}

/// The new path of the inner door's file, and whether the file was created.
struct Moved {
    path: PathBuf,
    created: secure::Created,
}

/// Moves the inner door to this folder, or by default to the state folder. Creates its file if
/// there is none; an existing one must be undamaged.
fn place_inner(paths: &Paths, outer: &mut Outer, folder: Option<&Path>) -> Result<Moved, Fault> {
    let folder = folder.map(std::path::absolute).transpose()?;
    let folder = folder.filter(|f| *f != paths.state);
    if let Some(folder) = &folder {
        secure::check_folder(folder).map_err(|e| {
            if is_missing(folder) {
                e.while_doing("make it first (mkdir -m 700)")
            } else {
                e
            }
        })?;
        check_writers(folder)?;
    }
    let path = Inner::path(paths, folder.as_deref());
    let created = Inner::create(&path)?;
    Inner::open(&path)?.wrong_lines()?;
    outer.set_folder(folder.as_deref())?;
    Ok(Moved { path, created })
}

/// Checks that group and others cannot write the folder. The sticky bit does not help: a user who
/// can create a file next to the inner door's can keep its writers out by a lock.
pub(super) fn check_writers(folder: &Path) -> Result<(), Fault> {
    let about = std::fs::metadata(folder).map_err(|e| Fault::of(folder, e))?;
    let mode = about.mode() & 0o7777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let words = format!(
        "others can write it (mode {mode:04o}), and could put a file beside that of the inner door"
    );
    Err(Fault::of(folder, words).with_remedy("make a folder of its own: mkdir -m 700 FOLDER"))
}

/// Parses an operand as a machine ID.
fn id(call: &Call, number: usize) -> Result<Id, Failure> {
    Id::parse(call.operand(number)).map_err(|e| Failure::Usage(e.to_string()))
}

/// How many machines of one name are listed if the name is ambiguous.
const NAMESAKES: usize = 20;

/// Returns the ID of the machine that an operand names, by its ID or by a unique name.
///
/// # Errors
/// Returns an error if no authorized machine has that name, or if several do. It lists those.
fn machine_id(
    paths: &Paths,
    inner: &Inner,
    (call, number): (&Call, usize),
    out: &Out,
) -> Result<Id, Failure> {
    let text = call.operand(number);
    if let Ok(id) = Id::parse(text) {
        return Ok(id);
    }
    let name = name(text)?;
    let found = namesakes(inner, &name, NAMESAKES)?;
    let list = paths.cosadm("machine list");
    match found.as_slice() {
        [one] => Ok(one.id),
        [] => {
            let words =
                format!("no authorized machine has the ID or the name {text:?}; {list} shows them");
            Err(Fault::new(words).into())
        }
        several => {
            for machine in several {
                out.tell(rows::short(machine));
            }
            let words = format!("several machines are named {text:?}; give the ID of one");
            Err(Fault::new(words).into())
        }
    }
}

/// Returns the authorized machines that have this name, at most `most`. Ignores case.
fn namesakes(inner: &Inner, name: &Name, most: usize) -> Result<Vec<Machine>, Fault> {
    let mut found = inner.machines()?;
    found.retain(|m| m.name.as_str().eq_ignore_ascii_case(name.as_str()));
    found.truncate(most);
    Ok(found)
}

/// Parses a machine name that the administrator gave.
fn name(text: &str) -> Result<Name, Failure> {
    Name::parse(text).map_err(|e| Failure::Usage(e.to_string()))
}

/// Returns the name of `--name`, if it was given.
fn named(call: &Call) -> Result<Option<Name>, Failure> {
    let given = call.value("name");
    given.map(|text| name(&text)).transpose()
}

/// Reports what was done: with `--json` on standard output, otherwise in words on standard error.
fn done(
    call: &Call,
    out: &Out,
    fields: Vec<(&'static str, Json)>,
    words: impl Display,
) -> Result<(), Failure> {
    if call.given("json") {
        return out.say(&format!("{}\n", Json::Object(fields)));
    }
    out.tell(words);
    Ok(())
}

/// Returns a time for JSON: seconds since 1970.
fn seconds(at: Occurred) -> Json {
    Json::Number(u64::try_from(at.0).unwrap_or(0))
}

/// Formats a time for people, to the minute, in UTC.
fn minute(at: Occurred) -> String {
    let text = at.to_string();
    let minute = text.get(..16).unwrap_or(&text);
    format!("{}Z", minute.replace('T', " "))
}

/// Formats the day of a time, in UTC.
fn day(at: Occurred) -> String {
    // Its line is wrong, and has no time.
    if at.0 == 0 {
        return "-".repeat(10);
    }
    let text = at.to_string();
    text.get(..10).unwrap_or(&text).to_owned()
}

/// Returns the outer door's state in one word.
pub(super) const fn word(level: Level) -> &'static str {
    match level {
        Level::Off => "off",
        Level::Open => "open",
        Level::Closed => "closed",
    }
}

/// Formats a count with its noun: `no machine`, `1 machine`, `2 machines`.
fn many(count: u64, what: &str) -> String {
    match count {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: an exclusion by ID waited for an inner door that hung, only to read a name.
    #[test]
    fn in_time_returns_at_its_limit() {
        let (wake, woken) = std::sync::mpsc::channel::<()>();
        let begun = std::time::Instant::now();
        let hung = in_time(Duration::from_millis(10), move || {
            let _ = woken.recv_timeout(Duration::from_secs(20));
            Ok(())
        });
        assert!(hung.is_err() && begun.elapsed() < Duration::from_secs(10));
        drop(wake);
        assert_eq!(in_time(Duration::from_secs(20), || Ok(7)), Ok(7));
    }
}
