//! The command line of `cos`, also when called as rsh or ssh, parsed into the action that it asks
//! for. Pure: runs in the client before anything else, and must not read files.
//!
//! Flags may precede and follow the host, up to the first word of the command or `--`, as in ssh
//! and the BSD rsh. The command's words are kept unchanged, byte for byte, and never quoted again.

use std::ffi::{OsStr, OsString};

use super::arg_parser::ArgParser;
use super::call::{Action, Personality, ShowKey};
use super::flags;
use super::help::{help, usage};
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
    match rest.split_first() {
        Some((word, rest)) if word == "run" => parse_run(Personality::Cos, parser, rest),
        Some((word, rest)) if word == "gui" => parse_run(Personality::Gui, parser, rest),
        Some((word, rest)) if word == "enrol" => parse_run(Personality::Enrol, parser, rest),
        Some((word, rest)) if word == "key" => parse_key(parser, rest),
        Some((word, rest)) if word == "connect" => parse_run(Personality::Connect, parser, rest),
        Some((word, rest)) if word == "help" => parse_help(rest),
        Some((word, _)) => Err(Fault::new(format!(
            "{word:?} is not a subcommand; did you mean \"cos run {}\"?",
            word.to_string_lossy()
        ))),
        None => Err(Fault::new(format!(
            "{}; subcommands: run, gui, enrol, key, connect, help",
            usage(Personality::Global)
        ))),
    }
}

/// Parses `cos help`, for one subcommand or for all.
fn parse_help(args: &[OsString]) -> Result<Action, Fault> {
    let word = args.first().map(|word| word.to_string_lossy());
    let personality = match word.as_deref() {
        None => Personality::Global,
        Some("run") => Personality::Cos,
        Some("gui") => Personality::Gui,
        Some("enrol") => Personality::Enrol,
        Some("key") => Personality::Key,
        Some("connect") => Personality::Connect,
        Some(other) => {
            let meant = did_you_mean(other, ["run", "gui", "enrol", "key", "connect"]);
            let words = format!("cos help: {other:?} is not a subcommand{meant}");
            return Err(Fault::new(words));
        }
    };
    Ok(Action::Tell(help(personality)))
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
            Ok(match personality {
                Personality::Gui => Action::Gui(call),
                Personality::Enrol => Action::Enrol(call),
                Personality::Connect => Action::Connect(call),
                Personality::Ssh if shows_config => Action::ShowConfig(call),
                Personality::Global
                | Personality::Cos
                | Personality::Rsh
                | Personality::Ssh
                | Personality::Key => Action::Run(call),
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
