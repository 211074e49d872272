//! The text of `--help`, and the usage lines. Pure: runs in the client.

use super::call::Personality;
use super::flags::{self, Rule, Table};

/// Returns the usage line.
pub(super) const fn usage(personality: Personality) -> &'static str {
    match personality {
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
        Personality::Cos => {
            "Runs a command on another host: its output, its errors and its exit status arrive here.\n\
             \"cos gui --help\" tells how to start an application there, \"cos enrol --help\" how to have\n\
             this machine registered there, \"cos key --help\" how to show its ID, \"cos connect --help\"\n\
             how to reach a port.\n"
        }
        Personality::Rsh | Personality::Ssh => {
            "Runs a command on another host: its output, its errors and its exit status arrive here.\n\
             Without a command the login shell there reads commands from standard input, which must\n\
             not be a terminal then.\n"
        }
        Personality::Connect => {
            "Connects standard input and output to a TCP port. \"cos run -J\" has the hosts in between\n\
             run it. PORT is that of cosserver where it is not given.\n"
        }
        Personality::Gui => {
            "Logs in to another host and starts an application there, which displays here: it gets\n\
             GUI_HOST and GUI_PORT. Questions are answered from --password-fd, by the program that\n\
             COS_ASKPASS names, or at the terminal. Inside such an application (GUI_HOST and GUI_PORT\n\
             are set) a host of the host table is asked without a password.\n"
        }
        Personality::Enrol => {
            "Has this machine registered at another host, whose doors let in known machines alone. The\n\
             host asks for a name or for an activation password, which its administrator gives, or for\n\
             nothing where it lets this machine in already. The name comes from --name or from the\n\
             terminal; the password from --password-fd, from the program that COS_ASKPASS names, or\n\
             from the terminal.\n"
        }
        Personality::Key => {
            "Prints this machine's ID, by which the doors of other hosts know it: the fingerprint of its\n\
             key, machine.key in the configuration folder, which is made where there is none yet.\n"
        }
    }
}

/// Returns what the signals do, and the exit status.
const fn ending(personality: Personality) -> &'static str {
    match personality {
        Personality::Cos | Personality::Gui | Personality::Rsh | Personality::Ssh => {
            "SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command. Where the host does not answer one of\n\
             them for 5 seconds, this program ends, and the host hangs the command up. A second SIGTERM or\n\
             SIGHUP ends it at once, and the first one after 60 seconds in any case.\n\
             Exit status: the command's; 128 + n when signal n ended it; 255 and a line on standard error\n\
             for what failed here.\n"
        }
        Personality::Enrol | Personality::Key | Personality::Connect => {
            "Exit status: 0; 255 and a line on standard error for what failed.\n"
        }
    }
}

/// Where to find the reason of a refusal.
const DENIED: &str = "A refusal has a reference: on that host, journalctl -t cosserver or /var/log/auth.log has the reason\n\
     under it.\n";

/// Returns the whole help.
pub(super) fn help(personality: Personality) -> String {
    let before = match personality {
        Personality::Rsh | Personality::Ssh => {
            "The configuration folder is that of COS_CONFIG_DIR.\n".to_owned()
        }
        Personality::Cos
        | Personality::Gui
        | Personality::Enrol
        | Personality::Key
        | Personality::Connect => {
            let behind = if personality == Personality::Key {
                "Behind it:\n"
            } else {
                "Around the host:\n"
            };
            ["Before the subcommand:\n", &flag_lines(flags::COS), behind].concat()
        }
    };
    [
        usage(personality),
        "\n",
        purpose(personality),
        &before,
        &flag_lines(flags::of(personality)),
        ending(personality),
        match personality {
            Personality::Key | Personality::Connect => "",
            Personality::Cos
            | Personality::Gui
            | Personality::Enrol
            | Personality::Rsh
            | Personality::Ssh => DENIED,
        },
    ]
    .concat()
}

/// Returns a table's lines of help. Ignored flags share one line, and so do refused flags.
fn flag_lines(table: Table) -> String {
    let mut text = String::new();
    let (mut over, mut refused) = (Vec::new(), Vec::new());
    for f in table.iter().copied().flatten() {
        let mut names = Vec::new();
        for (dashes, name) in [("-", f.letter), ("--", f.long)] {
            if !name.is_empty() {
                names.push([dashes, name].concat());
            }
        }
        let mut shown = names.join(", ");
        if matches!(f.rule, Rule::ForSsh | Rule::PassedOver | Rule::Compress) {
            over.push(shown);
        } else if matches!(f.rule, Rule::Refused | Rule::Forwarding | Rule::Query) {
            refused.push(shown);
        } else {
            if !f.value.is_empty() {
                shown = [&shown, " ", f.value].concat();
            }
            text.push_str(&["  ", &shown, "\n        ", f.help, "\n"].concat());
        }
    }
    for (flags, what) in [
        (over, "taken and passed over, with their values"),
        (refused, "refused, but with method=ssh"),
    ] {
        if !flags.is_empty() {
            text.push_str(&["  ", &flags.join(", "), "\n        ", what, "\n"].concat());
        }
    }
    text
}
