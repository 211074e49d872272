//! Connections that wait for a host's name do not lock others out, and a daemon that is short of
//! descriptors does not blame a peer for it.

use crate::daemon;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use cosserver::secret::Secret;
use daemon::hostile::{Caller, RawConnection};
use daemon::{Daemon, append, descriptors, must, needs_root, nss, until};

/// The slots of one source: those that HOSTINFO lists have at least 64.
const SLOTS: usize = 64;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Starts a daemon whose hosts `hangs1` and so on have no address, and whose resolver does not
/// answer for them; also returns a caller that only claims to be the first of them.
fn hanging(settings: &str) -> (Daemon, Caller) {
    let folder = daemon::configured(settings, "");
    let lines: String = (1..=2)
        .map(|n| format!("hangs{n} cos run-as=root\n"))
        .collect();
    append(&folder.path("S/hostinfo"), &lines);
    let etc = nss::etc(&folder, &[]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/look_ups/spy.c");
    let defines = ["-DINVERTED=0", "-DHOST_KEY=\"\"", "-DWRITABLE=\"\""];
    nss::install(&etc, &folder.0, "spy", &source, &defines.map(str::to_owned));
    let sources = "passwd: files\ngroup: files\nhosts: spy\n";
    fs::write(etc.join("nsswitch.conf"), sources).unwrap();
    let command = nss::with_etc(&etc, daemon::COSSERVER);
    let d = Daemon::start_by(command, folder, &["-d"]);
    let mut caller = Caller::of(&d);
    caller.name = "hangs1".into();
    caller.cookie = Secret::new([7; 32]);
    (d, caller)
}

/// Connects from that address with this caller's request.
fn asks(d: &Daemon, caller: &Caller, from: &str) -> RawConnection {
    let mut s = RawConnection::from_address(ip(from), d.port);
    let greeting = s.greet();
    s.send(&caller.client_hello(&greeting, &caller.request("true")).0);
    s
}

/// Waits until this many connections have begun to wait for a name.
fn begun(d: &Daemon, wanted: usize) {
    until("they wait for the name", || {
        d.log.count("name connection=") >= wanted
    });
}

/// Regression: these connections could not be evicted before a denial was due, and each held a
/// descriptor of the monitor. A neighbour of a known host took all of its slots by naming a host
/// whose name server does not answer.
#[test]
fn hosts_that_wait_for_a_name_do_not_block_others() {
    if !needs_root() {
        return;
    }
    let (d, caller) = hanging("daemon.refusal-interval = 60\nlimits.silent-per-source = 64\n");
    let before = descriptors(d.pid());
    let mut all: Vec<RawConnection> = (0..SLOTS).map(|_| asks(&d, &caller, "127.0.0.1")).collect();
    begun(&d, SLOTS);
    d.says(0, &["true"]);
    let held = descriptors(d.pid()).saturating_sub(before);
    assert!(held < 16, "{held} descriptors more, {before} before");
    // No early denial reveals that there were too many: all but those that made room wait.
    let open = all
        .iter_mut()
        .filter_map(|s| s.is_open().then_some(()))
        .count();
    assert!(open >= SLOTS - 4, "{open}");
}

/// If a source has only one slot, its waiting connection makes room for the next.
#[test]
fn connection_that_waits_for_a_name_is_evicted_for_its_neighbour() {
    if !needs_root() {
        return;
    }
    let settings = "daemon.refusal-interval = 60\nlimits.silent-per-source = 1\n";
    let (d, caller) = hanging(settings);
    let mut waits = asks(&d, &caller, "127.7.7.7");
    begun(&d, 1);
    let mut next = RawConnection::greeted(ip("127.7.7.7"), d.port);
    waits.closed();
    assert!(next.is_open());
    d.log.wait("cause=evicted");
}

/// Regression: the kernel drops a socket for which the monitor has no descriptor. Its peer was
/// rejected for not speaking the protocol, and penalised.
#[test]
fn shortage_of_descriptors_penalises_no_peer() {
    if !needs_root() {
        return;
    }
    let d = Daemon::start_as(
        "daemon.refusal-interval = 1\npenalties.noauth = 100\npenalties.authfail = 100\n\
         penalties.min = 50\n",
        "",
    );
    let caller = Caller::of(&d);
    let limit = |n: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &d.pid().to_string()]);
        must(prlimit.arg(format!("--nofile={n}:")));
    };
    d.says(0, &["true"]);
    let mut s = RawConnection::from_address(ip("127.7.7.7"), d.port);
    let greeting = s.greet();
    let hello = caller.client_hello(&greeting, &caller.request("true")).0;
    limit("3");
    s.send(&hello);
    let line = d.log.wait(&s.denied());
    assert!(line.contains("cause=busy"), "{line}");
    limit("1024");
    assert_eq!(d.log.count("cause=malformed"), 0, "{}", d.log_text());
    let mut two = [(); 2].map(|()| RawConnection::greeted(ip("127.7.7.7"), d.port));
    assert!(
        two.iter_mut().all(RawConnection::is_open),
        "it is penalised"
    );
    d.says(0, &["true"]);
}
