//! The text of `--help`, and the usage lines. Pure: runs in the client.

use super::call::Personality;
use super::flags::{self, Rule, Table};
use crate::cli::{dashed, entry};

/// The width of the column of flags, and of that of subcommands.
const FLAG_WIDTH: usize = 22;
const SUBCOMMAND_WIDTH: usize = 9;

/// The subcommands of `cos`, each with its line in the overview.
pub(super) const SUBCOMMANDS: [(&str, Personality, &str); 8] = [
    ("run", Personality::Cos, "run a command on another host"),
    (
        "gui",
        Personality::Gui,
        "log in to another host and start an application that displays here",
    ),
    (
        "open",
        Personality::Open,
        "use a named service of another host",
    ),
    (
        "services",
        Personality::Services,
        "list the named services of another host that you may use",
    ),
    (
        "enrol",
        Personality::Enrol,
        "register this machine at another host",
    ),
    ("key", Personality::Key, "show this machine's ID"),
    (
        "connect",
        Personality::Connect,
        "connect standard input and output to a TCP port",
    ),
    (
        "help",
        Personality::Global,
        "show this help, or that of a subcommand",
    ),
];

/// Returns the usage line.
pub(super) const fn usage(personality: Personality) -> &'static str {
    texts(personality).usage
}

/// The help without the flags.
struct Texts {
    usage: &'static str,
    /// What the program or the subcommand is for.
    purpose: &'static str,
    /// What follows the flags.
    more: &'static [&'static str],
}

const fn texts(personality: Personality) -> Texts {
    match personality {
        Personality::Global => Texts {
            usage: "usage: cos [-C DIR] [-v] SUBCOMMAND [ARGUMENT]...",
            purpose: "Runs commands and applications on other hosts.\n",
            more: &[
                "\nExit status: that of the command; 128 + n if signal n ended it; 0 for a subcommand without a\n\
                 command; 255 if cos itself failed, with the reason on standard error.\n\
                 \"cos SUBCOMMAND --help\" lists the flags of a subcommand.\n",
            ],
        },
        Personality::Cos => Texts {
            usage: "usage: cos [-C DIR] [-v] run [FLAG]... [USER@]HOST [FLAG]... [--] COMMAND...",
            purpose: "Runs a command on another host, with its standard input, output and error here, and exits\n\
             with its status.\n",
            more: OF_COMMAND,
        },
        Personality::Rsh => Texts {
            usage: "usage: cosrsh [FLAG]... [USER@]HOST [FLAG]... [--] [COMMAND]...",
            purpose: REMOTE_SHELL,
            more: OF_COMMAND,
        },
        Personality::Ssh => Texts {
            usage: "usage: ssh [FLAG]... [USER@]HOST [FLAG]... [--] [COMMAND]...",
            purpose: REMOTE_SHELL,
            more: OF_COMMAND,
        },
        Personality::Gui => Texts {
            usage: "usage: cos [-C DIR] [-v] gui [FLAG]... [USER@]HOST [FLAG]... [--] APPLICATION [ARGUMENT]...",
            purpose: "Logs in to another host and starts an application there, which displays here: it gets\n\
             GUI_HOST and GUI_PORT. Prompts are answered from --password-fd, by the program that\n\
             COS_ASKPASS names, or at the terminal. Inside such an application (GUI_HOST and GUI_PORT\n\
             are set), a host of the host table is called without a password.\n",
            more: &[
                "\nKeys of -o, as in ssh:\n  \
                 ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, HostName, AddressFamily, SendEnv,\n  \
                 SetEnv, BatchMode; not in ssh: Linger\n",
                SIGNALS,
                DENIED,
            ],
        },
        Personality::Open => Texts {
            usage: "usage: cos [-C DIR] [-v] open [FLAG]... NAME://[USER@]HOST[:PORT][/ARG]...[?ARG[&ARG]...] [ARG]...",
            purpose: "Uses a named service of another host, with its input, output and errors here, and exits with\n\
             its status. In the URL, %XX is a byte, and quotes around an argument are removed.\n",
            more: &[
                "\nKeys of -o, as in ssh:\n  \
                 ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, HostName, AddressFamily, SendEnv,\n  \
                 SetEnv, BatchMode, BindAddress, BindInterface, ProxyJump, StdinNull; not in ssh: Linger,\n  \
                 JumpProgram\n",
                SIGNALS,
                UNAVAILABLE,
            ],
        },
        Personality::Services => Texts {
            usage: "usage: cos [-C DIR] [-v] services [FLAG]... [USER@]HOST [FLAG]...",
            purpose: "Lists the named services of another host that the caller may use, one on each line. \"cos open\"\n\
             uses one.\n",
            more: &[
                "\nKeys of -o, as in ssh:\n  \
                 ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, HostName, AddressFamily, BatchMode,\n  \
                 BindAddress, BindInterface, ProxyJump; not in ssh: JumpProgram\n",
                STATUS,
                UNAVAILABLE,
            ],
        },
        Personality::Enrol => Texts {
            usage: "usage: cos [-C DIR] [-v] enrol [FLAG]... HOST [FLAG]...",
            purpose: "Registers this machine at another host that allows only known machines. The host prompts\n\
             for a name or for an activation password, which its administrator gives, or for nothing if\n\
             it allows this machine already. The name comes from --name or from the terminal; the\n\
             password from --password-fd, from the program that COS_ASKPASS names, or from the terminal.\n",
            more: &[
                "\nKeys of -o, as in ssh:\n  \
                 ConnectTimeout (10 s), ServerAliveInterval (60 s), Port, HostName, AddressFamily, BatchMode\n",
                STATUS,
                DENIED,
            ],
        },
        Personality::Key => Texts {
            usage: "usage: cos [-C DIR] [-v] key show [--json]",
            purpose: "Prints this machine's ID, by which other hosts know it: the fingerprint of its key,\n\
             machine.key in the configuration folder. The key is created if there is none.\n",
            more: &[STATUS],
        },
        Personality::Connect => Texts {
            usage: "usage: cos connect [FLAG]... HOST [PORT]",
            purpose: "Connects standard input and output to a TCP port. \"cos run -J\" runs it on the intermediate\n\
             hosts. The default PORT is that of cosserver.\n",
            more: &[
                "\nKeys of -o, as in ssh:\n  \
                 ConnectTimeout (10 s), ServerAliveInterval (60 s), AddressFamily\n",
                STATUS,
            ],
        },
    }
}

/// What `cosrsh` and `ssh` are for.
const REMOTE_SHELL: &str = "Runs a command on another host, with its standard input, output and error here, and exits\n\
     with its status. Without a command, the login shell there reads commands from standard\n\
     input, which must not be a terminal then.\n\
     The configuration folder is that of COS_CONFIG_DIR.\n";

/// What follows the flags of a command.
const OF_COMMAND: &[&str] = &[
    "\nKeys of -o, as in ssh:\n  \
     ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, HostName, AddressFamily, SendEnv,\n  \
     SetEnv, BatchMode, BindAddress, BindInterface, ProxyJump, RemoteCommand, SessionType, StdinNull,\n  \
     ForkAfterAuthentication, RequestTTY, LogLevel=QUIET; not in ssh: Linger, JumpProgram\n",
    SIGNALS,
    DENIED,
];

/// What the signals do, and the exit status.
const SIGNALS: &str = "\nSIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command. If the host does not answer one of\n\
     them for 5 seconds, this program ends, and the host hangs up the command. A second SIGTERM or\n\
     SIGHUP ends it at once, and the first one after 60 seconds in any case.\n\
     Exit status: that of the command; 128 + n if signal n ended it; 255 if this program failed,\n\
     with the reason on standard error.\n";

/// The exit status without a command.
const STATUS: &str = "\nExit status: 0; 255 if it failed, with the reason on standard error.\n";

/// Where to find the reason of a refusal.
const DENIED: &str = "If a host denies access, it gives a reference: on that host, journalctl -t cosserver or\n\
     /var/log/auth.log has the reason under it.\n";

/// Where to find why a service is not available.
const UNAVAILABLE: &str = "A service that does not exist, one that the caller may not use and one that does not work are\n\
     all reported as unavailable, with a reference: on that host, journalctl -t cosserver or\n\
     /var/log/auth.log has the reason under it.\n";

/// Returns the whole help.
pub(super) fn help(personality: Personality) -> String {
    let texts = texts(personality);
    let mut text = [texts.usage, "\n", texts.purpose].concat();
    if personality == Personality::Global {
        text.push_str("\nSubcommands:\n");
        text.extend(SUBCOMMANDS.map(|(name, _, what)| entry(name, SUBCOMMAND_WIDTH, what)));
        text.push_str("\nGlobal flags:\n");
    } else {
        text.push_str("\nFlags:\n");
    }
    text.push_str(&flag_lines(flags::of(personality)));
    if personality != Personality::Global && !personality.is_remote_shell() {
        text.push_str("\nGlobal flags, before the subcommand:\n");
        text.push_str(&flag_lines(flags::COS));
    }
    text.extend(texts.more.iter().copied());
    text
}

/// Returns a table's lines of help. Ignored flags share one line, and so do refused flags.
fn flag_lines(table: Table) -> String {
    let mut text = String::new();
    let (mut ignored, mut refused) = (Vec::new(), Vec::new());
    for flag in table.iter().copied().flatten() {
        let letters = flag.names().into_iter().map(|(letter, _)| dashed(letter));
        let rule = flag.effect.rule;
        if matches!(rule, Rule::Ignored | Rule::Compress) {
            ignored.extend(letters);
        } else if matches!(rule, Rule::Refused | Rule::Forwarding | Rule::Query) {
            refused.extend(letters);
        } else {
            text.push_str(&flag.line(FLAG_WIDTH));
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
