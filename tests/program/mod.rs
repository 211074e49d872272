//! Executable files for the tests, written by a separate process: a descriptor that is open for
//! writing, which a fork in another thread also holds for a moment, would make the kernel refuse to
//! execute the file (ETXTBSY).
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program.
pub fn copy(from: impl AsRef<Path>, to: &Path) {
    let done = Command::new("cp").arg(from.as_ref()).arg(to).status();
    assert!(done.unwrap().success(), "{}", to.display());
}

/// Writes an executable file with this text.
pub fn script(to: &Path, text: &str) {
    let mut child = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{}", to.display());
}
