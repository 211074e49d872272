//! The registry with the independent client: a machine registers itself, and clients violate the
//! protocol while they are prompted.

use std::fs;

use cosserver::config::keys;
use cosserver::config::paths::Paths;
use cosserver::registry::inner::Setting;
use cosserver::registry::{Id, Inner, Level, Outer};

use super::{all_refused, client, program, said, said_is};
use crate::daemon::{self, Daemon};

/// Starts a daemon whose outer door is open, and opens its inner door.
fn start() -> (Daemon, Inner) {
    let d = Daemon::start_with("[penalties]\nauthfail = 0\nnoauth = 0\n", "");
    let paths = Paths::of_dir(&d.server());
    Outer::open(&paths).unwrap().set_level(Level::Open).unwrap();
    let inner = Inner::open(&Inner::path(&paths, None)).unwrap();
    (d, inner)
}

/// Runs the client with its own machine key, which is derived from this number.
fn enrol_machine(d: &Daemon, number: u8, options: &[&str]) -> (i32, String, String) {
    let file = d.folder.path("newcomer");
    fs::write(&file, format!("{number:02x}").repeat(32)).unwrap();
    let mut command = program(d, "cosclient.py");
    // Of two keys the last one counts.
    command.args(["--addr", "127.0.0.1", "--enrol", "--machine-key"]);
    said(&daemon::run(command.arg(&file).args(options)))
}

const ASKS_NAME: &str = "This machine is not registered here yet.\nEnter your name: \n";

#[test]
fn a_machine_registers_itself() {
    let (d, mut inner) = start();
    let (status, _, stderr) = enrol_machine(&d, 1, &["--door", "Joan"]);
    assert_eq!(status, 255, "{stderr}");
    assert!(
        stderr.starts_with("cosclient: denied, reference "),
        "{stderr}"
    );
    inner
        .set(&[Setting::BuildMode(true), Setting::Welcome("Welcome".into())])
        .unwrap();
    for (number, suite) in [(1, "1"), (2, "2")] {
        let options = ["--suite", suite, "--door", "Jos\u{e9}"];
        said_is(
            enrol_machine(&d, number, &options),
            0,
            "",
            &format!("{ASKS_NAME}Welcome\n"),
        );
        said_is(
            enrol_machine(&d, number, &["--suite", suite]),
            0,
            "",
            "Welcome\n",
        );
    }
    inner.set(&[Setting::BuildMode(false)]).unwrap();
    inner.set_backdoor(Some(b"open sesame")).unwrap();
    let (status, _, stderr) = enrol_machine(&d, 3, &["--door", "open sesame"]);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(inner.count().unwrap(), 3);
    // A host whose machine was deleted is prompted when it requests a command, also a long one.
    let own = keys::load_machine_key(&Paths::of_dir(&d.client())).unwrap();
    for words in [&["echo", "in"][..], &["echo", "in", &" ".repeat(5_000)]] {
        d.says(0, &["true"]);
        daemon::until("it is registered", || {
            inner.machine(&Id::of(&own.public)).unwrap().is_some()
        });
        assert!(inner.delete(&Id::of(&own.public)).unwrap());
        let (status, _, stderr) = said(&daemon::run(&mut client(&d, &[], words)));
        assert_eq!(status, 255, "{stderr}");
        let out = daemon::run(&mut client(&d, &["--door", "open sesame"], words));
        assert_eq!(said(&out).1, "in\n", "{out:?}");
    }
}

/// The causes in the log for the cases; the others do not complete a handshake.
const CAUSES: [(&str, &[&str]); 4] = [
    (
        "activation",
        &[
            "an-empty-answer",
            "the-longest-answer",
            "a-name-of-control-characters",
            "a-name-of-two-lines",
            "name-with-a-bidirectional-override",
            "a-name-of-blanks",
            "a-name-that-is-not-utf-8",
            "a-name-of-252-bytes",
            "a-wrong-password",
            "the-right-password-and-a-blank",
            "a-password-that-looks-made",
        ],
    ),
    ("request", &["enrol-by-hash"]),
    ("proof", &["enrol-by-a-wrong-hash"]),
    ("machine-key", &["a-command-by-hash-of-an-unknown-machine"]),
];

#[test]
fn machines_that_violate_the_registration_protocol_are_refused() {
    for asks in ["name", "activation"] {
        let (d, mut inner) = start();
        d.says(0, &["true"]);
        inner.set(&[Setting::BuildMode(asks == "name")]).unwrap();
        inner.set_backdoor(Some(b"open sesame")).unwrap();
        let mut hostile = program(&d, "hostile_doors.py");
        hostile.args(["--addr", "127.0.0.1", "--asks", asks]);
        all_refused(&d, &mut hostile, &CAUSES, "handshake");
        // After all that, the machines that answered correctly are registered, and no others.
        let registered = if asks == "name" { 3 } else { 2 };
        assert_eq!(inner.count().unwrap(), registered, "{}", d.log_text());
        d.says(0, &["true"]);
    }
}
