//! Every flag of `cos` and `cosrsh`, each in one line that feeds the parser
//! and `--help`. Pure: run by the client before anything else.
//!
//! Beside rsh's own flags stand those that the tools of the ecosystem send
//! because they take the program for ssh: they mean nothing here and are passed
//! over, or handed to ssh where the host table says `method=ssh`.

use getopts::{Fail, Options, ParsingStyle};

use super::args::Face;
use crate::fault::Fault;

/// What a flag does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The remote user.
    User,
    /// The port.
    Port,
    /// No standard input.
    NoInput,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Tell each step.
    Verbose,
    /// An option in ssh's form, `Key=Value`.
    Setting,
    /// git's question whether we understand ssh's flags.
    Probe,
    /// The command's only word names a subsystem.
    Subsystem,
    /// Taken and passed over; ssh would know it.
    ForSsh,
    /// Taken and passed over; ssh would take it for something else, or refuse it.
    PassedOver,
    /// Where an application is displayed.
    Display,
    /// The descriptor that has the answers.
    PasswordFd,
    /// Leave the application running.
    Detach,
    /// The name to be registered by.
    Name,
    /// As JSON.
    Json,
    /// The configuration folder.
    Folder,
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// One flag: its letter or long name, its value's name (empty where it takes
/// none), its line of help.
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

const VERBOSE: Flag = flag("v", "", Rule::Verbose, "tell each step on standard error");
const PORT: Flag = flag(
    "p",
    "PORT",
    Rule::Port,
    "the port; without it the host table's, that of cosserver in /etc/services, or 9002",
);
const NO_INPUT: Flag = flag("n", "", Rule::NoInput, "no standard input: its end at once");
const V4: Flag = flag("4", "", Rule::V4, "IPv4 addresses alone");
const V6: Flag = flag("6", "", Rule::V6, "IPv6 addresses alone");
const HELP: Flag = Flag {
    letter: "h",
    ..long("help", Rule::Help, "print this help")
};
const VERSION: Flag = Flag {
    letter: "V",
    ..long("version", Rule::Version, "print the version")
};

/// The flags around a host: those of `cos run` and of `cosrsh`.
pub(super) const RUN: &[Flag] = &[
    flag(
        "l",
        "USER",
        Rule::User,
        "run as this user there; also USER@HOST",
    ),
    PORT,
    NO_INPUT,
    V4,
    V6,
    VERBOSE,
    flag(
        "o",
        "KEY=VALUE",
        Rule::Setting,
        "as in ssh: ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, SendEnv, BatchMode; our own: Linger",
    ),
    flag("G", "", Rule::Probe, "exit with status 0 (git asks so)"),
    flag(
        "s",
        "",
        Rule::Subsystem,
        "COMMAND is the name of a subsystem there, such as sftp",
    ),
    HELP,
    VERSION,
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
        "GUI_HOST and GUI_PORT; without it those of this application, else this machine and 9003",
    ),
    valued(
        "password-fd",
        "N",
        Rule::PasswordFd,
        "read the answers from descriptor N, a line each; what the doors ask is not among them",
    ),
    long(
        "detach",
        Rule::Detach,
        "leave the application running by itself",
    ),
    NO_INPUT,
    V4,
    V6,
    VERBOSE,
    flag(
        "o",
        "KEY=VALUE",
        Rule::Setting,
        "as in ssh: ConnectTimeout (10 s), ServerAliveInterval (60 s), User, Port, BatchMode; our own: Linger",
    ),
    HELP,
    VERSION,
];

/// The flags around the host of `cos enrol`.
pub(super) const ENROL: &[Flag] = &[
    PORT,
    valued(
        "name",
        "NAME",
        Rule::Name,
        "the name to be registered by, where the host asks for one",
    ),
    valued(
        "password-fd",
        "N",
        Rule::PasswordFd,
        "read the activation password from descriptor N: its first line",
    ),
    V4,
    V6,
    VERBOSE,
    flag(
        "o",
        "KEY=VALUE",
        Rule::Setting,
        "as in ssh: ConnectTimeout (10 s), ServerAliveInterval (60 s), Port, BatchMode",
    ),
    HELP,
    VERSION,
];

/// The flags of `cos key`.
pub(super) const KEY: &[Flag] = &[
    long(
        "json",
        Rule::Json,
        "as JSON: the ID, the public key and its file",
    ),
    HELP,
    VERSION,
];

/// The flags of a face, around the host where there is one.
pub(super) const fn of(face: Face) -> &'static [Flag] {
    match face {
        Face::Cos | Face::Rsh => RUN,
        Face::Gui => GUI,
        Face::Enrol => ENROL,
        Face::Key => KEY,
    }
}

/// The flags of `cos` before its subcommand.
pub(super) const COS: &[Flag] = &[
    flag(
        "C",
        "DIR",
        Rule::Folder,
        "the configuration folder; else COS_CONFIG_DIR, or /etc/cosserver for root, ~/.config/cosserver for others",
    ),
    VERBOSE,
    HELP,
    VERSION,
];

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

/// A parser for a table, which stops at the first word that is no flag.
pub(super) fn parser(table: &[Flag]) -> Options {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::StopAtFirstFree);
    for f in table {
        if f.value.is_empty() {
            options.optflagmulti(f.letter, f.long, f.help);
        } else {
            options.optmulti(f.letter, f.long, f.help, f.value);
        }
    }
    options
}

/// A table's lines of help; flags that are passed over share the last one.
pub(super) fn help(table: &[Flag]) -> String {
    let mut text = String::new();
    let mut over = Vec::new();
    for f in table {
        let mut names = Vec::new();
        for (dashes, name) in [("-", f.letter), ("--", f.long)] {
            if !name.is_empty() {
                names.push([dashes, name].concat());
            }
        }
        let mut shown = names.join(", ");
        if !f.value.is_empty() {
            shown = [&shown, " ", f.value].concat();
        }
        if matches!(f.rule, Rule::ForSsh | Rule::PassedOver) {
            over.push(shown);
        } else {
            text.push_str(&["  ", &shown, "\n        ", f.help, "\n"].concat());
        }
    }
    if !over.is_empty() {
        text.push_str(&["  ", &over.join(", "), "\n        taken and passed over\n"].concat());
    }
    text
}

/// What is wrong with a flag, and where the flags are listed.
pub(super) fn wrong(fail: &Fail, face: Face) -> Fault {
    let help = match face {
        Face::Cos => "cos --help",
        Face::Gui => "cos gui --help",
        Face::Enrol => "cos enrol --help",
        Face::Key => "cos key --help",
        Face::Rsh => "cosrsh --help",
    };
    let dashed = |name: &str| match name.chars().count() {
        1 => format!("-{name}"),
        _ => format!("--{name}"),
    };
    let words = match fail {
        Fail::ArgumentMissing(name) => format!("{} needs a value", dashed(name)),
        Fail::UnrecognizedOption(name) if name == "C" => {
            "-C DIR stands before the subcommand; cosrsh takes the folder from COS_CONFIG_DIR"
                .to_owned()
        }
        Fail::UnrecognizedOption(name) => format!("{} is not known", dashed(name)),
        Fail::UnexpectedArgument(name) => format!("{} takes no value", dashed(name)),
        Fail::OptionMissing(name) | Fail::OptionDuplicated(name) => dashed(name),
    };
    Fault::new(format!("{words}; \"{help}\" lists the flags"))
}
