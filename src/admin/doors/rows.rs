//! Long lists, of machines by the million: read in pages, so that nobody who writes waits
//! for whoever reads them, and written as they are read, numbered for people or as JSON.

use super::super::json::Json;
use super::super::out::{Failure, Out, Parts};
use super::{day, minute, seconds};
use crate::config::words::shown;
use crate::fault::Fault;
use crate::registry::inner::Machine;
use crate::registry::outer::Item;

/// How many are read at once.
pub(super) const PAGE: u32 = 500;

/// A row of a list.
pub(super) trait Row {
    /// For people; without its number.
    fn text(&self) -> String;
    /// For scripts.
    fn json(&self) -> Json;
}

impl Row for Machine {
    fn text(&self) -> String {
        let seen = self.seen.map_or_else(|| "never".to_owned(), minute);
        format!("{} {seen}", short(self))
    }

    fn json(&self) -> Json {
        Json::Object(vec![
            ("id", Json::text(self.id)),
            ("name", Json::text(&self.name)),
            ("authorized", seconds(self.authorized)),
            ("remote", Json::Bool(self.remote)),
            ("seen", self.seen.map_or(Json::Null, seconds)),
        ])
    }
}

/// A machine in what a screen of 80 columns has room for.
pub(super) fn short(machine: &Machine) -> String {
    let whence = if machine.remote { "Remote" } else { "Local " };
    let (id, name, day) = (machine.id, machine.name.as_str(), day(machine.authorized));
    format!("{name:<20} {id} {day} {whence}")
}

impl Row for Item {
    fn text(&self) -> String {
        let name = format!("{:<20}", shown(&self.name));
        format!("{name} {} {}", self.id, day(self.since))
    }

    fn json(&self) -> Json {
        Json::Object(vec![
            ("id", Json::text(self.id)),
            ("name", Json::text(&self.name)),
            ("since", seconds(self.since)),
        ])
    }
}

/// A line of a list as people see it: its number and the row.
pub(super) fn numbered(number: u64, text: &str) -> String {
    format!("{:>5} {text}", number)
}

/// Writes a list's rows; `next` gives those behind a row, or the first ones. How many
/// there were.
pub(super) fn write<R: Row>(
    parts: &mut Parts,
    is_json: bool,
    mut next: impl FnMut(Option<&R>, u32) -> Result<Vec<R>, Fault>,
) -> Result<u64, Failure> {
    let mut count = 0_u64;
    let mut last: Option<R> = None;
    loop {
        let page = next(last.as_ref(), PAGE)?;
        for row in &page {
            count += 1;
            if is_json {
                let comma = if count > 1 { "," } else { "" };
                parts.put(&format!("{comma}{}", row.json()))?;
            } else {
                parts.put(&format!("{}\n", numbered(count, row.text().trim_end())))?;
            }
        }
        match page.into_iter().next_back() {
            Some(row) => last = Some(row),
            None => return Ok(count),
        }
    }
}

/// Writes one whole list: as an object with this field, or numbered; of an empty one
/// standard error tells people.
pub(super) fn list<R: Row>(
    out: &Out,
    is_json: bool,
    (field, empty): (&'static str, &str),
    next: impl FnMut(Option<&R>, u32) -> Result<Vec<R>, Fault>,
) -> Result<(), Failure> {
    let mut parts = out.parts();
    if is_json {
        parts.put(&format!("{{\"{field}\":["))?;
    }
    let count = write(&mut parts, is_json, next)?;
    if is_json {
        parts.put("]}\n")?;
    } else if count == 0 {
        out.tell(empty);
    }
    parts.end()
}
