//! PAM's prompts and messages, and which of them reach the client.

use std::time::{Duration, Instant};

use cosserver::protocol::prompt::Style;

use crate::daemon::needs_root;
use crate::login::person::{Conversation, Person, Said};
use crate::login::{Logins, PASSWORD, Plan, WRONG, look_inner};

/// Checks for one record that prompts, and one that denies: the same for every denied login.
fn usual(shape: &[(usize, u8)]) {
    assert_eq!(shape.len(), 2, "{shape:?}");
    assert_eq!(shape[1], (15, 5), "{shape:?}");
}

fn prompted(said: Said) -> Conversation {
    match said {
        Said::Prompts(talk) => *talk,
        Said::Accepted(texts) => panic!("accepted: {texts:?}"),
        Said::Denied(shape, _) => panic!("denied: {shape:?}"),
    }
}

fn accepted(said: Said) -> Vec<String> {
    match said {
        Said::Accepted(texts) => texts.into_iter().map(|t| t.words).collect(),
        Said::Prompts(talk) => panic!("asked again: {:?}", talk.texts),
        Said::Denied(shape, _) => panic!("denied: {shape:?}"),
    }
}

fn denied(said: Said) -> (Vec<(usize, u8)>, Duration) {
    match said {
        Said::Denied(shape, after) => (shape, after),
        Said::Prompts(talk) => panic!("asked again: {:?}", talk.texts),
        Said::Accepted(texts) => panic!("accepted: {texts:?}"),
    }
}

/// Checks for a time shortly after a multiple of the interval, which is a second in these tests.
fn at_a_multiple(after: Duration) {
    let phase = after.as_millis() % 1000;
    assert!(
        after > Duration::from_millis(980) && !(500..980).contains(&phase),
        "it came after {after:?}"
    );
}

const QUICK: &str = "[daemon]\nrefusal-interval = 1\n";

/// Regression: a deadline that passed while the monitor was stopped was checked before the answer
/// was read.
#[test]
fn an_answer_that_came_while_the_monitor_was_stopped_is_not_too_late() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        settings: "[login]\ntime = 2\n",
        ..Plan::default()
    }
    .start();
    let talk = Person::new(&l.d, "alice", "hello").ask();
    l.d.signal(nix::sys::signal::Signal::SIGSTOP);
    let said = crate::daemon::session::later(move || talk.answer(&[PASSWORD]));
    // The gate has forwarded it, and all deadlines have passed.
    let begin = Instant::now();
    crate::daemon::until("the times are over", || begin.elapsed().as_secs() >= 9);
    l.d.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(matches!(said.get(), Said::Accepted(_)), "{}", l.log_text());
    l.all_closed(1);
}

#[test]
fn every_refusal_is_the_same_bytes_at_a_multiple_of_the_interval_after_the_last_answer() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: QUICK,
        ..Plan::default()
    };
    let l = plan.start();
    let mut shapes = Vec::new();
    for (user, application, answer) in [
        ("alice", "hello", WRONG),
        ("alice", "hello", ""),
        ("nobodyhere", "hello", PASSWORD),
        ("locked", "hello", PASSWORD),
        ("expired", "hello", PASSWORD),
        ("empty", "hello", ""),
        ("alice", "nothing", PASSWORD),
        ("bob", "show", PASSWORD),
    ] {
        let (shape, after) = Person::new(&l.d, user, application).refused(answer);
        usual(&shape);
        at_a_multiple(after);
        shapes.push(shape);
    }
    assert!(shapes.iter().all(|s| *s == shapes[0]), "{shapes:?}");
}

/// Regression: the prompt was closed up to a second early: after 119 s instead of the page's 120.
#[test]
fn a_prompt_is_open_for_the_whole_time() {
    if !needs_root() {
        return;
    }
    let plan = Plan {
        settings: "[login]\ntime = 2\n",
        ..Plan::default()
    };
    let l = plan.start();
    let begun = std::time::Instant::now();
    Person::new(&l.d, "alice", "hello").ask().sits();
    let open = begun.elapsed();
    assert!(open >= Duration::from_secs(2), "{open:?}");
    l.d.log.wait("cause=no-answer");
}

#[test]
fn a_second_factor_is_asked_for_with_echo_or_without() {
    if !needs_root() {
        return;
    }
    for (argument, style) in [("ask", Style::Shown), ("hush", Style::Hidden)] {
        let plan = Plan {
            settings: QUICK,
            ..Plan::around("", &format!("auth required BARE {argument}"))
        };
        let l = plan.start();
        let alice = Person::new(&l.d, "alice", "hello");
        let talk = alice.ask();
        let styles: Vec<_> = talk.texts.iter().map(|t| t.style).collect();
        assert_eq!(
            (styles, talk.words()),
            (vec![Style::Hidden], vec!["Password: "])
        );
        let talk = prompted(talk.answer(&[PASSWORD]));
        assert_eq!((talk.texts[0].style, talk.words()), (style, vec!["Code: "]));
        assert_eq!(accepted(talk.answer(&["4711"])), Vec::<String>::new());
        // A user with one of the two wrong is told so only at the end, and not which.
        let mut seen = Vec::new();
        for (password, code) in [(PASSWORD, "4712"), (WRONG, "4711"), (WRONG, "4712")] {
            let talk = prompted(alice.ask().answer(&[password]));
            let (shape, after) = denied(talk.answer(&[code]));
            at_a_multiple(after);
            seen.push(shape);
        }
        assert!(
            seen.iter().all(|s| *s == seen[0] && s.len() == 3),
            "{seen:?}"
        );
        // The same with the real client, which takes a line for each.
        let right = l.ended(&mut l.gui("alice", "secret\n4711\n", &[], &["hello"]));
        assert_eq!(
            (right.status, right.out),
            (Some(0), vec!["hello".to_owned()])
        );
        let short = l.ended(&mut l.gui("alice", "secret\n", &[], &["hello"]));
        assert_eq!(short.status, Some(255), "{short:?}");
        assert!(
            short.err.concat().contains("there is no answer left"),
            "{short:?}"
        );
    }
}

#[test]
fn an_expired_password_is_changed_on_the_spot_and_the_new_one_is_good() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let stale = Person::new(&l.d, "stale", "hello");
    // Two different new passwords are rejected; the old one stays valid.
    let (mut talk, mut news) = (prompted(stale.ask().answer(&[PASSWORD])), 0);
    let told = talk.words().concat();
    assert!(told.contains("required to change your password"), "{told}");
    let refused = loop {
        let new = talk.words().concat().contains("ew password");
        news += usize::from(new);
        let answer = if new {
            format!("Different-{news}-pw")
        } else {
            PASSWORD.to_owned()
        };
        match talk.answer(&[&answer]) {
            Said::Prompts(next) => talk = *next,
            other @ (Said::Accepted(_) | Said::Denied(..)) => break denied(other),
        }
    };
    assert_eq!(refused.0.last(), Some(&(15, 5)));
    // The same with the client: the old password, as often as prompted, and the new one twice.
    let mut talk = prompted(stale.ask().answer(&[PASSWORD]));
    let mut asked = vec!["secret"];
    loop {
        let new = talk.words().concat().contains("ew password");
        asked.push(if new { "Quite-an0ther" } else { PASSWORD });
        match talk.answer(&[asked[asked.len() - 1]]) {
            Said::Prompts(next) => talk = *next,
            other @ (Said::Accepted(_) | Said::Denied(..)) => break drop(accepted(other)),
        }
    }
    assert_eq!(
        asked.iter().filter(|a| **a == "Quite-an0ther").count(),
        2,
        "{asked:?}"
    );
    let out = l.ended(&mut l.gui("stale", "Quite-an0ther\n", &[], &["hello"]));
    assert_eq!((out.status, out.out), (Some(0), vec!["hello".to_owned()]));
    let line = l.refused("stale", "secret\n", &["hello"]);
    assert!(line.contains("Authentication failure"), "{line}");
}

#[test]
fn module_messages_come_with_the_next_prompt_or_success_and_never_unauthenticated() {
    if !needs_root() {
        return;
    }
    let texts = ["an error text\u{1b}[2J", "an information text"];
    // Before a prompt: together with it.
    let plan = Plan {
        settings: QUICK,
        ..Plan::around("auth required BARE tell", "")
    };
    let l = plan.start();
    let talk = Person::new(&l.d, "alice", "hello").ask();
    assert_eq!(talk.words(), [texts[0], texts[1], "Password: "]);
    let styles: Vec<_> = talk.texts.iter().map(|t| t.style).collect();
    assert_eq!(styles, [Style::Error, Style::Info, Style::Hidden]);
    assert_eq!(accepted(talk.answer(&[PASSWORD])), Vec::<String>::new());
    drop(l);
    // After it, and from account and session: with success, and not with a denial.
    let stack = crate::login::STACK.replace(
        "account required pam_unix.so",
        "account optional BARE tell\naccount required pam_unix.so",
    );
    let l = Plan {
        settings: QUICK,
        ..Plan::stack(&format!("{stack}session optional BARE tell\n"))
    }
    .start();
    let alice = Person::new(&l.d, "alice", "hello");
    let told = accepted(alice.ask().answer(&[PASSWORD]));
    assert_eq!(told, [texts, texts].concat());
    for (user, application, answer) in [
        ("alice", "hello", WRONG),
        // These reach the account stage, where the module sends its text.
        ("expired", "hello", PASSWORD),
        ("alice", "nothing", PASSWORD),
    ] {
        let (shape, after) = Person::new(&l.d, user, application).refused(answer);
        usual(&shape);
        at_a_multiple(after);
        let line = l.refused(user, &format!("{answer}\n"), &[application]);
        assert!(!line.contains("text"), "{line}");
    }
    // The client shows them, without control characters for a terminal, separate from the output.
    let ended = l.ended(&mut l.gui("alice", "secret\n", &[], &["hello"]));
    assert_eq!(ended.out, ["hello"]);
    let err = ended.err.join("\n");
    assert!(
        err.contains("an error text?[2J") && err.contains("an information text"),
        "{err}"
    );
}

/// Regression: it was shown as one line with a ? for each line end.
#[test]
fn a_text_of_several_lines_is_shown_as_several_lines() {
    if !needs_root() {
        return;
    }
    let stack = crate::login::STACK;
    let l = Plan::stack(&format!(
        "{stack}session optional pam_echo.so file=FOLDER/motd\n"
    ))
    .start();
    let motd = "Welcome to hostb.\n\nMaintenance\x07 at noon.\n";
    std::fs::write(l.d.folder.path("motd"), motd).unwrap();
    let ended = l.alice(&["hello"]);
    assert_eq!(ended.out, ["hello"], "{ended:?}\n{}", l.log_text());
    assert_eq!(
        ended.err,
        ["Welcome to hostb.", "", "Maintenance? at noon."]
    );
}

#[test]
fn user_renamed_by_a_module_runs_as_the_new_name() {
    if !needs_root() {
        return;
    }
    let l = Plan::around("auth required BARE rename=alice", "").start();
    let run = |user: &str, answer: &str| {
        l.ended(&mut l.gui(user, &format!("{answer}\n"), &[], &["show"]))
    };
    // Neither has an own account that counts.
    for user in ["al", "bob"] {
        let ended = run(user, PASSWORD);
        assert_eq!(ended.status, Some(0), "{ended:?}\n{}", l.log_text());
        assert_eq!(ended.out[0], "alice");
        for line in ["USER=alice", "LOGNAME=alice"] {
            assert!(ended.out.iter().any(|l| l == line), "{ended:?}");
        }
    }
    assert_eq!(run("al", WRONG).status, Some(255));
    l.d.log.said_at_least("user=alice", 2);
    l.all_closed(2);
    drop(l);
    // If a module changes the user to one without an account, the login is denied.
    let stack = "auth required BARE rename=ghost\naccount required pam_permit.so\n\
                 password required pam_deny.so\nsession required pam_deny.so\n";
    let l = Plan::stack(stack).start();
    let line = l.refused_for("pam", "alice", "", &["hello"]);
    assert!(line.contains("does not exist"), "{line}");
}

#[test]
fn many_prompts_are_put_until_it_is_too_many() {
    if !needs_root() {
        return;
    }
    // pam_unix's prompt and this many more: the last is one too many.
    let rounds = cosserver::protocol::limits::ROUNDS;
    for (more, is_in) in [(rounds - 1, true), (rounds, false)] {
        let asks = "auth required BARE ask\n".repeat(more);
        let l = Plan::around("", &asks).start();
        let answers = format!("secret\n{}", "4711\n".repeat(more));
        let ended = look_inner(&mut l.gui("alice", &answers, &[], &["hello"])).finish();
        let expected = if is_in { Some(0) } else { Some(255) };
        assert_eq!(
            ended.status,
            expected,
            "{more}: {ended:?}\n{}",
            l.log_text()
        );
    }
}
