//! However a login ends, PAM's session and credentials are closed, exactly once.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::session::{Session, ends, lives};
use crate::daemon::{needs_root, until};
use crate::login::{Logins, Plan, STACK, look_inner};

/// Starts Alice's application; returns it with its process ID.
fn runs(l: &Logins) -> (Session, i32) {
    let mut session = Session::spawn(&mut l.gui("alice", "secret\n", &[], &["stay"]));
    let (_, line) = session.out.wait_from(0, |_| true);
    drop(session.stdin.take());
    assert_eq!((l.noted("opened"), l.noted("closed")), (1, 0));
    (session, line.parse().unwrap())
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Kills it.
fn sigkill(pid: i32) {
    signal(pid, Signal::SIGKILL);
}

#[test]
fn the_application_is_killed() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let (session, pid) = runs(&l);
    sigkill(pid);
    assert_eq!(session.finish().status, Some(128 + 9));
    l.all_closed(1);
}

#[test]
fn the_client_vanishes() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let (session, pid) = runs(&l);
    session.signal(Signal::SIGKILL);
    assert!(ends(pid), "it was not hung up");
    l.all_closed(1);
}

#[test]
fn the_gate_is_killed_and_the_application_stays() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let (session, pid) = runs(&l);
    sigkill(l.d.process("gate"));
    l.d.log.wait("process=gate");
    assert!(lives(pid));
    assert_eq!(l.noted("closed"), 0, "{:?}", l.notes());
    signal(pid, Signal::SIGTERM);
    assert_eq!(session.finish().status, Some(128 + 15));
    l.all_closed(1);
}

#[test]
fn gate_is_killed_during_a_prompt() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let talk = crate::login::person::Person::new(&l.d, "alice", "hello").ask();
    let worker = l.d.process("login");
    sigkill(l.d.process("gate"));
    assert!(ends(worker), "its worker goes on");
    drop(talk);
    assert_eq!(l.notes(), Vec::<String>::new());
    until("there is a gate again", || {
        l.ended(&mut l.gui("alice", "secret\n", &[], &["hello"]))
            .status
            == Some(0)
    });
}

#[test]
fn the_relay_is_killed() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let (session, pid) = runs(&l);
    sigkill(l.d.process("relay"));
    assert!(ends(pid), "it was not hung up");
    assert_eq!(session.finish().status, Some(255));
    l.all_closed(1);
}

#[test]
fn cleanup_worker_closes_the_session_of_a_killed_worker() {
    if !needs_root() {
        return;
    }
    // The cleanup worker closes it for the user to which a module has changed, with PAM's
    // variables.
    for stack in [
        STACK.to_owned(),
        format!("auth required BARE rename=alice\n{STACK}"),
    ] {
        let renamed = stack != STACK;
        let l = Plan::stack(&stack).start();
        let user = if renamed { "al" } else { "alice" };
        let mut session = Session::spawn(&mut l.gui(user, "secret\n", &[], &["stay"]));
        let (_, line) = session.out.wait_from(0, |_| true);
        drop(session.stdin.take());
        sigkill(l.d.process("login"));
        assert!(ends(line.parse().unwrap()), "it was not hung up");
        assert_eq!(session.finish().status, Some(255));
        l.all_closed(1);
        let notes = l.notes();
        let of = |n: &str| {
            (
                n.split("pid=").nth(1).unwrap().to_owned(),
                n.contains("user=alice "),
            )
        };
        let (opened, closed) = (of(&notes[1]), of(&notes[2]));
        assert!(opened.0 != closed.0, "{notes:?}");
        assert!(opened.1 && closed.1, "{notes:?}");
        assert!(notes.iter().all(|n| n.contains("tag=mine")), "{notes:?}");
        l.d.log.wait("lost process=login");
    }
}

#[test]
fn the_daemon_is_killed() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let (session, pid) = runs(&l);
    sigkill(l.d.pid());
    assert!(ends(pid), "it was not hung up");
    assert_eq!(session.finish().status, Some(255));
    l.all_closed(1);
}

/// Regression: it hung forever, with no process to kill it.
#[test]
fn a_module_that_hangs_does_not_outlive_the_daemon() {
    if !needs_root() {
        return;
    }
    let l = Plan::around("auth required BARE hang", "").start();
    let client = look_inner(&mut l.gui("alice", "secret\n", &[], &["stay"]));
    let mut worker = None;
    until("its worker runs", || {
        let is_worker = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"cosserver: login")
        };
        let all = crate::daemon::children(l.d.pid());
        worker = all.into_iter().find(is_worker);
        worker.is_some()
    });
    sigkill(l.d.pid());
    assert!(ends(worker.unwrap()), "it goes on");
    drop(client);
}

#[test]
fn the_daemon_is_stopped_and_waits_for_it() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let (session, pid) = runs(&l);
    l.d.signal(Signal::SIGTERM);
    l.d.log.wait("stopping");
    assert!(lives(pid));
    sigkill(pid);
    assert_eq!(session.finish().status, Some(128 + 9));
    assert!(ends(l.d.pid()));
    l.all_closed(1);
}

#[test]
fn an_application_that_ignores_the_hang_up_is_killed_after_a_grace() {
    if !needs_root() {
        return;
    }
    for by_daemon in [false, true] {
        let l = Plan {
            settings: "[exec]\nhup-to-kill = 1\n",
            applications: "
[gui.stubborn]
command = [\"/bin/sh\", \"-c\", \"trap '' HUP; echo $$; exec sleep 600\"]
users = [\"*\", \"root\"]
",
            ..Plan::default()
        }
        .start();
        let session = look_inner(&mut l.gui("alice", "secret\n", &[], &["stubborn"]));
        let pid = session.out.wait_from(0, |_| true).1.parse().unwrap();
        if by_daemon {
            sigkill(l.d.pid());
        } else {
            session.signal(Signal::SIGKILL);
        }
        assert!(ends(pid), "it goes on");
        l.all_closed(1);
    }
}

/// Starts a detached application; returns its process ID once it runs.
fn detached(l: &Logins) -> i32 {
    let file = l.d.folder.path("home/alice/pid");
    // The file of an earlier one.
    let _ = std::fs::remove_file(&file);
    let ended = l.ended(&mut l.gui("alice", "secret\n", &["--detach"], &["alone"]));
    assert_eq!((ended.status, ended.out.len()), (Some(0), 0), "{ended:?}");
    let mut pid = None;
    until("it runs", || {
        pid = std::fs::read_to_string(&file)
            .ok()
            .and_then(|t| t.trim().parse().ok());
        pid.is_some()
    });
    pid.unwrap()
}

const ALONE: &str = "
[gui.alone]
command = [\"/bin/sh\", \"-c\", \"readlink /proc/$$/fd/* >fds; echo $$ >new; mv new pid; exec sleep 600\"]
users = [\"*\", \"root\"]
";

fn detachable_plan() -> Plan {
    Plan {
        applications: ALONE,
        ..Plan::default()
    }
}

#[test]
fn detached_it_goes_on_without_client_and_daemon() {
    if !needs_root() {
        return;
    }
    for end in ["application", "daemon", "worker", "relay"] {
        let l = detachable_plan().start();
        let pid = detached(&l);
        let fds = std::fs::read_to_string(l.d.folder.path("home/alice/fds")).unwrap();
        let mut names: Vec<&str> = fds.lines().collect();
        names.retain(|n| !n.ends_with("/fds"));
        assert!(names.iter().all(|n| *n == "/dev/null"), "{fds}");
        l.d.log.wait("detached=true");
        assert_eq!(l.d.log.count("end session="), 0, "it has not ended");
        assert!(lives(pid));
        assert_eq!(
            (l.noted("opened"), l.noted("closed")),
            (1, 0),
            "{:?}",
            l.notes()
        );
        match end {
            "application" => {}
            "daemon" => {
                sigkill(l.d.pid());
                assert!(ends(l.d.pid()));
                assert!(lives(pid));
            }
            "relay" => {
                sigkill(l.d.process("relay"));
                l.d.log.wait("process=relay");
                assert!(lives(pid));
            }
            _ => {
                // No process would close its session after it: it ends with its worker.
                sigkill(l.d.process("login"));
                assert!(ends(pid));
            }
        }
        if lives(pid) {
            sigkill(pid);
        }
        l.all_closed(1);
        match end {
            "daemon" => {}
            "worker" => drop(l.d.log.wait("how=detached status=unknown")),
            _ => drop(l.d.log.wait("how=detached status=signal-9")),
        }
    }
}

/// Regression: the page said that End comes at once, but three messages came before it.
#[test]
fn what_comes_with_a_detached_application_is_what_the_page_says() {
    if !needs_root() {
        return;
    }
    let l = detachable_plan().start();
    let mut person = crate::login::person::Person::new(&l.d, "alice", "alone");
    person.detach = true;
    let came = person.ask().receives_all(&[crate::login::PASSWORD]);
    // Two outputs end together, in either order.
    let (end, mut before) = came.split_last().unwrap();
    assert_eq!(end, "Exited(0)", "{came:?}");
    let mut sorted = before.to_vec();
    sorted.sort_unstable();
    before = &sorted;
    assert_eq!(before, ["Eof 0", "Eof 1", "Reset 0"], "{came:?}");
    let file = l.d.folder.path("home/alice/pid");
    until("it runs", || file.exists());
    let pid = std::fs::read_to_string(&file).unwrap();
    sigkill(pid.trim().parse().unwrap());
    l.all_closed(1);
}

/// Regression: they were not counted, so any number could be started.
#[test]
fn detached_it_counts_among_the_sessions() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        settings: "[limits]\nsessions = 1\n[daemon]\nrefusal-interval = 1\n",
        ..detachable_plan()
    }
    .start();
    let pid = detached(&l);
    let line = {
        let gui = &mut l.gui("alice", "secret\n", &["--detach"], &["alone"]);
        assert_eq!(l.ended(gui).status, Some(255));
        l.d.log.wait("too many sessions")
    };
    assert!(
        line.contains("cause=busy why=\"alice asks for alone: "),
        "{line}"
    );
    sigkill(pid);
    l.d.log.wait("how=detached");
    sigkill(detached(&l));
    l.all_closed(2);
}

/// Regression: there was no message, and the client's status was 0.
#[test]
fn what_cannot_be_left_running_is_refused() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        settings: "[daemon]\nrefusal-interval = 1\n",
        applications: "
[gui.missing]
command = [\"/nonexistent/program\"]
users = [\"*\", \"root\"]
[gui.forbidden]
command = [\"/etc/passwd\"]
users = [\"*\", \"root\"]
",
        ..Plan::default()
    }
    .start();
    for (name, path) in [
        ("missing", "/nonexistent/program"),
        ("forbidden", "/etc/passwd"),
    ] {
        let ended = l.ended(&mut l.gui("alice", "secret\n", &["--detach"], &[name]));
        assert_eq!(ended.status, Some(255), "{ended:?}");
        let reference = crate::login::reference(&ended.err[0]);
        let line = l.d.log.wait(&format!("ref={reference}"));
        assert!(
            line.contains("cause=system") && line.contains(path),
            "{line}"
        );
    }
    l.all_closed(2);
}

#[test]
fn disconnect_during_a_login_leaves_nothing_behind() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    // Prompted for the password, the client hangs up.
    let talk = crate::login::person::Person::new(&l.d, "alice", "hello").ask();
    let worker = l.d.process("login");
    drop(talk);
    assert!(ends(worker), "its worker goes on");
    assert_eq!(l.notes(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_executed_says_so_and_closes_its_session() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        applications: "
[gui.missing]
command = [\"/nonexistent/program\"]
users = [\"*\", \"root\"]
[gui.forbidden]
command = [\"/etc/passwd\"]
users = [\"*\", \"root\"]
",
        ..Plan::default()
    }
    .start();
    for (n, (name, status)) in [("missing", 127), ("forbidden", 126)]
        .into_iter()
        .enumerate()
    {
        let ended = l.alice(&[name]);
        assert_eq!(
            (ended.status, ended.out.len()),
            (Some(status), 0),
            "{ended:?}"
        );
        assert_eq!(ended.err.len(), 1, "{ended:?}");
        l.all_closed(n + 1);
    }
}

#[test]
fn eight_at_the_same_time_are_eight_sessions() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let mut all: Vec<Session> = (0..8)
        .map(|_| look_inner(&mut l.gui("alice", "secret\n", &[], &["stay"])))
        .collect();
    let pids: Vec<i32> = all
        .iter()
        .map(|s| s.out.wait_from(0, |_| true).1.parse().unwrap())
        .collect();
    assert_eq!((l.noted("opened"), l.noted("closed")), (8, 0));
    for pid in pids {
        sigkill(pid);
    }
    for session in all.drain(..) {
        assert_eq!(session.finish().status, Some(128 + 9));
    }
    l.all_closed(8);
    // No process of the daemon is a zombie.
    until("no worker is left", || {
        crate::daemon::without_doors(l.d.pid()) == 2
    });
}

/// Regression: its worker could not send them to the monitor. The application was running but
/// denied, and a cleanup worker closed its session a second time.
#[test]
fn more_variables_than_a_message_holds_end_no_session() {
    if !needs_root() {
        return;
    }
    let unix = "session required pam_unix.so";
    let readenv = format!("{unix}\nsession required pam_env.so user_readenv=1");
    let l = Plan::stack(&STACK.replace(unix, &readenv)).start();
    std::fs::write(l.d.folder.path("etc/security/pam_env.conf"), "").unwrap();
    let own = l.d.folder.path("home/alice/.pam_environment");
    // Too many bytes, and too many variables.
    for (many, length) in [(80, 980), (5000, 1)] {
        let value = "x".repeat(length);
        let all = (0..many).map(|n| format!("V{n} DEFAULT={value}\n"));
        std::fs::write(&own, all.collect::<String>()).unwrap();
        let out = l.alice_says(&["show"]);
        let last = format!("V{}={value}", many - 1);
        assert!(out.contains(&last), "{} lines", out.len());
    }
    l.all_closed(2);
}
