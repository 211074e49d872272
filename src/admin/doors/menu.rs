//! IDMAINT, the menu of seed 002: `cosadm` without a command, on a terminal. The administrator
//! chooses with a letter and Enter. A subcommand exists for every choice.
//!
//! The menu holds no file open while it waits for input. It therefore blocks no other process, and
//! shows the changes that others make. It makes each change after the last question about it.
//! Ctrl-C or the end of input before that changes nothing.

mod excluded;
mod passwords;
mod screen;
mod settings;

use screen::{Left, Pages, Screen};

use super::super::call::Call;
use super::super::out::{Failure, Out};
use super::door::{Status, now};
use super::rows::{numbered, short};
use super::{Both, exclude, is_missing, machine, many, missing, place_inner};
use crate::config::paths::Paths;
use crate::config::words::quoted;
use crate::fault::Fault;
use crate::registry::inner::Machine;
use crate::registry::{Doors, Level, Outer};

/// Runs the menu until the administrator leaves it.
pub(in crate::admin) fn run(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    if is_missing(&paths.dir) {
        return Err(missing(&paths.dir, "there is no such folder", &paths).into());
    }
    let mut screen = Screen::open()?;
    let left = begin(&mut screen, &paths).and_then(|()| main(&mut screen, &paths, out));
    match left {
        Ok(()) | Err(Left::EndOfInput) => Ok(()),
        Err(Left::Fault(fault)) => Err(fault.into()),
    }
}

/// Asks on the first run for the folder of the inner door.
fn begin(screen: &mut Screen, paths: &Paths) -> Result<(), Left> {
    if is_missing(&Outer::path(paths)) {
        Doors::make(paths)?;
    }
    let outer = super::outer(paths)?;
    if outer.folder()?.is_some() || !super::inner(paths, &outer)?.is_untouched()? {
        return Ok(());
    }
    drop(outer);
    screen.say("The list of authorized machines is new. Choose the folder for it.\n")?;
    screen.say("Several hosts may share a folder; this host's own is the default.\n")?;
    loop {
        let prompt = format!("Folder (Enter: {}): ", paths.state.display());
        let folder = screen.ask(&prompt)?;
        if folder.is_empty() {
            return Ok(());
        }
        let moved = place_inner(paths, &mut super::outer(paths)?, Some(folder.as_ref()));
        match moved {
            Ok(moved) => {
                let path = moved.path.display();
                return screen.say(&format!("The inner door is now {path}.\n"));
            }
            Err(e) => screen.wrong(e)?,
        }
    }
}

/// Runs the main screen in a loop.
fn main(screen: &mut Screen, paths: &Paths, out: &Out) -> Result<(), Left> {
    let mut pages = Pages::default();
    loop {
        let shown = list(screen, paths, &mut pages)?;
        screen
            .say("(D)elete machine  (O)ne Time Passwords  e(X)cluded machines  Admin (S)ettings")?;
        screen.say(pages.choices())?;
        let choice = screen.ask("\nYour choice (Enter leaves): ")?;
        match choice.to_ascii_uppercase().as_str() {
            "" => return leave(screen, paths),
            "D" => delete(screen, paths, &shown, &pages)?,
            "O" => passwords::screen(screen, paths, out)?,
            "X" => excluded::screen(screen, paths)?,
            "S" => settings::screen(screen, paths, out)?,
            "N" => pages.next(),
            "P" => pages.previous(),
            _ => screen.no_choice(&choice)?,
        }
    }
}

/// Shows a page of the authorized machines and returns it.
fn list(screen: &mut Screen, paths: &Paths, pages: &mut Pages) -> Result<Vec<Machine>, Left> {
    let doors = Both::open(paths)?;
    let page = pages.of(doors.inner.machines_by_name()?, screen.room());
    drop(doors);
    screen.say("\nAuthorized machines\n")?;
    screen.say(&format!(
        " Line {:<20} {:<32} {:<10} Location\n",
        "Name", "ID", "Date"
    ))?;
    for (number, machine) in pages.numbers().zip(&page) {
        screen.say(&format!(
            "{}\n",
            numbered(number, short(machine).trim_end())
        ))?;
    }
    if page.is_empty() {
        screen.say("      (no machine is authorized)\n")?;
    }
    screen.say(&pages.which())?;
    Ok(page)
}

/// Deletes a machine, and excludes it if the administrator confirms that.
fn delete(
    screen: &mut Screen,
    paths: &Paths,
    shown: &[Machine],
    pages: &Pages,
) -> Result<(), Left> {
    let Some(line) = screen.line_to_delete()? else {
        return Ok(());
    };
    // A line number on the screen means the machine shown there, even if the list has changed.
    let on_screen = pages
        .numbers()
        .zip(shown)
        .find(|(number, _)| *number == line);
    let found = match on_screen {
        Some((_, machine)) => Some(machine.clone()),
        None => at(paths, line)?,
    };
    let Some(found) = found else {
        return screen.wrong(format_args!("there is no line {line}"));
    };
    if !screen.yes(&format!("Delete {} ({})? (Y/N) ", found.name, found.id))? {
        return screen.say("Nothing was deleted.\n");
    }
    let excludes = screen.yes("Add to Exclude List? (Y/N) ")?;
    let deleted = Both::open(paths)
        .and_then(|mut doors| machine::remove(paths, &mut doors, &found.id, excludes));
    match deleted {
        Ok(deleted) => {
            let how = if excludes {
                "deleted and excluded"
            } else {
                "deleted"
            };
            screen.say(&format!("{} is {how}.\n", found.name))?;
            if excludes {
                let words = exclude::goes_on(paths, &found.id);
                screen.say(&format!("{}.\n", capital(&words)))?;
            }
            match deleted.warning {
                Some(warning) => screen.wrong(warning),
                None => Ok(()),
            }
        }
        Err(e) => screen.wrong(e),
    }
}

/// Returns the machine of a line that is not on the screen.
fn at(paths: &Paths, line: u64) -> Result<Option<Machine>, Fault> {
    let Some(before) = line.checked_sub(1) else {
        return Ok(None);
    };
    let before = usize::try_from(before).unwrap_or(usize::MAX);
    let all = Both::open(paths)?.inner.machines_by_name()?;
    Ok(all.into_iter().nth(before))
}

/// Shows the outer door's state on leaving, and asks whether to close it.
fn leave(screen: &mut Screen, paths: &Paths) -> Result<(), Left> {
    let status = Status::of(&Both::open(paths)?)?;
    screen.say(&format!(
        "\n{}\n{} authorized, {} excluded.\n",
        status.outer_door(),
        many(status.authorized, "machine"),
        status.excluded
    ))?;
    if status.waiting > 0 {
        let waiting = many(status.waiting, "one-time password");
        screen.say(&format!("{waiting} not used yet.\n"))?;
    }
    if let Some(words) = status.not_taken_over() {
        screen.say(&format!("{words}\n"))?;
    }
    let prompt = "Close outer door? (Y closes it, N opens it, Enter leaves it as it is) ";
    match screen.yes_or_enter(prompt)? {
        Some(true) => {
            if let Err(e) = Both::open(paths).and_then(|mut doors| doors.close(paths)) {
                screen.wrong(e)?;
            }
        }
        Some(false) => super::outer(paths)?.set_level(Level::Open)?,
        None => {}
    }
    let status = Status::of(&Both::open(paths)?)?;
    screen.say(&format!(
        "{}\nInclude list: {}. Exclude list: {}.\n{}.\n",
        status.outer_door(),
        many(status.included, "machine"),
        many(status.excluded, "machine"),
        capital(&now(paths))
    ))
}

fn capital(words: &str) -> String {
    let mut chars = words.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).collect()
}
