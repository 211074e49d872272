//! The processes in which NSS modules and the resolver run: their privileges, that they are reused
//! and replaced, and that they do not delay others. Also which accounts a command may use.

use crate::daemon;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cosserver::secret::Secret;
use daemon::inetd::superserver_by;
use daemon::session::{Ended, Session, lives};
use daemon::{COSSERVER, Daemon, Folder, needs_root, nss, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The users that hosta may be: users that the module knows, and some of `/etc/passwd`.
const RUN_AS: &str = "run-as=root,alice,bob,spy1,spy2,spy3,spy4,hang1,hang2,crash1";

/// Creates directories whose host `hosta` has these options, and an `/etc` with the test module in
/// it.
fn spied_on(options: &str) -> (Folder, PathBuf) {
    let folder = daemon::configured("", "");
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    let line = table.lines().find(|l| l.starts_with("hosta ")).unwrap();
    fs::write(
        &hostinfo,
        table.replace(line, &format!("hosta cos {options}")),
    )
    .unwrap();
    let etc = nss::etc(&folder, &[("alice", "*:20000:0:99999:7:::")]);
    let text = fs::read_to_string(folder.path("S/host.key")).unwrap();
    let mut words = text.split_whitespace();
    let is_key = |word: &&str| word.len() == 64 && Secret::from_hex(word).is_some();
    let key = words.find(is_key).expect("the key in its file");
    let inverted = key.as_bytes().chunks(2).map(|two| {
        let byte = u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        (!byte).to_string()
    });
    let inverted: Vec<String> = inverted.collect();
    let defines = [
        format!("-DINVERTED={}", inverted.join(",")),
        format!("-DHOST_KEY=\"{}\"", folder.path("S/host.key").display()),
        format!("-DWRITABLE=\"/tmp/cos-spy-{}\"", std::process::id()),
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/look_ups/spy.c");
    nss::install(&etc, &folder.0, "spy", &source, &defines);
    let sources = "passwd: files spy\ngroup: files\nhosts: spy\n";
    fs::write(etc.join("nsswitch.conf"), sources).unwrap();
    (folder, etc)
}

fn spied_on_daemon(options: &str) -> Daemon {
    let (folder, etc) = spied_on(options);
    Daemon::start_by(nss::with_etc(&etc, COSSERVER), folder, &[])
}

fn client(d: &Daemon, user: &str, words: &str) -> Command {
    let mut command = Command::new(daemon::COS);
    command.arg("-C").arg(d.client()).args(["run", "-p"]);
    command.arg(d.port.to_string());
    command.args(["-l", user, "hostb", words]);
    command
}

fn ended(d: &Daemon, user: &str, words: &str) -> Ended {
    let mut session = Session::spawn(&mut client(d, user, words));
    drop(session.stdin.take());
    session.finish()
}

/// Returns the module's report of the process in which it looked this user up.
fn report(d: &Daemon, user: &str) -> String {
    let ended = ended(d, user, "echo \"$HOME\"");
    assert_eq!(ended.status, Some(0), "{ended:?}\n{}", d.log_text());
    ended.out.join("\n")
}

fn field<'a>(report: &'a str, name: &str) -> &'a str {
    let mut fields = report.trim_start_matches('/').split(';');
    let field = fields.find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
    field.unwrap_or_else(|| panic!("no {name}: {report}"))
}

fn is_harmless(report: &str) {
    for (name, value) in [
        ("uid", "990"),
        ("gid", "990"),
        ("caps", "0"),
        ("key", "0"),
        ("could", ""),
    ] {
        assert_eq!(field(report, name), value, "{report}");
    }
}

/// Returns why this user was denied, as in the log.
fn denied(d: &Daemon, user: &str) -> String {
    let from = d.log.all().len();
    let ended = ended(d, user, "true");
    assert_eq!(ended.status, Some(255), "{user}: {ended:?}");
    d.log.wait_from(from, |l| l.contains("denied ref=")).1
}

/// Regression: NSS modules ran as root, in a fork that had host.key in its memory.
#[test]
fn nss_modules_run_without_the_host_key_and_without_privileges() {
    if !needs_root() {
        return;
    }
    let d = spied_on_daemon(&format!("addr=127.0.0.1 {RUN_AS}"));
    is_harmless(&report(&d, "spy1"));
    let line = d.log.wait("started process=lookup");
    assert!(line.contains("user=true"), "{line}");
    // Root also sees nothing more in /proc: its user, capabilities, protections.
    let pid = d.process("lookup");
    for (name, value) in [
        ("Uid", "990\t990\t990\t990"),
        ("Groups", "990"),
        ("CapPrm", "0000000000000000"),
        ("NoNewPrivs", "1"),
    ] {
        assert_eq!(daemon::status(pid, name), value);
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.starts_with(b"GLIBC_TUNABLES="));
    assert!(daemon::descriptors(pid) <= 8, "{pid}");
}

/// Regression: so did the resolver.
#[test]
fn host_names_are_resolved_without_the_host_key_and_without_privileges() {
    if !needs_root() {
        return;
    }
    let d = spied_on_daemon(RUN_AS);
    d.log.wait("names=resolved");
    let ended = ended(&d, "root", "true");
    assert_eq!(ended.status, Some(0), "{ended:?}\n{}", d.log_text());
}

/// Returns a program with variables that affect the resolver.
fn steered(mut command: Command) -> Command {
    let aliases = std::env::temp_dir().join("no-such-aliases");
    command
        .env("RES_OPTIONS", "ndots:3")
        .env("LOCALDOMAIN", "example.com");
    command.env("HOSTALIASES", aliases);
    command
}

/// Regression: a standalone daemon passed on three variables of the resolver, one of inetd's none.
#[test]
fn look_up_process_has_an_empty_environment_however_the_daemon_is_started() {
    if !needs_root() {
        return;
    }
    let options = format!("addr=127.0.0.1 {RUN_AS}");
    let (folder, etc) = spied_on(&options);
    let command = steered(nss::with_etc(&etc, COSSERVER));
    is_harmless(&report(&Daemon::start_by(command, folder, &[]), "spy1"));
    let (folder, etc) = spied_on(&options);
    let words = nss::words(&etc);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = steered(superserver_by("unshare", &words));
    is_harmless(&report(&Daemon::start_by(command, folder, &[]), "spy1"));
}

/// Under inetd too, where the process is a fork of a monitor that has read nothing yet.
#[test]
fn under_inetd_a_look_up_has_no_privileges_either() {
    if !needs_root() {
        return;
    }
    let (folder, etc) = spied_on(&format!("addr=127.0.0.1 {RUN_AS}"));
    let words = nss::words(&etc);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let d = Daemon::start_by(superserver_by("unshare", &words), folder, &[]);
    is_harmless(&report(&d, "spy1"));
}

/// Regression: each look-up was a new process. A process that is killed is replaced, and its
/// request is repeated; only a name that kills it twice fails.
#[test]
fn a_look_up_process_is_used_again_and_replaced_when_it_dies() {
    if !needs_root() {
        return;
    }
    let d = spied_on_daemon(&format!("addr=127.0.0.1 {RUN_AS}"));
    let first = report(&d, "spy1");
    let pid: i32 = field(&first, "pid").parse().unwrap();
    assert_eq!(field(&report(&d, "spy2"), "pid"), pid.to_string());
    assert_eq!(d.process("lookup"), pid);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("it is dead", || !lives(pid));
    let third = report(&d, "spy3");
    assert_ne!(field(&third, "pid"), pid.to_string());
    is_harmless(&third);
    // Killed during a look-up.
    let mut hangs = Session::spawn(&mut client(&d, "hang1", "true"));
    drop(hangs.stdin.take());
    let asleep = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        stat.starts_with(&format!("{} ", libc::SYS_pause))
    };
    let pid = d.process("lookup");
    until("it hangs", || asleep(pid));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("it is dead", || !lives(pid));
    until("another is asked", || {
        let all = daemon::children(d.pid());
        all.into_iter().any(asleep)
    });
    let line = denied(&d, "crash1");
    assert!(line.contains("cause=account"), "{line}");
    d.log.said_times("lost process=lookup", 3);
    is_harmless(&report(&d, "spy4"));
    d.says(0, &["true"]);
}

/// A name that hangs takes only the time limit of a look-up; the others continue in the meantime.
#[test]
fn hanging_look_up_is_killed_and_delays_no_other() {
    if !needs_root() {
        return;
    }
    let d = spied_on_daemon(&format!("addr=127.0.0.1 {RUN_AS}"));
    let hanging: Vec<Session> = ["hang1", "hang2"]
        .map(|user| {
            let mut session = Session::spawn(&mut client(&d, user, "true"));
            drop(session.stdin.take());
            session
        })
        .into();
    for user in ["spy1", "spy2", "alice"] {
        assert_eq!(ended(&d, user, "true").status, Some(0), "{user}");
    }
    assert_eq!(d.log.count("denied"), 0, "{}", d.log_text());
    for session in hanging {
        assert_eq!(session.finish().status, Some(255));
    }
    d.log.said_times("cause=account", 2);
    d.log.wait("lost process=lookup why=\"it took too long\"");
    is_harmless(&report(&d, "spy3"));
}

/// Regression: other hosts were not available while a name server did not answer for one host.
#[test]
fn unresolvable_host_delays_no_other_host() {
    if !needs_root() {
        return;
    }
    let (folder, etc) = spied_on(RUN_AS);
    daemon::append(&folder.path("S/hostinfo"), "hangs cos run-as=root\n");
    let d = Daemon::start_by(nss::with_etc(&etc, COSSERVER), folder, &[]);
    until("hosta has its address", || {
        ended(&d, "root", "true").status == Some(0)
    });
    assert_eq!(d.log.count("names=resolved"), 0);
}

/// Regression: if the resolver did not answer for as many names as are looked up at a time, a new
/// host had to wait, and its first connection was denied.
#[test]
fn names_that_hang_leave_room_for_a_host_that_connects_for_the_first_time() {
    if !needs_root() {
        return;
    }
    let (folder, etc) = spied_on(RUN_AS);
    let hostinfo = folder.path("S/hostinfo");
    let whole = fs::read_to_string(&hostinfo).unwrap();
    let hangs: String = (0..20)
        .map(|n| format!("hangs{n} cos run-as=root\n"))
        .collect();
    fs::write(&hostinfo, &hangs).unwrap();
    let d = Daemon::start_by(nss::with_etc(&etc, COSSERVER), folder, &[]);
    // 14 of them, each with its own thread, in addition to the main one.
    until("the names are being looked up", || {
        let all = daemon::children(d.pid()).into_iter();
        all.filter_map(|pid| daemon::status(pid, "Threads").parse::<usize>().ok())
            .any(|threads| threads >= 15)
    });
    fs::write(&hostinfo, whole + &hangs).unwrap();
    let ended = ended(&d, "root", "true");
    assert_eq!(ended.status, Some(0), "{ended:?}\n{}", d.log_text());
}

/// Regression: `/etc/shadow` and `/etc/nologin` were not checked for a command. A change applies at
/// once, also for an account that was just looked up.
#[test]
fn a_command_is_refused_for_an_expired_account_and_while_nologin_is_there() {
    if !needs_root() {
        return;
    }
    let folder = daemon::configured("", "");
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    fs::write(
        &hostinfo,
        table.replace("run-as=root", "run-as=root,alice,bob"),
    )
    .unwrap();
    let usual = "$6$x$y:20000:0:99999:7:::";
    let etc = nss::etc(&folder, &[("alice", usual), ("bob", usual)]);
    let d = Daemon::start_by(nss::with_etc(&etc, COSSERVER), folder, &[]);
    let may = |user: &str| {
        let ended = ended(&d, user, "id -un");
        assert_eq!(ended.status, Some(0), "{user}: {ended:?}\n{}", d.log_text());
        assert_eq!(ended.out, [user]);
    };
    let may_not = |user: &str, why: &str| {
        let line = denied(&d, user);
        assert!(line.contains("cause=account"), "{line}");
        assert!(line.contains(why), "{line}");
    };
    let today = cosserver::sys::shadow::today();
    let alice = |line: &str| nss::set_shadow(&etc, &[("alice", line), ("bob", usual)]);
    may("alice");
    for (line, why) in [
        ("$6$x$y:20000:0:99999:7::1:".to_owned(), "has expired"),
        (format!("$6$x$y:20000:0:99999:7::{today}:"), "has expired"),
        ("!$6$x$y:20000:0:99999:7:::".to_owned(), "is locked"),
        (
            "$6$x$y:20000:0:99999:7::soon:".to_owned(),
            "no line of shadow",
        ),
    ] {
        alice(&line);
        may_not("alice", why);
        may("bob");
    }
    // Tomorrow is not today; and an account that never had a password is not locked.
    for line in [
        format!("*:20000:0:99999:7::{}:", today + 2),
        "!:20000:0:99999:7:::".to_owned(),
        "!*:20000::::::".to_owned(),
    ] {
        alice(&line);
        may("alice");
    }
    let nologin = etc.join("nologin");
    fs::write(&nologin, "back at noon\n").unwrap();
    for user in ["alice", "bob"] {
        may_not(user, "/etc/nologin exists");
    }
    may("root");
    fs::remove_file(&nologin).unwrap();
    may("alice");
    // Root's lock means that root cannot log in by password; an expired root is expired.
    let root = |line: &str| fs::write(etc.join("shadow"), format!("root:{line}\n")).unwrap();
    root("!$6$x$y:20000:0:99999:7:::");
    may("root");
    root("$6$x$y:20000:0:99999:7::1:");
    may_not("root", "has expired");
    // A user without a line there is not subject to it.
    may("alice");
    fs::remove_file(etc.join("shadow")).unwrap();
    may("root");
}
