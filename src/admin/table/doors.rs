//! The table's subcommands for the outer and the inner door.

use super::{Command, JSON, command};
use crate::admin::card_output::PASSWORD_OUTPUT;
use crate::admin::doors::{door, edit, exclude, machine, otp, sestab, settings};
use crate::admin::noted::Changes;
use crate::cli::{Flag, Times, flag};

const fn named(meaning: &'static str) -> Flag {
    flag("--name NAME", meaning)
}

/// The subcommands for both doors, in the order of the help.
pub(in crate::admin) const COMMANDS: &[Command] = &[
    command(
        "machine list",
        &[JSON],
        "list the authorized machines of the inner door",
        machine::list,
    )
    .more(
        "Line, name, ID, when it was authorized, whether it registered from this host or \
         from\n\
         another, and when it was seen last (UTC, noted once an hour).",
    ),
    command(
        "machine add ID",
        &[
            named("the machine's name (required)").times(Times::Required),
            flag("--local", "list it as Local: it is this host, not another"),
            JSON,
        ],
        "authorize a machine by its ID, as `cos key show` prints it there",
        machine::add,
    )
    .more("While the outer door is closed, the machine is put on the include list as well.")
    .changing(Changes::Registry),
    command(
        "machine delete ID|NAME",
        &[
            flag(
                "--exclude",
                "also put it on the exclude list, which denies it permanently",
            ),
            JSON,
        ],
        "delete a machine from the inner door",
        machine::delete,
    )
    .more(
        "Unless it is excluded, it may register again while the outer door is open.\n\
         It takes effect at the next connection: existing sessions continue.\n\
         A name that several machines have is rejected, and their IDs are listed.",
    )
    .changing(Changes::Registry),
    command(
        "machine rename ID|NAME NEWNAME",
        &[JSON],
        "give a machine another name",
        machine::rename,
    )
    .changing(Changes::Registry),
    command(
        "exclude list",
        &[JSON],
        "list the machines that are denied permanently",
        exclude::list,
    ),
    command(
        "exclude add ID|NAME",
        &[
            named("the machine's name, if the inner door does not know it"),
            flag("--now", "also hang up its present sessions and logins"),
            JSON,
        ],
        "deny a machine permanently",
        exclude::add,
    )
    .more(
        "It takes effect at the next connection: existing sessions continue, unless --now is \
         given.\n\
         If no daemon runs, --now has nothing to hang up. NAME is that of an authorized \
         machine.",
    )
    .changing(Changes::Own),
    command(
        "exclude delete ID",
        &[JSON],
        "take a machine off the exclude list",
        exclude::delete,
    )
    .changing(Changes::Own),
    command(
        "otp add NAME",
        &[
            flag(
                "--password-fd N",
                "read the password from descriptor N, one line",
            ),
            PASSWORD_OUTPUT,
            JSON,
        ],
        "make a one-time password for NAME; prints it",
        otp::add,
    )
    .more(
        "A machine at which it is typed is registered as NAME, once, while the outer door is \
         open.\n\
         It is shown only this once, alone on standard output. If NAME has an unused one \
         already,\n\
         no other is made; with -o, an existing file is then left as it is.",
    )
    .changing(Changes::Registry),
    command(
        "otp list",
        &[JSON],
        "list the unused one-time passwords by name",
        otp::list,
    ),
    command(
        "otp delete NAME",
        &[JSON],
        "delete the one-time password for NAME",
        otp::delete,
    )
    .changing(Changes::Registry),
    command(
        "door close",
        &[JSON],
        "close the outer door: only machines that are authorized now are allowed",
        door::close,
    )
    .more(
        "The authorized machines become the include list. Rejected while no machine is \
         authorized.\n\
         It takes effect at the next connection: existing sessions continue.",
    )
    .changing(Changes::Own),
    command(
        "door open",
        &[JSON],
        "open the outer door, so that machines can register at the inner one",
        door::open,
    )
    .more("By a name in build mode, by a one-time password, or by the backdoor password.")
    .changing(Changes::Own),
    command(
        "door status",
        &[JSON],
        "show the state of both doors, and how unknown machines are treated",
        door::status,
    ),
    command(
        "settings list",
        &[JSON],
        "list the settings of the inner door",
        settings::list,
    ),
    command(
        "settings get NAME",
        &[JSON],
        "show a setting",
        settings::get,
    )
    .more("The backdoor password is never shown: set or none."),
    command(
        "settings set NAME [VALUE]",
        &[JSON],
        "set build-mode, remote-only, backdoor-password, welcome or folder",
        settings::set,
    )
    .more(
        "build-mode, remote-only: yes or no. welcome: a line of text, yes for one that names \
         the\n\
         host, no for none. folder: the folder of idfile, created there if missing, or\n\
         default. backdoor-password: no VALUE, it is read from standard input; an empty \
         line\n\
         removes it.",
    )
    .changing(Changes::Registry),
    command(
        "sestab list [I|E]",
        &[JSON],
        "list the include list (I), the exclude list (E), or both",
        sestab::list,
    ),
    command(
        "sestab get I|E ID",
        &[JSON],
        "show a machine on a list",
        sestab::get,
    ),
    command(
        "sestab set I|E ID",
        &[named("the machine's name"), JSON],
        "put a machine on a list",
        sestab::set,
    )
    .changing(Changes::Own),
    command(
        "sestab delete I|E ID",
        &[JSON],
        "take a machine off a list",
        sestab::delete,
    )
    .changing(Changes::Own),
    command(
        "sestab enable I|E",
        &[JSON],
        "enforce a list; for I that is level 2",
        sestab::enable,
    )
    .more("E is always enforced. For I, rejected while I is empty.")
    .changing(Changes::Own),
    command(
        "sestab disable I|E",
        &[JSON],
        "stop enforcing the include list (level 1)",
        sestab::disable,
    )
    .more("E is always enforced.")
    .changing(Changes::Own),
    command(
        "sestab inquire [ID]",
        &[JSON],
        "show how a machine is treated, by its ID; default: this machine",
        sestab::inquire,
    ),
    command(
        "sestab level [0|1|2]",
        &[JSON],
        "show or set the security level",
        sestab::level,
    )
    .more(
        "0: only the exclude list. 1: the inner door; the outer one is open. 2: both; with \
         an empty\n\
         include list, only hosts that prove their cookie are allowed.",
    )
    .changing(Changes::Own),
    command(
        "edit FILE",
        &[],
        "edit sestab or idfile, the files of the doors, with $VISUAL, $EDITOR or vi",
        edit::edit,
    )
    .more(
        "The editor gets a copy, which is checked, sorted and installed when the editor \
         ends. With a\n\
         new mistake it is not: the mistakes are reported, and the copy is kept. The file is \
         locked\n\
         while the editor runs, so an editor that returns at once must be told to wait (code \
         --wait).",
    )
    .changing(Changes::File),
];
