//! The table of subcommands and flags. `commands` parses a command line by it, and `help` writes
//! every `--help` from it.

mod doors;

use super::call::{Command, command};
use super::card_output::OUTPUT;
use super::noted::Changes;
use super::{check, explain, hosts, init, invite, join, rotate, who};
use crate::cli::{Flag, Times, flag};

/// The flags that every command takes, before or after its words.
pub(super) const GLOBAL: &[Flag] = &[
    flag(
        "-C DIR",
        "the configuration folder; default: COS_CONFIG_DIR, else /etc/cosserver or the user's own",
    ),
    flag("-v", "print more detail"),
    flag("-V, --version", "print the version"),
    flag("-h, --help", "print this help"),
];

const JSON: Flag = flag("--json", "write JSON, for scripts");
const CARD_PORT: Flag = flag(
    "--port N",
    "the port on the card, if not the configured one",
);

/// Returns every subcommand, in the order of the help.
pub(super) fn commands() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().chain(doors::COMMANDS)
}

const COMMANDS: &[Command] = &[
    command(
        "init",
        &[],
        "make the configuration folder with its keys and files",
        init::init,
    )
    .more("Existing files are not overwritten: a second run adds what is missing.")
    .changing(Changes::Registry),
    command(
        "host invite NAME",
        &[
            flag(
                "--addr A",
                "an address or network that NAME may connect from; default: those of its name",
            )
            .times(Times::Any),
            flag(
                "--run-as U,…",
                "the users its commands may run as; default for an ordinary user: that user",
            )
            .times(Times::Any),
            flag(
                "--users U,T:H,…",
                "its users and their users here; default: the same names, never root; -: no users",
            ),
            OUTPUT,
            CARD_PORT,
        ],
        "allow NAME to run commands here; prints the invitation card",
        invite::invite,
    )
    .more(
        "The card holds a secret: transfer it to NAME securely (scp, paper), and run there\n\
         `cosadm host join FILE`. Restrict what NAME may run with commands= in hostinfo.\n\
         For a host that is invited already, applies the flags and prints its card again.\n\
         If the folder has no machine key, `init` is run first.",
    )
    .changing(Changes::Own),
    command(
        "host join FILE",
        &[
            flag(
                "--name NAME",
                "the host's name here; without it, the name on the card",
            ),
            flag(
                "--addr A",
                "an address to connect to, if not the one on the card",
            )
            .times(Times::Any),
            flag(
                "--port N",
                "the port to connect to, if not the one on the card",
            ),
            flag(
                "--replace-key",
                "replace the pinned key with the key on the card",
            ),
        ],
        "install an invitation card, so that this host can run commands there",
        join::join,
    )
    .more(
        "FILE may be - for standard input. It grants the other host nothing here.\n\
         If the folder has no machine key, `init` is run first.",
    )
    .changing(Changes::Own),
    command(
        "host list",
        &[JSON],
        "list the hosts of the host table",
        hosts::list,
    ),
    command(
        "host show NAME",
        &[JSON],
        "show the line, cookies and keys of NAME",
        hosts::show,
    ),
    command(
        "host rotate NAME",
        &[
            OUTPUT,
            CARD_PORT,
            flag(
                "--again",
                "if two cookies are live, replace the newer one (its card is lost)",
            ),
            flag(
                "--finish",
                "drop the older cookie, once NAME has joined with the new card",
            ),
        ],
        "give NAME a new cookie; prints a new invitation card",
        rotate::rotate,
    )
    .more(
        "The older cookie stays valid until --finish; NAME is denied from then on if it has \
         not joined\n\
         with the new card. The recorded machine key of NAME is removed: the next machine \
         that\n\
         proves a cookie is recorded. If NAME has a line but no cookie, it gets one.",
    )
    .changing(Changes::Own),
    command(
        "host remove NAME",
        &[],
        "remove NAME: its line, cookies, recorded machine key and pins",
        hosts::remove,
    )
    .changing(Changes::Own),
    command(
        "who",
        &[JSON],
        "list the sessions, and the detached applications",
        who::who,
    )
    .more(
        "For root and the daemon's own user. IN and OUT are bytes that the client has sent \
         and received.",
    ),
    command(
        "kill ID",
        &[],
        "hang up session ID, as `who` shows it",
        who::kill,
    )
    .more(
        "Its processes get SIGHUP, and SIGKILL after hup-to-kill. Exits with 1 if there is \
         no such session.",
    ),
    command(
        "explain KEY=VALUE...",
        &[JSON],
        "say whether a caller may use a named service, and which rule decides",
        explain::explain,
    )
    .more(
        "The keys are service, which must be given, and those of a rule: user, group, host, machine,\n\
         token (default: host), address (default: that of the host), hardware, time (as in \"Mon 07:30\";\n\
         default: now), suite and compression (default: none). What is not given is not known: a\n\
         condition about it counts in deny and not in allow. The user and its groups are looked up.\n\
         Exits with 1 if it is denied.",
    ),
    command(
        "check",
        &[JSON],
        "check every file, owner, mode, key and host, and explain each",
        check::check,
    )
    .more("Exits with 1 if there is a problem."),
];
