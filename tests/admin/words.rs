//! Files that could block `cosadm`, and text from others on its terminal.

use std::process::{Command, Stdio};

use super::{COSADM, Scratch, text};

/// Creates a `cosadm` command that may take twenty seconds.
fn cosadm(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.arg("20").arg(COSADM).args(words);
    command.stdin(Stdio::null());
    command
}

/// Any user can create a FIFO that no process writes to.
#[test]
fn card_that_is_not_a_regular_file_does_not_block() {
    let scratch = Scratch::new();
    let a = scratch.init("A");
    let fifo = scratch.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let folder = a.0.to_str().unwrap();
    for file in [&*fifo, &*scratch.0, std::path::Path::new("/dev/zero")] {
        let words = ["-C", folder, "host", "join", file.to_str().unwrap()];
        let out = cosadm(&words).output().unwrap();
        let told = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{told}");
        assert!(told.contains("it is not a regular file"), "{told}");
    }
    // A file that the caller has opened is read all the same.
    for file in ["-", "/dev/stdin"] {
        let words = ["-C", folder, "host", "join", file];
        let mut command = cosadm(&words);
        let out = command.output().unwrap();
        let told = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{told}");
        assert!(!told.contains("regular file"), "{told}");
    }
}

/// Regression: control characters in the path of `COS_CONFIG_DIR` reached the user's terminal.
#[test]
fn nothing_in_a_path_steers_the_terminal() {
    let scratch = Scratch::new();
    let folder = scratch.0.join("a\n\u{1b}[31mb\u{202e}c");
    for words in [
        &["host", "list"][..],
        &["check"],
        &["init"],
        &["-v", "init"],
        &["host", "list"],
        &["check", "--json"],
        &["door", "status"],
        &["-C", "/nonexistent/\u{1b}[31m", "host", "list"],
        &["host", "join", "/nonexistent/\u{1b}[31m\u{202e}"],
    ] {
        let mut command = cosadm(words);
        let out = command.env("COS_CONFIG_DIR", &folder).output().unwrap();
        for told in [text(&out.stdout), text(&out.stderr)] {
            let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!told.contains(steers), "{words:?}: {told:?}");
        }
        let told = text(&out.stderr);
        assert!(
            told.lines().all(|l| l.starts_with("cosadm: ")),
            "{words:?}: {told:?}"
        );
    }
}
