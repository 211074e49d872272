//! Children of a process that goes on while they begin.
#![allow(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it should be"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::pipe2;

use super::*;

/// The program's output and errors, and its exit status.
fn outcome(starter: &mut Starter, path: &str, argv: &[&str]) -> (String, i32) {
    let string = |s: &str| CString::new(s).unwrap();
    let program = Program {
        path: string(path),
        argv: argv.iter().copied().map(string).collect(),
        environment: vec![string("NAME=value")],
        folder: string("/usr"),
        user: None,
    };
    let nothing = OwnedFd::from(File::open("/dev/null").unwrap());
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let ends = Ends {
        stdin: nothing.as_fd(),
        stdout: write.as_fd(),
        stderr: write.as_fd(),
    };
    let pid = starter.job(program, ends, Limits::default()).unwrap();
    drop(write);
    let mut said = String::new();
    File::from(read).read_to_string(&mut said).unwrap();
    let WaitStatus::Exited(_, status) = waitpid(pid, None).unwrap() else {
        return (said, -1);
    };
    (said, status)
}

#[test]
fn a_program_gets_its_words_its_environment_and_its_folder() {
    let script = "echo \"$1 $NAME $PWD\"; umask; exit 7";
    let words = ["sh", "-c", script, "x", "a  b"];
    let (said, status) = outcome(&mut Starter::default(), "/bin/sh", &words);
    assert_eq!(said, "a  b value /usr\n0022\n");
    assert_eq!(status, 7);
}

/// A program that is not there, in a folder that is not there.
fn missing() -> Program {
    Program {
        path: c"/nowhere".into(),
        argv: vec![c"nowhere".into()],
        environment: Vec::new(),
        folder: c"/not/there/either".into(),
        user: None,
    }
}

/// The child's calls that fail do not show in its parent's `errno`.
#[test]
fn errno_is_left_alone() {
    let nothing = OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
    let ends = Ends {
        stdin: nothing.as_fd(),
        stdout: nothing.as_fd(),
        stderr: nothing.as_fd(),
    };
    let mut starter = Starter::default();
    nix::errno::Errno::set_raw(12345);
    let pid = starter.job(missing(), ends, Limits::default()).unwrap();
    let status = waitpid(pid, None);
    assert_eq!(nix::errno::Errno::last_raw(), 12345);
    assert_eq!(status.unwrap(), WaitStatus::Exited(pid, 127));
}

#[test]
fn a_program_that_cannot_be_executed_says_so() {
    let mut starter = Starter::default();
    let missing = outcome(&mut starter, "/nowhere/at/all", &["all"]);
    assert_eq!(
        missing,
        ("cosserver: /nowhere/at/all: no such file\n".into(), 127)
    );
    let folder = outcome(&mut starter, "/usr", &["usr"]);
    assert_eq!(folder, ("cosserver: /usr: permission denied\n".into(), 126));
}

/// What is lent to a child comes back when it has executed its program: a
/// thousand in a row leave nothing lent.
#[cfg(direct_calls)]
#[test]
fn nothing_stays_lent_to_children_that_have_begun() {
    let mut starter = Starter::default();
    for _ in 0..1000 {
        assert_eq!(outcome(&mut starter, "/bin/true", &["true"]).1, 0);
        // Ended, so it has said so; at most the one that has just begun is lent.
        assert_eq!(starter.beginning(), 0);
    }
}

/// A child that cannot go on to its program (here: nobody reads its complaint)
/// stops nobody else: with vfork this process would wait for it.
#[cfg(direct_calls)]
#[test]
fn a_child_that_does_not_begin_stops_nobody() {
    let mut starter = Starter::default();
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let mut filler = File::from(write.try_clone().unwrap());
    nix::fcntl::fcntl(&filler, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while filler.write(&[b'x'; 4096]).is_ok() {}
    nix::fcntl::fcntl(&filler, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    drop(filler);
    let ends = Ends {
        stdin: write.as_fd(),
        stdout: write.as_fd(),
        stderr: write.as_fd(),
    };
    let pid = starter.job(missing(), ends, Limits::default()).unwrap();
    assert_eq!(starter.beginning(), 1);
    assert_eq!(outcome(&mut starter, "/bin/true", &["true"]).1, 0);
    assert_eq!(starter.beginning(), 1);
    drop(write);
    let mut said = Vec::new();
    File::from(read).read_to_end(&mut said).unwrap();
    assert!(said.ends_with(b"xcosserver: /nowhere: no such file\n"));
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 127));
    assert_eq!(starter.beginning(), 0);
}
