//! Policy that cannot be believed denies, on the real daemon: wrong files,
//! wrong lines, wrong addresses, a broken configuration; and neighbours who
//! misbehave shut no known host out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

mod daemon;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use daemon::{Daemon, append, me};
use nix::sys::signal::Signal;

/// Makes something of a daemon's files wrong.
type Spoil = fn(&Daemon);

/// Runs a command, which must be refused for this cause.
fn refused(d: &Daemon, cause: &str, words: &[&str]) {
    let out = daemon::run(&mut d.cos(words));
    let said = String::from_utf8(out.stderr).unwrap();
    let told = || format!("{said}{}", d.log_text());
    assert_eq!(out.status.code(), Some(255), "{}", told());
    let (_, rest) = said
        .split_once("(reference ")
        .unwrap_or_else(|| panic!("{}", told()));
    let (reference, _) = rest.split_once(')').unwrap();
    let line = d.log.wait(&format!("denied ref={reference} "));
    assert!(line.contains(&format!(" cause={cause} ")), "{line}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes `hosta`'s line in the host table.
fn edit_hosta(d: &Daemon, from: &str, to: &str) {
    let file = d.server().join("hostinfo");
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|l| l.starts_with("hosta ")).unwrap();
    assert!(line.contains(from), "{line}");
    fs::write(&file, text.replace(line, &line.replace(from, to))).unwrap();
}

#[test]
fn an_address_that_is_not_listed_is_refused() {
    let d = Daemon::start();
    d.says(0, &["true"]);
    edit_hosta(&d, "addr=127.0.0.1,::1", "addr=192.0.2.1,2001:db8::/32");
    refused(&d, "address", &["true"]);
    edit_hosta(&d, "addr=192.0.2.1,2001:db8::/32", "addr=127.0.0.0/8");
    d.says(0, &["true"]);
}

#[test]
fn a_newline_and_a_way_out_of_a_folder_beat_no_allow_list() {
    let d = Daemon::start_with("", "\"commands=/bin/echo *\"");
    let line = "a\nid";
    assert_eq!(d.says(0, &["/bin/echo", line]), b"a\nid\n");
    std::thread::scope(|scope| {
        for words in [["/bin/echo", "../x"], ["/bin/echo\nid", "a"]] {
            let d = &d;
            scope.spawn(move || refused(d, "command", &words));
        }
    });
}

#[test]
fn a_missing_broken_or_unsafe_file_denies() {
    let spoil: [(&str, Spoil); 8] = [
        ("no-hostinfo", |d| {
            fs::remove_file(d.server().join("hostinfo")).unwrap()
        }),
        ("no-hostinfo", |d| mode(&d.server().join("hostinfo"), 0o666)),
        ("no-hostinfo", |d| mode(&d.server(), 0o777)),
        ("unknown-host", |d| edit_hosta(d, "run-as=", "run-ass=")),
        ("no-cookie", |d| {
            fs::remove_file(d.server().join("cookies/hosta.in")).unwrap()
        }),
        ("no-cookie", |d| {
            mode(&d.server().join("cookies/hosta.in"), 0o644)
        }),
        ("no-cookie", |d| {
            fs::write(d.server().join("cookies/hosta.in"), "rubbish\n").unwrap()
        }),
        ("machine-key", |d| {
            fs::write(d.server().join("state/machines/hosta"), "rubbish\n").unwrap()
        }),
    ];
    std::thread::scope(|scope| {
        for (cause, spoil) in spoil {
            scope.spawn(move || {
                let d = Daemon::start();
                d.says(0, &["true"]);
                spoil(&d);
                refused(&d, cause, &["true"]);
            });
        }
    });
}

#[test]
fn a_wrong_line_and_a_name_that_does_not_resolve_cost_their_hosts_alone() {
    let d = Daemon::start();
    let more = format!(
        "nowhere.invalid cos run-as={}\nhostz cos run-ass=root\n",
        me()
    );
    append(&d.server().join("hostinfo"), &more);
    d.says(0, &["true"]);
    d.log.wait("hostz is denied");
}

#[test]
fn a_broken_configuration_keeps_the_old_one() {
    let d = Daemon::start();
    let file = d.server().join("cosserver.toml");
    let right = fs::read_to_string(&file).unwrap();
    append(&file, "\nlissten = 1\n");
    d.signal(Signal::SIGHUP);
    let line = d.log.wait("not-reloaded ");
    assert!(line.contains("lissten"), "{line}");
    d.says(0, &["true"]);
    fs::write(&file, right).unwrap();
    d.signal(Signal::SIGHUP);
    d.log.wait_from(0, |l| l == "reloaded");
    d.says(0, &["true"]);
}

/// A daemon whose settings have other values than the template's, which has
/// each as `#key = default`.
fn with_settings(changes: &[(&str, &str)]) -> Daemon {
    let folder = daemon::prepare("", "");
    let file = folder.path("S/cosserver.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for (default, value) in changes {
        assert!(text.contains(default), "the template has no {default}");
        text = text.replace(default, value);
    }
    fs::write(&file, text).unwrap();
    Daemon::start_in(folder, &[])
}

#[test]
fn a_neighbour_cannot_lock_a_listed_host_out() {
    let d = with_settings(&[
        ("#min = 15", "min = 1"),
        ("#noauth = 1\n", "noauth = 600\n"),
    ]);
    for _ in 0..20 {
        let mut neighbour = TcpStream::connect(("127.0.0.1", d.port)).unwrap();
        neighbour.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        neighbour.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        assert!(
            matches!(neighbour.read(&mut [0; 16]), Ok(0) | Err(_)),
            "garbage got an answer"
        );
    }
    d.log.wait("turned-away peer=127.0.0.1 cause=malformed");
    // A crowd of silent ones more, which stay.
    let crowd: Vec<TcpStream> = (0..50)
        .filter_map(|_| TcpStream::connect(("127.0.0.1", d.port)).ok())
        .collect();
    d.says(0, &["true"]);
    drop(crowd);
}
