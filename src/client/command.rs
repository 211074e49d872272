//! The command of a call with ssh's command line where cosserver answers: the given words or their
//! replacement, and errors for what is not available. Runs in the client, once it is known that the
//! host is not reached by ssh itself.

use std::borrow::Cow;
use std::io::{self, IsTerminal};

use super::call::{Call, CallKind};
use super::messages;
use crate::fault::Fault;
use crate::protocol::request::LOGIN_SHELL;

/// Returns the call with the words to run. Reports what is ignored.
///
/// # Errors
/// It asks for something that is not available.
pub(super) fn settle(call: &Call) -> Result<Cow<'_, Call>, Fault> {
    let asked = &call.of_ssh;
    if let Some(refused) = &asked.refused {
        return Err(Fault::new(refused.clone()));
    }
    let words = words(call)?;
    if !asked.quiet {
        for unknown in &asked.unknown {
            messages::print_error(Some(&call.host), &format!("ignored: {unknown}"));
        }
        if asked.terminal && asked.stdio_to.is_none() {
            let note = "-t: there is no terminal; the command runs without one";
            messages::print_error(Some(&call.host), note);
        }
        if asked.no_command && asked.stdio_to.is_none() {
            let note = "-N: there is no forwarding; the command runs";
            messages::print_error(Some(&call.host), note);
        }
    }
    Ok(words.map_or(Cow::Borrowed(call), |words| {
        Cow::Owned(Call {
            words,
            ..call.clone()
        })
    }))
}

/// Returns the words that replace the command. `None`: the given words.
fn words(call: &Call) -> Result<Option<Vec<Vec<u8>>>, Fault> {
    let asked = &call.of_ssh;
    if let Some(target) = &asked.stdio_to {
        if !call.words.is_empty() {
            return Err(Fault::new("-W: it takes no command"));
        }
        let program = call.jump_program.as_deref().unwrap_or("cos");
        let port = target.port.map(|p| p.to_string()).unwrap_or_default();
        let words = [program, "connect", &target.host, &port];
        return Ok(Some(words.map(|w| w.as_bytes().to_vec()).into()));
    }
    if call.kind != CallKind::Command || !call.words.is_empty() {
        return Ok(None);
    }
    if asked.no_command {
        return Err(Fault::new("-N: there is no forwarding; give a command"));
    }
    let has_terminal = !asked.no_terminal && io::stdin().is_terminal();
    match &asked.command {
        None if call.background => Err(Fault::new("-f: no command given")),
        None if has_terminal => {
            let words = "no command given, and there is no terminal here; give a command";
            Err(Fault::new(words))
        }
        Some(command) => Ok(Some(vec![command.clone().into_bytes()])),
        None => Ok(Some(vec![LOGIN_SHELL.into()])),
    }
}
