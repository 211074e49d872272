//! What the client says for itself: `-v` steps, and the one line of a failure.
//! Run by the client alone. Standard error belongs to the remote command, so
//! without `-v` and without a failure nothing is said, and standard output is
//! never written to where a command has it. With `-E` all of it goes to that file instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use nix::fcntl::OFlag;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::words::shown;
use crate::fault::Fault;

/// The file of `-E`, where one was given.
static LOG: OnceLock<File> = OnceLock::new();

/// Sends all lines from now on to the end of this file, which is made where it is not there.
///
/// # Errors
/// It cannot be opened.
pub fn log_to(path: &Path) -> Result<(), Fault> {
    // A pipe without a reader is an error and not a wait, and neither is one that is full.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let file = options.custom_flags(flags.bits()).open(path);
    let file = file.map_err(|e| Fault::of(path, e).while_doing("-E"))?;
    LOG.get_or_init(|| file);
    Ok(())
}

/// Speaks on standard error, each line in one write.
pub struct Reporter {
    verbose: bool,
    begun: Instant,
}

impl Reporter {
    /// A voice that tells steps where `verbose` asks for them.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            begun: Instant::now(),
        }
    }

    /// Whether steps are told.
    pub const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Tells a step with the milliseconds since the start, where `-v` asks for
    /// it. A step that would have to wait for a reader is left out: telling it
    /// must never hold up signals or data.
    pub fn step(&self, words: impl FnOnce() -> String) {
        if !self.verbose {
            return;
        }
        if can_speak() {
            let ms = self.begun.elapsed().as_micros();
            let (whole, part) = (ms / 1000, ms % 1000);
            line(&format!("cos: {whole}.{part:03} ms: {}", words()));
        }
    }
}

/// The one line of a failure: `cos: HOST: what is wrong`. What could steer a terminal
/// or deceive its reader is shown as `?`: part of it may be another host's words.
pub fn complain(host: Option<&str>, words: &str) {
    let host = host.map_or_else(String::new, |h| format!("{h}: "));
    line(&format!("cos: {host}{words}"));
}

/// A fault of ours, and what helps on a line of its own.
pub fn fault(host: Option<&str>, fault: &Fault) {
    complain(host, &fault.to_string());
    for line in fault.remedy().into_iter().flat_map(str::lines) {
        complain(None, line);
    }
}

/// The same where nobody is held up by it. Whether it was said.
pub fn complain_now(host: &str, words: &str) -> bool {
    let said = can_speak();
    if said {
        complain(Some(host), words);
    }
    said
}

/// Whether standard error takes a line now.
fn can_speak() -> bool {
    if LOG.get().is_some() {
        return true;
    }
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut ready, PollTimeout::ZERO) == Ok(1)
}

/// Writes to standard output what was asked for: never beside a command's own.
pub fn tell(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// One line of the client's own.
pub fn line(words: &str) {
    match LOG.get() {
        Some(log) => write_line(log, words),
        None => another(words),
    }
}

/// One line on standard error that is another's: a host's welcome.
pub fn another(words: &str) {
    write_line(io::stderr(), words);
}

fn write_line(mut to: impl Write, words: &str) {
    let mut line = shown(words);
    line.push('\n');
    // Where nobody reads our errors there is nobody to tell that to.
    let _ = to.write_all(line.as_bytes());
}
