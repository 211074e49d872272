//! What the client itself reports: the steps of `-v`, and the one line of a failure. Runs only in
//! the client.
//!
//! Standard error belongs to the remote command, so the client prints nothing there without `-v`
//! and without a failure. It must never write to standard output if a command has it. With `-E` all
//! of its lines go to that file instead.

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

/// The file of `-E`, if given.
static LOG: OnceLock<File> = OnceLock::new();

/// Appends all lines from now on to this file, which is created if it does not exist.
///
/// # Errors
/// It cannot be opened.
pub fn log_to(path: &Path) -> Result<(), Fault> {
    // Nonblocking: a pipe that has no reader or is full is an error and not a wait.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let file = options.custom_flags(flags.bits()).open(path);
    let file = file.map_err(|e| Fault::of(path, e).while_doing("-E"))?;
    LOG.get_or_init(|| file);
    Ok(())
}

/// Reports steps on standard error, each line in one write.
pub struct Reporter {
    verbose: bool,
    begun: Instant,
}

impl Reporter {
    /// Returns a reporter that reports steps if `verbose` is set.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            begun: Instant::now(),
        }
    }

    /// Whether steps are reported.
    pub const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Reports a step with the milliseconds since the start, if `-v` is given. Skips a step that
    /// would have to wait for a reader: it must never delay signals or data.
    pub fn step(&self, words: impl FnOnce() -> String) {
        if !self.verbose {
            return;
        }
        if stderr_takes_a_line() {
            let ms = self.begun.elapsed().as_micros();
            let (whole, part) = (ms / 1000, ms % 1000);
            line(&format!("cos: {whole}.{part:03} ms: {}", words()));
        }
    }
}

/// Prints the one line of a failure: `cos: HOST: what is wrong`. Characters that could control a
/// terminal or deceive its reader are shown as `?`: part of the text may come from another host.
pub fn print_error(host: Option<&str>, words: &str) {
    let host = host.map_or_else(String::new, |h| format!("{h}: "));
    line(&format!("cos: {host}{words}"));
}

/// Prints a fault of ours, and its remedy on lines of its own.
pub fn fault(host: Option<&str>, fault: &Fault) {
    print_error(host, &fault.to_string());
    for line in fault.remedy().into_iter().flat_map(str::lines) {
        print_error(None, line);
    }
}

/// As [`print_error`], if standard error takes a line without a wait. Returns whether the line was
/// printed.
pub fn try_print_error(host: &str, words: &str) -> bool {
    let said = stderr_takes_a_line();
    if said {
        print_error(Some(host), words);
    }
    said
}

/// Whether standard error takes a line now.
fn stderr_takes_a_line() -> bool {
    if LOG.get().is_some() {
        return true;
    }
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut ready, PollTimeout::ZERO) == Ok(1)
}

/// Writes the requested text to standard output. Never used beside a command's output.
pub fn tell(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints one line of the client's own.
pub fn line(words: &str) {
    match LOG.get() {
        Some(log) => write_line(log, words),
        None => another(words),
    }
}

/// Prints one line of a host on standard error, such as its welcome.
pub fn another(words: &str) {
    write_line(io::stderr(), words);
}

fn write_line(mut to: impl Write, words: &str) {
    let mut line = shown(words);
    line.push('\n');
    // If standard error has no reader, this failure cannot be reported either.
    let _ = to.write_all(line.as_bytes());
}
