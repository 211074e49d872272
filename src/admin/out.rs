//! What `cosadm` writes: results to standard output, everything else to
//! standard error as `cosadm: …`. A closed pipe is an error, not a panic.

use std::fmt::Display;
use std::io::Write;

use crate::fault::Fault;

/// Why a command did not end well.
pub(super) enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// It could not be done: exit code 1.
    Fault(Fault),
    /// A problem was found and has been told: exit code 1.
    Found,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) struct Out {
    verbose: bool,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { verbose: false }
    }

    pub(super) fn verbose(&mut self, verbose: bool) {
        self.verbose = verbose;
    }

    /// A result, whole, to standard output.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        written.map_err(|e| Fault::new(format!("standard output: {e}")).into())
    }

    /// A message to standard error; where that is gone, nobody is left to tell.
    pub(super) fn tell(&self, words: impl Display) {
        let line = format!("cosadm: {words}\n");
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    /// A message that is wanted with `-v` alone.
    pub(super) fn detail(&self, words: impl Display) {
        if self.verbose {
            self.tell(words);
        }
    }
}
