//! Parses the command line by the table of subcommands and flags.

use std::ffi::OsString;

use super::call::{Call, Command};
use super::help::{group, help, overview};
use super::out::Failure;
use super::table::{GLOBAL, commands};
use crate::cli::{self, Fail, Flag, ParsingStyle, dashed};
use crate::config::words::did_you_mean;

/// What a command line requests.
pub(super) enum Parsed {
    /// A text to print: the help or the version.
    Tell(String),
    /// A command.
    Run(&'static Command, Call),
    /// No command: on a terminal, the menu.
    Nothing(Call),
}

/// Finds the command of a command line and reads its flags.
pub(super) fn parse(arguments: &[OsString]) -> Result<Parsed, Failure> {
    cli::check_utf8(arguments).map_err(Failure::Usage)?;
    let mut before = cli::parse(&[GLOBAL], ParsingStyle::StopAtFirstFree, arguments)
        .map_err(|fail| usage(&fail, &[GLOBAL], "cosadm"))?;
    if before.has("V") {
        return Ok(version());
    }
    let words = std::mem::take(&mut before.words);
    match words.split_first() {
        None if before.has("h") => return Ok(Parsed::Tell(overview())),
        None => return Ok(Parsed::Nothing(Call::new(before))),
        Some((first, about)) if first == "help" => {
            let about = about.iter().filter(|w| !w.starts_with('-'));
            let about = about.map(OsString::from);
            return parse(&about.chain(["--help".into()]).collect::<Vec<_>>());
        }
        Some(_) => {}
    }
    let Some((command, rest)) = commands().find_map(|c| match_command(&words, c)) else {
        if before.has("h") || words.iter().any(|word| word == "--help" || word == "-h") {
            let text = words.first().and_then(|word| group(word));
            return Ok(Parsed::Tell(text.unwrap_or_else(overview)));
        }
        return Err(Failure::Usage(unknown(&words)));
    };
    let name = format!("cosadm {}", command.name());
    let tables = [GLOBAL, command.flags];
    let mut parsed = cli::parse(&tables, ParsingStyle::FloatingFrees, rest)
        .map_err(|fail| usage(&fail, &tables, &name))?;
    if before.has("C") && parsed.has("C") {
        let fail = Fail::OptionDuplicated("C".to_owned());
        return Err(usage(&fail, &tables, &name));
    }
    parsed.given.splice(0..0, before.given);
    if parsed.has("h") {
        return Ok(Parsed::Tell(help(command)));
    }
    if parsed.has("V") {
        return Ok(version());
    }
    if let Some(wrong) = wrong_operands(command.operands(), &parsed.words) {
        let line = format!("{name}{wrong}; see `{name} --help`");
        return Err(Failure::Usage(line));
    }
    Ok(Parsed::Run(command, Call::new(parsed)))
}

fn version() -> Parsed {
    Parsed::Tell(concat!("cosadm ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
}

/// Describes an error in the operands of a command, given those that the table lists. Operands in
/// brackets are optional, and one that ends with `...` may be given several times.
fn wrong_operands(wanted: &str, given: &[String]) -> Option<String> {
    let mut given = given.iter();
    let missing: Vec<&str> = wanted
        .split_whitespace()
        .filter(|word| given.next().is_none() && !word.starts_with('['))
        .collect();
    if !missing.is_empty() {
        return Some(format!(" needs {}", missing.join(" ")));
    }
    let extra = given.next().filter(|_| !wanted.ends_with("..."))?;
    Some(if wanted.is_empty() {
        format!(": unexpected argument {extra:?}")
    } else {
        format!(" takes only {wanted}: unexpected argument {extra:?}")
    })
}

/// Returns the command and the arguments after its words, if `free` begins with these words. Flags
/// may also be between the words.
fn match_command(
    free: &[String],
    command: &'static Command,
) -> Option<(&'static Command, Vec<String>)> {
    let (given, free) = free.split_first()?;
    let Some((first, second)) = command.group() else {
        return (given == command.name()).then(|| (command, free.to_vec()));
    };
    if given != first {
        return None;
    }
    let flags_alone = |between: &[String]| {
        let tables = [GLOBAL, command.flags];
        let parsed = cli::parse(&tables, ParsingStyle::FloatingFrees, between);
        parsed.is_ok_and(|parsed| parsed.words.is_empty())
    };
    (0..free.len()).find_map(|at| {
        let (between, rest) = free.split_at_checked(at)?;
        let (word, rest) = rest.split_first()?;
        (word == second && flags_alone(between)).then(|| (command, [between, rest].concat()))
    })
}

/// Formats the error about an unknown command, with the most similar one that exists.
fn unknown(free: &[String]) -> String {
    // A flag between the words is not part of the command.
    let words = free.iter().filter(|word| !word.starts_with('-'));
    let given: Vec<&str> = words.map(String::as_str).take(2).collect();
    let both = did_you_mean(&given.join(" "), commands().map(Command::name));
    let first = given.first().copied().unwrap_or("");
    let flag = free.get(1).filter(|word| word.starts_with('-'));
    let name = given.join(" ");
    if let (Some(flag), true) = (flag, commands().any(|c| c.name() == name)) {
        return format!("{flag} is not a flag of `cosadm {name}`; see `cosadm {name} --help`");
    }
    let below: Vec<&str> = commands()
        .filter_map(Command::group)
        .filter_map(|(group, second)| (group == first).then_some(second))
        .collect();
    // The first word is correct if there are commands that begin with it.
    if !both.is_empty() && (given.len() > 1 || below.is_empty()) {
        return format!("unknown command {:?}{both}", given.join(" "));
    }
    if below.is_empty() {
        format!(
            "unknown command {first:?}{}",
            did_you_mean(first, commands().filter_map(|c| c.name().split(' ').next()))
        )
    } else {
        let second = given.get(1).copied().unwrap_or("");
        format!(
            "after {first} comes one of {}{}",
            below.join(", "),
            did_you_mean(second, below.iter().copied())
        )
    }
}

fn usage(fail: &Fail, tables: &[&'static [Flag]], name: &str) -> Failure {
    let has = |table: &[Flag], long| table.iter().flat_map(Flag::names).any(|n| n.1 == long);
    let words = match fail {
        // The flag belongs to a command, but is before it.
        Fail::UnrecognizedOption(flag)
            if name == "cosadm" && commands().any(|c| has(c.flags, flag)) =>
        {
            let words = format!("--{flag} goes after the command; see `cosadm --help`");
            return Failure::Usage(words);
        }
        Fail::UnrecognizedOption(flag) => {
            let longs = tables.iter().copied().flatten().flat_map(Flag::names);
            let longs = longs.map(|(_, long)| long).filter(|long| !long.is_empty());
            format!("unknown flag {}{}", dashed(flag), did_you_mean(flag, longs))
        }
        Fail::ArgumentMissing(_)
        | Fail::OptionMissing(_)
        | Fail::OptionDuplicated(_)
        | Fail::UnexpectedArgument(_) => fail.to_string(),
    };
    Failure::Usage(format!("{words} (see `{name} --help`)"))
}

#[cfg(test)]
#[path = "commands_tests.rs"]
mod tests;
