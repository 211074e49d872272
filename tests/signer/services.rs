//! Named services of vouched users: whose user a backend sees, and the groups that rules name.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{ALICE, BOB, CAROL, Machine, can, inside};
use crate::daemon::{self, Lines, append, must, run};

/// A backend that reports the user ID of each peer, and answers with it.
fn backend(path: &std::path::Path) -> Receiver<u32> {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    let (seen, all) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let uid = getsockopt(&stream, PeerCredentials).unwrap().uid();
            let _ = stream.read_to_end(&mut Vec::new());
            let _ = write!(stream, "{uid}");
            if seen.send(uid).is_err() {
                return;
            }
        }
    });
    all
}

fn text(command: &mut Command) -> (Option<i32>, String) {
    let out = run(command);
    (
        out.status.code(),
        String::from_utf8_lossy(&out.stdout).into_owned(),
    )
}

/// As root it would be root's peer: PostgreSQL's peer authentication and MariaDB's unix_socket
/// would take every caller for root.
#[test]
fn a_backend_sees_the_caller_and_never_root() {
    if !can() {
        return;
    }
    let m = Machine::new("");
    let path = m.server.folder.path("backend");
    let seen = backend(&path);
    let service = |name: &str, kind: &str| {
        format!(
            "[service.{name}]\n{kind}\n\
             allow = [ {{ user = \"alice\" }}, {{ group = \"dba\" }}, {{ user = \"root\" }} ]\n"
        )
    };
    let forward = format!("kind = \"forward\"\nto = \"unix:{}\"", path.display());
    let command = "kind = \"command\"\ncommand = [\"/usr/bin/id\", \"-un\"]";
    let own = "kind = \"command\"\ncommand = [\"/usr/bin/id\", \"-un\"]\nas = \"bob\"";
    append(
        &m.server.folder.path("S/cosserver.toml"),
        &[
            service("peer", &forward),
            service("me", command),
            service("own", own),
        ]
        .concat(),
    );
    m.server.signal(Signal::SIGHUP);
    m.server.log.wait("reloaded");
    let _signing = m.daemon();
    let open = |uid: u32, url: &str| text(m.of(uid, "cos").args(["open", "-n", url]));

    assert_eq!(open(ALICE, "peer://hostb"), (Some(0), ALICE.to_string()));
    assert_eq!(seen.recv(), Ok(ALICE));
    assert_eq!(open(ALICE, "me://hostb"), (Some(0), "alice\n".to_owned()));
    assert_eq!(open(ALICE, "own://hostb"), (Some(0), "bob\n".to_owned()));

    // Nobody is in the group, which does not exist.
    assert_eq!(open(CAROL, "peer://hostb"), (Some(255), String::new()));
    m.server
        .log
        .wait("[service.peer]: allow does not list carol of hosta");
    assert_eq!(
        text(m.of(CAROL, "cos").args(["services", "hostb"])),
        (Some(0), String::new())
    );
    let group = m.server.folder.path("s/etc/group");
    append(&group, "dba:x:61999:carol\n");
    assert_eq!(open(CAROL, "peer://hostb"), (Some(0), CAROL.to_string()));
    assert_eq!(seen.recv(), Ok(CAROL));
    let names = text(m.of(CAROL, "cos").args(["services", "hostb"]));
    assert_eq!(names, (Some(0), "me\nown\npeer\n".to_owned()));
    assert_eq!(open(BOB, "peer://hostb"), (Some(255), String::new()));

    // A rule of deny is not avoided by asking to be a user that one may not be.
    let all = "[service.all]\nkind = \"command\"\ncommand = [\"/usr/bin/id\", \"-un\"]\nas = \"bob\"\n\
               allow = [ { host = \"hosta\" } ]\ndeny = [ { user = \"bob\" } ]\n";
    append(&m.server.folder.path("S/cosserver.toml"), all);
    let reloads = m.server.log.count("reloaded");
    m.server.signal(Signal::SIGHUP);
    m.server.log.said_at_least("reloaded", reloads + 1);
    assert_eq!(open(ALICE, "all://hostb"), (Some(0), "bob\n".to_owned()));
    for url in [
        "all://hostb",
        "all://nosuch@hostb",
        "all://alice@hostb",
        "all://root@hostb",
    ] {
        assert_eq!(open(BOB, url), (Some(255), String::new()), "{url}");
    }

    // The host itself asks for root, whom the rules allow: but not by @caller.
    let mut root = m.root(&m.bin.join("cos").display().to_string());
    let denied = run(root.args(["open", "-n", "peer://hostb"]));
    assert_eq!(denied.status.code(), Some(255), "{denied:?}");
    m.server.log.wait("does not make the caller root");
    let mut root = m.root(&m.bin.join("cos").display().to_string());
    assert_eq!(must(root.args(["open", "-n", "own://hostb"])), b"bob\n");
}

/// Returns the folder of PostgreSQL's programs, if this run is to use them. `make soak` does, where
/// Debian's `postgresql` is installed.
fn postgresql() -> Option<PathBuf> {
    if !daemon::long() {
        return None;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut bins = versions.filter_map(|v| Some(v.ok()?.path().join("bin")));
    let found = bins.find(|bin| bin.join("initdb").exists());
    if found.is_none() {
        daemon::report_skipped("no postgresql: apt-get install postgresql installs it");
    }
    found
}

/// A process that is killed with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, Signal::SIGINT);
        self.0.wait().unwrap();
    }
}

/// PostgreSQL authenticates by the name of its peer's user: it sees the caller, through one listening
/// socket of each caller.
#[test]
fn postgresql_authenticates_the_caller_by_its_peer() {
    let Some(bin) = postgresql().filter(|_| can()) else {
        return;
    };
    let m = Machine::new("");
    let folder = m.server.folder.path("pg");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(BOB), Some(BOB)).unwrap();
    // The server's programs run where the server's accounts are.
    let there = |program: &str, words: &[&str]| {
        let bob = [
            "setpriv",
            "--reuid=61002",
            "--regid=61002",
            "--clear-groups",
        ];
        let program = bin.join(program).display().to_string();
        let all = [&bob[..], &[program.as_str()], words].concat();
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        let mut command = inside(&m.server.folder.path("s"), &all);
        command
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    };
    let data = folder.join("data").display().to_string();
    must(&mut there(
        "initdb",
        &["-D", &data, "-A", "peer", "-U", "bob", "--no-sync"],
    ));
    let socket = folder.display().to_string();
    let words = ["-D", &data, "-k", &socket, "-c", "listen_addresses="];
    let mut server = there("postgres", &words)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Lines::collect(server.stderr.take().unwrap());
    let server = Running(server);
    log.wait("ready to accept connections");
    let roles = "create role alice login; create role carol login;";
    must(&mut there(
        "psql",
        &["-h", &socket, "-d", "postgres", "-c", roles],
    ));
    append(
        &m.server.folder.path("S/cosserver.toml"),
        &format!(
            "[service.pg]\nkind = \"forward\"\nto = \"unix:{socket}/.s.PGSQL.5432\"\n\
             allow = [ {{ user = \"alice\" }}, {{ user = \"carol\" }} ]\n"
        ),
    );
    m.server.signal(Signal::SIGHUP);
    m.server.log.wait("reloaded");
    let _signing = m.daemon();
    for (uid, name, other) in [(ALICE, "alice", "carol"), (CAROL, "carol", "alice")] {
        let home = m.path("home").join(name);
        let at = format!("unix:{}/.s.PGSQL.5432", home.display());
        let mut client = m
            .of(uid, "cos")
            .args(["open", "-L", &at, "pg://hostb"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::collect(client.stderr.take().unwrap());
        let client = Running(client);
        lines.wait("listening on");
        let psql = |user: &str| {
            let words = [
                "-h",
                &home.display().to_string(),
                "-U",
                user,
                "-d",
                "postgres",
            ];
            let numbers = [format!("--reuid={uid}"), format!("--regid={uid}")];
            let mut command = Command::new("setpriv");
            command
                .args(numbers)
                .arg("--clear-groups")
                .arg(bin.join("psql"));
            command.args(words).args(["-Atc", "select current_user"]);
            command.current_dir("/").env("HOME", &home);
            run(&mut command)
        };
        let said = psql(name);
        assert_eq!(text_of(&said.stdout), format!("{name}\n"), "{said:?}");
        let refused = psql(other);
        let words = text_of(&refused.stderr);
        assert!(words.contains("Peer authentication failed"), "{words}");
        drop(client);
    }
    drop(server);
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
