//! Competition for slots: slots of pending logins and PAM slots, how long they are held, and what
//! that reveals.

use std::fs;

use crate::daemon::session::Session;
use crate::daemon::{self, needs_root, until, without_doors};
use crate::login::person::{Conversation, Person, Said};
use crate::login::{BOB_HANGS, Logins, PASSWORD, Plan, WRONG};

fn with(settings: &'static str) -> Logins {
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    plan.start()
}

/// Creates a user who requests an application from that address.
fn from(l: &Logins, address: &str, user: &str) -> Person {
    let mut person = Person::new(&l.d, user, "hello");
    person.from = address.parse().unwrap();
    person
}

/// Makes eight guesses at once, of which three are checked.
fn eight_guesses(l: &Logins, guesser: &Person) -> Vec<Conversation> {
    let mut all: Vec<_> = (0..8).map(|_| guesser.ask()).collect();
    for talk in &mut all {
        talk.send(&[WRONG]);
    }
    until("three have been checked", || failures(l) >= 3);
    all
}

fn failures(l: &Logins) -> usize {
    l.d.log.count("PAM: Authentication failure")
}

#[test]
fn pending_logins_are_limited_and_a_disconnect_frees_a_slot() {
    if !needs_root() {
        return;
    }
    let l = with("[login]\nwaiting = 3\n[daemon]\nrefusal-interval = 1\n");
    let alice = Person::new(&l.d, "alice", "hello");
    let mut asked: Vec<_> = (0..3).map(|_| alice.ask()).collect();
    let ended = l.alice(&["hello"]);
    assert_eq!(ended.status, Some(255), "{ended:?}");
    let line = l.d.log.wait("too many logins in progress");
    assert!(
        line.contains(&crate::login::reference(&ended.err[0])),
        "{line}"
    );
    drop(asked.pop());
    until("there is room", || l.alice(&["hello"]).status == Some(0));
    assert_eq!(asked.len(), 2);
}

/// Also for applications: one user who logs in by password cannot hold all sessions.
#[test]
fn password_user_cannot_hold_all_sessions() {
    if !needs_root() {
        return;
    }
    let l = with("[limits]\nsessions = 4\n[daemon]\nrefusal-interval = 1\n");
    let stays = |user: &str, n: usize| {
        let session = Session::spawn(&mut l.gui(user, "secret\n", &[], &["stay"]));
        until("it runs", || l.d.log.count("login session=") == n);
        session
    };
    let mut all: Vec<_> = (1..=3).map(|n| stays("alice", n)).collect();
    let line = l.refused_for("busy", "alice", "secret\n", &["hello"]);
    let why = "alice has 3 sessions, which is its share (sessions-per-user)";
    assert!(line.contains(why), "{line}");
    // The last one is reserved for others; a user who has released one gets one again.
    let bob = stays("bob", 4);
    drop(bob);
    drop(all.pop());
    until("two have ended", || l.d.log.count("end session=") == 2);
    assert_eq!(l.alice(&["hello"]).status, Some(0), "{}", l.log_text());
    drop(all);
    l.all_closed(5);
}

/// Regression: all sources shared the slots, so a source that took them and sent nothing locked out
/// all others for two minutes.
#[test]
fn idle_prompt_does_not_block_other_logins() {
    if !needs_root() {
        return;
    }
    let l = with("[login]\nwaiting = 3\n[daemon]\nrefusal-interval = 1\n");
    let sitter = from(&l, "127.0.0.2", "bob");
    let mut asked: Vec<_> = (0..3).map(|_| sitter.ask()).collect();
    // A client from another address is served, and the longest waiting prompt is closed.
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    let line = l.d.log.wait("its login was the oldest");
    assert!(line.contains("peer=127.0.0.2 cause=busy"), "{line}");
    let reference = asked.remove(0).denied();
    assert!(line.contains(&reference), "{line}");
    // Clients from the same address get no more room than before.
    asked.push(sitter.ask());
    let mut first_surplus = sitter.clone();
    first_surplus.user = "alice".into();
    first_surplus.is_refused_at_once();
    l.d.log.wait("too many logins in progress");
    // An authenticated host has its own slots.
    let alice = Person::new(&l.d, "alice", "hello");
    asked.push(alice.ask());
    asked.push(alice.ask());
    let ended = l.ended(&mut super::display::by_hash(&l, &["hello"]));
    let words = format!("{ended:?}");
    let line = l.d.log.wait("root asks for hello");
    assert!(line.contains("has no remote = true"), "{words}: {line}");
}

/// Returns how many silent connections a source may have.
fn slots(l: &Logins, from: &str) -> usize {
    let from = from.parse().unwrap();
    let connect = || daemon::hostile::RawConnection::from_address(from, l.d.port);
    let mut both = [connect(), connect()];
    l.d.gate_at_rest();
    both.iter_mut()
        .filter_map(|s| s.is_open().then_some(()))
        .count()
}

#[test]
fn wrong_password_is_penalised_and_a_host_fault_is_not() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: "[login]\ncheck = 1\n[daemon]\nrefusal-interval = 1\n",
        penalties: "authfail = 100\nmin = 50\nmax = 500\nnoauth = 0\ngrace-exceeded = 0\n",
        ..Plan::default()
    };
    let l = plan.start();
    let mut person = Person::new(&l.d, "alice", "hello");
    for (from, wrong, left) in [("127.0.0.2", true, 1), ("127.0.0.3", false, 2)] {
        if !wrong {
            let hangs = "auth required FOLDER/pam_double.so hang\n\
                         account required pam_deny.so\npassword required pam_deny.so\n\
                         session required pam_deny.so\n";
            let here = l.d.folder.0.display().to_string();
            let service = l.d.folder.path("etc/pam.d/cosserver");
            fs::write(service, hangs.replace("FOLDER", &here)).unwrap();
        }
        person.from = from.parse().unwrap();
        assert_eq!(slots(&l, from), 2);
        if wrong {
            person.refused(WRONG);
        } else {
            person.is_refused_at_once();
            l.d.log.wait("cause=pam");
        }
        assert_eq!(slots(&l, from), left, "{from}\n{}", l.log_text());
    }
}

/// Regression: a client that did not wait for the denial guessed as fast as PAM could check.
#[test]
fn not_waiting_for_the_denial_does_not_speed_up_guessing() {
    if !needs_root() {
        return;
    }
    let l = with("[daemon]\nrefusal-interval = 60\n");
    let guesser = from(&l, "127.0.0.2", "alice");
    let _all = eight_guesses(&l, &guesser);
    // Clients of another source get a PAM slot; those of this one get none for a minute.
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    assert_eq!(failures(&l), 3, "{}", l.log_text());
}

#[test]
fn timeout_for_a_pam_slot_is_reported_without_details() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        settings: "[login]\nchecks = 1\ntime = 2\n[daemon]\nrefusal-interval = 1\n",
        ..Plan::around(BOB_HANGS, "")
    }
    .start();
    let bob = crate::login::look_inner(&mut l.gui("bob", "secret\n", &[], &["hello"]));
    until("bob has his turn", || without_doors(l.d.pid()) == 3);
    let line = l.refused_for("busy", "alice", "secret\n", &["hello"]);
    assert!(line.contains("no PAM slot became free"), "{line}");
    drop(bob);
}

#[test]
fn pam_slot_of_a_hanging_module_is_freed() {
    if !needs_root() {
        return;
    }
    // Only bob's login hangs, and it has the only PAM slot.
    let plan = Plan {
        settings: "[login]\nchecks = 1\ncheck = 1\n",
        ..Plan::around(BOB_HANGS, "")
    };
    let l = Logins {
        d: daemon::Daemon::start_in(plan.folder(), &["-d"]),
    };
    let bob = crate::login::look_inner(&mut l.gui("bob", "secret\n", &[], &["hello"]));
    l.d.log.wait("user=bob");
    let alice = crate::login::look_inner(&mut l.gui("alice", "secret\n", &[], &["hello"]));
    l.d.log.wait("user=alice");
    assert_eq!(without_doors(l.d.pid()), 3, "gate, relay, and one worker");
    let ended = alice.finish();
    assert_eq!(bob.finish().status, Some(255));
    assert_eq!(
        (ended.status, ended.out),
        (Some(0), vec!["hello".to_owned()]),
        "{:?}",
        ended.err
    );
}

/// A client that has answered keeps it to the end: see `left.rs`.
#[test]
fn pam_slot_of_a_client_that_leaves_before_the_prompt_is_freed_at_once() {
    if !needs_root() {
        return;
    }
    // Only bob's login hangs, for longer than a test may take, and it has the only PAM slot.
    let plan = Plan {
        settings: "[login]\nchecks = 1\ncheck = 100\n",
        ..Plan::around(BOB_HANGS, "")
    };
    let l = Logins {
        d: daemon::Daemon::start_in(plan.folder(), &["-d"]),
    };
    let mut bob = l.gui("bob", "secret\n", &[], &["hello"]).spawn().unwrap();
    l.d.log.wait("user=bob");
    bob.kill().unwrap();
    bob.wait().unwrap();
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
}

/// Regression: a client that left before it was told was penalised for leaving, and not for a wrong
/// guess.
#[test]
fn wrong_guess_costs_the_same_after_a_disconnect() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: "[daemon]\nrefusal-interval = 1\n",
        penalties: "authfail = 100\nmin = 50\nmax = 500\nnoauth = 0\ngrace-exceeded = 0\n",
        ..Plan::default()
    };
    let l = plan.start();
    let guesser = from(&l, "127.0.0.2", "alice");
    assert_eq!(slots(&l, "127.0.0.2"), 2);
    let mut talk = guesser.ask();
    talk.send(&[WRONG]);
    drop(talk);
    l.d.log.wait("denied ref=");
    // The gate learns of the penalty a moment after the log line.
    until("one slot is left", || slots(&l, "127.0.0.2") == 1);
}

/// Regression: a source that filled the slots with answers waiting for PAM locked out all others,
/// because only connections at the prompt made room.
#[test]
fn filling_login_slots_with_wrong_guesses_does_not_block_others() {
    if !needs_root() {
        return;
    }
    let l = with("[login]\nwaiting = 8\n[daemon]\nrefusal-interval = 60\n");
    let guesser = from(&l, "127.0.0.2", "bob");
    // Three are denied in a minute, and the others wait that long for a PAM slot.
    let all = eight_guesses(&l, &guesser);
    let _more: Vec<_> = (0..3).map(|_| guesser.ask_only()).collect();
    // A client from another address is served, and one of theirs is closed: first those that are
    // denied already.
    let alice = from(&l, "127.0.0.3", "alice");
    let _sits: Vec<_> = (0..3).map(|_| alice.ask()).collect();
    let said = alice.ask().answer(&[PASSWORD]);
    assert!(matches!(said, Said::Accepted(_)));
    let line = l.d.log.wait("its login was the oldest");
    assert!(line.contains("peer=127.0.0.2 cause=busy"), "{line}");
    drop(all);
}

/// Regression: such a guess did not occupy the PAM slot before the next one, so the time until the
/// next prompt or check revealed for which user PAM failed.
#[test]
fn guess_that_pam_cannot_check_holds_the_pam_slot_like_a_wrong_one() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        settings: "[daemon]\nrefusal-interval = 60\n",
        ..Plan::around("", "auth required BARE crash")
    }
    .start();
    let guesser = Person::new(&l.d, "alice", "hello");
    let mut all: Vec<_> = (0..4).map(|_| guesser.ask()).collect();
    for talk in &mut all {
        talk.send(&[PASSWORD]);
    }
    let theirs = || l.d.log.count("peer=127.0.0.1 cause=pam");
    until("three have been checked", || theirs() >= 3);
    // Another source gets the PAM slot after the fourth guess of the first source.
    let mut other = guesser.clone();
    other.from = "127.0.0.2".parse().unwrap();
    let mut last = other.ask();
    last.send(&[PASSWORD]);
    l.d.log.wait("peer=127.0.0.2 cause=pam");
    assert_eq!(theirs(), 3, "{}", l.log_text());
}

/// Regression: these lines were not rate-limited as those of unauthenticated peers, so each
/// rejection had one.
#[test]
fn rejections_for_lack_of_a_login_slot_are_rate_limited_in_the_log() {
    if !needs_root() {
        return;
    }
    let l = with("[login]\nwaiting = 1\n");
    let person = Person::new(&l.d, "alice", "hello");
    let asked = person.ask();
    let begun = std::time::Instant::now();
    let refused: Vec<_> = (0..1000).map(|_| person.ask_only()).collect();
    for mut raw_connection in refused {
        raw_connection.denied();
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    let lines = l.d.log.count("too many logins in progress");
    let most = 100 * seconds;
    assert!((1..=most).contains(&lines), "{lines} in {seconds} s");
    drop(asked);
}

/// Regression: the slot was free again as soon as PAM had decided: at once for a user that does not
/// exist, some 40 ms later for one that does. A second login of the same source could measure that.
#[test]
fn login_slot_release_does_not_reveal_pam_time() {
    if !needs_root() {
        return;
    }
    let l = with("[login]\nwaiting = 4\n[daemon]\nrefusal-interval = 60\n");
    let bob = Person::new(&l.d, "bob", "hello");
    let mut unknown = bob.clone();
    unknown.user = "nobody-here".into();
    let held = [bob.ask(), bob.ask(), bob.ask()];
    let mut guess = unknown.ask();
    guess.send(&[WRONG]);
    l.d.log.wait("nobody-here asks for hello: PAM: ");
    // PAM is done with it, and the client has not been told.
    let late = bob.ask_only();
    l.d.log
        .wait("bob asks for hello: too many logins in progress");
    // A client from elsewhere gets that slot all the same.
    let alice = from(&l, "127.0.0.2", "alice");
    let said = alice.ask().answer(&[PASSWORD]);
    assert!(matches!(said, Said::Accepted(_)));
    assert_eq!(l.d.log.count("its login was the oldest"), 0);
    drop((held, guess, late));
}

/// Regression: a PAM slot was free as soon as PAM had decided, which a client of a third source
/// could observe while it waited for the slot.
#[test]
fn pam_slot_release_does_not_reveal_pam_time() {
    if !needs_root() {
        return;
    }
    let l = with("[login]\nchecks = 2\n[daemon]\nrefusal-interval = 60\n");
    let mut others = ["127.0.0.2", "127.0.0.3"].map(|a| from(&l, a, "nobody-here").ask());
    let before = std::time::Instant::now();
    for guess in &mut others {
        guess.send(&[WRONG]);
    }
    until("both were checked", || {
        l.d.log.count("nobody-here asks for hello: PAM: ") == 2
    });
    // The hash of the tests itself takes only a moment.
    let guess = from(&l, "127.0.0.4", "alice").ask();
    let after = before.elapsed();
    assert!(after.as_millis() >= 100, "{after:?}");
    drop((guess, others));
}
