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
        meaning: "the configuration folder; else COS_CONFIG_DIR, else /etc/cosserver or one's own",
    },
    Flag {
        short: "v",
        long: "",
        value: "",
        repeats: false,
        needed: false,
        meaning: "tell more",
    },
    Flag {
        short: "V",
        long: "version",
        value: "",
        repeats: false,
        needed: false,
        meaning: "the version",
    },
    Flag {
        short: "h",
        long: "help",
        value: "",
        repeats: false,
        needed: false,
        meaning: "this help",
    },
];

const JSON: Flag = flag("json", "", false, "write JSON, for scripts");
const CARD_PORT: Flag = flag(
    "port",
    "N",
    false,
    "the port on the card, where it is not the configured one",
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
        more: "Nothing that is there is overwritten: a second run adds what is missing.",
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
                "an address or network from which NAME may ask; without it, those of its name",
            ),
            flag(
                "run-as",
                "U,…",
                true,
                "the users its commands may run as; an ordinary user's default is himself",
            ),
            flag(
                "users",
                "U,T:H,…",
                false,
                "which of its users may be whom here; without it, each himself and never root; -: nobody",
            ),
            OUTPUT,
            CARD_PORT,
        ],
        meaning: "let NAME run commands here; prints the invitation card",
        more: "The card holds a secret: carry it to NAME by a safe way (scp, paper), and there run\n\
               `cosadm host join FILE`. Restrict what NAME may run with commands= in hostinfo.\n\
               For a host that is invited already, sets what the flags say and prints its card again.\n\
               Where the folder has no machine key, `init` is run first.",
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
                "an address to dial, where it is not the one on the card",
            ),
            flag(
                "port",
                "N",
                false,
                "the port to dial, where it is not the one on the card",
            ),
            flag(
                "replace-key",
                "",
                false,
                "pin the key on the card in place of another that is pinned",
            ),
        ],
        meaning: "install an invitation card, so that this host can run commands there",
        more: "FILE may be - for standard input. It grants the other host nothing here.\n\
               Where the folder has no machine key, `init` is run first.",
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
        meaning: "show what is known of NAME",
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
                "where two cookies are live, replace the newer one: its card is lost",
            ),
            flag(
                "finish",
                "",
                false,
                "drop the older cookie, once NAME has joined with the new card",
            ),
        ],
        meaning: "give NAME a new cookie; prints a new invitation card",
        more: "The older cookie stays good until --finish, which shuts NAME out where it has not joined\n\
               with the new card. The recorded machine key of NAME is forgotten: the next machine that\n\
               proves a cookie is recorded. Where NAME has a line and no cookie, it gets one.",
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
        meaning: "show who is on: sessions, and applications that go on by themselves",
        more: "For root, or for whose daemon it is. IN and OUT are bytes that the client has sent and got.",
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
        meaning: "check every file, owner, mode, key and host, and say what each means",
        more: "Exits with 1 if there is a problem.",
        changes: Changes::Nothing,
        run: check::check,
    },
];
