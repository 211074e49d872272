//! `cos gui` and hosts simulated by the test, which need not be what they claim: what the client
//! accepts from them, and what it shows of their texts.

#[cfg(test)]
use crate::client_host;
use crate::daemon;
use crate::seat;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use cosserver::protocol::answer::Answer;
use cosserver::protocol::hello::{Hello, ServerHello};
use cosserver::protocol::limits::ROUNDS;
use cosserver::protocol::noise::{Keys, Prepared, Responder};
use cosserver::protocol::prompt::{Asks, Style, Text};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::secret::{KeyPair, PublicKey, random};

use client_host::{Host, gone, script, whole_record};
use daemon::session::Session;
use daemon::{COS, until};
use seat::Seat;

/// Longer than anything in these tests takes; a process that hangs fails the test.
const HANGS: Duration = Duration::from_secs(60);

/// A simulated host that has shown a key.
struct Shown {
    socket: TcpStream,
    hello: Vec<u8>,
    ours: ServerHello,
}

impl Shown {
    /// Waits for the client, and shows it this key.
    fn to_next(host: &Host, key: &PublicKey) -> Self {
        host.listener.set_nonblocking(true).unwrap();
        let mut came = None;
        until("the client connects", || {
            came = host.listener.accept().ok();
            came.is_some()
        });
        let (mut socket, _) = came.unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(HANGS)).unwrap();
        let hello = whole_record(&mut socket);
        let ours = ServerHello {
            version: 1,
            suite: Hello::parse(&hello).unwrap().suites[0],
            nonce: random().unwrap(),
            greeting_limit: 4096,
            host_key: Some(*key),
        };
        socket.write_all(&ours.compose().unwrap()).unwrap();
        Self {
            socket,
            hello,
            ours,
        }
    }

    /// Proves the key, and sends prompts.
    fn asks(mut self, host: &Host, texts: &[(Style, &str)]) -> (TcpStream, Keys) {
        let record = whole_record(&mut self.socket);
        let message = record::parse(&record, &[Kind::ClientHello]).unwrap();
        let opened = Responder::open(
            self.ours.suite,
            &host.key,
            &self.hello,
            &self.ours.compose().unwrap(),
            message.content,
            Prepared::default(),
        );
        let question = prompts(texts).encode().unwrap();
        let (message, keys) = opened.unwrap().responder.message_2(&question).unwrap();
        let record = record::compose(Kind::Answer, &message).unwrap();
        self.socket.write_all(&record).unwrap();
        (self.socket, keys)
    }
}

fn prompts(texts: &[(Style, &str)]) -> Answer {
    let text = |(style, words): &(Style, &str)| Text {
        style: *style,
        words: (*words).to_owned(),
    };
    Answer::Prompts {
        by: Asks::Login,
        texts: texts.iter().map(text).collect(),
    }
}

/// Creates a host that is in the table, but whose key is not pinned.
fn unknown() -> Host {
    let host = Host::new();
    fs::remove_file(host.paths.known_hosts()).unwrap();
    host
}

/// Creates `cos gui FLAGS… -l alice hostb hello`, where `hostb` is a simulated host.
fn asks_of(host: &Host, flags: &[&str]) -> Command {
    let mut command = Command::new(COS);
    command.arg("-C").arg(&host.folder).arg("gui").args(flags);
    command.args(["-l", "alice", "hostb", "hello"]);
    for name in ["GUI_HOST", "GUI_PORT", "COS_ASKPASS"] {
        command.env_remove(name);
    }
    command
}

/// Regression: a key was pinned as soon as the user had said yes, and the real host then had
/// "changed".
#[test]
fn a_key_is_pinned_once_it_is_proven_and_not_before() {
    let host = unknown();
    let known_hosts = host.paths.known_hosts();
    // A host with a key that is not its own, or one that cannot be proven.
    let foreign = KeyPair::random().unwrap().public;
    let mut one = [0; 32];
    one[0] = 1;
    for key in [foreign, PublicKey([0; 32]), PublicKey(one)] {
        let mut seat = Seat::take(&asks_of(&host, &[]));
        let first = Shown::to_next(&host, &key);
        if key == foreign {
            seat.sees("(yes/no) ");
            seat.types(b"yes\n");
            let mut second = Shown::to_next(&host, &key);
            whole_record(&mut second.socket);
        }
        drop(first);
        let ended = seat.ends();
        assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
        assert!(!known_hosts.exists(), "{key:?}: {ended:?}");
    }
    // Another key than the accepted one.
    let mut seat = Seat::take(&asks_of(&host, &[]));
    let _first = Shown::to_next(&host, &host.key.public);
    seat.sees("(yes/no) ");
    seat.types(b"yes\n");
    let mut second = Shown::to_next(&host, &foreign);
    gone(&mut second.socket);
    let ended = seat.ends();
    assert!(ended.err.concat().contains("Nothing was sent"), "{ended:?}");
    assert!(!known_hosts.exists());
    // The host itself: before the first answer is given.
    let mut seat = Seat::take(&asks_of(&host, &[]));
    let _first = Shown::to_next(&host, &host.key.public);
    seat.sees("(yes/no) ");
    seat.types(b"yes\n");
    let second = Shown::to_next(&host, &host.key.public);
    let held = second.asks(&host, &[(Style::Hidden, "Password: ")]);
    seat.sees("Password: ");
    let pinned = fs::read_to_string(&known_hosts).unwrap();
    assert_eq!(pinned, format!("hostb {}\n", host.key.public.to_hex()));
    seat.types_unseen(b"\x04");
    assert_eq!(seat.ends().status, Some(255));
    drop(held);
}

/// Sends further prompts in reply to an answer.
fn asks_again(socket: &mut TcpStream, sealer: &mut Sealer, texts: &[(Style, &str)]) {
    whole_record(socket);
    let mut question = prompts(texts).encode().unwrap();
    let tag = sealer.seal(&mut question).unwrap();
    question.extend_from_slice(&tag);
    let record = record::compose(Kind::Sealed, &question).unwrap();
    socket.write_all(&record).unwrap();
}

#[test]
fn client_gives_up_on_a_host_that_keeps_prompting() {
    let host = Host::new();
    let mut command = asks_of(&host, &["--password-fd", "0"]);
    command.stdin(Stdio::piped());
    let mut client = Session::spawn(&mut command);
    // One answer more than the host may request, so that they do not run out.
    for _ in 0..=ROUNDS {
        client.say("secret");
    }
    let question = [(Style::Hidden, "Again: ")];
    let shown = Shown::to_next(&host, &host.key.public);
    let (mut socket, keys) = shown.asks(&host, &question);
    let mut sealer = Sealer::new(keys.suite, &keys.to_client).unwrap();
    for _ in 0..ROUNDS {
        asks_again(&mut socket, &mut sealer, &question);
    }
    gone(&mut socket);
    let ended = client.finish();
    assert_eq!(ended.status, Some(255), "{ended:?}");
    let err = ended.err.concat();
    let words = format!("asks more than {ROUNDS} times");
    assert!(err.contains(&words), "{err}");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/man/cos.1");
    assert!(fs::read_to_string(page).unwrap().contains(&words));
}

#[test]
fn a_prompt_is_no_option_of_the_program_that_answers() {
    let host = Host::new();
    let program = script(
        &host.folder,
        "askpass",
        "#!/bin/sh\nprintf '%s\\n' \"$1\" > \"$0.asked\"",
    );
    let mut command = asks_of(&host, &[]);
    let mut client = Session::spawn(command.env("COS_ASKPASS", &program));
    drop(client.stdin.take());
    let shown = Shown::to_next(&host, &host.key.public);
    let (mut socket, _keys) = shown.asks(&host, &[(Style::Hidden, "--help")]);
    gone(&mut socket);
    assert_eq!(client.finish().status, Some(255));
    let asked = fs::read_to_string(host.folder.join("askpass.asked")).unwrap();
    assert!(asked.ends_with("@hostb: --help\n"), "{asked}");
}

/// Regression: a shell's `kill -TSTP` left the terminal without echo, and the prompt was over when
/// the client continued.
#[test]
fn a_client_that_is_stopped_gives_the_echo_back_and_asks_again() {
    let host = Host::new();
    let client = asks_of(&host, &[]);
    // Only a job of a shell is stopped in this way.
    let mut shell = Command::new("sh");
    shell.env_remove("COS_ASKPASS");
    shell.env_remove("GUI_HOST").env_remove("GUI_PORT");
    let script = "set -m; \"$@\"; echo stopped >/dev/tty; read x; fg >/dev/null";
    shell.args(["-c", script, "sh"]).arg(client.get_program());
    shell.args(client.get_args());
    let mut seat = Seat::take(&shell);
    let shown = Shown::to_next(&host, &host.key.public);
    let (mut socket, keys) = shown.asks(&host, &[(Style::Hidden, "Pass\u{202e}word\u{2028}: ")]);
    seat.sees("Pass?word?: ");
    seat.types_unseen(b"half");
    let shell = seat.client.pid();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let client = nix::unistd::Pid::from_raw(children.trim().parse().unwrap());
    nix::sys::signal::kill(client, nix::sys::signal::Signal::SIGTSTP).unwrap();
    seat.sees("stopped");
    assert!(seat.echoes());
    seat.seen.clear();
    seat.types(b"\n");
    seat.sees("Pass?word?: ");
    seat.types_unseen(b"secret\n");
    // Input typed before is not in the answer.
    let record = whole_record(&mut socket);
    let mut answers = record::parse(&record, &[Kind::Sealed])
        .unwrap()
        .content
        .to_vec();
    let mut opener = Opener::new(keys.suite, &keys.to_server).unwrap();
    let answers = opener.open(&mut answers).unwrap();
    let has = |words: &[u8]| answers.windows(words.len()).any(|w| w == words);
    assert!(has(b"secret") && !has(b"half"));
    drop(socket);
    assert_eq!(seat.ends().status, Some(255));
}

/// Returns the answer in the record that a client sends.
fn answer(socket: &mut TcpStream, opener: &mut Opener) -> Vec<u8> {
    let record = whole_record(socket);
    let mut answers = record::parse(&record, &[Kind::Sealed])
        .unwrap()
        .content
        .to_vec();
    opener.open(&mut answers).unwrap().to_vec()
}

fn has(answers: &[u8], words: &[u8]) -> bool {
    answers.windows(words.len()).any(|w| w == words)
}

/// Regression: the prompt was shown before the echo was off: 3 of 40 logins showed the password,
/// and then waited for it, because the typed input was discarded.
#[test]
fn a_password_typed_as_soon_as_the_prompt_appears_is_taken_and_not_shown() {
    let host = Host::new();
    for round in 0..40 {
        let mut seat = Seat::take(&asks_of(&host, &[]));
        let shown = Shown::to_next(&host, &host.key.public);
        let (mut socket, keys) = shown.asks(&host, &[(Style::Hidden, "Password: ")]);
        seat.sees("Password: ");
        seat.types(b"secret\n");
        let mut opener = Opener::new(keys.suite, &keys.to_server).unwrap();
        assert!(has(&answer(&mut socket, &mut opener), b"secret"));
        drop(socket);
        seat.sees("\n");
        assert!(!seat.seen.contains("secret"), "{round}: {:?}", seat.seen);
        assert_eq!(seat.ends().status, Some(255));
    }
}

/// Regression: a program that answers early was left waiting, because its answer was discarded.
#[test]
fn a_password_typed_before_the_prompt_is_taken() {
    let host = Host::new();
    let mut seat = Seat::take(&asks_of(&host, &[]));
    let shown = Shown::to_next(&host, &host.key.public);
    seat.types(b"early\n");
    // The terminal has it before the client sends the prompt.
    seat.sees("early");
    let question = [(Style::Hidden, "Password: ")];
    let (mut socket, keys) = shown.asks(&host, &question);
    let mut opener = Opener::new(keys.suite, &keys.to_server).unwrap();
    assert!(has(&answer(&mut socket, &mut opener), b"early"));
    drop(socket);
    seat.sees("Password: ");
    // The terminal showed it as it was typed, and it is not shown again.
    assert_eq!(seat.seen.matches("early").count(), 1, "{:?}", seat.seen);
    assert_eq!(seat.ends().status, Some(255));
}
