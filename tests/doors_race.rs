//! A race for a one-time password: it registers exactly one machine, under the name that the
//! manager chose.

use crate::daemon;
use crate::door;

use std::sync::{Barrier, Mutex};

use cosserver::protocol::prompt::Asks;
use cosserver::registry::{Doors, Inner, Level, Outer};

use daemon::{Daemon, Folder, long, prepare};
use door::{At, Machine, Manager, Outcome, QUICK, name, shared_door};

/// Number of competing machines.
const RACERS: usize = 64;

/// Runs one race: each machine is prompted for a password, then all type it at once. Returns the
/// machines that were registered.
fn race(at: &[At], password: &str) -> Vec<Machine> {
    let start = Barrier::new(RACERS);
    let won = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 0..RACERS {
            let (at, start, won) = (&at[n % at.len()], &start, &won);
            scope.spawn(move || {
                let machine = Machine::new();
                let talk = machine.is_asked(at, Asks::Activation);
                start.wait();
                match talk.types(password) {
                    Outcome::In(_) => won.lock().unwrap().push(machine),
                    Outcome::Denied(_) => {}
                    other => panic!("neither in nor denied: {other:?}"),
                }
            });
        }
    });
    won.into_inner().unwrap()
}

/// Runs this many rounds, alternately with chosen and generated passwords.
fn rounds(at: &[At], inner: &mut Inner, count: usize) {
    // A password for another name keeps the inner door prompting after the others are used up.
    inner.add_generated(&name("nobody")).unwrap();
    for round in 0..count {
        let called = name(&format!("PC {round}"));
        let password = if round % 2 == 0 {
            inner.add_generated(&called).unwrap().shown().to_string()
        } else {
            let chosen = format!("the password of round {round}");
            inner.add_chosen(&called, chosen.as_bytes()).unwrap();
            chosen
        };
        let won = race(at, &password);
        let ids: Vec<_> = won.iter().map(Machine::id).collect();
        assert_eq!(ids.len(), 1, "round {round}: {ids:?} have won");
        let all = inner.machines().unwrap();
        let new: Vec<_> = all.iter().filter(|m| m.name == called).collect();
        assert_eq!(new.len(), 1, "round {round}: {new:?}");
        assert_eq!(new[0].id, ids[0], "round {round}");
        assert_eq!(all.len(), round + 1, "round {round}: more are registered");
        let left = inner.passwords().unwrap();
        let left: Vec<_> = left.iter().map(|p| &p.name).collect();
        assert_eq!(left, ["nobody"], "round {round}");
        won[0].is_known(&at[round % at.len()]);
    }
}

#[test]
fn one_of_many_gets_a_one_time_password() {
    cosserver::sys::process::raise_descriptors(u64::MAX);
    let d = Daemon::start_with(QUICK, "");
    let mut manager = Manager::at(&d, Level::Open);
    let count = if long() { 1_000 } else { 6 };
    rounds(&[At::of(&d)], &mut manager.inner, count);
    d.log.wait("cause=activation");
}

#[test]
fn one_of_many_gets_a_one_time_password_at_two_hosts_with_a_shared_inner_door() {
    cosserver::sys::process::raise_descriptors(u64::MAX);
    let folder = Folder::new();
    let shared = shared_door(&folder);
    let start = || {
        let own = prepare(QUICK, "");
        let paths = cosserver::config::paths::Paths::of_dir(&own.path("S"));
        Doors::make(&paths).unwrap();
        let mut outer = Outer::open(&paths).unwrap();
        outer.set_folder(Some(&shared)).unwrap();
        outer.set_level(Level::Open).unwrap();
        Daemon::start_in(own, &[])
    };
    let (one, two) = (start(), start());
    let mut inner = Inner::open(&shared.join("idfile")).unwrap();
    let count = if long() { 1_000 } else { 6 };
    rounds(&[At::of(&one), At::of(&two)], &mut inner, count);
}
