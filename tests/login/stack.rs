//! PAM's file for the service: missing, incomplete, or writable by others; and the program that
//! runs PAM.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::daemon::{self, needs_root};
use crate::login::{Logins, Plan};

#[test]
fn without_a_service_file_applications_are_refused_at_the_start() {
    if !needs_root() {
        return;
    }
    let folder = Plan::default().folder();
    let toml = folder.path("S/cosserver.toml");
    let service = folder.path("etc/pam.d/cosserver");
    // As lax as possible: PAM would use this one.
    let lax = "auth required pam_permit.so\naccount required pam_permit.so\n\
               session required pam_permit.so\n";
    fs::write(folder.path("etc/pam.d/other"), lax).unwrap();
    let stack = fs::read(&service).unwrap();
    let run = |flags: &[&str]| daemon::run(daemon::cosserver().args(flags).arg("-f").arg(&toml));
    let good = run(&["-t"]);
    assert!(good.status.success(), "{good:?}");
    fs::remove_file(&service).unwrap();
    for flags in [&["-t"][..], &["-D", "-e", "-p", "0"]] {
        let bad = run(flags);
        let said = String::from_utf8(bad.stderr).unwrap();
        assert_eq!(bad.status.code(), Some(1), "{flags:?}: {said}");
        assert!(
            said.contains("/etc/pam.d/cosserver") && said.contains("[gui.hello]"),
            "{said}"
        );
    }
    let told = daemon::run(
        std::process::Command::new(daemon::COSADM)
            .arg("-C")
            .arg(folder.path("S"))
            .arg("check"),
    );
    let told = String::from_utf8(told.stdout).unwrap();
    let problem = |l: &str| l.starts_with("problem") && l.contains("/etc/pam.d/cosserver");
    assert!(told.lines().any(problem), "{told}");
    // Nor without the login workers' program, or with one that others can write.
    fs::write(&service, &stack).unwrap();
    let moved = folder.path("cosserver");
    fs::copy(daemon::COSSERVER, &moved).unwrap();
    let worker = folder.path("cosserver-login");
    for (mode, why) in [
        (0, "No such file"),
        (0o777, "others can write it"),
        (0o644, "no program"),
    ] {
        if mode > 0 {
            fs::write(&worker, "").unwrap();
            fs::set_permissions(&worker, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut cosserver = std::process::Command::new(&moved);
        let bad = daemon::run(cosserver.arg("-t").arg("-f").arg(&toml));
        let said = String::from_utf8(bad.stderr).unwrap();
        assert_eq!(bad.status.code(), Some(1), "{said}");
        assert!(
            said.contains("/cosserver-login: ") && said.contains(why),
            "{said}"
        );
    }
    // A running daemon keeps its old settings, and allows no login by `other` either.
    fs::write(&service, stack).unwrap();
    let l = Logins {
        d: daemon::Daemon::start_in(folder, &[]),
    };
    fs::remove_file(&service).unwrap();
    let line = l.refused_for("pam", "alice", "secret\n", &["hello"]);
    assert!(line.contains("no /etc/pam.d/cosserver"), "{line}");
    l.d.signal(nix::sys::signal::Signal::SIGHUP);
    let line = l.d.log.wait("not-reloaded");
    assert!(line.contains("/etc/pam.d/cosserver"), "{line}");
    drop(l);
    // Without applications there are no logins, and no file is needed.
    let none = Plan {
        applications: "",
        ..Plan::default()
    };
    let folder = none.folder();
    fs::remove_file(folder.path("etc/pam.d/cosserver")).unwrap();
    let toml = folder.path("S/cosserver.toml");
    let out = daemon::run(daemon::cosserver().arg("-t").arg("-f").arg(toml));
    assert!(out.status.success(), "{out:?}");
    let l = Logins {
        d: daemon::Daemon::start_in(folder, &[]),
    };
    let line = l.refused_for("system", "alice", "", &["hello"]);
    assert!(
        line.contains("there is no [gui.NAME] in cosserver.toml"),
        "{line}"
    );
}

/// Regression: PAM asked `other` for kinds of line that the file lacked, and allowed any user.
#[test]
fn incomplete_or_foreign_writable_pam_stack_admits_no_user() {
    if !needs_root() {
        return;
    }
    let folder = Plan {
        settings: "[daemon]\nrefusal-interval = 1\n",
        ..Plan::default()
    }
    .folder();
    let toml = folder.path("S/cosserver.toml");
    let service = folder.path("etc/pam.d/cosserver");
    let lax =
        ["auth", "account", "password", "session"].map(|k| format!("{k} required pam_permit.so\n"));
    fs::write(folder.path("etc/pam.d/other"), lax.concat()).unwrap();
    let l = Logins {
        d: daemon::Daemon::start_in(folder, &[]),
    };
    let tried = |why: &str| {
        let line = l.refused_for("pam", "alice", "", &["hello"]);
        assert!(line.contains(why), "{line}");
        let bad = daemon::run(daemon::cosserver().args(["-t", "-f"]).arg(&toml));
        let said = String::from_utf8(bad.stderr).unwrap();
        assert_eq!(bad.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.contains("[gui.hello]"), "{said}");
    };
    for (n, kind) in ["auth", "account", "password", "session"]
        .iter()
        .enumerate()
    {
        let mut lines = lax.clone();
        lines[n] = "# nothing\n".into();
        fs::write(&service, lines.concat()).unwrap();
        tried(&format!("no {kind} line in /etc/pam.d/cosserver"));
    }
    fs::write(&service, lax.concat()).unwrap();
    fs::set_permissions(&service, fs::Permissions::from_mode(0o666)).unwrap();
    tried("/etc/pam.d/cosserver: others can write it");
}
