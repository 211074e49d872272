//! A subcommand as the table describes it, and a call of one: its flags and operands.

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
    /// What stands after them, as the help shows it; one word an operand.
    pub(super) operands: &'static str,
    pub(super) flags: &'static [Flag],
    /// What it does, in a line.
    pub(super) meaning: &'static str,
    /// What more there is to say, in the help of this command.
    pub(super) more: &'static str,
    /// What it may change of the machine registry.
    pub(super) changes: Changes,
    pub(super) run: fn(&Call, &Out) -> Result<(), Failure>,
}

/// A flag.
pub(super) struct Flag {
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    /// What its value looks like; empty where it has none.
    pub(super) value: &'static str,
    pub(super) repeats: bool,
    /// The command does nothing without it.
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
    /// What was parsed behind the command, before it, and its operands.
    pub(super) const fn new(matches: Matches, before: Matches, operands: Vec<String>) -> Self {
        Self {
            matches,
            before,
            operands,
        }
    }

    /// Whether a flag was given, before the command or after it.
    pub(super) fn given(&self, name: &str) -> bool {
        self.matches.opt_present(name)
            || (self.before.opt_defined(name) && self.before.opt_present(name))
    }

    /// The value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let before = || {
            self.before
                .opt_defined(name)
                .then(|| self.before.opt_str(name))
                .flatten()
        };
        self.matches.opt_str(name).or_else(before)
    }

    /// Every value of a flag that repeats.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        self.matches.opt_strs(name)
    }

    /// An operand; the table says how many there are.
    pub(super) fn operand(&self, number: usize) -> &str {
        self.optional(number).unwrap_or("")
    }

    /// An operand that need not be there.
    pub(super) fn optional(&self, number: usize) -> Option<&str> {
        self.operands.get(number).map(String::as_str)
    }

    /// The configuration folder that the command is about.
    pub(super) fn paths(&self) -> Result<Paths, Failure> {
        Ok(Paths::of_caller(self.value("C").as_deref().map(Path::new)))
    }

    /// The value of `--port`.
    pub(super) fn port(&self) -> Result<Option<u16>, Failure> {
        let Some(text) = self.value("port") else {
            return Ok(None);
        };
        let wrong = || Failure::Usage(format!("--port: {text:?} is no port from 1 to 65535"));
        Ok(Some(words::port(&text).ok_or_else(wrong)?.get()))
    }
}
