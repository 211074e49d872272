//! After much work the daemon's processes use as much as before: descriptors, threads, children and
//! memory.

use crate::daemon;

use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::session::{self, Session};
use daemon::{Daemon, descriptors, descriptors_at_rest, long, run, until, without_doors};

/// The resources of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holds {
    descriptors: usize,
    threads: u64,
    children: usize,
}

fn holds(pid: i32) -> Holds {
    Holds {
        descriptors: descriptors(pid),
        threads: session::status_number(pid, "Threads"),
        children: without_doors(pid),
    }
}

/// Returns the private memory that a process uses, KiB.
fn memory(pid: i32) -> u64 {
    session::status_number(pid, "RssAnon")
}

/// The amounts of work: first to warm up, and then to measure.
#[derive(Clone, Copy)]
struct Counts {
    first: usize,
    then: usize,
}

/// Does `work` twice, and checks every process of the daemon against its first measurement; its
/// memory may grow by `most` KiB in the second part.
fn comes_back(d: &Daemon, most: u64, counts: Counts, work: impl Fn(usize)) {
    // The clients belong to this process, with three descriptors each.
    cosserver::sys::process::raise_descriptors(u64::MAX);
    d.gate_at_rest();
    let all = [
        ("monitor", d.pid()),
        ("gate", d.process("gate")),
        ("relay", d.process("relay")),
    ];
    for (_, pid) in all {
        descriptors_at_rest(pid);
    }
    let at_first = all.map(|(_, pid)| holds(pid));
    let is_as_at_first = || {
        for ((name, pid), before) in all.iter().zip(at_first) {
            let what = format!("the {name} is again at {before:?}");
            until(&what, || holds(*pid) == before);
        }
        all.map(|(_, pid)| memory(pid))
    };
    work(counts.first);
    let before = is_as_at_first();
    work(counts.then);
    let after = is_as_at_first();
    for (((name, _), before), after) in all.iter().zip(before).zip(after) {
        assert!(after <= before + most, "{name}: {before} KiB, then {after}");
    }
    assert_eq!(d.log.count("lost process="), 0);
}

#[test]
fn after_many_commands() {
    let d = Daemon::start();
    let (first, then) = if long() {
        (10_000, 100_000)
    } else {
        (300, 300)
    };
    comes_back(&d, 512, Counts { first, then }, |count| {
        let left = AtomicUsize::new(count);
        let d = &d;
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Ok(n) = take() {
                        let status = i32::try_from(n % 256).unwrap();
                        // Some commands are long, or write much.
                        let words = match n % 10 {
                            0 => format!("exit {status} #{}", "x".repeat(20_000)),
                            1 => format!("seq 1 30000; exit {status}"),
                            _ => format!("exit {status}"),
                        };
                        let out = run(&mut d.cos(&[&words]));
                        assert_eq!(out.status.code(), Some(status), "{out:?}");
                    }
                });
            }
        });
    });
    until("the log has them all", || {
        d.log.count("end session=") == first + then
    });
}

#[test]
fn after_many_held_sessions() {
    let d = Daemon::start_with("[exec]\nhup-to-kill = 0\n", "");
    let count = if long() { 1_000 } else { 50 };
    let counts = Counts {
        first: count,
        then: count,
    };
    comes_back(&d, 1024, counts, |count| {
        let mut all: Vec<Session> = (0..count)
            .map(|_| d.session(&["echo ready; read x; seq 1 20000; exit 9"]))
            .collect();
        for job in &all {
            job.out.wait("ready");
        }
        // Half of them end normally, the others are killed.
        for (n, mut job) in all.drain(..).enumerate() {
            if n % 2 == 0 {
                job.say("go");
                let ended = job.finish();
                assert_eq!((ended.status, ended.out.len()), (Some(9), 20_001));
            }
        }
    });
}

#[test]
fn after_many_refusals() {
    let settings = "[daemon]\nrefusal-interval = 1\n[penalties]\nauthfail = 0\n";
    let d = Daemon::start_with(settings, "commands=/bin/true");
    let count = if long() { 2_000 } else { 120 };
    let counts = Counts {
        first: count,
        then: count,
    };
    comes_back(&d, 512, counts, |count| {
        let mut all: Vec<Session> = (0..count).map(|_| d.session(&["/bin/false"])).collect();
        for job in all.drain(..) {
            assert_eq!(job.finish().status, Some(255));
        }
    });
    // More in a second than the log takes of unauthenticated peers.
    until("the log has them all", || {
        d.log.count("cause=command") == 2 * count
    });
}
