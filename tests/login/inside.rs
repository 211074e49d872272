//! The environment of an application, as reported by the application itself.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::daemon::needs_root;
use crate::login::{GAMES, Logins, Plan, STACK, STAFF};

/// What the kernel shows of the application, which is the same process that reads it.
const LOOK: &str = "
[gui.look]
command = [\"/bin/cat\", \"/proc/self/status\", \"/proc/self/limits\", \"/proc/self/stat\"]
users = [\"*\"]
[gui.env]
command = [\"/usr/bin/env\"]
users = [\"*\"]
[gui.extra]
command = [\"/usr/bin/env\"]
users = [\"*\"]
environment = { THEME = \"dark blue\", PATH = \"/own\" }
[gui.shell]
command = [\"/bin/sh\", \"-c\", \"umask; pwd; ls -l /proc/$$/fd; (: </dev/tty) 2>&1; ls -id /proc/self/ns/mnt\"]
users = [\"*\"]
[gui.ends]
command = [\"/bin/sh\", \"-c\", \"cat; echo err >&2; exit 7\"]
users = [\"*\"]
";

fn plan(stack: &str) -> Plan {
    Plan {
        applications: LOOK,
        ..Plan::stack(stack)
    }
}

/// PAM does not support threads, and its modules are third-party code: they run in the login's own
/// process, which has one thread, and never in a process that has a key or talks to unauthenticated
/// peers.
#[test]
fn pam_runs_only_in_the_single_threaded_login_process() {
    if !needs_root() {
        return;
    }
    let l = plan(STACK).start();
    let mut session =
        crate::daemon::session::Session::spawn(&mut l.gui("alice", "secret\n", &[], &["ends"]));
    session.say("it runs");
    session.out.wait("it runs");
    let has_pam = |pid: i32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        maps.contains("libpam") || maps.contains("pam_unix")
    };
    let worker = l.d.process("login");
    assert!(has_pam(worker));
    assert_eq!(crate::daemon::status(worker, "Threads"), "1");
    let others = [l.d.pid(), l.d.process("gate"), l.d.process("relay")];
    assert!(!others.into_iter().any(has_pam));
    drop(session.stdin.take());
    assert_eq!(session.finish().status, Some(7));
}

/// Returns a line of `/proc/self/status`.
fn of<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let line = lines
        .iter()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}: {lines:?}"))
        .split_whitespace()
        .collect()
}

/// Returns soft and hard limit, from `/proc/self/limits`.
fn limit(lines: &[String], name: &str) -> (String, String) {
    let line = lines.iter().find_map(|l| l.strip_prefix(name)).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    (words[0].into(), words[1].into())
}

fn pairs(lines: &[String]) -> BTreeMap<&str, &str> {
    lines.iter().map(|l| l.split_once('=').unwrap()).collect()
}

#[test]
fn application_has_only_the_users_ids_and_groups() {
    if !needs_root() {
        return;
    }
    let l = plan(&format!("{STACK}auth optional pam_group.so\n")).start();
    // A group from pam_group, which pam_setcred adds.
    let line = "cosserver; *; alice; Al0000-2400; games2\n";
    fs::write(l.d.folder.path("etc/security/group.conf"), line).unwrap();
    let status = l.alice_says(&["look"]);
    assert_eq!(of(&status, "Uid"), ["3001"; 4]);
    assert_eq!(of(&status, "Gid"), ["3001"; 4]);
    let mut groups = of(&status, "Groups");
    groups.retain(|g| *g != "3001");
    assert_eq!(groups, [STAFF.to_string(), GAMES.to_string()]);
    for name in [
        "CapPrm", "CapEff", "CapInh", "CapAmb", "SigBlk", "SigIgn", "SigCgt",
    ] {
        let value = u64::from_str_radix(of(&status, name)[0], 16).unwrap();
        // Signals 32 and 33 are the C library's own.
        let value = if name.starts_with("Sig") {
            value & !(3 << 31)
        } else {
            value
        };
        assert_eq!(value, 0, "{name}: {status:?}");
    }
    for name in ["NoNewPrivs", "Seccomp", "TracerPid"] {
        assert_eq!(of(&status, name), ["0"], "{name}");
    }
    // Its own session and group, and no terminal.
    let stat = status.last().unwrap().rsplit_once(") ").unwrap().1;
    let stat: Vec<&str> = stat.split(' ').collect();
    let pid = of(&status, "Pid")[0];
    assert_eq!((stat[2], stat[3], stat[4]), (pid, pid, "0"), "{stat:?}");
    // Another user has none of alice's groups.
    let bob = l.ended(&mut l.gui("bob", "secret\n", &[], &["look"]));
    assert!(
        of(&bob.out, "Groups").iter().all(|g| *g == "3002"),
        "{bob:?}"
    );
}

#[test]
fn its_environment_is_pams_under_what_is_fixed() {
    if !needs_root() {
        return;
    }
    let sets = |variable: &str| format!("auth optional BARE env={variable}\n");
    let stack = [
        STACK.to_owned(),
        sets("HOME=/evil"),
        sets("GUI_PORT=1"),
        sets("SHELL=/evil"),
    ]
    .concat();
    let mut env = Command::new("env");
    env.args(["OF_THE_DAEMON=1", "LD_LIBRARY_PATH=/nowhere"]);
    let l = plan(&stack).start_by(env);
    let home = l.d.folder.path("home/alice").display().to_string();
    let default = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let usual = [
        ("GUI_HOST", "127.0.0.1"),
        ("GUI_PORT", "9003"),
        ("HOME", &*home),
        ("LOGNAME", "alice"),
        ("PATH", default),
        ("SHELL", "/bin/sh"),
        ("TAG", "mine"),
        ("USER", "alice"),
    ];
    let mut cos = l.gui("alice", "secret\n", &[], &["env"]);
    for name in ["LANG", "LC_ALL", "LC_TIME", "GIT_PROTOCOL"] {
        cos.env_remove(name);
    }
    cos.env("OF_THE_CLIENT", "1");
    let ended = l.ended(&mut cos);
    assert_eq!(pairs(&ended.out), BTreeMap::from(usual), "{ended:?}");
    // The locale is passed, and nothing more; the table adds, and goes before PAM.
    let mut cos = l.gui("alice", "secret\n", &[], &["extra"]);
    cos.env("LANG", "C.UTF-8")
        .env_remove("LC_ALL")
        .env_remove("LC_TIME");
    let ended = l.ended(cos.env("GIT_PROTOCOL", "version=2"));
    let mut more = BTreeMap::from(usual);
    more.extend([
        ("LANG", "C.UTF-8"),
        ("PATH", "/own"),
        ("THEME", "dark blue"),
    ]);
    assert_eq!(pairs(&ended.out), more, "{ended:?}");
    drop(l);
    // PAM's PATH and LANG go before the default's and the client's.
    let stack = [STACK.to_owned(), sets("PATH=/pam"), sets("LANG=pam")].concat();
    let l = plan(&stack).start();
    let mut cos = l.gui("alice", "secret\n", &[], &["env"]);
    let ended = l.ended(cos.env("LANG", "C.UTF-8"));
    let pairs = pairs(&ended.out);
    assert_eq!((pairs["PATH"], pairs["LANG"]), ("/pam", "pam"));
}

#[test]
fn its_limits_are_those_of_the_session_and_never_the_daemons_own() {
    if !needs_root() {
        return;
    }
    let started = || {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--nofile=200:4096", "--core=8192:16384"]);
        prlimit
    };
    let files = |status: &[String]| limit(status, "Max open files");
    let core = |status: &[String]| limit(status, "Max core file size");
    let pair = |soft: &str, hard: &str| (soft.to_owned(), hard.to_owned());
    let l = plan(STACK).start_by(started());
    let status = l.alice_says(&["look"]);
    assert_eq!(
        (files(&status), core(&status)),
        (pair("200", "4096"), pair("8192", "16384"))
    );
    drop(l);
    let stack = format!("{STACK}session required pam_limits.so conf=FOLDER/limits.conf\n");
    let l = plan(&stack).start_by(started());
    let conf = "alice soft nofile 222\nalice hard nofile 333\nalice - core 0\nalice - nproc 555\n";
    fs::write(l.d.folder.path("limits.conf"), conf).unwrap();
    let status = l.alice_says(&["look"]);
    assert_eq!(
        (files(&status), core(&status)),
        (pair("222", "333"), pair("0", "0"))
    );
    assert_eq!(limit(&status, "Max processes"), pair("555", "555"));
    // The next login at the same daemon is another user's, who has no line there.
    let bob = l.ended(&mut l.gui("bob", "secret\n", &[], &["look"]));
    assert_eq!(files(&bob.out), pair("200", "4096"));
}

#[test]
fn its_folder_mask_descriptors_and_terminal() {
    if !needs_root() {
        return;
    }
    let l = plan(STACK).start();
    let home = l.d.folder.path("home/alice");
    let shows = |l: &Logins, mask: &str, folder: &str| {
        let out = l.alice_says(&["shell"]);
        assert_eq!((&*out[0], &*out[1]), (mask, folder), "{out:?}");
        let fds: Vec<&String> = out.iter().filter(|l| l.contains(" -> ")).collect();
        assert_eq!(fds.len(), 3, "{out:?}");
        assert!(fds.iter().all(|l| l.contains("-> pipe:")), "{out:?}");
        assert!(
            out.iter().any(|l| l.contains("/dev/tty")),
            "it has a terminal: {out:?}"
        );
    };
    shows(&l, "0022", home.to_str().unwrap());
    // A home directory that does not exist, or cannot be entered, is no reason to deny.
    fs::remove_dir(&home).unwrap();
    shows(&l, "0022", "/");
    drop(l);
    // A mask that is the same for a user with a private group, for whom newer versions allow
    // sharing.
    let stack = format!("{STACK}session optional pam_umask.so umask=0007\n");
    let l = plan(&stack).start();
    shows(&l, "0007", l.d.folder.path("home/alice").to_str().unwrap());
}

#[test]
fn its_input_outputs_and_status_are_carried_until_it_ends() {
    if !needs_root() {
        return;
    }
    let l = plan(STACK).start();
    let mut session =
        crate::daemon::session::Session::spawn(&mut l.gui("alice", "secret\n", &[], &["ends"]));
    session.say("there");
    session.out.wait("there");
    session.say("and back");
    drop(session.stdin.take());
    let ended = session.finish();
    assert_eq!(ended.status, Some(7), "{ended:?}");
    assert_eq!(
        (ended.out.join(" "), ended.err),
        ("there and back".into(), vec!["err".to_owned()])
    );
    l.all_closed(1);
    let line = l.d.log.wait("end session=");
    assert!(
        line.contains("user=alice") && line.contains("status=7"),
        "{line}"
    );
}

#[test]
fn bare_lc_variable_is_not_passed_to_an_application() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let mut command = l.gui("alice", "secret\n", &[], &["show"]);
    let ended = l.ended(command.env("LC_", "no").env("LC_TIME", "C"));
    let passed: Vec<_> = ended.out.iter().filter(|l| l.starts_with("LC_")).collect();
    assert!(passed.contains(&&"LC_TIME=C".to_owned()), "{ended:?}");
    assert!(!passed.contains(&&"LC_=no".to_owned()), "{ended:?}");
}

const OWN: &str = "
[gui.own]
command = [\"/bin/sh\", \"-c\", \"echo err >/dev/stderr; cat /dev/stdin >/dev/stdout\"]
users = [\"*\"]
[gui.oom]
command = [\"/bin/cat\", \"/proc/self/oom_score_adj\"]
users = [\"*\"]
[gui.hidden]
command = [\"FOLDER/hidden\"]
users = [\"*\"]
";

fn own() -> Plan {
    Plan {
        applications: OWN,
        ..Plan::default()
    }
}

/// Root creates the pipes, and the user opens them again by their names.
#[test]
fn application_owns_its_standard_streams() {
    if !needs_root() {
        return;
    }
    for inetd in [false, true] {
        let l = if inetd {
            let superserver = crate::daemon::inetd::superserver();
            let d = crate::daemon::Daemon::start_by(superserver, own().folder(), &[]);
            Logins { d }
        } else {
            own().start()
        };
        let mut command = l.gui("alice", "secret\n", &[], &["own"]);
        let mut session = crate::daemon::session::Session::spawn(&mut command);
        session.say("in");
        drop(session.stdin.take());
        let ended = session.finish();
        let said = (ended.status, &*ended.out, &*ended.err);
        let expected = (Some(0), &["in".to_owned()][..], &["err".to_owned()][..]);
        assert_eq!(said, expected, "inetd {inetd}: {}", l.log_text());
        // It does not have the monitor's OOM priority either.
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(l.alice_says(&["oom"]), [own.trim()], "inetd {inetd}");
    }
}

/// A detached application has no client to tell that it could not be executed: it is checked
/// before, as the user that will execute it and not as root.
#[test]
fn a_detached_application_that_its_user_may_not_execute_is_refused() {
    if !needs_root() {
        return;
    }
    let l = own().start();
    let hidden = l.d.folder.path("hidden");
    fs::write(&hidden, "#!/bin/sh\n").unwrap();
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(mode)).unwrap();
    };
    let detached = || l.ended(&mut l.gui("alice", "secret\n", &["--detach"], &["hidden"]));
    mode(0o700);
    let ended = detached();
    assert_eq!(ended.status, Some(255), "{ended:?}");
    let reference = crate::login::reference(&ended.err[0]);
    let line = l.d.log.wait(&format!("ref={reference}"));
    assert!(line.contains("ermission denied"), "{line}");
    mode(0o711);
    // A script must be readable, but that shows only when it is executed.
    assert_eq!(detached().status, Some(0));
}
