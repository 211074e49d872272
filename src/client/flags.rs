//! Every flag of `cos` and `cosrsh`, each in one entry that feeds the parser and `--help`. Pure:
//! runs in the client before anything else.
//!
//! The table has rsh's own flags and ssh's, because tools and users take the program for ssh. Flags
//! that apply here act. The others are ignored, or refused where ignoring them would promise what
//! cannot be done. All of them go to ssh if the host table says `method=ssh`.

use getopts::{Options, ParsingStyle};

use super::call::Personality;

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
    /// Ignored here, and given to ssh if that takes over.
    ForSsh,
    /// Ignored, and not given to ssh, which would take it for something else or refuse it.
    PassedOver,
    /// Where an application is displayed.
    Display,
    /// The descriptor to read answers from.
    PasswordFd,
    /// Leave the application running.
    Detach,
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

/// One flag: its letter or long name, the name of its value (empty if it takes none), and its line
/// of help.
pub(super) struct Flag {
    pub(super) letter: &'static str,
    pub(super) long: &'static str,
    pub(super) value: &'static str,
    pub(super) rule: Rule,
    pub(super) help: &'static str,
}

const fn flag(letter: &'static str, value: &'static str, rule: Rule, help: &'static str) -> Flag {
    Flag {
        letter,
        long: "",
        value,
        rule,
        help,
    }
}

const fn long(name: &'static str, rule: Rule, help: &'static str) -> Flag {
    Flag {
        letter: "",
        long: name,
        value: "",
        rule,
        help,
    }
}

const fn valued(name: &'static str, value: &'static str, rule: Rule, help: &'static str) -> Flag {
    Flag {
        letter: "",
        long: name,
        value,
        rule,
        help,
    }
}

const VERBOSE: Flag = flag("v", "", Rule::Verbose, "report each step on standard error");
const PORT: Flag = flag(
    "p",
    "PORT",
    Rule::Port,
    "port (default: the host table's, that of cosserver in /etc/services, or 9002)",
);
const NO_INPUT: Flag = flag(
    "n",
    "",
    Rule::NoInput,
    "no standard input: end of file at once",
);
const V4: Flag = flag("4", "", Rule::V4, "use only IPv4 addresses");
const V6: Flag = flag("6", "", Rule::V6, "use only IPv6 addresses");
const HELP: Flag = Flag {
    letter: "h",
    ..long("help", Rule::Help, "print this help")
};
const VERSION: Flag = Flag {
    letter: "V",
    ..long("version", Rule::Version, "print the version")
};

/// The flags of a command line, in groups.
pub(super) type Table = &'static [&'static [Flag]];

const OPTION: Flag = flag("o", "KEY=VALUE", Rule::Setting, "option in ssh's form");

/// The flags around a host that `cos run`, `cosrsh` and `ssh` share. The common ones come first.
const COMMAND: &[Flag] = &[
    flag(
        "l",
        "USER",
        Rule::User,
        "run the command as this user; also USER@HOST",
    ),
    PORT,
    NO_INPUT,
    VERBOSE,
    flag(
        "J",
        "HOST[,HOST]...",
        Rule::Jump,
        "connect through these hosts, each [USER@]HOST[:PORT]; they see only ciphertext",
    ),
    OPTION,
    flag(
        "f",
        "",
        Rule::Background,
        "go to the background once the host has accepted; no standard input",
    ),
    flag(
        "s",
        "",
        Rule::Subsystem,
        "COMMAND is the name of a subsystem there, such as sftp",
    ),
    flag(
        "E",
        "FILE",
        Rule::Log,
        "append this program's own messages to the file",
    ),
    V4,
    V6,
    flag("b", "ADDRESS", Rule::Bind, "connect from this address"),
    flag(
        "B",
        "INTERFACE",
        Rule::Interface,
        "connect from this interface's address",
    ),
    flag(
        "G",
        "",
        Rule::Probe,
        "exit with status 0 (for git); called as ssh: print where the host is",
    ),
    HELP,
    VERSION,
];

/// The flags that `cos run` ignores.
const RUN_OVER: &[Flag] = &[
    flag("x", "", Rule::ForSsh, ""),
    flag("X", "", Rule::ForSsh, ""),
    flag("a", "", Rule::ForSsh, ""),
    flag("A", "", Rule::ForSsh, ""),
    flag("q", "", Rule::ForSsh, ""),
    flag("T", "", Rule::ForSsh, ""),
    flag("e", "CHAR", Rule::ForSsh, ""),
    flag("2", "", Rule::PassedOver, ""),
    flag("8", "", Rule::PassedOver, ""),
    flag("L", "", Rule::PassedOver, ""),
    flag("d", "", Rule::PassedOver, ""),
];

/// The rest of ssh's flags, for `cosrsh` and `ssh`.
const OF_SSH: &[Flag] = &[
    flag(
        "T",
        "",
        Rule::NoTerminal,
        "without a command: run the login shell even if standard input is a terminal",
    ),
    flag(
        "W",
        "HOST:PORT",
        Rule::StdioTo,
        "connect standard input and output to that port, from there, by \"cos connect\"",
    ),
    flag(
        "q",
        "",
        Rule::Quiet,
        "do not report that -t or -N is not honored",
    ),
    flag("t", "", Rule::Terminal, "not honored: there is no terminal"),
    flag(
        "N",
        "",
        Rule::NoCommand,
        "not honored: there is no forwarding, and the command is run",
    ),
    flag("x", "", Rule::ForSsh, ""),
    flag("X", "", Rule::ForSsh, ""),
    flag("Y", "", Rule::ForSsh, ""),
    flag("a", "", Rule::ForSsh, ""),
    flag("A", "", Rule::ForSsh, ""),
    flag("C", "", Rule::Compress, ""),
    flag("K", "", Rule::ForSsh, ""),
    flag("M", "", Rule::ForSsh, ""),
    flag("g", "", Rule::ForSsh, ""),
    flag("k", "", Rule::ForSsh, ""),
    flag("y", "", Rule::ForSsh, ""),
    flag("c", "CIPHER", Rule::ForSsh, ""),
    flag("e", "CHAR", Rule::ForSsh, ""),
    flag("F", "FILE", Rule::ForSsh, ""),
    flag("I", "FILE", Rule::ForSsh, ""),
    flag("i", "FILE", Rule::ForSsh, ""),
    flag("m", "MAC", Rule::ForSsh, ""),
    flag("P", "TAG", Rule::ForSsh, ""),
    flag("S", "FILE", Rule::ForSsh, ""),
    flag("2", "", Rule::PassedOver, ""),
    flag("8", "", Rule::PassedOver, ""),
    flag("d", "", Rule::PassedOver, ""),
    flag("D", "PORT", Rule::Forwarding, "there is no port forwarding"),
    flag("R", "PORT", Rule::Forwarding, "there is no port forwarding"),
    flag("w", "TUN", Rule::Forwarding, "there are no tunnel devices"),
    flag(
        "O",
        "COMMAND",
        Rule::Refused,
        "there are no shared connections",
    ),
    flag("Q", "NAME", Rule::Query, ""),
];

/// rsh has `-L` without a value, and ssh with one.
const L_OF_RSH: &[Flag] = &[flag("L", "", Rule::PassedOver, "")];
const L_OF_SSH: &[Flag] = &[flag(
    "L",
    "PORT",
    Rule::Forwarding,
    "there is no port forwarding",
)];

/// The flags around the host of `cos gui`.
pub(super) const GUI: &[Flag] = &[
    flag(
        "l",
        "USER",
        Rule::User,
        "log in as this user; also USER@HOST",
    ),
    PORT,
    valued(
        "display",
        "[HOST]:PORT",
        Rule::Display,
        "GUI_HOST and GUI_PORT (default: those of this application, or this machine and 9003)",
    ),
    valued(
        "password-fd",
        "N",
        Rule::PasswordFd,
        "read the answers of the login from descriptor N, one per line",
    ),
    long(
        "detach",
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

/// The flags around the host of `cos enrol`.
pub(super) const ENROL: &[Flag] = &[
    valued(
        "name",
        "NAME",
        Rule::Name,
        "the name to register, if the host prompts for one",
    ),
    PORT,
    valued(
        "password-fd",
        "N",
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
    long(
        "json",
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
        Personality::Cos => &[COMMAND, RUN_OVER],
        Personality::Rsh => &[COMMAND, OF_SSH, L_OF_RSH],
        Personality::Ssh => &[COMMAND, OF_SSH, L_OF_SSH],
        Personality::Gui => &[GUI],
        Personality::Enrol => &[ENROL],
        Personality::Key => &[KEY],
        Personality::Connect => &[CONNECT],
    }
}

/// The flags of `cos` before its subcommand.
pub(super) const COS: Table = &[&[
    flag(
        "C",
        "DIR",
        Rule::Folder,
        "configuration folder (else COS_CONFIG_DIR; root: /etc/cosserver; others: ~/.config/cosserver)",
    ),
    VERBOSE,
    HELP,
    VERSION,
]];

impl Flag {
    /// The flag's name for getopts.
    pub(super) const fn name(&self) -> &'static str {
        if self.letter.is_empty() {
            self.long
        } else {
            self.letter
        }
    }
}

/// Returns a parser for a table. It stops at the first word that is not a flag.
pub(super) fn parser(table: Table) -> Options {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    for f in table.iter().copied().flatten() {
        if f.value.is_empty() {
            options.optflagmulti(f.letter, f.long, f.help);
        } else {
            options.optmulti(f.letter, f.long, f.help, f.value);
        }
    }
    options
}
