//! The tables `[gui.NAME]`: who may start which application, with which arguments.

use std::fs;

use crate::daemon::{self, needs_root};
use crate::login::Plan;

const APPLICATIONS: &str = "
[gui.named]
command = [\"/bin/echo\", \"named\"]
users = [\"alice\"]
[gui.group]
command = [\"/bin/echo\", \"group\"]
users = [\"@staff2\"]
[gui.primary]
command = [\"/bin/echo\", \"primary\"]
users = [\"@bob\"]
[gui.ghosts]
command = [\"/bin/echo\", \"ghosts\"]
users = [\"@nosuchgroup\", \"ghost\"]
[gui.everybody]
command = [\"/bin/echo\", \"everybody\"]
users = [\"*\"]
[gui.nobody]
command = [\"/bin/echo\", \"nobody\"]
[gui.words]
command = [\"/usr/bin/printf\", \"<%s>\\n\"]
arguments = true
users = [\"*\"]
";

#[test]
fn application_table_checks_users_groups_and_arguments() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        applications: APPLICATIONS,
        settings: "[daemon]\nrefusal-interval = 1\n",
        ..Plan::default()
    }
    .start();
    let may = [
        ("named", "alice"),
        ("group", "alice"),
        ("primary", "bob"),
        ("everybody", "alice"),
        ("everybody", "bob"),
    ];
    for name in ["named", "group", "primary", "ghosts", "everybody", "nobody"] {
        for user in ["alice", "bob"] {
            if may.contains(&(name, user)) {
                let ended = l.ended(&mut l.gui(user, "secret\n", &[], &[name]));
                assert_eq!(ended.out, [name], "{user}: {ended:?}\n{}", l.log_text());
            } else {
                let why = format!("users of [gui.{name}] does not name {user}");
                let line = l.refused(user, "secret\n", &[name]);
                assert!(line.contains(&why), "{line}");
            }
        }
    }
    // "Everybody" does not include root, who must be named.
    let ended = l.ended(&mut super::display::by_hash(&l, &["everybody"]));
    assert_eq!(ended.status, Some(255), "{ended:?}");
    l.d.log.wait("users of [gui.everybody] does not name root");
    // Nor is it a user for whom setresuid(2) would leave the application running as root.
    let passwd = l.d.folder.path("etc/passwd");
    let usual = fs::read_to_string(&passwd).unwrap();
    let changed = usual.replace(":3001:3001:", ":4294967295:3001:");
    assert_ne!(usual, changed);
    fs::write(&passwd, changed).unwrap();
    let ended = l.ended(&mut l.gui("alice", "secret\n", &[], &["everybody"]));
    assert_eq!(ended.status, Some(255), "{ended:?}");
    l.d.log
        .wait("cannot be used: the number of the user is 4294967295");
    fs::write(&passwd, usual).unwrap();
    let line = l.refused("alice", "secret\n", &["named", "more"]);
    assert!(
        line.contains("[gui.named] has no arguments = true"),
        "{line}"
    );
    // No shell interprets them.
    let words = ["a b", "$HOME", "*", ";id", "", "-x"];
    let mut all = vec!["words"];
    all.extend(words);
    let shown = words.map(|w| format!("<{w}>"));
    assert_eq!(l.alice_says(&all), shown);
}

#[test]
fn mistakes_in_a_table_name_file_line_and_the_nearest_key() {
    if !needs_root() {
        return;
    }
    let folder = Plan {
        applications: "",
        ..Plan::default()
    }
    .folder();
    let toml = folder.path("S/cosserver.toml");
    let before = fs::read_to_string(&toml).unwrap();
    let line = before.lines().count() + 2;
    for (text, parts) in [
        ("comand = [\"/x\"]", &["\"comand\"", "command"][..]),
        (
            "command = [\"/x\"]; users = 1",
            &["users", "list of user names"],
        ),
        ("command = [\"/x\"]; user = [\"a\"]", &["\"user\"", "users"]),
        ("command = [\"x\"]", &["command", "no absolute path"]),
        ("command = \"/x\"", &["command", "a list of words"]),
        (
            "command = [\"/x\"]; remote = \"yes\"",
            &["remote", "true or false"],
        ),
        ("command = [\"/x\"]; users = [\"-f\"]", &["users"]),
        (
            "command = [\"/x\"]; environment = { HOME = \"/x\" }",
            &["HOME is set by the daemon"],
        ),
        (
            "command = [\"/x\"]; environment = { \"A=B\" = \"x\" }",
            &["no variable's name"],
        ),
        // Regression: it was dropped without a message.
        (
            "command = [\"/x\"]; environment = { \"\" = \"x\" }",
            &["environment: \"\" is no variable's name"],
        ),
    ] {
        let table = format!("[gui.x]\n{}\n", text.replace("; ", "\n"));
        fs::write(&toml, format!("{before}{table}")).unwrap();
        let out = daemon::run(daemon::cosserver().arg("-t").arg("-f").arg(&toml));
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}: {said}");
        let at = line + text.matches("; ").count();
        for part in parts
            .iter()
            .copied()
            .chain([&*format!("cosserver.toml:{at}: ")])
        {
            assert!(said.contains(part), "{text}: {part}: {said}");
        }
    }
    for table in [
        "[gui.x]\n",
        "[gui]\nx = 1\n",
        "[gui.\"a b\"]\ncommand = [\"/x\"]\n",
    ] {
        fs::write(&toml, format!("{before}{table}")).unwrap();
        let out = daemon::run(daemon::cosserver().arg("-t").arg("-f").arg(&toml));
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(
            !out.status.success() && said.contains("cosserver.toml:"),
            "{table}: {said}"
        );
    }
}
