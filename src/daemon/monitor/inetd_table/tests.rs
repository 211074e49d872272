//! The table by itself: what it accepts, and what it does when it is full. Monitors that hold slots
//! are child processes here, since locks of one process do not conflict.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::config::scratch::Scratch;
use crate::daemon::sources::Source;
use crate::ipc::gate::Limits;
use crate::sys::forked::Forked;

const BOOT: [u8; 16] = [7; 16];

fn source(text: &str) -> Source {
    Source::of(text.parse().unwrap())
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn open(path: &Path) -> Table {
    making::open(path, &BOOT).unwrap()
}

fn left(table: &Table, who: &str, now: u64) -> u64 {
    let left = table.locked(|t| t.penalty_left(source(who), &Limits::FEW, at(now)));
    left.unwrap().as_secs()
}

#[test]
fn penalties_add_up_end_and_persist() {
    let scratch = Scratch::new();
    let path = scratch.path().join("table");
    let table = open(&path);
    let about = fs::metadata(&path).unwrap();
    assert_eq!(
        (about.permissions().mode() & 0o7777, about.len()),
        (0o600, LENGTH)
    );
    assert!(
        about.blocks() * 512 < 64 * 1024,
        "it takes room before it is used"
    );
    table
        .penalise(source("192.0.2.1"), 10, &Limits::FEW, at(1000))
        .unwrap();
    table
        .penalise(source("192.0.2.1"), 10, &Limits::FEW, at(1005))
        .unwrap();
    table
        .penalise(source("2001:db8::1"), 7, &Limits::FEW, at(1005))
        .unwrap();
    drop(table);
    let table = open(&path);
    assert_eq!(left(&table, "192.0.2.1", 1005), 15);
    assert_eq!(left(&table, "192.0.2.1", 1019), 1);
    assert_eq!(left(&table, "192.0.2.1", 1020), 0);
    assert_eq!(
        left(&table, "2001:db8::ffff", 1006),
        6,
        "the whole /64 is one source"
    );
    assert_eq!(left(&table, "0.0.0.0", 1006), 0);
    for _ in 0..100 {
        table
            .penalise(source("192.0.2.1"), 100, &Limits::FEW, at(1006))
            .unwrap();
    }
    assert_eq!(left(&table, "192.0.2.1", 1006), 600);
}

#[test]
fn full_table_drops_the_penalties_that_end_first() {
    let scratch = Scratch::new();
    let table = open(&scratch.path().join("table"));
    table
        .penalise(source("192.0.2.1"), 300, &Limits::FEW, at(1))
        .unwrap();
    for n in 0..250_u64 {
        let from = source(&format!("198.51.100.{n}"));
        table
            .penalise(from, 1 + u32::try_from(n).unwrap(), &Limits::FEW, at(1))
            .unwrap();
    }
    assert_eq!(table.count(0).unwrap(), 100);
    assert_eq!(left(&table, "192.0.2.1", 1), 300);
    assert_eq!(left(&table, "198.51.100.249", 1), 250);
    assert_eq!(left(&table, "198.51.100.100", 1), 0);
    // A client with a whole IPv6 network displaces no IPv4 source.
    for n in 0..250 {
        let from = source(&format!("2001:db8:{n:x}::1"));
        table.penalise(from, 600, &Limits::FEW, at(1)).unwrap();
    }
    assert_eq!(
        (table.count(0).unwrap(), table.count(1).unwrap()),
        (100, 100)
    );
    assert_eq!(left(&table, "192.0.2.1", 1), 300);
}

/// A file that cannot be the table of this boot is replaced, and a penalty in it is lost.
#[test]
fn invalid_penalty_table_is_replaced() {
    let made = |path: &Path| {
        let table = open(path);
        table
            .penalise(source("192.0.2.1"), 100, &Limits::FEW, at(1))
            .unwrap();
    };
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 8] = [
        ("short", |p| file(p).set_len(LENGTH - 1).unwrap()),
        ("empty", |p| file(p).set_len(0).unwrap()),
        ("long", |p| file(p).set_len(LENGTH + 1).unwrap()),
        ("another kind", |p| file(p).write_all_at(b"x", 0).unwrap()),
        ("older", |p| file(p).write_all_at(b"0", 15).unwrap()),
        ("another boot", |p| file(p).write_all_at(&[8], 16).unwrap()),
        ("readable", |p| mode(p, 0o644)),
        ("gone", |p| fs::remove_file(p).unwrap()),
    ];
    for (what, damage) in damages {
        let scratch = Scratch::new();
        let path = scratch.path().join("table");
        made(&path);
        assert_eq!(left(&open(&path), "192.0.2.1", 1), 100);
        damage(&path);
        let table = open(&path);
        assert_eq!(left(&table, "192.0.2.1", 1), 0, "{what}");
        let about = fs::metadata(&path).unwrap();
        assert_eq!(
            (about.mode() & 0o7777, about.len()),
            (0o600, LENGTH),
            "{what}"
        );
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "{what}"
        );
    }
    let scratch = Scratch::new();
    made(&scratch.path().join("table"));
    let table = making::open(&scratch.path().join("table"), &[8; 16]).unwrap();
    assert_eq!(
        left(&table, "192.0.2.1", 1),
        0,
        "it was made in another boot"
    );
}

fn file(path: &Path) -> fs::File {
    fs::File::options().write(true).open(path).unwrap()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The target of a link is neither read nor written, and a pipe is not waited for.
#[test]
fn links_pipes_and_foreign_files_are_moved_aside() {
    let scratch = Scratch::new();
    let (path, victim) = (scratch.path().join("table"), scratch.path().join("victim"));
    fs::write(&victim, "as it was").unwrap();
    symlink(&victim, &path).unwrap();
    drop(open(&path));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(open(&path));
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        drop(open(&path));
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), 0);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(
        making::open(&path, &BOOT).is_err(),
        "a folder is nobody's to remove"
    );
    assert!(making::open(&scratch.path().join("no/table"), &BOOT).is_err());
}

/// Invalid contents in every part: no panic, and no penalty beyond the longest.
#[test]
fn no_content_makes_it_panic() {
    let scratch = Scratch::new();
    let path = scratch.path().join("table");
    drop(open(&path));
    let mut noise = crate::secret::random::<32>().unwrap();
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        noise.rotate_left(5);
        noise[0] = noise[0].wrapping_mul(141).wrapping_add(noise[7] | 3);
        noise[0]
    })
    .take(usize::try_from(LENGTH).unwrap() - 32)
    .collect();
    for filling in [&*bytes, &vec![0xff; bytes.len()], &vec![1; bytes.len()]] {
        file(&path).write_all_at(filling, 32).unwrap();
        let table = open(&path);
        let now = locks::uptime();
        for who in ["192.0.2.1", "255.255.255.255", "2001:db8::1"] {
            let held = table.locked(|t| t.penalty_left(source(who), &Limits::FEW, now));
            assert!(held.unwrap() <= at(600), "{who}");
            let admitted = table.admit(source(who), false, &Limits::FEW, now).unwrap();
            if let Admission::Slot(slot) = admitted {
                assert!(table.set_stage(slot, PreauthStage::AwaitsDecision).unwrap());
                table.leave(slot);
            }
            table.penalise(source(who), 5, &Limits::FEW, now).unwrap();
            let peer: IpAddr = who.parse().unwrap();
            assert!(table.take_pam_slot(peer, 4, at(1)).unwrap().is_some());
        }
    }
}

/// Starts a stand-in for a monitor: it takes what it is told to, reports that it has it, and holds
/// it until it is killed.
fn holds(path: &Path, work: impl FnOnce(&Table) -> bool) -> (Forked, bool) {
    let said = path.with_file_name("said");
    let draft = path.with_file_name("saying");
    let _ = fs::remove_file(&said);
    let child = Forked::start(|| {
        nix::sys::signal::SigSet::all().thread_block().unwrap();
        let table = open(path);
        let has = work(&table);
        fs::write(&draft, if has { "yes" } else { "no" }).unwrap();
        fs::rename(&draft, &said).unwrap();
        loop {
            std::thread::park();
        }
    })
    .unwrap();
    while !said.exists() {
        assert!(!crate::sys::process::reap(child.pid), "it has died");
        std::thread::yield_now();
    }
    let has = fs::read_to_string(&said).unwrap() == "yes";
    (child, has)
}

fn end(child: Forked) {
    child.end();
}

fn path(scratch: &Scratch) -> PathBuf {
    let path = scratch.path().join("table");
    drop(open(&path));
    path
}

/// Starts a monitor with a slot. Returns whether it got one.
fn preauth(path: &Path, from: &str, stage: PreauthStage, now: u64) -> (Forked, bool) {
    let from = source(from);
    holds(path, |table| {
        match table.admit(from, false, &Limits::FEW, at(now)).unwrap() {
            Admission::Slot(slot) => table.set_stage(slot, stage).unwrap(),
            Admission::NoSlot => false,
        }
    })
}

#[test]
fn source_slots_are_limited_and_a_penalised_source_has_one() {
    use PreauthStage::{AwaitsDecision, Waiting};
    let scratch = Scratch::new();
    let path = path(&scratch);
    let table = open(&path);
    let there = || table.locked(Table::unauthenticated_total).unwrap();
    let a = "192.0.2.1";
    let asking: Vec<Forked> = (0..3)
        .map(|n| preauth(&path, a, AwaitsDecision, n).0)
        .collect();
    // None of its own may be evicted, so there is no slot for it; another source has one.
    let (refused, has) = preauth(&path, a, Waiting, 5);
    assert!(!has);
    end(refused);
    assert_eq!(there(), 3);
    asking.into_iter().for_each(end);
    // Whatever dead monitors have left behind holds nothing.
    let (first, has) = preauth(&path, a, Waiting, 6);
    assert!(has);
    table.penalise(source(a), 20, &Limits::FEW, at(7)).unwrap();
    let (second, has) = preauth(&path, a, Waiting, 8);
    assert!(has, "under penalty it has one slot, and not none");
    assert_eq!(there(), 1, "and no more");
    let (neighbour, has) = preauth(&path, "192.0.2.2", Waiting, 9);
    assert!(has);
    assert_eq!(there(), 2);
    let (third, has) = preauth(&path, a, AwaitsDecision, 40);
    assert!(has, "its penalty is over");
    assert_eq!(there(), 3);
    for child in [first, second, third, neighbour] {
        end(child);
    }
}

#[test]
fn last_slots_are_reserved_for_hosts_in_hostinfo() {
    use PreauthStage::{AwaitsDecision, Waiting};
    let scratch = Scratch::new();
    let path = path(&scratch);
    let table = open(&path);
    let asking: Vec<Forked> = (1..=3)
        .map(|n| preauth(&path, &format!("192.0.2.{n}"), AwaitsDecision, n))
        .map(|(child, has)| {
            assert!(has);
            child
        })
        .collect();
    let (refused, has) = preauth(&path, "192.0.2.9", Waiting, 5);
    assert!(!has, "one of four is reserved");
    end(refused);
    let listed = table
        .admit(source("192.0.2.9"), true, &Limits::FEW, at(6))
        .unwrap();
    assert!(matches!(listed, Admission::Slot(_)));
    asking.into_iter().for_each(end);
}

#[test]
fn login_and_pam_slots_are_limited_and_freed_when_the_holder_dies() {
    let scratch = Scratch::new();
    let path = path(&scratch);
    let table = open(&path);
    let place = || holds(&path, |t| t.take_login_slot(2).unwrap().is_some());
    let all: Vec<(Forked, bool)> = (0..3).map(|_| place()).collect();
    assert_eq!([true, true, false], [all[0].1, all[1].1, all[2].1]);
    all.into_iter().for_each(|(child, _)| end(child));
    assert_eq!(table.take_login_slot(1).unwrap(), Some(0));
    table.release_login_slot(0);

    let pam_slot = |from: &str| {
        let from: IpAddr = from.parse().unwrap();
        holds(&path, |t| {
            t.take_pam_slot(from, 3, at(1)).unwrap().is_some()
        })
    };
    let guesser: Vec<(Forked, bool)> = (0..3).map(|_| pam_slot("192.0.2.1")).collect();
    assert_eq!(
        [true, true, false],
        [guesser[0].1, guesser[1].1, guesser[2].1]
    );
    let (other, has) = pam_slot("192.0.2.2");
    assert!(has, "the last turn is not for whoever has all the others");
    let (late, has) = pam_slot("192.0.2.3");
    assert!(!has);
    for child in guesser
        .into_iter()
        .map(|(child, _)| child)
        .chain([other, late])
    {
        end(child);
    }
    assert!(
        table
            .take_pam_slot("192.0.2.1".parse().unwrap(), 1, at(1))
            .unwrap()
            .is_some()
    );
}

#[test]
fn failed_guess_holds_a_pam_slot_until_its_denial() {
    let scratch = Scratch::new();
    let table = open(&path(&scratch));
    let from: IpAddr = "192.0.2.1".parse().unwrap();
    for _ in 0..3 {
        table
            .note_failed_guess(Source::of(from), at(2), at(10))
            .unwrap();
    }
    table
        .note_failed_guess(source("192.0.2.2"), at(600), at(10))
        .unwrap();
    assert_eq!(table.take_pam_slot(from, 4, at(11)).unwrap(), None);
    let pam_slot = |from: &str, now| {
        let pam_slot = table
            .take_pam_slot(from.parse().unwrap(), 4, at(now))
            .unwrap();
        pam_slot
            .inspect(|pam_slot| table.release_pam_slot(*pam_slot))
            .is_some()
    };
    assert!(pam_slot("192.0.2.3", 11), "another's are his own");
    assert!(pam_slot("::c000:201", 11), "of IPv6, too");
    assert!(pam_slot("192.0.2.1", 12), "they have been told");
    // Longer than is possible, or of another time: not accepted.
    let unreported_guesses = |from, now| {
        table
            .locked(|t| t.unreported_guesses(source(from), at(now)))
            .unwrap()
    };
    assert_eq!(
        (
            unreported_guesses("192.0.2.2", 69),
            unreported_guesses("192.0.2.2", 70)
        ),
        (1, 0)
    );
    assert_eq!(unreported_guesses("192.0.2.2", 5), 0);
    // If there are too many, those that end last are remembered, another source's among them.
    for n in 0..5000_u64 {
        let refusal_in = Duration::from_millis(10_000 + n);
        table
            .note_failed_guess(source("192.0.2.9"), refusal_in, at(20))
            .unwrap();
    }
    assert_eq!(unreported_guesses("192.0.2.9", 21), GUESSES - 1);
}

/// The one with the highest address was always evicted: it lost its slot to new clients from
/// anywhere, even if others had been there longer.
#[test]
fn oldest_prompted_connection_is_evicted() {
    let scratch = Scratch::new();
    let path = path(&scratch);
    let asked = [("192.0.2.200", 3), ("192.0.2.1", 1), ("192.0.2.2", 2)];
    let all: Vec<_> = asked
        .iter()
        .map(|(from, now)| preauth(&path, from, PreauthStage::Prompted, *now))
        .collect();
    assert!(all.iter().all(|(_, held)| *held));
    let table = open(&path);
    assert!(table.make_slot(source("192.0.2.9")).unwrap());
    let left = table.locked(Table::unauthenticated_left).unwrap();
    assert_eq!(left, [source("192.0.2.200"), source("192.0.2.2")]);
    all.into_iter().for_each(|(child, _)| end(child));
}
