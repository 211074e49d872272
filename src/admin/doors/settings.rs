//! `cosadm settings`: the admin settings of the inner door, and its folder.

use std::path::Path;

use super::super::call::Call;
use super::super::out::{Failure, Out};
use super::{Both, done, inner, many, otp, outer, place_inner, typed};
use crate::cli::json::Json;
use crate::config::paths::Paths;
use crate::config::secure::Created;
use crate::config::words::{did_you_mean, quoted};
use crate::fault::Fault;
use crate::registry::inner::{Setting, Settings};
use crate::registry::{Inner, Outer};

/// The names of all settings, in the order of the list.
const NAMES: [&str; 5] = [
    "build-mode",
    "remote-only",
    "backdoor-password",
    "welcome",
    "folder",
];

/// A setting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    BuildMode,
    RemoteOnly,
    Backdoor,
    Welcome,
    Folder,
}

impl Which {
    const ALL: [Self; 5] = [
        Self::BuildMode,
        Self::RemoteOnly,
        Self::Backdoor,
        Self::Welcome,
        Self::Folder,
    ];

    fn of(name: &str) -> Result<Self, Failure> {
        let found = NAMES.iter().zip(Self::ALL).find(|(n, _)| **n == name);
        found.map(|(_, which)| which).ok_or_else(|| {
            let near = did_you_mean(name, NAMES);
            let names = NAMES.join(", ");
            let name = quoted(name);
            Failure::Usage(format!("{name} is not a setting{near} (settings: {names})"))
        })
    }

    /// Returns the value for people, and the name and value for scripts.
    fn value(self, settings: &Settings, inner: &Inner) -> (String, (&'static str, Json)) {
        let yes = |on, name| {
            let word = if on { "yes" } else { "no" };
            (word.to_owned(), (name, Json::Bool(on)))
        };
        match self {
            Self::BuildMode => yes(settings.build_mode, "build_mode"),
            Self::RemoteOnly => yes(settings.remote_only, "remote_only"),
            Self::Backdoor => {
                let word = if settings.backdoor { "set" } else { "none" };
                let json = Json::Bool(settings.backdoor);
                (word.to_owned(), ("backdoor_password", json))
            }
            Self::Welcome => {
                let text = &settings.welcome;
                (text.clone(), ("welcome", Json::text(text)))
            }
            Self::Folder => {
                let folder = inner.file().parent().unwrap_or(Path::new("/")).display();
                (folder.to_string(), ("folder", Json::text(folder)))
            }
        }
    }
}

/// Lists the settings.
pub(in crate::admin) fn list(call: &Call, out: &Out) -> Result<(), Failure> {
    let doors = Both::open(&call.paths()?)?;
    let settings = doors.inner.settings()?;
    let values = Which::ALL.map(|which| which.value(&settings, &doors.inner));
    if call.given("json") {
        let fields = values.into_iter().map(|(_, json)| json);
        return out.say(&format!("{}\n", Json::Object(fields.collect())));
    }
    let lines = NAMES.iter().zip(values);
    let lines =
        lines.map(|(name, (text, _))| format!("{:<17} {text}", name).trim_end().to_owned() + "\n");
    out.say(&lines.collect::<String>())
}

/// Shows a setting.
pub(in crate::admin) fn get(call: &Call, out: &Out) -> Result<(), Failure> {
    let which = Which::of(call.operand(0))?;
    let doors = Both::open(&call.paths()?)?;
    let (text, json) = which.value(&doors.inner.settings()?, &doors.inner);
    if call.given("json") {
        return out.say(&format!("{}\n", Json::Object(vec![json])));
    }
    out.say(&format!("{text}\n"))
}

/// Changes a setting.
pub(in crate::admin) fn set(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let which = Which::of(call.operand(0))?;
    let value = call.optional(1);
    if which == Which::Backdoor && value.is_some() {
        let words =
            "a password on the command line is seen by others: it is read from standard input";
        return Err(Failure::Usage(words.to_owned()));
    }
    let needed = || {
        let words = format!("cosadm settings set {} needs VALUE", call.operand(0));
        value.ok_or(Failure::Usage(words))
    };
    let words = match which {
        Which::BuildMode => {
            let on = yes_or_no(needed()?)?;
            Both::open(&paths)?.inner.set(&[Setting::BuildMode(on)])?;
            let is = if on { "on" } else { "off" };
            format!("build mode is {is} now; {}", super::door::now(&paths))
        }
        Which::RemoteOnly => {
            let on = yes_or_no(needed()?)?;
            Both::open(&paths)?.inner.set(&[Setting::RemoteOnly(on)])?;
            let is = if on { "on" } else { "off" };
            format!("remote-only is {is} now; {}", super::door::now(&paths))
        }
        Which::Welcome => {
            let text = welcome(&paths, value.unwrap_or_default());
            let words = if text.is_empty() {
                "there is no welcome message now".to_owned()
            } else {
                format!("the welcome message is set: {text}")
            };
            Both::open(&paths)?.inner.set(&[Setting::Welcome(text)])?;
            words
        }
        Which::Backdoor => {
            let mut doors = Both::open(&paths)?;
            let password = typed::of_input("Backdoor password (empty: none): ")?;
            backdoor(&mut doors.inner, &password, out)?;
            let what = if password.is_empty() {
                "there is no backdoor password now"
            } else {
                "the backdoor password is set"
            };
            format!("{what}; {}", super::door::now(&paths))
        }
        Which::Folder => move_to(&paths, needed()?)?,
    };
    let inner = inner(&paths, &outer(&paths)?)?;
    let (_, json) = which.value(&inner.settings()?, &inner);
    done(call, out, vec![json], words)
}

/// Sets the backdoor password, or removes it if the new one is empty.
pub(super) fn backdoor(inner: &mut Inner, password: &[u8], out: &Out) -> Result<(), Fault> {
    if password.is_empty() {
        return inner.set_backdoor(None);
    }
    if let Some(weakness) = otp::weakness(password) {
        out.tell(weakness);
    }
    inner.set_backdoor(Some(password))
}

fn yes_or_no(value: &str) -> Result<bool, Failure> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => {
            let words = format!("{} is neither yes nor no", quoted(other));
            Err(Failure::Usage(words))
        }
    }
}

/// Returns the welcome message of a value: `yes` is one that names the host, `no` is none.
pub(super) fn welcome(paths: &Paths, value: &str) -> String {
    match value.trim() {
        "yes" => default_welcome(paths),
        "no" => String::new(),
        text => text.to_owned(),
    }
}

/// Returns a welcome message that names the host.
pub(super) fn default_welcome(paths: &Paths) -> String {
    let name = crate::config::settings::Settings::load(&paths.settings());
    let name = name.map_or_else(|_| "this host".to_owned(), |s| s.name.to_string());
    format!("Welcome to {name}")
}

/// Moves the inner door to another folder.
fn move_to(paths: &Paths, value: &str) -> Result<String, Failure> {
    if value.is_empty() {
        return Err(Failure::Usage("the folder has no name".to_owned()));
    }
    let mut outer = outer(paths)?;
    let before = machines_of(paths, &outer);
    let folder = (value != "default").then(|| Path::new(value));
    let moved = place_inner(paths, &mut outer, folder)?;
    let path = moved.path.display();
    let mut words = match moved.created {
        Created::New => {
            format!("the inner door is now {path}, which was created without a machine")
        }
        Created::There => format!("the inner door is now {path}, which existed already"),
    };
    if let Some((old, count)) = before.filter(|(old, count)| *old != moved.path && *count > 0) {
        words += &format!(
            "; {} of {} not copied",
            many(count, "authorized machine"),
            old.display()
        );
    }
    Ok(words)
}

/// Returns the inner door's file and how many machines it has, if it can be read.
fn machines_of(paths: &Paths, outer: &Outer) -> Option<(std::path::PathBuf, u64)> {
    let inner = inner(paths, outer).ok()?;
    Some((inner.file().to_owned(), inner.count().ok()?))
}
