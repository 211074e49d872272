//! The command lines of `cos enrol` and `cos key`.

use super::tests::{complaint, parsed};
use std::num::NonZeroU16;

use super::*;
use crate::client::call::*;

#[test]
fn registrations_and_keys() {
    let line = [
        "cos", "-C", "A", "enrol", "-4", "hostb", "--name", " PC 17 ",
    ];
    let line = [&line[..], &["-p", "7000", "--password-fd", "3"]].concat();
    let Action::Enrol(call) = parsed(&line).unwrap() else {
        panic!("{line:?}")
    };
    assert_eq!((call.host.as_str(), call.words.len()), ("hostb", 0));
    assert_eq!(call.name.as_deref(), Some("PC 17"));
    assert_eq!(
        (call.password_fd, call.port.map(NonZeroU16::get)),
        (Some(3), Some(7000))
    );
    let long = "x".repeat(252);
    for (line, words) in [
        (&["cos", "enrol"][..], "usage: cos "),
        (
            &["cos", "enrol", "jo@hostb"],
            "a machine is registered, not a user",
        ),
        (
            &["cos", "enrol", "hostb", "x"],
            "enrol takes one host and no command: cos enrol hostb",
        ),
        (&["cos", "enrol", "-l", "jo", "hostb"], "-l is not known"),
        (&["cos", "enrol", "--name", " ", "hostb"], "it is empty"),
        (
            &["cos", "enrol", "--name", &long, "hostb"],
            "longer than 251 bytes",
        ),
        (
            &["cos", "enrol", "--name", "a\u{1b}[2J", "hostb"],
            "cannot be shown",
        ),
        (
            &["cos", "enrol", "--name", "a\u{202e}b", "hostb"],
            "cannot be shown",
        ),
        (
            &["cos", "run", "--name", "x", "hostb", "x"],
            "--name is not known",
        ),
        (&["cos", "key"], "usage: cos [-C DIR] [-v] key show"),
        (
            &["cos", "key", "make"],
            "\"make\" is unknown; usage: cos [-C DIR] [-v] key show",
        ),
        (
            &["cos", "key", "shwo", "--json"],
            "\"shwo\" is unknown; did you mean \"show\"?",
        ),
        (
            &["cos", "key", "show", "x"],
            "usage: cos [-C DIR] [-v] key show",
        ),
        (&["cos", "key", "show", "--xml"], "\"cos key --help\""),
    ] {
        let told = complaint(line);
        assert!(told.contains(words), "{line:?}: {told}");
    }
    let shows = |json, line: &[&str]| {
        let folder = (line[1] == "-C").then(|| "A".into());
        assert_eq!(
            parsed(line).unwrap(),
            Action::ShowKey(ShowKey { folder, json })
        );
    };
    shows(false, &["cos", "key", "show"]);
    shows(true, &["cos", "-C", "A", "key", "show", "--json"]);
    shows(true, &["cos", "key", "--json", "show"]);
}

#[test]
fn suggested_enrol_command_can_be_typed_as_printed() {
    for (line, command) in [
        (&["cos", "run", "hostb", "x"][..], "`cos enrol hostb`"),
        (
            &["cos", "-C", "my S", "gui", "-p", "7000", "jo@hostb", "x"],
            "`cos -C 'my S' enrol -p 7000 hostb`",
        ),
    ] {
        let (Action::Run(call) | Action::Gui(call)) = parsed(line).unwrap() else {
            panic!("{line:?}")
        };
        assert_eq!(call.enrolment(), command);
    }
}

#[test]
fn every_flag_is_in_the_help() {
    for (line, table) in [
        (&["cos", "enrol", "--help"], flags::ENROL),
        (&["cos", "key", "--help"], flags::KEY),
        (&["cos", "gui", "--help"], flags::GUI),
    ] {
        let Action::Tell(text) = parsed(line).unwrap() else {
            panic!("{line:?}")
        };
        let has = |f: &flags::Flag| text.contains(&f.line(22));
        assert!(table.iter().all(has), "{text}");
        assert!(text.lines().all(|l| l.len() < 120), "{text}");
    }
}

/// In the forms that cosadm and cosserver accept.
#[test]
fn short_long_and_bare_forms_of_help_and_version() {
    for (line, long) in [
        (&["cos", "-h"][..], &["cos", "--help"][..]),
        (&["cos", "help"], &["cos", "--help"]),
        (&["cos", "help", "gui"], &["cos", "gui", "--help"]),
        (&["cos", "help", "enrol"], &["cos", "enrol", "--help"]),
        (&["cos", "gui", "-h"], &["cos", "gui", "--help"]),
        (&["cos", "-V"], &["cos", "--version"]),
        (&["cos", "run", "-V"], &["cos", "--version"]),
    ] {
        let told = parsed(line).unwrap();
        assert!(matches!(told, Action::Tell(_)), "{line:?}");
        assert_eq!(told, parsed(long).unwrap(), "{line:?}");
    }
    assert!(complaint(&["cos", "help", "guii"]).contains("did you mean \"gui\"?"));
}
