//! The help texts of `cosadm`, written from the table of commands.

use super::call::Command;
use super::table::{GLOBAL, commands};
use crate::cli::{Flag, Times, entry};

/// The width of the column of flags, and of that of commands.
const FLAG_WIDTH: usize = 18;
const COMMAND_WIDTH: usize = 24;

pub(super) fn overview() -> String {
    list("COMMAND", commands())
}

/// Lists the commands that begin with this word. Returns `None` if there are none, or if the word
/// is a command by itself.
pub(super) fn group(first: &str) -> Option<String> {
    let of_it = |c: &&Command| c.group().is_some_and(|(group, _)| group == first);
    commands().find(of_it)?;
    Some(list(&format!("{first} COMMAND"), commands().filter(of_it)))
}

fn list<'a>(usage: &str, commands: impl Iterator<Item = &'a Command>) -> String {
    let mut text = format!("usage: cosadm [-C DIR] [-v] {usage}\n\n");
    for command in commands {
        text.push_str(&entry(command.shown, COMMAND_WIDTH, command.meaning));
    }
    text.push('\n');
    text.extend(flag_lines(GLOBAL));
    text.push_str("\n`cosadm COMMAND --help` says more. Exit codes: 0 done, 1 failed or a problem found, 2 usage.\n");
    text
}

pub(super) fn help(command: &Command) -> String {
    let mut text = format!("usage: cosadm [-C DIR] {}", command.name());
    for flag in command.flags {
        let shown = match flag.shown.split_once(", ") {
            Some((letter, _)) => format!("{letter} {}", flag.value()),
            None => flag.shown.to_owned(),
        };
        text.push_str(&match flag.times {
            Times::Required => format!(" {shown}"),
            Times::Once => format!(" [{shown}]"),
            Times::Any => format!(" [{shown}]…"),
        });
    }
    text.extend(
        command
            .operands()
            .split_whitespace()
            .flat_map(|word| [" ", word]),
    );
    text.push_str(&format!("\n\n{}\n", capital(command.meaning)));
    if !command.more.is_empty() {
        text.push_str(&format!("{}\n", command.more));
    }
    text.push('\n');
    text.extend([command.flags, GLOBAL].into_iter().flat_map(flag_lines));
    text
}

fn flag_lines(flags: &[Flag]) -> impl Iterator<Item = String> {
    flags.iter().map(|flag| flag.line(FLAG_WIDTH))
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).chain(['.']).collect()
    })
}
