//! `cosadm`'s subcommands for the registry, as an administrator or a script runs them.

use crate::daemon;
use crate::host;
#[path = "doors_admin/edit.rs"]
mod edit;
#[path = "doors_admin/trouble.rs"]
mod trouble;

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use cosserver::config::keys;
use cosserver::config::machines;
use cosserver::config::name::HostName;
use cosserver::registry::{Doors, Id, Inner, Level, Name, RegistrationState};
use cosserver::secret::PublicKey;
use daemon::Daemon;
use host::{Host, chmod, text};

const A: &str = "00112233445566778899aabbccddeeff";
const B: &str = "ffeeddccbbaa99887766554433221100";

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

#[test]
fn machines_are_added_listed_renamed_and_deleted() {
    let s = Host::new();
    assert_eq!(
        s.json(&["machine", "list"])["machines"],
        serde_json::json!([])
    );
    let added = s.json(&["machine", "add", A, "--name", "Reception PC"]);
    assert_eq!((&added["id"], &added["added"]), (&A.into(), &true.into()));
    // As displayed, in groups, and in capitals.
    let grouped = format!("{} {}", &B[..16], &B[16..]).to_uppercase();
    let told = s.tells(&["machine", "add", &grouped, "--name", "attic", "--local"]);
    assert!(
        told.contains("door is closed, so it is now on the include list"),
        "{told}"
    );
    let again = s.json(&["machine", "add", A, "--name", "Reception"]);
    assert_eq!(
        (&again["name"], &again["added"]),
        (&"Reception".into(), &false.into())
    );
    let lines = s.good(&["machine", "list"]);
    let lines: Vec<Vec<&str>> = lines
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0][..3], ["1", "attic", B]);
    assert_eq!(lines[1][..3], ["2", "Reception", A]);
    assert_eq!(
        (lines[0][4], lines[1][4], lines[1][5]),
        ("Local", "Remote", "never")
    );
    let rows = &s.json(&["machine", "list"])["machines"];
    assert_eq!(
        (&rows[0]["remote"], &rows[1]["remote"]),
        (&false.into(), &true.into())
    );
    assert!(rows[0]["seen"].is_null() && rows[0]["authorized"].as_u64() > Some(1_700_000_000));
    s.good(&["machine", "rename", A, "Front desk"]);
    let deleted = s.json(&["machine", "delete", A]);
    assert_eq!(deleted["name"], "Front desk");
    assert_eq!(
        (&deleted["excluded"], &deleted["host"]),
        (&false.into(), &serde_json::Value::Null)
    );
    for command in [
        vec!["machine", "delete", A],
        vec!["machine", "rename", A, "x"],
    ] {
        assert!(s.bad(1, &command).contains("machine list` shows them"));
    }
    assert!(
        s.json(&["exclude", "list"])["excluded"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    s.good(&["machine", "delete", B, "--exclude"]);
    let excluded = &s.json(&["exclude", "list"])["excluded"];
    assert_eq!(
        (&excluded[0]["id"], &excluded[0]["name"]),
        (&B.into(), &"attic".into())
    );
    // A machine that does not exist is not excluded by mistake.
    s.bad(1, &["machine", "delete", A, "--exclude"]);
    assert_eq!(
        s.json(&["exclude", "list"])["excluded"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let told = s.tells(&["machine", "add", B, "--name", "attic"]);
    assert!(told.contains("on the exclude list"), "{told}");
}

/// `machine add` needs no second command, also while the outer door is closed.
#[test]
fn machine_added_while_the_outer_door_is_closed_is_allowed() {
    let s = Host::new();
    assert_eq!(s.json(&["door", "status"])["level"], 2);
    let added = s.json(&["machine", "add", A, "--name", "a"]);
    assert_eq!(added["included"], true);
    assert_eq!(s.json(&["door", "status"])["not_included"], 0);
    let meets = s.json(&["sestab", "inquire", A]);
    assert_eq!(
        (&meets["included"], &meets["meets"]),
        (&true.into(), &"in".into())
    );
    // Once is enough, and while the outer door is open no list is needed.
    let again = s.json(&["machine", "add", A, "--name", "a"]);
    assert_eq!(again["included"], false);
    s.good(&["door", "open"]);
    assert_eq!(
        s.json(&["machine", "add", B, "--name", "b"])["included"],
        false
    );
    assert_eq!(s.json(&["sestab", "inquire", B])["included"], false);
}

#[test]
fn machine_name_is_accepted_where_it_is_unique() {
    let s = Host::new();
    s.good(&["machine", "add", A, "--name", "Reception PC"]);
    s.good(&["machine", "add", B, "--name", "attic"]);
    s.good(&["machine", "rename", "reception pc", "Attic"]);
    // If two have the same name neither is taken, and both are listed.
    for command in [
        &["machine", "delete", "attic"][..],
        &["machine", "rename", "ATTIC", "x"],
        &["exclude", "add", "attic"],
    ] {
        let told = s.bad(1, command);
        assert!(told.contains("several machines are named"), "{told}");
        assert!(told.contains(A) && told.contains(B), "{told}");
    }
    s.good(&["machine", "rename", A, "Reception PC"]);
    assert_eq!(s.json(&["machine", "delete", "Reception PC"])["id"], A);
    let told = s.bad(1, &["machine", "delete", "Reception PC"]);
    assert!(
        told.contains("no authorized machine has the ID or the name"),
        "{told}"
    );
    // An ID is taken as an ID, and what can be neither is an error of the command line.
    s.bad(2, &["machine", "delete", "\u{1b}x"]);
    assert_eq!(s.json(&["exclude", "add", "attic"])["id"], B);
    assert_eq!(
        s.json(&["machine", "delete", "attic", "--exclude"])["id"],
        B
    );
}

/// Several machines may have the same name, and the manager is told.
#[test]
fn machine_add_reports_a_name_already_in_use() {
    let s = Host::new();
    let told = s.tells(&["machine", "add", A, "--name", "attic"]);
    assert!(!told.contains("as well"), "{told}");
    // The same machine again, with different capitals, is not another one.
    let told = s.tells(&["machine", "add", A, "--name", "Attic"]);
    assert!(!told.contains("as well"), "{told}");
    let same = format!("another machine is called Attic as well: {A}");
    let told = s.tells(&["machine", "add", B, "--name", "attic"]);
    assert!(told.contains(&same), "{told}");
    assert!(
        !s.tells(&["machine", "rename", B, "cellar"])
            .contains("as well")
    );
    assert!(s.tells(&["machine", "rename", B, "ATTIC"]).contains(&same));
    s.good(&["machine", "delete", B]);
    let out = s.run(&["otp", "add", "attic"]);
    assert!(text(&out.stderr).contains(&same), "{out:?}");
    assert_eq!(text(&out.stdout).lines().count(), 1);
    assert!(!text(&s.run(&["otp", "add", "Atti"]).stderr).contains("as well"));
}

#[test]
fn a_host_that_is_deleted_is_named() {
    let s = Host::new();
    let key = PublicKey([7; 32]);
    let hosta = HostName::parse("hosta").unwrap();
    fs::write(s.paths().hostinfo(), "hosta cos addr=::1\n").unwrap();
    machines::record(&s.paths(), &hosta, key).unwrap();
    let machine = Id::of(&key).to_string();
    s.good(&["machine", "add", &machine, "--name", "hosta"]);
    assert_eq!(s.json(&["machine", "delete", &machine])["host"], "hosta");
    s.good(&["machine", "add", &machine, "--name", "hosta"]);
    let told = s.tells(&["machine", "delete", &machine]);
    let again = format!("machine add {machine} --name hosta` allows it again");
    assert!(
        told.contains("host hosta in hostinfo") && told.contains(&again),
        "{told}"
    );
    assert!(
        told.contains("unless it registers again while the outer door is open"),
        "{told}"
    );
    s.good(&["machine", "add", &machine, "--name", "hosta"]);
    let told = s.tells(&["machine", "delete", &machine, "--exclude"]);
    let again = format!("machine add {machine} --name hosta` allow it again");
    assert!(
        told.contains(&format!("exclude delete {machine}` and ")) && told.contains(&again),
        "{told}"
    );
}

#[test]
fn exclusions_are_listed_and_removed() {
    let s = Host::new();
    s.good(&["machine", "add", A, "--name", "Reception"]);
    // The inner door knows the name.
    let told = s.tells(&["exclude", "add", A, "--now"]);
    assert!(
        told.contains("Reception") && told.contains("no daemon runs"),
        "{told}"
    );
    let added = s.json(&["exclude", "add", B, "--name", "A stranger", "--now"]);
    assert_eq!(
        (&added["added"], &added["cut"]),
        (&true.into(), &serde_json::Value::Null)
    );
    // Open connections are not hung up, and the message says so.
    let told = s.tells(&["exclude", "add", B]);
    let now = format!(
        "sessions continue, and `cosadm -C {} exclude add {B} --now`",
        s.dir.display()
    );
    assert!(told.contains(&now), "{told}");
    // A second exclusion keeps its name.
    let added = s.json(&["exclude", "add", B]);
    assert_eq!(
        (&added["added"], &added["name"]),
        (&false.into(), &"A stranger".into())
    );
    let lines = s.good(&["exclude", "list"]);
    assert!(
        lines.starts_with("    1 A stranger") && lines.contains("\n    2 Reception"),
        "{lines}"
    );
    s.good(&["exclude", "delete", B]);
    assert!(
        s.bad(1, &["exclude", "delete", B])
            .contains("exclude list` shows it")
    );
    let own = keys::load_machine_key(&s.paths()).unwrap().public;
    let told = s.tells(&["exclude", "add", &Id::of(&own).to_string()]);
    assert!(told.contains("this configuration folder itself"), "{told}");
}

#[test]
fn exclude_now_hangs_up_sessions() {
    let d = Daemon::start();
    let s = Host::of(d.server());
    let key = keys::load_machine_key(&Host::of(d.client()).paths())
        .unwrap()
        .public;
    let machine = Id::of(&key).to_string();
    let mut session = d.session(&["echo on; read x"]);
    session.out.wait("on");
    assert_eq!(s.json(&["exclude", "add", B, "--now"])["cut"], 0);
    assert_eq!(s.json(&["exclude", "add", &machine, "--now"])["cut"], 1);
    drop(session.stdin.take());
    assert_ne!(session.finish().status, Some(0));
    assert_eq!(s.json(&["exclude", "add", &machine, "--now"])["cut"], 0);
}

/// Regression: `otp add NAME > FILE`, run twice, emptied the file, because the shell does that
/// first. With `-o` the first password stays.
#[test]
fn a_one_time_password_goes_to_a_new_file_or_is_not_made() {
    use std::os::unix::fs::PermissionsExt;
    let s = Host::new();
    let file = s.folder("out", 0o700).join("password");
    let name = file.to_str().unwrap();
    let told = s.tells(&["otp", "add", "Attic", "-o", name]);
    assert!(
        told.contains(&format!("the password is in {name}")),
        "{told}"
    );
    let password = fs::read(&file).unwrap();
    assert_eq!(password.len(), 40);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let exists = "the file exists already; nothing was changed";
    for who in ["Attic", "Cellar"] {
        let told = s.bad(1, &["otp", "add", who, "-o", name]);
        assert!(told.contains(exists), "{told}");
    }
    let other = file.with_file_name("other");
    let told = s.bad(1, &["otp", "add", "Attic", "-o", other.to_str().unwrap()]);
    assert!(
        told.contains("delete it first") && !other.exists(),
        "{told}"
    );
    assert_eq!(fs::read(&file).unwrap(), password);
    // A password that cannot be written is withdrawn.
    let nowhere = file.join("none");
    let told = s.bad(
        1,
        &["otp", "add", "Cellar", "-o", nowhere.to_str().unwrap()],
    );
    assert!(told.contains("and is withdrawn"), "{told}");
    s.bad(
        2,
        &["otp", "add", "Cellar", "-o", "x", "--password-fd", "0"],
    );
    let all = s.json(&["otp", "list"]);
    assert_eq!(all["passwords"].as_array().unwrap().len(), 1, "{all}");
}

#[test]
fn one_time_passwords_are_made_chosen_and_deleted() {
    let s = Host::new();
    let out = s.run(&["otp", "add", "Reception PC"]);
    let (password, told) = (text(&out.stdout), text(&out.stderr));
    // Nothing else is on standard output, so that a script can read it.
    assert_eq!(
        (password.len(), password.lines().count()),
        (40, 1),
        "{password}"
    );
    assert!(told.contains("no machine can register until"), "{told}");
    let made = s.json(&["otp", "add", "Attic"]);
    assert_eq!(
        (&made["name"], &made["generated"]),
        (&"Attic".into(), &true.into())
    );
    assert!(
        s.bad(1, &["otp", "add", "Attic"])
            .contains("delete it first")
    );
    let chosen = |name: &str, line: &str, flags: &str| {
        let script = format!(
            "exec \"$0\" -C \"$1\" otp add '{name}' --password-fd 7 {flags} 7<<'END'\n{line}\nmore\nEND"
        );
        s.shell(&script)
    };
    let weak = chosen("Cellar", "secret", "--json");
    assert!(
        weak.status.success() && text(&weak.stderr).contains("fewer than 8"),
        "{weak:?}"
    );
    let weak: serde_json::Value = serde_json::from_slice(&weak.stdout).unwrap();
    assert_eq!(
        (&weak["generated"], &weak["password"]),
        (&false.into(), &serde_json::Value::Null)
    );
    let good = chosen("Garden", "long enough", "");
    assert!(
        good.status.success() && !text(&good.stderr).contains("fewer"),
        "{good:?}"
    );
    assert_eq!(chosen("Roof", "long enough", "").status.code(), Some(1));
    assert_eq!(chosen("Roof", "", "").status.code(), Some(1));
    let names = |s: &Host| -> Vec<String> {
        let all = s.json(&["otp", "list"]);
        let all = all["passwords"].as_array().unwrap().iter();
        all.map(|p| p["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&s), ["Attic", "Cellar", "Garden", "Reception PC"]);
    assert!(s.good(&["otp", "list"]).starts_with("    1 Attic "));
    s.good(&["otp", "delete", "Attic"]);
    assert!(
        s.bad(1, &["otp", "delete", "Attic"])
            .contains("otp list` shows them")
    );
    assert!(
        s.bad(1, &["otp", "add", "x", "--password-fd", "99"])
            .contains("is not open")
    );
    s.bad(2, &["otp", "add", "x", "--password-fd", "y"]);
    // The inner door accepts each of them once, without the end of the line.
    let mut inner = s.inner();
    for (n, typed, name) in [
        (1, password.trim_end(), "Reception PC"),
        (2, "secret", "Cellar"),
        (3, "long enough", "Garden"),
    ] {
        let name = Name::parse(name).unwrap();
        let other = Name::parse("other").unwrap();
        let mut activate = || {
            inner.activate(&Id([n; 16]), typed.as_bytes(), &other, true, &mut || {
                Ok(true)
            })
        };
        assert_eq!(activate().unwrap(), Some(name));
    }
    assert!(names(&s).is_empty());
}

#[test]
fn door_close_includes_authorized_machines() {
    let s = Host::new();
    let told = s.bad(1, &["door", "close"]);
    assert!(
        told.contains("remains closed") && told.contains("machine add ID"),
        "{told}"
    );
    assert!(
        !told.contains("not closed") && !told.contains("door open"),
        "{told}"
    );
    let told = s.tells(&["door", "open"]);
    assert!(
        told.contains("unknown machines: denied (no activation password is set)"),
        "{told}"
    );
    assert!(told.contains("otp add NAME`"), "{told}");
    let told = s.bad(1, &["door", "close"]);
    for words in [
        "is not closed: no machine is authorized",
        "would deny every machine; hosts of hostinfo that prove their cookie are still allowed",
        "machine add ID",
    ] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(s.json(&["door", "status"])["level"], 1);
    // As after installation.
    let told = s.tells(&["sestab", "level", "2"]);
    assert!(
        told.contains("the include list is empty: hosts of hostinfo") && told.contains("no others"),
        "{told}"
    );
    assert_eq!(s.json(&["door", "status"])["outer_door"], "closed");
    s.good(&["door", "open"]);
    s.good(&["machine", "add", A, "--name", "a"]);
    s.good(&["machine", "add", B, "--name", "b"]);
    assert_eq!(s.json(&["door", "close"])["included"], 2);
    s.good(&["machine", "delete", B]);
    s.good(&["otp", "add", "Jo"]);
    let status = s.json(&["door", "status"]);
    for (field, value) in [
        ("outer_door", "closed".into()),
        ("level", 2.into()),
        ("included", 2.into()),
        ("excluded", 0.into()),
        ("authorized", 1.into()),
        ("not_included", 0.into()),
        ("one_time_passwords", 1.into()),
        ("build_mode", false.into()),
        ("backdoor_password", false.into()),
        ("unknown", serde_json::Value::from("refused")),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
    assert_eq!(status["folder"], s.paths().state.to_str().unwrap());
    // A machine that is authorized while the outer door is open is allowed after it is closed.
    let c = "0123456789abcdef0123456789abcdef";
    s.good(&["door", "open"]);
    s.good(&["machine", "add", c, "--name", "c"]);
    s.good(&["sestab", "level", "2"]);
    assert_eq!(s.json(&["door", "status"])["not_included"], 1);
    let words = s.good(&["door", "status"]);
    assert!(
        words.contains("1 authorized machine is not on the include list")
            && words.contains("closing it again adds it"),
        "{words}"
    );
    s.good(&["door", "close"]);
    assert!(
        !s.good(&["door", "status"])
            .contains("not on the include list")
    );
    s.good(&["machine", "delete", c]);
    s.good(&["door", "open"]);
    assert_eq!(s.json(&["door", "status"])["unknown"], "password");
    let words = s.good(&["door", "status"]);
    assert!(
        words.contains("outer door          open (level 1)"),
        "{words}"
    );
    assert!(
        words.contains("prompted for an activation password"),
        "{words}"
    );
    s.good(&["settings", "set", "build-mode", "yes"]);
    assert_eq!(s.json(&["door", "status"])["unknown"], "name");
    s.good(&["sestab", "level", "0"]);
    assert_eq!(s.json(&["door", "status"])["unknown"], "in");
    assert_eq!(s.json(&["door", "close"])["included"], 1);
}

#[test]
fn settings_are_set_and_shown() {
    let s = Host::new();
    let all = s.json(&["settings", "list"]);
    assert_eq!(
        all,
        serde_json::json!({"build_mode": false, "remote_only": false, "backdoor_password": false,
            "welcome": "", "folder": s.paths().state})
    );
    s.good(&["settings", "set", "build-mode", "yes"]);
    s.good(&["settings", "set", "remote-only", "yes"]);
    assert_eq!(s.good(&["settings", "get", "build-mode"]), "yes\n");
    assert_eq!(
        s.json(&["settings", "get", "remote-only"])["remote_only"],
        true
    );
    s.good(&["settings", "set", "build-mode", "no"]);
    assert_eq!(s.good(&["settings", "get", "build-mode"]), "no\n");
    s.good(&["settings", "set", "welcome", "yes"]);
    assert!(
        s.good(&["settings", "get", "welcome"])
            .starts_with("Welcome to ")
    );
    s.good(&["settings", "set", "welcome", "Good morning, \"all\""]);
    assert_eq!(
        s.json(&["settings", "get", "welcome"])["welcome"],
        "Good morning, \"all\""
    );
    for none in ["no", ""] {
        s.good(&["settings", "set", "welcome", "x"]);
        s.good(&["settings", "set", "welcome", none]);
        assert_eq!(s.good(&["settings", "get", "welcome"]), "\n");
    }
    s.good(&["settings", "set", "welcome", "x"]);
    let told = s.tells(&["settings", "set", "welcome"]);
    assert_eq!(told, "cosadm: there is no welcome message now\n");
    // The message begins with what was done.
    for (name, value, words) in [
        (
            "build-mode",
            "yes",
            "build mode is on now; outer door: closed; ",
        ),
        ("build-mode", "no", "build mode is off now; "),
        ("remote-only", "no", "remote-only is off now; "),
        ("remote-only", "yes", "remote-only is on now; "),
        (
            "welcome",
            "Good day",
            "the welcome message is set: Good day\n",
        ),
        ("welcome", "no", "there is no welcome message now\n"),
    ] {
        let told = s.tells(&["settings", "set", name, value]);
        assert!(told.starts_with(&format!("cosadm: {words}")), "{told}");
    }
    for (code, words) in [
        (2, &["settings", "set", "build-mode", "maybe"][..]),
        (2, &["settings", "set", "build-mode"]),
        (2, &["settings", "set", "backdoor-password", "secret"]),
        (2, &["settings", "get", "bild-mode"]),
        (1, &["settings", "set", "welcome", "\u{1b}[2J"]),
        (1, &["settings", "set", "backdoor-password"]),
        (1, &["settings", "set", "folder", "/nowhere/at/all"]),
    ] {
        s.bad(code, words);
    }
    let told = s.bad(2, &["settings", "get", "bild-mode"]);
    assert!(told.contains("did you mean \"build-mode\"?"), "{told}");
}

#[test]
fn the_backdoor_is_read_and_never_shown() {
    let s = Host::new();
    let set = |line: &[u8]| {
        let mut command = s.command(&["settings", "set", "backdoor-password", "--json"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(line).unwrap();
        child.wait_with_output().unwrap()
    };
    let done = set(b"a long backdoor\n");
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert_eq!(text(&done.stdout), "{\"backdoor_password\":true}\n");
    assert_eq!(s.good(&["settings", "get", "backdoor-password"]), "set\n");
    let shown = s.good(&["settings", "list"]) + &s.good(&["door", "status"]);
    assert!(!shown.contains("long backdoor"), "{shown}");
    let other = Name::parse("jo").unwrap();
    let known = s
        .inner()
        .activate(&id(A), b"a long backdoor", &other, true, &mut || Ok(true));
    assert_eq!(known.unwrap(), Some(other));
    // No line is not an empty line.
    assert_eq!(set(b"").status.code(), Some(1));
    assert_eq!(s.good(&["settings", "get", "backdoor-password"]), "set\n");
    assert!(text(&set(b"short\n").stderr).contains("fewer than 8"));
    assert!(set(b"\n").status.success());
    assert_eq!(s.good(&["settings", "get", "backdoor-password"]), "none\n");
    for (line, words) in [
        ("a long one", "the backdoor password is set; "),
        ("", "there is no backdoor password now; "),
    ] {
        let script = format!("echo '{line}' | \"$0\" -C \"$1\" settings set backdoor-password");
        let told = text(&s.shell(&script).stderr);
        assert!(told.starts_with(&format!("cosadm: {words}")), "{told}");
    }
}

#[test]
fn the_inner_door_is_moved() {
    let s = Host::new();
    s.good(&["machine", "add", A, "--name", "a"]);
    let shared = s.folder("shared", 0o700);
    let shared = shared.to_str().unwrap();
    let told = s.tells(&["settings", "set", "folder", shared]);
    assert!(
        told.contains("which was created") && told.contains("not copied"),
        "{told}"
    );
    assert_eq!(s.good(&["settings", "get", "folder"]).trim(), shared);
    assert_eq!(s.json(&["door", "status"])["authorized"], 0);
    s.good(&["machine", "add", B, "--name", "b"]);
    // Another host on the same directory.
    let t = Host::new();
    let told = t.tells(&["settings", "set", "folder", shared]);
    assert!(told.contains("which existed already"), "{told}");
    assert_eq!(t.json(&["machine", "list"])["machines"][0]["id"], B);
    let told = t.tells(&["settings", "set", "folder", "default"]);
    assert!(told.contains("not copied"), "{told}");
    assert_eq!(t.json(&["door", "status"])["authorized"], 0);
    // A directory that others can write is rejected, and nothing changes.
    let open = s.folder("open", 0o777);
    let told = s.bad(1, &["settings", "set", "folder", open.to_str().unwrap()]);
    assert!(told.contains("can be written by all users"), "{told}");
    assert_eq!(s.good(&["settings", "get", "folder"]).trim(), shared);
    assert!(fs::read_dir(&open).unwrap().next().is_none());
    // With or without the sticky bit.
    chmod(&open, 0o1777);
    let told = s.bad(1, &["settings", "set", "folder", open.to_str().unwrap()]);
    assert!(
        told.contains("others can write it (mode 1777)") && told.contains("mkdir -m 700"),
        "{told}"
    );
    assert!(fs::read_dir(&open).unwrap().next().is_none());
    assert_eq!(s.good(&["settings", "get", "folder"]).trim(), shared);
    chmod(shared.as_ref(), 0o1777);
    let check = s.run(&["check"]);
    let told = text(&check.stdout);
    assert!(
        told.contains("others can write it (mode 1777)") && check.status.code() == Some(1),
        "{told}"
    );
    chmod(shared.as_ref(), 0o700);
    assert!(s.run(&["check"]).status.success());
    // A directory that is not mounted is named, and there is a way to correct the setting.
    fs::remove_dir_all(shared).unwrap();
    let told = s.bad(1, &["machine", "list"]);
    assert!(told.contains("is its folder mounted?"), "{told}");
    s.good(&["exclude", "add", A]);
    s.good(&["settings", "set", "folder", "default"]);
    assert_eq!(s.json(&["machine", "list"])["machines"][0]["id"], A);
}

#[test]
fn the_ten_calls_of_the_session_table() {
    let s = Host::new();
    let told = s.bad(1, &["sestab", "enable", "I"]);
    assert!(
        told.contains("include list is empty") && told.contains("remains closed"),
        "{told}"
    );
    s.good(&["sestab", "level", "1"]);
    let told = s.bad(1, &["sestab", "enable", "I"]);
    assert!(
        told.contains("would deny every machine") && told.contains("door close"),
        "{told}"
    );
    assert_eq!(s.good(&["sestab", "level"]), "1\n");
    s.good(&["sestab", "level", "2"]);
    assert_eq!(
        s.json(&["sestab", "set", "I", A, "--name", "Reception"])["added"],
        true
    );
    assert_eq!(s.json(&["sestab", "set", "I", A])["name"], "Reception");
    // A machine that the inner door does not know is denied there.
    let told = s.tells(&["sestab", "set", "I", A]);
    assert!(
        told.contains("inner door does not know")
            && told.contains(&format!("machine add {A} --name")),
        "{told}"
    );
    s.good(&["machine", "add", A, "--name", "Reception"]);
    assert!(!s.tells(&["sestab", "set", "I", A]).contains("inner door"));
    s.good(&["sestab", "delete", "I", A]);
    assert_eq!(s.json(&["sestab", "set", "I", A])["name"], "Reception");
    assert_eq!(s.json(&["sestab", "set", "E", B])["list"], "E");
    assert_eq!(s.json(&["sestab", "get", "I", A])["name"], "Reception");
    assert!(s.good(&["sestab", "get", "E", B]).contains(B));
    s.bad(1, &["sestab", "get", "E", A]);
    let both = s.json(&["sestab", "list"]);
    assert_eq!(
        (&both["include"][0]["id"], &both["exclude"][0]["id"]),
        (&A.into(), &B.into())
    );
    assert_eq!(both["level"], 2);
    let one = s.json(&["sestab", "list", "E"]);
    assert!(one["include"].is_null() && one["exclude"][0]["id"] == B);
    let lines = s.good(&["sestab", "list"]);
    assert!(
        lines.starts_with("I (include list, enforced): 1 machine\n    1 Reception"),
        "{lines}"
    );
    assert!(
        lines.contains("\nE (exclude list, enforced): 1 machine\n"),
        "{lines}"
    );
    assert_eq!(s.json(&["sestab", "disable", "I"])["level"], 1);
    assert!(
        s.good(&["sestab", "list", "I"])
            .starts_with("I (include list, not enforced): 1")
    );
    let told = s.bad(1, &["sestab", "disable", "E"]);
    let delete = format!("`cosadm -C {} exclude delete ID`", s.dir.display());
    assert!(
        told.contains("always enforced") && told.contains(&delete),
        "{told}"
    );
    assert_eq!(s.json(&["sestab", "enable", "E"])["level"], 1);
    assert_eq!(s.json(&["sestab", "enable", "I"])["level"], 2);
    assert_eq!(s.good(&["sestab", "level"]), "2\n");
    for (n, door) in [("0", "off"), ("1", "open"), ("2", "closed")] {
        assert_eq!(s.json(&["sestab", "level", n])["outer_door"], door);
        assert_eq!(s.json(&["sestab", "level"])["outer_door"], door);
    }
    for (code, words) in [
        (2, &["sestab", "level", "3"][..]),
        (2, &["sestab", "list", "X"]),
        (2, &["sestab", "get", "I", "12"]),
        (2, &["sestab", "get", "I"]),
        (1, &["sestab", "delete", "I", B]),
    ] {
        s.bad(code, words);
    }
    s.good(&["sestab", "delete", "I", A]);
    s.good(&["sestab", "delete", "E", B]);
    assert_eq!(
        s.json(&["sestab", "list"])["include"],
        serde_json::json!([])
    );
}

#[test]
fn a_machine_is_inquired_as_the_daemon_decides() {
    let s = Host::new();
    let own = Id::of(&keys::load_machine_key(&s.paths()).unwrap().public).to_string();
    let seen = s.json(&["sestab", "inquire"]);
    assert_eq!(
        (&seen["id"], &seen["meets"]),
        (&own.clone().into(), &"refused".into())
    );
    assert_eq!(
        (&seen["standing"], &seen["meets_as_host"]),
        (&"unknown".into(), &"in".into())
    );
    // It connects from this host itself.
    s.good(&["settings", "set", "remote-only", "yes"]);
    assert_eq!(s.json(&["sestab", "inquire"])["meets"], "in");
    assert_eq!(s.json(&["sestab", "inquire", A])["meets"], "refused");
    s.good(&["door", "open"]);
    s.good(&["machine", "add", A, "--name", "a"]);
    s.good(&["sestab", "level", "2"]);
    let seen = s.json(&["sestab", "inquire", A]);
    assert_eq!(
        (&seen["meets"], &seen["meets_from_here"], &seen["name"]),
        (&"refused".into(), &"in".into(), &"a".into())
    );
    let words = s.good(&["sestab", "inquire", A]);
    assert!(
        words.starts_with(&format!("{A} a\n"))
            && words.contains("remote-only is on: connections from this host itself are allowed"),
        "{words}"
    );
    s.good(&["settings", "set", "remote-only", "no"]);
    let words = s.good(&["sestab", "inquire", B]);
    assert!(
        words.starts_with(&format!("{B}\n")) && !words.contains("remote-only"),
        "{words}"
    );
    s.good(&["door", "close"]);
    assert_eq!(s.json(&["sestab", "inquire", A])["meets"], "in");
    s.good(&["machine", "delete", A]);
    let deleted = s.json(&["sestab", "inquire", A]);
    assert_eq!(
        (&deleted["standing"], &deleted["meets_as_host"]),
        (&"deleted".into(), &"refused".into())
    );
    s.good(&["door", "open"]);
    s.good(&["otp", "add", "x"]);
    assert_eq!(s.json(&["sestab", "inquire", A])["meets"], "password");
    s.good(&["exclude", "add", A]);
    let words = s.good(&["sestab", "inquire", A]);
    assert!(words.contains("its machine is excluded"), "{words}");
    assert!(s.json(&["sestab", "inquire", A])["standing"].is_null());
    let mut doors = Doors::of(&s.paths());
    assert!(doors.look(id(A)).unwrap().excluded);
    assert_eq!(doors.look(id(B)).unwrap().state, RegistrationState::Never);
    assert_eq!(s.outer().level().unwrap(), Level::Open);
}

#[test]
fn check_reports_which_machines_the_registry_allows() {
    let s = Host::new();
    let check = |s: &Host| text(&s.run(&["check"]).stdout);
    let told = check(&s);
    assert!(
        told.contains("ok       doors: unknown machines: denied"),
        "{told}"
    );
    assert!(!told.contains("warning  doors"), "{told}");
    s.good(&["settings", "set", "build-mode", "yes"]);
    s.inner().set_backdoor(Some(b"a backdoor")).unwrap();
    assert!(!check(&s).contains("warning  doors"));
    s.good(&["door", "open"]);
    let told = check(&s);
    for words in [
        "open in build mode",
        "backdoor password: anyone who guesses",
    ] {
        let line = told
            .lines()
            .find(|l| l.contains(words))
            .unwrap_or_else(|| panic!("{told}"));
        assert!(line.starts_with("warning  doors: "), "{line}");
    }
    assert!(
        told.contains("note     doors: unknown machines: prompted for a name"),
        "{told}"
    );
    s.good(&["sestab", "level", "0"]);
    assert!(check(&s).contains("warning  doors: the security level is 0"));
    assert!(s.run(&["check"]).status.success());
}

/// A slow reader of a list does not block writers.
#[test]
fn unread_list_does_not_block_writers() {
    let s = Host::new();
    let path = Inner::path(&s.paths(), None);
    let mut lines = fs::read_to_string(&path).unwrap();
    for n in 0..3_000_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let line = format!("{} remote 2026-11-30T19:00:00Z machine {n:04}\n", Id(id));
        lines.push_str(&line);
    }
    fs::write(&path, lines).unwrap();
    let mut list = s.command(&["machine", "list"]);
    let mut list = list.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = list.stdout.take().unwrap();
    let mut read = vec![0; 16];
    out.read_exact(&mut read).unwrap();
    // There is more data than a pipe holds.
    s.good(&["machine", "add", A, "--name", "zzz"]);
    out.read_to_end(&mut read).unwrap();
    assert!(list.wait().unwrap().success());
    let read = text(&read);
    assert!(read.lines().count() >= 3_000, "{}", read.lines().count());
    for (n, line) in read.lines().take(3_000).enumerate() {
        assert!(
            line.starts_with(&format!("{:>5} machine {n:04} ", n + 1)),
            "{line}"
        );
    }
}

#[test]
fn missing_inner_door_does_not_affect_commands_on_the_outer_door() {
    let s = Host::new();
    fs::remove_file(Inner::path(&s.paths(), None)).unwrap();
    let told = s.bad(1, &["machine", "list"]);
    assert!(told.contains("idfile: the inner door is gone"), "{told}");
    assert!(told.contains(" init` makes a new one"), "{told}");
    s.good(&["exclude", "add", A]);
    s.good(&["sestab", "list"]);
    let told = s.tells(&["door", "open"]);
    assert!(told.contains("new machines are denied"), "{told}");
    assert!(
        s.good(&["init"])
            .contains("created again: no machine is authorized")
    );
    assert_eq!(s.json(&["exclude", "list"])["excluded"][0]["id"], A);
    // The outer door as well.
    fs::remove_file(cosserver::registry::Outer::path(&s.paths())).unwrap();
    for command in [["exclude", "list"], ["door", "status"]] {
        let told = s.bad(1, &command);
        assert!(
            told.contains("gone, and with it the exclude list"),
            "{told}"
        );
    }
    let checked = text(&s.run(&["check"]).stdout);
    assert!(
        checked.contains("gone, and with it the exclude list"),
        "{checked}"
    );
    assert!(
        s.good(&["init"])
            .contains("created again: no machine is excluded")
    );
}

/// A command reports what it leaves undone, and the command for it.
#[test]
fn remaining_steps_are_reported_with_their_commands() {
    let s = Host::new();
    s.good(&["machine", "add", A, "--name", "a"]);
    s.good(&["door", "close"]);
    let told = s.tells(&["machine", "delete", A]);
    assert!(told.contains("still on the include list"), "{told}");
    assert!(told.contains(&format!("sestab delete I {A}")), "{told}");
    let told = s.good(&["sestab", "inquire", A]);
    assert!(
        told.contains("was deleted") || told.contains("does not know its machine"),
        "{told}"
    );
    s.good(&["sestab", "set", "I", B]);
    let told = s.good(&["sestab", "inquire", B]);
    assert!(
        told.contains("the inner door does not know its machine"),
        "{told}"
    );
    s.good(&["door", "open"]);
    s.good(&["settings", "set", "build-mode", "yes"]);
    let told = text(&s.run(&["otp", "add", "pc"]).stderr);
    assert!(told.contains("build mode is on"), "{told}");
    assert!(told.contains("settings set build-mode no"), "{told}");
}
