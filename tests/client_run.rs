//! The real `cos` against a host in the test's hands: what it asks, what it
//! carries, how it ends.
#![allow(
    clippy::disallowed_methods,
    reason = "the tests start the real program, as a shell would"
)]

#[cfg(test)]
mod client_host;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use client_host::{Host, Said, finish, pattern, script, send_signal};
use cosserver::wire::answer::Answer;
use cosserver::wire::limits::{COMMAND_PIECE, CREDIT, DATA_PAYLOAD};
use cosserver::wire::record::{self, Kind};
use cosserver::wire::request::{self, Command};
use cosserver::wire::seal::{Opener, Sealer};
use cosserver::wire::stream::{Allowance, End, Message, Signal, Stream, Window};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal as Kill;

#[test]
fn the_status_is_the_remote_one() {
    let host = Host::new();
    let ends = [0, 1, 2, 42, 126, 127, 128, 254, 255]
        .map(|n| (End::Exited(n), i32::from(n)))
        .into_iter()
        .chain([1, 2, 9, 15, 64].map(|n| (End::Killed(n), 128 + i32::from(n))));
    for (end, status) in ends {
        let child = host.cosrsh(&["hostb", "x"]).spawn().unwrap();
        host.accept().end(end);
        let ended = finish(child);
        assert_eq!(
            (ended.status, ended.out.len(), ended.err.as_str()),
            (Some(status), 0, "")
        );
    }
}

#[test]
fn a_command_that_was_not_started_is_told_in_one_clean_line() {
    let host = Host::new();
    let child = host.cosrsh(&["hostb", "x"]).spawn().unwrap();
    host.accept()
        .end(End::NotStarted("no such\u{1b}[31m user\n".to_owned()));
    let ended = finish(child);
    assert_eq!(ended.status, Some(255));
    assert_eq!(ended.err, "cos: hostb: no such?[31m user?\n");
}

#[test]
fn the_request_is_what_the_command_line_says() {
    let host = Host::new();
    let mut command = host.cosrsh(&["-l", "jo", "hostb", "-n", "a  b", "", "$x"]);
    command.env_clear().env("COS_CONFIG_DIR", &host.folder);
    command
        .env("LANG", "C.UTF-8")
        .env("GIT_PROTOCOL", "version=2")
        .env("HOME", "/x");
    let child = command.spawn().unwrap();
    let asked = host.take().greet().hear();
    assert_eq!(
        (asked.caller.as_str(), asked.server.as_str()),
        ("hosta", "hostb")
    );
    assert_eq!(asked.request.user, "jo");
    let own = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .unwrap()
        .name;
    assert_eq!(asked.request.caller_user, own);
    let words = [&b"a  b"[..], b"", b"$x"].map(<[u8]>::to_vec).to_vec();
    assert_eq!(asked.request.command, Command::Words(words));
    let mut variables = asked.request.environment.clone();
    variables.sort();
    let expected = [("GIT_PROTOCOL", "version=2"), ("LANG", "C.UTF-8")]
        .map(|(n, v)| (n.to_owned(), v.as_bytes().to_vec()));
    assert_eq!(variables, expected);
    let mut session = asked.accept();
    session.expect(&Said::Eof);
    session.end(End::Exited(0));
    assert_eq!(finish(child).status, Some(0));
}

#[test]
fn a_long_command_follows_its_digest() {
    let host = Host::new();
    let long = "x".repeat(100_000);
    let child = host.cosrsh(&["hostb", "echo", &long]).spawn().unwrap();
    let asked = host.take().greet().hear();
    let Command::Follows { digest, length } = asked.request.command.clone() else {
        panic!("{:?}", asked.request.command);
    };
    let proof = asked.our_proof;
    let (mut socket, keys, record) = asked.answer(&Answer::SendCommand);
    socket.write_all(&record).unwrap();
    let mut opener = Opener::new(keys.suite, &keys.to_server).unwrap();
    let mut encoding = Vec::new();
    while encoding.len() < usize::try_from(length).unwrap() {
        let record = client_host::whole_record(&mut socket);
        let mut piece = record::parse(&record, &[Kind::Sealed])
            .unwrap()
            .content
            .to_vec();
        let text = opener.open(&mut piece).unwrap();
        assert!(text.len() <= COMMAND_PIECE);
        encoding.extend_from_slice(text);
    }
    let words = request::decode_words(&encoding, &digest).unwrap();
    assert_eq!(words, [b"echo".to_vec(), long.into_bytes()]);
    let mut sealer = Sealer::new(keys.suite, &keys.to_client).unwrap();
    let mut text = Answer::Accept { proof }.encode().unwrap();
    let tag = sealer.seal(&mut text).unwrap();
    text.extend_from_slice(&tag);
    socket
        .write_all(&record::compose(Kind::Sealed, &text).unwrap())
        .unwrap();
    let mut session = client_host::Session::new(socket, &keys);
    (session.sealer, session.opener) = (sealer, opener);
    session.expect(&Said::Eof);
    session.end(End::Exited(7));
    assert_eq!(finish(child).status, Some(7));
}

#[test]
fn output_that_comes_with_the_answer_is_not_lost() {
    let host = Host::new();
    let child = host.cosrsh(&["hostb", "x"]).spawn().unwrap();
    let asked = host.take().greet().hear();
    let proof = asked.our_proof;
    let (mut socket, keys, mut bytes) = asked.answer(&Answer::Accept { proof });
    let mut sealer = Sealer::new(keys.suite, &keys.to_client).unwrap();
    for message in [
        Message::Data(Stream::Main, b"out"),
        Message::Data(Stream::Error, b"err"),
        Message::Data(Stream::Main, b"put"),
        Message::Eof(Stream::Main),
        Message::Eof(Stream::Error),
        Message::End(End::Exited(3)),
    ] {
        bytes.extend(sealer.record(&message.compose()).unwrap());
    }
    socket.write_all(&bytes).unwrap();
    let ended = finish(child);
    assert_eq!(ended.status, Some(3));
    assert_eq!(
        (ended.out.as_slice(), ended.err.as_str()),
        (&b"output"[..], "err")
    );
}

#[test]
fn input_is_carried_to_its_end_and_output_goes_on() {
    let host = Host::new();
    let mut child = host
        .cosrsh(&["hostb", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
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
    let mut child = host
        .cosrsh(&["-n", "hostb", "x"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"not for them")
        .unwrap();
    let mut session = host.accept();
    assert_eq!(session.hear(), Some(Said::Eof));
    session.end(End::Exited(0));
    assert_eq!(finish(child).status, Some(0));
}

#[test]
fn much_output_arrives_whole_within_its_credit() {
    let host = Host::new();
    let sent = pattern(96 << 20);
    let mut child = host.cosrsh(&["hostb", "x"]).spawn().unwrap();
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
            match session.hear() {
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
    session.end(End::Exited(0));
    assert_eq!(finish(child).status, Some(0));
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn much_input_arrives_whole_within_its_credit() {
    let host = Host::new();
    let sent = pattern(96 << 20);
    let mut child = host
        .cosrsh(&["hostb", "x"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut session = host.accept();
    let (mut window, mut came) = (Window::default(), Vec::new());
    loop {
        match session.hear() {
            Some(Said::Data(bytes)) => {
                // More than was granted would be an error here.
                window.received(bytes.len()).unwrap();
                came.extend_from_slice(&bytes);
                if let Some(grant) = window.consumed(bytes.len()) {
                    session.say(&Message::Credit(Stream::Main, grant));
                }
            }
            Some(Said::Eof) => break,
            other => panic!("{other:?}"),
        }
    }
    session.end(End::Exited(0));
    assert_eq!(finish(child).status, Some(0));
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
        match session.hear() {
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
    session.end(End::Exited(0));
    assert_eq!(finish(child).status, Some(0));
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
    session.end(End::Exited(0));
    assert_eq!(finish(child).status, Some(0));
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
    session.end(End::Exited(0));
    assert_eq!(finish(child).status, Some(0));
}

#[test]
fn a_reader_that_goes_resets_its_stream() {
    let host = Host::new();
    for at_rest in [false, true] {
        let mut child = host.cosrsh(&["-n", "hostb", "yes"]).spawn().unwrap();
        let mut session = host.accept();
        session.expect(&Said::Eof);
        let mut out = child.stdout.take().unwrap();
        session.say(&Message::Data(Stream::Main, b"y\n"));
        let mut line = [0; 2];
        out.read_exact(&mut line).unwrap();
        drop(out);
        // At rest it is noticed all the same, as a local tail -f would.
        if !at_rest {
            session.say(&Message::Data(Stream::Main, b"y\n"));
        }
        session.expect(&Said::Reset(Stream::Main));
        // Data on its way is thrown away, as long as there was credit for it.
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

#[test]
fn a_disk_that_is_full_is_our_failure() {
    let host = Host::new();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let child = host
        .cosrsh(&["-n", "hostb", "x"])
        .stdout(full)
        .spawn()
        .unwrap();
    let mut session = host.accept();
    session.expect(&Said::Eof);
    session.say(&Message::Data(Stream::Main, b"text"));
    session.expect(&Said::Reset(Stream::Main));
    session.end(End::Exited(0));
    let ended = finish(child);
    assert_eq!(ended.status, Some(255));
    assert!(
        ended
            .err
            .starts_with("cos: hostb: standard output: No space left"),
        "{}",
        ended.err
    );
}

#[test]
fn input_that_cannot_be_read_is_no_end_of_input() {
    let host = Host::new();
    let folder = std::fs::File::open(&host.folder).unwrap();
    let child = host.cosrsh(&["hostb", "x"]).stdin(folder).spawn().unwrap();
    let mut session = host.accept();
    assert_eq!(session.hear(), None);
    let ended = finish(child);
    assert_eq!(ended.status, Some(255));
    assert!(
        ended
            .err
            .starts_with("cos: hostb: standard input: Is a directory"),
        "{}",
        ended.err
    );
}

#[test]
fn a_command_that_reads_no_more_stops_the_input() {
    let host = Host::new();
    let mut child = host
        .cosrsh(&["hostb", "x"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut session = host.accept();
    session.say(&Message::Reset(Stream::Main));
    let mut stdin = child.stdin.take().unwrap();
    // Whoever writes to it learns it, while the command goes on.
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
    let mut child = host.cosrsh(&["-n", "hostb", "x"]).spawn().unwrap();
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
fn signals_reach_the_command() {
    let host = Host::new();
    for (kill, signal) in [
        (Kill::SIGHUP, Signal::Hangup),
        (Kill::SIGINT, Signal::Interrupt),
        (Kill::SIGQUIT, Signal::Quit),
        (Kill::SIGTERM, Signal::Terminate),
    ] {
        let child = host.cosrsh(&["-n", "hostb", "x"]).spawn().unwrap();
        let mut session = host.accept();
        session.expect(&Said::Eof);
        send_signal(&child, kill);
        session.expect(&Said::Signal(signal));
        // A command may take a signal and go on.
        session.say(&Message::Data(Stream::Main, b"caught"));
        send_signal(&child, kill);
        session.expect(&Said::Signal(signal));
        session.end(End::Killed(signal.byte()));
        let ended = finish(child);
        assert_eq!(ended.status, Some(128 + i32::from(signal.byte())));
        assert_eq!(
            (ended.out.as_slice(), ended.err.as_str()),
            (&b"caught"[..], "")
        );
    }
}

#[test]
fn signals_that_were_ignored_stay_so() {
    let host = Host::new();
    let program = env!("CARGO_BIN_EXE_cos");
    let line = format!("trap '' HUP INT; exec {program} run -n hostb x");
    let child = host.shell(&line).spawn().unwrap();
    let mut session = host.accept();
    session.expect(&Said::Eof);
    send_signal(&child, Kill::SIGHUP);
    send_signal(&child, Kill::SIGINT);
    send_signal(&child, Kill::SIGTERM);
    session.expect(&Said::Signal(Signal::Terminate));
    session.end(End::Exited(5));
    assert_eq!(finish(child).status, Some(5));
}

#[test]
fn before_it_is_accepted_a_signal_ends_it() {
    let host = Host::new();
    let child = host.cosrsh(&["hostb", "x"]).spawn().unwrap();
    let asked = host.take().greet().hear();
    send_signal(&child, Kill::SIGTERM);
    assert_eq!(finish(child).signal, Some(15));
    drop(asked);
}

#[test]
fn an_output_that_nobody_reads_holds_nothing_up() {
    let host = Host::new();
    let mut child = host
        .cosrsh(&["hostb", "x"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut session = host.accept();
    let sent = pattern(usize::try_from(CREDIT).unwrap());
    for piece in sent.chunks(DATA_PAYLOAD) {
        session.say(&Message::Data(Stream::Main, piece));
    }
    // Behind a megabyte that nobody reads: errors, input and its credit, signals.
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
    // What has come is still there for whoever reads it at last.
    let ended = finish(child);
    assert_eq!(ended.status, Some(130));
    assert!(ended.out == sent);
}

#[test]
fn after_the_end_a_signal_stops_the_writing() {
    let host = Host::new();
    let mut child = host.cosrsh(&["-n", "hostb", "x"]).spawn().unwrap();
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
    // It hangs up though its output is not written yet.
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

#[test]
fn ssh_and_rsh_take_our_place() {
    let host = Host::new();
    let say = "#!/bin/sh\nprintf '%s|' \"${0##*/}\" \"$@\"\nexit 3\n";
    script(&host.folder, "ssh", say);
    script(&host.folder, "rsh", say);
    host.table(
        "hostc ssh port=22\nhostd rsh\n\
         hoste ssh addr=10.0.0.0/8,192.0.2.1,2001:db8::1 port=2222\nhostf rsh addr=192.0.2.2,192.0.2.3\n",
    );
    let run = |words: &[&str]| {
        let mut command = host.cosrsh(words);
        finish(
            command
                .env("PATH", format!("{}:/bin", host.folder.display()))
                .spawn()
                .unwrap(),
        )
    };
    let ended = run(&["-x", "-l", "jo", "hostc", "-n", "a  b", "-x"]);
    assert_eq!(
        String::from_utf8_lossy(&ended.out),
        "ssh|-n|-x|-l|jo|-p|22|--|hostc|a  b|-x|"
    );
    assert_eq!(ended.status, Some(3));
    let ended = run(&["hostd", "uptime"]);
    assert_eq!(String::from_utf8_lossy(&ended.out), "rsh|hostd|uptime|");

    // Where the line lists addresses, the first of them is dialled.
    let said = |words: &[&str]| String::from_utf8(run(words).out).unwrap();
    assert_eq!(
        said(&["hoste", "x"]),
        "ssh|-p|2222|-oHostName=192.0.2.1|-oHostKeyAlias=[hoste]:2222|--|hoste|x|"
    );
    assert_eq!(
        said(&["-p22", "-6", "hoste", "x"]),
        "ssh|-6|-p|22|-oHostName=2001:db8::1|-oHostKeyAlias=hoste|--|hoste|x|"
    );
    assert_eq!(said(&["hostf", "x"]), "rsh|192.0.2.2|x|");
    assert_eq!(said(&["192.0.2.3", "x"]), "rsh|192.0.2.3|x|");
    let ended = run(&["-6", "hostf", "x"]);
    assert_eq!((ended.status, ended.out.len()), (Some(255), 0));
    assert!(ended.err.contains("no address of the family"), "{ended:?}");

    // SIGPIPE is what it was, though Rust programs ignore it.
    script(
        &host.folder,
        "ssh",
        "#!/bin/sh\ngrep SigIgn /proc/self/status\n",
    );
    let told = String::from_utf8_lossy(&run(&["hostc", "x"]).out).into_owned();
    let ignored = u64::from_str_radix(told.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(ignored & (1 << 12), 0, "{told}");

    // A link to ourselves would go round for ever.
    std::fs::remove_file(host.folder.join("rsh")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cos"), host.folder.join("rsh")).unwrap();
    let ended = run(&["hostd", "uptime"]);
    assert_eq!(ended.status, Some(255));
    assert!(ended.err.contains("this program itself"), "{}", ended.err);
}

#[test]
fn verbose_tells_each_step_and_nothing_on_standard_output() {
    let host = Host::new();
    let child = host.cosrsh(&["-v", "hostb", "x"]).spawn().unwrap();
    host.accept().end(End::Exited(4));
    let ended = finish(child);
    assert_eq!((ended.status, ended.out.len()), (Some(4), 0));
    for step in [
        "connected to 127.0.0.1",
        "hello",
        "accepted",
        "exit status 4",
    ] {
        assert!(ended.err.contains(step), "{}", ended.err);
    }
    assert!(
        ended.err.lines().all(|l| l.starts_with("cos: ")),
        "{}",
        ended.err
    );
}

#[test]
fn help_version_and_gits_probe() {
    let host = Host::new();
    let run = |words: &[&str]| finish(host.cosrsh(words).spawn().unwrap());
    let ended = run(&["--version"]);
    assert!(
        ended.status == Some(0) && ended.out.starts_with(b"cos "),
        "{ended:?}"
    );
    assert_eq!(run(&["--help"]).status, Some(0));
    let ended = run(&["-G", "-o", "SendEnv=GIT_PROTOCOL", "nowhere"]);
    assert_eq!(
        (ended.status, ended.out.len(), ended.err.len()),
        (Some(0), 0, 0)
    );
    let ended = run(&["-p", "0", "hostb", "x"]);
    assert!(
        ended.status == Some(255) && ended.err.contains("give 1 to 65535"),
        "{ended:?}"
    );
}
