//! An edit of a registry file as text, by the administrator.
//!
//! Runs in `cosadm edit`. Owns the lock of the file from the start of the edit to its end, so that
//! no other change is lost. Installs the new text as every change is installed, or leaves the file
//! as it is. Must not install a line that is wrong and was not in the file before.

use std::collections::BTreeMap;
use std::path::Path;

use super::file::Table;
use super::lock::Lock;
use super::text::Document;
use crate::fault::Fault;

/// A registry file that is being edited. Other processes read it, and cannot change it.
pub struct Edit {
    table: Table,
    text: Vec<u8>,
    document: Document,
    _lock: Lock,
}

/// A text that was checked.
pub struct Checked {
    /// The content; `None`: it is that of another file.
    document: Option<Document>,
    /// A fault for each wrong line that the file did not have before.
    faults: Vec<Fault>,
}

impl Checked {
    /// Returns a fault for each wrong line that the file did not have before. If there is one, the
    /// text is not installed.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl Edit {
    /// Takes the lock and reads the file.
    pub(super) fn begin(table: Table) -> Result<Self, Fault> {
        let lock = Lock::take_for_edit(table.path())?;
        let (text, document) = table.read_text(usize::MAX)?;
        Ok(Self {
            table,
            text,
            document,
            _lock: lock,
        })
    }

    /// Returns the path of the file.
    pub fn file(&self) -> &Path {
        self.table.path()
    }

    /// Returns the text of the file.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Checks a text that may replace the file. `copy` is the file that the text is from.
    pub fn check(&self, copy: &Path, text: &[u8]) -> Checked {
        let mut document = match self.table.parse(text) {
            Ok(document) => document,
            Err(_) => {
                let first = self.text.split(|b| *b == b'\n').next().unwrap_or_default();
                let first = String::from_utf8_lossy(first);
                let words = format!("the first line must stay as it was: {}", first.trim());
                return Checked {
                    document: None,
                    faults: vec![Fault::at(copy, 1, words)],
                };
            }
        };
        document.follow(&self.document);
        let mut before: BTreeMap<_, usize> = BTreeMap::new();
        for (_, what) in wrong(&self.text, &self.document) {
            *before.entry(what).or_default() += 1;
        }
        let mut faults = Vec::new();
        for (number, (why, line)) in wrong(text, &document) {
            match before.get_mut(&(why, line)).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => faults.push(Fault::at(copy, number, why)),
            }
        }
        Checked {
            document: Some(document),
            faults,
        }
    }

    /// Replaces the file with a text that has no new fault. Returns a fault for each line of the
    /// new file that was wrong before and still is.
    ///
    /// # Errors
    /// The text has a new fault, the file was changed by a program that takes no lock, or it cannot
    /// be written. The file is then as it was.
    pub fn install(self, checked: Checked) -> Result<Vec<Fault>, Fault> {
        let document = checked.document.filter(|_| checked.faults.is_empty());
        let Some(document) = document else {
            let words = "the new text has a wrong line; nothing was changed";
            return Err(Fault::of(self.file(), words));
        };
        if self.table.read_text(0)?.0 != self.text {
            let words = "another program has changed it without its lock; nothing was changed";
            return Err(Fault::of(self.file(), words));
        }
        self.table.replace(&document)?;
        // It is installed, even if it cannot be read again now.
        Ok(self.table.wrong_lines().unwrap_or_else(|why| vec![why]))
    }
}

/// Returns the wrong lines of a text: the number of each, the reason, and the line.
fn wrong<'a>(
    text: &'a [u8],
    document: &'a Document,
) -> impl Iterator<Item = (usize, (&'static str, &'a [u8]))> {
    let mut lines = (1..).zip(text.split(|b| *b == b'\n'));
    // Both are in the order of the numbers.
    document
        .wrong()
        .first()
        .iter()
        .filter_map(move |(number, why)| {
            let (_, line) = lines.find(|(at, _)| at == number)?;
            Some((*number, (*why, line)))
        })
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
