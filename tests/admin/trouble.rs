//! Mistakes and faults that an administrator can meet: mistyped input, insecure files, a full disk,
//! unreadable files, other users' files.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use cosserver::config::keys;
use cosserver::config::known_hosts;
use cosserver::config::paths::Paths;
use cosserver::secret::PublicKey;
use nix::unistd::{User, geteuid};

use super::{COSADM, Folder, Scratch, chmod, content, host, me, text};

#[test]
fn mistakes_on_the_command_line() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let before = content(&s.0);
    let me = me();
    for (code, arguments, words) in [
        (2, vec![], "--help"),
        (2, vec!["hots", "list"], "did you mean \"host list\"?"),
        (
            2,
            vec!["host", "invite"],
            "cosadm host invite needs NAME; see",
        ),
        (
            2,
            vec!["host", "invite", "x", "--adr", "::1"],
            "did you mean \"addr\"?",
        ),
        (1, vec!["host", "invite", "../x"], "is no host name"),
        (
            1,
            vec!["host", "invite", "x", "--run-as=-f", "--addr=::1"],
            "begins with -",
        ),
        (
            1,
            vec![
                "host",
                "invite",
                "x",
                "--run-as",
                &me,
                "--addr",
                "10.0.0.1/8",
            ],
            "did you mean 10.0.0.0/8?",
        ),
        (
            2,
            vec![
                "host", "invite", "x", "--run-as", &me, "--addr", "::1", "--port", "70000",
            ],
            "is not a port",
        ),
        (1, vec!["host", "show", "x"], "x is not in it"),
        (1, vec!["host", "remove", "x"], "x is not in it"),
        (1, vec!["host", "rotate", "x"], " host invite x` invites it"),
        (1, vec!["host", "join", "/nowhere"], "/nowhere: "),
        (1, vec!["host", "join", "-"], "there is no invitation in it"),
    ] {
        let told = s.bad(code, &arguments);
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    assert_eq!(content(&s.0), before);
    assert!(s.good(&["--help"]).starts_with("usage: cosadm"));
    if geteuid().is_root() {
        assert!(
            s.bad(2, &["host", "invite", "x", "--addr", "::1"])
                .contains("--run-as is missing")
        );
    }
    let none = Folder(scratch.0.join("none"));
    if geteuid().is_root() {
        none.bad(2, &["host", "invite", "x", "--addr", "::1"]);
    }
    for command in [
        ["host", "list"].as_slice(),
        &["host", "rotate", "x"],
        &["host", "remove", "x"],
    ] {
        assert!(none.bad(1, command).contains(" init` makes "));
    }
    assert!(!none.0.exists());
}

#[test]
fn changed_host_key_is_not_accepted_by_default() {
    let scratch = Scratch::new();
    let (s, t, a) = (scratch.init("S"), scratch.init("T"), scratch.init("A"));
    assert!(
        a.join(&s.invite("hosta"), &["--name", "hostb"])
            .status
            .success()
    );
    let other = t.invite("hosta");
    let before = content(&a.0);
    let refused = a.join(&other, &["--name", "hostb"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    let key = |folder: &Folder| keys::load_host_key(&folder.paths()).ok().unwrap().public;
    let print = |folder: &Folder| keys::fingerprint(&key(folder));
    assert!(
        told.contains(&print(&s)) && told.contains(&print(&t)) && told.contains("--replace-key"),
        "{told}"
    );
    assert_eq!(content(&a.0), before);
    assert!(
        a.join(&other, &["--name", "hostb", "--replace-key"])
            .status
            .success()
    );
    assert_eq!(
        known_hosts::pins(&a.paths(), &host("hostb")).unwrap(),
        [key(&t)]
    );
}

#[test]
fn a_mistyped_card() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    let card = s.invite("hosta");
    let before = content(&a.0);
    let refused = a.join(&card.replace("port: 9002", "port: 9003"), &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("line 8: the check does not fit"));
    assert_eq!(content(&a.0), before);
    let mailed = format!("Hello,\r\n\r\n{}\r\nbye", card.replace('\n', "\r\n"));
    assert!(a.join(&mailed, &[]).status.success());
}

/// A change to a valid directory, and what `check` then reports.
type Harm = (&'static str, fn(&Paths));

const HARMS: &[Harm] = &[
    ("hostinfo: it can be written by its group", |p| {
        chmod(&p.hostinfo(), 0o664)
    }),
    ("host.key: it is a secret and others can read it", |p| {
        chmod(&p.host_key(), 0o644)
    }),
    ("cosserver.toml: it can be written by all users", |p| {
        chmod(&p.settings(), 0o666)
    }),
    ("S: it can be written by all users", |p| {
        chmod(&p.dir, 0o777)
    }),
    ("cookies: others can access it", |p| {
        chmod(&p.cookies(), 0o755)
    }),
    ("hosta.in: it is a secret", |p| {
        chmod(&p.cookie_in(&host("hosta")), 0o640)
    }),
    ("machine.key: there is no key", |p| {
        fs::remove_file(p.machine_key()).unwrap()
    }),
    ("machine.key: the same key as host.key", |p| {
        fs::copy(p.host_key(), p.machine_key()).unwrap();
    }),
    ("it has run-as= and no cookie", |p| {
        fs::remove_file(p.cookie_in(&host("hosta"))).unwrap()
    }),
    ("hosta.in:1: a line is", |p| {
        fs::write(p.cookie_in(&host("hosta")), "x\n").unwrap()
    }),
    ("did you mean \"port\"?", |p| {
        fs::write(p.settings(), "prot = 1\n").unwrap()
    }),
    ("unknown method \"coss\"; did you mean \"cos\"?", |p| {
        fs::write(p.hostinfo(), "x coss\n").unwrap()
    }),
    ("run-as=no-such-user-here: there is no user no-such", |p| {
        fs::write(p.hostinfo(), "x cos addr=::1 run-as=no-such-user-here\n").unwrap();
    }),
    (
        "users=bob:no-such-user-here: there is no user no-such",
        |p| {
            let users = "bob:no-such-user-here,eve:no-such-user-here";
            fs::write(p.hostinfo(), format!("x cos addr=::1 users={users}\n")).unwrap();
        },
    ),
    ("known_hosts:1: ", |p| {
        fs::write(p.known_hosts(), "hostb 12\n").unwrap()
    }),
    ("machines: there is no such folder", |p| {
        fs::remove_dir(p.machines()).unwrap()
    }),
    ("a key is pinned for it, and there is no cookie", |p| {
        known_hosts::pin(p, &host("hosta"), &PublicKey([1; 32])).unwrap();
    }),
];

#[test]
fn check_finds_what_is_wrong() {
    let scratch = Scratch::new();
    for (number, (words, harm)) in HARMS.iter().enumerate() {
        let s = scratch.init(&format!("{number}/S"));
        s.invite("hosta");
        s.append("hostb ssh\n");
        assert!(s.good(&["check"]).ends_with("no problem\n"));
        harm(&s.paths());
        let output = s.run(&["check"]);
        let told = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{words}: {told}");
        assert!(
            told.lines()
                .any(|line| line.starts_with("problem") && line.contains(words)),
            "{words}: {told}"
        );
        // No user is reported missing twice.
        assert!(told.matches("there is no user").count() <= 1, "{told}");
        // No line names its file twice.
        for line in told.lines() {
            let file = line.split_ascii_whitespace().nth(1).unwrap_or("");
            let file = file.trim_end_matches(|c: char| c == ':' || c.is_ascii_digit());
            assert!(
                !file.starts_with('/') || line.matches(&format!("{file}:")).count() == 1,
                "{line}"
            );
        }
        let json = text(&s.run(&["check", "--json"]).stdout);
        assert!(json.starts_with("{\"ok\":false,\"problems\":"), "{json}");
    }
}

#[test]
fn insecure_files_are_not_changed_either() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    chmod(&s.paths().hostinfo(), 0o666);
    let before = content(&s.0);
    for arguments in [
        ["host", "rotate", "hosta"].as_slice(),
        &["host", "remove", "hosta"],
        &["host", "list"],
    ] {
        assert!(
            s.bad(1, arguments).contains("can be written by all users"),
            "{arguments:?}"
        );
    }
    assert_eq!(content(&s.0), before);
}

#[test]
fn failed_write_to_standard_output_is_an_error_and_no_panic() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    for arguments in [
        ["host", "list"].as_slice(),
        &["check"],
        &["host", "rotate", "hosta"],
        &["--help"],
    ] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for sink in [Stdio::from(writer), Stdio::from(full)] {
            let child = s
                .command(arguments)
                .stdout(sink)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let output = child.wait_with_output().unwrap();
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
            assert!(
                told.contains("cosadm: standard output: ") && !told.contains("panicked"),
                "{told}"
            );
            assert_eq!(
                told.contains("the card was not written, and its cookie is withdrawn: "),
                arguments.contains(&"rotate"),
                "{told}"
            );
        }
    }
    // If standard error is gone too, only the exit code reports the failure.
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let status = s
        .command(&["zzz"])
        .stderr(full())
        .stdout(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn ordinary_user_administers_own_folder() {
    let Some(nobody) = User::from_name("nobody")
        .unwrap()
        .filter(|_| geteuid().is_root())
    else {
        eprintln!(
            "skipped: only root can become another user (and every test here ran as an ordinary one)"
        );
        return;
    };
    let scratch = Scratch::new();
    chmod(&scratch.0, 0o755);
    let program = scratch.0.join("cosadm");
    crate::program::copy(COSADM, &program);
    let home = scratch.0.join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .current_dir("/");
        command
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("COS_CONFIG_DIR")
            .env("HOME", &home);
        command
            .uid(nobody.uid.as_raw())
            .gid(nobody.gid.as_raw())
            .output()
            .unwrap()
    };
    let made = run(&["init"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let folder = Folder(home.join(".config/cosserver"));
    let card = run(&["host", "invite", "hosta", "--addr", "127.0.0.1"]);
    assert!(card.status.success(), "{}", text(&card.stderr));
    assert!(
        folder
            .table()
            .ends_with("\nhosta cos addr=127.0.0.1 run-as=nobody\n")
    );
    assert_eq!(run(&["check"]).status.code(), Some(0));
    let refused = run(&[
        "host",
        "invite",
        "hostb",
        "--addr",
        "127.0.0.1",
        "--run-as",
        "root",
    ]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("as you alone"));
    // A file that the user may not read is not reported missing.
    let s = scratch.init("S");
    fs::write(s.paths().known_hosts(), "").unwrap();
    let checked = run(&["-C", s.0.to_str().unwrap(), "check"]);
    let told = text(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1), "{told}");
    let line = format!("problem  {}: ", s.paths().known_hosts().display());
    assert!(
        told.contains(&line) && !told.contains("no host is joined"),
        "{told}"
    );
    // Root does not trust a directory that an ordinary user could change.
    assert!(
        folder
            .bad(1, &["host", "list"])
            .contains("is owned by user")
    );
}

#[test]
fn root_makes_no_folder_through_another_users_link() {
    let Some(nobody) = User::from_name("nobody")
        .unwrap()
        .filter(|_| geteuid().is_root())
    else {
        eprintln!("skipped: only root can give a link away");
        return;
    };
    let scratch = Scratch::new();
    let (shared, target) = (scratch.0.join("shared"), scratch.0.join("target"));
    fs::create_dir(&shared).unwrap();
    chmod(&shared, 0o1777);
    fs::create_dir(&target).unwrap();
    let link = shared.join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(nobody.uid.as_raw()), None).unwrap();
    let open = shared.join("open");
    fs::create_dir(&open).unwrap();
    chmod(&open, 0o777);
    let cos = env!("CARGO_BIN_EXE_cos");
    for folder in [
        link.join("a/b"),
        link.clone(),
        open.join("a/b"),
        open.clone(),
    ] {
        let by_name = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            command.args(words).env("COS_CONFIG_DIR", &folder);
            command
        };
        let by_flag = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            command.arg("-C").arg(&folder).args(words);
            command
        };
        for mut command in [
            by_name(cos, &["key", "show"]),
            by_flag(cos, &["key", "show"]),
            by_name(COSADM, &["init"]),
            by_flag(COSADM, &["init"]),
        ] {
            let out = command.stdin(Stdio::null()).output().unwrap();
            let told = text(&out.stderr);
            assert_ne!(out.status.code(), Some(0), "{command:?}: {told}");
            assert!(
                told.contains("not trusted, since ") || told.contains(": it "),
                "{told}"
            );
        }
    }
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
}

/// A disk of 192 KiB that only this shell and its children see, filled before commands that must
/// change nothing, or must revoke trust all the same.
const FULL_DISK: &str = r#"
    mount -t tmpfs -o size=192k,mode=0700 tmpfs "$DIR" || exit 99
    cd "$DIR" && "$COSADM" -C S init >/dev/null || exit 10
    invite() { "$COSADM" -C S host invite "$1" --addr 127.0.0.1 --run-as root; }
    state() { cat S/hostinfo S/cookies/* | sha256sum; ls -A S S/*; }
    card=$(invite hosta) || exit 11
    # Longer than the block that the cookie leaves.
    head -c 9000 /dev/zero | tr '\0' '#' >>S/hostinfo
    before=$(state)
    cat /dev/zero >filler && exit 12
    invite hostb && exit 13
    "$COSADM" -C S host rotate hosta && exit 14
    test "$before" = "$(state)" || exit 15
    "$COSADM" -C T init && exit 16
    "$COSADM" -C S host remove hosta && exit 17
    test -e S/cookies/hosta.in && exit 18
    grep -q ^hosta S/hostinfo || exit 19
    rm filler
    card=$(invite hostb) || exit 20
    "$COSADM" -C T init >/dev/null || exit 21
    "$COSADM" -C S host remove hosta || exit 22
    invite hosta
"#;

#[test]
fn a_full_disk_leaves_the_old_files() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can mount a small disk to fill");
        return;
    }
    let scratch = Scratch::new();
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", FULL_DISK])
        .env("DIR", &scratch.0)
        .env("COSADM", COSADM);
    let output = command.output().unwrap();
    let told = text(&output.stderr);
    if output.status.code() == Some(99) || told.contains("unshare failed") {
        let ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!ci, "nothing can be mounted here: {told}");
        eprintln!("skipped: nothing can be mounted here: {told}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(
        told.matches("the disk is full; nothing was changed")
            .count(),
        4,
        "{told}"
    );
    for words in [
        "hosta: removed the cookies by which it asks this host\n",
        "hosta: its line not removed: ",
        "cosadm: made   ",
        "not everything was made (`cosadm -C ",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(text(&output.stdout).matches("caller: ").count(), 1);
}
