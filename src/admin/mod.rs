//! `cosadm`, the administrator's program: creates the configuration folder, invites and joins
//! hosts, manages the machine registry, and checks the configuration.
//!
//! Runs as root for `/etc/cosserver`, or as an ordinary user for a folder of that user. It talks
//! only to the daemon of its folder, and starts no process but the user's editor (`cosadm edit`).
//! It makes each change completely and under a lock. It must never overwrite a key.
//!
//! `call` has the types. `table` is the one table of subcommands and flags: `commands` parses the
//! command line by it, and `help` writes all help texts from it. `init`, `invite`, `rotate`,
//! `join`, `hosts`, `doors`, `explain` and `check` implement the subcommands. `edit` changes the text of the
//! host table, `card_output` writes a card, `reach` finds the addresses of a card, `who` asks the
//! running daemon, and `out` writes the output.

mod absent;
mod call;
mod card_output;
mod check;
mod commands;
mod doors;
mod edit;
mod explain;
mod help;
mod hosts;
mod init;
mod invite;
mod join;
mod noted;
mod out;
mod reach;
mod rotate;
mod table;
mod who;

use std::process::ExitCode;

use commands::Parsed;
use noted::Changes;
use out::{Failure, Out};

use crate::tty;

/// Runs `cosadm` with the arguments of this process.
///
/// Exit codes: 0 done, 1 failed or a problem was found, 2 the command line is wrong.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let mut out = Out::new();
    let done = match commands::parse(&arguments) {
        Ok(Parsed::Tell(text)) => out.say(&text),
        Ok(Parsed::Run(command, call)) => {
            out.verbose(call.given("v"));
            let changes = command.changes.of(&call);
            noted::noting(call.paths().ok(), changes, &out, || (command.run)(&call, &out))
        }
        Ok(Parsed::Nothing(call)) if tty::is_interactive() => {
            noted::noting(call.paths().ok(), Changes::Registry, &out, || doors::menu::run(&call, &out))
        }
        Ok(Parsed::Nothing(_)) => Err(Failure::Usage(
            "no command given; `cosadm --help` lists the commands, and on a terminal there is a menu"
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
