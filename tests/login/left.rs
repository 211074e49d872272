//! A client that has answered a prompt and hangs up has guessed all the same: PAM reaches its
//! verdict, its reaction to a wrong guess takes place, and the log, the penalty and the slot are as
//! if the client had waited. Here `pam_faillock` counts, after a module that takes its time if the
//! password is wrong.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use nix::unistd::mkfifo;

use crate::daemon::inetd::superserver;
use crate::daemon::session::ends;
use crate::daemon::{Daemon, children, needs_root, until};
use crate::login::person::{Person, Said};
use crate::login::{BOB_HANGS, Logins, PASSWORD, Plan, WRONG};

/// Three wrong guesses lock the account. After a wrong one PAM waits for the test.
const SLOW_NO: &str = "\
auth requisite pam_faillock.so preauth silent dir=FOLDER/tally deny=3 unlock_time=600
auth [success=2 default=ignore] pam_unix.so
auth [default=ignore] MODULE wait=FOLDER/go
auth [default=die] pam_faillock.so authfail dir=FOLDER/tally deny=3 unlock_time=600
auth required pam_permit.so
account required pam_unix.so
password required pam_deny.so
session required pam_unix.so
session required MODULE
";

/// The password, then a code, and only then the count.
const TWO_PROMPTS: &str = "\
auth required pam_unix.so
auth required BARE hush
auth [default=die] pam_faillock.so authfail dir=FOLDER/tally deny=3 unlock_time=600
account required pam_unix.so
password required pam_deny.so
session required pam_unix.so
";

const SETTINGS: &str = "[daemon]\nrefusal-interval = 1\n";

/// Size of a record of `pam_faillock`, bytes.
const RECORD: u64 = 64;

/// A daemon with this stack, and a file that lets PAM continue once it is written.
struct Slow {
    l: Logins,
    go: fs::File,
}

impl Slow {
    fn new(stack: &str, start: impl FnOnce(crate::daemon::Folder) -> Daemon) -> Self {
        let plan = Plan {
            settings: SETTINGS,
            ..Plan::stack(stack)
        };
        let folder = plan.folder();
        let tally = folder.path("tally");
        fs::create_dir(&tally).unwrap();
        fs::set_permissions(&tally, fs::Permissions::from_mode(0o755)).unwrap();
        let fifo = folder.path("go");
        mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        // Open in both directions: what is written stays until it is read.
        let mut both = fs::OpenOptions::new();
        let go = both.read(true).write(true).open(fifo).unwrap();
        let l = Logins { d: start(folder) };
        Self { l, go }
    }

    fn with_standalone_daemon(stack: &str) -> Self {
        Self::new(stack, |folder| Daemon::start_in(folder, &["-d"]))
    }

    fn release_pam(&mut self) {
        self.go.write_all(b"go").unwrap();
    }

    /// Returns how many wrong guesses of a user have been counted.
    fn counted(&self, user: &str) -> u64 {
        let tally = self.l.d.folder.path("tally").join(user);
        fs::metadata(tally).map_or(0, |about| about.len() / RECORD)
    }

    /// Makes a guess for Alice, which PAM is about to reject; the client does not wait any longer.
    fn guess_and_leave(&self, nth: usize) {
        let mut talk = Person::new(&self.l.d, "alice", "hello").ask();
        talk.send(&[WRONG]);
        until("PAM has it", || self.l.noted("waits") >= nth);
        drop(talk);
    }

    fn denied(&self) -> usize {
        self.l
            .d
            .log
            .count("cause=login why=\"alice asks for hello: PAM: ")
    }
}

/// Regression: leaving ended the worker: no wrong guess was counted, and after sixty of them the
/// right password was still accepted.
#[test]
fn disconnect_hides_no_wrong_guess() {
    if !needs_root() {
        return;
    }
    let mut slow = Slow::with_standalone_daemon(SLOW_NO);
    slow.guess_and_leave(1);
    slow.l.d.log.wait("left connection=");
    assert_eq!(slow.denied(), 0, "{}", slow.l.log_text());
    slow.release_pam();
    until("the guess is denied", || slow.denied() == 1);
    assert_eq!(slow.counted("alice"), 1);
    // From now on PAM does not wait.
    for _ in 1..3 {
        let mut talk = Person::new(&slow.l.d, "alice", "hello").ask();
        talk.send(&[WRONG]);
        drop(talk);
    }
    until("all three are denied", || slow.denied() == 3);
    assert_eq!(slow.counted("alice"), 3);
    slow.l
        .refused("alice", &format!("{PASSWORD}\n"), &["hello"]);
    assert_eq!(slow.l.noted("opened"), 0);
}

/// The same if inetd starts a daemon for each connection, which has to outlive the connection.
#[test]
fn disconnect_hides_no_wrong_guess_under_inetd() {
    if !needs_root() {
        return;
    }
    let mut slow = Slow::new(SLOW_NO, |folder| {
        Daemon::start_by(superserver(), folder, &["-d"])
    });
    slow.guess_and_leave(1);
    slow.l.d.log.wait("left connection=");
    slow.release_pam();
    until("the guess is denied", || slow.denied() == 1);
    assert_eq!(slow.counted("alice"), 1);
    until("its daemon has ended", || {
        children(slow.l.d.pid()).is_empty()
    });
}

/// Regression: if a client left at the second prompt, its first answer was forgotten.
#[test]
fn disconnect_at_a_later_prompt_is_a_wrong_guess() {
    if !needs_root() {
        return;
    }
    for how in ["before it is there", "at it", "by breaking the protocol"] {
        let slow = Slow::with_standalone_daemon(TWO_PROMPTS);
        let person = Person::new(&slow.l.d, "alice", "hello");
        if how == "before it is there" {
            let mut talk = person.ask();
            talk.send(&[PASSWORD]);
        } else {
            let Said::Prompts(talk) = person.ask().answer(&[PASSWORD]) else {
                panic!("he is not asked again");
            };
            if how == "at it" {
                drop(talk);
            } else {
                talk.breaks_off();
            }
        }
        let line = slow
            .l
            .d
            .log
            .wait("PAM prompted again after the peer had disconnected");
        assert!(
            line.contains("peer=127.0.0.1 cause=login why=\"alice asks for hello: "),
            "{line}"
        );
        until("PAM has counted it", || slow.counted("alice") == 1);
    }
}

/// It must not be distinguishable from a wrong one by whose login it delays, and no client would be
/// there to use what is started.
#[test]
fn right_password_after_a_disconnect_opens_no_session() {
    if !needs_root() {
        return;
    }
    let unix = "auth required pam_unix.so";
    let mut slow = Slow::with_standalone_daemon(&crate::login::STACK.replace(
        unix,
        &format!("{unix}\nauth required MODULE wait=FOLDER/go"),
    ));
    let mut talk = Person::new(&slow.l.d, "alice", "hello").ask();
    talk.send(&[PASSWORD]);
    until("PAM has it", || slow.l.noted("waits") == 1);
    drop(talk);
    slow.l.d.log.wait("left connection=");
    slow.release_pam();
    let line = slow.l.d.log.wait("PAM accepted, but the peer disconnected");
    assert!(
        line.starts_with("closed peer=127.0.0.1 cause=left why=\"alice asks for hello: "),
        "{line}"
    );
    let log = &slow.l.d.log;
    assert_eq!((log.count("denied "), log.count("login session=")), (0, 0));
    assert_eq!(
        (slow.l.noted("opened"), slow.l.noted("cred-established")),
        (0, 0)
    );
    // A client that waits is allowed as before.
    assert_eq!(slow.l.alice_says(&["hello"]), ["hello"]);
}

/// A verdict without a peer takes no longer than any other.
#[test]
fn a_module_that_hangs_after_its_peer_has_left_is_killed_in_time() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: "[login]\nchecks = 1\ncheck = 1\n[daemon]\nrefusal-interval = 1\n",
        ..Plan::around("", BOB_HANGS)
    };
    let l = plan.start();
    let mut bob = Person::new(&l.d, "bob", "hello").ask();
    bob.send(&[PASSWORD]);
    drop(bob);
    // Then another login gets the only PAM slot.
    let line = l.d.log.wait("PAM did not answer in time");
    assert!(
        line.contains("cause=pam why=\"bob asks for hello: "),
        "{line}"
    );
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
}

/// Regression: the end of the daemon was the end of every guess that PAM was checking.
#[test]
fn daemon_exit_hides_no_wrong_guess() {
    if !needs_root() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut slow = Slow::with_standalone_daemon(SLOW_NO);
        let mut talk = Person::new(&slow.l.d, "alice", "hello").ask();
        talk.send(&[WRONG]);
        until("PAM has it", || slow.l.noted("waits") == 1);
        slow.l.d.signal(signal);
        if signal == Signal::SIGTERM {
            let line = slow.l.d.log.wait("the daemon stops before PAM has decided");
            assert!(
                line.contains("cause=busy why=\"alice asks for hello: "),
                "{line}"
            );
        }
        assert!(ends(slow.l.d.pid()), "{signal}: it goes on");
        assert_eq!(slow.counted("alice"), 0);
        slow.release_pam();
        until("PAM has counted it", || slow.counted("alice") == 1);
    }
}
