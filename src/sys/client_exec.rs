//! Replaces the client by another program, before it has opened or changed anything; and starts
//! the set-uid signer, and the client of a host in between. Run by the client alone.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Says in the environment of the program that takes our place which process has become it:
/// where it is this program again, by another file, the two would become each other for ever.
const BECAME: &str = "COS_BECAME";

/// Whether this process was this program before, and has become it once more.
pub fn became_itself() -> bool {
    std::env::var(BECAME).is_ok_and(|pid| pid == std::process::id().to_string())
}

/// Becomes `program`, called by `name`, with the words after it. SIGPIPE, which
/// Rust programs ignore, has its default action there. It returns only where
/// that failed.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place where the client becomes another program"
)]
pub fn become_program(program: &Path, name: &OsStr, words: &[OsString]) -> io::Error {
    let mut command = Command::new(program);
    command.env(BECAME, std::process::id().to_string());
    command.arg0(name).args(words).exec()
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

/// Starts this program once more, as `cos` with these words, in a process group of its own, with
/// this socket as its standard input and output. Its errors go where ours go where they are to
/// be `seen`, else to a pipe.
///
/// # Errors
/// It cannot be started.
#[allow(
    clippy::disallowed_methods,
    reason = "a client that goes through another host runs itself as a client of that host"
)]
pub fn start_client(words: &[String], socket: OwnedFd, seen: bool) -> io::Result<Child> {
    let input = socket.try_clone()?;
    let errors = if seen {
        Stdio::inherit()
    } else {
        Stdio::piped()
    };
    Command::new(std::env::current_exe()?)
        .arg0("cos")
        .args(words)
        .stdin(input)
        .stdout(socket)
        .stderr(errors)
        .process_group(0)
        .spawn()
}
