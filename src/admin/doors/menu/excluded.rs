//! The menu's screen of excluded machines (seed 002, step 27).

use super::screen::{Left, Pages, Screen};
use crate::admin::doors::rows::Row;
use crate::admin::doors::{numbered, outer};
use crate::config::paths::Paths;
use crate::config::words::shown;
use crate::registry::List;
use crate::registry::outer::Item;

/// Runs the screen in a loop.
pub(super) fn screen(screen: &mut Screen, paths: &Paths) -> Result<(), Left> {
    let mut pages = Pages::default();
    loop {
        let outer = outer(paths)?;
        let page = pages.of(outer.items_by_name(List::Exclude)?, screen.room());
        drop(outer);
        screen.say("\nExcluded machines\n")?;
        for (number, item) in pages.numbers().zip(&page) {
            screen.say(&format!("{}\n", numbered(number, &item.text())))?;
        }
        if page.is_empty() {
            screen.say("      (no machine is excluded)\n")?;
        }
        screen.say(&pages.which())?;
        screen.say("(D)elete machine  (A)uthorized machines")?;
        screen.say(pages.choices())?;
        let choice = screen.ask("\nYour choice (Enter returns): ")?;
        match choice.to_ascii_uppercase().as_str() {
            "" | "A" => return Ok(()),
            "D" => delete(screen, paths, &page, &pages)?,
            "N" => pages.next(),
            "P" => pages.previous(),
            _ => screen.no_choice(&choice)?,
        }
    }
}

fn delete(screen: &mut Screen, paths: &Paths, page: &[Item], pages: &Pages) -> Result<(), Left> {
    let Some(line) = screen.line_to_delete()? else {
        return Ok(());
    };
    let found = pages
        .numbers()
        .zip(page)
        .find(|(number, _)| *number == line);
    let Some((_, item)) = found else {
        return screen.wrong(format_args!("there is no line {line} on this page"));
    };
    let (id, name) = (item.id, shown(&item.name));
    if !screen.yes(&format!("Take {name} ({id}) off the exclude list? (Y/N) "))? {
        return screen.say("Nothing was deleted.\n");
    }
    match outer(paths).and_then(|mut outer| outer.delete(List::Exclude, &id)) {
        Ok(true) => screen.say(&format!("{name} is not excluded any more.\n")),
        Ok(false) => screen.wrong("it has been deleted already"),
        Err(e) => screen.wrong(e),
    }
}
