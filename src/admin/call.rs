//! The types of a subcommand in the table, and of a call of one: its flags and operands.

use std::path::Path;

use getopts::Matches;

use super::noted::Changes;
use super::out::{Failure, Out};
use crate::config::paths::Paths;
use crate::config::words;

/// A subcommand.
pub(super) struct Command {
    /// The words that name it.
    pub(super) words: &'static [&'static str],
    /// The operands, as the help shows them; one word for each.
    pub(super) operands: &'static str,
    pub(super) flags: &'static [Flag],
    /// One line about what it does.
    pub(super) meaning: &'static str,
    /// Further text in the help of this command.
    pub(super) more: &'static str,
    /// What it may change of the machine registry.
    pub(super) changes: Changes,
    pub(super) run: fn(&Call, &Out) -> Result<(), Failure>,
}

/// A flag.
pub(super) struct Flag {
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    /// The placeholder for its value; empty if it takes none.
    pub(super) value: &'static str,
    pub(super) repeats: bool,
    /// The command requires it.
    pub(super) needed: bool,
    pub(super) meaning: &'static str,
}

pub(super) const fn flag(
    long: &'static str,
    value: &'static str,
    repeats: bool,
    meaning: &'static str,
) -> Flag {
    Flag {
        short: "",
        long,
        value,
        repeats,
        needed: false,
        meaning,
    }
}

/// A command's operands and flags.
pub(super) struct Call {
    matches: Matches,
    before: Matches,
    operands: Vec<String>,
}

impl Call {
    /// Takes the flags after the command, those before it, and its operands.
    pub(super) const fn new(matches: Matches, before: Matches, operands: Vec<String>) -> Self {
        Self {
            matches,
            before,
            operands,
        }
    }

    /// Returns whether a flag was given, before the command or after it.
    pub(super) fn given(&self, name: &str) -> bool {
        self.matches.opt_present(name)
            || (self.before.opt_defined(name) && self.before.opt_present(name))
    }

    /// Returns the value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let before = || {
            self.before
                .opt_defined(name)
                .then(|| self.before.opt_str(name))
                .flatten()
        };
        self.matches.opt_str(name).or_else(before)
    }

    /// Returns all values of a flag that repeats.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        self.matches.opt_strs(name)
    }

    /// Returns an operand; the table says how many there are.
    pub(super) fn operand(&self, number: usize) -> &str {
        self.optional(number).unwrap_or("")
    }

    /// Returns an optional operand.
    pub(super) fn optional(&self, number: usize) -> Option<&str> {
        self.operands.get(number).map(String::as_str)
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
