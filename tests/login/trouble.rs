//! PAM modules that hang, crash or reject.

use std::fs;

use crate::daemon::{self, children, needs_root, until, without_doors};
use crate::login::person::Person;
use crate::login::{BOB_HANGS, Logins, PASSWORD, Plan};

const SHORT: &str = "[login]\ncheck = 1\n[daemon]\nrefusal-interval = 1\n";
fn plan(stack: Plan) -> Logins {
    Plan {
        settings: SHORT,
        ..stack
    }
    .start()
}

/// Checks that no worker is left, and that the same daemon serves the next client.
fn nothing_is_left(l: &Logins) {
    let is_worker = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"cosserver: login")
    };
    until("no worker is left", || {
        !children(l.d.pid()).into_iter().any(is_worker)
    });
    fs::write(
        l.d.folder.path("etc/pam.d/cosserver"),
        "auth required pam_unix.so\naccount required pam_unix.so\n\
         password required pam_deny.so\nsession required pam_unix.so\n",
    )
    .unwrap();
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
}

#[test]
fn a_module_that_hangs_is_killed_in_time() {
    if !needs_root() {
        return;
    }
    // After the password, and before any prompt.
    for (before, after) in [
        ("", "auth required BARE hang"),
        ("auth required BARE hang", ""),
    ] {
        let l = plan(Plan::around(before, after));
        let line = l.refused_for("pam", "alice", "secret\n", &["hello"]);
        assert!(line.contains("PAM did not answer in time"), "{line}");
        if before.is_empty() {
            let (shape, after) = Person::new(&l.d, "alice", "hello").refused(PASSWORD);
            assert_eq!((shape.len(), shape[1]), (2, (15, 5)));
            let phase = after.as_millis() % 1000;
            assert!(!(500..980).contains(&phase), "it came after {after:?}");
        }
        nothing_is_left(&l);
    }
}

#[test]
fn crashing_module_ends_only_its_login() {
    if !needs_root() {
        return;
    }
    for (before, after) in [
        ("", "auth required BARE crash"),
        ("auth required BARE crash", ""),
    ] {
        let l = plan(Plan::around(before, after));
        let mut other =
            daemon::session::Session::spawn(&mut l.d.cos(&["echo on; read x; echo $x"]));
        other.out.wait("on");
        let line = l.refused_for("pam", "alice", "secret\n", &["hello"]);
        assert!(line.contains("the login worker died"), "{line}");
        if before.is_empty() {
            let (shape, _) = Person::new(&l.d, "alice", "hello").refused(PASSWORD);
            assert_eq!((shape.len(), shape[1]), (2, (15, 5)));
        }
        nothing_is_left(&l);
        other.say("still there");
        assert_eq!(other.finish().out, ["on", "still there"]);
    }
}

#[test]
fn credentials_are_taken_back_where_the_session_could_not_be_opened() {
    if !needs_root() {
        return;
    }
    for (how, cause, why) in [
        ("fail=open", "system", "PAM: session: Cannot make/remove"),
        ("crash=open", "pam", "the login worker died"),
        ("hang=open", "pam", "PAM did not answer in time"),
    ] {
        let stack = crate::login::STACK.replace(
            "session required MODULE",
            &format!("session required MODULE {how}"),
        );
        let l = plan(Plan::stack(&stack));
        let line = l.refused_for(cause, "alice", "secret\n", &["hello"]);
        assert!(line.contains(why), "{line}");
        until("the credentials are taken back", || {
            l.noted("cred-deleted") > 0
        });
        assert_eq!(l.noted("cred-established"), 1, "{how}: {:?}", l.notes());
        assert_eq!(l.noted("cred-deleted"), 1, "{how}: {:?}", l.notes());
        assert_eq!(l.noted("opened"), 0, "{how}: {:?}", l.notes());
        nothing_is_left(&l);
    }
}

#[test]
fn prompt_from_a_session_module_gets_no_answer() {
    if !needs_root() {
        return;
    }
    let asks = "session optional MODULE ask=open\n";
    let l = plan(Plan::stack(&format!("{}{asks}", crate::login::STACK)));
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    drop(l);
    let l = plan(Plan::stack(&crate::login::STACK.replace(
        "session required MODULE",
        "session required MODULE ask=open",
    )));
    let line = l.refused_for("system", "alice", "secret\n", &["hello"]);
    assert!(line.contains("PAM: "), "{line}");
}

/// Regression: it waited for a PAM slot, and the daemon ended first.
#[test]
fn session_of_a_dead_worker_is_closed_at_once_and_before_the_daemon_ends() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: "[login]\nchecks = 1\n",
        ..Plan::around(BOB_HANGS, "")
    };
    let l = Logins {
        d: daemon::Daemon::start_in(plan.folder(), &["-d"]),
    };
    let alice = crate::login::look_inner(&mut l.gui("alice", "secret\n", &[], &["stay"]));
    alice.out.wait_from(0, |_| true);
    let worker = l.d.process("login");
    let bob = crate::login::look_inner(&mut l.gui("bob", "secret\n", &[], &["hello"]));
    until("bob has the turn", || without_doors(l.d.pid()) == 4);
    let pid = nix::unistd::Pid::from_raw(worker);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    l.d.signal(nix::sys::signal::SIGTERM);
    l.all_closed(1);
    drop((alice, bob));
}

#[test]
fn a_module_that_hangs_when_it_closes_is_killed_in_time() {
    if !needs_root() {
        return;
    }
    let stack = crate::login::STACK.replace(
        "session required MODULE",
        "session required MODULE hang=close",
    );
    let l = plan(Plan::stack(&stack));
    for _ in 0..3 {
        assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    }
    until("their workers are gone", || without_doors(l.d.pid()) == 2);
    l.d.log
        .wait("lost process=login user=alice why=\"PAM did not close the session");
    until("each is in the log", || {
        l.d.log.count("lost process=login") == 3
    });
}

#[test]
fn invalid_user_name_reaches_no_module() {
    if !needs_root() {
        return;
    }
    let l = plan(Plan::around("auth required BARE crash", ""));
    let mut person = Person::new(&l.d, "alice", "hello");
    for user in ["-froot", "a b", "a\nb", "a\x1b[2Jb", "a/b"] {
        person.user = user.into();
        let from = l.d.log.all().len();
        person.is_refused_at_once();
        let (_, line) = l.d.log.wait_from(from, |l| l.starts_with("denied "));
        // The cause of a crash would be `pam`.
        assert!(line.contains("cause=login "), "{line}");
        assert!(!line.contains("worker"), "{line}");
    }
    assert_eq!(l.d.log.count("lost process=login"), 0);
}
