//! Replaces the client by another program, before it has opened or changed anything; starts the
//! set-uid signer; starts the client for an intermediate host. Runs only in the client.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Environment variable for the program that replaces this process: the ID of the process that was
/// replaced. If that program is this one again, under another file name, the two would otherwise
/// replace each other forever.
const BECAME: &str = "COS_BECAME";

/// Returns whether this process was already this program and has executed it again.
pub fn was_reexecuted() -> bool {
    std::env::var(BECAME).is_ok_and(|pid| pid == std::process::id().to_string())
}

/// Executes `program` with `name` as its `argv[0]` and the given arguments. SIGPIPE, which Rust
/// programs ignore, gets its default action. Returns only if that fails.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place where the client becomes another program"
)]
pub fn become_program(program: &Path, name: &OsStr, words: &[OsString]) -> io::Error {
    let mut command = Command::new(program);
    command.env(BECAME, std::process::id().to_string());
    command.arg0(name).args(words).exec()
}

/// Runs a program without arguments and environment, sends it `input`, and returns its output, at
/// most `most` bytes. Its stderr is this process's stderr.
///
/// # Errors
/// The program could not be run, or failed.
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
        // A program that has already rejected the request stops reading, and reports why.
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

/// Starts this program again as `cos` with these arguments, in its own process group, with `socket`
/// as standard input and output. If `seen`, its stderr is this process's stderr, otherwise a pipe.
///
/// # Errors
/// The program cannot be started.
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
