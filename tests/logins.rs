//! Logins through real PAM, with pam_unix and real accounts: who can log in, who cannot, and what
//! each of them is told.

use crate::daemon;
use crate::login;

#[path = "login/asked.rs"]
mod asked;
#[path = "login/by_inetd.rs"]
mod by_inetd;
#[path = "login/client.rs"]
mod client;
#[path = "login/crowd.rs"]
mod crowd;
#[path = "login/display.rs"]
mod display;
#[path = "login/ends.rs"]
mod ends;
#[path = "login/inside.rs"]
mod inside;
#[path = "login/left.rs"]
mod left;
#[path = "login/own.rs"]
mod own;
#[path = "login/stack.rs"]
mod stack;
#[path = "login/tables.rs"]
mod tables;
#[path = "login/trouble.rs"]
mod trouble;
#[path = "login/whole.rs"]
mod whole;

use daemon::needs_root;
use login::{Logins, PASSWORD, WRONG};

#[test]
fn right_password_is_accepted() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);
    l.all_closed(1);
    let notes = l.notes();
    assert!(
        notes
            .iter()
            .all(|n| n.contains("user=alice rhost=127.0.0.1 tty=cosserver ruser=? tag=")),
        "{notes:?}"
    );
    // PAM opens and closes in the same process, with its variables.
    let end = |n: &String| n.split("tag=").nth(1).unwrap().to_owned();
    assert!(notes.iter().all(|n| end(n) == end(&notes[0])), "{notes:?}");
    assert!(end(&notes[0]).starts_with("mine "));
    let line = l.d.log.wait("login session=");
    for part in [
        "user=alice",
        "application=hello",
        "display=127.0.0.1:9003",
        "detached=false",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn unauthorized_logins_are_refused_and_the_log_names_the_cause() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let wrong = format!("{WRONG}\n");
    let right = format!("{PASSWORD}\n");
    for (user, answers, application, why) in [
        ("alice", &wrong, "hello", "Authentication failure"),
        (
            "nobodyhere",
            &right,
            "hello",
            "User not known to the underlying authentication module",
        ),
        ("locked", &right, "hello", "PAM: Authentication failure"),
        (
            "expired",
            &right,
            "hello",
            "PAM: account: User account has expired",
        ),
        ("empty", &"\n".to_owned(), "hello", "Authentication failure"),
        ("empty", &right, "hello", "Authentication failure"),
        ("alice", &right, "nothing", "there is no [gui.nothing]"),
        (
            "bob",
            &right,
            "show",
            "users of [gui.show] does not name bob",
        ),
        ("root", &right, "hello", "Authentication failure"),
    ] {
        let line = l.refused(user, answers, &[application]);
        assert!(line.contains(why), "{user} {application}: {line}");
        let asks = format!("why=\"{user} asks for {application}: ");
        assert!(line.contains(&asks), "{line}");
    }
    assert_eq!(
        l.notes(),
        Vec::<String>::new(),
        "a session for somebody refused"
    );
}
