//! The menu's screen of one-time passwords (seed 002, steps 19 to 22): lists the unused ones, adds
//! and deletes.

use super::screen::{Left, Pages, Screen};
use crate::admin::doors::{Both, numbered, otp};
use crate::admin::out::Out;
use crate::config::paths::Paths;
use crate::registry::Name;
use crate::registry::inner::Pending;

/// Runs the screen in a loop.
pub(super) fn screen(screen: &mut Screen, paths: &Paths, out: &Out) -> Result<(), Left> {
    let mut pages = Pages::default();
    loop {
        let all = Both::open(paths)?.inner.passwords()?;
        let page = pages.of(all.clone(), screen.room());
        screen.say("\nOne Time Passwords\n")?;
        for (number, pending) in pages.numbers().zip(&page) {
            screen.say(&format!("{}\n", numbered(number, &otp::row(pending))))?;
        }
        if all.is_empty() {
            screen.say("      (none is unused)\n")?;
        }
        screen.say(&pages.which())?;
        screen.say("(A)dd password  (D)elete")?;
        screen.say(pages.choices())?;
        let choice = screen.ask("\nYour choice (Enter returns): ")?;
        match choice.to_ascii_uppercase().as_str() {
            "" => return Ok(()),
            "A" => add(screen, paths, out)?,
            "D" => delete(screen, paths, &all)?,
            "N" => pages.next(),
            "P" => pages.previous(),
            _ => screen.no_choice(&choice)?,
        }
    }
}

fn add(screen: &mut Screen, paths: &Paths, out: &Out) -> Result<(), Left> {
    let typed = screen.ask("Name: ")?;
    if typed.is_empty() {
        return Ok(());
    }
    let name = match Name::parse(&typed) {
        Ok(name) => name,
        Err(e) => return screen.wrong(e),
    };
    let password = screen.password("Password (not shown; Enter: one is made): ", &[b""])?;
    let mut doors = Both::open(paths)?;
    if password.is_empty() {
        return match doors.inner.add_generated(&name) {
            Ok(made) => {
                screen.say(&format!(
                    "The one-time password for {name}, shown this once:\n    "
                ))?;
                screen.say(&made.shown())?;
                screen.say("\n")?;
                of_use(screen, paths, &doors)
            }
            Err(e) => screen.wrong(e),
        };
    }
    if let Some(weakness) = otp::weakness(&password) {
        out.tell(weakness);
    }
    match doors.inner.add_chosen(&name, &password) {
        Ok(()) => {
            screen.say(&format!("{name} has a one-time password.\n"))?;
            of_use(screen, paths, &doors)
        }
        Err(e) => screen.wrong(e),
    }
}

/// Shows why a new password cannot be used yet, if that is so.
fn of_use(screen: &mut Screen, paths: &Paths, doors: &Both) -> Result<(), Left> {
    match otp::of_no_use(paths, doors)? {
        Some(words) => screen.wrong(words),
        None => Ok(()),
    }
}

fn delete(screen: &mut Screen, paths: &Paths, all: &[Pending]) -> Result<(), Left> {
    let Some(line) = screen.line_to_delete()? else {
        return Ok(());
    };
    let at = line.checked_sub(1).and_then(|n| usize::try_from(n).ok());
    let Some(pending) = at.and_then(|n| all.get(n)) else {
        return screen.wrong(format_args!("there is no line {line}"));
    };
    let name = &pending.name;
    if !screen.yes(&format!("Delete the one-time password of {name}? (Y/N) "))? {
        return screen.say("Nothing was deleted.\n");
    }
    match Both::open(paths).and_then(|mut doors| doors.inner.delete_password(name)) {
        Ok(true) => screen.say(&format!("The one-time password of {name} is deleted.\n")),
        Ok(false) => screen.wrong(format_args!("it has been used or deleted already")),
        Err(e) => screen.wrong(e),
    }
}
