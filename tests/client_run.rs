//! The real `cos` against a host simulated by the test: what it requests, how it ends, and the
//! signals in between. The data that it carries is in `client_streams.rs`.

#[cfg(test)]
use crate::client_host;

use std::io::Write;

use client_host::{Host, Said, ends_well, finish, script, send_signal};
use cosserver::protocol::answer::Answer;
use cosserver::protocol::limits::COMMAND_PIECE;
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{self, Command, Service};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::{End, Message, Signal, Stream};
use nix::sys::signal::Signal as Kill;

#[test]
fn the_status_is_the_remote_one() {
    let host = Host::new();
    let ends = [0, 1, 2, 42, 126, 127, 128, 254, 255]
        .map(|n| (End::Exited(n), i32::from(n)))
        .into_iter()
        .chain([1, 2, 9, 15, 64].map(|n| (End::Killed(n), 128 + i32::from(n))));
    for (end, status) in ends {
        let child = host.start(&["hostb", "x"]);
        host.accept().end(end);
        let ended = finish(child);
        assert_eq!(
            (ended.status, ended.out.len(), ended.err.as_str()),
            (Some(status), 0, "")
        );
    }
}

#[test]
fn start_failure_is_reported_in_one_clean_line() {
    let host = Host::new();
    let child = host.start(&["hostb", "x"]);
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
    let asked = host.take().greet().receive();
    assert_eq!(
        (asked.caller.as_str(), asked.server.as_str()),
        ("hosta", "hostb")
    );
    assert_eq!(asked.request.user, "jo");
    let own = nix::unistd::User::from_uid(nix::unistd::getuid())
        .unwrap()
        .unwrap()
        .name;
    assert_eq!(asked.request.caller_user.as_str(), own);
    let words = [&b"a  b"[..], b"", b"$x"].map(<[u8]>::to_vec).to_vec();
    assert_eq!(asked.request.command, Command::Words(words));
    let mut variables = asked.request.environment.clone();
    variables.sort();
    let expected = [("GIT_PROTOCOL", "version=2"), ("LANG", "C.UTF-8")]
        .map(|(n, v)| (n.to_owned(), v.as_bytes().to_vec()));
    assert_eq!(variables, expected);
    let mut session = asked.accept();
    session.expect(&Said::Eof);
    ends_well(session, child);
}

#[test]
fn subsystem_request_has_only_its_name() {
    let host = Host::new();
    let mut command = host.cosrsh(&["-o", "Linger=3", "hostb", "-s", "sftp"]);
    command.env_clear().env("COS_CONFIG_DIR", &host.folder);
    let child = command.env("LANG", "C").env("OTHER", "x").spawn().unwrap();
    let asked = host.take().greet().receive();
    assert_eq!(asked.request.service, Service::Subsystem);
    let name = Command::Words(vec![b"sftp".to_vec()]);
    assert_eq!(asked.request.command, name);
    let variables = [("LANG".to_owned(), b"C".to_vec())];
    assert_eq!(asked.request.environment, variables);
    assert_eq!(asked.request.linger, Some(3));
    let mut session = asked.accept();
    session.expect(&Said::Eof);
    ends_well(session, child);
}

#[test]
fn a_long_command_follows_its_digest() {
    let host = Host::new();
    let long = "x".repeat(100_000);
    let child = host.start(&["hostb", "echo", &long]);
    let asked = host.take().greet().receive();
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
    let mut text = Answer::accept(proof, Vec::new()).encode().unwrap();
    let tag = sealer.seal(&mut text).unwrap();
    text.extend_from_slice(&tag);
    socket
        .write_all(&record::compose(Kind::Sealed, &text).unwrap())
        .unwrap();
    // The prompts are over: both sides continue with the next keys.
    sealer.rekey().unwrap();
    opener.rekey().unwrap();
    let mut session = client_host::Session::new(socket, &keys);
    (session.sealer, session.opener) = (sealer, opener);
    session.expect(&Said::Eof);
    session.end(End::Exited(7));
    assert_eq!(finish(child).status, Some(7));
}

#[test]
fn output_that_comes_with_the_answer_is_not_lost() {
    let host = Host::new();
    let child = host.start(&["hostb", "x"]);
    let asked = host.take().greet().receive();
    let proof = asked.our_proof;
    let (mut socket, keys, mut bytes) = asked.answer(&Answer::accept(proof, Vec::new()));
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
fn signals_reach_the_command() {
    let host = Host::new();
    for (kill, signal) in [
        (Kill::SIGHUP, Signal::Hangup),
        (Kill::SIGINT, Signal::Interrupt),
        (Kill::SIGQUIT, Signal::Quit),
        (Kill::SIGTERM, Signal::Terminate),
    ] {
        let child = host.start(&["-n", "hostb", "x"]);
        let mut session = host.accept();
        session.expect(&Said::Eof);
        send_signal(&child, kill);
        session.expect(&Said::Signal(signal));
        // A command may handle a signal and continue.
        session.say(&Message::Data(Stream::Main, b"caught"));
        // The user may send these as often as needed: a second HUP or TERM ends the client.
        if matches!(signal, Signal::Interrupt | Signal::Quit) {
            send_signal(&child, kill);
            session.expect(&Said::Signal(signal));
        }
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
    let child = host.start(&["hostb", "x"]);
    let asked = host.take().greet().receive();
    send_signal(&child, Kill::SIGTERM);
    assert_eq!(finish(child).signal, Some(15));
    drop(asked);
}

#[test]
fn ssh_and_rsh_replace_the_client_process() {
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
        "ssh|-n|-l|jo|-p|22|-x|--|hostc|a  b|-x|"
    );
    assert_eq!(ended.status, Some(3));
    let ended = run(&["hostd", "uptime"]);
    assert_eq!(String::from_utf8_lossy(&ended.out), "rsh|hostd|uptime|");

    // If the line lists addresses, the client connects to the first of them.
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
    assert!(
        ended.err.contains("no address of the requested family"),
        "{ended:?}"
    );

    // SIGPIPE keeps its original action, although Rust programs ignore it.
    script(
        &host.folder,
        "ssh",
        "#!/bin/sh\ngrep SigIgn /proc/self/status\n",
    );
    let told = String::from_utf8_lossy(&run(&["hostc", "x"]).out).into_owned();
    let ignored = u64::from_str_radix(told.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(ignored & (1 << 12), 0, "{told}");

    // A link to this program itself would loop forever.
    std::fs::remove_file(host.folder.join("rsh")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cos"), host.folder.join("rsh")).unwrap();
    let mut command = host.cosrsh(&["hostd", "uptime"]);
    let ended = finish(command.env("PATH", &host.folder).spawn().unwrap());
    assert_eq!(ended.status, Some(255));
    assert!(ended.err.contains("this program itself"), "{}", ended.err);
}

#[test]
fn verbose_reports_each_step_and_nothing_on_standard_output() {
    let host = Host::new();
    let child = host.start(&["-v", "hostb", "x"]);
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
    let run = |words: &[&str]| finish(host.start(words));
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
