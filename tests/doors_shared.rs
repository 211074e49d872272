//! Four hosts with one shared inner door, each with its own outer door: a change at one of them
//! applies, at all four, to the next connection.

use crate::daemon;
use crate::door;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cosserver::config::paths::Paths;
use cosserver::protocol::prompt::Asks;
use cosserver::registry::inner::Setting;
use cosserver::registry::{Doors, Inner, Level, List, Outer};

use daemon::{Daemon, Folder, long, prepare};
use door::{At, Machine, Manager, Outcome, QUICK, name, shared_door};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Four daemons, and the directory of their inner door.
struct Hosts {
    all: Vec<Daemon>,
    at: Vec<At>,
    inner: Inner,
    _folder: Folder,
}

impl Hosts {
    fn start() -> Self {
        let folder = Folder::new();
        let shared = shared_door(&folder);
        let start = |_| {
            let own = prepare(QUICK, "");
            let paths = Paths::of_dir(&own.path("S"));
            Doors::make(&paths).unwrap();
            let mut outer = Outer::open(&paths).unwrap();
            outer.set_folder(Some(&shared)).unwrap();
            outer.set_level(Level::Open).unwrap();
            Daemon::start_in(own, &[])
        };
        let all: Vec<Daemon> = (0..4).map(start).collect();
        Self {
            at: all.iter().map(At::of).collect(),
            all,
            inner: Inner::open(&shared.join("idfile")).unwrap(),
            _folder: folder,
        }
    }

    /// Returns the manager of one of the hosts.
    fn manager(&self, which: usize) -> Manager {
        Manager::of(&self.all[which])
    }

    /// Checks that each host denies it, for this cause.
    fn refuse(&self, machine: &Machine, cause: &str) {
        for n in 0..4 {
            self.refused_by(n, machine, cause);
        }
    }

    fn refused_by(&self, n: usize, machine: &Machine, cause: &str) {
        // From a new address each time, because a source with many denials gets few slots.
        let mut machine = machine.clone();
        machine.from = door::fresh_address();
        let reference = machine.is_refused(&self.at[n]);
        let line = self.all[n].log.wait(&format!("ref={reference}"));
        assert!(line.contains(&format!("cause={cause} ")), "{line}");
    }

    fn know(&self, machine: &Machine) {
        for at in &self.at {
            machine.is_known(at);
        }
    }
}

#[test]
fn registration_at_one_host_is_known_to_all() {
    let mut hosts = Hosts::start();
    // Registered at one host, in each of the ways.
    let (by_name, by_password) = (Machine::new(), Machine::new());
    hosts.refuse(&by_name, "unknown-machine");
    let build = |hosts: &mut Hosts, on| hosts.inner.set(&[Setting::BuildMode(on)]).unwrap();
    build(&mut hosts, true);
    let outcome = by_name.is_asked(&hosts.at[0], Asks::Name).types("PC 17");
    assert!(matches!(outcome, Outcome::In(_)), "{outcome:?}");
    build(&mut hosts, false);
    hosts.know(&by_name);
    let made = hosts.inner.add_generated(&name("PC 18")).unwrap().shown();
    let talk = by_password.is_asked(&hosts.at[1], Asks::Activation);
    // A machine at another host was prompted for the same password.
    let late = Machine::new().is_asked(&hosts.at[2], Asks::Activation);
    let outcome = talk.types(&made);
    assert!(matches!(outcome, Outcome::In(_)), "{outcome:?}");
    let outcome = late.types(&made);
    assert!(matches!(outcome, Outcome::Denied(_)), "{outcome:?}");
    hosts.know(&by_password);

    // One host closes its outer door, with those two on the list; the others allow a third, which
    // it denies.
    assert_eq!(hosts.manager(3).close(), 2);
    let third = Machine::new();
    hosts.inner.add(&third.id(), &name("third"), true).unwrap();
    for at in &hosts.at[..3] {
        third.is_known(at);
    }
    hosts.refused_by(3, &third, "unknown-machine");
    hosts.know(&by_name);

    // One host excludes a machine; the others do not.
    let excluded = &mut hosts.manager(2).outer;
    excluded.put(List::Exclude, &by_name.id(), "PC 17").unwrap();
    hosts.refused_by(2, &by_name, "excluded");
    by_name.is_known(&hosts.at[0]);

    // Deleted at one host, it is unknown at all, including the closed one.
    assert!(hosts.manager(1).inner.delete(&by_password.id()).unwrap());
    hosts.refuse(&by_password, "unknown-machine");
    let left = hosts.manager(0).machines();
    let mut left: Vec<_> = left.iter().map(|m| m.name.as_str()).collect();
    // They are ordered by their IDs.
    left.sort_unstable();
    assert_eq!(left, ["PC 17", "third"]);
}

/// The worker reads the shared folder when a client greets, for the machine that came last from its
/// address, and the monitor keeps the answer for the ClientHello.
#[test]
fn the_folder_is_read_while_a_client_computes() {
    let mut hosts = Hosts::start();
    let machine = Machine::new();
    hosts.inner.add(&machine.id(), &name("PC"), true).unwrap();
    let (at, d) = (hosts.at[0].clone(), &hosts.all[0]);
    machine.is_known(&at);
    // A client that is slower than an answer is kept is asked about again: try again then.
    let was_ahead = (0..5).any(|_| {
        machine.is_known(&at);
        let worker = Pid::from_raw(d.process("registry"));
        let waits = || daemon::session::status_number(worker.as_raw(), "voluntary_ctxt_switches");
        let before = waits();
        let outcome = machine.calls_after(&at, || {
            daemon::until("the worker has looked", || waits() > before);
            kill(worker, Signal::SIGSTOP).unwrap();
        });
        let _ = kill(worker, Signal::SIGCONT);
        matches!(outcome, Outcome::In(_))
    });
    assert!(was_ahead, "no answer was used that was asked ahead");
}

/// All four allow every authorized machine, whatever the manager changes for other machines; an
/// unauthorized one is never allowed.
#[test]
fn all_hosts_serve_during_administration() {
    let mut hosts = Hosts::start();
    let (friend, unknown_machine) = (Machine::new(), Machine::new());
    hosts
        .inner
        .add(&friend.id(), &name("friend"), true)
        .unwrap();
    let changes = if long() { 2_000 } else { 120 };
    let (done, served, denied) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let managers: Vec<Manager> = (0..4).map(|n| hosts.manager(n)).collect();
    std::thread::scope(|scope| {
        for at in &hosts.at {
            scope.spawn(|| {
                let mut friend = friend.clone();
                while !done.load(Ordering::Relaxed) {
                    friend.from = door::fresh_address();
                    friend.is_known(at);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                let mut unknown_machine = unknown_machine.clone();
                while !done.load(Ordering::Relaxed) {
                    unknown_machine.from = door::fresh_address();
                    match unknown_machine.calls(at) {
                        Outcome::Denied(_) => {}
                        // A password was pending at that moment.
                        Outcome::Asked(talk) => {
                            let outcome = talk.types("wrong");
                            assert!(matches!(outcome, Outcome::Denied(_)), "{outcome:?}");
                        }
                        other => panic!("a stranger is let in: {other:?}"),
                    }
                    denied.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let workers: Vec<_> = managers
            .into_iter()
            .enumerate()
            .map(|(n, mut m)| {
                scope.spawn(move || {
                    for change in 0..changes {
                        let id = Machine::new().id();
                        let called = name(&format!("{n} {change}"));
                        m.inner.add(&id, &called, true).unwrap();
                        m.outer.put(List::Exclude, &id, "").unwrap();
                        m.inner.add_generated(&called).unwrap();
                        assert!(m.inner.delete_password(called.as_str()).unwrap());
                        if change % 2 == 0 {
                            assert!(m.inner.delete(&id).unwrap());
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a manager's change failed");
    });
    assert_eq!(hosts.inner.count().unwrap(), 1 + 4 * changes / 2);
    assert_eq!(hosts.inner.wrong_lines(), Ok(Vec::new()));
    assert!(served.into_inner() >= 4 && denied.into_inner() >= 4);
    for d in &hosts.all {
        assert_eq!(d.log.count("cause=registry"), 0, "{}", d.log_text());
    }
}
