//! Every flag of `cos` and `cosrsh`, each in one entry that feeds the parser and `--help`. Pure:
//! runs in the client before anything else.
//!
//! The table has rsh's own flags and ssh's, because tools and users take the program for ssh. Flags
//! that apply here act. The others are ignored, or refused where ignoring them would promise what
//! cannot be done. All of them go to ssh if the host table says `method=ssh`.

use super::call::Personality;
use crate::cli::{self, Times};

/// What a flag does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The remote user.
    User,
    /// The port.
    Port,
    /// No standard input.
    NoInput,
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
    /// Report each step.
    Verbose,
    /// An option in ssh's form, `Key=Value`.
    Setting,
    /// git's question whether we understand ssh's flags.
    Probe,
    /// The command's only word names a subsystem.
    Subsystem,
    /// Go to the background once the request is accepted.
    Background,
    /// The file for the client's own lines.
    Log,
    /// The address to connect from.
    Bind,
    /// The interface to connect from.
    Interface,
    /// The hosts to connect through.
    Jump,
    /// A terminal, which is not available.
    Terminal,
    /// No terminal.
    NoTerminal,
    /// No command, which ssh has for forwardings.
    NoCommand,
    /// No notes about flags that are not honored.
    Quiet,
    /// ssh's compression; for `cos`, the configuration folder.
    Compress,
    /// Connect standard input and output to a port that the host reaches.
    StdioTo,
    /// Refused, unless the host is reached by ssh.
    Refused,
    /// The same, unless `-o ClearAllForwardings` cancels it.
    Forwarding,
    /// ssh's query for algorithms.
    Query,
    /// Ignored.
    Ignored,
    /// Where an application is displayed.
    Display,
    /// The descriptor to read answers from.
    PasswordFd,
    /// Leave the application running.
    Detach,
    /// Where to listen for connections.
    Listen,
    /// The formats of a result.
    Format,
    /// The name to register.
    Name,
    /// Print JSON.
    Json,
    /// The configuration folder.
    Folder,
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// A flag of a table.
pub(super) type Flag = cli::Flag<Effect>;

/// What a flag does.
pub(super) struct Effect {
    pub(super) rule: Rule,
    /// Whether ssh gets it unchanged if it takes our place. The others mean nothing to ssh, which
    /// would take them for something else or refuse them, or are given to it in another form.
    pub(super) is_for_ssh: bool,
}

const fn flag(shown: &'static str, rule: Rule, help: &'static str) -> Flag {
    Flag {
        shown,
        help,
        times: Times::Any,
        effect: Effect {
            rule,
            is_for_ssh: false,
        },
    }
}

/// Returns a flag that is also for ssh.
const fn of_ssh(shown: &'static str, rule: Rule, help: &'static str) -> Flag {
    let is_for_ssh = true;
    Flag {
        effect: Effect { rule, is_for_ssh },
        ..flag(shown, rule, help)
    }
}

const VERBOSE: Flag = of_ssh("-v", Rule::Verbose, "report each step on standard error");
const PORT: Flag = flag(
    "-p PORT",
    Rule::Port,
    "port (default: the host table's, that of cosserver in /etc/services, or 9002)",
);
const NO_INPUT: Flag = flag(
    "-n",
    Rule::NoInput,
    "no standard input: end of file at once",
);
const V4: Flag = flag("-4", Rule::V4, "use only IPv4 addresses");
const V6: Flag = flag("-6", Rule::V6, "use only IPv6 addresses");
const HELP: Flag = flag("-h, --help", Rule::Help, "print this help");
const VERSION: Flag = flag("-V, --version", Rule::Version, "print the version");

/// The flags of a command line, in groups.
pub(super) type Table = &'static [&'static [Flag]];

const OPTION: Flag = of_ssh("-o KEY=VALUE", Rule::Setting, "option in ssh's form");

/// The flags around a host that `cos run`, `cosrsh` and `ssh` share. The common ones come first.
const COMMAND: &[Flag] = &[
    flag(
        "-l USER",
        Rule::User,
        "run the command as this user; also USER@HOST",
    ),
    PORT,
    NO_INPUT,
    VERBOSE,
    JUMP,
    OPTION,
    BACKGROUND,
    flag(
        "-s",
        Rule::Subsystem,
        "COMMAND is the name of a subsystem there, such as sftp",
    ),
    LOG,
    V4,
    V6,
    BIND,
    INTERFACE,
    of_ssh(
        "-G",
        Rule::Probe,
        "exit with status 0 (for git); called as ssh: print where the host is",
    ),
    HELP,
    VERSION,
];

/// The flags that `cos run` ignores.
const RUN_IGNORED: &[Flag] = &[
    of_ssh("-x, -X, -a, -A, -q, -T", Rule::Ignored, ""),
    of_ssh("-e CHAR", Rule::Ignored, ""),
    flag("-2, -8, -L, -d", Rule::Ignored, ""),
];

/// The rest of ssh's flags, for `cosrsh` and `ssh`.
const OF_SSH: &[Flag] = &[
    of_ssh(
        "-T",
        Rule::NoTerminal,
        "without a command: run the login shell even if standard input is a terminal",
    ),
    of_ssh(
        "-W HOST:PORT",
        Rule::StdioTo,
        "connect standard input and output to that port, from there, by \"cos connect\"",
    ),
    of_ssh(
        "-q",
        Rule::Quiet,
        "do not report that -t or -N is not honored",
    ),
    of_ssh("-t", Rule::Terminal, "not honored: there is no terminal"),
    of_ssh(
        "-N",
        Rule::NoCommand,
        "not honored: there is no forwarding, and the command is run",
    ),
    of_ssh("-x, -X, -Y, -a, -A", Rule::Ignored, ""),
    of_ssh("-C", Rule::Compress, ""),
    of_ssh("-K, -M, -g, -k, -y", Rule::Ignored, ""),
    of_ssh("-c, -e, -F, -I, -i, -m, -P, -S VALUE", Rule::Ignored, ""),
    flag("-2, -8, -d", Rule::Ignored, ""),
    of_ssh("-D, -R PORT", Rule::Forwarding, NO_FORWARDING),
    of_ssh("-w TUN", Rule::Forwarding, "there are no tunnel devices"),
    of_ssh(
        "-O COMMAND",
        Rule::Refused,
        "there are no shared connections",
    ),
    flag("-Q NAME", Rule::Query, ""),
];

/// Why a forwarding is refused.
pub(super) const NO_FORWARDING: &str = "there is no port forwarding";

/// rsh has `-L` without a value, and ssh with one.
const L_OF_RSH: &[Flag] = &[flag("-L", Rule::Ignored, "")];
const L_OF_SSH: &[Flag] = &[of_ssh("-L PORT", Rule::Forwarding, NO_FORWARDING)];

/// The flags around the host of `cos gui`.
pub(super) const GUI: &[Flag] = &[
    flag("-l USER", Rule::User, "log in as this user; also USER@HOST"),
    PORT,
    flag(
        "--display [HOST]:PORT",
        Rule::Display,
        "GUI_HOST and GUI_PORT (default: those of this application, or this machine and 9003)",
    ),
    flag(
        "--password-fd N",
        Rule::PasswordFd,
        "read the answers of the login from descriptor N, one per line",
    ),
    flag(
        "--detach",
        Rule::Detach,
        "leave the application running, and exit",
    ),
    NO_INPUT,
    VERBOSE,
    OPTION,
    V4,
    V6,
    HELP,
    VERSION,
];

const JUMP: Flag = of_ssh(
    "-J HOST[,HOST]...",
    Rule::Jump,
    "connect through these hosts, each [USER@]HOST[:PORT]; they see only ciphertext",
);
const BACKGROUND: Flag = of_ssh(
    "-f",
    Rule::Background,
    "go to the background once the host has accepted; no standard input",
);
const LOG: Flag = of_ssh(
    "-E FILE",
    Rule::Log,
    "append this program's own messages to the file",
);
const BIND: Flag = of_ssh("-b ADDRESS", Rule::Bind, "connect from this address");
const INTERFACE: Flag = of_ssh(
    "-B INTERFACE",
    Rule::Interface,
    "connect from this interface's address",
);

/// The flags around the URL of `cos open`.
pub(super) const OPEN: &[Flag] = &[
    flag(
        "-l USER",
        Rule::User,
        "be this user there; also NAME://USER@HOST",
    ),
    PORT,
    flag(
        "-L [ADDRESS:]PORT",
        Rule::Listen,
        "listen here, at a loopback address or at unix:PATH, and open the service for each connection",
    ),
    BACKGROUND,
    flag(
        "--format NAME[,NAME]...",
        Rule::Format,
        "the formats to take for the result, the preferred one first",
    ),
    NO_INPUT,
    VERBOSE,
    JUMP,
    OPTION,
    LOG,
    V4,
    V6,
    BIND,
    INTERFACE,
    HELP,
    VERSION,
];

/// The flags around the host of `cos services`.
pub(super) const SERVICES: &[Flag] = &[
    flag("-l USER", Rule::User, "be this user there; also USER@HOST"),
    PORT,
    flag("--json", Rule::Json, "print a JSON array"),
    VERBOSE,
    JUMP,
    OPTION,
    LOG,
    V4,
    V6,
    BIND,
    INTERFACE,
    HELP,
    VERSION,
];

/// The flags around the host of `cos enrol`.
pub(super) const ENROL: &[Flag] = &[
    flag(
        "--name NAME",
        Rule::Name,
        "the name to register, if the host prompts for one",
    ),
    PORT,
    flag(
        "--password-fd N",
        Rule::PasswordFd,
        "read the activation password from descriptor N: its first line",
    ),
    VERBOSE,
    OPTION,
    V4,
    V6,
    HELP,
    VERSION,
];

/// The flags of `cos key`.
pub(super) const KEY: &[Flag] = &[
    flag(
        "--json",
        Rule::Json,
        "print JSON: the ID, the public key and its file",
    ),
    HELP,
    VERSION,
];

/// The flags of `cos connect`.
pub(super) const CONNECT: &[Flag] = &[OPTION, V4, V6, HELP, VERSION];

/// Returns the flags of a personality, around the host if there is one.
pub(super) const fn of(personality: Personality) -> Table {
    match personality {
        Personality::Global => COS,
        Personality::Cos => &[COMMAND, RUN_IGNORED],
        Personality::Rsh => &[COMMAND, OF_SSH, L_OF_RSH],
        Personality::Ssh => &[COMMAND, OF_SSH, L_OF_SSH],
        Personality::Gui => &[GUI],
        Personality::Open => &[OPEN],
        Personality::Services => &[SERVICES],
        Personality::Enrol => &[ENROL],
        Personality::Key => &[KEY],
        Personality::Connect => &[CONNECT],
    }
}

/// The flags of `cos` before its subcommand.
pub(super) const COS: Table = &[&[
    flag(
        "-C DIR",
        Rule::Folder,
        "configuration folder (else COS_CONFIG_DIR; root: /etc/cosserver; others: ~/.config/cosserver)",
    ),
    VERBOSE,
    HELP,
    VERSION,
]];
