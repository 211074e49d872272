//! rsh's command line, as other tools use it, against the real daemon: each argument vector
//! verbatim, and what the remote program receives. Also one host table for a mixed set of hosts.

use crate::daemon;
use crate::program;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use daemon::{Daemon, Folder, me, must, run};

/// A program that prints its name and its arguments, each in brackets, and copies its input.
const ECHOING: &str =
    "#!/bin/sh\nprintf '%s' \"${0##*/}\"\nfor a; do printf '[%s]' \"$a\"; done\necho\nexec cat\n";

fn install(folder: &Path, name: &str, text: &str) {
    program::script(&folder.join(name), text);
}

/// Starts a daemon whose commands find echoing programs under the real ones' names, and returns the
/// directory with them.
fn daemon_with_tools() -> (Daemon, Folder) {
    let tools = Folder::new();
    let folder = tools.0.display();
    let path = format!(
        "[exec]\npath = \"{folder}:/usr/bin:/bin\"\n\
         [subsystem]\nsftp = \"{folder}/sftp-server -l 'a  b'\"\n"
    );
    for name in [
        "rsync",
        "git-upload-pack",
        "git-receive-pack",
        "scp",
        "borg",
        "rmt",
        "orted",
        "sftp-server",
    ] {
        install(&tools.0, name, ECHOING);
    }
    let d = Daemon::start_with(&path, "");
    d.install_cosrsh();
    (d, tools)
}

fn said(d: &Daemon, words: &[&str]) -> String {
    let out = run(&mut d.cosrsh(words));
    assert_eq!(
        (out.status.code(), &*out.stderr),
        (Some(0), &b""[..]),
        "{words:?}"
    );
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn each_tools_command_line() {
    let me = me();
    let me = me.as_str();
    let (d, _tools) = daemon_with_tools();
    let port = d.port.to_string();
    let port = port.as_str();
    let at = format!("{me}@hostb");
    let at = at.as_str();
    let lines: &[(&str, &[&str], &str)] = &[
        (
            "rsync",
            &[
                "hostb",
                "rsync",
                "--server",
                "-vlogDtpre.iLsfxCIvu",
                ".",
                "dir/",
            ],
            "rsync[--server][-vlogDtpre.iLsfxCIvu][.][dir/]",
        ),
        (
            "rsync, user and port, a name with a space as it escapes it",
            &[
                "-p",
                port,
                "-l",
                me,
                "hostb",
                "rsync",
                "--server",
                "--sender",
                "-e.LsfxCIvu",
                ".",
                "a\\ b/",
            ],
            "rsync[--server][--sender][-e.LsfxCIvu][.][a b/]",
        ),
        (
            "rsync, IPv4 address",
            &["127.0.0.1", "rsync", "--server", ".", "d"],
            "rsync[--server][.][d]",
        ),
        (
            "rsync, IPv6 address without brackets",
            &["-6", "::1", "rsync", "--server", ".", "d"],
            "rsync[--server][.][d]",
        ),
        (
            "git",
            &[
                "-o",
                "SendEnv=GIT_PROTOCOL",
                "-p",
                port,
                at,
                "git-upload-pack '/srv/a b.git'",
            ],
            "git-upload-pack[/srv/a b.git]",
        ),
        (
            "git push",
            &[at, "git-receive-pack '/p'"],
            "git-receive-pack[/p]",
        ),
        (
            "tar, user after the host",
            &["hostb", "-l", me, "rmt"],
            "rmt",
        ),
        (
            "pdsh -R ssh",
            &[
                "-oConnectTimeout=10",
                "-2",
                "-a",
                "-x",
                "-l",
                me,
                "hostb",
                "echo",
                "a  b",
            ],
            "a b",
        ),
        (
            "parallel",
            &["-l", me, "hostb", "--", "exec", "rsync", "-x", "--", "y"],
            "rsync[-x][--][y]",
        ),
        (
            "scp -O",
            &[
                "-x",
                "-oForwardAgent=no",
                "-oClearAllForwardings=yes",
                "-l",
                me,
                "--",
                "hostb",
                "scp -t dir",
            ],
            "scp[-t][dir]",
        ),
        (
            "sftp",
            &[
                "-oForwardX11 no",
                "-oPermitLocalCommand no",
                "-oClearAllForwardings yes",
                "-oForwardAgent no",
                "-l",
                me,
                "-s",
                "--",
                "hostb",
                "sftp",
            ],
            "sftp-server[-l][a  b]",
        ),
        (
            "scp",
            &[
                "-x",
                "-oPermitLocalCommand=no",
                "-oClearAllForwardings=yes",
                "-oRemoteCommand=none",
                "-oRequestTTY=no",
                "-oForwardAgent=no",
                "-l",
                me,
                "-s",
                "--",
                "hostb",
                "sftp",
            ],
            "sftp-server[-l][a  b]",
        ),
        (
            "sshfs",
            &[
                "-x",
                "-a",
                "-oClearAllForwardings=yes",
                "-2",
                at,
                "-s",
                "sftp",
            ],
            "sftp-server[-l][a  b]",
        ),
        (
            "restic, rclone",
            &["hostb", "-s", "sftp"],
            "sftp-server[-l][a  b]",
        ),
        (
            "borg",
            &["-p", port, at, "borg", "serve", "--umask=077"],
            "borg[serve][--umask=077]",
        ),
        (
            "Open MPI",
            &["-x", at, "orted", "-mca", "ess", "env"],
            "orted[-mca][ess][env]",
        ),
        (
            "flags up to the command alone",
            &["-n", "hostb", "-4", "-q", "rsync", "-n", "-l", "x"],
            "rsync[-n][-l][x]",
        ),
        (
            "BSD rsh",
            &["-8", "-L", "-d", "-e", "c", "-n", "hostb", "echo x"],
            "x",
        ),
        (
            "options apart from their values, and a quoted command",
            &[
                "-o",
                "BatchMode=yes",
                "-T",
                "hostb",
                "/bin/sh -c 'echo \"a  b\"'",
            ],
            "a  b",
        ),
    ];
    let ipv6 = d.log.count("listening on [::1]:") > 0;
    for (tool, words, expected) in lines {
        if words.contains(&"::1") && !ipv6 {
            eprintln!("left out: this machine has no IPv6");
            continue;
        }
        assert_eq!(said(&d, words).trim_end(), *expected, "{tool}: {words:?}");
    }
}

#[test]
fn open_mpi_asks_for_the_shell_and_git_for_our_flags() {
    let d = Daemon::start();
    d.install_cosrsh();
    let shell = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap()
        .shell;
    let out = said(&d, &["hostb", "echo $SHELL"]);
    assert_eq!(out.trim_end(), shell.to_str().unwrap());
    // The probe answers by its status, and makes no connection.
    assert_eq!(
        said(
            &d,
            &["-G", "-o", "SendEnv=GIT_PROTOCOL", "-p", "1", "nowhere"]
        ),
        ""
    );
    d.log.said_times("exec session=", 1);
}

#[test]
fn the_environment_names_the_folder() {
    let d = Daemon::start();
    d.install_cosrsh();
    let out = must(&mut d.cosrsh(&["hostb", "uptime"]));
    assert!(String::from_utf8(out).unwrap().contains("load average"));
    // Only the environment does: rsync's RSYNC_RSH and git's GIT_SSH have no flag for it.
    let elsewhere = Folder::new();
    let mut command = d.cosrsh(&["hostb", "uptime"]);
    let out = run(command.env("COS_CONFIG_DIR", &elsewhere.0));
    assert_eq!(out.status.code(), Some(255));
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .starts_with("cos: hostb: ")
    );
}

#[test]
fn standard_output_has_only_the_commands_output() {
    let d = Daemon::start();
    d.install_cosrsh();
    let out = run(&mut d.cosrsh(&["-v", "hostb", "printf out; printf err >&2; exit 3"]));
    assert_eq!((out.status.code(), &*out.stdout), (Some(3), &b"out"[..]));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        said.contains("err") && said.contains("connect") && said.contains("exit status 3"),
        "{said}"
    );
    let out = run(&mut d.cosrsh(&["hostb", "printf out; printf err >&2; exit 3"]));
    assert_eq!((&*out.stdout, &*out.stderr), (&b"out"[..], &b"err"[..]));
}

#[test]
fn what_cannot_be_had_fails_cleanly() {
    let d = Daemon::start();
    d.install_cosrsh();
    let cases: [(&[&str], &str); 5] = [
        (&["-s", "hostb", "sftp -R"], "not the name of a subsystem"),
        (&["-N", "hostb"], "give a command"),
        (&["nowhere", "true"], " host join FILE`"),
        (&["-p", "x", "hostb", "true"], "port"),
        (&["-l", "-f", "hostb", "true"], "-l"),
    ];
    for (words, part) in cases {
        let out = run(&mut d.cosrsh(words));
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(
            (out.status.code(), out.stdout.len()),
            (Some(255), 0),
            "{words:?} {said}"
        );
        assert!(
            said.starts_with("cos: ") && said.contains(part) && said.lines().count() == 1,
            "{words:?} {said}"
        );
    }
    assert_eq!(d.log.count("exec session="), 0);
}

#[test]
fn connection_refused_is_reported_by_cosrsh() {
    let mut d = Daemon::start();
    d.install_cosrsh();
    d.child.kill().unwrap();
    d.child.wait().unwrap();
    // The gate has the listening socket too, and ends a moment after the monitor.
    for address in ["127.0.0.1", "::1"] {
        while TcpStream::connect((address, d.port)).is_ok() {
            std::thread::yield_now();
        }
    }
    let out = run(&mut d.cosrsh(&["hostb", "true"]));
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(255));
    assert!(
        said.starts_with("cos: hostb: ") && said.contains("refused"),
        "{said}"
    );
}

#[test]
fn one_host_table_serves_cos_ssh_and_rsh_hosts() {
    let d = Daemon::start();
    d.install_cosrsh();
    let fakes = d.folder.path("fakes");
    fs::create_dir(&fakes).unwrap();
    for name in ["ssh", "rsh"] {
        install(
            &fakes,
            name,
            &format!("{ECHOING}exit 42\n").replace("exec cat", "cat"),
        );
    }
    daemon::append(
        &d.client().join("hostinfo"),
        "bysecure ssh port=2222 user=op\nbyold rsh\n",
    );
    let by = |words: &[&str], input: &str| {
        let path = format!("{}:{}", fakes.display(), std::env::var("PATH").unwrap());
        let mut command = d.cosrsh(words);
        command.env("PATH", path);
        let file = d.folder.path("input");
        fs::write(&file, input).unwrap();
        command.stdin(fs::File::open(file).unwrap());
        let out = command.output().unwrap();
        let said = String::from_utf8(out.stdout).unwrap();
        (
            out.status.code(),
            said,
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let (status, said, err) = by(
        &["-x", "-oX=y", "bysecure", "echo", "a  b", "$x"],
        "input\n",
    );
    assert_eq!(
        (status, &*said, &*err),
        (
            Some(42),
            "ssh[-l][op][-p][2222][-x][-oX=y][--][bysecure][echo][a  b][$x]\ninput\n",
            ""
        )
    );
    let (status, said, err) = by(&["-n", "-l", "jo", "byold", "uptime"], "");
    assert_eq!(
        (status, &*said, &*err),
        (Some(42), "rsh[-n][-l][jo][byold][uptime]\n", "")
    );
    // ssh has subsystems too; rsh has none, and gets no command of that name.
    let (status, said, _) = by(&["bysecure", "-s", "sftp"], "");
    assert_eq!(
        (status, &*said),
        (Some(42), "ssh[-l][op][-p][2222][-s][--][bysecure][sftp]\n")
    );
    let (status, said, err) = by(&["-s", "byold", "sftp"], "");
    assert_eq!((status, &*said), (Some(255), ""), "{err}");
    assert!(err.contains("rsh, which has no subsystems"), "{err}");
    // A host that runs cosserver is reached as before, by the same table.
    let (status, said, _) = by(&["hostb", "cat"], "to ours\n");
    assert_eq!((status, &*said), (Some(0), "to ours\n"));
    // If there is no such program, it says so.
    let mut command = d.cosrsh(&["bysecure", "true"]);
    let out = run(command.env("PATH", "/nonexistent"));
    assert_eq!(out.status.code(), Some(255));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("method=ssh"), "{said}");
}

#[test]
fn a_shell_that_calls_it_gets_the_status_and_the_streams() {
    let d = Daemon::start();
    d.install_cosrsh();
    let script = "printf 'b\\na\\n' | cosrsh hostb sort | tr '\\n' ,; \
                  cosrsh hostb 'exit 3' || echo \"not $?\"; \
                  x=$(cosrsh hostb echo in; cosrsh -n hostb cat); echo \"$x\"; \
                  printf '1\\n2\\n' | while read n; do cosrsh -n hostb echo \"host $n\"; done";
    let path = format!(
        "{}:{}",
        d.folder.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .env("PATH", path)
        .env("COS_CONFIG_DIR", d.client());
    let out = String::from_utf8(must(&mut shell)).unwrap();
    assert_eq!(out, "a,b,not 3\nin\nhost 1\nhost 2\n");
}
