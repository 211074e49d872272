//! `cosadm who` and `cosadm kill`: who is connected, with how many bytes, and hanging a session up.

use crate::daemon;

use std::process::{Command, Output};

use daemon::session::{Gate, ends, wait};
use daemon::{COS, COSADM, Daemon, is_root, me, must, prepare, run, until};

fn cosadm(d: &Daemon, words: &[&str]) -> Output {
    run(Command::new(COSADM).arg("-C").arg(d.server()).args(words))
}

/// Returns the output of `who --json`.
fn who(d: &Daemon) -> Vec<serde_json::Value> {
    let out = cosadm(d, &["who", "--json"]);
    assert!(out.status.success(), "{out:?}");
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    value["sessions"].as_array().unwrap().clone()
}

#[test]
fn a_session_is_shown_with_its_bytes_and_hung_up() {
    let d = Daemon::start();
    assert!(who(&d).is_empty());
    let gate = Gate::new(d.folder.path("gate"));
    let script = format!("echo $$; read x; echo got $x; read y <{}", gate.name());
    let mut session = d.session(&[&script]);
    let (_, pid) = session.out.wait_from(0, |l| !l.is_empty());
    session.say("12345");
    session.out.wait("got 12345");
    let other = d.session(&["echo on; read x"]);
    other.out.wait("on");

    let all = who(&d);
    assert_eq!(all.len(), 2, "{all:?}");
    let one = &all[0];
    assert_eq!(one["pid"].to_string(), pid);
    assert_eq!(
        (one["user"].as_str(), one["caller"].as_str()),
        (Some(&*me()), Some(&*me()))
    );
    assert_eq!(
        (one["host"].as_str(), one["address"].as_str()),
        (Some("hosta"), Some("127.0.0.1"))
    );
    assert_eq!(
        (one["service"].as_str(), one["detached"].as_bool()),
        (Some("exec"), Some(false))
    );
    assert_eq!(one["in"].as_u64(), Some(6));
    assert_eq!(
        one["out"].as_u64(),
        Some(u64::try_from(pid.len()).unwrap() + 1 + 10)
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let since = one["since"].as_u64().unwrap();
    assert!(since <= now.as_secs() && since + 600 > now.as_secs());
    let text = String::from_utf8(cosadm(&d, &["who"]).stdout).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains(&format!("{}@hosta", me())), "{text}");

    // The command, limited in length, without control characters for a terminal.
    let command = one["command"].as_str().unwrap();
    assert!(command.starts_with("echo $$; read x; "), "{command}");
    assert_eq!(all[1]["command"], "echo on; read x");
    assert!(text.contains("  echo on; read x\n"), "{text}");

    let id = one["id"].to_string();
    let line = d.log.wait(&format!("exec session={id} "));
    assert!(line.contains("host=hosta"), "{line}");
    let out = cosadm(&d, &["kill", &id]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    d.log.wait(&format!(
        "killed session={id} uid={}",
        nix::unistd::geteuid()
    ));
    assert!(ends(pid.parse().unwrap()), "the job was not hung up");
    let ended = session.finish();
    assert_eq!(ended.status, Some(255), "{ended:?}");
    until("one is left", || who(&d).len() == 1);
    assert_eq!(who(&d)[0]["id"], all[1]["id"]);

    // It is gone, and one that never existed is not listed either.
    for wrong in [&*id, "999999"] {
        let out = cosadm(&d, &["kill", wrong]);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(
            told.contains(&format!("there is no session {wrong}")),
            "{told}"
        );
    }
    for words in [
        &["kill"][..],
        &["kill", "x"],
        &["kill", "-1"],
        &["who", "x"],
    ] {
        assert_eq!(cosadm(&d, words).status.code(), Some(2), "{words:?}");
    }
    drop(other);
    until("none is left", || who(&d).is_empty());
}

#[test]
fn job_that_ignores_sighup_is_killed() {
    let d = Daemon::start_with("[exec]\nhup-to-kill = 1", "");
    let session = d.session(&["trap '' HUP; echo $$; while :; do read x </dev/zero; done"]);
    let (_, pid) = session.out.wait_from(0, |l| !l.is_empty());
    let id = who(&d)[0]["id"].to_string();
    assert!(cosadm(&d, &["kill", &id]).status.success());
    assert_eq!(session.finish().status, Some(255));
    assert!(ends(pid.parse().unwrap()), "it was not killed");
    until("it is gone", || who(&d).is_empty());
}

#[test]
fn unresponsive_relay_does_not_block_who() {
    let d = Daemon::start();
    let session = d.session(&["echo on; read x"]);
    session.out.wait("on");
    let relay = nix::unistd::Pid::from_raw(d.process("relay"));
    daemon::stop(relay.as_raw());
    let all = who(&d);
    nix::sys::signal::kill(relay, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(all.len(), 1);
    assert!(all[0]["in"].is_null() && all[0]["out"].is_null(), "{all:?}");
    until("it is asked again", || {
        who(&d)[0]["out"].as_u64() == Some(3)
    });
}

#[test]
fn who_is_allowed_for_root_and_the_daemons_user() {
    let folder = prepare("", "");
    let paths = folder.path("S");
    // There is no daemon, and the message says so.
    let out = run(Command::new(COSADM).arg("-C").arg(&paths).arg("who"));
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(
        out.status.code() == Some(1) && told.contains("no cosserver(8) runs"),
        "{told}"
    );
    let check = || {
        let out = run(Command::new(COSADM).arg("-C").arg(&paths).arg("check"));
        String::from_utf8(out.stdout).unwrap()
    };
    let told = check();
    assert!(
        told.contains("note     daemon: no daemon runs on this folder"),
        "{told}"
    );
    let d = Daemon::start_in(folder, &[]);
    let told = check();
    assert!(told.contains("ok       daemon: it runs"), "{told}");
    if !is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    for path in [d.folder.0.clone(), paths.clone(), paths.join("run")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = d.folder.path("cosadm");
    std::fs::copy(COSADM, &program).unwrap();
    let as_another = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=61001", "--regid=61001", "--clear-groups"])
            .arg(&program);
        run(command.arg("-C").arg(&paths).args(words))
    };
    let session = d.session(&["echo on; read x"]);
    session.out.wait("on");
    for words in [&["who"][..], &["kill", "0"]] {
        let out = as_another(words);
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(
            out.status.code() == Some(1) && told.contains("this is for root"),
            "{told}"
        );
    }
    // If the file's mode were ever wrong, the kernel's report of the user would still count.
    let socket = paths.join("run/control");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let out = as_another(&["kill", "0"]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert_eq!(who(&d).len(), 1, "{}", d.log_text());
}

/// The socket's file is gone while the daemon runs: if no session is hung up, that is not success.
#[test]
fn a_daemon_that_cannot_be_reached_is_not_taken_for_none() {
    let mut d = Daemon::start();
    let mut session = d.session(&["echo on; read x; echo got $x"]);
    session.out.wait("on");
    let id = must(
        Command::new(COS)
            .arg("-C")
            .arg(d.client())
            .args(["key", "show"]),
    );
    let id = String::from_utf8(id).unwrap();
    let run_folder = d.server().join("run");
    let fails = |words: &[&str]| {
        let out = cosadm(&d, words);
        let told = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{words:?}: {told}");
        let runs = format!("the daemon (process {}) runs and cannot be", d.pid());
        assert!(told.contains(&runs), "{told}");
        let remedy = told.lines().nth(1).unwrap();
        assert!(remedy.ends_with(": restart the daemon"), "{told}");
        assert!(told.lines().count() == 2, "{told}");
    };
    let all: [&[&str]; 3] = [
        &["exclude", "add", id.trim(), "--now"],
        &["who"],
        &["kill", "1"],
    ];
    std::fs::remove_file(run_folder.join("control")).unwrap();
    all.iter().for_each(|words| fails(words));
    // A file on which no process listens any more.
    drop(cosserver::sys::local::listener(&run_folder.join("control"), 0o600).unwrap());
    all.iter().for_each(|words| fails(words));
    // The lock file was removed too; the process ID is still there.
    std::fs::remove_file(run_folder.join("cosserver.lock")).unwrap();
    all.iter().for_each(|words| fails(words));
    // The session continues: the exclusion by itself ends none.
    session.say("12345");
    session.out.wait("got 12345");
    assert_eq!(session.finish().status, Some(0));

    // If no daemon runs there is nothing to hang up, and that is success.
    d.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(wait(&mut d.child).success());
    let out = cosadm(&d, all[0]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(told.contains("no daemon runs"), "{told}");
}
