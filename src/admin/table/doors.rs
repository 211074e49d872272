//! The table's subcommands for the outer and the inner door.

use super::{Command, Flag, JSON, flag};
use crate::admin::call::Call;
use crate::admin::card_output::PASSWORD_OUTPUT;
use crate::admin::doors::{door, exclude, machine, otp, sestab, settings};
use crate::admin::noted::Changes;
use crate::admin::out::{Failure, Out};

type Run = fn(&Call, &Out) -> Result<(), Failure>;

const fn command(
    words: &'static [&'static str],
    operands: &'static str,
    flags: &'static [Flag],
    (meaning, more): (&'static str, &'static str),
    run: Run,
) -> Command {
    Command {
        words,
        operands,
        flags,
        meaning,
        more,
        changes: Changes::Nothing,
        run,
    }
}

impl Command {
    /// Returns the same command, marked as changing this part of the machine registry.
    const fn changing(self, changes: Changes) -> Self {
        Self { changes, ..self }
    }
}

const fn named(meaning: &'static str) -> Flag {
    flag("name", "NAME", false, meaning)
}

/// The subcommands for both doors, in the order of the help.
pub(in crate::admin) const COMMANDS: &[Command] = &[
    command(
        &["machine", "list"],
        "",
        &[JSON],
        (
            "list the authorized machines of the inner door",
            "Line, name, ID, when it was authorized, whether it registered from this host or from\n\
             another, and when it was seen last (UTC, noted once an hour).",
        ),
        machine::list,
    ),
    command(
        &["machine", "add"],
        "ID",
        &[
            Flag {
                needed: true,
                ..named("whose machine it is; it has to be given")
            },
            flag(
                "local",
                "",
                false,
                "list it as Local: it is this host, not another",
            ),
            JSON,
        ],
        (
            "authorize a machine by its ID, as `cos key show` prints it there",
            "While the outer door is closed, the machine is put on the include list as well.",
        ),
        machine::add,
    )
    .changing(Changes::Registry),
    command(
        &["machine", "delete"],
        "ID|NAME",
        &[
            flag(
                "exclude",
                "",
                false,
                "and put it on the exclude list, which keeps it out for good",
            ),
            JSON,
        ],
        (
            "delete a machine from the inner door",
            "Unless it is excluded, it may register again while the outer door is open.\n\
             It counts for the next connection: what has been let in goes on.\n\
             A name that several machines have is refused, and their IDs are listed.",
        ),
        machine::delete,
    )
    .changing(Changes::Registry),
    command(
        &["machine", "rename"],
        "ID|NAME NEWNAME",
        &[JSON],
        ("give a machine another name", ""),
        machine::rename,
    )
    .changing(Changes::Registry),
    command(
        &["exclude", "list"],
        "",
        &[JSON],
        ("list the machines that are kept out for good", ""),
        exclude::list,
    ),
    command(
        &["exclude", "add"],
        "ID|NAME",
        &[
            named("whose machine it is, where the inner door does not know"),
            flag(
                "now",
                "",
                false,
                "and hang up its sessions and logins that are under way",
            ),
            JSON,
        ],
        (
            "keep a machine out for good",
            "It counts for the next connection: what has been let in goes on, unless --now is given.\n\
             Where no daemon runs, --now has nothing to hang up. NAME is that of an authorized machine.",
        ),
        exclude::add,
    )
    .changing(Changes::Own),
    command(
        &["exclude", "delete"],
        "ID",
        &[JSON],
        ("take a machine off the exclude list", ""),
        exclude::delete,
    )
    .changing(Changes::Own),
    command(
        &["otp", "add"],
        "NAME",
        &[
            flag(
                "password-fd",
                "N",
                false,
                "take the password from descriptor N, a line",
            ),
            PASSWORD_OUTPUT,
            JSON,
        ],
        (
            "make a one-time password for NAME; prints it",
            "Whoever types it at a machine registers that under NAME, once, while the outer door is\n\
             open. It is shown this once, alone on standard output. Where one waits for NAME already,\n\
             no other is made; with -o a file that exists is then left as it is.",
        ),
        otp::add,
    )
    .changing(Changes::Registry),
    command(
        &["otp", "list"],
        "",
        &[JSON],
        ("list whose one-time passwords are not used yet", ""),
        otp::list,
    ),
    command(
        &["otp", "delete"],
        "NAME",
        &[JSON],
        ("delete the one-time password for NAME", ""),
        otp::delete,
    )
    .changing(Changes::Registry),
    command(
        &["door", "close"],
        "",
        &[JSON],
        (
            "close the outer door: only machines that are authorized now get in",
            "The authorized machines become the include list. Refused while there is none.\n\
             It counts for the next connection: what has been let in goes on.",
        ),
        door::close,
    )
    .changing(Changes::Own),
    command(
        &["door", "open"],
        "",
        &[JSON],
        (
            "open the outer door, so that machines can register at the inner one",
            "By a name in build mode, by a one-time password, or by the backdoor password.",
        ),
        door::open,
    )
    .changing(Changes::Own),
    command(
        &["door", "status"],
        "",
        &[JSON],
        (
            "show how both doors stand, and what an unknown machine meets",
            "",
        ),
        door::status,
    ),
    command(
        &["settings", "list"],
        "",
        &[JSON],
        ("list the settings of the inner door", ""),
        settings::list,
    ),
    command(
        &["settings", "get"],
        "NAME",
        &[JSON],
        (
            "show a setting",
            "The backdoor password is never shown: set or none.",
        ),
        settings::get,
    ),
    command(
        &["settings", "set"],
        "NAME [VALUE]",
        &[JSON],
        (
            "set build-mode, remote-only, backdoor-password, welcome or folder",
            "build-mode, remote-only: yes or no. welcome: a line of text, yes for one that names the\n\
             host, no for none. folder: where idfile.db stands, made there if it is not there, or\n\
             default. backdoor-password: no VALUE, it is read from standard input; an empty line\n\
             takes it away.",
        ),
        settings::set,
    )
    .changing(Changes::Registry),
    command(
        &["sestab", "list"],
        "[I|E]",
        &[JSON],
        (
            "list the include list (I), the exclude list (E), or both",
            "",
        ),
        sestab::list,
    ),
    command(
        &["sestab", "get"],
        "I|E ID",
        &[JSON],
        ("show a machine on a list", ""),
        sestab::get,
    ),
    command(
        &["sestab", "set"],
        "I|E ID",
        &[named("whose machine it is"), JSON],
        ("put a machine on a list", ""),
        sestab::set,
    )
    .changing(Changes::Own),
    command(
        &["sestab", "delete"],
        "I|E ID",
        &[JSON],
        ("take a machine off a list", ""),
        sestab::delete,
    )
    .changing(Changes::Own),
    command(
        &["sestab", "enable"],
        "I|E",
        &[JSON],
        (
            "enforce a list; for I that is level 2",
            "E is always enforced. It is refused for I while that is empty.",
        ),
        sestab::enable,
    )
    .changing(Changes::Own),
    command(
        &["sestab", "disable"],
        "I|E",
        &[JSON],
        (
            "enforce the include list no more: level 1",
            "E is always enforced.",
        ),
        sestab::disable,
    )
    .changing(Changes::Own),
    command(
        &["sestab", "inquire"],
        "[ID]",
        &[JSON],
        (
            "show a machine's ID, this one's own if no other, and what it meets",
            "",
        ),
        sestab::inquire,
    ),
    command(
        &["sestab", "level"],
        "[0|1|2]",
        &[JSON],
        (
            "show or set the security level",
            "0: no door but the exclude list. 1: the inner door, the outer one is open. 2: both; with\n\
             an empty include list that lets in hosts that prove their cookie, and nobody else.",
        ),
        sestab::level,
    )
    .changing(Changes::Own),
];
