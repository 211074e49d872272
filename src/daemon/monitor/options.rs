//! The daemon's command line. Flags follow sshd if sshd has them. Pure: runs in the process that
//! becomes the monitor.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::cli::{self, Flag, ParsingStyle, flag};
use crate::config::paths::{Paths, SETTINGS};
use crate::fault::Fault;

const FLAGS: &[Flag] = &[
    flag("-D", "stay in the foreground"),
    flag("-d", "debug: -D and -e, and every step in the log"),
    flag("-e", "log to stderr instead of syslog"),
    flag("-f FILE", "configuration file; its folder holds the others"),
    flag("-i", "serve the one connection on descriptor 0 (inetd)"),
    flag("-p PORT", "listen on this port; 0 picks one"),
    flag("-t", "test the configuration and exit"),
    flag("-T", "print the effective configuration and exit"),
    flag("-h, --help", "this help"),
    flag("-V, --version", "the version"),
];

/// The width of the column of flags in the help.
const FLAG_WIDTH: usize = 21;

/// What the daemon is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Serve.
    Serve,
    /// Test the configuration.
    Test,
    /// Print the effective configuration.
    Print,
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// The command line, parsed.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// What to do.
    pub task: Task,
    /// Stay in the foreground.
    pub foreground: bool,
    /// Log to stderr.
    pub stderr: bool,
    /// Log every step.
    pub debug: bool,
    /// One connection on descriptor 0.
    pub inetd: bool,
    /// The configuration file.
    pub file: PathBuf,
    /// The port, if it was given.
    pub port: Option<u16>,
}

/// The help.
pub fn help() -> String {
    let brief = "usage: cosserver [-DdeitT] [-f FILE] [-p PORT]\n\n\
        The remote execution daemon. See cosserver(8).\n\nOptions:\n";
    let lines = FLAGS.iter().map(|flag| flag.line(FLAG_WIDTH));
    [brief.to_owned()].into_iter().chain(lines).collect()
}

/// Parses the command line, without the program's name.
///
/// # Errors
/// Returns what is wrong with it.
pub fn parse<W: AsRef<OsStr>>(words: &[W]) -> Result<Asked, Fault> {
    cli::check_utf8(words).map_err(Fault::new)?;
    let m = cli::parse(&[FLAGS], ParsingStyle::StopAtFirstFree, words)
        .map_err(|e| Fault::new(e.to_string()))?;
    if let Some(word) = m.words.first() {
        return Err(Fault::new(format!(
            "{word}: unexpected argument; the daemon takes only flags"
        )));
    }
    let wrong = |p: &str| Fault::new(format!("-p {p}: a port is a number from 0 to 65535"));
    let port = m
        .value("p")
        .map(|p| p.parse().map_err(|_| wrong(p)))
        .transpose()?;
    let task = match () {
        () if m.has("h") => Task::Help,
        () if m.has("V") => Task::Version,
        () if m.has("T") => Task::Print,
        () if m.has("t") => Task::Test,
        () => Task::Serve,
    };
    let debug = m.has("d");
    let whole = |f: &str| Paths::of_file(Path::new(f)).settings();
    let given = m.value("f").map(whole);
    if let Some(folder) = given.as_ref().filter(|f| f.is_dir()) {
        return Err(no_file(folder));
    }
    let default = || Paths::of_caller(None).settings();
    Ok(Asked {
        task,
        foreground: debug || m.has("D"),
        stderr: debug || m.has("e"),
        debug,
        inetd: m.has("i"),
        file: given.unwrap_or_else(default),
        port,
    })
}

/// Returns the fault for `-f` with a folder, which `cosadm -C` takes.
fn no_file(folder: &Path) -> Fault {
    let file = folder.join(SETTINGS);
    let meant = if file.is_file() {
        format!("; -f {} was probably meant", file.display())
    } else {
        let init = Paths::of_dir(folder).init();
        let makes = init.map(|init| format!("; {init} makes one"));
        format!(
            ", and there is no {SETTINGS} in it{}",
            makes.unwrap_or_default()
        )
    };
    Fault::new(format!(
        "-f {}: -f takes the settings file, and this is a folder{meant}",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn parsed(words: &str) -> Result<Asked, Fault> {
        parse(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Regression: another file was read, whose name had other characters.
    #[test]
    fn a_file_whose_name_is_not_utf8_is_rejected() {
        let name = OsStr::from_bytes(b"/etc/\xff.toml");
        let told = parse(&[OsStr::new("-f"), name]).unwrap_err().to_string();
        assert_eq!(told, r#"argument "/etc/\xFF.toml" is not valid UTF-8"#);
    }

    #[test]
    fn folder_given_as_settings_file_suggests_cosadm_init() {
        let told = |words| parsed(words).unwrap_err().to_string();
        let made = told("-f /usr");
        assert!(made.ends_with("`cosadm -C /usr init` makes one"), "{made}");
        let none = told("-f /");
        assert!(none.ends_with("no cosserver.toml in it"), "{none}");
    }

    #[test]
    fn single_and_combined_flags() {
        let a = parsed("-De -f /x/cosserver.toml -p 0").unwrap();
        assert_eq!(
            (a.foreground, a.stderr, a.debug, a.port),
            (true, true, false, Some(0))
        );
        assert_eq!(parsed("-t -f x").unwrap().task, Task::Test);
        assert!(parsed("-d -f x").unwrap().stderr);
        for wrong in ["-p x", "-p 65536", "-z", "start", "-f"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
