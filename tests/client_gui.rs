//! `cos gui` and hosts in the test's hands, which need not be what they say: what the
//! client believes them, and what it shows of their words.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

#[cfg(test)]
mod client_host;
mod daemon;
mod program;
#[path = "login/seat.rs"]
mod seat;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use cosserver::secret::{KeyPair, PublicKey, random};
use cosserver::wire::answer::Answer;
use cosserver::wire::hello::{Hello, ServerHello};
use cosserver::wire::noise::{Keys, Prepared, Responder};
use cosserver::wire::prompt::{Style, Text};
use cosserver::wire::record::{self, Kind};

use client_host::{Host, whole_record};
use daemon::{COS, until};
use seat::Seat;

/// A host in the test's hands that has shown a key.
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

    /// Proves the key, and asks.
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
    Answer::Prompts(texts.iter().map(text).collect())
}

/// A host that is in the table, and whose key is not pinned.
fn unknown() -> Host {
    let host = Host::new();
    fs::remove_file(host.place.known_hosts()).unwrap();
    host
}

/// `cos gui FLAGS… -l alice hostb hello`, where `hostb` is a host in the test's hands.
fn asks_of(host: &Host, flags: &[&str]) -> Command {
    let mut command = Command::new(COS);
    command.arg("-C").arg(&host.folder).arg("gui").args(flags);
    command.args(["-l", "alice", "hostb", "hello"]);
    for name in ["GUI_HOST", "GUI_PORT", "COS_ASKPASS"] {
        command.env_remove(name);
    }
    command
}

/// It once was pinned as soon as somebody had said yes: the real host then had "changed".
#[test]
fn a_key_is_pinned_once_it_is_proven_and_not_before() {
    let host = unknown();
    let known_hosts = host.place.known_hosts();
    // A host with a key that is not its own, or none that can be proven.
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
    // Another key than the one that was agreed to.
    let mut seat = Seat::take(&asks_of(&host, &[]));
    let _first = Shown::to_next(&host, &host.key.public);
    seat.sees("(yes/no) ");
    seat.types(b"yes\n");
    let mut second = Shown::to_next(&host, &foreign);
    client_host::gone(&mut second.socket);
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
