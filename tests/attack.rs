//! Unauthenticated connections: every rejection comes within its time limit, is logged once with
//! peer and reason, and starts nothing.

use crate::daemon;

use std::time::Duration;

use cosserver::protocol::hello::{Hello, Suite};
use cosserver::protocol::limits::{COMMAND_PIECE, GREETING_BODY, HELLO_BODY};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::Command;
use cosserver::protocol::seal::Sealer;
use cosserver::protocol::stream::End;
use cosserver::secret::{KeyPair, Secret};
use daemon::Daemon;
use daemon::hostile::{Caller, RawConnection, hello, timed};

/// Deadlines and rejections of one second, and no penalty that would deny the next attempt.
const QUICK: &str = "limits.hello = 1\nlimits.handshake = 1\ndaemon.refusal-interval = 1\n";

/// Checks the log's next rejection of an unauthenticated connection, from line `from` on.
fn assert_logged_rejection(d: &Daemon, from: usize, cause: &str) {
    let (_, line) = d.log.wait_from(from, |l| l.starts_with("closed peer="));
    assert!(
        line.contains("peer=127.0.0.1") && line.contains(&format!("cause={cause}")),
        "{line}"
    );
}

/// Checks that this many connections were rejected, and that the log has each once: the line of a
/// later command comes after all of theirs.
fn each_logged_once(d: &Daemon, count: usize) {
    let from = d.log.all().len();
    d.says(0, &["true"]);
    d.log.wait_from(from, |l| l.starts_with("exec session="));
    d.log.said_times("closed peer=", count);
}

/// Returns a record with this length, magic, type and content.
fn raw(length: u16, magic: &[u8; 4], kind: u8, content: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], magic, &[kind], content].concat()
}

#[test]
fn garbage_before_the_hello_is_closed_without_an_answer_and_logged_once() {
    let d = Daemon::start_as(QUICK, "");
    let good = hello();
    let content = &good[7..];
    let n = (good.len() - 2) as u16;
    let too_long = (HELLO_BODY + 1) as u16;
    let unknown = Hello {
        version: 1,
        suites: vec![],
        wants_host_key: false,
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("wrong magic", raw(n, b"COSx", 1, content)),
        ("unknown type", raw(n, b"COSs", 9, content)),
        ("ClientHello out of turn", raw(n, b"COSs", 3, content)),
        ("Denied out of turn", raw(13, b"COSs", 5, &[0; 8])),
        ("zero length", raw(0, b"COSs", 1, content)),
        (
            "one byte over",
            raw(too_long, b"COSs", 1, &[0; HELLO_BODY - 4]),
        ),
        ("the longest length", raw(u16::MAX, b"COSs", 1, content)),
        ("no content", raw(5, b"COSs", 1, b"")),
        ("no CBOR", raw(9, b"COSs", 1, b"\xff\xff\xff\xff")),
        ("no suite", unknown.compose().unwrap()),
        ("a byte behind", [&good[..], b"x"].concat()),
        ("a second Hello", [&good[..], &good[..]].concat()),
        ("zeros", vec![0; 4096]),
        (
            "noise",
            (0..4096_u32).map(|i| (i * 7 + 129) as u8).collect(),
        ),
    ];
    for (what, bytes) in &cases {
        let from = d.log.all().len();
        let mut s = RawConnection::connect(d.port);
        s.send(bytes);
        let ((), took) = timed(|| s.closed());
        assert!(took < Duration::from_millis(900), "{what}: {took:?}");
        assert_logged_rejection(&d, from, "malformed");
    }
    each_logged_once(&d, cases.len());
}

#[test]
fn garbage_after_the_hello_is_closed_without_an_answer_and_logged_once() {
    let d = Daemon::start_as(QUICK, "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("started");
    let command = format!("touch {}", marker.display());
    type Make = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Make); 8] = [
        ("Hello again", |_| hello()),
        ("Sealed out of turn", |b| [&b[..6], &[6], &b[7..]].concat()),
        ("Answer", |b| [&b[..6], &[4], &b[7..]].concat()),
        ("wrong magic", |b| [&b[..2], b"cOSs", &b[6..]].concat()),
        ("zero length", |_| vec![0, 0]),
        ("one byte over", |_| {
            raw(
                (GREETING_BODY + 1) as u16,
                b"COSs",
                3,
                &[0; GREETING_BODY - 4],
            )
        }),
        ("a byte behind", |b| [b, b"x"].concat()),
        ("a record behind", |b| [b, b].concat()),
    ];
    for (what, make) in cases {
        let mut s = RawConnection::connect(d.port);
        let greeting = s.greet();
        let from = d.log.all().len();
        let good = caller.client_hello(&greeting, &caller.request(&command)).0;
        s.send(&make(&good));
        let ((), took) = timed(|| s.closed());
        assert!(took < Duration::from_millis(900), "{what}: {took:?}");
        assert_logged_rejection(&d, from, "malformed");
    }
    each_logged_once(&d, cases.len());
    assert!(!marker.exists(), "something was started");
}

#[test]
fn silent_connection_ends_at_its_deadline_without_thread_or_process() {
    let d = Daemon::start_as(QUICK, "");
    // The processes that a host's first command starts exist, and stay for a minute.
    d.says(0, &["true"]);
    d.log.wait("auto-registered machine=");
    let gate = d.process("gate");
    let (threads, processes) = (
        daemon::status(gate, "Threads"),
        daemon::lasting_children(d.pid()),
    );
    let half = |s: &mut RawConnection, bytes: &[u8]| s.send(&bytes[..bytes.len() / 2]);
    type Say = dyn Fn(&mut RawConnection);
    let cases: [(&str, &str, Box<Say>); 5] = [
        ("nothing at all", "no-hello", Box::new(|_| ())),
        ("half a length", "no-hello", Box::new(|s| s.send(&[0]))),
        (
            "half a Hello",
            "no-hello",
            Box::new(move |s| half(s, &hello())),
        ),
        ("a Hello", "no-handshake", Box::new(|s| drop(s.greet()))),
        (
            "half a ClientHello",
            "no-handshake",
            Box::new(|s| {
                drop(s.greet());
                s.send(&raw(200, b"COSs", 3, &[1; 100]));
            }),
        ),
    ];
    for (what, cause, say) in &cases {
        let from = d.log.all().len();
        let mut s = RawConnection::connect(d.port);
        let ((), took) = timed(|| {
            say(&mut s);
            assert_eq!(daemon::status(gate, "Threads"), threads, "{what}");
            assert_eq!(daemon::lasting_children(d.pid()), processes, "{what}");
            s.closed();
        });
        assert!(took > Duration::from_millis(900), "{what}: {took:?}");
        assert!(took < Duration::from_millis(2500), "{what}: {took:?}");
        assert_logged_rejection(&d, from, cause);
    }
    each_logged_once(&d, cases.len());
}

#[test]
fn sending_single_bytes_does_not_extend_the_deadline() {
    let d = Daemon::start_as(QUICK, "");
    let mut s = RawConnection::connect(d.port);
    // The read's time-out sets the pace; the last byte is never sent.
    let pace = Duration::from_millis(80);
    s.socket.set_read_timeout(Some(pace)).unwrap();
    let bytes = hello();
    let ((), took) = timed(|| {
        for byte in &bytes[..bytes.len() - 1] {
            s.send(&[*byte]);
            match std::io::Read::read(&mut s.socket, &mut [0]) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
        s.socket.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        s.closed();
    });
    assert!(took < Duration::from_millis(2500), "{took:?}");
    d.log.wait("cause=no-hello");
}

#[test]
fn disconnect_during_the_handshake_is_logged_once_and_leaks_nothing() {
    let d = Daemon::start_as(QUICK, "");
    let gate = d.process("gate");
    let open = d.gate_at_rest();
    for middle in ["length", "hello", "greeted", "client-hello"] {
        let from = d.log.all().len();
        let mut s = RawConnection::connect(d.port);
        match middle {
            "length" => s.send(&[0]),
            "hello" => s.send(&hello()[..9]),
            "greeted" => drop(s.greet()),
            _ => {
                drop(s.greet());
                s.send(&raw(200, b"COSs", 3, &[1; 50]));
            }
        }
        drop(s);
        assert_logged_rejection(&d, from, "left");
    }
    daemon::until("descriptors are back", || daemon::descriptors(gate) == open);
    // One of them is the test's own connection, by which the gate's baseline was measured.
    each_logged_once(&d, 1 + 4);
}

/// Every denial: the same bytes but for the reference, at a multiple of the interval, with its
/// cause in the log and nothing started.
#[test]
fn every_refusal_is_the_same_and_comes_at_the_same_time() {
    let d = Daemon::start_as("", "commands=\"/bin/echo *\"");
    let caller = Caller::of(&d);
    let marker = d.folder.path("started");
    let touch = format!("touch {}", marker.display());
    let wrong_caller = |change: fn(&mut Caller)| {
        let mut c = caller.clone();
        change(&mut c);
        c
    };
    // A valid proof records the machine's key.
    let mut first = RawConnection::connect(d.port);
    let greeting = first.greet();
    let words = Command::Words(vec![b"/bin/echo".to_vec(), b"x".to_vec()]);
    let (bytes, noise) = caller.client_hello(&greeting, &caller.request_of(words.clone()));
    first.send(&bytes);
    assert_eq!(first.session(noise).finish().0, b"x\n");

    let cases: Vec<(&str, Caller)> = vec![
        ("unknown-host", wrong_caller(|c| c.name = "hostz".into())),
        (
            "unknown-host",
            wrong_caller(|c| c.name = "no such name".into()),
        ),
        (
            "server-name",
            wrong_caller(|c| c.server = "elsewhere".into()),
        ),
        (
            "proof",
            wrong_caller(|c| c.cookie = Secret::random().unwrap()),
        ),
        (
            "machine-key",
            wrong_caller(|c| c.machine = KeyPair::random().unwrap()),
        ),
        (
            "handshake",
            wrong_caller(|c| c.host = KeyPair::random().unwrap().public),
        ),
        ("user", wrong_caller(|c| c.user = "daemon".into())),
        ("user", wrong_caller(|c| c.user = "-froot".into())),
        ("command", wrong_caller(|_| ())),
    ];
    std::thread::scope(|scope| {
        for (cause, c) in &cases {
            let (d, touch) = (&d, &touch);
            scope.spawn(move || {
                let mut s = c.ask(d.port, touch);
                let (reference, took) = timed(|| s.denied());
                let line = d.log.wait(&format!("ref={reference}"));
                assert!(line.starts_with("denied "), "{line}");
                assert!(line.contains(&format!("cause={cause}")), "{cause}: {line}");
                assert!(line.contains("peer=127.0.0.1"), "{line}");
                d.log.said_times(&reference, 1);
                assert!(
                    took > Duration::from_millis(1950) && took < Duration::from_millis(2900),
                    "{cause}: {took:?}"
                );
            });
        }
        // From an address that is not its own, although everything else is right.
        scope.spawn(|| {
            let mut s = RawConnection::from_address("127.9.9.9".parse().unwrap(), d.port);
            let greeting = s.greet();
            s.send(&caller.client_hello(&greeting, &caller.request_of(words)).0);
            let (reference, took) = timed(|| s.denied());
            let line = d.log.wait(&format!("ref={reference}"));
            assert!(
                line.contains("cause=address") && line.contains("peer=127.9.9.9"),
                "{line}"
            );
            assert!(took > Duration::from_millis(1950), "{took:?}");
        });
    });
    assert!(!marker.exists(), "something was started");
    d.log.said_times("exec session=", 1);
}

/// A byte changed at every position: of the Hello in transit (so the server sees another than the
/// client sent), of the ServerHello, of the ClientHello.
#[test]
fn a_changed_byte_anywhere_is_refused() {
    let d = Daemon::start_as(QUICK, "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("started");
    let request = caller.request(&format!("touch {}", marker.display()));
    let mut waiting = Vec::new();
    let mut closed = 0;
    let step = if daemon::long() { 1 } else { 3 };
    let mut probe = RawConnection::connect(d.port);
    let sample = probe.greet();
    let length = caller.client_hello(&sample, &request).0.len();
    drop(probe);

    for at in 0..hello().len() {
        let mut s = RawConnection::connect(d.port);
        let mut changed = hello();
        changed[at] ^= 1;
        s.send(&changed);
        s.socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // Many a changed Hello is still valid; then the handshake must fail.
        let Some(server_hello) = s.record() else {
            closed += 1;
            continue;
        };
        let mut greeting = sample.clone();
        greeting.server_hello = server_hello;
        if Hello::parse(&greeting.hello).is_ok() {
            s.send(&caller.client_hello(&greeting, &request).0);
            waiting.push(s);
        }
    }
    assert!(closed > 0 && !waiting.is_empty(), "{closed} closed");
    for at in 0..sample.server_hello.len() {
        let mut s = RawConnection::connect(d.port);
        let mut greeting = s.greet();
        greeting.server_hello[at] ^= 1;
        let parsed = Hello::parse(&greeting.hello).unwrap();
        let sane = cosserver::protocol::hello::ServerHello::parse(&greeting.server_hello, &parsed);
        if sane.is_ok() {
            s.send(&caller.client_hello(&greeting, &request).0);
            waiting.push(s);
        }
    }
    for at in (7..length).step_by(step) {
        let mut s = RawConnection::connect(d.port);
        let greeting = s.greet();
        let mut bytes = caller.client_hello(&greeting, &request).0;
        bytes[at] ^= 1 << (at % 8);
        s.send(&bytes);
        waiting.push(s);
    }
    assert!(waiting.len() > 100, "{}", waiting.len());
    for s in &mut waiting {
        s.denied();
    }
    assert!(!marker.exists(), "something was started");
    assert_eq!(d.log.count("exec session="), 0);
    d.says(0, &["true"]);
}

/// A valid ClientHello, recorded and sent again: on its own connection, on others, many at once,
/// and to the restarted daemon.
#[test]
fn a_replayed_handshake_starts_nothing() {
    let mut d = Daemon::start_as(&format!("{QUICK}limits.silent-per-source = 5000\n"), "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("count");
    let request = caller.request(&format!("echo x >> {}", marker.display()));
    let mut s = RawConnection::connect(d.port);
    let greeting = s.greet();
    let (recorded, noise) = caller.client_hello(&greeting, &request);
    s.send(&recorded);
    let mut session = s.session(noise);
    session.finish();
    // On the session's own connection it is not a valid record.
    session.raw_connection.send(&recorded);
    session.raw_connection.rest();

    let count = if daemon::long() { 5000 } else { 600 };
    let replay = |port| {
        let mut s = RawConnection::connect(port);
        s.greet();
        s.send(&recorded);
        s
    };
    let burst = |port| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut all: Vec<_> = (0..count / 4).map(|_| replay(port)).collect();
                    all.iter_mut().for_each(|s| drop(s.denied()));
                });
            }
        });
    };
    burst(d.port);
    // With legitimate connections in between, each with its own nonce.
    for _ in 0..3 {
        d.says(0, &["true"]);
    }
    // A restarted daemon has drawn other nonces.
    d.signal(nix::sys::signal::Signal::SIGTERM);
    d.child.wait().unwrap();
    let folder = std::mem::take(&mut d.folder);
    drop(d);
    let d = Daemon::start_in(folder, &[]);
    replay(d.port).denied();
    let text = std::fs::read_to_string(&marker).unwrap();
    assert_eq!(text, "x\n", "a replay was run");
    assert!(d.log.wait("denied ").contains("cause=handshake"));
}

/// The first verification consumes the nonce, whether or not it succeeds.
#[test]
fn nonce_is_valid_for_one_attempt() {
    let d = Daemon::start_as(QUICK, "");
    let caller = Caller::of(&d);
    let mut thief = caller.clone();
    thief.cookie = Secret::random().unwrap();
    let mut s = RawConnection::connect(d.port);
    let greeting = s.greet();
    s.send(&thief.client_hello(&greeting, &thief.request("true")).0);
    d.log.wait("cause=proof");
    // The valid one comes too late, even before the rejection has been sent.
    s.send(&caller.client_hello(&greeting, &caller.request("true")).0);
    s.closed();
    // On another connection the nonce is unknown.
    let mut other = RawConnection::connect(d.port);
    other.greet();
    other.send(&caller.client_hello(&greeting, &caller.request("true")).0);
    other.denied();
    assert_eq!(d.log.count("exec session="), 0);
}

fn long_words(marker: &std::path::Path) -> Vec<Vec<u8>> {
    let filler = "x".repeat(100_000);
    vec![format!("touch {}; : {filler}", marker.display()).into_bytes()]
}

/// A long command in the smallest possible pieces, all sent at once: they are more than the gate
/// may hold, and it must forward them at its own pace.
#[test]
fn a_long_command_in_pieces_of_one_byte_is_no_burden() {
    let d = Daemon::start_as("", "");
    let caller = Caller::of(&d);
    let gate = d.process("gate");
    let marker = d.folder.path("started");
    let (mut s, keys, rest) = caller.announces(d.port, &long_words(&marker));
    let mut sealer = Sealer::new(keys.suite, &keys.to_server).unwrap();
    let mut all = Vec::new();
    for byte in &rest {
        let mut piece = vec![*byte];
        let tag = sealer.seal(&mut piece).unwrap();
        piece.extend_from_slice(&tag);
        all.extend_from_slice(&record::compose(Kind::Sealed, &piece).unwrap());
    }
    s.send(&all);
    let answer = s.record().expect("the pieces were not taken");
    assert!(record::parse(&answer, &[Kind::Sealed]).is_ok());
    assert_eq!(d.process("gate"), gate, "the gate did not live through it");
    daemon::until("the command ran", || marker.exists());
}

/// Invalid pieces of a long command are rejected, and start nothing.
#[test]
fn invalid_pieces_of_a_long_command_are_refused() {
    let d = Daemon::start_as(QUICK, "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("started");
    let words = long_words(&marker);
    let gate = d.process("gate");
    for wrong in [
        "changed", "shuffled", "empty", "unsealed", "behind", "silent",
    ] {
        let (mut s, keys, mut rest) = caller.announces(d.port, &words);
        let mut sealer = Sealer::new(keys.suite, &keys.to_server).unwrap();
        let mut seal = |piece: &[u8]| {
            let mut text = piece.to_vec();
            let tag = sealer.seal(&mut text).unwrap();
            text.extend_from_slice(&tag);
            record::compose(Kind::Sealed, &text).unwrap()
        };
        if wrong == "changed" {
            *rest.last_mut().unwrap() ^= 1;
        }
        let mut pieces: Vec<Vec<u8>> = rest.chunks(COMMAND_PIECE).map(&mut seal).collect();
        match wrong {
            "shuffled" => pieces.swap(0, 1),
            "empty" => pieces = vec![seal(b"")],
            "unsealed" => pieces = vec![record::compose(Kind::Sealed, &[7; 64]).unwrap()],
            "behind" => pieces.last_mut().unwrap().extend_from_slice(b"x"),
            "silent" => pieces.truncate(3),
            _ => {}
        }
        let from = d.log.all().len();
        // Only the first, if the rest would come after its rejection.
        let send = if wrong == "shuffled" {
            &pieces[..1]
        } else {
            &pieces[..]
        };
        s.send(&send.concat());
        match wrong {
            "behind" => {
                s.closed();
                assert_logged_rejection(&d, from, "malformed");
            }
            "silent" => {
                s.closed();
                assert_logged_rejection(&d, from, "no-handshake");
            }
            _ => {
                let reference = s.denied();
                let line = d.log.wait(&reference);
                assert!(
                    line.contains("cause=request") && line.contains("peer=127.0.0.1"),
                    "{line}"
                );
            }
        }
    }
    assert!(!marker.exists(), "something was started");
    assert_eq!(d.process("gate"), gate);
    each_logged_once(&d, 2);
}

#[test]
fn a_callers_name_with_an_escape_or_a_newline_is_denied() {
    let d = Daemon::start_as(QUICK, "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("marker");
    let request = caller.request(&format!("touch {}", marker.display()));
    let at = request.windows(6).position(|w| w == b"tester").unwrap();
    // The last name is valid and allowed, so the others are denied only for their characters.
    let names = [
        "te\u{1b}ter",
        "te\nter",
        "te\u{9b}er",
        "\u{202e}ter",
        "te ter",
        "-ester",
        "tes/er",
        "teßer",
    ];
    for name in names {
        let mut request = request.clone();
        request[at..at + 6].copy_from_slice(name.as_bytes());
        let mut s = RawConnection::connect(d.port);
        let greeting = s.greet();
        let (hello, noise) = caller.client_hello(&greeting, &request);
        s.send(&hello);
        if name == "teßer" {
            assert_eq!(s.session(noise).finish().1, Some(End::Exited(0)));
            continue;
        }
        let line = d.log.wait(&s.denied());
        assert!(
            line.contains("cause=request") && line.contains("no user can have"),
            "{line}"
        );
        assert!(!marker.exists(), "{name:?}: something was started");
    }
    assert!(marker.exists());
}

#[test]
fn unknown_suite_is_ignored_and_every_suite_encrypts() {
    let d = Daemon::start_as(QUICK, "");
    // Version 7, suites 99 and 2: the connection is version 1 with suite 2.
    let mut s = RawConnection::connect(d.port);
    s.send(&raw(
        12,
        b"COSs",
        1,
        b"\xa2\x01\x07\x02\x82\x18\x63\x02"[..].get(..7).unwrap(),
    ));
    s.closed();
    let mut s = RawConnection::connect(d.port);
    let content = b"\xa2\x01\x07\x02\x82\x18\x63\x02";
    s.send(&raw(5 + content.len() as u16, b"COSs", 1, content));
    let answer = s.record().unwrap();
    let offered = Hello {
        version: 7,
        suites: vec![Suite::ChaChaPoly],
        wants_host_key: false,
    };
    let server = cosserver::protocol::hello::ServerHello::parse(&answer, &offered).unwrap();
    assert_eq!((server.version, server.suite), (1, Suite::ChaChaPoly));
    assert!(server.host_key.is_none(), "nobody asked for it");
    for alone in [0_u8, 3, 23] {
        let mut s = RawConnection::connect(d.port);
        s.send(&raw(10, b"COSs", 1, &[0xa2, 1, 1, 2, 0x81, alone][..]).split_off(0));
        s.closed();
    }
}
