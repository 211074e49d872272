//! Replaces the client by another program. Run by the client alone, before it
//! has opened or changed anything.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Becomes `program`, called by `name`, with the words after it. SIGPIPE, which
/// Rust programs ignore, has its default action there. It returns only where
/// that failed.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place where the client becomes another program"
)]
pub fn become_program(program: &Path, name: &OsStr, words: &[OsString]) -> io::Error {
    Command::new(program).arg0(name).args(words).exec()
}
