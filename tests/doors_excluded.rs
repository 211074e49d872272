//! An excluded machine among a million: it is denied before any of its request is decoded, and its
//! attempts leave nothing behind.

use crate::daemon;
use crate::door;

use std::fs;

use cosserver::config::paths::Paths;
use cosserver::registry::{Doors, Id, Level, List, Outer};

use daemon::{Daemon, descriptors_at_rest, long, of_role, prepare};
use door::{At, Machine, Manager};

/// Number of excluded machines.
const MILLION: u32 = 1_000_000;

/// The most that a process may grow by, KiB, after the first thousand attempts: what its allocator
/// keeps after 500 concurrent connections. Two bytes for each of 100,000 would be more.
const GROWS: u64 = 128;

/// No penalties: otherwise a source with that many attempts has one slot at a time.
const SETTINGS: &str = "[penalties]\nauthfail = 0\nnoauth = 0\n[daemon]\nrefusal-interval = 1\n";

/// Puts a million machines on a host's exclude list directly, because the manager's interface adds
/// them one by one.
fn exclude_a_million(paths: &Paths) {
    let path = Outer::path(paths);
    let mut text = fs::read_to_string(&path).unwrap();
    for n in 0..MILLION {
        let mut id = [0x33; 16];
        // In ascending order, and far from each other.
        id[..4].copy_from_slice(&(n * 4_294).to_be_bytes());
        let line = format!("{} exclude 1970-01-01T00:00:00Z machine {n}\n", Id(id));
        text.push_str(&line);
    }
    fs::write(&path, text).unwrap();
    // As the administrator's next change leaves it.
    let mut outer = Outer::open(paths).unwrap();
    outer.set_level(Level::Open).unwrap();
}

/// Returns a process's memory use, KiB: in total, and its private part, because other processes may
/// share the program's pages.
fn memory(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let number = |key: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    };
    (number("Pss:"), number("Pss_Anon:"))
}

/// Makes attempts with an invalid opening, this many at a time; returns the reference of the last
/// denial.
fn tries(at: &At, machine: &Machine, count: usize) -> String {
    let mut last = String::new();
    let mut left = count;
    while left > 0 {
        let now = left.min(500);
        let garbage = [0xff; 300];
        let all: Vec<_> = (0..now)
            .map(|_| machine.shakes_hands(at, &garbage).unwrap().0)
            .collect();
        for mut raw_connection in all {
            last = raw_connection.denied();
        }
        left -= now;
    }
    last
}

#[test]
fn excluded_machine_is_refused_before_its_request_is_read() {
    // Only root can see how much memory the daemon has.
    if !daemon::needs_root() {
        return;
    }
    cosserver::sys::process::raise_descriptors(u64::MAX);
    let folder = prepare(SETTINGS, "");
    let paths = Paths::of_dir(&folder.path("S"));
    Doors::make(&paths).unwrap();
    exclude_a_million(&paths);
    let d = Daemon::start_in(folder, &[]);
    let mut m = Manager::at(&d, Level::Open);
    let (at, excluded, other) = (At::of(&d), Machine::new(), Machine::new());
    m.outer
        .put(List::Exclude, &excluded.id(), "banned")
        .unwrap();
    assert_eq!(
        m.outer.count(List::Exclude).unwrap(),
        u64::from(MILLION) + 1
    );
    // The same bytes after the same handshake: only a machine that is not excluded gets as far as
    // decoding.
    let cause_of = |machine: &Machine| {
        let line = d.log.wait(&tries(&at, machine, 1));
        let (_, cause) = line.split_once("cause=").unwrap();
        cause.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(cause_of(&excluded), "excluded");
    assert_eq!(cause_of(&other), "handshake");
    let mut one_of_them = [0x33; 16];
    one_of_them[..4].copy_from_slice(&(777_777_u32 * 4_294).to_be_bytes());
    assert!(m.outer.look(&Id(one_of_them)).unwrap().excluded);

    let all = [("monitor", d.pid()), ("gate", d.process("gate"))];
    assert_eq!(of_role(d.pid(), "registry"), 0);
    let holds = || -> Vec<((u64, u64), usize)> {
        d.gate_at_rest();
        let of = |pid| (memory(pid), descriptors_at_rest(pid));
        all.iter().map(|(_, pid)| of(*pid)).collect()
    };
    tries(&at, &excluded, 1_000);
    let before = holds();
    let count = if long() { 100_000 } else { 5_000 };
    tries(&at, &excluded, count);
    let after = holds();
    for (((what, _), before), after) in all.iter().zip(&before).zip(&after) {
        let ((all, own), (all_then, own_then)) = (before.0, after.0);
        eprintln!(
            "{what}: {all} KiB, its own {own}; after {count} tries {all_then}, its own {own_then}"
        );
        assert!(
            own_then <= own + GROWS,
            "{what}: {own} KiB, then {own_then}"
        );
        assert_eq!(before.1, after.1, "{what}: descriptors");
    }
    assert_eq!(cause_of(&excluded), "excluded");
    assert_eq!(cause_of(&other), "handshake");
    assert_eq!(d.log.count("lost process="), 0);
    // Without the exclusion, its request is decoded again.
    m.outer.delete(List::Exclude, &excluded.id()).unwrap();
    assert_eq!(cause_of(&excluded), "handshake");
}
