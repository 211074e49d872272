//! The command line of `cos`, also when called as rsh or ssh, parsed into the action that it asks
//! for. Pure: runs in the client before anything else, and must not read files.
//!
//! Flags may precede and follow the host, up to the first word of the command or `--`, as in ssh
//! and the BSD rsh. The command's words are kept unchanged, byte for byte, and never quoted again.

use std::ffi::{OsStr, OsString};

use super::arg_parser::ArgParser;
use super::call::{Action, Personality, ShowKey};
use super::flags;
use super::help::{SUBCOMMANDS, help, usage};
use crate::config::words::did_you_mean;
use crate::fault::Fault;

/// Parses a command line; the first word is the program's name.
///
/// # Errors
/// What is wrong with it, and what was probably meant.
pub fn parse(argv: &[OsString]) -> Result<Action, Fault> {
    let (program, rest) = argv
        .split_first()
        .map_or((OsStr::new("cos"), argv), |(p, rest)| (p.as_os_str(), rest));
    let personality = Personality::of(program);
    if personality.is_remote_shell() {
        parse_run(personality, ArgParser::default(), rest)
    } else {
        parse_cos(rest)
    }
}

fn parse_cos(args: &[OsString]) -> Result<Action, Fault> {
    let mut parser = ArgParser::default();
    let rest = parser.take(Personality::Global, flags::COS, args)?.rest;
    if let Some(tell) = parser.tell.take() {
        return Ok(tell);
    }
    let Some((word, rest)) = rest.split_first() else {
        let all = SUBCOMMANDS.map(|(name, ..)| name).join(", ");
        let usage = usage(Personality::Global);
        return Err(Fault::new(format!("{usage}; subcommands: {all}")));
    };
    match subcommand(&word.to_string_lossy()) {
        Some(Personality::Global) => parse_help(rest),
        Some(Personality::Key) => parse_key(parser, rest),
        Some(personality) => parse_run(personality, parser, rest),
        None => Err(Fault::new(format!(
            "{word:?} is not a subcommand; did you mean \"cos run {}\"?",
            word.to_string_lossy()
        ))),
    }
}

fn subcommand(word: &str) -> Option<Personality> {
    let found = SUBCOMMANDS.iter().find(|(name, ..)| *name == word);
    found.map(|(_, personality, _)| *personality)
}

/// Parses `cos help`, for one subcommand or for all.
fn parse_help(args: &[OsString]) -> Result<Action, Fault> {
    let Some(word) = args.first().map(|word| word.to_string_lossy()) else {
        return Ok(Action::Tell(help(Personality::Global)));
    };
    match subcommand(&word).filter(|found| *found != Personality::Global) {
        Some(personality) => Ok(Action::Tell(help(personality))),
        None => {
            let names = SUBCOMMANDS.iter().map(|(name, ..)| *name);
            let meant = did_you_mean(&word, names.filter(|name| *name != "help"));
            let words = format!("cos help: {word:?} is not a subcommand{meant}");
            Err(Fault::new(words))
        }
    }
}

fn parse_run(
    personality: Personality,
    mut parser: ArgParser,
    args: &[OsString],
) -> Result<Action, Fault> {
    let table = flags::of(personality);
    let before = parser.take(personality, table, args)?;
    let (host, words) = match before.rest.split_first() {
        // After "--" before the host no word is a flag, as in ssh.
        Some((host, rest)) if before.terminated => (Some(host), rest),
        Some((host, rest)) => (Some(host), parser.take(personality, table, rest)?.rest),
        None => (None, before.rest),
    };
    match (parser.tell.take(), host) {
        (Some(tell), _) => Ok(tell),
        (None, Some(host)) => {
            let shows_config = parser.shows_config;
            let call = Box::new(parser.call(personality, host, words)?);
            Ok(match (personality, shows_config) {
                (Personality::Gui, _) => Action::Gui(call),
                (Personality::Open, _) => Action::Open(call),
                (Personality::Enrol, _) => Action::Enrol(call),
                (Personality::Connect, _) => Action::Connect(call),
                (Personality::Ssh, true) => Action::ShowConfig(call),
                _ => Action::Run(call),
            })
        }
        (None, None) => Err(Fault::new(usage(personality))),
    }
}

fn parse_key(mut parser: ArgParser, args: &[OsString]) -> Result<Action, Fault> {
    let (personality, table) = (Personality::Key, flags::of(Personality::Key));
    let before = parser.take(personality, table, args)?.rest;
    let show = before.split_first().filter(|(word, _)| *word == "show");
    let behind = match show {
        Some((_, rest)) => parser.take(personality, table, rest)?.rest,
        None => before,
    };
    if let Some(tell) = parser.tell.take() {
        return Ok(tell);
    }
    if let (None, Some(word)) = (show, behind.first()) {
        let word = word.to_string_lossy();
        let meant = did_you_mean(&word, ["show"]);
        let hint = if meant.is_empty() {
            format!("; {}", usage(personality))
        } else {
            meant
        };
        return Err(Fault::new(format!("cos key: {word:?} is unknown{hint}")));
    }
    if show.is_none() || !behind.is_empty() {
        return Err(Fault::new(usage(personality)));
    }
    Ok(Action::ShowKey(ShowKey {
        folder: parser.folder,
        json: parser.json,
    }))
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "args_enrol_tests.rs"]
mod enrol_tests;

#[cfg(test)]
#[path = "args_ssh_tests.rs"]
mod ssh_tests;
