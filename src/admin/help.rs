//! The help texts of `cosadm`, written from the table of commands.

use std::fmt::Write as _;

use super::call::{Command, Flag};
use super::table::{GLOBAL, commands};

pub(super) fn overview() -> String {
    list("COMMAND", commands())
}

/// Lists the commands that begin with this word. Returns `None` if there are none, or if the word
/// is a command by itself.
pub(super) fn group(first: &str) -> Option<String> {
    let of_it = |c: &&Command| c.words.len() > 1 && c.words.first() == Some(&first);
    commands().find(of_it)?;
    Some(list(&format!("{first} COMMAND"), commands().filter(of_it)))
}

fn list<'a>(usage: &str, commands: impl Iterator<Item = &'a Command>) -> String {
    let mut text = format!("usage: cosadm [-C DIR] [-v] {usage}\n\n");
    for command in commands {
        let line = format!("{} {}", command.words.join(" "), command.operands);
        let _ = writeln!(text, "  {line:<24} {}", command.meaning);
    }
    text.push('\n');
    flags_help(&mut text, GLOBAL);
    text.push_str("\n`cosadm COMMAND --help` says more. Exit codes: 0 done, 1 failed or a problem found, 2 usage.\n");
    text
}

pub(super) fn help(command: &Command) -> String {
    let mut text = format!("usage: cosadm [-C DIR] {}", command.words.join(" "));
    for flag in command.flags {
        let value = if flag.value.is_empty() {
            String::new()
        } else {
            format!(" {}", flag.value)
        };
        let more = if flag.repeats { "…" } else { "" };
        let name = match flag.short {
            "" => format!("--{}", flag.long),
            short => format!("-{short}"),
        };
        let _ = if flag.needed {
            write!(text, " {name}{value}{more}")
        } else {
            write!(text, " [{name}{value}]{more}")
        };
    }
    let operands = if command.operands.is_empty() {
        String::new()
    } else {
        format!(" {}", command.operands)
    };
    let _ = write!(text, "{operands}\n\n{}\n", capital(command.meaning));
    if !command.more.is_empty() {
        let _ = writeln!(text, "{}", command.more);
    }
    text.push('\n');
    flags_help(&mut text, command.flags.iter().chain(GLOBAL));
    text
}

fn flags_help<'a>(text: &mut String, flags: impl IntoIterator<Item = &'a Flag>) {
    for flag in flags {
        let names: Vec<String> = [("-", flag.short), ("--", flag.long)]
            .into_iter()
            .filter(|(_, name)| !name.is_empty())
            .map(|(dashes, name)| format!("{dashes}{name}"))
            .collect();
        let line = format!("{} {}", names.join(", "), flag.value);
        let _ = writeln!(text, "  {line:<18} {}", flag.meaning);
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).chain(['.']).collect()
    })
}
