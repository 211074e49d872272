//! Logins where inetd starts a daemon for each connection.

use nix::sys::signal::Signal;

use crate::daemon::inetd::superserver;
use crate::daemon::session::{Session, ends, lives};
use crate::daemon::{Daemon, children, needs_root, until};
use crate::login::person::{Person, Said};
use crate::login::{Logins, Plan, WRONG};

const SETTINGS: &str = "[exec]\nhup-to-kill = 1\n[daemon]\nrefusal-interval = 1\n";

const APPLICATIONS: &str = "
[gui.hello]
command = [\"/bin/echo\", \"hello\"]
users = [\"*\", \"root\"]
[gui.display]
command = [\"/bin/sh\", \"-c\", \"echo $GUI_HOST $GUI_PORT; cat; exit 7\"]
users = [\"*\", \"root\"]
[gui.stay]
command = [\"/bin/sh\", \"-c\", \"echo $$; exec sleep 600\"]
users = [\"*\", \"root\"]
[gui.alone]
command = [\"/bin/sh\", \"-c\", \"echo $$ >new; mv new pid; exec sleep 600\"]
users = [\"*\", \"root\"]
";

fn start() -> Logins {
    let plan = Plan {
        settings: SETTINGS,
        applications: APPLICATIONS,
        ..Plan::default()
    };
    Logins {
        d: Daemon::start_by(superserver(), plan.folder(), &[]),
    }
}

/// Checks that no daemon is left of those that were started for a connection.
fn nothing_is_left(l: &Logins) {
    until("the daemons have ended", || children(l.d.pid()).is_empty());
}

fn runs(l: &Logins) -> (Session, i32) {
    let mut session = Session::spawn(&mut l.gui("alice", "secret\n", &[], &["stay"]));
    let (_, line) = session.out.wait_from(0, |_| true);
    drop(session.stdin.take());
    (session, line.parse().unwrap())
}

/// Returns the login worker among the processes of the daemon that was started last.
fn worker(l: &Logins) -> i32 {
    let of_daemons = children(l.d.pid()).into_iter().flat_map(children);
    let is_worker = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"cosserver: login")
    };
    let mut all = of_daemons.filter(is_worker);
    all.next().expect("no login worker")
}

#[test]
fn right_password_is_accepted_and_a_wrong_one_denied() {
    if !needs_root() {
        return;
    }
    let l = start();
    let ended = l.ended(&mut l.gui("alice", "secret\n", &["--display", ":9103"], &["display"]));
    assert_eq!((ended.status, &*ended.out[0]), (Some(7), "127.0.0.1 9103"));
    l.all_closed(1);
    let line = l.refused("alice", &format!("{WRONG}\n"), &["hello"]);
    assert!(line.contains("Authentication failure"), "{line}");
    let line = l.refused("alice", "secret\n", &["nothing"]);
    assert!(line.contains("there is no [gui.nothing]"), "{line}");
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    nothing_is_left(&l);
    l.all_closed(2);
}

#[test]
fn whatever_is_killed_the_session_is_closed() {
    if !needs_root() {
        return;
    }
    for what in ["client", "application", "worker", "daemon"] {
        let l = start();
        let (session, pid) = runs(&l);
        let victim = match what {
            "application" => pid,
            "worker" => worker(&l),
            "daemon" => children(l.d.pid())[0],
            _ => 0,
        };
        if victim == 0 {
            session.signal(Signal::SIGKILL);
        } else {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        }
        assert!(ends(pid), "{what}: it goes on");
        l.all_closed(1);
        drop(session);
        nothing_is_left(&l);
    }
}

#[test]
fn what_is_left_running_outlives_its_daemon() {
    if !needs_root() {
        return;
    }
    let l = start();
    let ended = l.ended(&mut l.gui("alice", "secret\n", &["--detach"], &["alone"]));
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let file = l.d.folder.path("home/alice/pid");
    let mut pid = None;
    until("it runs", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        pid = text.trim().parse().ok();
        pid.is_some()
    });
    let pid: i32 = pid.unwrap();
    nothing_is_left(&l);
    assert!(lives(pid));
    assert_eq!((l.noted("opened"), l.noted("closed")), (1, 0));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    l.all_closed(1);
}

/// Regression: a guess whose client did not wait for the answer was over at once, and so was the
/// next one.
#[test]
fn not_waiting_for_the_denial_does_not_speed_up_guessing_across_daemons() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: "[login]\nwaiting = 5\n[daemon]\nrefusal-interval = 60\n",
        ..Plan::default()
    };
    let l = Logins {
        d: Daemon::start_by(superserver(), plan.folder(), &[]),
    };
    let mut guesser = Person::new(&l.d, "bob", "hello");
    guesser.from = "127.0.0.2".parse().unwrap();
    let failures = || l.d.log.count("PAM: Authentication failure");
    let mut all = Vec::new();
    for n in 0..3 {
        let mut talk = guesser.ask();
        talk.send(&[WRONG]);
        all.push(talk);
        until("it has been checked", || failures() > n);
    }
    // Further guesses wait for a PAM slot now, and do not delay other clients.
    let waiting: Vec<_> = (0..2).map(|_| guesser.ask_only()).collect();
    until("both wait", || children(l.d.pid()).len() == 5);
    let mut alice = Person::new(&l.d, "alice", "hello");
    for _ in 0..2 {
        let said = alice.ask().answer(&["secret"]);
        assert!(matches!(said, Said::Accepted(_)));
        alice.from = "127.0.0.3".parse().unwrap();
    }
    assert_eq!(failures(), 3, "{}", l.log_text());
    drop((all, waiting));
}

/// Regression: the slot was free again as soon as PAM had decided, as with one daemon.
#[test]
fn login_slot_release_does_not_reveal_pam_time_across_daemons() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: "[login]\nwaiting = 2\n[daemon]\nrefusal-interval = 60\n",
        ..Plan::default()
    };
    let l = Logins {
        d: Daemon::start_by(superserver(), plan.folder(), &[]),
    };
    let bob = Person::new(&l.d, "bob", "hello");
    let mut unknown = bob.clone();
    unknown.user = "nobody-here".into();
    let held = bob.ask();
    let mut guess = unknown.ask();
    guess.send(&[WRONG]);
    l.d.log.wait("nobody-here asks for hello: PAM: ");
    let late = bob.ask_only();
    l.d.log
        .wait("bob asks for hello: too many logins in progress");
    // A client from elsewhere gets a slot all the same.
    let mut alice = Person::new(&l.d, "alice", "hello");
    alice.from = "127.0.0.2".parse().unwrap();
    let said = alice.ask().answer(&["secret"]);
    assert!(matches!(said, Said::Accepted(_)));
    drop((held, guess, late));
}
