//! Logins by the independent client: by password, with any of PAM's prompts, and by the cookie from
//! inside an application; and clients that violate the protocol while they log in.

use std::fs;
use std::process::Command;

use super::{all_refused, here, python, said, said_is};
use crate::daemon::{self, Daemon, needs_root, until};
use crate::login::{Logins, Plan};

/// Returns one of the programs, with what it needs to connect to this daemon as this user.
fn program(d: &Daemon, name: &str, user: &str) -> Command {
    let mut command = python();
    command
        .arg(here().join(name))
        .args(["--addr", "127.0.0.1", "--user", user])
        .args(["--port", &d.port.to_string()]);
    command
}

/// Returns the host's public key, which is not secret.
fn host_key(d: &Daemon) -> String {
    let card = fs::read_to_string(d.folder.path("card")).unwrap();
    let key = card.lines().find_map(|l| l.strip_prefix("key: "));
    key.unwrap().to_owned()
}

/// Logs in with these answers, one per line, and starts an application. The client has neither
/// cookie nor machine key.
fn logs_in(
    l: &Logins,
    user: &str,
    answers: &str,
    options: &[&str],
    words: &[&str],
) -> (i32, String, String) {
    let file = l.d.folder.path("answers");
    fs::write(&file, answers).unwrap();
    let mut command = program(&l.d, "cosclient.py", user);
    command.args(["--host-key", &host_key(&l.d), "--gui", "--answers"]);
    command.arg(file).args(options).arg("--").args(words);
    said(&daemon::run(&mut command))
}

/// Starts a daemon; sets up Python while `/etc` is still the machine's.
fn start(plan: &Plan) -> Logins {
    drop(python());
    plan.start()
}

const APPLICATIONS: &str = "
[gui.hello]
command = [\"/bin/echo\", \"hello\"]
users = [\"*\", \"root\"]
[gui.ends]
command = [\"/bin/sh\", \"-c\", \"id -un; echo $GUI_HOST:$GUI_PORT; cat; echo err >&2; exit 7\"]
users = [\"*\", \"root\"]
[gui.words]
command = [\"/usr/bin/printf\", \"<%s>\\n\"]
arguments = true
users = [\"*\", \"root\"]
remote = true
[gui.alone]
command = [\"/bin/sh\", \"-c\", \"echo $GUI_PORT >new; mv new done\"]
users = [\"*\", \"root\"]
[gui.stay]
command = [\"/bin/sh\", \"-c\", \"echo $$; exec sleep 600\"]
users = [\"*\", \"root\"]
";

fn plan() -> Plan {
    Plan {
        applications: APPLICATIONS,
        ..Plan::default()
    }
}

#[test]
fn a_password_starts_an_application_with_either_suite() {
    if !needs_root() {
        return;
    }
    let l = start(&plan());
    for suite in ["1", "2"] {
        let display = ["--suite", suite, "--display", "192.0.2.7:9103"];
        let out = logs_in(&l, "alice", "secret\n", &display, &["ends"]);
        said_is(out, 7, "alice\n192.0.2.7:9103\n", "Password: \nerr\n");
    }
    let out = logs_in(&l, "alice", "secret\n", &[], &["ends"]);
    said_is(out, 7, "alice\n127.0.0.1:9003\n", "Password: \nerr\n");
    let words = ["words", "a b", "", "-x"];
    let out = logs_in(&l, "bob", "secret\n", &[], &words);
    said_is(out, 0, "<a b>\n<>\n<-x>\n", "Password: \n");
    // The client does not wait for a detached application.
    let options = ["--detach", "--display", ":9200"];
    said_is(
        logs_in(&l, "alice", "secret\n", &options, &["alone"]),
        0,
        "",
        "Password: \n",
    );
    let done = l.d.folder.path("home/alice/done");
    until("it is done", || done.exists());
    assert_eq!(fs::read_to_string(done).unwrap(), "9200\n");
    l.all_closed(5);
}

#[test]
fn pam_prompts_are_answered_and_pam_messages_are_shown() {
    if !needs_root() {
        return;
    }
    let asks = "auth required BARE ask\nauth required BARE tell\nauth required BARE hush";
    let l = start(&Plan::around("", asks));
    let out = logs_in(&l, "alice", "secret\n4711\n4711\n", &[], &["hello"]);
    let told = "Password: \nCode: \nan error text?[2J\nan information text\nCode: \n";
    said_is(out, 0, "hello\n", told);
    let (status, stdout, _) = logs_in(&l, "alice", "secret\n4711\n4712\n", &[], &["hello"]);
    assert_eq!((status, &*stdout), (255, ""));
    drop(l);
    // An expired password: the old one once more, and the new one twice.
    let l = start(&plan());
    let news = "secret\nsecret\nQuite-an0ther\nQuite-an0ther\n";
    let (status, stdout, stderr) = logs_in(&l, "stale", news, &[], &["hello"]);
    assert_eq!((status, &*stdout), (0, "hello\n"), "{stderr}");
    let (status, stdout, stderr) = logs_in(&l, "stale", "Quite-an0ther\n", &[], &["hello"]);
    assert_eq!((status, &*stdout), (0, "hello\n"), "{stderr}");
}

#[test]
fn by_its_cookie_a_host_starts_what_is_remote() {
    if !needs_root() {
        return;
    }
    let l = start(&plan());
    let mut command = program(&l.d, "cosclient.py", "root");
    command.arg("--card").arg(l.d.folder.path("card"));
    command
        .arg("--machine-key")
        .arg(l.d.client().join("machine.key"));
    command.args(["--gui", "--", "words", "by hash"]);
    said_is(said(&daemon::run(&mut command)), 0, "<by hash>\n", "");
    let line = l.d.log.wait("login session=");
    assert!(
        line.contains("host=hosta") && line.contains("user=root"),
        "{line}"
    );
}

/// The causes in the log for the cases; the others do not complete a handshake.
const CAUSES: [(&str, &[&str]); 3] = [
    (
        "login",
        &[
            "wrong-password",
            "unknown-user",
            "user-like-an-option",
            "user-like-a-path",
            "unknown-application",
            "application-with-a-slash",
            "application-not-in-utf-8",
        ],
    ),
    (
        "application",
        &["an-application-by-hash-that-is-not-remote"],
    ),
    ("user", &["an-application-by-hash-for-another"]),
];

#[test]
fn logins_that_violate_the_protocol_are_refused() {
    if !needs_root() {
        return;
    }
    let l = start(&plan());
    let mut hostile = program(&l.d, "hostile_logins.py", "alice");
    hostile.arg("--card").arg(l.d.folder.path("card"));
    hostile
        .arg("--machine-key")
        .arg(l.d.client().join("machine.key"));
    hostile.args(["--password", "secret"]);
    all_refused(&l.d, &mut hostile, &CAUSES, "handshake");
    // After all that, every opened session is closed, and the next client is served.
    let opened = l.noted("opened");
    l.all_closed(opened);
    let out = logs_in(&l, "alice", "secret\n", &[], &["hello"]);
    assert_eq!((out.0, &*out.1), (0, "hello\n"), "{}", out.2);
}
