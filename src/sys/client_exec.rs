//! Replaces the client by another program, before it has opened or changed anything;
//! and starts the set-uid signer. Run by the client alone.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Runs a program without words and without environment, gives it `input`, and returns
/// what it writes, at most `most` bytes; its errors go where ours go.
///
/// # Errors
/// It could not be run, or failed.
#[allow(
    clippy::disallowed_methods,
    reason = "the client starts one program of ours: the set-uid signer"
)]
pub fn ask(program: &Path, input: &[u8], most: usize) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has said no already reads no more, and says why.
        let written = stdin.write_all(input);
        written.or_else(|e| {
            if e.kind() == io::ErrorKind::BrokenPipe {
                Ok(())
            } else {
                Err(e)
            }
        })?;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        stdout.take(most).read_to_end(&mut output)?;
    }
    let status = child.wait()?;
    if status.success() {
        Ok(output)
    } else {
        Err(io::Error::other(format!("it failed ({status})")))
    }
}
