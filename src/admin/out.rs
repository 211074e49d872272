//! The output of `cosadm`: results to standard output, everything else to standard error as
//! `cosadm: …`. Characters that could control a terminal or deceive its reader are shown as `?`,
//! because a path or a name may come from another user. A closed pipe is an error, not a panic.

use std::borrow::Cow;
use std::fmt::Display;
use std::fs::{File, Permissions};
use std::io::{BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::geteuid;

use crate::config::words::{is_shown, shown};
use crate::fault::Fault;

/// Why a command failed.
pub(super) enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// The command could not be carried out: exit code 1.
    Fault(Fault),
    /// A problem was found and has been reported: exit code 1.
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

    /// Writes a complete result to standard output.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(lines(text).as_bytes());
        told(written.and_then(|()| stdout.flush()))
    }

    /// Starts a result that is written in parts, without holding it all in memory.
    pub(super) fn parts(&self) -> Parts {
        Parts(BufWriter::new(std::io::stdout().lock()))
    }

    /// Checks that standard output can take a secret result, before the secret is created. A closed
    /// standard output is `/dev/null` here, because the Rust runtime opens that in its place.
    pub(super) fn takes_secrets(&self) -> Result<(), Failure> {
        let stdout = File::from(
            std::io::stdout()
                .as_fd()
                .try_clone_to_owned()
                .map_err(Fault::from)?,
        );
        let flags = fcntl(&stdout, FcntlArg::F_GETFL).map_err(Fault::from)?;
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            let words = "standard output is open for reading only; nothing was changed";
            return Err(Fault::new(words).into());
        }
        let about = stdout.metadata().map_err(Fault::from)?;
        let is_null = std::fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == about.rdev());
        if about.file_type().is_char_device() && is_null {
            let words = "standard output is closed or is /dev/null, and the secret would be lost; nothing was changed";
            return Err(Fault::new(words).into());
        }
        Ok(())
    }

    /// Writes a complete secret result to standard output. If that is a file that others may open,
    /// as a shell creates it, sets its mode to 0600 first. If that fails, a message on standard
    /// error says so, and the result is written all the same, because it is needed.
    pub(super) fn say_secret(&self, text: &str) -> Result<(), Failure> {
        match close_to_others() {
            Ok(None) => {}
            Ok(Some(mode)) => self.tell(format!(
                "standard output is a file that others could open (mode {mode:04o}); it is mode 0600 now"
            )),
            Err(why) => self.tell(format!(
                "standard output is a file that others can open, and that cannot be changed ({why}): \
                 anyone who reads the secret in it can use it. Remove the file, and write \
                 the next one where only you can read it (umask 077)"
            )),
        }
        self.say(text)
    }

    /// Writes a message to standard error. An error is ignored: there is nowhere to report it.
    pub(super) fn tell(&self, words: impl Display) {
        let line = format!("cosadm: {}\n", shown(&words.to_string()));
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    /// Writes a message only with `-v`.
    pub(super) fn detail(&self, words: impl Display) {
        if self.verbose {
            self.tell(words);
        }
    }
}

/// A result that is written in parts.
pub(super) struct Parts(BufWriter<StdoutLock<'static>>);

impl Parts {
    pub(super) fn put(&mut self, text: &str) -> Result<(), Failure> {
        told(self.0.write_all(lines(text).as_bytes()))
    }

    /// Flushes what has not been written yet.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        told(self.0.flush())
    }
}

/// Replaces characters that must not be shown. JSON output has escaped them already. A secret has
/// none of them, so it is not copied.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    let of = |c| c == '\n' || c == '\t' || is_shown(c);
    if text.chars().all(of) {
        return text.into();
    }
    text.chars().map(|c| if of(c) { c } else { '?' }).collect()
}

fn told(written: std::io::Result<()>) -> Result<(), Failure> {
    written.map_err(|e| Fault::new(format!("standard output: {e}")).into())
}

/// The mode bits of group and others.
const OTHERS: u32 = 0o077;

/// Sets the mode of the file that is standard output to 0600. Returns the mode that it had, or
/// `None` if it is not a file, or if only this user has access to it already.
fn close_to_others() -> Result<Option<u32>, Fault> {
    let file = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let about = file.metadata()?;
    let owner = about.uid();
    let alone = about.mode() & OTHERS == 0;
    if !about.is_file() || (alone && owner == geteuid().as_raw()) {
        return Ok(None);
    }
    if owner != geteuid().as_raw() {
        return Err(Fault::new(format!("it belongs to user {owner}")));
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    // Some file systems report success and do nothing.
    if file.metadata()?.mode() & OTHERS != 0 {
        return Err(Fault::new("its file system has no modes"));
    }
    Ok(Some(about.mode() & 0o7777))
}
