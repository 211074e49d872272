//! The types of a subcommand in the table, and of a call of one: its flags and operands.

use std::path::Path;

use super::noted::Changes;
use super::out::{Failure, Out};
use crate::cli::{Flag, Parsed};
use crate::config::paths::Paths;
use crate::config::words;

/// A subcommand.
pub(super) struct Command {
    /// Its one or two words, and then its operands, as the help shows them.
    pub(super) shown: &'static str,
    pub(super) flags: &'static [Flag],
    /// One line about what it does.
    pub(super) meaning: &'static str,
    /// Further text in the help of this command.
    pub(super) more: &'static str,
    /// What it may change of the machine registry.
    pub(super) changes: Changes,
    pub(super) run: Run,
}

type Run = fn(&Call, &Out) -> Result<(), Failure>;

/// Returns a subcommand that changes nothing of the machine registry.
pub(super) const fn command(
    shown: &'static str,
    flags: &'static [Flag],
    meaning: &'static str,
    run: Run,
) -> Command {
    Command {
        shown,
        flags,
        meaning,
        more: "",
        changes: Changes::Nothing,
        run,
    }
}

impl Command {
    /// Returns the same command with further text in its help.
    pub(super) const fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    /// Returns the same command, marked as changing this part of the machine registry.
    pub(super) const fn changing(self, changes: Changes) -> Self {
        Self { changes, ..self }
    }

    /// Returns the words that name it.
    pub(super) fn name(&self) -> &'static str {
        self.parts().0.trim_end()
    }

    /// Returns its operands, each a word.
    pub(super) fn operands(&self) -> &'static str {
        self.parts().1
    }

    /// Returns the first of two words that name it, and the second.
    pub(super) fn group(&self) -> Option<(&'static str, &'static str)> {
        self.name().split_once(' ')
    }

    fn parts(&self) -> (&'static str, &'static str) {
        let is_operand = |c: char| c.is_ascii_uppercase() || c == '[';
        let name = self.shown.find(is_operand).unwrap_or(self.shown.len());
        self.shown.split_at(name)
    }
}

/// A command's operands and flags, those before the command first.
pub(super) struct Call(Parsed<()>);

impl Call {
    pub(super) const fn new(parsed: Parsed<()>) -> Self {
        Self(parsed)
    }

    /// Returns whether a flag was given.
    pub(super) fn given(&self, name: &str) -> bool {
        self.0.has(name)
    }

    /// Returns the value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.0.value(name).map(str::to_owned)
    }

    /// Returns all values of a flag that repeats.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        self.0.values(name).map(str::to_owned).collect()
    }

    /// Returns all operands.
    pub(super) fn operands(&self) -> &[String] {
        &self.0.words
    }

    /// Returns an operand; the table says how many there are.
    pub(super) fn operand(&self, number: usize) -> &str {
        self.optional(number).unwrap_or("")
    }

    /// Returns an optional operand.
    pub(super) fn optional(&self, number: usize) -> Option<&str> {
        self.0.words.get(number).map(String::as_str)
    }

    /// Returns the paths of the configuration folder that the command works on.
    pub(super) fn paths(&self) -> Result<Paths, Failure> {
        Ok(Paths::of_caller(self.value("C").as_deref().map(Path::new)))
    }

    /// Returns the value of `--port`.
    pub(super) fn port(&self) -> Result<Option<u16>, Failure> {
        let Some(text) = self.value("port") else {
            return Ok(None);
        };
        let wrong = || Failure::Usage(format!("--port: {text:?} is not a port from 1 to 65535"));
        Ok(Some(words::port(&text).ok_or_else(wrong)?.get()))
    }
}
