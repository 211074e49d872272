//! What the daemon can serve without: a state or run directory that is full, read-only or lost, at
//! its start and while it runs; and a registry that is an older copy.

use crate::daemon;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};

use daemon::{COS, COSADM, COSSERVER, Daemon, Folder, must, run};
use nix::sys::signal::Signal;

/// Starts the daemon in its own mount namespace, after a script in which `$T` is this directory.
fn after(script: &str, target: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg(format!("{script}\nexec \"$@\"")).arg("sh");
    command.arg(COSSERVER).env("T", target);
    command
}

const READ_ONLY: &str = "mount --bind \"$T\" \"$T\"; mount -o remount,bind,ro \"$T\"";

/// A separate file system with the earlier contents, then filled up.
const FULL: &str = "cp -a \"$T\" \"$T.copy\"
mount -t tmpfs -o size=300k,nr_inodes=64,mode=700 none \"$T\"
cp -a \"$T.copy/.\" \"$T/\"
dd if=/dev/zero of=\"$T/fill\" bs=1k 2>/dev/null || :
i=0; while true >\"$T/fill.$i\"; do i=$((i+1)); done 2>/dev/null || :";

/// Creates the directories of a host that has served its client before, and is registered.
fn served() -> Folder {
    let mut d = Daemon::start_in(daemon::configured("", ""), &[]);
    d.says(0, &["true"]);
    d.log.wait("auto-registered machine=");
    stop(&mut d);
    std::mem::take(&mut d.folder)
}

fn stop(d: &mut Daemon) {
    d.signal(Signal::SIGTERM);
    d.child.wait().unwrap();
}

fn cosadm(server: &Path, words: &[&str]) -> Output {
    run(Command::new(COSADM).arg("-C").arg(server).args(words))
}

/// Ends the daemon, and returns its directories.
fn folder_of(mut d: Daemon) -> Folder {
    stop(&mut d);
    std::mem::take(&mut d.folder)
}

/// Regression: the daemon did not start, which locked out the administrator who had to free the
/// disk.
#[test]
fn full_or_read_only_state_at_start_serves_known_hosts() {
    if !daemon::needs_root() {
        return;
    }
    let mut folder = served();
    let state = folder.path("S/state");
    for script in [READ_ONLY, FULL] {
        let d = Daemon::start_by(after(script, &state), folder, &[]);
        assert_eq!(d.says(0, &["echo served"]), b"served\n");
        let line = d.log.wait("degraded why=");
        assert!(
            line.contains("state") && line.contains("registered"),
            "{line}"
        );
        folder = folder_of(d);
        let _ = fs::remove_dir_all(folder.path("S/state.copy"));
    }
    // The exclude list is checked as before.
    let id = must(
        Command::new(COS)
            .arg("-C")
            .arg(folder.path("A"))
            .args(["key", "show"]),
    );
    let id = String::from_utf8(id).unwrap();
    let excluded = cosadm(&folder.path("S"), &["exclude", "add", id.trim()]);
    assert!(excluded.status.success(), "{excluded:?}");
    let d = Daemon::start_by(after(READ_ONLY, &state), folder, &[]);
    d.says(255, &["true"]);
    d.log.wait("cause=excluded");
}

/// Without a run directory there is no pid file and no socket; the daemon creates both when it is
/// back.
#[test]
fn full_or_read_only_run_at_start_serves_and_is_claimed_later() {
    if !daemon::needs_root() {
        return;
    }
    let mut folder = served();
    let target = folder.path("S/run");
    let free = ["mount -o remount,bind,rw \"$T\"", "rm \"$T\"/fill*"];
    for (script, free) in [READ_ONLY, FULL].into_iter().zip(free) {
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir(&target).unwrap();
        let notify = folder.path("notify");
        let _ = fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        let receive = || {
            let mut bytes = [0; 512];
            let n = manager.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..n].to_vec()).unwrap()
        };
        let mut command = after(script, &target);
        command.env("NOTIFY_SOCKET", &notify);
        let d = Daemon::start_by(command, folder, &[]);
        assert_eq!(d.says(0, &["echo served"]), b"served\n");
        d.log.wait("degraded why=");
        let line = d.log.wait("no-pid-file file=");
        assert!(line.contains(&target.display().to_string()), "{line}");
        let status = receive();
        assert!(status.starts_with("STATUS=degraded: "), "{status}");
        assert_eq!(receive(), "READY=1");
        // The administrator frees the disk, in the daemon's namespace.
        must(&mut within(&d, free, &target));
        d.log.wait("claimed file=");
        folder = folder_of(d);
        let _ = fs::remove_dir_all(folder.path("S/run.copy"));
    }
}

/// Runs a script in a daemon's mount namespace.
fn within(d: &Daemon, script: &str, target: &Path) -> Command {
    let mut command = Command::new("nsenter");
    // Its root as well: the tests may run in another root than the namespace's.
    let pid = d.pid().to_string();
    command.args(["--mount", "--root", "-t", &pid, "sh", "-ec", script]);
    command.env("T", target);
    command
}

/// Disks that fill up, or become read-only, while the daemon runs stop nothing either.
#[test]
fn state_or_run_that_fills_up_or_becomes_read_only_stops_nothing() {
    if !daemon::needs_root() {
        return;
    }
    let folder = served();
    let server = folder.path("S");
    let mounts = "mount --bind \"$T/state\" \"$T/state\"
        mount -t tmpfs -o size=64k,mode=755 none \"$T/run\"";
    let d = Daemon::start_by(after(mounts, &server), folder, &[]);
    d.says(0, &["true"]);
    let close = "mount -o remount,bind,ro \"$T/state\"
        dd if=/dev/zero of=\"$T/run/fill\" bs=1k 2>/dev/null || :";
    must(&mut within(&d, close, &server));
    assert_eq!(d.says(0, &["echo on"]), b"on\n");
    d.signal(Signal::SIGHUP);
    d.log.wait("reloaded");
    assert_eq!(d.says(0, &["echo still"]), b"still\n");
}

// ---- lost state ----

/// Regression: with the state directory its exclusions were forgotten without a message, because
/// the note about them was in the same directory.
#[test]
fn lost_state_denies_until_it_is_back() {
    let folder = served();
    let (server, state, away) = (
        folder.path("S"),
        folder.path("S/state"),
        folder.path("away"),
    );
    fs::rename(&state, &away).unwrap();
    let d = Daemon::start_in(folder, &[]);
    let line = d.log.wait("degraded why=");
    assert!(line.contains("sestab") && line.contains("gone"), "{line}");
    d.says(255, &["true"]);
    let line = d.log.wait("denied ");
    assert!(
        line.contains("cause=registry") && line.contains("gone"),
        "{line}"
    );
    assert!(!state.join("sestab").exists(), "it was made anew");
    let checked = cosadm(&server, &["check"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&checked.stdout).contains("gone"),
        "{checked:?}"
    );
    // A command that creates missing files does not recreate it either.
    let (key, copy) = (server.join("machine.key"), d.folder.path("machine.key"));
    fs::rename(&key, &copy).unwrap();
    let words = [
        "host",
        "invite",
        "hostc",
        "--addr",
        "192.0.2.1",
        "--run-as",
        "root",
    ];
    let invited = cosadm(&server, &words);
    assert_eq!(invited.status.code(), Some(1), "{invited:?}");
    assert!(!state.join("sestab").exists(), "{invited:?}");
    fs::rename(&copy, &key).unwrap();
    // The disk is mounted again: the daemon continues as before.
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    assert_eq!(d.says(0, &["echo back"]), b"back\n");
    let checked = cosadm(&server, &["check"]);
    assert!(checked.status.success(), "{checked:?}");
}

/// Under inetd it is the same.
#[test]
fn under_inetd_lost_state_denies() {
    let folder = served();
    fs::rename(folder.path("S/state"), folder.path("away")).unwrap();
    let d = Daemon::inetd_in(folder, &[]);
    d.says(255, &["true"]);
    assert!(
        !d.server().join("state/sestab").exists(),
        "it was made anew"
    );
}

/// An installation from before the note existed gets one at its next start.
#[test]
fn an_older_installation_gets_its_note_at_the_next_start() {
    let folder = served();
    let note = folder.path("S/registry");
    fs::remove_file(&note).unwrap();
    let d = Daemon::start_in(folder, &[]);
    let text = fs::read_to_string(&note).unwrap();
    for file in ["sestab", "idfile"] {
        assert!(text.contains(file), "{text}");
    }
    assert!(text.contains("state/machines 1\n"), "{text}");
    // No connection rewrites it.
    let before = fs::metadata(&note).unwrap().modified().unwrap();
    d.says(0, &["true"]);
    assert_eq!(fs::metadata(&note).unwrap().modified().unwrap(), before);
}

/// Regression: a restored backup allowed machines again that were excluded after it was made.
#[test]
fn older_backup_is_reported_at_start_and_by_check() {
    let folder = served();
    let (server, state) = (folder.path("S"), folder.path("S/state"));
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        must(Command::new("cp").arg("-a").arg(from).arg(to));
    };
    copy(&state, &folder.path("backup"));
    let id = "ffffffffffffffffffffffffffffffff";
    let excluded = cosadm(&server, &["exclude", "add", id]);
    assert!(excluded.status.success(), "{excluded:?}");
    assert!(cosadm(&server, &["check"]).status.success());
    copy(&folder.path("backup"), &state);
    let mut folder = folder;
    for _ in 0..2 {
        let (again, told) = starts_with(folder);
        assert_eq!(told, [true, true], "reported by start and by check");
        folder = again;
    }
    // The message names the older file, not the note.
    let checked = cosadm(&server, &["check"]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    let line = checked.lines().find(|l| l.contains("older copy")).unwrap();
    let file = format!("{}: an older copy", state.join("sestab").display());
    assert!(line.contains(&file) && !line.contains("registry"), "{line}");
    // The administrator accepts it as it is.
    assert!(cosadm(&server, &["init"]).status.success());
    assert_eq!(starts_with(folder).1, [false, false]);
}

/// Starts a daemon, which serves; returns whether its log and `cosadm check` report an older copy.
fn starts_with(folder: Folder) -> (Folder, [bool; 2]) {
    let d = Daemon::start_in(folder, &[]);
    d.says(0, &["true"]);
    let log = d.log.all().into_iter();
    let log: Vec<String> = log.filter(|l| l.starts_with("degraded ")).collect();
    let checked = cosadm(&d.server(), &["check"]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    let tells = |text: &str| text.contains("older copy");
    // The log line also contains the remedy.
    let in_log = log.iter().find(|l| tells(l));
    assert!(in_log.is_none_or(|l| l.contains("init")), "{in_log:?}");
    let told = [in_log.is_some(), tells(&checked)];
    (folder_of(d), told)
}
