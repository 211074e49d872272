//! Jobs on the real daemon: what a command is started with, and what the client learns of its end.

use crate::daemon;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use daemon::{COS, COSADM, COSSERVER, Daemon, me, must, needs_root, prepare, report_skipped, run};
use nix::unistd::{Uid, User};

/// Denials that come soon.
const SOON: &str = "[daemon]\nrefusal-interval = 1\n";

fn own_account() -> User {
    User::from_uid(Uid::effective()).unwrap().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn output_errors_and_status_arrive_apart() {
    let d = Daemon::start();
    let out = run(&mut d.cos(&["echo out; echo err >&2; exit 42"]));
    assert_eq!(out.stdout, b"out\n");
    assert_eq!(out.stderr, b"err\n");
    assert_eq!(out.status.code(), Some(42));
    let line = d.log.wait("end session=0");
    assert!(
        line.contains("status=42") && line.contains("how=done"),
        "{line}"
    );
}

#[test]
fn all_256_exit_statuses() {
    let d = Daemon::start();
    let next = AtomicI32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let status = next.fetch_add(1, Ordering::Relaxed);
                    if status > 255 {
                        return;
                    }
                    let out = run(&mut d.cos(&["exit", &status.to_string()]));
                    let expected = (Some(status), &b""[..], &b""[..]);
                    assert_eq!(
                        (out.status.code(), &*out.stdout, &*out.stderr),
                        expected,
                        "{}",
                        d.log_text()
                    );
                }
            });
        }
    });
}

#[test]
fn the_words_are_joined_by_single_spaces_and_never_quoted() {
    let d = Daemon::start();
    let said = |words: &[&str]| text(&d.says(0, words));
    assert_eq!(said(&["echo", "a  b", "", "c"]), "a b c\n");
    assert_eq!(said(&["printf", "'%s|'", "'a  b'", "$((6*7))"]), "a  b|42|");
    assert_eq!(said(&["echo a; echo b"]), "a\nb\n");
    assert_eq!(said(&["cat <<E\nline 1\n'2'\nE"]), "line 1\n'2'\n");
    // Bytes that are not text.
    let word = OsString::from_vec(b"printf %s \xff\xfe\x80".to_vec());
    assert_eq!(must(d.cos(&[]).arg(word)), b"\xff\xfe\x80");
}

#[test]
fn the_environment_is_exactly_what_it_should_be() {
    let d = Daemon::start_with("[exec]\nssh-client = true\n", "accept-env=DEPLOY_TAG");
    // The environment that the shell was started with, before it adds its own variables.
    let mut command = Command::new(COS);
    let port = d.port.to_string();
    command.arg("-C").arg(d.client());
    command.args([
        "run",
        "-p",
        &port,
        "-oSendEnv=DEPLOY_TAG SECRET SSH_CLIENT",
        "hostb",
    ]);
    command.arg("cat /proc/$$/environ; true");
    command.env_clear().envs([
        ("LANG", "C.UTF-8"),
        ("LC_TIME", "de_DE.UTF-8"),
        ("LC_ALL", "C"),
        ("GIT_PROTOCOL", "version=2"),
        ("HOME", "/elsewhere"),
        ("PATH", "/elsewhere"),
        ("LD_PRELOAD_NOT", "x"),
        ("COS_HOST", "forged"),
        ("SSH_CLIENT", "forged"),
        ("IFS", "x"),
        ("SECRET", "s"),
        ("DEPLOY_TAG", "v1 = x"),
    ]);
    let out = must(&mut command);
    let mut got: Vec<String> = out
        .split(|b| *b == 0)
        .filter(|v| !v.is_empty())
        .map(text)
        .collect();
    got.sort();
    let own = own_account();
    // The client's system chooses its port.
    let client = got.iter().position(|v| v.starts_with("SSH_CLIENT="));
    let client = got.remove(client.unwrap());
    let ends: Vec<&str> = client["SSH_CLIENT=".len()..].split(' ').collect();
    assert_eq!((ends[0], ends[2]), ("127.0.0.1", &*port), "{client}");
    assert!(ends[1].parse::<u16>().is_ok(), "{client}");
    let mut expected = vec![
        format!("HOME={}", own.dir.display()),
        format!("USER={}", own.name),
        format!("LOGNAME={}", own.name),
        format!("SHELL={}", own.shell.display()),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "COS_HOST=hosta".to_owned(),
        format!("COS_USER={}", own.name),
        "LANG=C.UTF-8".to_owned(),
        "LC_TIME=de_DE.UTF-8".to_owned(),
        "LC_ALL=C".to_owned(),
        "GIT_PROTOCOL=version=2".to_owned(),
        // Requested and allowed; SECRET was only requested.
        "DEPLOY_TAG=v1 = x".to_owned(),
    ];
    expected.sort();
    assert_eq!(got, expected);
}

#[test]
fn variables_asked_for_arrive_whole_and_one_too_long_is_named() {
    let names: Vec<String> = (0..60).map(|n| format!("V{n}")).collect();
    let allowed = [&names[..], &["EMPTY".to_owned(), "BIG".to_owned()]].concat();
    let d = Daemon::start_with("", &format!("accept-env={}", allowed.join(",")));
    let asks = |big: usize, command: &str| {
        let mut cos = Command::new(COS);
        cos.arg("-C").arg(d.client());
        let port = d.port.to_string();
        cos.args([
            "run",
            "-p",
            &port,
            "-oSendEnv=V* EMPTY BIG",
            "hostb",
            command,
        ]);
        cos.env_clear().env("EMPTY", "").env("BIG", "b".repeat(big));
        cos.envs(names.iter().map(|n| (n, n.repeat(20))));
        run(&mut cos)
    };
    // In the same record as the command, and after it: more than 32, and longer than 256.
    for big in [1, 257, 3_000, 100_000] {
        let out = asks(big, "cat /proc/$$/environ; true");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let got: Vec<&[u8]> = out.stdout.split(|b| *b == 0).collect();
        for name in &names {
            let whole = format!("{name}={}", name.repeat(20));
            assert!(got.contains(&whole.as_bytes()), "{name} is missing");
        }
        assert!(got.contains(&&b"EMPTY="[..]));
        assert!(got.contains(&format!("BIG={}", "b".repeat(big)).as_bytes()));
    }
    // With a long command.
    let out = asks(30_000, &format!(": {}; echo ${{#BIG}}", "x".repeat(60_000)));
    assert_eq!(out.stdout, b"30000\n", "{}", text(&out.stderr));
    // More than a message carries is an error, and nothing is sent.
    let out = asks(131_000, "true");
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(255));
    assert!(
        said.starts_with("cos: ")
            && said.contains("\"BIG\" (131000 bytes)")
            && said.lines().count() == 2
            && said.ends_with("env -u BIG cos ...\n"),
        "{said}"
    );
}

#[test]
fn addresses_in_brackets_mapped_or_with_a_zone_are_addresses() {
    let mapped = "listen = [\"[::ffff:127.0.0.1]\", \"[::1]\"]\n[penalties]\nexempt = [\"[::1]\"]";
    let d = Daemon::start_with(mapped, "");
    let port = d.port.to_string();
    let says = |folder: &std::path::Path, port: &str, host: &str| {
        let mut cos = Command::new(COS);
        cos.arg("-C").arg(folder);
        must(cos.args(["run", "-p", port, host, "echo here"]))
    };
    for host in [
        "[127.0.0.1]",
        "::ffff:127.0.0.1",
        "[::ffff:127.0.0.1]",
        "127.0.0.1",
        "[::1]",
        "::1",
    ] {
        // The card has one of the two.
        if host.contains("127")
            || fs::read_to_string(d.client().join("hostinfo"))
                .unwrap()
                .contains("::1")
        {
            assert_eq!(says(&d.client(), &port, host), b"here\n", "{host}");
        }
    }
    // In --addr, and so in hostinfo.
    let invite = [
        "host",
        "invite",
        "hostc",
        "--addr",
        "[192.0.2.1]",
        "--addr",
        "::ffff:192.0.2.2",
        "--addr",
        "fe80::7%lo",
        "--run-as",
        &me(),
    ];
    must(Command::new(COSADM).arg("-C").arg(d.server()).args(invite));
    let table = fs::read_to_string(d.server().join("hostinfo")).unwrap();
    assert!(
        table.contains("\nhostc cos addr=192.0.2.1,192.0.2.2,fe80::7%lo "),
        "{table}"
    );
}

#[test]
fn a_host_is_reached_by_an_address_of_a_link() {
    if !needs_root() {
        return;
    }
    // The link is the loopback interface of a private network for the test.
    let script = "ip link set lo up && ip addr add fe80::5/64 dev lo && exec \"$@\"";
    let own = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script, "sh", program]);
        command
    };
    if !run(&mut own("true")).status.success() {
        report_skipped("no network namespace, or no ip(8)");
        return;
    }
    let folder = prepare("listen = [\"127.0.0.1\", \"fe80::5%lo\"]", "");
    for side in ["S", "A"] {
        let file = folder.path(side).join("hostinfo");
        let text = fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|l| l.starts_with("host")).unwrap();
        let words = line
            .split(' ')
            .map(|word| match word.strip_prefix("addr=") {
                Some(_) => "addr=fe80::5%lo".to_owned(),
                None => word.to_owned(),
            });
        let changed = words.collect::<Vec<_>>().join(" ");
        fs::write(&file, text.replace(line, &changed)).unwrap();
    }
    let d = Daemon::start_by(own(COSSERVER), folder, &[]);
    let pid = d.pid().to_string();
    for host in ["hostb", "fe80::5%lo", "[fe80::5%lo]"] {
        let mut cos = Command::new("nsenter");
        cos.args(["--net", "--target", &pid, COS, "-C"])
            .arg(d.client());
        cos.args(["run", "-p", &d.port.to_string(), host, "echo here"]);
        assert_eq!(must(&mut cos), b"here\n", "{host}");
    }
}

#[test]
fn standard_error_that_takes_nothing_costs_no_status() {
    let d = Daemon::start();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let port = d.port.to_string();
    let asks = |words: &[&str]| {
        let mut cos = Command::new(COS);
        cos.arg("-C")
            .arg(d.client())
            .args(["run", "-p", &port])
            .args(words);
        cos.stderr(full()).output().unwrap()
    };
    // Messages of cos itself may be lost, as with ssh.
    let out = asks(&["-v", "hostb", "echo out; exit 7"]);
    assert_eq!(
        (out.status.code(), &out.stdout[..]),
        (Some(7), &b"out\n"[..])
    );
    let out = asks(&["nowhere", "true"]);
    assert_eq!(out.status.code(), Some(255));
    // So may the command's output there: the status is the command's.
    let out = asks(&["hostb", "echo lost >&2; echo out; exit 7"]);
    assert_eq!(
        (out.status.code(), &out.stdout[..]),
        (Some(7), &b"out\n"[..])
    );
}

#[test]
fn the_path_is_the_configured_one() {
    let d = Daemon::start_with("[exec]\npath = \"/opt/x/bin:/usr/bin:/bin\"\n", "");
    assert_eq!(d.says(0, &["echo $PATH"]), b"/opt/x/bin:/usr/bin:/bin\n");
}

/// Returns the value of a line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_once(':').unwrap().1.trim()
}

#[test]
fn job_does_not_inherit_the_daemons_process_state() {
    // A daemon that was itself started with signals ignored and blocked.
    let folder = daemon::prepare("", "");
    let mut dirty = Command::new("sh");
    dirty.args([
        "-c",
        "trap '' QUIT USR1 TSTP PIPE 40 64; umask 077; exec \"$@\"",
    ]);
    dirty.args(["sh", COSSERVER]);
    let d = Daemon::start_by(dirty, folder, &[]);

    let status = text(&d.says(0, &["exec cat /proc/self/status"]));
    // 32 and 33 are glibc's own: no program can change them through glibc.
    let own_of_libc = 3_u64 << 31;
    for mask in ["SigBlk", "SigIgn", "SigPnd", "ShdPnd"] {
        let bits = u64::from_str_radix(field(&status, mask), 16).unwrap();
        assert_eq!(bits & !own_of_libc, 0, "{mask}\n{status}");
    }
    assert_eq!(field(&status, "Umask"), "0022");
    let own = own_account();
    let numbers = |n: u32| [n; 4].map(|n| n.to_string()).join("\t");
    assert_eq!(field(&status, "Uid"), numbers(own.uid.as_raw()));
    assert_eq!(field(&status, "Gid"), numbers(own.gid.as_raw()));

    assert_eq!(
        text(&d.says(0, &["pwd"])).trim_end(),
        fs::canonicalize(&own.dir)
            .unwrap_or("/".into())
            .to_str()
            .unwrap()
    );
    assert_eq!(
        d.says(0, &["ls /proc/$$/fd; true"]),
        b"0\n1\n2\n",
        "open descriptors"
    );
    let kinds = text(&d.says(0, &["readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2"]));
    assert_eq!(
        kinds.lines().filter(|l| l.starts_with("pipe:")).count(),
        3,
        "{kinds}"
    );

    // pid (name) state ppid pgrp session tty_nr
    let stat = text(&d.says(0, &["echo $$; cat /proc/$$/stat; true"]));
    let (pid, stat) = stat.split_once('\n').unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(fields[2..5], [pid, pid, "0"], "pgrp, session, terminal");
    assert_ne!(run(&mut d.cos(&["true </dev/tty"])).status.code(), Some(0));
}

#[test]
fn a_job_has_the_limits_that_the_daemon_was_started_with() {
    let limits = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc";
    let before = "ulimit -Sc 0; ulimit -Hn 3000; ulimit -Sn 1000; ulimit -Hc 4096; ";
    let folder = daemon::prepare("", "");
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("{before} exec \"$@\""), "sh", COSSERVER]);
    let d = Daemon::start_by(limited, folder, &[]);
    let here = must(Command::new("sh").args(["-c", &format!("{before} {limits}")]));
    let there = d.says(0, &["sh", "-c", &format!("'{limits}'")]);
    assert_eq!(text(&there), text(&here));
}

#[test]
fn long_commands_arrive_and_too_long_ones_are_refused_here() {
    let d = Daemon::start();
    // Around the size of a request in the greeting, around that of a piece, and the maximum:
    // 131,072 bytes of encoding are a word of 131,066.
    for length in [2_540, 2_560, 4_000, 4_100, 100_000, 131_066] {
        let head = "printf %s \"${#x}\" #";
        let word = format!("{head}{}", "y".repeat(length - head.len()));
        assert_eq!(d.says(0, &[&word]), b"0", "{length}");
    }
    let pad = "z".repeat(99_000);
    let out = d.says(0, &[&format!("x={pad}; echo ${{#x}}")]);
    assert_eq!(out, b"99000\n");

    let too_long = "y".repeat(131_067);
    let out = run(&mut d.cos(&[&too_long]));
    assert_eq!(out.status.code(), Some(255));
    let said = text(&out.stderr);
    assert!(
        said.starts_with("cos: hostb: ")
            && said.contains("131072 bytes")
            && said.contains("standard input")
            && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_command_that_is_not_there_is_127_and_says_so() {
    let d = Daemon::start();
    let out = run(&mut d.cos(&["/nonexistent/program", "x"]));
    assert_eq!(out.status.code(), Some(127));
    let said = text(&out.stderr);
    assert!(said.contains("/nonexistent/program"), "{said}");
}

#[test]
fn allowed_commands_run_without_a_shell_and_no_others() {
    let d = Daemon::start_with(
        SOON,
        "commands='/bin/echo *' commands='/bin/cat /proc/self/cmdline' commands=/nonexistent/x commands=/etc/passwd",
    );
    for literal in ["$HOME", "a;id", "`id`", "*", "a|b>c&", "'q' \"r\"", "~"] {
        let out = d.says(0, &["/bin/echo", literal]);
        assert_eq!(text(&out), format!("{literal}\n"));
    }
    assert_eq!(
        d.says(0, &["/bin/cat", "/proc/self/cmdline"]),
        b"/bin/cat\0/proc/self/cmdline\0"
    );
    let denied: [&[&str]; 6] = [
        &["/bin/echo"],
        &["/bin/echo a"],
        &["/bin/echo", "a", "b"],
        &["/bin/echo", "-n"],
        &["id"],
        &["/bin/sh", "-c", "id"],
    ];
    std::thread::scope(|scope| {
        for words in denied {
            let d = &d;
            scope.spawn(move || assert_denied(d, words, "command"));
        }
    });
    // An allowed program that cannot be executed reports it as a shell would.
    for (path, status, why) in [
        ("/nonexistent/x", 127, "no such file"),
        ("/etc/passwd", 126, "permission denied"),
    ] {
        let out = run(&mut d.cos(&[path]));
        let said = (out.status.code(), text(&out.stderr));
        assert_eq!(said, (Some(status), format!("cosserver: {path}: {why}\n")));
    }
}

#[test]
fn the_log_shows_a_command_that_is_not_allowed() {
    let d = Daemon::start_with(SOON, "commands='/bin/echo *'");
    let long = "x".repeat(300);
    let cases: [(&[&str], String); 3] = [
        (
            &["/bin/rm", "-rf", "/srv/x"],
            "does not allow this command: /bin/rm -rf /srv/x\"".into(),
        ),
        (
            &["/bin/echo a"],
            "was sent as one argument with spaces; commands= needs separate arguments: /bin/echo a\"".into(),
        ),
        (
            &["/bin/id", &long],
            format!("this command: /bin/id {}…", &long[..200 - 8]),
        ),
    ];
    // There is no interactive session: the client was given no command.
    d.install_cosrsh();
    let mut no_command = d.cosrsh(&["hostb"]);
    let line = denied_as(&d, no_command.stdin(Stdio::null()), "command");
    let shown = "it asks for a login shell, since no command was given, and commands= of hosta allows none\"";
    assert!(line.contains(shown), "{line}");
    std::thread::scope(|scope| {
        for (words, shown) in &cases {
            let d = &d;
            scope.spawn(move || {
                let line = denied_as(d, &mut d.cos(words), "command");
                let line = line.replace("\\u{2026}", "…");
                assert!(line.contains(shown), "{line}");
            });
        }
    });
}

/// Checks that the client gets `denied` and a reference, and that the log has the cause.
fn assert_denied(d: &Daemon, words: &[&str], cause: &str) {
    denied_as(d, &mut d.cos(words), cause);
}

/// The same; returns the log line.
fn denied_as(d: &Daemon, command: &mut Command, cause: &str) -> String {
    let out = run(command);
    let said = text(&out.stderr);
    assert_eq!(
        (out.status.code(), out.stdout.len()),
        (Some(255), 0),
        "{said}"
    );
    assert!(
        said.starts_with("cos: hostb: access denied (reference "),
        "{said}"
    );
    let reference = said.split(['(', ')', ' ']).find(|w| w.len() == 16).unwrap();
    let line = d.log.wait(&format!("ref={reference}"));
    assert!(
        line.contains(&format!("cause={cause}")) && line.contains("peer=127.0.0.1"),
        "{line}"
    );
    line
}

#[test]
fn unlisted_user_is_denied() {
    let d = Daemon::start_with(SOON, "");
    let as_user = |user: &str| {
        let mut command = Command::new(COS);
        let port = d.port.to_string();
        command.arg("-C").arg(d.client());
        command.args(["run", "-p", &port, "-l", user, "hostb", "id"]);
        command
    };
    let other = if me() == "daemon" { "bin" } else { "daemon" };
    std::thread::scope(|scope| {
        for user in [other, "no-such-user"] {
            let (d, mut command) = (&d, as_user(user));
            scope.spawn(move || denied_as(d, &mut command, "user"));
        }
    });
    assert_eq!(d.log.count("exec session="), 0, "{}", d.log_text());
}

/// A second account that this machine has, and one with its own shell, two groups and a home
/// directory if root can show the daemon another `/etc/passwd`.
#[test]
fn job_has_only_its_users_ids_and_groups() {
    if !needs_root() {
        return;
    }
    let folder = daemon::prepare("", "");
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    fs::write(
        &hostinfo,
        table.replace(
            "\nhosta cos addr=127.0.0.1,::1 run-as=root",
            "\nhosta cos addr=127.0.0.1,::1 run-as=root,nobody,cosjob,gone",
        ),
    )
    .unwrap();
    let home = folder.path("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(40001), Some(40002)).unwrap();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let home_name = home.to_str().unwrap();
    let passwd = format!(
        "{passwd}cosjob:x:40001:40002::{home_name}:/bin/sh\ngone:x:40003:40003::/nonexistent:/nonexistent/sh\n"
    );
    let group = fs::read_to_string("/etc/group").unwrap();
    let group = format!("{group}cosjob:x:40002:\nmore:x:40004:cosjob\nother:x:40005:root\n");
    fs::write(folder.path("passwd"), passwd).unwrap();
    fs::write(folder.path("group"), group).unwrap();
    let script = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/group\" /etc/group";
    let may = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&folder.0)
        .output();
    if !may.as_ref().is_ok_and(|out| out.status.success()) {
        let why = format!("this root may not mount: {may:?}");
        assert!(!daemon::in_ci(), "{why}");
        daemon::report_skipped(&why);
        return;
    }
    let mut other = Command::new("unshare");
    other.args(["-m", "sh", "-c"]);
    other.arg(format!("{script} && shift && exec \"$@\""));
    other.arg("sh").arg(&folder.0).arg(COSSERVER);
    let d = Daemon::start_by(other, folder, &[]);
    let as_user = |user: &str, words: &str| {
        let mut command = Command::new(COS);
        let port = d.port.to_string();
        command.arg("-C").arg(d.client());
        command.args(["run", "-p", &port, "-l", user, "hostb", words]);
        let out = run(&mut command);
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };

    let script = "cat /proc/$$/status; echo \"$HOME $USER $LOGNAME $SHELL $COS_USER\"; pwd; touch mine; stat -c '%u %g %a' mine; cat /etc/shadow";
    let (status, out, err) = as_user("cosjob", script);
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains("ermission denied"), "{err}");
    assert_eq!(field(&out, "Uid"), "40001\t40001\t40001\t40001");
    assert_eq!(field(&out, "Gid"), "40002\t40002\t40002\t40002");
    let mut groups: Vec<&str> = field(&out, "Groups").split_whitespace().collect();
    groups.sort_unstable();
    assert_eq!(groups, ["40002", "40004"]);
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&out, capabilities), "0000000000000000");
    }
    let rest: Vec<&str> = out.lines().rev().take(3).collect();
    assert_eq!(
        rest,
        [
            "40001 40002 644",
            home.to_str().unwrap(),
            &format!("{} cosjob cosjob /bin/sh root", home.display()),
        ]
    );

    // A missing shell; a missing home directory.
    let (status, out, err) = as_user("gone", "id");
    assert_eq!((status, &*out), (Some(127), ""));
    assert_eq!(
        err,
        "cosserver: home folder /nonexistent: no such file; the command runs in /\n\
         cosserver: /nonexistent/sh: no such file\n"
    );
    let line = d
        .log
        .wait_from(0, |l| l.contains("exec ") && l.contains("user=cosjob"));
    assert!(line.1.contains("caller=root"), "{}", line.1);
}

#[test]
fn another_user_of_this_machine_by_an_allowed_command() {
    if !needs_root() {
        return;
    }
    let folder = daemon::prepare(
        "",
        "commands='/usr/bin/id -G' commands='/usr/bin/id -u' commands=/bin/pwd",
    );
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    fs::write(&hostinfo, table.replace(" run-as=root", " run-as=nobody")).unwrap();
    let d = Daemon::start_in(folder, &[]);
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let says = |words: &[&str]| {
        let mut command = Command::new(COS);
        let port = d.port.to_string();
        command.arg("-C").arg(d.client());
        command
            .args(["run", "-p", &port, "nobody@hostb"])
            .args(words);
        text(&must(&mut command)).trim_end().to_owned()
    };
    assert_eq!(says(&["/usr/bin/id", "-u"]), nobody.uid.to_string());
    let groups = text(&must(Command::new("id").args(["-G", "nobody"])));
    assert_eq!(says(&["/usr/bin/id", "-G"]), groups.trim_end());
    // Its home directory is missing: it starts in the root directory.
    let expected = if nobody.dir.is_dir() {
        nobody.dir.to_str().unwrap()
    } else {
        "/"
    };
    assert_eq!(says(&["/bin/pwd"]), expected);
}

/// Starts a daemon, standalone or by inetd, where `nobody` may run anything with `/bin/sh`.
fn for_nobody(inetd: bool) -> Daemon {
    let folder = daemon::prepare("", "commands='/bin/sh -c *'");
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    fs::write(&hostinfo, table.replace(" run-as=root", " run-as=nobody")).unwrap();
    if inetd {
        Daemon::inetd_in(folder, &[])
    } else {
        Daemon::start_in(folder, &[])
    }
}

fn as_nobody(d: &Daemon, script: &str) -> std::process::Output {
    let script = ["-l", "nobody", "--", "hostb", "/bin/sh", "-c", script];
    let mut command = Command::new(COS);
    let port = d.port.to_string();
    command.arg("-C").arg(d.client());
    command.args(["run", "-p", &port]).args(script);
    let child = command.stdin(std::process::Stdio::piped());
    let child = child.stdout(std::process::Stdio::piped());
    let mut child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"in\n").unwrap();
    child.wait_with_output().unwrap()
}

/// Root creates the pipes, and the user opens them again by their names.
#[test]
fn job_owns_its_standard_streams() {
    if !needs_root() {
        return;
    }
    for inetd in [false, true] {
        let d = for_nobody(inetd);
        let script = "echo err >/dev/stderr; cat /dev/stdin >/dev/stdout";
        let out = as_nobody(&d, script);
        assert_eq!(out.status.code(), Some(0), "inetd {inetd}: {out:?}");
        assert_eq!(out.stdout, b"in\n", "inetd {inetd}: {out:?}");
        assert!(out.stderr.ends_with(b"err\n"), "inetd {inetd}: {out:?}");
        let script = "stat -L -c '%u %F %a' /dev/stdin /dev/stdout /dev/stderr";
        let out = as_nobody(&d, script);
        let uid = User::from_name("nobody").unwrap().unwrap().uid;
        let line = format!("{uid} fifo 600\n");
        assert_eq!(text(&out.stdout), line.repeat(3), "{out:?}");
    }
}

/// The command then runs in `/`, and the client is told.
#[test]
fn missing_home_folder_is_reported() {
    if !needs_root() {
        return;
    }
    let home = User::from_name("nobody").unwrap().unwrap().dir;
    if home.exists() {
        daemon::report_skipped("nobody has a home folder here");
        return;
    }
    let told = format!(
        "cosserver: home folder {}: no such file; the command runs in /\n",
        home.display()
    );
    let d = for_nobody(false);
    let out = as_nobody(&d, "pwd; exit 3");
    let said = (text(&out.stdout), text(&out.stderr));
    assert_eq!(
        (out.status.code(), said),
        (Some(3), ("/\n".to_owned(), told))
    );
}
