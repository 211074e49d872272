//! The table of subcommands and flags. `commands` parses a command line by it, and `help` writes
//! every `--help` from it.

mod doors;

use super::call::{Command, Flag, flag};
use super::card_output::OUTPUT;
use super::noted::Changes;
use super::{check, hosts, init, invite, join, rotate, who};

/// The flags that every command takes, before or after its words.
pub(super) const GLOBAL: &[Flag] = &[
    Flag {
        short: "C",
        long: "",
        value: "DIR",
        repeats: false,
        needed: false,
        meaning: "the configuration folder; default: COS_CONFIG_DIR, else /etc/cosserver or the user's own",
    },
    Flag {
        short: "v",
        long: "",
        value: "",
        repeats: false,
        needed: false,
        meaning: "print more detail",
    },
    Flag {
        short: "V",
        long: "version",
        value: "",
        repeats: false,
        needed: false,
        meaning: "print the version",
    },
    Flag {
        short: "h",
        long: "help",
        value: "",
        repeats: false,
        needed: false,
        meaning: "print this help",
    },
];

const JSON: Flag = flag("json", "", false, "write JSON, for scripts");
const CARD_PORT: Flag = flag(
    "port",
    "N",
    false,
    "the port on the card, if not the configured one",
);

/// Returns every subcommand, in the order of the help.
pub(super) fn commands() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().chain(doors::COMMANDS)
}

const COMMANDS: &[Command] = &[
    Command {
        words: &["init"],
        operands: "",
        flags: &[],
        meaning: "make the configuration folder with its keys and files",
        more: "Existing files are not overwritten: a second run adds what is missing.",
        changes: Changes::Registry,
        run: init::init,
    },
    Command {
        words: &["host", "invite"],
        operands: "NAME",
        flags: &[
            flag(
                "addr",
                "A",
                true,
                "an address or network that NAME may connect from; default: those of its name",
            ),
            flag(
                "run-as",
                "U,…",
                true,
                "the users its commands may run as; default for an ordinary user: that user",
            ),
            flag(
                "users",
                "U,T:H,…",
                false,
                "its users and their users here; default: the same names, never root; -: no users",
            ),
            OUTPUT,
            CARD_PORT,
        ],
        meaning: "allow NAME to run commands here; prints the invitation card",
        more: "The card holds a secret: transfer it to NAME securely (scp, paper), and run there\n\
               `cosadm host join FILE`. Restrict what NAME may run with commands= in hostinfo.\n\
               For a host that is invited already, applies the flags and prints its card again.\n\
               If the folder has no machine key, `init` is run first.",
        changes: Changes::Own,
        run: invite::invite,
    },
    Command {
        words: &["host", "join"],
        operands: "FILE",
        flags: &[
            flag(
                "name",
                "NAME",
                false,
                "the host's name here; without it, the name on the card",
            ),
            flag(
                "addr",
                "A",
                true,
                "an address to connect to, if not the one on the card",
            ),
            flag(
                "port",
                "N",
                false,
                "the port to connect to, if not the one on the card",
            ),
            flag(
                "replace-key",
                "",
                false,
                "replace the pinned key with the key on the card",
            ),
        ],
        meaning: "install an invitation card, so that this host can run commands there",
        more: "FILE may be - for standard input. It grants the other host nothing here.\n\
               If the folder has no machine key, `init` is run first.",
        changes: Changes::Own,
        run: join::join,
    },
    Command {
        words: &["host", "list"],
        operands: "",
        flags: &[JSON],
        meaning: "list the hosts of the host table",
        more: "",
        changes: Changes::Nothing,
        run: hosts::list,
    },
    Command {
        words: &["host", "show"],
        operands: "NAME",
        flags: &[JSON],
        meaning: "show the line, cookies and keys of NAME",
        more: "",
        changes: Changes::Nothing,
        run: hosts::show,
    },
    Command {
        words: &["host", "rotate"],
        operands: "NAME",
        flags: &[
            OUTPUT,
            CARD_PORT,
            flag(
                "again",
                "",
                false,
                "if two cookies are live, replace the newer one (its card is lost)",
            ),
            flag(
                "finish",
                "",
                false,
                "drop the older cookie, once NAME has joined with the new card",
            ),
        ],
        meaning: "give NAME a new cookie; prints a new invitation card",
        more: "The older cookie stays valid until --finish; NAME is denied from then on if it has not joined\n\
               with the new card. The recorded machine key of NAME is removed: the next machine that\n\
               proves a cookie is recorded. If NAME has a line but no cookie, it gets one.",
        changes: Changes::Own,
        run: rotate::rotate,
    },
    Command {
        words: &["host", "remove"],
        operands: "NAME",
        flags: &[],
        meaning: "remove NAME: its line, cookies, recorded machine key and pins",
        more: "",
        changes: Changes::Own,
        run: hosts::remove,
    },
    Command {
        words: &["who"],
        operands: "",
        flags: &[JSON],
        meaning: "list the sessions, and the detached applications",
        more: "For root and the daemon's own user. IN and OUT are bytes that the client has sent and received.",
        changes: Changes::Nothing,
        run: who::who,
    },
    Command {
        words: &["kill"],
        operands: "ID",
        flags: &[],
        meaning: "hang up session ID, as `who` shows it",
        more: "Its processes get SIGHUP, and SIGKILL after hup-to-kill. Exits with 1 if there is no such session.",
        changes: Changes::Nothing,
        run: who::kill,
    },
    Command {
        words: &["check"],
        operands: "",
        flags: &[JSON],
        meaning: "check every file, owner, mode, key and host, and explain each",
        more: "Exits with 1 if there is a problem.",
        changes: Changes::Nothing,
        run: check::check,
    },
];
