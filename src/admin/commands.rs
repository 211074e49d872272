//! Parses the command line by the table of subcommands and flags.

use std::ffi::OsString;

use getopts::{Fail, Options, ParsingStyle};

use super::call::{Call, Command, Flag};
use super::help::{group, help, overview};
use super::out::Failure;
use super::table::{GLOBAL, commands};
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
    let before = options(GLOBAL)
        .parsing_style(ParsingStyle::StopAtFirstFree)
        .parse(arguments)
        .map_err(|fail| usage(&fail, GLOBAL, "cosadm"))?;
    if before.opt_present("V") {
        return Ok(version());
    }
    if before.free.is_empty() {
        return if before.opt_present("h") {
            Ok(Parsed::Tell(overview()))
        } else {
            Ok(Parsed::Nothing(Call::new(
                before.clone(),
                before,
                Vec::new(),
            )))
        };
    }
    if let Some(("help", about)) = before.free.split_first().map(|(w, more)| (&**w, more)) {
        let words = about.iter().filter(|w| !w.starts_with('-'));
        let words = words.map(OsString::from);
        return parse(&words.chain(["--help".into()]).collect::<Vec<_>>());
    }
    let Some((command, rest)) = commands().find_map(|c| match_command(&before.free, c)) else {
        if before.opt_present("h")
            || before
                .free
                .iter()
                .any(|word| word == "--help" || word == "-h")
        {
            let text = before.free.first().and_then(|word| group(word));
            return Ok(Parsed::Tell(text.unwrap_or_else(overview)));
        }
        return Err(Failure::Usage(unknown(&before.free)));
    };
    let name = format!("cosadm {}", command.words.join(" "));
    let flags = || GLOBAL.iter().chain(command.flags);
    let matches = options(flags())
        .parse(rest)
        .map_err(|fail| usage(&fail, flags(), &name))?;
    if matches.opt_present("h") || before.opt_present("h") {
        return Ok(Parsed::Tell(help(command)));
    }
    if matches.opt_present("V") {
        return Ok(version());
    }
    let operands = matches.free.clone();
    if let Some(wrong) = wrong_operands(command.operands, &operands) {
        let line = format!("{name}{wrong}; see `{name} --help`");
        return Err(Failure::Usage(line));
    }
    Ok(Parsed::Run(command, Call::new(matches, before, operands)))
}

fn version() -> Parsed {
    Parsed::Tell(concat!("cosadm ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
}

/// Describes an error in the operands of a command, given those that the table lists. Operands in
/// brackets are optional.
fn wrong_operands(wanted: &str, given: &[String]) -> Option<String> {
    let mut given = given.iter();
    let missing: Vec<&str> = wanted
        .split_whitespace()
        .filter(|word| given.next().is_none() && !word.starts_with('['))
        .collect();
    if !missing.is_empty() {
        return Some(format!(" needs {}", missing.join(" ")));
    }
    let extra = given.next()?;
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
    let (first, more) = command.words.split_first()?;
    let (given, free) = free.split_first()?;
    if given != first {
        return None;
    }
    let Some(second) = more.first() else {
        return Some((command, free.to_vec()));
    };
    let flags_alone = |between: &[String]| {
        let parsed = options(GLOBAL.iter().chain(command.flags)).parse(between);
        parsed.is_ok_and(|matches| matches.free.is_empty())
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
    let names: Vec<String> = commands().map(|c| c.words.join(" ")).collect();
    let both = did_you_mean(&given.join(" "), names.iter().map(String::as_str));
    let first = given.first().copied().unwrap_or("");
    let flag = free.get(1).filter(|word| word.starts_with('-'));
    let name = given.join(" ");
    if let (Some(flag), true) = (flag, names.contains(&name)) {
        return format!("{flag} is not a flag of `cosadm {name}`; see `cosadm {name} --help`");
    }
    let below: Vec<&str> = commands()
        .filter(|c| c.words.len() > 1 && c.words.first() == Some(&first))
        .filter_map(|c| c.words.get(1))
        .copied()
        .collect();
    // The first word is correct if there are commands that begin with it.
    if !both.is_empty() && (given.len() > 1 || below.is_empty()) {
        return format!("unknown command {:?}{both}", given.join(" "));
    }
    if below.is_empty() {
        format!(
            "unknown command {first:?}{}",
            did_you_mean(first, commands().filter_map(|c| c.words.first().copied()))
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

fn options<'a>(flags: impl IntoIterator<Item = &'a Flag>) -> Options {
    let mut options = Options::new();
    for flag in flags {
        match (flag.value, flag.repeats) {
            ("", _) => options.optflag(flag.short, flag.long, flag.meaning),
            (value, false) => options.optopt(flag.short, flag.long, flag.meaning, value),
            (value, true) => options.optmulti(flag.short, flag.long, flag.meaning, value),
        };
    }
    options
}

fn usage<'a>(fail: &Fail, flags: impl IntoIterator<Item = &'a Flag>, name: &str) -> Failure {
    let words = match fail {
        Fail::UnrecognizedOption(flag) => {
            let longs = flags
                .into_iter()
                .map(|f| f.long)
                .filter(|long| !long.is_empty());
            // The flag belongs to a command, but is before it.
            if name == "cosadm" && commands().any(|c| c.flags.iter().any(|f| f.long == *flag)) {
                let words = format!("--{flag} goes after the command; see `cosadm --help`");
                return Failure::Usage(words);
            }
            let dashes = if flag.chars().count() == 1 { "-" } else { "--" };
            format!("unknown flag {dashes}{flag}{}", did_you_mean(flag, longs))
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
