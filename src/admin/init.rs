//! `cosadm init`: creates the configuration folder with its keys and files, or whatever is missing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::call::Call;
use super::edit::Lock;
use super::out::{Failure, Out};
use crate::config::hostinfo::OPTIONS;
use crate::config::keys;
use crate::config::paths::Paths;
use crate::config::secure::{self, Created};
use crate::config::settings::Settings;
use crate::fault::Fault;
use crate::registry::noted::Noted;
use crate::registry::{Doors, Inner, Outer};

/// Creates what is missing, and reports what existed.
pub(super) fn init(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let mut report = String::new();
    match make(&paths, &mut report) {
        Ok(()) => out.say(&(report + &next(&paths))),
        Err(fault) if report.is_empty() => Err(fault.into()),
        Err(fault) => {
            // Keep what was created; it is complete.
            report.lines().for_each(|line| out.tell(line));
            let again = paths.cosadm("init");
            Err(fault
                .while_doing(format_args!(
                    "not everything was made ({again} makes the rest, once this is fixed)"
                ))
                .into())
        }
    }
}

/// Returns whether the folder lacks the machine key, which every command needs.
///
/// If the key exists, nothing is created without `cosadm init`: anything else that is missing
/// was lost.
pub(super) fn is_needed(paths: &Paths) -> bool {
    matches!(paths.machine_key().try_exists(), Ok(false))
}

/// Runs `init` for a command that needs the folder, and reports it.
///
/// # Errors
/// Returns an error if something cannot be created.
pub(super) fn make_first(paths: &Paths, out: &Out) -> Result<(), Fault> {
    // Only `cosadm init` recreates a lost registry: the administrator decides that.
    Doors::lost(paths).map_or(Ok(()), Err)?;
    let mut report = String::new();
    let made = make(paths, &mut report);
    if made.is_ok() {
        out.tell(format!(
            "{} was created, with its keys",
            paths.dir.display()
        ));
    }
    report.lines().for_each(|line| out.detail(line));
    made.map_err(|fault| fault.while_doing("the configuration folder is not complete"))
}

/// Creates what is missing, and adds a line about each item to the report.
fn make(paths: &Paths, report: &mut String) -> Result<(), Fault> {
    let folder_mode = if paths.system { 0o755 } else { 0o700 };
    let mut note = |path: &Path, created: Created, what: &str| {
        let word = match created {
            Created::New => "made",
            Created::There => "there",
        };
        let _ = writeln!(report, "{word:<6} {:<40} {what}", path.display());
        created
    };
    note(
        &paths.dir,
        secure::make_folders(&paths.dir, folder_mode)?,
        "the configuration folder",
    );
    let _lock = Lock::take(paths)?;

    let file = |path: PathBuf, text: String| -> Result<(PathBuf, Created), Fault> {
        let created = secure::create_new(&path, text.as_bytes(), 0o644)?;
        Ok((path, created))
    };
    let (path, created) = file(paths.settings(), Settings::template())?;
    note(&path, created, "the daemon's settings");
    let (path, created) = file(paths.hostinfo(), hostinfo_template())?;
    note(&path, created, "the host table");
    note(
        &paths.host_key(),
        keys::create(&paths.host_key())?,
        "this host's private key",
    );
    note(
        &paths.machine_key(),
        keys::create(&paths.machine_key())?,
        "this machine's private key",
    );
    note(
        &paths.cookies(),
        secure::make_folder(&paths.cookies(), 0o700)?,
        "cookies",
    );
    note(
        &paths.state,
        secure::make_folders(&paths.state, 0o700)?,
        "state",
    );
    note(
        &paths.machines(),
        secure::make_folder(&paths.machines(), 0o700)?,
        "recorded machine keys",
    );
    let outer = Outer::path(paths);
    let was_made = paths.doors_made().exists() || Noted::is_there(paths);
    let what = if was_made && !outer.exists() {
        "the outer door, created again: no machine is excluded any more"
    } else {
        "the outer door"
    };
    note(&outer, Outer::create(paths)?, what);
    // Otherwise the administrator has moved it, and its folder may not be mounted now.
    if Outer::open(paths)?.folder()?.is_none() {
        let inner = Inner::path(paths, None);
        let what = if was_made && !inner.exists() {
            "the inner door, created again: no machine is authorized, and deleted ones may register again"
        } else {
            "the inner door"
        };
        note(&inner, Inner::create(&inner)?, what);
    }
    Doors::are_made(paths)?;
    // With `init`, the administrator accepts the registry as it is, even an older copy.
    let now = Noted::now(paths);
    for (file, _) in Noted::read(paths)?
        .unwrap_or_default()
        .is_newer_than(&now, paths)
    {
        let what = "an older copy, accepted as it is";
        let _ = writeln!(report, "{:<6} {:<40} {what}", "older", file.display());
    }
    now.write(paths)
}

fn next(paths: &Paths) -> String {
    let dir = paths.option_c();
    format!(
        "\nNext: to let a host run commands here:  cosadm{dir} host invite NAME --addr A --run-as USER -o card\n      \
         to run commands on a host:         cosadm{dir} host join card   (the card that it made)\n      \
         to let a person's PC log in here:  cosadm{dir} machine add ID --name NAME   (ID: `cos key show` there)\n"
    )
}

fn hostinfo_template() -> String {
    let mut text = String::from(
        "# The host table of cosserver(8), one host a line: name method options\n\
         #\n\
         # `cosadm host invite` and `cosadm host join` write lines here; edit them as you like.\n\
         # The method, cos, ssh or rsh, is how this host reaches that one. Values with blanks are\n\
         # quoted. A line with a mistake disables only its host; `cosadm check` reports it.\n\
         #\n",
    );
    for option in OPTIONS {
        let _ = writeln!(
            text,
            "# {:<34} {}",
            format!("{}={}", option.name, option.value),
            option.meaning
        );
    }
    text.push_str(
        "#\n# hosta cos addr=192.0.2.1 run-as=root,operator commands=\"/usr/bin/df -h *\"\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::hostinfo::HostTable;

    #[test]
    fn the_template_is_a_right_empty_table() {
        let text = hostinfo_template();
        let table = HostTable::parse(text.as_bytes(), Path::new("hostinfo"));
        assert!(table.entries().is_empty() && table.faults().is_empty());
        // Its example is valid as well.
        let example = text.lines().last().unwrap().trim_start_matches("# ");
        assert_eq!(
            HostTable::parse(example.as_bytes(), Path::new("hostinfo"))
                .entries()
                .len(),
            1
        );
    }
}
