//! The independent client of `tests/independent`, written only from the protocol page, against the
//! real daemon: its requests are served, and its violations are rejected as the page says.

use crate::daemon;
#[path = "independent/doors.rs"]
mod doors;
#[path = "independent/logins.rs"]
mod logins;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use daemon::{Daemon, me};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Returns the directory of the Python programs.
fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/independent")
}

/// Returns a Python with the packages of `requirements.txt`, set up once.
fn python() -> Command {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let out = daemon::must(&mut Command::new(here().join("venv.sh")));
        PathBuf::from(String::from_utf8(out).unwrap().trim_end())
    });
    let mut command = Command::new(python);
    command.arg("-B");
    command
}

/// Returns one of the programs, with what it needs to reach the daemon.
fn program(d: &Daemon, name: &str) -> Command {
    let mut command = python();
    command
        .arg(here().join(name))
        .arg("--card")
        .arg(d.folder.path("card"));
    command.args([
        "--port",
        &d.port.to_string(),
        "--user",
        &me(),
        "--machine-key",
    ]);
    command.arg(d.client().join("machine.key"));
    command
}

/// Returns `cosclient.py` with these options and this command.
fn client(d: &Daemon, options: &[&str], words: &[&str]) -> Command {
    let mut command = program(d, "cosclient.py");
    command
        .args(["--addr", "127.0.0.1"])
        .args(options)
        .arg("--")
        .args(words);
    command
}

fn runs(d: &Daemon, options: &[&str], words: &[&str]) -> (i32, String, String) {
    let out = daemon::run(&mut client(d, options, words));
    said(&out)
}

fn said(out: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        out.status.code().unwrap_or(-1),
        text(&out.stdout),
        text(&out.stderr),
    )
}

fn said_is(said: (i32, String, String), status: i32, stdout: &str, stderr: &str) {
    assert_eq!(said, (status, stdout.to_owned(), stderr.to_owned()));
}

#[test]
fn the_vectors_are_what_the_generator_makes() {
    daemon::must(python().arg(here().join("make_vectors.py")).arg("--check"));
}

#[test]
fn a_command_runs_with_either_suite() {
    let d = Daemon::start();
    for suite in ["1", "2"] {
        let words = ["echo out; echo err >&2; exit 42"];
        said_is(runs(&d, &["--suite", suite], &words), 42, "out\n", "err\n");
    }
    said_is(runs(&d, &[], &["kill -KILL $$"]), 137, "", "");
    said_is(runs(&d, &[], &["exit 255"]), 255, "", "");
    // Words are joined by single spaces; the input is at its end.
    said_is(runs(&d, &[], &["cat;", "echo", "a  b"]), 0, "a b\n", "");
}

#[test]
fn variables_pass_as_the_page_says() {
    let d = Daemon::start();
    let options = [
        "--env",
        "LC_TIME=C",
        "--env",
        "GIT_PROTOCOL=version=2",
        "--env",
        "OTHER=x",
    ];
    let words = ["echo $LC_TIME,$GIT_PROTOCOL,$OTHER,$COS_HOST"];
    said_is(runs(&d, &options, &words), 0, "C,version=2,,hosta\n", "");
}

#[test]
fn a_named_service_and_their_names_are_asked_for() {
    let folder = daemon::prepare("[daemon]\nrefusal-interval = 1\n", "");
    let settings = folder.path("S/cosserver.toml");
    let service = format!(
        "[service.ids]\nkind = \"command\"\ncommand = [\"/usr/bin/printf\", \"%s|\"]\n\
         args = [\"...\"]\nas = \"{}\"\nallow = [ {{ host = \"hosta\" }} ]\n",
        daemon::me()
    );
    daemon::append(&settings, &service);
    let d = Daemon::start_in(folder, &[]);
    let (status, stdout, _) = runs(&d, &["--service"], &["IDS", "a  b", "$HOME"]);
    assert_eq!((status, stdout.as_str()), (0, "a  b|$HOME|"));
    let (status, stdout, _) = runs(&d, &["--services"], &[]);
    assert_eq!((status, stdout.as_str()), (0, "ids\n"));
    let (status, stdout, _) = runs(&d, &["--services", "--format", "json"], &[]);
    assert_eq!((status, stdout.as_str()), (0, "[\"ids\"]\n"));
    for (flags, words) in [
        (&["--service"][..], &["none"][..]),
        (&["--service"], &["ids", "-x"]),
        (&["--services", "--format", "xml"], &[]),
    ] {
        let (status, stdout, stderr) = runs(&d, flags, words);
        assert_eq!((status, stdout.as_str()), (255, ""), "{stderr}");
        assert!(stderr.contains("denied, reference "), "{stderr}");
    }
    d.log.wait("there is no [service.none]");
    d.log.wait("args does not allow: -x");
    d.log.wait("takes neither of the formats");
}

#[test]
fn a_subsystem_is_asked_for_by_its_name() {
    let settings = "[subsystem]\nids = \"/usr/bin/printf '%s|' 'a  b' $HOME\"";
    let d = Daemon::start_with(settings, "commands=/bin/true subsystems=ids");
    let asked = runs(&d, &["--subsystem"], &["ids"]);
    said_is(asked, 0, "a  b|$HOME|", "");
    for (words, cause) in [
        (&["sftp"][..], "subsystem"),
        (&["ids", "-x"], "request"),
        (&["/bin/true"], "request"),
    ] {
        let (status, stdout, stderr) = runs(&d, &["--subsystem"], words);
        assert_eq!((status, &*stdout), (255, ""), "{words:?}");
        let reference = stderr
            .trim_end()
            .strip_prefix("cosclient: denied, reference ");
        let line = d.log.wait(&format!("denied ref={}", reference.unwrap()));
        assert!(line.contains(&format!("cause={cause} ")), "{line}");
    }
}

#[test]
fn a_long_command_follows_its_digest() {
    let d = Daemon::start();
    for length in [2_500, 2_700, 4_075, 8_150, 100_000] {
        let command = format!("echo {} | wc -c", "x".repeat(length));
        said_is(
            runs(&d, &[], &[&command]),
            0,
            &format!("{}\n", length + 1),
            "",
        );
    }
}

#[test]
fn bytes_go_there_and_back_and_half_close_is_carried() {
    let d = Daemon::start();
    // More than all the credit and all the pipes hold, with every byte value.
    let bytes: Vec<u8> = (0..12_000_000_u32)
        .map(|i| ((i % 251) ^ (i >> 16)).to_le_bytes()[0])
        .collect();
    let mut child = client(&d, &[], &["cat; echo end >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, copy) = (child.stdin.take().unwrap(), bytes.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", d.log_text());
    assert!(out.stdout == bytes, "{} bytes came back", out.stdout.len());
    assert_eq!(out.stderr, b"end\n");
}

/// A distant client is granted more than at the beginning, but never more than the page allows: the
/// client would end the connection. It grants no more than it has read itself, and the server
/// respects that.
#[test]
fn distant_client_is_granted_more() {
    let d = Daemon::start();
    let d0 = Daemon::start_with("[limits]\nwindows = 0\n", "");
    let bytes = vec![b'x'; 24_000_000];
    for (d, lag, credit) in [
        (&d, "0.05", (3 << 20)..=(1 << 24)),
        (&d0, "0.05", (1 << 20)..=(1 << 20)),
    ] {
        let mut child = client(d, &["--lag", lag], &["cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, copy) = (child.stdin.take().unwrap(), bytes.clone());
        let writer = std::thread::spawn(move || stdin.write_all(&copy));
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{told}");
        assert!(out.stdout == bytes, "{told}");
        let most = told.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(credit.contains(&most), "{most} with {lag}");
    }
}

#[test]
fn a_reader_that_is_gone_stops_the_writer() {
    let d = Daemon::start();
    let mut child = client(&d, &[], &["yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(
        child.wait().unwrap().code(),
        Some(128 + 13),
        "yes gets SIGPIPE"
    );
    // A job that closes its input stops a client that would send forever.
    let mut endless = client(&d, &[], &["exec <&-; exit 3"]);
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    assert_eq!(endless.stdin(zeros).status().unwrap().code(), Some(3));
}

#[test]
fn signals_reach_the_job() {
    let d = Daemon::start();
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGTERM, "TERM"),
    ] {
        let job = daemon::at_signal(name, "echo got; exit 7");
        let mut child = client(&d, &[], &[&job])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got", "{name}");
        assert_eq!(child.wait().unwrap().code(), Some(7), "{name}");
    }
}

#[test]
fn host_key_is_sent_on_request() {
    let d = Daemon::start();
    let card = std::fs::read_to_string(d.folder.path("card")).unwrap();
    let key = card.lines().find_map(|l| l.strip_prefix("key: ")).unwrap();
    said_is(
        runs(&d, &["--ask-host-key"], &[]),
        0,
        &format!("{key}\n"),
        "",
    );
}

#[test]
fn a_refusal_is_status_255_and_the_reference_of_the_log() {
    let d = Daemon::start();
    let (status, stdout, stderr) = runs(&d, &["--cookie", &"c0".repeat(32)], &["echo no"]);
    assert_eq!((status, &*stdout), (255, ""));
    let reference = stderr
        .trim_end()
        .strip_prefix("cosclient: denied, reference ");
    d.log.wait(&format!("denied ref={}", reference.unwrap()));
}

/// Checks that every case of such a program is denied, for its cause: that of the list it is in,
/// otherwise `other`.
fn all_refused(d: &Daemon, hostile: &mut Command, causes: &[(&str, &[&str])], other: &str) {
    let (status, stdout, stderr) = said(&daemon::run(hostile));
    assert_eq!(status, 0, "{stderr}{stdout}{}", d.log_text());
    let mut denied = 0;
    for line in stdout.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [case, outcome, reference] = fields[..] else {
            panic!("{line}")
        };
        if outcome != "denied" {
            continue;
        }
        denied += 1;
        // The log has each denial once, with its reason.
        let named = d.log.wait(&format!("denied ref={reference} "));
        d.log.said_times(reference, 1);
        let cause = causes.iter().find(|(_, cases)| cases.contains(&case));
        let cause = cause.map_or(other, |(cause, _)| cause);
        assert!(
            named.contains(&format!("cause={cause} ")),
            "{case}: {named}"
        );
    }
    assert!(denied > 20, "{stdout}");
}

/// The causes in the log for the cases of `hostile.py`.
const CAUSES: [(&str, &[&str]); 6] = [
    (
        "handshake",
        &[
            "client-hello-of-rubbish",
            "changed-byte",
            "replayed-client-hello",
            "hello-changed-on-the-way",
            "another-suite",
            "another-host-key",
            "opening-of-rubbish",
        ],
    ),
    // The client is authenticated: no penalty, and its log lines are not rate-limited.
    (
        "request",
        &[
            "request-not-canonical",
            "request-of-another-service",
            "request-with-nul",
            "empty-command",
            "another-long-command",
            "long-command-too-long",
            "empty-piece",
            "piece-that-does-not-open",
        ],
    ),
    (
        "proof",
        &[
            "nonce-of-another-connection",
            "wrong-cookie",
            "server-label",
        ],
    ),
    ("unknown-host", &["unknown-caller", "caller-no-name"]),
    ("user", &["user-not-allowed", "user-like-an-option"]),
    ("server-name", &["another-server"]),
];

#[test]
fn clients_that_violate_the_protocol_are_refused() {
    let d = Daemon::start();
    // The first proof records the machine's key.
    said_is(runs(&d, &[], &["true"]), 0, "", "");
    let mut hostile = program(&d, "hostile.py");
    hostile.args(["--addr", "127.0.0.1"]);
    all_refused(&d, &mut hostile, &CAUSES, "machine-key");
    // After all that, the next client is served.
    said_is(runs(&d, &[], &["echo still here"]), 0, "still here\n", "");
}
