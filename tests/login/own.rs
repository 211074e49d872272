//! An ordinary user's own daemon: PAM runs with that user's rights, and only that user can log in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::daemon::{COSSERVER, Daemon, must, needs_root, status};
use crate::login::{Logins, Plan};

#[test]
fn ordinary_users_daemon_admits_only_that_user() {
    if !needs_root() {
        return;
    }
    // As lax as an administrator may make it: bob needs no password.
    let bob = "auth sufficient pam_succeed_if.so quiet user = bob\n";
    let plan = Plan {
        settings: "[daemon]\nrefusal-interval = 1\n",
        stack: format!(
            "{bob}auth required pam_unix.so\naccount sufficient pam_succeed_if.so quiet user = bob\naccount required pam_unix.so\npassword required pam_deny.so\nsession required pam_unix.so\n"
        ),
        ..Plan::default()
    };
    let folder = plan.folder();
    // pam_unix asks a helper of group shadow, since alice may not read the file.
    let shadow = folder.path("etc/shadow");
    std::os::unix::fs::chown(&shadow, None, Some(42)).unwrap();
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o640)).unwrap();
    must(
        Command::new("chown")
            .args(["-R", "3001:3001"])
            .arg(folder.path("S")),
    );
    // In a directory of the test, which alice may enter.
    for name in ["cosserver", "cosserver-login"] {
        let from = std::path::Path::new(COSSERVER).with_file_name(name);
        fs::copy(from, folder.path(name)).unwrap();
    }
    fs::copy("/bin/false", folder.path("show-me-not")).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=3001", "--regid=3001", "--groups=3001,3100"]);
    command.arg(folder.path("cosserver"));
    let l = Logins {
        d: Daemon::start_by(command, folder, &[]),
    };
    assert_eq!(status(l.d.pid(), "Uid"), "3001\t3001\t3001\t3001");
    let out = l.alice_says(&["show"]);
    assert_eq!(out[0], "alice");
    assert!(out[1].contains("(staff2)"), "{out:?}");
    let line = l.refused("alice", "wrong\n", &["hello"]);
    assert!(line.contains("PAM: "), "{line}");
    // Another version replaces the file: only a daemon started later uses it.
    fs::rename(
        l.d.folder.path("show-me-not"),
        l.d.folder.path("cosserver-login"),
    )
    .unwrap();
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    let line = l.refused("bob", "", &["hello"]);
    assert!(
        line.contains("this daemon runs as alice and cannot run it as bob"),
        "{line}"
    );
}
