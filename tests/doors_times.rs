//! The time of a denial by the registry does not reveal its cause.

use crate::daemon;
use crate::door;

#[path = "doors_times/beside.rs"]
mod beside;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use cosserver::registry::{Level, List};

use daemon::hostile::{Caller, RawConnection};
use daemon::stats::{furthest, median, order};
use daemon::{Daemon, long};
use door::{At, Machine, Manager, fresh_address};

/// Connections at the same time; each gets a denial per second.
const CONNECTIONS: usize = 32;

/// Denied by the outer door, after it, by the inner door, and for an invalid request.
#[derive(Clone, Copy, Debug)]
enum Why {
    Excluded,
    UnknownMachine,
    NoOpening,
    WrongAddress,
}

const CAUSES: [(Why, &str); 4] = [
    (Why::Excluded, "excluded"),
    (Why::UnknownMachine, "unknown-machine"),
    (Why::NoOpening, "handshake"),
    (Why::WrongAddress, "address"),
];

/// Connects, is denied for that cause, and returns the time from its last message to the end, µs.
fn refused(why: Why, at: &At, banned: &Machine, caller: &Caller) -> (String, f64) {
    let garbage = [0xff; 300];
    let mut raw_connection = match why {
        Why::Excluded => {
            let machine = Machine {
                from: fresh_address(),
                ..banned.clone()
            };
            machine.shakes_hands(at, &garbage).unwrap().0
        }
        Why::UnknownMachine => {
            let request = Machine::enrolment();
            Machine::new().shakes_hands(at, &request).unwrap().0
        }
        Why::NoOpening => Machine::new().shakes_hands(at, &garbage).unwrap().0,
        Why::WrongAddress => {
            let mut s = RawConnection::from_address(fresh_address(), at.port);
            let greeting = s.greet();
            s.send(&caller.client_hello(&greeting, &caller.request("true")).0);
            s
        }
    };
    let begun = Instant::now();
    let reference = raw_connection.denied();
    (reference, begun.elapsed().as_secs_f64() * 1e6)
}

#[test]
fn registry_refusal_time_does_not_reveal_its_cause() {
    let d = Daemon::start_with(door::QUICK, "");
    let mut m = Manager::at(&d, Level::Closed);
    let (at, banned, caller) = (At::of(&d), Machine::new(), Caller::of(&d));
    m.outer.put(List::Exclude, &banned.id(), "banned").unwrap();
    for (why, cause) in CAUSES {
        let line = d.log.wait(&refused(why, &at, &banned, &caller).0);
        assert!(line.contains(&format!("cause={cause} ")), "{line}");
    }
    // Other load on the machine can separate two of them by chance; a real difference shows more
    // clearly with more samples.
    let looks: &[usize] = if long() { &[2_000] } else { &[200, 800] };
    let mut last = String::new();
    for each in looks {
        match distinguishable_causes(*each, &at, &banned, &caller) {
            None => return,
            Some(words) => last = words,
        }
    }
    panic!("{last}");
}

/// Has each cause denied this often. Returns two causes that can be distinguished, if any.
fn distinguishable_causes(
    each: usize,
    at: &At,
    banned: &Machine,
    caller: &Caller,
) -> Option<String> {
    let samples: Mutex<BTreeMap<&str, Vec<f64>>> = Mutex::default();
    std::thread::scope(|threads| {
        for nth in 0..CONNECTIONS {
            let samples = &samples;
            threads.spawn(move || {
                for round in 0..usize::div_ceil(each, CONNECTIONS) {
                    for n in order(CAUSES.len(), nth, round) {
                        let (why, cause) = CAUSES[n];
                        let (_, after) = refused(why, at, banned, caller);
                        samples
                            .lock()
                            .unwrap()
                            .entry(cause)
                            .or_default()
                            .push(after);
                    }
                }
            });
        }
    });
    let samples = samples.into_inner().unwrap();
    let mut samples: Vec<(&str, Vec<f64>)> = samples.into_iter().collect();
    for (cause, all) in &mut samples {
        assert!(all.len() >= each);
        eprintln!("{cause}: median {:.0} µs of {}", median(all), all.len());
    }
    let (t, a, b) = furthest(&samples);
    eprintln!("refusals at the doors: largest |t| {t:.2} ({a}, {b}); 4.5 is the most");
    (t > 4.5).then(|| format!("{a} and {b} are told apart: |t| {t:.2} of {each}"))
}
