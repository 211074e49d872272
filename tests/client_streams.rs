//! The real `cos` against a host simulated by the test: the data that it carries from its standard
//! input and to its outputs, whatever kind of file these are.

#[cfg(test)]
use crate::client_host;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use client_host::{Host, Said, ends_well, finish, pattern, send_signal};
use cosserver::protocol::limits::{CREDIT, DATA_PAYLOAD};
use cosserver::protocol::stream::{Allowance, End, Message, Signal, Stream};
use cosserver::protocol::window::Window;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal as Kill;

#[test]
fn input_is_carried_to_its_end_and_output_goes_on() {
    let host = Host::new();
    let mut child = host.start_with_input(&["hostb", "cat"]);
    let mut session = host.accept();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"some").unwrap();
    session.expect(&Said::Data(b"some".to_vec()));
    drop(stdin);
    session.expect(&Said::Eof);
    session.say(&Message::Data(Stream::Main, b"after the end"));
    session.end(End::Exited(0));
    assert_eq!(finish(child).out, b"after the end");
}

#[test]
fn without_input_there_is_only_its_end() {
    let host = Host::new();
    let mut child = host.start_with_input(&["-n", "hostb", "x"]);
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"not for them")
        .unwrap();
    let mut session = host.accept();
    assert_eq!(session.receive(), Some(Said::Eof));
    ends_well(session, child);
}

#[test]
fn much_output_arrives_whole_within_its_credit() {
    let host = Host::new();
    let sent = pattern(96 << 20);
    let mut child = host.start(&["hostb", "x"]);
    let mut out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        out.read_to_end(&mut all).unwrap();
        all
    });
    let mut session = host.accept();
    let mut allowance = Allowance::default();
    let mut rest = sent.as_slice();
    while !rest.is_empty() {
        let n = rest.len().min(DATA_PAYLOAD).min(allowance.left());
        if n == 0 {
            match session.receive() {
                Some(Said::Credit(Stream::Main, n)) => allowance.granted(n).unwrap(),
                Some(Said::Eof) => {}
                other => panic!("{other:?}"),
            }
            continue;
        }
        session.say(&Message::Data(Stream::Main, &rest[..n]));
        allowance.spend(n);
        rest = &rest[n..];
    }
    ends_well(session, child);
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn much_input_arrives_whole_within_its_credit() {
    let host = Host::new();
    let sent = pattern(96 << 20);
    let mut child = host.start_with_input(&["hostb", "x"]);
    let mut stdin = child.stdin.take().unwrap();
    let input = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut session = host.accept();
    let (mut window, mut came) = (Window::default(), Vec::new());
    loop {
        match session.receive() {
            Some(Said::Data(bytes)) => {
                // More than was granted would be an error here.
                let now = Instant::now();
                window.received(bytes.len(), now).unwrap();
                came.extend_from_slice(&bytes);
                if let Some(grant) = window.consumed(bytes.len(), 0, now) {
                    session.say(&Message::Credit(Stream::Main, grant));
                }
            }
            Some(Said::Eof) => break,
            other => panic!("{other:?}"),
        }
    }
    ends_well(session, child);
    writer.join().unwrap();
    assert!(came == sent);
}

#[test]
fn input_from_a_file_and_output_to_a_file() {
    let host = Host::new();
    let text = pattern(5 << 20);
    let (from, to) = (host.folder.join("from"), host.folder.join("to"));
    std::fs::write(&from, &text).unwrap();
    let mut command = host.cosrsh(&["hostb", "cat"]);
    command.stdin(std::fs::File::open(&from).unwrap());
    command.stdout(std::fs::File::create(&to).unwrap());
    let child = command.spawn().unwrap();
    let mut session = host.accept();
    loop {
        match session.receive() {
            Some(Said::Data(bytes)) => {
                let n = u32::try_from(bytes.len()).unwrap();
                session.say(&Message::Credit(Stream::Main, n));
                session.say(&Message::Data(Stream::Main, &bytes));
            }
            Some(Said::Credit(..)) => {}
            Some(Said::Eof) => break,
            other => panic!("{other:?}"),
        }
    }
    ends_well(session, child);
    assert!(std::fs::read(&to).unwrap() == text);
}

#[test]
fn sockets_for_all_three() {
    use std::os::unix::net::UnixStream;
    let host = Host::new();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = host.cosrsh(&["hostb", "cat"]);
    let copy = || Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone().unwrap()));
    let child = command
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn()
        .unwrap();
    // The command holds copies of the other end.
    drop(command);
    let mut session = host.accept();
    ours.write_all(b"in").unwrap();
    session.expect(&Said::Data(b"in".to_vec()));
    session.say(&Message::Data(Stream::Main, b"out"));
    let mut got = [0; 3];
    ours.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"out");
    let flags = OFlag::from_bits_retain(fcntl(theirs.as_fd(), FcntlArg::F_GETFL).unwrap());
    assert!(
        !flags.contains(OFlag::O_NONBLOCK),
        "a shared socket was made nonblocking"
    );
    drop(theirs);
    ends_well(session, child);
}

#[test]
fn descriptors_that_others_share_stay_as_they_were() {
    let host = Host::new();
    let (read, write) = nix::unistd::pipe().unwrap();
    let (in_read, in_write) = nix::unistd::pipe().unwrap();
    let mut command = host.cosrsh(&["hostb", "x"]);
    command.stdout(Stdio::from(write.try_clone().unwrap()));
    command.stdin(Stdio::from(in_read.try_clone().unwrap()));
    let child = command.spawn().unwrap();
    let mut session = host.accept();
    nix::unistd::write(&in_write, b"in").unwrap();
    session.expect(&Said::Data(b"in".to_vec()));
    session.say(&Message::Data(Stream::Main, b"out"));
    let mut got = [0; 3];
    assert_eq!(nix::unistd::read(&read, &mut got), Ok(3));
    for fd in [&write, &in_read] {
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        assert!(
            !flags.contains(OFlag::O_NONBLOCK),
            "a shared pipe was made nonblocking"
        );
    }
    ends_well(session, child);
}

#[test]
fn a_reader_that_goes_resets_its_stream() {
    let host = Host::new();
    for at_rest in [false, true] {
        let mut child = host.start(&["-n", "hostb", "yes"]);
        let mut session = host.accept();
        session.expect(&Said::Eof);
        let mut out = child.stdout.take().unwrap();
        session.say(&Message::Data(Stream::Main, b"y\n"));
        let mut line = [0; 2];
        out.read_exact(&mut line).unwrap();
        drop(out);
        // It is noticed also when idle, as with a local tail -f.
        if !at_rest {
            session.say(&Message::Data(Stream::Main, b"y\n"));
        }
        session.expect(&Said::Reset(Stream::Main));
        // Data in transit is discarded, as long as there was credit for it.
        session.say(&Message::Data(Stream::Main, &[b'y'; 60_000]));
        session.say(&Message::Data(Stream::Error, b"Broken pipe"));
        session.end(End::Killed(13));
        let ended = finish(child);
        assert_eq!(
            (ended.status, ended.err.as_str()),
            (Some(141), "Broken pipe")
        );
    }
}

/// Starts the client with a fault in its system calls, as strace(1) injects it: `what` is
/// `CALL:error=E`. `None`: this system has no strace, or denies tracing.
fn faulty(host: &Host, what: &str) -> Option<Command> {
    let probe = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        assert!(std::env::var("CI").is_err(), "no strace");
        let test = std::thread::current();
        let line = format!("skipped: {}: no strace\n", test.name().unwrap_or("?"));
        let _ = std::io::stderr().write_all(line.as_bytes());
        return None;
    }
    let (call, _) = what.split_once(':').unwrap();
    let mut command = Command::new("strace");
    command
        .args(["-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={what}")])
        .args([env!("CARGO_BIN_EXE_cos"), "-C"])
        .arg(&host.folder)
        .args(["run", "hostb", "x"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

/// Regression: a send error was mistaken for a server that is gone, and the client waited for its
/// last message forever.
#[test]
fn a_send_error_ends_the_client() {
    for (error, words) in [
        ("ENOMEM", "sending: Out of memory"),
        ("ENOBUFS", "sending: No buffer space available"),
        ("EPIPE", "the connection broke: Broken pipe"),
        ("ETIMEDOUT", "the connection broke: Connection timed out"),
    ] {
        let host = Host::new();
        let Some(mut command) = faulty(&host, &format!("writev:error={error}")) else {
            return;
        };
        let mut child = command.spawn().unwrap();
        let mut session = host.accept();
        child.stdin.as_mut().unwrap().write_all(b"input").unwrap();
        assert_eq!(session.receive(), None, "{error}");
        drop(session);
        let ended = finish(child);
        let line = format!("cos: hostb: {words}\n");
        assert_eq!((ended.status, ended.err), (Some(255), line));
    }
}

#[test]
fn a_read_error_is_no_end_of_input() {
    let host = Host::new();
    let Some(mut command) = faulty(&host, "readv:error=ENOMEM") else {
        return;
    };
    let child = command.stdin(Stdio::null()).spawn().unwrap();
    let mut session = host.accept();
    assert_eq!(session.receive(), None);
    let ended = finish(child);
    let line = "cos: hostb: standard input: Out of memory\n".to_owned();
    assert_eq!((ended.status, ended.err), (Some(255), line));
    // A disk error: the command must not take a part of its input for all of it.
    let Some(mut command) = faulty(&host, "readv:error=EIO") else {
        return;
    };
    let file = host.folder.join("input");
    std::fs::write(&file, b"input").unwrap();
    let file = std::fs::File::open(file).unwrap();
    let child = command.stdin(file).spawn().unwrap();
    let mut session = host.accept();
    assert_eq!(session.receive(), None);
    let ended = finish(child);
    let line = "cos: hostb: standard input: I/O error\n".to_owned();
    assert_eq!((ended.status, ended.err), (Some(255), line));
}

/// Regression: the client ended only the stream after a read error, as is right for a descriptor
/// not opened for reading, also if it was. The command took a part of its input for all of it.
#[test]
fn an_error_of_a_good_descriptor_is_no_end_of_its_stream() {
    let host = Host::new();
    let file = host.folder.join("file");
    std::fs::write(&file, b"input").unwrap();
    for (error, why) in [("EBADF", "Bad file number"), ("EISDIR", "Is a directory")] {
        let Some(mut command) = faulty(&host, &format!("readv:error={error}")) else {
            return;
        };
        let input = std::fs::File::open(&file).unwrap();
        let child = command.stdin(input).spawn().unwrap();
        let mut session = host.accept();
        assert_eq!(session.receive(), None, "{error}");
        let ended = finish(child);
        let line = format!("cos: hostb: standard input: {why}\n");
        assert_eq!((ended.status, ended.err), (Some(255), line));
    }
    let Some(command) = faulty(&host, "writev:error=EBADF") else {
        return;
    };
    // Not on the socket, to which the same system call writes.
    let mut words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    words.splice(0..0, ["-P".into(), file.clone().into_os_string()]);
    let output = std::fs::OpenOptions::new().write(true).open(&file);
    let child = Command::new("strace")
        .args(words)
        .stdin(Stdio::null())
        .stdout(output.unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut session = host.accept();
    session.expect(&Said::Eof);
    session.say(&Message::Data(Stream::Main, b"out"));
    assert_eq!(session.receive(), None);
    let ended = finish(child);
    let line = "cos: hostb: standard output: Bad file number\n".to_owned();
    assert!(ended.err.ends_with(&line), "{}", ended.err);
    assert_eq!(ended.status, Some(255));
}

/// Regression: a hash map panicked if there were no random numbers.
#[test]
fn without_random_numbers_there_is_an_error_and_no_panic() {
    let host = Host::new();
    let Some(mut command) = faulty(&host, "getrandom:error=EIO") else {
        return;
    };
    let ended = finish(command.stdin(Stdio::null()).spawn().unwrap());
    assert_eq!(ended.status, Some(255), "{}", ended.err);
    assert!(ended.err.contains("cos: hostb: "), "{}", ended.err);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    // It needs none beyond those for its keys.
    let host = Host::new();
    let Some(mut command) = faulty(&host, "getrandom:error=EIO:when=4+") else {
        return;
    };
    let child = command.stdin(Stdio::null()).spawn().unwrap();
    let mut session = host.accept();
    session.expect(&Said::Eof);
    ends_well(session, child);
}

fn dev_full() -> std::fs::File {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    full.unwrap()
}

/// Regression: the error was reported only after the command had ended, which may never happen.
#[test]
fn a_disk_that_is_full_ends_the_session() {
    let host = Host::new();
    let mut command = host.cosrsh(&["-n", "hostb", "x"]);
    let child = command.stdout(dev_full()).spawn().unwrap();
    let mut session = host.accept();
    session.expect(&Said::Eof);
    session.say(&Message::Data(Stream::Main, b"text"));
    assert_eq!(session.receive(), None);
    let ended = finish(child);
    let line = "cos: hostb: standard output: No space left on device\n".to_owned();
    assert_eq!((ended.status, ended.err), (Some(255), line));
}

/// As with ssh: nothing can be reported there, and nothing else is wrong.
#[test]
fn unwritable_standard_error_ends_only_that_stream() {
    let host = Host::new();
    let mut command = host.cosrsh(&["-n", "hostb", "x"]);
    let child = command.stderr(dev_full()).spawn().unwrap();
    let mut session = host.accept();
    session.expect(&Said::Eof);
    session.say(&Message::Data(Stream::Error, b"text"));
    session.expect(&Said::Reset(Stream::Error));
    session.say(&Message::Data(Stream::Main, b"out"));
    session.end(End::Exited(3));
    let ended = finish(child);
    assert_eq!((ended.status, ended.out.as_slice()), (Some(3), &b"out"[..]));
}

/// Regression: `nohup cos run`, `0>/dev/null` and `</tmp` ended the whole command.
#[test]
fn unreadable_input_ends_only_that_stream() {
    let host = Host::new();
    let writable = |path: &str| std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let (_read, write) = nix::unistd::pipe().unwrap();
    let folder = std::fs::File::open(&host.folder).unwrap();
    let bad = "cos: hostb: standard input: Bad file number\n";
    for (stdin, line) in [
        // A user who does this expects no input.
        (Stdio::from(writable("/dev/null")), ""),
        (Stdio::from(writable("/dev/zero")), bad),
        (Stdio::from(write), bad),
        (
            Stdio::from(folder),
            "cos: hostb: standard input: Is a directory\n",
        ),
    ] {
        let mut command = host.cosrsh(&["hostb", "x"]);
        let child = command.stdin(stdin).spawn().unwrap();
        let mut session = host.accept();
        session.expect(&Said::Eof);
        session.say(&Message::Data(Stream::Main, b"out"));
        session.end(End::Exited(3));
        let ended = finish(child);
        assert_eq!((ended.status, ended.err.as_str()), (Some(3), line));
        assert_eq!(ended.out, b"out");
    }
}

#[test]
fn unwritable_output_ends_only_that_stream() {
    let host = Host::new();
    let readable = std::fs::File::open("/dev/null").unwrap();
    let mut command = host.cosrsh(&["-n", "hostb", "x"]);
    let child = command.stdout(readable).spawn().unwrap();
    let mut session = host.accept();
    session.expect(&Said::Eof);
    session.say(&Message::Data(Stream::Main, b"out"));
    session.expect(&Said::Reset(Stream::Main));
    session.say(&Message::Data(Stream::Error, b"err\n"));
    session.end(End::Exited(3));
    let ended = finish(child);
    let lines = "cos: hostb: standard output: Bad file number\nerr\n";
    assert_eq!((ended.status, ended.err.as_str()), (Some(3), lines));
}

#[test]
fn a_command_that_reads_no_more_stops_the_input() {
    let host = Host::new();
    let mut child = host.start_with_input(&["hostb", "x"]);
    let mut session = host.accept();
    session.say(&Message::Reset(Stream::Main));
    let mut stdin = child.stdin.take().unwrap();
    // A process that writes to it gets an error, while the command continues.
    let block = [0; 4096];
    let error = loop {
        if let Err(e) = stdin.write_all(&block) {
            break e;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    session.say(&Message::Data(Stream::Main, b"on"));
    session.end(End::Exited(0));
    let ended = finish(child);
    assert_eq!((ended.status, ended.out.as_slice()), (Some(0), &b"on"[..]));
}

#[test]
fn an_output_that_ends_early_is_seen_to_end() {
    let host = Host::new();
    let mut child = host.start(&["-n", "hostb", "x"]);
    let mut session = host.accept();
    session.say(&Message::Data(Stream::Main, b"all"));
    session.say(&Message::Eof(Stream::Main));
    let mut all = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"all");
    session.say(&Message::Data(Stream::Error, b"later"));
    session.say(&Message::Eof(Stream::Error));
    session.say(&Message::End(End::Exited(0)));
    let ended = finish(child);
    assert_eq!((ended.status, ended.err.as_str()), (Some(0), "later"));
}

#[test]
fn unread_output_does_not_block_the_other_streams() {
    let host = Host::new();
    let mut child = host.start_with_input(&["hostb", "x"]);
    let mut session = host.accept();
    let sent = pattern(usize::try_from(CREDIT).unwrap());
    for piece in sent.chunks(DATA_PAYLOAD) {
        session.say(&Message::Data(Stream::Main, piece));
    }
    // After a megabyte that is not read: errors, input and its credit, signals.
    session.say(&Message::Data(Stream::Error, b"trouble"));
    let mut err = [0; 7];
    child.stderr.as_mut().unwrap().read_exact(&mut err).unwrap();
    assert_eq!(&err, b"trouble");
    child.stdin.as_mut().unwrap().write_all(b"in").unwrap();
    session.expect(&Said::Data(b"in".to_vec()));
    send_signal(&child, Kill::SIGINT);
    session.expect(&Said::Signal(Signal::Interrupt));
    session.say(&Message::Eof(Stream::Main));
    session.say(&Message::Eof(Stream::Error));
    session.say(&Message::End(End::Killed(2)));
    // The data that has arrived is still there for a late reader.
    let ended = finish(child);
    assert_eq!(ended.status, Some(130));
    assert!(ended.out == sent);
}

#[test]
fn after_the_end_a_signal_stops_the_writing() {
    let host = Host::new();
    let mut child = host.start(&["-n", "hostb", "x"]);
    let out = child.stdout.take().unwrap();
    let mut session = host.accept();
    for piece in pattern(usize::try_from(CREDIT).unwrap()).chunks(DATA_PAYLOAD) {
        session.say(&Message::Data(Stream::Main, piece));
    }
    session.say(&Message::Data(Stream::Error, b"!"));
    let mut seen = [0];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut seen)
        .unwrap();
    session.say(&Message::End(End::Exited(0)));
    // It hangs up although its output is not written yet.
    session.until_gone();
    send_signal(&child, Kill::SIGTERM);
    assert_eq!(finish(child).status, Some(143));
    drop(out);
}

#[test]
fn descriptors_that_are_closed_at_the_start() {
    let host = Host::new();
    let program = env!("CARGO_BIN_EXE_cos");
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let child = host
            .shell(&format!("exec {program} run hostb x {closed}"))
            .spawn()
            .unwrap();
        let mut session = host.accept();
        session.say(&Message::Data(Stream::Main, b"out"));
        session.say(&Message::Data(Stream::Error, b"err"));
        session.expect(&Said::Eof);
        session.end(End::Exited(9));
        let ended = finish(child);
        assert_eq!(ended.status, Some(9), "{closed}");
        let out = if closed.contains(">&- ") || closed == ">&-" {
            &b""[..]
        } else {
            b"out"
        };
        assert_eq!(ended.out, out, "{closed}");
    }
}

/// A user must always be able to stop the client: with one signal if the host is dead.
#[test]
fn one_signal_ends_a_client_when_its_host_does_not_answer() {
    let signals = [
        (Kill::SIGTERM, Signal::Terminate),
        (Kill::SIGHUP, Signal::Hangup),
        (Kill::SIGINT, Signal::Interrupt),
    ];
    std::thread::scope(|scope| {
        for (kill, signal) in signals {
            scope.spawn(move || {
                let host = Host::new();
                let child = host.start(&["-n", "hostb", "x"]);
                let mut session = host.accept();
                session.expect(&Said::Eof);
                send_signal(&child, kill);
                session.expect(&Said::Signal(signal));
                assert_eq!(session.receive(), None);
                let ended = finish(child);
                assert_eq!(ended.status, Some(255), "{ended:?}");
                let says_why = ended.err.contains("does not answer the signal");
                assert!(says_why, "{ended:?}");
            });
        }
    });
}

#[test]
fn a_second_signal_ends_the_client_whatever_the_host_does() {
    for (kill, signal, status) in [
        (Kill::SIGTERM, Signal::Terminate, 143),
        (Kill::SIGHUP, Signal::Hangup, 129),
    ] {
        let host = Host::new();
        let mut child = host.start(&["-n", "hostb", "x"]);
        let mut session = host.accept();
        session.expect(&Said::Eof);
        send_signal(&child, kill);
        session.expect(&Said::Signal(signal));
        // It answers, and never ends the command.
        session.say(&Message::Credit(Stream::Main, 0));
        session.say(&Message::Data(Stream::Error, b"x"));
        let mut err = [0];
        child.stderr.as_mut().unwrap().read_exact(&mut err).unwrap();
        // Two that arrive together count as one.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while child.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < until, "it does not end");
            send_signal(&child, kill);
            std::thread::yield_now();
        }
        assert_eq!(session.receive(), None);
        let ended = finish(child);
        // By itself, or killed by the next signal, which it no longer caught.
        let by = ended.signal.map(|number| number + 128);
        assert_eq!(ended.status.or(by), Some(status));
    }
}
