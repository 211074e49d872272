//! The command lines that tools send (found by logging argv), each verbatim.

use std::num::NonZeroU16;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use super::*;
use crate::client::call::*;
use crate::client::help;

pub(super) fn parsed(line: &[&str]) -> Result<Action, Fault> {
    let argv: Vec<OsString> = line.iter().map(OsString::from).collect();
    parse(&argv)
}

pub(super) fn call(line: &[&str]) -> Call {
    match parsed(line) {
        Ok(Action::Run(call)) => *call,
        other => panic!("{line:?}: {other:?}"),
    }
}

pub(super) fn complaint(line: &[&str]) -> String {
    match parsed(line) {
        Err(fault) => fault.to_string(),
        other => panic!("{line:?}: {other:?}"),
    }
}

/// Returns host, user, port and words of a call that is otherwise plain.
fn summary(line: &[&str]) -> (String, String, u16, Vec<String>) {
    let call = call(line);
    let user = call.user.as_ref().map_or("", |u| u.as_str()).to_owned();
    let port = call.port.map_or(0, NonZeroU16::get);
    let words = call
        .words
        .into_iter()
        .map(|w| String::from_utf8(w).unwrap());
    (call.host, user, port, words.collect())
}

fn is(line: &[&str], host: &str, user: &str, port: u16, words: &[&str]) {
    let (h, u, p, w) = summary(line);
    assert_eq!((h.as_str(), u.as_str(), p), (host, user, port), "{line:?}");
    assert_eq!(w, words, "{line:?}");
}

#[test]
fn rsync() {
    let server = [
        "rsync",
        "--server",
        "-vlogDtpre.iLsfxCIvu",
        ".",
        "dst\\ dir/",
    ];
    is(
        &[&["cosrsh", "-p", "2222", "-l", "jo", "hostb"], &server[..]].concat(),
        "hostb",
        "jo",
        2222,
        &server,
    );
    is(
        &[&["cosrsh", "hostb"], &server[..]].concat(),
        "hostb",
        "",
        0,
        &server,
    );
    is(
        &[&["cosrsh", "-l", "jo", "2001:db8::1"], &server[..]].concat(),
        "2001:db8::1",
        "jo",
        0,
        &server,
    );
}

#[test]
fn git() {
    assert_eq!(
        parsed(&[
            "cosrsh",
            "-G",
            "-o",
            "SendEnv=GIT_PROTOCOL",
            "-p",
            "9002",
            "hostb"
        ])
        .unwrap(),
        Action::Probe
    );
    assert_eq!(parsed(&["cosrsh", "-G", "hostb"]).unwrap(), Action::Probe);
    let line = [
        "cosrsh",
        "-o",
        "SendEnv=GIT_PROTOCOL",
        "-p",
        "9002",
        "git@hostb",
        "git-upload-pack '/p'",
    ];
    is(&line, "hostb", "git", 9002, &["git-upload-pack '/p'"]);
    is(
        &["cosrsh", "-4", "git@hostb", "git-upload-pack '/p'"],
        "hostb",
        "git",
        0,
        &["git-upload-pack '/p'"],
    );
}

#[test]
fn gnu_tar_and_rmt() {
    is(
        &["cosrsh", "hostb", "-l", "jo", "/etc/rmt"],
        "hostb",
        "jo",
        0,
        &["/etc/rmt"],
    );
    is(
        &["cosrsh", "hostb", "/etc/rmt"],
        "hostb",
        "",
        0,
        &["/etc/rmt"],
    );
}

#[test]
fn pdsh() {
    let line = [
        "cosrsh",
        "-oConnectTimeout=10",
        "-2",
        "-a",
        "-x",
        "-l",
        "jo",
        "hostb",
        "uptime",
        "-p",
    ];
    is(&line, "hostb", "jo", 0, &["uptime", "-p"]);
    let line = [
        "cosrsh",
        "-oConnectTimeout=3",
        "-2",
        "-a",
        "-x",
        "-ljo",
        "hostb",
        "uptime",
    ];
    assert_eq!(
        call(&line).connect_timeout,
        ConnectTime::Together(Duration::from_secs(3))
    );
}

#[test]
fn gnu_parallel() {
    let perl = [
        "exec",
        "perl",
        "-e",
        "@GNU_Parallel=split/_/,\"use_IPC::Open3\";",
    ];
    is(
        &[&["cosrsh", "-l", "jo", "hostb", "--"], &perl[..]].concat(),
        "hostb",
        "jo",
        0,
        &perl,
    );
    is(
        &[&["cosrsh", "hostb", "--"], &perl[..]].concat(),
        "hostb",
        "",
        0,
        &perl,
    );
}

#[test]
fn scp() {
    let line = [
        "cosrsh",
        "-x",
        "-oForwardAgent=no",
        "-oPermitLocalCommand=no",
        "-l",
        "jo",
        "--",
        "hostb",
        "scp -t dir",
    ];
    is(&line, "hostb", "jo", 0, &["scp -t dir"]);
    // As in ssh, no word is a flag after "--", not even after the host.
    is(
        &["cosrsh", "--", "hostb", "-l", "--", "x"],
        "hostb",
        "",
        0,
        &["-l", "--", "x"],
    );
}

#[test]
fn borg_restic_and_open_mpi() {
    is(
        &["cosrsh", "-p", "9400", "jo@hostb", "borg", "serve"],
        "hostb",
        "jo",
        9400,
        &["borg", "serve"],
    );
    let restic = call(&["cosrsh", "hostb", "-l", "jo", "-s", "sftp"]);
    assert_eq!(restic.kind, CallKind::Subsystem);
    is(
        &["cosrsh", "jo@hostb", "orted", "-mca", "ess", "env"],
        "hostb",
        "jo",
        0,
        &["orted", "-mca", "ess", "env"],
    );
    is(
        &["cosrsh", "hostb", "echo $SHELL"],
        "hostb",
        "",
        0,
        &["echo $SHELL"],
    );
}

#[test]
fn ignored_flags_are_accepted() {
    let line = [
        "cosrsh",
        "-x",
        "-X",
        "-a",
        "-A",
        "-2",
        "-q",
        "-T",
        "-e",
        "none",
        "-8",
        "-L",
        "-d",
        "-o",
        "A=b",
        "-oC=d",
        "-oBatchMode=yes",
        "hostb",
        "-x8eq",
        "-Tn",
        "-v",
        "cmd",
        "-x",
    ];
    is(&line, "hostb", "", 0, &["cmd", "-x"]);
    let call = call(&line);
    assert!(call.no_input && call.verbose);
    assert_eq!(
        call.for_ssh.concat(),
        "-x-X-a-A-q-T-enone-oA=b-oC=d-oBatchMode=yes-x-eq-T-v"
    );
}

#[test]
fn command_words_are_not_changed() {
    is(
        &["cosrsh", "hostb", "a  b", "", "$x", "'q'", "--", "-n"],
        "hostb",
        "",
        0,
        &["a  b", "", "$x", "'q'", "--", "-n"],
    );
    is(&["cosrsh", "hostb", ""], "hostb", "", 0, &[""]);
    let argv = [
        OsString::from("cosrsh"),
        "hostb".into(),
        "-n".into(),
        OsStr::from_bytes(b"\xff\xfe -n").into(),
    ];
    let Ok(Action::Run(call)) = parse(&argv) else {
        panic!("not taken")
    };
    assert_eq!(call.words, [b"\xff\xfe -n".to_vec()]);
}

#[test]
fn users() {
    assert_eq!(
        summary(&["cosrsh", "jo@example.org@hostb", "x"]).1,
        "jo@example.org"
    );
    // As in ssh, the first of -l and -o counts, and the user before @ has the lowest precedence.
    assert_eq!(summary(&["cosrsh", "-l", "a", "b@hostb", "x"]).1, "a");
    assert_eq!(
        summary(&["cosrsh", "-l", "a", "hostb", "-l", "b", "x"]).1,
        "a"
    );
    assert_eq!(summary(&["cosrsh", "-oUser=a", "b@hostb", "x"]).1, "a");
    assert_eq!(
        summary(&["cosrsh", "-oUser=a", "-l", "b", "hostb", "x"]).1,
        "a"
    );
    assert_eq!(summary(&["cosrsh", "-oUser=a", "hostb", "x"]).1, "a");
    assert!(complaint(&["cosrsh", "-l", "-froot", "hostb", "x"]).contains("-l: "));
    assert!(complaint(&["cosrsh", "@hostb", "x"]).contains("before @"));
}

#[test]
fn ports() {
    assert_eq!(summary(&["cosrsh", "-p1", "hostb", "x"]).2, 1);
    assert_eq!(summary(&["cosrsh", "-oPort=7", "hostb", "x"]).2, 7);
    assert_eq!(
        summary(&["cosrsh", "hostb", "-p", "65535", "-oPort=7", "x"]).2,
        65535
    );
    for bad in ["0", "65536", "-1", "+1", "", "ssh", " 1"] {
        let told = complaint(&["cosrsh", "-p", bad, "hostb", "x"]);
        assert!(told.contains("give 1 to 65535"), "{told}");
    }
}

#[test]
fn settings() {
    let timeout = |setting: &str| call(&["cosrsh", "-o", setting, "hostb", "x"]).connect_timeout;
    let seconds = |n| ConnectTime::Together(Duration::from_secs(n));
    assert_eq!(timeout("connecttimeout=2m"), seconds(120));
    assert_eq!(timeout("ConnectTimeout 7"), seconds(7));
    assert_eq!(timeout("ConnectTimeout=0"), CONNECT_TIMEOUT);
    assert_eq!(timeout("ConnectTimeout=none"), CONNECT_TIMEOUT);
    assert_eq!(timeout("StrictHostKeyChecking=no"), CONNECT_TIMEOUT);
    let interval = |setting: &str| call(&["cosrsh", "-o", setting, "hostb", "x"]).keep_alive;
    assert_eq!(interval("ServerAliveInterval=7"), 7);
    assert_eq!(interval("serveraliveinterval 2m"), 120);
    assert_eq!(interval("ServerAliveInterval=0"), 0);
    assert_eq!(interval("ServerAliveInterval=none"), 0);
    assert_eq!(interval("ServerAliveInterval=10h"), 32_767);
    assert_eq!(interval("ServerAliveCountMax=1"), 60);
    for bad in [
        "ServerAliveInterval=soon",
        "ServerAliveInterval=-1",
        "ConnectTimeout=soon",
        "ConnectTimeout=",
        "BatchMode=maybe",
        "nonsense",
    ] {
        complaint(&["cosrsh", "-o", bad, "hostb", "x"]);
    }
}

#[test]
fn families() {
    assert_eq!(
        call(&["cosrsh", "-4", "hostb", "x"]).family,
        Some(Family::V4)
    );
    assert_eq!(
        call(&["cosrsh", "hostb", "-6", "x"]).family,
        Some(Family::V6)
    );
    assert!(complaint(&["cosrsh", "-4", "hostb", "-6", "x"]).contains("contradict each other"));
}

#[test]
fn command_lines_of_each_personality() {
    let run = call(&[
        "/usr/bin/cos",
        "-C",
        "A",
        "-v",
        "run",
        "-p",
        "5",
        "-l",
        "jo",
        "hostb",
        "-n",
        "x",
    ]);
    assert_eq!(run.folder, Some("A".into()));
    assert!(run.verbose && run.no_input);
    is(
        &["cos", "run", "hostb", "run", "-C"],
        "hostb",
        "",
        0,
        &["run", "-C"],
    );
    is(
        &["/usr/local/bin/rsh", "hostb", "x"],
        "hostb",
        "",
        0,
        &["x"],
    );
    assert!(complaint(&["cos", "hostb", "x"]).contains("did you mean \"cos run hostb\"?"));
    let bare = complaint(&["cos"]);
    assert!(bare.starts_with("usage: cos [-C DIR] [-v] SUBCOMMAND"));
    for (subcommand, ..) in help::SUBCOMMANDS {
        assert!(bare.contains(subcommand), "{bare}");
    }
    let nothing = complaint(&["cos", "gui", "hostb"]);
    assert_eq!(
        nothing,
        "name an application: cos gui hostb APPLICATION [ARGUMENT]..."
    );
    assert!(complaint(&["cosrsh"]).starts_with("usage: cosrsh "));
    assert!(complaint(&["cos", "run", "-C", "A", "hostb", "x"]).contains("before the subcommand"));
    assert!(complaint(&["cos", "run", "hostb"]).starts_with("no command given for hostb"));
    assert!(complaint(&["cosrsh", "-Z", "hostb", "x"]).contains("-Z is not known"));
    assert!(complaint(&["cosrsh", "hostb", "-l"]).contains("-l needs a value"));
    assert!(complaint(&["cosrsh", "--nonsense"]).contains("--nonsense is not known"));
}

#[test]
fn variables_to_send() {
    let line = ["cosrsh", "-o", "SendEnv=GIT_PROTOCOL", "hostb"];
    let line = [&line[..], &["-oSendEnv=A B", "-o", "sendenv C", "x"]].concat();
    assert_eq!(call(&line).send_env, ["GIT_PROTOCOL", "A", "B", "C"]);
    assert_eq!(call(&["cosrsh", "hostb", "x"]).send_env, [""; 0]);
}

#[test]
fn help_and_version() {
    for (line, personality) in [
        (&["cos", "--help"][..], Personality::Global),
        (&["cos", "run", "--help"], Personality::Cos),
        (&["cosrsh", "--help"], Personality::Rsh),
        (&["ssh", "--help"], Personality::Ssh),
        (&["cos", "connect", "--help"], Personality::Connect),
    ] {
        let Action::Tell(text) = parsed(line).unwrap() else {
            panic!("{line:?}")
        };
        // The text has every flag of the table.
        for f in flags::of(personality).iter().copied().flatten() {
            for (letter, long) in f.names() {
                let name = if letter.is_empty() { long } else { letter };
                assert!(text.contains(&format!("-{name}")), "{name}");
            }
        }
        assert!(text.lines().all(|l| l.len() < 120), "{text}");
    }
    let Action::Tell(text) = parsed(&["cos", "--help"]).unwrap() else {
        panic!()
    };
    for (subcommand, _, what) in help::SUBCOMMANDS {
        let has = |l: &str| l.starts_with(&format!("  {subcommand} ")) && l.ends_with(what);
        assert!(text.lines().any(has), "{subcommand}: {text}");
    }
    let unknown = complaint(&["cos", "run", "-Z", "hostb", "x"]);
    assert!(unknown.contains("\"cos run --help\""), "{unknown}");
    assert!(complaint(&["cos", "-Z"]).contains("\"cos --help\""));
    let Action::Tell(text) = parsed(&["cosrsh", "--version"]).unwrap() else {
        panic!()
    };
    assert_eq!(text, format!("cos {}\n", env!("CARGO_PKG_VERSION")));
}
