//! `make install` and `make uninstall`: what is installed where, and an administrator's changes are
//! kept.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::daemon::{Folder, must, run};
use crate::machine::{CHECKOUT, Machine, PROGRAMS, programs, tool, tools, top};

const SCRIPT: &str = "/etc/init.d/cosserver";
const PAM: &str = "/etc/pam.d/cosserver";

/// Returns every file below a directory with its mode and content, and symbolic links as such.
fn tree(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    fn walk(top: &Path, folder: &Path, found: &mut BTreeMap<String, (u32, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_dir() {
                walk(top, &path, found);
                continue;
            }
            let content = if about.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(top).unwrap().to_str().unwrap();
            found.insert(
                name.to_owned(),
                (about.permissions().mode() & 0o7777, content),
            );
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// Creates a make command that works in a directory in place of the root.
fn make_into(make: &[&str], dest: &Folder, what: &[&str]) -> Command {
    let mut command = Command::new(make[0]);
    command.args(&make[1..]).args(what).current_dir(top());
    command.arg(format!("DESTDIR={}", dest.0.display()));
    command.arg(format!("PROGRAMS={}", programs().display()));
    // Flags of a surrounding make do not apply to this one.
    command
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("MFLAGS");
    command
}

#[test]
fn each_init_gets_its_files_and_leaves_none_behind() {
    let places: [(&str, &[(&str, u32)]); 7] = [
        ("", &[]),
        ("none", &[]),
        ("sysv", &[("etc/init.d/cosserver", 0o755)]),
        ("openrc", &[("etc/init.d/cosserver", 0o755)]),
        ("bsd", &[("opt/cos/etc/rc.d/cosserver", 0o755)]),
        (
            "runit",
            &[
                ("etc/sv/cosserver/run", 0o755),
                ("etc/sv/cosserver/log/run", 0o755),
            ],
        ),
        (
            "systemd",
            &[
                ("etc/systemd/system/cosserver.service", 0o644),
                ("etc/systemd/system/cosserver.socket", 0o644),
                ("etc/systemd/system/cosserver@.service", 0o644),
            ],
        ),
    ];
    for (init, files) in places {
        let dest = Folder::new();
        let init = format!("INIT={init}");
        must(&mut make_into(
            &["make"],
            &dest,
            &["-s", "install", "PREFIX=/opt/cos", &init],
        ));
        let all = tree(&dest.0);
        let machines: Vec<_> = all
            .iter()
            .filter(|(name, _)| !name.starts_with("opt/cos/") || name.starts_with("opt/cos/etc/"))
            .filter(|(name, _)| *name != "etc/pam.d/cosserver")
            .map(|(name, (mode, _))| (name.as_str(), *mode))
            .collect();
        let mut wanted = files.to_vec();
        wanted.sort_unstable();
        assert_eq!(machines, wanted, "{init}");
        assert_eq!(all["etc/pam.d/cosserver"].0, 0o644);
        for (name, _) in files {
            let text = String::from_utf8_lossy(&all[*name].1);
            assert!(!text.contains("/usr/local/sbin/cosserver"), "{name}");
            if !name.ends_with("log/run") && !name.ends_with(".socket") {
                assert!(text.contains("/opt/cos/sbin/cosserver"), "{name}");
            }
        }
        // Every example is there, whatever the init.
        for example in [
            "cosserver.toml",
            "hostinfo",
            "inetd.conf",
            "xinetd",
            "services",
            "pam.d/cosserver.redhat",
            "fail2ban/jail.d/cosserver.conf",
            "init/systemd/cosserver.socket.d/each.conf",
            "init/sysv/cosserver",
            "init/runit/log/run",
            "init/bsd/cosserver",
            "init/openrc/cosserver",
        ] {
            let name = format!("opt/cos/share/doc/cosserver/examples/{example}");
            assert!(all.contains_key(&name), "{name}");
        }
        // It names these directories, and the other documents are beside it.
        let readme = dest.0.join("opt/cos/share/doc/cosserver/README.md");
        let readme = fs::read_to_string(readme).unwrap();
        for part in ["](PROTOCOL.md)", "/opt/cos/share/doc/cosserver/examples"] {
            assert!(readme.contains(part), "{part}");
        }
        assert!(!readme.contains("](docs/") && !readme.contains("/usr/local/share/doc"));
        must(&mut make_into(
            &["make"],
            &dest,
            &["-s", "uninstall", "PREFIX=/opt/cos", &init],
        ));
        assert_eq!(
            tree(&dest.0).keys().collect::<Vec<_>>(),
            Vec::<&String>::new()
        );
    }
    // What systemd finds by itself needs no file in /etc.
    let dest = Folder::new();
    must(&mut make_into(
        &["make"],
        &dest,
        &["-s", "install", "PREFIX=/usr", "INIT=systemd"],
    ));
    assert!(
        dest.path("usr/lib/systemd/system/cosserver.service")
            .exists()
    );
    // Unknown values are reported before anything is installed.
    for (wrong, words) in [
        ("INIT=upstart", "INIT=upstart: one of sysv, "),
        ("PAM=suse", "PAM=suse: one of debian, "),
        ("SIGNER=suid", "SIGNER=suid: setuid or none"),
    ] {
        let dest = Folder::new();
        let out = run(&mut make_into(&["make"], &dest, &["install", wrong]));
        assert!(!out.status.success());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains(words), "{said}");
        assert!(tree(&dest.0).is_empty(), "{wrong}");
    }
}

/// The output does not hide the line with the next step among shell commands.
#[test]
fn install_output_lists_actions_without_commands() {
    let dest = Folder::new();
    for what in ["install", "uninstall"] {
        let out = run(&mut make_into(&["make"], &dest, &[what]));
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        assert!(said.lines().count() < 10, "{said}");
        assert!(
            said.lines()
                .all(|line| line.starts_with(&format!("{what}: ")) || line.starts_with("make")),
            "{said}"
        );
    }
}

#[test]
fn the_make_of_the_bsds_does_the_same() {
    let Some(bmake) = tool("usr/bin/bmake") else {
        return;
    };
    let rules = tools().join("usr/share/mk");
    let bmake = [bmake.to_str().unwrap(), "-m", rules.to_str().unwrap()];
    let (one, other) = (Folder::new(), Folder::new());
    for (what, signer) in [
        ("install", "setuid"),
        ("install", ""),
        ("install", "none"),
        ("uninstall", ""),
    ] {
        let signer = format!("SIGNER={signer}");
        let words = ["-s", what, "INIT=sysv", "PREFIX=/usr", &signer];
        must(&mut make_into(&["make"], &one, &words));
        must(&mut make_into(&bmake, &other, &words));
        assert_eq!(tree(&one.0), tree(&other.0), "{what} {signer}");
    }
}

/// A copy of the files for installing, to make another version of them.
const SOURCE: &str = "/srv/source";

fn copy_of_the_source(machine: &Machine) {
    machine.must(&format!(
        "mkdir {SOURCE}; cd {CHECKOUT}
         cp -R Makefile README.md NEWS SECURITY.md LICENSE docs etc init scripts {SOURCE}"
    ));
}

fn make_there(machine: &Machine, what: &str) -> String {
    machine.must(&format!(
        "make --no-print-directory -s -C {SOURCE} PROGRAMS={PROGRAMS} {what} 2>&1"
    ))
}

#[test]
fn an_administrators_changes_are_kept() {
    let Some(machine) = Machine::start() else {
        return;
    };
    copy_of_the_source(&machine);
    let there = |path: &str| machine.path(path).exists();
    for _ in 0..2 {
        let said = make_there(&machine, "install INIT=sysv");
        assert!(!said.contains("kept"), "{said}");
        assert!(!there("/etc/init.d/cosserver.new"));
    }
    machine.must("grep -q '^_cosserver:' /etc/passwd && grep -q '^_cosserver:' /etc/group");
    // Unchanged files are updated; one that was disabled stays disabled.
    machine.must(&format!(
        "chmod a-x {SCRIPT}
         echo '# second' >>{SOURCE}/init/sysv/cosserver
         for pam in {SOURCE}/etc/pam.d/*; do echo '# second' >>$pam; done"
    ));
    let said = make_there(&machine, "install INIT=sysv");
    assert!(!said.contains("kept"), "{said}");
    assert!(machine.text(SCRIPT).ends_with("# second\n"));
    assert!(machine.text(PAM).ends_with("# second\n"));
    machine.must(&format!("test ! -x {SCRIPT}; chmod a+x {SCRIPT}"));
    // Changed files are kept, also by a version that has the same file.
    machine.must(&format!("echo '# mine' >>{PAM}"));
    for version in ["second", "third"] {
        machine.must(&format!(
            "for f in {SOURCE}/init/sysv/cosserver {SOURCE}/etc/pam.d/*; do echo '# {version}' >>$f; done"
        ));
        let said = make_there(&machine, "install INIT=sysv");
        assert!(
            said.contains(&format!(
                "kept {PAM}, which has been changed; the new one is {PAM}.new"
            )),
            "{said}"
        );
        assert!(machine.text(PAM).ends_with("# mine\n"));
        assert!(
            machine
                .text("/etc/pam.d/cosserver.new")
                .ends_with(&format!("# {version}\n"))
        );
        assert!(machine.text(SCRIPT).ends_with(&format!("# {version}\n")));
    }
    // If the new file is copied over by hand, it counts as unchanged again, and the one beside it
    // is removed.
    machine.must(&format!("cat {PAM}.new >{PAM}"));
    let said = make_there(&machine, "install INIT=sysv");
    assert!(!said.contains("kept"), "{said}");
    assert!(!there("/etc/pam.d/cosserver.new"));
    // A file removed by hand is installed again.
    machine.must(&format!("rm {PAM}"));
    make_there(&machine, "install INIT=sysv");
    assert!(there(PAM));
    // Unchanged files are removed. The rest is kept and named, and the account stays.
    machine.must(&format!(
        "echo '# mine' >>{SCRIPT}; mkdir /etc/cosserver; touch /etc/cosserver/mine"
    ));
    let said = make_there(&machine, "uninstall");
    assert!(
        said.contains(&format!("kept {SCRIPT}, which has been changed")),
        "{said}"
    );
    assert!(said.contains("the account _cosserver stays"), "{said}");
    assert!(there(SCRIPT) && there("/etc/cosserver/mine") && !there(PAM));
    assert!(!there("/usr/local/lib/cosserver") && !there("/usr/local/share/doc/cosserver"));
    machine.must("grep -q '^_cosserver:' /etc/passwd");
    // A file that existed before the installation is not replaced.
    let said = make_there(&machine, "install INIT=sysv");
    assert!(said.contains(&format!("kept {SCRIPT}")), "{said}");
    // Nor is a symbolic link that was put in its place.
    machine.must(&format!(
        "rm {SCRIPT}; ln -s /srv/script {SCRIPT}; echo x >/srv/script"
    ));
    let said = make_there(&machine, "install INIT=sysv");
    assert!(said.contains(&format!("kept {SCRIPT}")), "{said}");
    make_there(&machine, "uninstall");
    assert_eq!(machine.text("/srv/script"), "x\n");
    machine.must(&format!("test -h {SCRIPT}"));
}

/// Regression: the next version's `make install` left an old set-uid program in place.
#[test]
fn the_set_uid_signer_is_there_when_asked_for_and_never_of_another_version() {
    let Some(machine) = Machine::start() else {
        return;
    };
    const SIGN: &str = "/usr/local/bin/cos-sign";
    let built = fs::read(programs().join("cos-sign")).unwrap();
    let install = |signer: &str| machine.make(&format!("install INIT=none {signer}"));
    // Its page is installed and removed with it.
    let there = || {
        let page = machine
            .path("/usr/local/share/man/man1/cos-sign.1")
            .exists();
        assert_eq!(machine.path(SIGN).exists(), page);
        page
    };
    let is = |mode: u32| {
        let about = fs::metadata(machine.path(SIGN)).unwrap();
        assert_eq!((about.mode() & 0o7777, about.uid()), (mode, 0));
        assert!(fs::read(machine.path(SIGN)).unwrap() == built && there());
    };
    install("");
    assert!(!there());
    install("SIGNER=setuid");
    is(0o4755);
    // The next version, installed without the option; and after the program was disabled.
    for (mode, then) in [("4755", 0o4755), ("0755", 0o755)] {
        machine.must(&format!("echo old >{SIGN}; chmod {mode} {SIGN}"));
        install("");
        is(then);
    }
    install("SIGNER=setuid");
    is(0o4755);
    machine.ends(
        2,
        &format!("make -s -C {CHECKOUT} PROGRAMS={PROGRAMS} install INIT=none SIGNER=suid 2>&1"),
    );
    install("SIGNER=none");
    assert!(!there());
    install("SIGNER=setuid");
    machine.make("uninstall");
    assert!(!there());
}

#[test]
fn install_detects_the_init_system() {
    let Some(machine) = Machine::start() else {
        return;
    };
    let there = |path: &str| machine.path(path).exists();
    machine.must("rm -rf /run/systemd /etc/inittab /sbin/openrc-run /run/openrc /run/runit");
    // The running init.
    for (sign, file) in [
        ("true", ""),
        (
            "mkdir -p /run/systemd/system",
            "/usr/local/lib/systemd/system/cosserver.service",
        ),
        ("mkdir /run/openrc", SCRIPT),
        ("mkdir /run/runit", "/etc/sv/cosserver/run"),
        ("touch /etc/rc.subr", "/usr/local/etc/rc.d/cosserver"),
        ("touch /etc/inittab", SCRIPT),
    ] {
        machine.must(sign);
        let said = machine.make("install");
        assert!(file.is_empty() || there(file), "{sign}: {said}");
        assert_eq!(
            said.contains("nothing is started. "),
            !file.is_empty(),
            "{said}"
        );
        assert_eq!(
            said.contains("cosserver starts the daemon"),
            file.is_empty(),
            "{said}"
        );
        let rest = "rm -rf /run/systemd /run/openrc /run/runit /etc/rc.subr /etc/inittab";
        machine.make("uninstall");
        machine.must(rest);
        assert!(file.is_empty() || !there(file), "{sign}");
    }
    // PAM's family.
    for (sign, kind) in [
        ("touch /etc/pam.d/common-auth", "debian"),
        (
            "rm /etc/pam.d/common-auth; touch /etc/pam.d/system-auth",
            "redhat",
        ),
        ("rm /etc/pam.d/system-auth", "plain"),
    ] {
        machine.must(sign);
        machine.make("install");
        let ours = fs::read_to_string(top().join(format!("etc/pam.d/cosserver.{kind}")));
        assert_eq!(machine.text(PAM), ours.unwrap(), "{kind}");
        machine.make("uninstall");
    }
    machine.make("install PAM=none");
    assert!(!there(PAM));
    // fail2ban's filter is installed if fail2ban is; the administrator sets up the jail.
    machine.must("mkdir -p /etc/fail2ban/filter.d /etc/fail2ban/jail.d");
    machine.make("install");
    assert!(there("/etc/fail2ban/filter.d/cosserver.conf"));
    assert!(!there("/etc/fail2ban/jail.d/cosserver.conf"));
    machine.make("uninstall");
    assert!(!there("/etc/fail2ban/filter.d/cosserver.conf"));
    // An ordinary user's own directory is independent of the machine's.
    machine.must(&format!(
        "touch /etc/inittab; mkdir /tmp/own; chown nobody /tmp/own; cd {CHECKOUT}
         setpriv --reuid=65534 --regid=65534 --clear-groups \\
             make -s install PREFIX=/tmp/own PROGRAMS={PROGRAMS} 2>&1
         test -x /tmp/own/sbin/cosserver; test -e /tmp/own/share/doc/cosserver/examples/hostinfo
         test ! -e {SCRIPT}; test ! -e {PAM}"
    ));
    // What still refers to it is named.
    machine.must("mkdir -p /etc/rc2.d; ln -s ../init.d/cosserver /etc/rc2.d/S01cosserver");
    machine.make("install INIT=sysv");
    let said = machine.make("uninstall");
    assert!(
        said.contains("/etc/rc2.d/S01cosserver is still there"),
        "{said}"
    );
    // If the account cannot be created, the installation continues.
    machine.must("userdel _cosserver; rm -f $(command -v useradd) $(command -v adduser)");
    let said = machine.make("install");
    assert!(
        said.contains("could not make the account _cosserver"),
        "{said}"
    );
    assert!(there("/usr/local/sbin/cosserver"));
}
