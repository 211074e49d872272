//! The time of a refusal does not tell an absent named service from a forbidden one.

use crate::daemon;
use crate::door;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use cosserver::protocol::request::{Command, Offer, Request, Service};

use daemon::hostile::{Caller, RawConnection};
use daemon::stats::{furthest, median, order};
use daemon::{Daemon, append, long, me, prepare};

/// Connections at the same time; each is refused once a second.
const CONNECTIONS: usize = 48;

/// Services that the caller may not use: there is none of that name, a rule denies it, no rule
/// allows it.
const SERVICES: [&str; 3] = ["absent", "denied", "others"];

/// Is refused that service, and returns the reference and the time from the request to the end, µs.
fn refused(name: &str, port: u16, caller: &Caller) -> (String, f64) {
    let request = Request {
        service: Service::Named(Offer::default()),
        user: me(),
        caller_user: "tester".parse().unwrap(),
        command: Command::Words(vec![name.into()]),
        environment: Vec::new(),
        linger: None,
    };
    let mut s = RawConnection::connect(port);
    let greeting = s.greet();
    let (record, _) = caller.client_hello(&greeting, &request.encode().unwrap());
    s.send(&record);
    let begun = Instant::now();
    let reference = s.denied();
    (reference, begun.elapsed().as_secs_f64() * 1e6)
}

#[test]
fn refusal_time_does_not_tell_absent_services_from_forbidden_ones() {
    let folder = prepare(door::QUICK, "");
    let service = |name: &str, rules: &str| {
        format!("[service.{name}]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n{rules}\n")
    };
    let host = "allow = [ { host = \"hosta\" } ]";
    let denied = format!("{host}\ndeny = [ {{ address = \"127.0.0.0/8\" }} ]");
    let others = host.replace("hosta", "hostc");
    let services = [service("denied", &denied), service("others", &others)];
    append(&folder.path("S/cosserver.toml"), &services.concat());
    let d = Daemon::start_in(folder, &[]);
    let caller = Caller::of(&d);
    for name in SERVICES {
        let line = d.log.wait(&refused(name, d.port, &caller).0);
        assert!(line.contains("cause=service "), "{line}");
    }
    // Other load can separate two of them by chance; a real difference shows more clearly with more
    // samples.
    let looks: &[usize] = if long() { &[10_000] } else { &[192, 768] };
    let mut last = String::new();
    for each in looks {
        let (t, a, b) = compare(*each, d.port, &caller);
        eprintln!("named services: largest |t| {t:.2} ({a}, {b}); 4.5 is the most");
        if t <= 4.5 {
            return;
        }
        last = format!("{a} and {b} are told apart: |t| {t:.2} of {each}");
    }
    panic!("{last}");
}

/// Is refused each service this often. Returns the largest |t| of two of them.
fn compare(each: usize, port: u16, caller: &Caller) -> (f64, &'static str, &'static str) {
    let samples: Mutex<BTreeMap<&'static str, Vec<f64>>> = Mutex::default();
    std::thread::scope(|threads| {
        for nth in 0..CONNECTIONS {
            let samples = &samples;
            threads.spawn(move || {
                for round in 0..usize::div_ceil(each, CONNECTIONS) {
                    for n in order(SERVICES.len(), nth, round) {
                        let (_, after) = refused(SERVICES[n], port, caller);
                        let mut samples = samples.lock().unwrap();
                        samples.entry(SERVICES[n]).or_default().push(after);
                    }
                }
            });
        }
    });
    let samples: Vec<_> = samples.into_inner().unwrap().into_iter().collect();
    for (name, all) in &samples {
        assert!(all.len() >= each);
        eprintln!(
            "{name}: median {:.0} µs of {}",
            median(&mut all.clone()),
            all.len()
        );
    }
    let (t, a, b) = furthest(&samples);
    let named = |name: &str| SERVICES.into_iter().find(|s| *s == name).unwrap();
    (t, named(a), named(b))
}
