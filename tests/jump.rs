//! `-J`: a command on a host that is reached through other hosts, with two real daemons; what the
//! intermediate host sees, and the messages when it fails.

use crate::daemon;
use crate::program;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use daemon::session::{Fifo, Gate, Session, wait};
use daemon::{COS, COSADM, Daemon, Folder, me, must, run, until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A target, an intermediate host, and one client directory that knows both.
struct Hosts {
    target: Daemon,
    between: Daemon,
    /// On the path of the intermediate host's commands.
    tools: Folder,
}

impl Hosts {
    fn start() -> Self {
        let tools = Folder::new();
        symlink(COS, tools.path("cos")).unwrap();
        let path = format!("[exec]\npath = \"{}:/usr/bin:/bin\"\n", tools.0.display());
        let between = Daemon::start_with(&path, "");
        let target = Daemon::start();
        target.install_cosrsh();
        let mut adm = Command::new(COSADM);
        adm.arg("-C").arg(target.client()).args(["host", "join"]);
        must(
            adm.arg(between.folder.path("card"))
                .args(["--name", "hostj"]),
        );
        let table = target.client().join("hostinfo");
        let text = fs::read_to_string(&table).unwrap();
        let line = text.lines().find(|l| l.starts_with("hostj ")).unwrap();
        let words: Vec<&str> = line
            .split(' ')
            .filter(|w| !w.starts_with("port="))
            .collect();
        let with_port = format!("{} port={}", words.join(" "), between.port);
        fs::write(&table, text.replace(line, &with_port)).unwrap();
        Self {
            target,
            between,
            tools,
        }
    }

    /// Creates `cosrsh WORDS…`, which reaches the target as `hostb` through `hostj`.
    fn cosrsh(&self, words: &[&str]) -> Command {
        self.target.cosrsh(&[&["-J", "hostj"], words].concat())
    }

    /// Checks that all sessions on both hosts have ended, and their numbers.
    fn sessions_end(&self, on_target: usize, between: usize) {
        for (host, count) in [(&self.target, on_target), (&self.between, between)] {
            until("the sessions have ended", || {
                host.log.count("end session=") == count
            });
            host.log.said_times("exec session=", count);
        }
    }
}

/// Returns status, output and errors of a command.
fn told(command: &mut Command) -> (Option<i32>, String, String) {
    let out = run(command);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// Regression: the name reached the shell of the intermediate host unquoted.
#[test]
fn a_host_name_for_the_way_is_no_command_there() {
    let hosts = Hosts::start();
    let mut well = hosts.cosrsh(&["-oHostName=127.0.0.1", "hostb", "echo well"]);
    assert_eq!(told(&mut well), (Some(0), "well\n".into(), String::new()));
    hosts.sessions_end(1, 1);
    let mark = hosts.tools.path("mark");
    for name in [
        format!("x;touch {};", mark.display()),
        format!("$(touch {})", mark.display()),
        format!("x\ntouch {}", mark.display()),
        format!("fe80::1%%;touch {}", mark.display()),
        "-V".to_owned(),
    ] {
        let option = format!("-oHostName={name}");
        let (status, out, err) = told(&mut hosts.cosrsh(&[&option, "hostb", "true"]));
        assert_eq!((status, &*out), (Some(255), ""), "{name}: {err}");
        assert!(
            err.contains("neither a host's name nor an address"),
            "{err}"
        );
    }
    assert!(!mark.exists());
    hosts.sessions_end(1, 1);
}

#[test]
fn jump_host_sees_only_ciphertext() {
    let hosts = Hosts::start();
    fs::remove_file(hosts.tools.path("cos")).unwrap();
    let [went, came] = ["went", "came"].map(|n| hosts.tools.path(n));
    let script = format!(
        "#!/bin/sh\ntee {} | {COS} \"$@\" | tee {}\n",
        went.display(),
        came.display()
    );
    program::script(&hosts.tools.path("cos"), &script);
    let secret = "not for the host between";
    let command = format!("echo {secret}; cat; echo error >&2; exit 7");
    let mut session = Session::spawn(&mut hosts.cosrsh(&["hostb", &command]));
    session.say(secret);
    session.stdin = None;
    let ended = session.finish();
    assert_eq!(ended.status, Some(7));
    assert_eq!(
        (ended.out, ended.err),
        (vec![secret.into(); 2], vec!["error".into()])
    );
    hosts.sessions_end(1, 1);
    let log = hosts.target.log.all();
    let accepted = log.iter().find(|l| l.contains("exec session=")).unwrap();
    assert!(accepted.contains("host=hosta"), "{accepted}");
    for file in [went, came] {
        let bytes = fs::read(file).unwrap();
        assert!(bytes.len() > 100);
        let has = |part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
        assert!(!has(secret.as_bytes()) && !has(b"error"));
    }
}

#[test]
fn streams_status_and_signals_pass_through() {
    let hosts = Hosts::start();
    let input: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut command = hosts.cosrsh(&["hostb", "tee /dev/stderr"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let copy = input.clone();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&copy)));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(out.status.success());
    assert!(out.stdout == input && out.stderr == input);

    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do read x; done";
    let session = Session::spawn(&mut hosts.cosrsh(&["hostb", script]));
    session.out.wait("ready");
    session.signal(Signal::SIGTERM);
    let ended = session.finish();
    assert_eq!(
        (ended.status, ended.out.last().unwrap().as_str()),
        (Some(9), "caught")
    );

    // A key at the terminal signals the whole process group, and must not end the connection.
    let script = "trap 'echo caught; exit 8' INT; echo ready; while :; do read x; done";
    let mut command = hosts.cosrsh(&["hostb", script]);
    let session = Session::spawn(command.process_group(0));
    session.out.wait("ready");
    killpg(Pid::from_raw(session.pid()), Signal::SIGINT).unwrap();
    let ended = session.finish();
    let last = ended.out.last().unwrap().as_str();
    assert_eq!((ended.status, last), (Some(8), "caught"));

    // By `cos run` and by ssh's option, twice through the same host, with a user name.
    let twice = format!("hostj,{}@hostj:{}", me(), hosts.between.port);
    let out = told(hosts.target.cos(&["-J", &twice]).arg("echo x"));
    assert_eq!(out, (Some(0), "x\n".into(), String::new()));
    let out = told(
        &mut hosts
            .target
            .cosrsh(&["-oProxyJump=hostj", "hostb", "exit 3"]),
    );
    assert_eq!(out, (Some(3), String::new(), String::new()));
    hosts.sessions_end(5, 6);
}

#[test]
fn killed_client_ends_the_command_behind_the_jump() {
    let hosts = Hosts::start();
    let mut fifo = Fifo::new(hosts.tools.path("fifo"));
    let script = format!(
        "exec 3>{}; echo held >&3; cat; read x < /dev/null; exec sleep 600",
        fifo.name()
    );
    let mut session = Session::spawn(&mut hosts.cosrsh(&["hostb", &script]));
    assert_eq!(fifo.receive(), "held\n");
    session.child.kill().unwrap();
    fifo.receive_all();
    hosts.sessions_end(1, 1);
}

#[test]
fn into_the_background_through_another_host() {
    let hosts = Hosts::start();
    let mut gate = Gate::new(hosts.tools.path("gate"));
    let mut fifo = Fifo::new(hosts.tools.path("fifo"));
    let script = format!(
        "echo running; read x < {}; echo late; echo done > {}",
        gate.name(),
        fifo.name()
    );
    let mut session = Session::spawn(&mut hosts.cosrsh(&["-f", "hostb", &script]));
    session.out.wait("running");
    assert_eq!(wait(&mut session.child).code(), Some(0));
    gate.open();
    assert_eq!(fifo.receive(), "done\n");
    session.out.wait("late");
    hosts.sessions_end(1, 1);
}

#[test]
fn a_jump_that_fails_has_one_clear_error() {
    let hosts = Hosts::start();
    let told_of = |words: &[&str]| {
        let (status, out, err) = told(&mut hosts.target.cosrsh(words));
        assert_eq!((status, &*out), (Some(255), ""), "{err}");
        err
    };
    // The target's port is closed.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    let err = told_of(&["-J", "hostj", "-p", &port, "hostb", "true"]);
    let due = format!("cos: hostb: through hostj: 127.0.0.1: 127.0.0.1:{port}: connection refused");
    assert!(err.starts_with(&due) && err.lines().count() == 1, "{err}");
    let hint = "; is cosserver running there, and is this its port?\n";
    assert!(err.ends_with(hint), "{err}");
    // The intermediate host is unknown, or denies, or has no such user.
    let err = told_of(&["-J", "nowhere", "hostb", "true"]);
    assert!(err.starts_with("cos: hostb: through nowhere: "), "{err}");
    assert!(
        err.contains("this host is not in it") && err.lines().count() == 1,
        "{err}"
    );
    let err = told_of(&["-J", "no-such-user@hostj", "hostb", "true"]);
    let due = "cos: hostb: through hostj: access denied (reference ";
    assert!(err.starts_with(due) && err.lines().count() == 2, "{err}");
    let err = told_of(&["-J", &format!("hostj:{port}"), "hostb", "true"]);
    assert!(err.starts_with("cos: hostb: through hostj: "), "{err}");
    assert!(
        err.contains("connection refused") && err.lines().count() == 1,
        "{err}"
    );
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let jump = format!("hostj:{}", silent.local_addr().unwrap().port());
    let err = told_of(&["-oConnectTimeout=1", "-J", &jump, "hostb", "true"]);
    assert!(err.starts_with("cos: hostb: through hostj: "), "{err}");
    assert!(
        err.contains("no hello came") && err.lines().count() == 1,
        "{err}"
    );
    // The target itself denies: its own message is shown.
    let err = told_of(&["-J", "hostj", "-l", "no-such-user", "hostb", "true"]);
    assert!(
        err.starts_with("cos: hostb: access denied (reference "),
        "{err}"
    );
    // There is no cos on the intermediate host, or it is elsewhere.
    fs::remove_file(hosts.tools.path("cos")).unwrap();
    let err = told_of(&["-J", "hostj", "hostb", "true"]);
    assert!(
        err.starts_with("cos: hostb: through hostj: ") && err.contains("cos"),
        "{err}"
    );
    let remedy =
        "\ncos: cos must be on the path of commands there; -o JumpProgram=PATH says where it is\n";
    assert!(err.ends_with(remedy) && err.lines().count() == 2, "{err}");
    let err = told_of(&["-v", "-J", "hostj", "hostb", "true"]);
    assert!(err.contains(&remedy[1..]), "{err}");
    symlink(COS, hosts.tools.path("elsewhere")).unwrap();
    let program = format!("-oJumpProgram={}", hosts.tools.path("elsewhere").display());
    let out = told(&mut hosts.cosrsh(&[&program, "hostb", "echo x"]));
    assert_eq!(out, (Some(0), "x\n".into(), String::new()));
}

#[test]
fn lost_jump_host_is_named() {
    let hosts = Hosts::start();
    let session = Session::spawn(&mut hosts.cosrsh(&["hostb", "echo ready; exec sleep 600"]));
    session.out.wait("ready");
    let mut adm = Command::new(COSADM);
    adm.arg("-C").arg(hosts.between.server());
    must(adm.args(["kill", "0"]));
    let ended = session.finish();
    assert_eq!(ended.status, Some(255));
    let said = ended.err.join("\n");
    assert!(said.starts_with("cos: hostb: through hostj: "), "{said}");
    assert_eq!(ended.err.len(), 1, "{said}");
    until("the session has ended", || {
        hosts.target.log.count("end session=") == 1
    });
}

/// The source address is that of the connection that leaves this machine, and the target sees the
/// intermediate host.
#[test]
fn a_source_address_is_for_the_first_host() {
    let hosts = Hosts::start();
    let (status, _, err) = told(&mut hosts.cosrsh(&["-b", "127.0.0.9", "hostb", "true"]));
    assert_eq!(status, Some(255));
    assert!(
        err.starts_with("cos: hostb: through hostj: access denied"),
        "{err}"
    );
    hosts.between.log.wait("peer=127.0.0.9");
    assert_eq!(hosts.target.log.count("127.0.0.9"), 0);
}

/// An intermediate host may allow only the jump.
#[test]
fn command_list_can_allow_only_the_jump() {
    let pattern = format!("commands=\"{COS} connect 127.0.0.1 *\"");
    let hosts = Hosts::start();
    let table = hosts.between.server().join("hostinfo");
    let text = fs::read_to_string(&table).unwrap();
    let line = text.lines().find(|l| l.starts_with("hosta ")).unwrap();
    fs::write(&table, text.replace(line, &format!("{line} {pattern}"))).unwrap();
    hosts.between.signal(Signal::SIGHUP);
    hosts.between.log.wait("reloaded");
    let program = format!("-oJumpProgram={COS}");
    let out = told(&mut hosts.cosrsh(&[&program, "hostb", "echo x"]));
    assert_eq!(out, (Some(0), "x\n".into(), String::new()));
    let (status, _, err) = told(&mut hosts.target.cosrsh(&["hostj", "echo x"]));
    assert_eq!(status, Some(255));
    assert!(err.contains("access denied"), "{err}");
}
