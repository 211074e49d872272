//! Named services of vouched users: whose user a backend sees, and the groups that rules name.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{ALICE, BOB, CAROL, Machine, can};
use crate::daemon::{append, must, run};

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
