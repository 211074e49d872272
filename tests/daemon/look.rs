//! A look at the daemon from outside: its settings set, its processes watched.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{COSSERVER, Daemon, Folder, Lines, PATIENCE, prepare};

impl Daemon {
    /// With these settings alone in `cosserver.toml`.
    pub fn start_as(settings: &str, options: &str) -> Self {
        Self::start_in(configured(settings, options), &[])
    }

    /// By a command that becomes the daemon (`setpriv … cosserver`), given its
    /// flags.
    pub fn start_through(mut command: Command, folder: Folder) -> Self {
        command
            .args(["-D", "-e", "-p", "0", "-f"])
            .arg(folder.path("S/cosserver.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        let line = log.wait("listening on 127.0.0.1:");
        let port = line.rsplit(':').next().unwrap().parse().unwrap();
        Self {
            folder,
            log,
            port,
            child,
        }
    }
}

/// The daemon's program, to be started by the test's own hand.
pub fn cosserver() -> Command {
    Command::new(COSSERVER)
}

/// Folders as [`prepare`] makes them, with these settings alone in `cosserver.toml`.
pub fn configured(settings: &str, options: &str) -> Folder {
    let folder = prepare("", options);
    fs::write(folder.path("S/cosserver.toml"), settings).unwrap();
    folder
}

/// Waits until something is so; for what has no event of its own, such as a
/// process of another's that ends.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it did not come about: {what}");
        std::thread::yield_now();
    }
}

/// A line of a process's `/proc/PID/status`.
pub fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
