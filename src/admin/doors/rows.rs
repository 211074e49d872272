//! Output of long lists, with up to a million machines: numbered for people, or as JSON.

use super::super::out::{Failure, Out, Parts};
use super::{day, minute, seconds};
use crate::cli::json::Json;
use crate::config::words::shown;
use crate::registry::Occurred;
use crate::registry::inner::Machine;
use crate::registry::outer::Item;

/// A row of a list.
pub(super) trait Row {
    /// Formats the row for people, without its number.
    fn text(&self) -> String;
    /// Formats the row for scripts.
    fn json(&self) -> Json;
}

/// A machine, and when this host last saw it.
impl Row for (Machine, Option<Occurred>) {
    fn text(&self) -> String {
        let seen = self.1.map_or_else(|| "never".to_owned(), minute);
        format!("{} {seen}", short(&self.0))
    }

    fn json(&self) -> Json {
        let (machine, seen) = self;
        Json::Object(vec![
            ("id", Json::text(machine.id)),
            ("name", Json::text(&machine.name)),
            ("authorized", seconds(machine.authorized)),
            ("remote", Json::Bool(machine.remote)),
            ("seen", seen.map(seconds).into()),
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

/// Writes a list's rows.
pub(super) fn write(parts: &mut Parts, is_json: bool, rows: &[impl Row]) -> Result<(), Failure> {
    for (number, row) in (1..).zip(rows) {
        if is_json {
            let comma = if number > 1 { "," } else { "" };
            parts.put(&format!("{comma}{}", row.json()))?;
        } else {
            parts.put(&format!("{}\n", numbered(number, row.text().trim_end())))?;
        }
    }
    Ok(())
}

/// Writes one whole list: as a JSON object with this field, or numbered. Without JSON, an empty
/// list is reported on standard error.
pub(super) fn list(
    out: &Out,
    is_json: bool,
    (field, empty): (&'static str, &str),
    rows: &[impl Row],
) -> Result<(), Failure> {
    let mut parts = out.parts();
    if is_json {
        parts.put(&format!("{{\"{field}\":["))?;
    }
    write(&mut parts, is_json, rows)?;
    if is_json {
        parts.put("]}\n")?;
    } else if rows.is_empty() {
        out.tell(empty);
    }
    parts.end()
}
