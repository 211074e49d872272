//! Output of long lists, with up to millions of machines. Lists are read in pages, so that no
//! writer of the registry waits for the reader of the output. They are written as they are read,
//! numbered for people or as JSON.

use super::super::json::Json;
use super::super::out::{Failure, Out, Parts};
use super::{day, minute, seconds};
use crate::config::words::shown;
use crate::fault::Fault;
use crate::registry::inner::Machine;
use crate::registry::outer::Item;

/// How many rows are read at once.
pub(super) const PAGE: u32 = 500;

/// A row of a list.
pub(super) trait Row {
    /// Formats the row for people, without its number.
    fn text(&self) -> String;
    /// Formats the row for scripts.
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

/// Formats a machine for a screen of 80 columns.
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

/// Formats a line of a list for people: its number and the row.
pub(super) fn numbered(number: u64, text: &str) -> String {
    format!("{:>5} {text}", number)
}

/// Writes a list's rows and returns their count. `next` returns the rows after a given one, or the
/// first ones.
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

/// Writes one whole list: as a JSON object with this field, or numbered. Without JSON, an empty
/// list is reported on standard error.
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
