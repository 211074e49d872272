//! What the time of an answer reveals, and which login waits for which, with passwords hashed as on
//! Debian.

use crate::daemon;
use crate::login;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use daemon::needs_root;
use daemon::stats::{furthest, median, order, welch};
use login::person::{Person, Said};
use login::{DEBIANS, Logins, PASSWORD, Plan, WRONG};

/// Prints a figure where it is visible, also when the test passes.
macro_rules! say {
    ($($words:tt)*) => { writeln!(std::io::stderr(), $($words)*).unwrap() };
}

/// One test at a time: each needs the machine for itself.
static ALONE: Mutex<()> = Mutex::new(());

/// The causes of denials: a name, the user, the requested application, and the answer.
const CAUSES: [(&str, &str, &str, &str); 5] = [
    ("wrong password", "alice", "hello", WRONG),
    ("unknown user", "nobodyhere", "hello", PASSWORD),
    ("locked account", "locked", "hello", PASSWORD),
    ("expired account", "expired", "hello", PASSWORD),
    ("no such application", "alice", "nothing", PASSWORD),
];

/// Number of simultaneous logins.
const LOGINS: usize = 32;

#[test]
fn welch_distinguishes_two_samples() {
    let near: Vec<f64> = (0..100).map(|n| f64::from(n % 10)).collect();
    let far: Vec<f64> = near.iter().map(|v| v + 3.0).collect();
    assert!(welch(&near, &near).abs() < 1e-9);
    assert!(welch(&near, &far) < -4.5);
}

fn with_debians_passwords() -> Logins {
    let plan = Plan {
        settings: "[daemon]\nrefusal-interval = 1\n",
        hash: DEBIANS,
        ..Plan::default()
    };
    plan.start()
}

#[test]
fn refusal_time_does_not_reveal_its_cause() {
    if !needs_root() {
        return;
    }
    let _alone = ALONE.lock();
    let l = with_debians_passwords();
    let each: usize = if daemon::long() { 1000 } else { 384 };
    let rounds = each.div_ceil(LOGINS);
    let samples: Mutex<BTreeMap<&str, Vec<f64>>> = Mutex::default();
    std::thread::scope(|threads| {
        for nth in 0..LOGINS {
            let (l, samples) = (&l, &samples);
            let own = u8::try_from(nth + 1).unwrap();
            threads.spawn(move || {
                for round in 0..rounds {
                    for n in order(CAUSES.len(), nth, round) {
                        let (name, user, application, answer) = CAUSES[n];
                        let mut person = Person::new(&l.d, user, application);
                        // Wrong guesses of one source wait for each other.
                        person.from = std::net::Ipv4Addr::new(127, 1, 0, own).into();
                        let (shape, after) = person.refused(answer);
                        assert_eq!((shape.len(), shape[1]), (2, (15, 5)));
                        let mut samples = samples.lock().unwrap();
                        samples
                            .entry(name)
                            .or_default()
                            .push(after.as_secs_f64() * 1e6);
                    }
                }
            });
        }
    });
    let samples = samples.into_inner().unwrap();
    let mut samples: Vec<(&str, Vec<f64>)> = samples.into_iter().collect();
    for (name, all) in &mut samples {
        assert!(all.len() >= each);
        say!("{name}: median {:.0} µs of {}", median(all), all.len());
    }
    let (t, a, b) = furthest(&samples);
    say!("five causes of refusals: largest |t| {t:.2} ({a}, {b}); 4.5 is the most");
    assert!(t <= 4.5, "{a} and {b} are told apart: |t| {t:.2}");
}

/// Returns how long the real client takes for a successful login, in milliseconds.
fn right(l: &Logins) -> f64 {
    let begun = Instant::now();
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    begun.elapsed().as_secs_f64() * 1e3
}

#[test]
fn a_right_login_is_served_while_32_wrong_ones_are_refused() {
    if !needs_root() {
        return;
    }
    let _alone = ALONE.lock();
    let l = with_debians_passwords();
    let rounds = if daemon::long() { 25 } else { 3 };
    // Other load on the machine makes it slower, never faster: measure up to three times before
    // failing.
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut quiet: Vec<f64> = (0..rounds).map(|_| right(&l)).collect();
        let mut busy: Vec<f64> = (0..rounds).map(|_| among_wrong_ones(&l)).collect();
        let (quiet, busy) = (median(&mut quiet), median(&mut busy));
        say!("a right login: quiet {quiet:.0} ms, with 32 wrong ones at once {busy:.0} ms");
        if busy <= 3.0 * quiet {
            return;
        }
        seen.push((quiet, busy));
    }
    panic!("more than 3 times the quiet time: {seen:?}");
}

/// The same while 32 wrong ones, from another address, are checked and denied.
fn among_wrong_ones(l: &Logins) -> f64 {
    let start = Barrier::new(33);
    let line = l.d.log.all().len();
    std::thread::scope(|threads| {
        let guesses = |_| {
            let mut person = Person::new(&l.d, "alice", "hello");
            person.from = "127.0.0.2".parse().unwrap();
            let start = &start;
            threads.spawn(move || {
                let talk = person.ask();
                start.wait();
                match talk.answer(&[WRONG]) {
                    Said::Denied(shape, after) => (shape, after),
                    Said::Prompts(_) | Said::Accepted(_) => panic!("not refused"),
                }
            })
        };
        let guessers: Vec<_> = (0..32).map(guesses).collect();
        start.wait();
        let took = right(l);
        for guesser in guessers {
            let (shape, after) = guesser.join().unwrap();
            assert_eq!(shape[1], (15, 5));
            assert!(
                after > Duration::from_millis(980),
                "it came after {after:?}"
            );
        }
        // However slow the machine is, it did not wait for all of them.
        let (at, _) = l.d.log.wait_from(line, |l| l.starts_with("login session="));
        let log = l.d.log.all();
        let before = log[line..at]
            .iter()
            .filter(|l| l.starts_with("denied "))
            .count();
        assert!(before <= 20, "{before} of 32 went before it");
        took
    })
}
