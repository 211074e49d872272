//! Accounts that no process may become, and NSS records of an account other than the requested one.

use crate::daemon;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use daemon::session::{Ended, Session};
use daemon::{COSSERVER, Daemon, Folder, needs_root, nss, run};

/// A line of shadow(5) for an account that may be used.
const USUAL: &str = "*:20000:0:99999:7:::";

/// Creates the directories of a host that may be these users, and an `/etc` for the test that
/// contains them.
fn with_users(users: &[(&str, &str)]) -> (Folder, PathBuf) {
    let folder = daemon::configured("", "");
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    let names: Vec<&str> = users.iter().map(|(name, _)| *name).collect();
    let names = format!("run-as=root,{}", names.join(","));
    fs::write(&hostinfo, table.replace("run-as=root", &names)).unwrap();
    let etc = nss::etc(&folder, users);
    (folder, etc)
}

fn start(folder: Folder, etc: &Path) -> Daemon {
    Daemon::start_by(nss::with_etc(etc, COSSERVER), folder, &[])
}

fn replace(etc: &Path, from: &str, to: &str) {
    let passwd = fs::read_to_string(etc.join("passwd")).unwrap();
    assert!(passwd.contains(from), "{passwd}");
    fs::write(etc.join("passwd"), passwd.replace(from, to)).unwrap();
}

fn ended(d: &Daemon, user: &str) -> Ended {
    let mut command = Command::new(daemon::COS);
    command.arg("-C").arg(d.client()).args(["run", "-p"]);
    command.arg(d.port.to_string());
    command.args(["-l", user, "hostb", "id -u; id -g"]);
    let mut session = Session::spawn(&mut command);
    drop(session.stdin.take());
    session.finish()
}

/// Returns why this user was denied, according to the log.
fn denied(d: &Daemon, user: &str) -> String {
    let from = d.log.all().len();
    let ended = ended(d, user);
    assert_eq!(ended.status, Some(255), "{user}: {ended:?}");
    let line = d.log.wait_from(from, |l| l.contains("denied ref=")).1;
    assert!(line.contains("cause=account"), "{line}");
    line
}

/// Regression: setresuid(-1, -1, -1) changes nothing and succeeds, so such a user's commands ran as
/// root. Some C libraries turn all numbers that are too large into -1.
#[test]
fn user_id_minus_one_does_not_run_as_root() {
    if !needs_root() {
        return;
    }
    let numbers = [
        "4294967295:40009",
        "4294967296:40009",
        "18446744073709551616:40009",
        "-1:40009",
        "40009:4294967295",
        "40009:99999999999",
    ];
    let names: Vec<String> = (0..numbers.len()).map(|n| format!("zed{n}")).collect();
    let mut users: Vec<(&str, &str)> = names.iter().map(|n| (&**n, USUAL)).collect();
    users.push(("alice", USUAL));
    let (folder, etc) = with_users(&users);
    for ((number, name), own) in numbers.iter().zip(&names).zip(40_001..) {
        replace(
            &etc,
            &format!("{name}:x:{own}:{own}:"),
            &format!("{name}:x:{number}:"),
        );
    }
    fs::write(etc.join("group"), "root:x:0:\nall:x:4294967295:alice\n").unwrap();
    let d = start(folder, &etc);
    for (number, name) in numbers.iter().zip(&names) {
        let line = denied(&d, name);
        // Whether a user with a number that is too large exists depends on the C library.
        let none = format!("there is no user {name}");
        let why = format!("user {name} cannot be used: the number of");
        assert!(line.contains(&why) || line.contains(&none), "{line}");
        if number.split(':').any(|n| n == "4294967295") {
            assert!(line.contains(&why), "{line}");
        }
    }
    let line = denied(&d, "alice");
    assert!(line.contains("one of its groups is 4294967295"), "{line}");
    assert_eq!(ended(&d, "root").out, ["0", "0"]);
}

/// Regression: shadow(5) was searched for the name in the record, which is not there, so a locked
/// or expired user was allowed.
#[test]
fn passwd_record_with_another_name_does_not_admit_a_locked_user() {
    if !needs_root() {
        return;
    }
    let users = [
        ("alice", "!$6$x:20000:0:99999:7:::"),
        ("gone", "*:20000:0:99999:7::1:"),
        ("bob", USUAL),
    ];
    let (folder, etc) = with_users(&users);
    let source = folder.path("other.c");
    fs::write(&source, OTHER).unwrap();
    nss::install(&etc, &folder.0, "other", &source, &[]);
    let sources = "passwd: other files\ngroup: files\nhosts: files\n";
    fs::write(etc.join("nsswitch.conf"), sources).unwrap();
    let d = start(folder, &etc);
    for user in ["alice", "gone"] {
        let line = denied(&d, user);
        let why = format!("user {user} cannot be used: the user database returns another record");
        assert!(line.contains(&why), "{line}");
    }
    assert_eq!(ended(&d, "bob").out, ["40003", "40003"]);
}

/// An NSS module that knows alice and gone, and returns another name for both.
const OTHER: &str = r#"
#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <string.h>
enum nss_status _nss_other_getpwnam_r(const char *name, struct passwd *p, char *b, size_t n, int *e)
{
    if (n < 2 || (strcmp(name, "alice") != 0 && strcmp(name, "gone") != 0)) {
        *e = ENOENT;
        return NSS_STATUS_NOTFOUND;
    }
    strcpy(b, "x");
    p->pw_name = p->pw_passwd = p->pw_gecos = b;
    p->pw_uid = p->pw_gid = 40001;
    p->pw_dir = "/";
    p->pw_shell = "/bin/sh";
    return NSS_STATUS_SUCCESS;
}
"#;

/// Regression: gate, relay and look-up process would have stayed root.
#[test]
fn gate_and_relay_refuse_user_id_minus_one() {
    if !needs_root() {
        return;
    }
    for number in ["4294967295:990", "990:4294967295"] {
        let (folder, etc) = with_users(&[("alice", USUAL)]);
        replace(
            &etc,
            "_cosserver:x:990:990",
            &format!("_cosserver:x:{number}"),
        );
        let mut command = nss::with_etc(&etc, "timeout");
        command.args(["20", COSSERVER, "-D", "-e", "-p", "0", "-f"]);
        command.arg(folder.path("S/cosserver.toml"));
        let out = run(command.stdin(Stdio::null()));
        let told = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{number}: {told}");
        assert!(told.contains("4294967295"), "{number}: {told}");
    }
}
