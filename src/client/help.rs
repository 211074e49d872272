//! What `--help` says, and the lines of usage. Pure: run by the client.

use super::args::Face;
use super::flags;

/// One line that tells how the program is called.
pub(super) const fn usage(face: Face) -> &'static str {
    match face {
        Face::Cos => "usage: cos [-C DIR] [-v] run [FLAG]... [USER@]HOST [FLAG]... [--] COMMAND...",
        Face::Gui => {
            "usage: cos [-C DIR] [-v] gui [FLAG]... [USER@]HOST [FLAG]... [--] APPLICATION [ARGUMENT]..."
        }
        Face::Enrol => "usage: cos [-C DIR] [-v] enrol [FLAG]... HOST [FLAG]...",
        Face::Key => "usage: cos [-C DIR] [-v] key show [--json]",
        Face::Rsh => "usage: cosrsh [FLAG]... [USER@]HOST [FLAG]... [--] COMMAND...",
    }
}

/// What the program or the subcommand is for.
const fn purpose(face: Face) -> &'static str {
    match face {
        Face::Cos => {
            "Runs a command on another host: its output, its errors and its exit status arrive here.\n\
             \"cos gui --help\" tells how to start an application there, \"cos enrol --help\" how to have\n\
             this machine registered there, \"cos key --help\" how to show its ID.\n"
        }
        Face::Rsh => {
            "Runs a command on another host: its output, its errors and its exit status arrive here.\n"
        }
        Face::Gui => {
            "Logs in to another host and starts an application there, which displays here: it gets\n\
             GUI_HOST and GUI_PORT. Questions are answered from --password-fd, by the program that\n\
             COS_ASKPASS names, or at the terminal. Inside such an application (GUI_HOST and GUI_PORT\n\
             are set) a host of the host table is asked without a password.\n"
        }
        Face::Enrol => {
            "Has this machine registered at another host, whose doors let in known machines alone. The\n\
             host asks for a name or for an activation password, which its administrator gives, or for\n\
             nothing where it lets this machine in already. The name comes from --name or from the\n\
             terminal; the password from --password-fd, from the program that COS_ASKPASS names, or\n\
             from the terminal.\n"
        }
        Face::Key => {
            "Prints this machine's ID, by which the doors of other hosts know it: the fingerprint of its\n\
             key, machine.key in the configuration folder, which is made where there is none yet.\n"
        }
    }
}

/// What the signals do, and how it ends.
const fn ending(face: Face) -> &'static str {
    match face {
        Face::Cos | Face::Gui | Face::Rsh => {
            "SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command. Where the host does not answer one of\n\
             them for 5 seconds, this program ends, and the host hangs the command up. A second SIGTERM or\n\
             SIGHUP ends it at once, and the first one after 60 seconds in any case.\n\
             Exit status: the command's; 128 + n when signal n ended it; 255 and a line on standard error\n\
             for what failed here.\n"
        }
        Face::Enrol | Face::Key => {
            "Exit status: 0; 255 and a line on standard error for what failed.\n"
        }
    }
}

/// Where the reason of a refusal is.
const DENIED: &str = "A refusal has a reference: on that host, journalctl -t cosserver or /var/log/auth.log has the reason\n\
     under it.\n";

/// The whole help.
pub(super) fn help(face: Face) -> String {
    let before = match face {
        Face::Rsh => "The configuration folder is that of COS_CONFIG_DIR.\n".to_owned(),
        Face::Cos | Face::Gui | Face::Enrol | Face::Key => {
            let behind = match face {
                Face::Key => "Behind it:\n",
                Face::Cos | Face::Gui | Face::Enrol | Face::Rsh => "Around the host:\n",
            };
            ["Before the subcommand:\n", &flags::help(flags::COS), behind].concat()
        }
    };
    [
        usage(face),
        "\n",
        purpose(face),
        &before,
        &flags::help(flags::of(face)),
        ending(face),
        match face {
            Face::Key => "",
            Face::Cos | Face::Gui | Face::Enrol | Face::Rsh => DENIED,
        },
    ]
    .concat()
}
