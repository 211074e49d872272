//! `cos gui`: who answers its prompts, which hosts it trusts, and what it never sends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use cosserver::secret::KeyPair;
use nix::sys::signal::Signal;

use crate::daemon::session::Session;
use crate::daemon::{COS, needs_root, until};
use crate::login::{Logins, Plan};
use crate::seat::Seat;

/// Creates `cos -C A gui FLAGS… -p PORT -l alice HOST hello`, where only a user can answer.
fn asks(l: &Logins, flags: &[&str], host: &str) -> Command {
    let mut command = Command::new(COS);
    command.arg("-C").arg(l.d.client()).arg("gui").args(flags);
    command.args(["-p", &l.d.port.to_string(), "-l", "alice", host, "hello"]);
    for name in ["GUI_HOST", "GUI_PORT", "COS_ASKPASS"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn at_a_terminal_the_password_is_asked_for_and_not_shown() {
    if !needs_root() {
        return;
    }
    let l = Plan::around("", "auth required BARE ask").start();
    let mut seat = Seat::take(&asks(&l, &[], "hostb"));
    seat.sees("alice@hostb: Password: ");
    // A typing error is corrected.
    seat.types_unseen(b"secrex\x7ft\r");
    seat.sees("Code: ");
    until("the echo is on", || seat.echoes());
    seat.types(b"4711\n");
    seat.sees("4711");
    assert!(!seat.seen.contains("secre"), "{:?}", seat.seen);
    let ended = seat.ends();
    assert_eq!(
        (ended.status, ended.out),
        (Some(0), vec!["hello".to_owned()]),
        "{:?}",
        ended.err
    );
    assert_eq!(ended.err, Vec::<String>::new());
}

#[test]
fn an_interrupt_at_the_password_leaves_the_terminal_as_it_was() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    for keys in [&b"sec\x03"[..], b"\x04"] {
        let mut seat = Seat::take(&asks(&l, &[], "hostb"));
        seat.sees("Password: ");
        seat.types_unseen(keys);
        let ended = seat.ends();
        assert_eq!(ended.status, Some(255), "{ended:?}");
        let err = ended.err.join("\n");
        assert!(
            err.contains("interrupted") || err.contains("no answer left"),
            "{err}"
        );
    }
    assert_eq!(l.notes(), Vec::<String>::new());
}

/// Regression: a closed window's HUP and `timeout cos gui …` left the terminal without echo.
#[test]
fn a_signal_at_the_password_gives_the_terminal_its_echo_back() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGALRM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        let mut seat = Seat::take(&asks(&l, &[], "hostb"));
        seat.sees("Password: ");
        seat.types_unseen(b"sec");
        seat.client.signal(signal);
        let status = crate::daemon::session::wait(&mut seat.client.child);
        assert_eq!(status.signal(), Some(signal as i32), "{status}");
        assert!(seat.echoes(), "{signal}");
    }
}

#[test]
fn a_key_that_is_not_pinned_is_asked_about_and_pinned() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let known_hosts = l.d.client().join("known_hosts");
    let before = fs::read_to_string(&known_hosts).unwrap();
    let check = crate::daemon::run(
        Command::new(crate::daemon::COSADM)
            .arg("-C")
            .arg(l.d.server())
            .arg("check"),
    );
    let check = String::from_utf8(check.stdout).unwrap();
    // By its address it is another host to the client, once it is not in the table.
    fs::remove_file(l.d.client().join("hostinfo")).unwrap();
    let mut seat = Seat::take(&asks(&l, &[], "127.0.0.1"));
    seat.sees("(yes/no) ");
    let fingerprint = seat.seen.lines().nth(1).unwrap().trim().to_owned();
    assert!(
        seat.seen.contains("\"cosadm check\" on that host"),
        "{}",
        seat.seen
    );
    assert!(
        fingerprint.len() > 16 && check.contains(&fingerprint),
        "{fingerprint}: {check}"
    );
    seat.types(b"maybe\n");
    seat.sees("Please say yes or no.");
    seat.types(b"no\n");
    let ended = seat.ends();
    assert_eq!(ended.status, Some(255), "{ended:?}");
    assert!(ended.err.concat().contains("nothing was sent"), "{ended:?}");
    l.d.log.wait("cause=left");
    assert_eq!(
        (l.d.log.count("denied"), l.d.log.count("login ")),
        (0, 0),
        "{}",
        l.log_text()
    );
    assert_eq!(fs::read_to_string(&known_hosts).unwrap(), before);
    // The user is not asked in batch mode, or if a descriptor supplies the answers; the key is
    // named.
    for flags in [&["-o", "BatchMode=yes"][..], &["--password-fd", "0"]] {
        let seat = Seat::take(&asks(&l, flags, "127.0.0.1"));
        let ended = seat.ends();
        assert_eq!(ended.status, Some(255), "{ended:?}");
        let err = ended.err.concat();
        assert!(
            err.contains(&fingerprint) && err.contains("known_hosts"),
            "{err}"
        );
        assert_eq!(fs::read_to_string(&known_hosts).unwrap(), before);
    }
    let mut seat = Seat::take(&asks(&l, &[], "127.0.0.1"));
    seat.sees("(yes/no) ");
    seat.types(b"yes\n");
    seat.sees("Password: ");
    seat.types_unseen(b"secret\n");
    assert_eq!(seat.ends().out, ["hello"]);
    let after = fs::read_to_string(&known_hosts).unwrap();
    let added = after.strip_prefix(&before).unwrap();
    assert!(
        added.starts_with("127.0.0.1 ") && added.lines().count() == 1,
        "{after}"
    );
    // From now on the key is known.
    let mut seat = Seat::take(&asks(&l, &[], "127.0.0.1"));
    seat.sees("Password: ");
    assert!(!seat.seen.contains("yes/no"), "{}", seat.seen);
    seat.types_unseen(b"secret\n");
    assert_eq!(seat.ends().out, ["hello"]);
}

/// Regression: the host hung up while the user compared the fingerprint, and "yes" had no effect.
#[test]
fn a_fingerprint_may_be_compared_for_as_long_as_it_takes() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    fs::remove_file(l.d.client().join("known_hosts")).unwrap();
    let mut seat = Seat::take(&asks(&l, &[], "hostb"));
    seat.sees("(yes/no) ");
    l.d.log.wait("cause=left");
    seat.types(b"yes\n");
    seat.sees("Password: ");
    seat.types_unseen(b"secret\n");
    let ended = seat.ends();
    assert_eq!(ended.out, ["hello"], "{ended:?}");
}

/// Regression: it ignored such a table, used DNS and sent the password.
#[test]
fn a_host_table_of_the_system_that_cannot_be_used_stops_everything() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let system = l.d.folder.path("etc/cosserver");
    fs::create_dir(&system).unwrap();
    let table = system.join("hostinfo");
    // In a place where every user may execute it.
    let cos = l.d.folder.path("cos");
    crate::daemon::must(Command::new("cp").args([COS.as_ref(), cos.as_os_str()]));
    for (text, mode, words) in [
        ("hostx cos\n", 0o666, "/etc/cosserver/hostinfo: "),
        ("\n127.0.0.1 coss\n", 0o644, "/etc/cosserver/hostinfo:2: "),
    ] {
        fs::write(&table, text).unwrap();
        fs::set_permissions(&table, fs::Permissions::from_mode(mode)).unwrap();
        // Ordinary users use this table if their own directory does not have the host.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=3001", "--regid=3001", "--clear-groups"]);
        command.arg(&cos).args(["gui", "--password-fd", "0"]);
        command.args(["-p", &l.d.port.to_string(), "127.0.0.1", "hello"]);
        command.env("HOME", l.d.folder.path("home/alice"));
        for name in ["GUI_HOST", "GUI_PORT", "COS_CONFIG_DIR", "XDG_CONFIG_HOME"] {
            command.env_remove(name);
        }
        let ended = l.ended(&mut command);
        assert_eq!(ended.status, Some(255), "{text}: {ended:?}");
        assert!(ended.err.concat().contains(words), "{text}: {ended:?}");
        assert_eq!(l.d.log.count("peer="), 0, "{text}: {}", l.log_text());
    }
    // A table that is valid, but has no such host.
    fs::write(&table, "hostx cos\n").unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=3001", "--regid=3001", "--clear-groups"]);
    command.arg(&cos).args(["run", "hosty", "true"]);
    command.env("HOME", l.d.folder.path("home/alice"));
    for name in ["COS_CONFIG_DIR", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    let err = l.ended(&mut command).err.concat();
    let own = l.d.folder.path("home/alice/.config/cosserver/hostinfo");
    let own = own.display();
    let due = format!("cos: hosty: hosty is in neither {own} nor /etc/cosserver/hostinfo");
    assert!(err.starts_with(&due), "{err}");
}

#[test]
fn a_changed_key_stops_everything() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let known_hosts = l.d.client().join("known_hosts");
    let other = KeyPair::random().unwrap().public.to_hex();
    fs::write(&known_hosts, format!("hostb {other}\n")).unwrap();
    let before = fs::read(&known_hosts).unwrap();
    let lines = l.d.log.all().len();
    let by_descriptor = l.gui("alice", "secret\n", &[], &["hello"]);
    for command in [asks(&l, &[], "hostb"), by_descriptor] {
        let mut seat = Seat::take(&command);
        seat.seen.clear();
        let ended = seat.ends();
        assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
        let err = ended.err.concat();
        assert!(
            err.contains("HOST KEY CHANGED") && err.contains("Nothing was sent"),
            "{err}"
        );
    }
    l.d.log.wait_from(lines, |l| l.contains("cause=left"));
    assert_eq!(
        (l.d.log.count("denied"), l.d.log.count("login ")),
        (0, 0),
        "{}",
        l.log_text()
    );
    assert_eq!(fs::read(&known_hosts).unwrap(), before);
}

#[test]
fn a_program_answers_where_cos_askpass_names_one() {
    if !needs_root() {
        return;
    }
    let l = Plan::around("", "auth required BARE ask").start();
    let script = |name: &str, text: &str| {
        let file = l.d.folder.path(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    };
    let good = script(
        "good",
        "case $1 in 'alice@hostb: Password: ') echo secret;; *'Code: ') echo 4711;; esac",
    );
    let bad = script("bad", "echo secret; exit 1");
    let run = |flags: &[&str], program: &std::path::Path| {
        l.ended(asks(&l, flags, "hostb").env("COS_ASKPASS", program))
    };
    // Also in batch mode: the user is not asked.
    for flags in [&[][..], &["-o", "BatchMode=yes"]] {
        let ended = run(flags, &good);
        assert_eq!(
            (ended.status, ended.out),
            (Some(0), vec!["hello".to_owned()]),
            "{:?}",
            ended.err
        );
    }
    let ended = run(&[], &bad);
    assert!(
        ended
            .err
            .concat()
            .ends_with(": it ended with 1 and gave no answer"),
        "{ended:?}"
    );
    for program in [&bad, &l.d.folder.path("missing")] {
        let ended = run(&[], program);
        assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
        assert!(
            ended.err.concat().contains(program.to_str().unwrap()),
            "{ended:?}"
        );
    }
}

#[test]
fn login_without_a_terminal_names_the_ways_to_answer() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    // Without a terminal; and with one, in batch mode.
    let mut alone = Command::new("setsid");
    let command = asks(&l, &[], "hostb");
    alone
        .arg("--wait")
        .arg(command.get_program())
        .args(command.get_args());
    alone.env_remove("COS_ASKPASS");
    let ended = l.ended(&mut alone);
    let batch = Seat::take(&asks(&l, &["-o", "BatchMode=yes"], "hostb")).ends();
    for ended in [ended, batch] {
        assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
        let err = ended.err.concat();
        for part in ["Password:", "--password-fd", "COS_ASKPASS"] {
            assert!(err.contains(part), "{err}");
        }
    }
    // A name that does not exist is in no table either.
    let nobody = l.ended(&mut asks(&l, &[], "no-such-host.invalid"));
    assert_eq!(nobody.status, Some(255));
    let err = nobody.err.concat();
    assert!(
        err.contains("its name does not resolve") && !err.contains("hostinfo"),
        "{err}"
    );
    let closed = l.ended(&mut asks(&l, &["--password-fd", "77"], "hostb"));
    assert_eq!(closed.status, Some(255));
    assert!(
        closed
            .err
            .concat()
            .ends_with("--password-fd 77: it is not open"),
        "{closed:?}"
    );
    let line = "x".repeat(600);
    let long = l.ended(&mut l.gui("alice", &format!("{line}\n"), &[], &["hello"]));
    assert_eq!(long.status, Some(255));
    assert!(long.err.concat().contains("too long"), "{long:?}");
}

#[test]
fn answers_on_standard_input_leave_the_remaining_input_to_the_application() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        applications: "[gui.cat]\ncommand = [\"/bin/cat\"]\nusers = [\"*\", \"root\"]\n",
        ..Plan::default()
    }
    .start();
    let mut command = Command::new(COS);
    command
        .arg("-C")
        .arg(l.d.client())
        .args(["gui", "--password-fd", "0"]);
    command.args(["-p", &l.d.port.to_string(), "-l", "alice", "hostb", "cat"]);
    command.env_remove("GUI_HOST").env_remove("GUI_PORT");
    let mut session = Session::spawn(&mut command);
    session.say("secret");
    session.say("for the application");
    drop(session.stdin.take());
    let ended = session.finish();
    assert_eq!(
        (ended.status, ended.out),
        (Some(0), vec!["for the application".to_owned()]),
        "{:?}",
        ended.err
    );
}

#[test]
fn a_denied_login_says_what_may_be_wrong_and_the_same_for_all() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    for (user, password, words) in [
        ("alice", "wrong\n", "hello"),
        ("nobody-there", "secret\n", "hello"),
        ("alice", "secret\n", "no-such"),
    ] {
        let ended = l.ended(&mut l.gui(user, password, &[], &[words]));
        let err = ended.err.concat();
        let reference = crate::login::reference(&err);
        let due = format!(
            "cos: hostb: access denied (reference {reference}): wrong password, or no such user or application\
             cos: to see why, run on hostb: journalctl -t cosserver | grep {reference} \
             (without systemd: grep {reference} /var/log/auth.log)"
        );
        assert_eq!((ended.status, err), (Some(255), due));
    }
}

#[test]
fn verbose_login_reports_each_step() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let ended = l.ended(&mut l.gui("alice", "secret\n", &["-v"], &["hello"]));
    assert_eq!(ended.out, ["hello"], "{ended:?}");
    let err = ended.err.join("\n");
    let mut rest = err.as_str();
    for step in [
        "its key is ",
        ", pinned",
        "it asks \"Password: \"",
        "the application is started",
    ] {
        rest = rest
            .split_once(step)
            .unwrap_or_else(|| panic!("{step}: {err}"))
            .1;
    }
    assert!(!err.contains("secret"), "{err}");
}
