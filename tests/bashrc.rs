//! `SSH_CLIENT`, which makes bash read `~/.bashrc`: with the real bash, and with the tests' own
//! accounts.

use crate::daemon;
use crate::program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use daemon::session::on_path;
use daemon::{COS, COSSERVER, Daemon, Folder, needs_root, nss, run};

const USERS: [(&str, &str); 2] = [
    ("basher", "*:20000:0:99999:7:::"),
    ("dasher", "*:20000:0:99999:7:::"),
];

/// The default value.
const ON: &str = "[exec]\nssh-client = true\n";

/// Starts a daemon that allows these users, each with a `.bashrc` that sets `PATH`.
fn start(settings: &str, options: &str) -> Daemon {
    let folder = daemon::prepare(settings, options);
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    let names = "run-as=root,basher,dasher";
    fs::write(&hostinfo, table.replace("run-as=root", names)).unwrap();
    let etc = nss::etc(&folder, &USERS);
    let mut passwd = fs::read_to_string(etc.join("passwd")).unwrap();
    for (name, shell) in [("basher", "bash"), ("dasher", "dash")] {
        let home = home(&folder, name);
        let shell = on_path(shell).unwrap();
        let line = passwd
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap()
            .to_owned();
        let own = line.replace(":/:/bin/sh", &format!(":{home}:{}", shell.display()));
        passwd = passwd.replace(&line, &own);
    }
    fs::write(etc.join("passwd"), passwd).unwrap();
    Daemon::start_by(nss::with_etc(&etc, COSSERVER), folder, &[])
}

/// Creates a home directory with a program that its `.bashrc` puts on the path.
fn home(folder: &Folder, name: &str) -> String {
    let home = folder.path(name);
    fs::create_dir_all(home.join("tools")).unwrap();
    for all in [&home, &home.join("tools")] {
        fs::set_permissions(all, fs::Permissions::from_mode(0o755)).unwrap();
    }
    program::script(&home.join("tools/own-tool"), "#!/bin/sh\necho found\n");
    fs::write(
        home.join(".bashrc"),
        "PATH=$HOME/tools:$PATH\nexport SOURCED=yes\n",
    )
    .unwrap();
    home.display().to_string()
}

fn asked(d: &Daemon, user: &str, words: &[&str]) -> Output {
    let mut command = Command::new(COS);
    let port = d.port.to_string();
    command.arg("-C").arg(d.client());
    command.args(["run", "-p", &port, "-l", user, "-oSendEnv=SSH*"]);
    // What a client claims about itself is ignored.
    command
        .env("SSH_CLIENT", "192.0.2.9 1 2")
        .env("SSH2_CLIENT", "x");
    command.env("SSH_CONNECTION", "x");
    run(command.arg("hostb").args(words))
}

fn says(d: &Daemon, user: &str, words: &[&str]) -> String {
    let out = asked(d, user, words);
    assert!(out.status.success(), "{words:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Returns whether this bash was built to check the variable, as Debian's is.
fn looks_for_it() -> bool {
    let file = fs::read(on_path("bash").unwrap()).unwrap();
    let has = file.windows(10).any(|part| part == b"SSH_CLIENT");
    if !has {
        assert!(!daemon::in_ci(), "this bash does not look for SSH_CLIENT");
        daemon::report_skipped("this bash does not look for SSH_CLIENT");
    }
    has
}

#[test]
fn a_path_that_bashrc_sets_holds_for_commands() {
    if !needs_root() || !looks_for_it() {
        return;
    }
    let d = start(ON, "");
    assert_eq!(says(&d, "basher", &["own-tool"]), "found\n");
    // A nested shell, whose level bash counts, does not read the file again.
    let below = "unset SOURCED; bash -c 'echo /$SOURCED/'; :";
    assert_eq!(says(&d, "basher", &[below]), "//\n");
    // A shell that does not check the variable is not affected.
    assert_eq!(says(&d, "dasher", &["echo /$SOURCED/"]), "//\n");
    assert_eq!(asked(&d, "dasher", &["own-tool"]).status.code(), Some(127));
}

#[test]
fn ssh_client_variable_has_both_addresses_of_the_connection() {
    if !needs_root() {
        return;
    }
    let d = start(ON, "");
    let words = ["echo $SSH_CLIENT; echo /$SSH2_CLIENT/$SSH_CONNECTION/"];
    let text = says(&d, "basher", &words);
    let lines: Vec<&str> = text.lines().collect();
    let ends: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!((ends.len(), ends[0]), (3, "127.0.0.1"), "{text}");
    assert!(ends[1].parse::<u16>().unwrap() > 2, "{text}");
    assert_eq!(ends[2], d.port.to_string());
    assert_eq!(lines[1], "///");
}

#[test]
fn a_setting_leaves_bashrc_unread() {
    if !needs_root() {
        return;
    }
    let d = start("[exec]\nssh-client = false\n", "");
    let words = ["echo /$SOURCED/$SSH_CLIENT/$SSH2_CLIENT/"];
    assert_eq!(says(&d, "basher", &words), "////\n");
    assert_eq!(asked(&d, "basher", &["own-tool"]).status.code(), Some(127));
}

/// No process that such a command starts reads a file because of it.
#[test]
fn a_restricted_command_has_no_ssh_client() {
    if !needs_root() {
        return;
    }
    let d = start(ON, "commands=/usr/bin/env");
    let text = says(&d, "basher", &["/usr/bin/env"]);
    assert!(text.contains("COS_HOST=hosta\n"), "{text}");
    assert!(!text.contains("SSH"), "{text}");
}
