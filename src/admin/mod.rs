//! `cosadm`, the administrator's program: it makes the configuration folder,
//! invites hosts and joins them, and says whether everything is right.
//!
//! It runs as root for `/etc/cosserver`, or as an ordinary user in a folder of
//! one's own. It speaks with no peer but the daemon of its folder, and starts no process. What it changes it
//! changes whole and under a lock; it never overwrites a key.
//!
//! `call` has the types, `table` the one table of subcommands and flags, by which `commands` reads
//! the command line and `help` writes every help; `init`, `invite`, `rotate`,
//! `join`, `hosts`, `doors` and `check` are what they do; `edit` changes the text of the
//! host table, `card_output` writes a card, `reach` finds the addresses of a card, `who` asks the running daemon,
//! `out` and `json` write.

mod absent;
mod call;
mod card_output;
mod check;
mod commands;
mod doors;
mod edit;
mod help;
mod hosts;
mod init;
mod invite;
mod join;
mod json;
mod noted;
mod out;
mod reach;
mod rotate;
mod table;
mod who;

use std::io::IsTerminal;
use std::process::ExitCode;

use commands::Parsed;
use noted::Changes;
use out::{Failure, Out};

/// Runs `cosadm` with the arguments of this process.
///
/// Exit codes: 0 done, 1 failed or a problem was found, 2 the command line is
/// wrong.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let mut out = Out::new();
    let done = match commands::parse(&arguments) {
        Ok(Parsed::Tell(text)) => out.say(&text),
        Ok(Parsed::Run(command, call)) => {
            out.verbose(call.given("v"));
            noted::noting(call.paths().ok(), command.changes, &out, || (command.run)(&call, &out))
        }
        Ok(Parsed::Nothing(call)) if is_at_a_terminal() => {
            noted::noting(call.paths().ok(), Changes::Registry, &out, || doors::menu::run(&call, &out))
        }
        Ok(Parsed::Nothing(_)) => Err(Failure::Usage(
            "what is to be done? `cosadm --help` lists the commands, and on a terminal there is a menu"
                .to_owned(),
        )),
        Err(failure) => Err(failure),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(words)) => {
            out.tell(words);
            ExitCode::from(2)
        }
        Err(Failure::Found) => ExitCode::FAILURE,
        Err(Failure::Fault(fault)) => {
            out.tell(&fault);
            if let Some(remedy) = fault.remedy() {
                out.tell(remedy);
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether a person types and reads.
fn is_at_a_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
