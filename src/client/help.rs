//! The text of `--help`, and the usage lines. Pure: runs in the client.

use super::call::Personality;
use super::flags::{self, Rule, Table};

/// The width of the column of flags, and of that of subcommands.
const FLAG_WIDTH: usize = 22;
const SUBCOMMAND_WIDTH: usize = 9;

/// The subcommands of `cos`, each with its line in the overview.
pub(super) const SUBCOMMANDS: [(&str, &str); 6] = [
    ("run", "run a command on another host"),
    (
        "gui",
        "log in to another host and start an application that displays here",
    ),
    ("enrol", "register this machine at another host"),
    ("key", "show this machine's ID"),
    ("connect", "connect standard input and output to a TCP port"),
    ("help", "show this help, or that of a subcommand"),
];

/// Returns the usage line.
pub(super) const fn usage(personality: Personality) -> &'static str {
    match personality {
        Personality::Global => "usage: cos [-C DIR] [-v] SUBCOMMAND [ARGUMENT]...",
        Personality::Cos => {
            "usage: cos [-C DIR] [-v] run [FLAG]... [USER@]HOST [FLAG]... [--] COMMAND..."
        }
        Personality::Gui => {
            "usage: cos [-C DIR] [-v] gui [FLAG]... [USER@]HOST [FLAG]... [--] APPLICATION [ARGUMENT]..."
        }
        Personality::Enrol => "usage: cos [-C DIR] [-v] enrol [FLAG]... HOST [FLAG]...",
        Personality::Key => "usage: cos [-C DIR] [-v] key show [--json]",
        Personality::Rsh => "usage: cosrsh [FLAG]... [USER@]HOST [FLAG]... [--] [COMMAND]...",
        Personality::Ssh => "usage: ssh [FLAG]... [USER@]HOST [FLAG]... [--] [COMMAND]...",
        Personality::Connect => "usage: cos connect [FLAG]... HOST [PORT]",
    }
}

/// Returns what the program or the subcommand is for.
const fn purpose(personality: Personality) -> &'static str {
    match personality {
        Personality::Global => "Runs commands and applications on other hosts.\n",
        Personality::Cos => {
            "Runs a command on another host, with its standard input, output and error here, and exits\n\
             with its status.\n"
        }
        Personality::Rsh | Personality::Ssh => {
            "Runs a command on another host, with its standard input, output and error here, and exits\n\
             with its status. Without a command, the login shell there reads commands from standard\n\
             input, which must not be a terminal then.\n\
             The configuration folder is that of COS_CONFIG_DIR.\n"
        }
        Personality::Connect => {
            "Connects standard input and output to a TCP port. \"cos run -J\" runs it on the intermediate\n\
             hosts. The default PORT is that of cosserver.\n"
        }
        Personality::Gui => {
            "Logs in to another host and starts an application there, which displays here: it gets\n\
             GUI_HOST and GUI_PORT. Prompts are answered from --password-fd, by the program that\n\
             COS_ASKPASS names, or at the terminal. Inside such an application (GUI_HOST and GUI_PORT\n\
             are set), a host of the host table is called without a password.\n"
        }
        Personality::Enrol => {
            "Registers this machine at another host that allows only known machines. The host prompts\n\
             for a name or for an activation password, which its administrator gives, or for nothing if\n\
             it allows this machine already. The name comes from --name or from the terminal; the\n\
             password from --password-fd, from the program that COS_ASKPASS names, or from the terminal.\n"
        }
        Personality::Key => {
            "Prints this machine's ID, by which other hosts know it: the fingerprint of its key,\n\
             machine.key in the configuration folder. The key is created if there is none.\n"
        }
    }
}

/// Returns the keys of `-o`.
const fn option_keys(personality: Personality) -> &'static str {
    match personality {
        Personality::Cos | Personality::Rsh | Personality::Ssh => {
            "\nKeys of -o, as in ssh:\n  \
             ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, HostName, AddressFamily, SendEnv,\n  \
             SetEnv, BatchMode, BindAddress, BindInterface, ProxyJump, RemoteCommand, SessionType, StdinNull,\n  \
             ForkAfterAuthentication, RequestTTY, LogLevel=QUIET; not in ssh: Linger, JumpProgram\n"
        }
        Personality::Gui => {
            "\nKeys of -o, as in ssh:\n  \
             ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, HostName, AddressFamily, SendEnv,\n  \
             SetEnv, BatchMode; not in ssh: Linger\n"
        }
        Personality::Enrol => {
            "\nKeys of -o, as in ssh:\n  \
             ConnectTimeout (10 s), ServerAliveInterval (60 s), Port, HostName, AddressFamily, BatchMode\n"
        }
        Personality::Connect => {
            "\nKeys of -o, as in ssh:\n  \
             ConnectTimeout (10 s), ServerAliveInterval (60 s), AddressFamily\n"
        }
        Personality::Global | Personality::Key => "",
    }
}

/// Returns what the signals do, and the exit status.
const fn ending(personality: Personality) -> &'static str {
    match personality {
        Personality::Global => {
            "\nExit status: that of the command; 128 + n if signal n ended it; 0 for a subcommand without a\n\
             command; 255 if cos itself failed, with the reason on standard error.\n\
             \"cos SUBCOMMAND --help\" lists the flags of a subcommand.\n"
        }
        Personality::Cos | Personality::Gui | Personality::Rsh | Personality::Ssh => {
            "\nSIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command. If the host does not answer one of\n\
             them for 5 seconds, this program ends, and the host hangs up the command. A second SIGTERM or\n\
             SIGHUP ends it at once, and the first one after 60 seconds in any case.\n\
             Exit status: that of the command; 128 + n if signal n ended it; 255 if this program failed,\n\
             with the reason on standard error.\n"
        }
        Personality::Enrol | Personality::Key | Personality::Connect => {
            "\nExit status: 0; 255 if it failed, with the reason on standard error.\n"
        }
    }
}

/// Where to find the reason of a refusal.
const DENIED: &str = "If a host denies access, it gives a reference: on that host, journalctl -t cosserver or\n\
     /var/log/auth.log has the reason under it.\n";

/// Returns the whole help.
pub(super) fn help(personality: Personality) -> String {
    let (own, before) = (flag_lines(flags::of(personality)), flag_lines(flags::COS));
    let flags = match personality {
        Personality::Global => {
            let lines = SUBCOMMANDS.map(|(name, what)| entry(name, SUBCOMMAND_WIDTH, what));
            let subcommands = lines.concat();
            ["\nSubcommands:\n", &subcommands, "\nGlobal flags:\n", &own].concat()
        }
        Personality::Rsh | Personality::Ssh => ["\nFlags:\n", &own].concat(),
        Personality::Cos
        | Personality::Gui
        | Personality::Enrol
        | Personality::Key
        | Personality::Connect => [
            "\nFlags:\n",
            &own,
            "\nGlobal flags, before the subcommand:\n",
            &before,
        ]
        .concat(),
    };
    [
        usage(personality),
        "\n",
        purpose(personality),
        &flags,
        option_keys(personality),
        ending(personality),
        match personality {
            Personality::Global | Personality::Key | Personality::Connect => "",
            Personality::Cos
            | Personality::Gui
            | Personality::Enrol
            | Personality::Rsh
            | Personality::Ssh => DENIED,
        },
    ]
    .concat()
}

/// Returns one line of a list: a name, padded to the width of its column, and its meaning.
fn entry(name: &str, width: usize, what: &str) -> String {
    format!("  {name:<width$} {what}\n")
}

/// Returns a table's lines of help. Ignored flags share one line, and so do refused flags.
fn flag_lines(table: Table) -> String {
    let mut text = String::new();
    let (mut ignored, mut refused) = (Vec::new(), Vec::new());
    for f in table.iter().copied().flatten() {
        let mut names = Vec::new();
        for (dashes, name) in [("-", f.letter), ("--", f.long)] {
            if !name.is_empty() {
                names.push([dashes, name].concat());
            }
        }
        let mut shown = names.join(", ");
        if matches!(f.rule, Rule::ForSsh | Rule::PassedOver | Rule::Compress) {
            ignored.push(shown);
        } else if matches!(f.rule, Rule::Refused | Rule::Forwarding | Rule::Query) {
            refused.push(shown);
        } else {
            if !f.value.is_empty() {
                shown = [&shown, " ", f.value].concat();
            }
            text.push_str(&entry(&shown, FLAG_WIDTH, f.help));
        }
    }
    for (flags, what) in [
        (ignored, "Ignored, with their values:"),
        (refused, "Refused, unless the host table says method=ssh:"),
    ] {
        if !flags.is_empty() {
            text.push_str(&["\n", what, "\n  ", &flags.join(", "), "\n"].concat());
        }
    }
    text
}
