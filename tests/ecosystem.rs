//! The real tools over `cosrsh` against the real daemon, with their results compared byte for byte.
//! `scripts/need test` installs them; if one is missing the test says so, and fails in CI.

use crate::daemon;
use crate::tool;

use std::fs;
use std::path::Path;
use std::process::Command;

use daemon::session::{Gate, Session, on_path};
use daemon::{is_root, long, me, members, must, until};
use tool::{everything, grow, have, start, tool};

#[test]
fn rsync_both_ways_of_ten_thousand_files() {
    if !have(&["rsync"]) {
        return;
    }
    let d = start();
    let [here, there, back] = ["here", "there", "back"].map(|n| d.folder.path(n));
    grow(&here, 10_000);
    let rsync = |from: &str, to: &str| {
        let mut command = tool(&d, "rsync");
        command.args(["-a", "--itemize-changes", "-e", "cosrsh", from, to]);
        String::from_utf8(must(&mut command)).unwrap()
    };
    let remote = |path: &Path| format!("hostb:{}/", path.display());
    let local = |path: &Path| format!("{}/", path.display());
    let all = everything(&here);
    assert!(all.len() > 10_100);
    let told = rsync(&local(&here), &remote(&there));
    assert!(told.lines().count() > 10_000);
    assert!(everything(&there) == all, "what was pushed differs");
    assert_eq!(
        rsync(&local(&here), &remote(&there)),
        "",
        "nothing is left to do"
    );
    rsync(&remote(&there), &local(&back));
    assert!(everything(&back) == all, "what was pulled differs");
    // One byte of many, by difference; with a user and the environment's shell.
    let mut large = fs::read(there.join("large")).unwrap();
    large[3_000_000] ^= 1;
    fs::write(there.join("large"), &large).unwrap();
    let mut command = tool(&d, "rsync");
    let from = format!("{}@{}", me(), remote(&there));
    command
        .env("RSYNC_RSH", "cosrsh")
        .args(["-rlc", &from, &local(&back)]);
    must(&mut command);
    assert!(fs::read(back.join("large")).unwrap() == large);
}

#[test]
fn git_clone_fetch_and_push() {
    if !have(&["git"]) {
        return;
    }
    let d = start();
    let git = |folder: &Path, words: &[&str]| {
        let mut command = tool(&d, "git");
        command
            .env("GIT_SSH", "cosrsh")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@b")])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@b")])
            .current_dir(folder)
            .args(["-c", "protocol.version=2", "-c", "init.defaultBranch=main"])
            .args(words);
        String::from_utf8(must(&mut command)).unwrap()
    };
    let [work, bare, clone] = ["work", "bare it's.git", "clone"].map(|n| d.folder.path(n));
    grow(&work, 500);
    git(&work, &["init", "-q"]);
    git(&work, &["add", "."]);
    git(&work, &["commit", "-q", "-m", "one"]);
    git(
        &d.folder.0,
        &["clone", "-q", "--bare", "work", bare.to_str().unwrap()],
    );

    let url = format!("hostb:{}", bare.display());
    git(&d.folder.0, &["clone", "-q", &url, clone.to_str().unwrap()]);
    git(&clone, &["fsck", "--strict"]);
    let head = |folder: &Path| git(folder, &["rev-parse", "main^{tree}"]);
    assert_eq!(head(&clone), head(&work));

    fs::write(clone.join("new"), "x".repeat(3_000_000)).unwrap();
    git(&clone, &["add", "."]);
    git(&clone, &["commit", "-q", "-m", "two"]);
    git(&clone, &["push", "-q", "origin", "main"]);
    assert_eq!(head(&bare), head(&clone));
    git(&bare, &["fsck", "--strict"]);

    let url = format!("ssh://{}@hostb:{}{}", me(), d.port, bare.display());
    git(
        &work,
        &["-c", "core.sshCommand=cosrsh", "pull", "-q", &url, "main"],
    );
    assert_eq!(head(&work), head(&clone));
    assert_eq!(fs::read(work.join("new")).unwrap().len(), 3_000_000);
}

#[test]
fn tar_to_and_from_a_remote_archive() {
    if !have(&["tar", "rmt"]) {
        return;
    }
    let d = start();
    let [here, back] = ["here", "back"].map(|n| d.folder.path(n));
    grow(&here, 300);
    fs::create_dir(&back).unwrap();
    let rmt = format!("--rmt-command={}", on_path("rmt").unwrap().display());
    let rsh = format!("--rsh-command={}", d.folder.path("bin/cosrsh").display());
    let file = d.folder.path("archive.tar");
    // tar looks up the host name itself before it connects, so the test uses an address.
    for archive in [
        format!("127.0.0.1:{}", file.display()),
        format!("{}@127.0.0.1:{}", me(), file.display()),
    ] {
        let command = |words: &[&str]| {
            let mut command = tool(&d, "tar");
            command.args([&rsh, &rmt, "-f", &archive]).args(words);
            command
        };
        let tar = |words: &[&str]| must(&mut command(words));
        let first = daemon::run(&mut command(&["-c", "-T", "/dev/null"]));
        let said = String::from_utf8(first.stderr).unwrap();
        if !is_root() && said.contains("initgroups") {
            eprintln!("left out: this tar reaches remote archives as root alone: {said}");
            return;
        }
        tar(&["-c", "-C", here.to_str().unwrap(), "."]);
        assert!(fs::metadata(&file).unwrap().len() > 6_000_000);
        // The archive is complete for a local tar, too.
        let here_listed = must(tool(&d, "tar").arg("-tf").arg(&file));
        assert_eq!(tar(&["-t"]), here_listed);
        tar(&["-x", "-C", back.to_str().unwrap()]);
        assert!(everything(&back) == everything(&here));
        fs::remove_dir_all(&back).unwrap();
        fs::create_dir(&back).unwrap();
    }
}

#[test]
fn pdsh_with_any_program() {
    if !have(&["pdsh"]) {
        return;
    }
    let d = start();
    let mut pdsh = tool(&d, "pdsh");
    pdsh.args([
        "-R",
        "exec",
        "-w",
        "hostb,127.0.0.1",
        "cosrsh",
        "-l",
        "%u",
        "%h",
        "echo $((6*7)); echo e >&2; seq 1 3",
    ]);
    let out = daemon::run(&mut pdsh);
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expected = [
        "127.0.0.1: 1",
        "127.0.0.1: 2",
        "127.0.0.1: 3",
        "127.0.0.1: 42",
        "hostb: 1",
        "hostb: 2",
        "hostb: 3",
        "hostb: 42",
    ];
    assert_eq!(lines, expected);
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(
        err.lines().filter(|l| l.ends_with(": e")).count(),
        2,
        "{err}"
    );
}

#[test]
fn parallel_over_remote_hosts() {
    if !have(&["parallel"]) {
        return;
    }
    let d = start();
    let count = if long() { 1000 } else { 24 };
    let mut parallel = tool(&d, "parallel");
    // With its own home directory: it keeps notes there.
    parallel
        .env("HOME", &d.folder.0)
        .env("PARALLEL_HOME", d.folder.path("notes"));
    fs::create_dir(d.folder.path("notes")).unwrap();
    parallel.args([
        "--will-cite",
        "--keep-order",
        "--ssh",
        "cosrsh",
        "-S",
        "8/hostb",
    ]);
    parallel.arg("echo {} $((6*7)) 'it'\\''s'; test {} -ne 3");
    parallel.arg(":::").args((1..=count).map(|n| n.to_string()));
    let out = daemon::run(&mut parallel);
    // Its status is the number of failed jobs.
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let expected: String = (1..=count).map(|n| format!("{n} 42 it's\n")).collect();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), expected);
    d.log.said_at_least("exec session=", count);

    // Files transferred in both directions, and the input distributed.
    let mut parallel = tool(&d, "parallel");
    parallel
        .env("HOME", &d.folder.0)
        .env("PARALLEL_HOME", d.folder.path("notes"));
    parallel.args([
        "--will-cite",
        "--ssh",
        "cosrsh",
        "-S",
        "2/hostb",
        "--pipe",
        "--block",
        "1M",
        "wc -l",
    ]);
    let numbers = d.folder.path("numbers");
    fs::write(&numbers, must(Command::new("seq").args(["1", "500000"]))).unwrap();
    let out = parallel
        .stdin(fs::File::open(numbers).unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    let sum: u64 = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|l| l.trim().parse::<u64>().unwrap())
        .sum();
    assert_eq!(sum, 500_000);
}

/// Regression: GNU parallel kills the `cosrsh` of a job; the job itself, which it has put into its
/// own process group on the host, was left behind.
#[test]
fn jobs_of_parallel_end_by_timeout_and_halt() {
    if !have(&["parallel"]) {
        return;
    }
    let d = start();
    let notes = d.folder.path("notes");
    fs::create_dir(&notes).unwrap();
    let mut gate = Gate::new(d.folder.path("gate"));
    for (n, stops) in [&["--timeout", "3"][..], &["--halt", "now,fail=1"]]
        .iter()
        .enumerate()
    {
        let (pids, fails) = (d.folder.path(&format!("pids{n}")), stops[0] == "--halt");
        let mut parallel = tool(&d, "parallel");
        // With its own home directory: it keeps notes there.
        parallel
            .env("HOME", &d.folder.0)
            .env("PARALLEL_HOME", &notes);
        parallel.args(["--will-cite", "--ssh", "cosrsh", "-S", "3/hostb"]);
        let fail = format!("test {{}} = 1 && read x <{} && exit 1; ", gate.name());
        let job = format!(
            "echo $$ >>{}; {}timeout 1000 sleep 1000",
            pids.display(),
            if fails { &fail } else { "" }
        );
        parallel.args(*stops).arg(job).args([":::", "1", "2", "3"]);
        let mut session = Session::spawn(&mut parallel);
        drop(session.stdin.take());
        let read = || fs::read_to_string(&pids).unwrap_or_default();
        until("three jobs run", || read().lines().count() == 3);
        let of = |line: &str| {
            let pid = nix::unistd::Pid::from_raw(line.parse().unwrap());
            nix::unistd::getsid(Some(pid)).unwrap().as_raw()
        };
        let sessions: Vec<i32> = read().lines().map(of).collect();
        assert!(sessions.iter().all(|leader| !members(*leader).is_empty()));
        if fails {
            gate.open();
        }
        let ended = session.finish();
        assert_ne!(ended.status, Some(0), "{ended:?}");
        until("the jobs are gone", || {
            sessions.iter().all(|leader| members(*leader).is_empty())
        });
    }
}
