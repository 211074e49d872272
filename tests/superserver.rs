//! Many daemons, one for each connection (`cosserver -i`), that know of each other what one daemon
//! would know of its connections: penalties, slots, logins.

use crate::daemon;
use crate::login;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use daemon::hostile::{Caller, RawConnection};
use daemon::inetd::superserver_by;
use daemon::{Daemon, children, needs_root, until};
use login::person::Person;
use login::{BOB_HANGS, Logins, Plan};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Opens a greeted connection from that source, which holds a slot.
fn held(d: &Daemon, from: &str) -> RawConnection {
    RawConnection::greeted(ip(from), d.port)
}

/// Sends garbage from there and is closed; waits until all daemons know that.
fn garbage(d: &Daemon, from: &str) {
    let before = d.log.count("closed peer=");
    RawConnection::from_address(ip(from), d.port).says_garbage();
    until("it is in the log", || d.log.count("closed peer=") > before);
}

/// Returns the daemons that exist now.
fn daemons(d: &Daemon) -> Vec<i32> {
    children(d.pid())
}

fn table(d: &Daemon) -> PathBuf {
    d.folder.path("S/run/inetd.table")
}

/// Checks that a source under penalty has one slot at a time, among all daemons.
fn has_one_slot(d: &Daemon, from: &str) {
    let mut first = held(d, from);
    let mut second = held(d, from);
    first.closed();
    assert!(second.is_open(), "never none");
}

#[test]
fn penalties_hold_across_daemons() {
    let settings =
        "penalties.noauth = 100\npenalties.min = 150\npenalties.exempt = [\"127.8.0.0/16\"]\n";
    let d = Daemon::inetd_as(settings);
    // 100 seconds are less than the 150 from which on it counts.
    garbage(&d, "127.7.7.7");
    let mut all = [held(&d, "127.7.7.7"), held(&d, "127.7.7.7")];
    assert!(all.iter_mut().all(RawConnection::is_open));
    // Leaving without a proof counts as well, once each.
    drop(all);
    until("both are gone", || d.log.count("cause=left") == 2);
    has_one_slot(&d, "127.7.7.7");
    d.log.wait("closed peer=127.7.7.7 cause=evicted");
    // Another source has its own slots, and a listed and an exempt one keep theirs.
    for from in ["127.7.7.8", "127.0.0.1", "127.8.1.1"] {
        if from != "127.7.7.8" {
            (0..4).for_each(|_| garbage(&d, from));
        }
        let mut all: Vec<RawConnection> = (0..4).map(|_| held(&d, from)).collect();
        assert!(all.iter_mut().all(RawConnection::is_open), "{from}");
    }
    d.says(0, &["true"]);
    let about = fs::metadata(table(&d)).unwrap();
    assert_eq!(about.mode() & 0o7777, 0o600);
    assert!(about.blocks() < 1024, "{} blocks", about.blocks());
    assert_eq!(d.log.count("no-table"), 0, "{}", d.log_text());
}

/// Also for what the gate closes without an answer, what the monitor denies, and what kills the
/// gate.
#[test]
fn every_kind_of_failure_costs_a_penalty() {
    let d = Daemon::inetd_as(
        "limits.hello = 2\ndaemon.refusal-interval = 1\npenalties.authfail = 100\n\
         penalties.grace-exceeded = 100\npenalties.noauth = 100\npenalties.min = 50\n",
    );
    let caller = Caller::of(&d);
    // Denied at an address that is not its own.
    let mut s = RawConnection::from_address(ip("127.7.7.7"), d.port);
    let greeting = s.greet();
    s.send(&caller.client_hello(&greeting, &caller.request("true")).0);
    s.denied();
    has_one_slot(&d, "127.7.7.7");
    // Silent beyond the deadline.
    RawConnection::from_address(ip("127.7.7.8"), d.port).closed();
    d.log.wait("peer=127.7.7.8 cause=no-hello");
    has_one_slot(&d, "127.7.7.8");
    // Gone without sending anything.
    drop(RawConnection::from_address(ip("127.7.7.9"), d.port));
    until("that is known", || {
        let mut first = held(&d, "127.7.7.9");
        let _second = held(&d, "127.7.7.9");
        !first.is_open()
    });
    // As if the connection had killed the gate.
    let mut s = held(&d, "127.7.7.10");
    let gates = daemons(&d).into_iter().flat_map(children);
    let gates: Vec<i32> = gates.filter(|pid| name(*pid) == "cos: gate").collect();
    for gate in gates {
        let _ = kill(Pid::from_raw(gate), Signal::SIGKILL);
    }
    s.closed();
    until("its daemon has ended", || daemons(&d).is_empty());
    has_one_slot(&d, "127.7.7.10");
    assert_eq!(d.log.count("exec session="), 0);
}

fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[test]
fn source_slots_are_limited_and_its_oldest_connection_is_evicted() {
    let d = Daemon::inetd_as("limits.silent-per-source = 3\n");
    let mut all: Vec<RawConnection> = (0..3).map(|_| held(&d, "127.7.7.7")).collect();
    let mut neighbour = held(&d, "127.7.7.8");
    let mut fourth = held(&d, "127.7.7.7");
    all.remove(0).closed();
    d.log.wait("closed peer=127.7.7.7 cause=evicted");
    assert!(all.iter_mut().all(RawConnection::is_open) && fourth.is_open() && neighbour.is_open());
}

#[test]
fn oldest_connection_of_the_largest_source_is_evicted_at_the_total_limit() {
    let d = Daemon::inetd_as("limits.silent = 6\nlimits.reserved = 1\n");
    let mut greedy: Vec<RawConnection> = (0..3).map(|_| held(&d, "127.7.7.7")).collect();
    let mut small: Vec<RawConnection> =
        (1..=2).map(|n| held(&d, &format!("127.1.0.{n}"))).collect();
    // One is reserved for sources that HOSTINFO lists: the sixth of the others is one too many.
    let mut next = held(&d, "127.1.0.9");
    greedy.remove(0).closed();
    assert!(
        greedy
            .iter_mut()
            .chain(&mut small)
            .all(RawConnection::is_open)
            && next.is_open()
    );
    let mut listed = held(&d, "127.0.0.1");
    assert!(
        greedy.iter_mut().all(RawConnection::is_open),
        "the reserved slot took it"
    );
    assert!(listed.is_open());
}

/// A killed daemon leaves no used slots behind, and a session does not count as unauthenticated.
#[test]
fn slots_of_dead_processes_and_sessions_are_freed() {
    let d =
        Daemon::inetd_as("limits.silent-per-source = 2\nlimits.silent = 4\nlimits.reserved = 1\n");
    let mut first = held(&d, "127.7.7.7");
    let before = daemons(&d);
    let mut second = held(&d, "127.7.7.7");
    let others: Vec<i32> = daemons(&d)
        .into_iter()
        .filter(|p| !before.contains(p))
        .collect();
    assert_eq!(others.len(), 1);
    kill(Pid::from_raw(others[0]), Signal::SIGKILL).unwrap();
    second.closed();
    let mut third = held(&d, "127.7.7.7");
    assert!(
        first.is_open() && third.is_open(),
        "the dead one's slot was free"
    );
    let caller = Caller::of(&d);
    let mut sessions: Vec<_> = (0..5)
        .map(|_| caller.accepted(d.port, "echo on; cat"))
        .collect();
    for session in &mut sessions {
        session.until(b"on\n");
    }
    assert!(
        first.is_open() && third.is_open(),
        "sessions are no strangers"
    );
    assert_eq!(d.log.count("cause=evicted"), 0, "{}", d.log_text());
}

/// Penalties end by the machine's uptime, including sleep: the clock of another time namespace is
/// ahead here.
#[test]
fn a_penalty_ends_with_the_machines_own_time() {
    let later = ["-T", "--boottime", "1000"];
    let can = Command::new("unshare").args(later).arg("true").output();
    if !can.is_ok_and(|out| out.status.success()) {
        eprintln!("no namespace of time can be made here: skipped");
        return;
    }
    let settings = "penalties.noauth = 100\npenalties.min = 50\n";
    let mut d = Daemon::inetd_as(settings);
    garbage(&d, "127.7.7.7");
    has_one_slot(&d, "127.7.7.7");
    until("all have ended", || daemons(&d).is_empty());
    let folder = std::mem::take(&mut d.folder);
    drop(d);
    let mut d = Daemon::inetd_in(folder, &[]);
    has_one_slot(&d, "127.7.7.7");
    until("all have ended", || daemons(&d).is_empty());
    let folder = std::mem::take(&mut d.folder);
    drop(d);
    let d = Daemon::start_by(superserver_by("unshare", &later), folder, &[]);
    let mut both = [held(&d, "127.7.7.7"), held(&d, "127.7.7.7")];
    assert!(both.iter_mut().all(RawConnection::is_open), "it never ends");
}

/// An invalid table is moved aside, and nothing that it refers to is touched; if none can be
/// created the connection is served, and the log says so.
#[test]
fn invalid_penalty_table_is_rejected() {
    let d = Daemon::inetd_as("penalties.noauth = 100\npenalties.min = 50\n");
    garbage(&d, "127.7.7.7");
    let (table, victim) = (table(&d), d.folder.path("victim"));
    fs::write(&victim, "as it was").unwrap();
    let both_are_held = |what: &str| {
        let mut both = [held(&d, "127.7.7.7"), held(&d, "127.7.7.7")];
        assert!(both.iter_mut().all(RawConnection::is_open), "{what}");
        // Costs a penalty that is then forgotten with the table.
        drop(both);
        until("both have ended", || daemons(&d).is_empty());
    };
    let length = fs::metadata(&table).unwrap().len();
    fs::write(&table, vec![0xff; usize::try_from(length).unwrap()]).unwrap();
    both_are_held("damaged");
    fs::write(&table, "short").unwrap();
    both_are_held("short");
    fs::remove_file(&table).unwrap();
    symlink(&victim, &table).unwrap();
    both_are_held("a link");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
    assert!(fs::symlink_metadata(&table).unwrap().is_file());
    if daemon::is_root() {
        std::os::unix::fs::chown(&table, Some(65534), None).unwrap();
        both_are_held("another's");
        assert_eq!(fs::metadata(&table).unwrap().uid(), 0);
    }
    assert_eq!(d.log.count("no-table"), 0, "{}", d.log_text());
    fs::remove_file(&table).unwrap();
    fs::create_dir(&table).unwrap();
    both_are_held("a folder");
    d.says(0, &["true"]);
    until("each has said so", || d.log.count("no-table") == 3);
}

/// A host that HOSTINFO has only by name: each daemon must resolve it first, and gets a request
/// before it has.
#[test]
fn a_host_by_its_name_is_served() {
    let folder = daemon::configured("", "");
    let (server, client) = (folder.path("S"), folder.path("L"));
    let adm = |dir: &std::path::Path, words: &[&str]| {
        let mut command = Command::new(daemon::COSADM);
        daemon::must(command.arg("-C").arg(dir).args(words))
    };
    let card = adm(
        &server,
        &["host", "invite", "localhost", "--run-as", &daemon::me()],
    );
    let file = folder.path("second-card");
    fs::write(&file, card).unwrap();
    adm(&client, &["init"]);
    adm(
        &client,
        &[
            "host",
            "join",
            &file.display().to_string(),
            "--name",
            "hostb",
        ],
    );
    // Only by its name: no host has its address listed.
    let hostinfo = server.join("hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    let line = text.lines().find(|l| l.starts_with("localhost ")).unwrap();
    assert!(!line.contains("addr="), "{line}");
    fs::write(&hostinfo, format!("{line}\n")).unwrap();
    let d = Daemon::inetd_in(folder, &[]);
    let mut caller = Caller::in_folder(&client);
    caller.name = "localhost".into();
    for _ in 0..20 {
        assert_eq!(caller.accepted(d.port, "echo in").finish().0, b"in\n");
    }
}

// ---- logins ----

fn logins(plan: &Plan) -> Logins {
    Logins {
        d: Daemon::inetd_in(plan.folder(), &["-d"]),
    }
}

/// Returns the login workers of all daemons.
fn workers(l: &Logins) -> Vec<i32> {
    let all = daemons(&l.d).into_iter().flat_map(children);
    all.filter(|pid| name(*pid) == "cos: login").collect()
}

#[test]
fn a_login_by_inetd() {
    if !needs_root() {
        return;
    }
    let l = logins(&Plan::default());
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    l.all_closed(1);
    l.refused("alice", "wrong\n", &["hello"]);
    until("all have ended", || daemons(&l.d).is_empty());
}

#[test]
fn pam_slots_are_limited_across_daemons() {
    if !needs_root() {
        return;
    }
    // Bob's logins hang: one source may have all PAM slots but one.
    let l = logins(&Plan {
        settings: "[login]\nchecks = 3\ncheck = 60\n",
        ..Plan::around(BOB_HANGS, "")
    });
    let hanging: Vec<_> = (0..5)
        .map(|_| login::look_inner(&mut l.gui("bob", "secret\n", &[], &["hello"])))
        .collect();
    until("all wait", || l.d.log.count("user=bob") == 5);
    until("two are checked", || workers(&l).len() == 2);
    // Another source gets a PAM slot all the same, and so is served, while theirs do not change.
    let before = workers(&l);
    let mut alice = Person::new(&l.d, "alice", "hello");
    alice.from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let said = alice.ask().answer(&["secret"]);
    assert!(matches!(said, login::person::Said::Accepted(_)));
    until("its worker has ended", || workers(&l) == before);
    // Its monitor dies, and another login has the PAM slot.
    let victim = daemons(&l.d)
        .into_iter()
        .find(|pid| children(*pid).contains(&before[0]));
    kill(Pid::from_raw(victim.unwrap()), Signal::SIGKILL).unwrap();
    until("another is checked", || {
        let now = workers(&l);
        now.len() == 2 && !now.contains(&before[0])
    });
    drop(hanging);
}

#[test]
fn pending_logins_are_limited_across_daemons() {
    if !needs_root() {
        return;
    }
    let l = logins(&Plan {
        settings: "[login]\nwaiting = 3\n[daemon]\nrefusal-interval = 1\n",
        ..Plan::default()
    });
    let alice = Person::new(&l.d, "alice", "hello");
    let mut asked: Vec<_> = (0..3).map(|_| alice.ask()).collect();
    assert!(
        workers(&l).len() == 3,
        "each waits for an answer, which takes no turn"
    );
    let ended = l.alice(&["hello"]);
    assert_eq!(ended.status, Some(255), "{ended:?}");
    let line = l.d.log.wait("too many logins in progress");
    assert!(line.contains(&login::reference(&ended.err[0])), "{line}");
    drop(asked.pop());
    until("there is room", || l.alice(&["hello"]).status == Some(0));
    // A client from elsewhere gets the slot of one that only waits at the prompt.
    asked.push(alice.ask());
    let mut other = alice.clone();
    other.from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let others = other.ask();
    l.d.log
        .wait("its login was the oldest, and was ended for another's");
    drop((others, asked.pop()));
    // The slot of a killed daemon is free, too.
    let victim = daemons(&l.d).into_iter().find(|pid| {
        children(*pid)
            .iter()
            .any(|child| name(*child) == "cos: login")
    });
    asked.push(alice.ask());
    kill(Pid::from_raw(victim.unwrap()), Signal::SIGKILL).unwrap();
    until("there is room", || l.alice(&["hello"]).status == Some(0));
    assert_eq!(asked.len(), 3);
}
