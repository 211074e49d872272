//! `cosadm edit`, with shell scripts as the editor.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cosserver::registry::noted::Noted;
use cosserver::registry::{Inner, List, Outer};

use super::host::{Host, text};
use super::{A, B, id};
use crate::daemon::COSADM;
use crate::daemon::session::Patient;

/// Returns `cosadm edit FILE` with a script as the editor, whose `$1` is the copy.
fn command(s: &Host, file: &str, script: &str) -> Command {
    let editor = s.dir.parent().unwrap().join("editor");
    fs::write(&editor, script).unwrap();
    let mut command = s.command(&["edit", file]);
    // Its arguments are the value's as well.
    command.env("VISUAL", format!("sh -e {}", editor.display()));
    command.env("EDITOR", "false");
    command.env("COSADM", COSADM).env("DIR", &s.dir);
    command
}

fn edit(s: &Host, file: &str, script: &str) -> Output {
    let out = command(s, file, script).output().unwrap();
    let told = text(&out.stderr);
    assert!(
        out.stdout.is_empty() && !told.contains("panicked"),
        "{out:?}"
    );
    out
}

/// Returns the messages of an edit that ends with this exit code.
fn edited(s: &Host, code: i32, file: &str, script: &str) -> String {
    let out = edit(s, file, script);
    let told = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{told}");
    told
}

fn path(s: &Host, file: &str) -> PathBuf {
    s.paths().state.join(file)
}

fn content(s: &Host, file: &str) -> String {
    fs::read_to_string(path(s, file)).unwrap()
}

/// Returns the copies that are left.
fn copies(s: &Host) -> Vec<PathBuf> {
    let all = fs::read_dir(s.paths().state).unwrap();
    let all = all.map(|entry| entry.unwrap().path());
    let is_copy = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("edit-")
    };
    all.filter(is_copy).collect()
}

fn with_machine() -> Host {
    let s = Host::new();
    s.good(&["machine", "add", A, "--name", "Reception"]);
    s
}

#[test]
fn edited_name_is_installed_and_noted() {
    let s = with_machine();
    let before = content(&s, "idfile");
    let told = edited(&s, 0, "idfile", "sed -i 's/Reception/Front desk/' \"$1\"");
    assert!(told.contains("idfile is changed"), "{told}");
    assert_eq!(
        s.json(&["machine", "list"])["machines"][0]["name"],
        "Front desk"
    );
    assert!(copies(&s).is_empty());
    let mode = fs::metadata(path(&s, "idfile"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The change is counted, and the note knows of it.
    let changes = |text: &str| -> u64 {
        let line = text.lines().nth(1).unwrap();
        line.strip_prefix("changes ").unwrap().parse().unwrap()
    };
    let count = changes(&content(&s, "idfile"));
    assert_eq!(count, changes(&before) + 1);
    let note = fs::read_to_string(s.paths().registry_note()).unwrap();
    assert!(note.contains(&format!("idfile {count}\n")), "{note}");
    assert_eq!(
        Noted::read(&s.paths()).unwrap(),
        Some(Noted::now(&s.paths()))
    );
    // So is that of an editor that writes an old copy back.
    let old = s.dir.parent().unwrap().join("old");
    fs::write(&old, before).unwrap();
    edited(&s, 0, "idfile", &format!("cat '{}' >\"$1\"", old.display()));
    assert_eq!(changes(&content(&s, "idfile")), count + 1);
    assert!(s.run(&["check"]).status.success());
}

#[test]
fn editor_gets_the_file_where_no_other_user_reads_it() {
    let s = with_machine();
    let script = "stat -c %a \"$1\" \"${1%/*}\" >\"$DIR/modes\"; cat \"$1\" >\"$DIR/copy\"
        umask >>\"$DIR/modes\"; echo \"${1##*/}\" >>\"$DIR/modes\"";
    for file in ["idfile", "sestab"] {
        let told = edited(&s, 0, file, script);
        assert_eq!(told, "cosadm: nothing was changed\n");
        let modes = fs::read_to_string(s.dir.join("modes")).unwrap();
        let modes: Vec<&str> = modes.lines().collect();
        assert_eq!(modes[..2], ["600", "700"]);
        assert!(modes[2].ends_with("077") && modes[3] == file, "{modes:?}");
        assert_eq!(
            fs::read_to_string(s.dir.join("copy")).unwrap(),
            content(&s, file)
        );
    }
    assert!(copies(&s).is_empty());
}

#[test]
fn failing_editor_changes_nothing() {
    let s = with_machine();
    let before = content(&s, "idfile");
    let told = edited(&s, 1, "idfile", "exit 3");
    assert!(
        told.contains("the editor failed (exit status: 3); nothing was changed"),
        "{told}"
    );
    assert!(copies(&s).is_empty());
    // What was written is kept, and only that.
    let told = edited(&s, 1, "idfile", "echo '# mine' >>\"$1\"; exit 3");
    let [copy] = &copies(&s)[..] else {
        panic!("{:?}", copies(&s));
    };
    let copy = copy.join("idfile");
    assert!(
        told.contains(&format!("your copy is kept: {}\n", copy.display())),
        "{told}"
    );
    assert_eq!(
        fs::read_to_string(copy).unwrap(),
        format!("{before}# mine\n")
    );
    assert_eq!(content(&s, "idfile"), before);
    let told = edited(&s, 0, "idfile", ":");
    assert!(
        told.contains("an earlier edit has left its copy in "),
        "{told}"
    );
    assert!(edited(&s, 1, "sestab", "rm \"$1\"").contains("there is no such file"));
    // The system's own, if none is set or the value is empty.
    let mut command = s.command(&["edit", "idfile"]);
    command
        .env("VISUAL", "")
        .env("EDITOR", "/nonexistent/editor --wait");
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("(exit status: 127)"), "{out:?}");
    assert!(
        s.bad(2, &["edit", "hostinfo"])
            .contains("neither sestab nor idfile")
    );
}

#[test]
fn new_wrong_line_keeps_the_old_file() {
    let s = with_machine();
    let before = content(&s, "idfile");
    let told = edited(
        &s,
        1,
        "idfile",
        "printf 'build-mode maybe\\n# x\\n{B} remote\\n' >>\"$1\"",
    );
    let copy = copies(&s)[0].join("idfile");
    let first = before.lines().count() + 1;
    for (line, why) in [
        (first, "the setting has no such value"),
        (first + 2, "it is no setting, password or machine"),
    ] {
        let words = format!("cosadm: {}:{line}: {why}\n", copy.display());
        assert!(told.contains(&words), "{told}");
    }
    assert!(
        told.contains("a line is wrong; nothing was changed"),
        "{told}"
    );
    assert!(
        told.contains(&format!("your copy is kept: {}", copy.display())),
        "{told}"
    );
    assert_eq!(content(&s, "idfile"), before);
    let told = edited(&s, 1, "idfile", ": >\"$1\"");
    assert!(
        told.contains(":1: the first line must stay as it was: cosserver idfile 1"),
        "{told}"
    );
    // A line that was wrong before may stay.
    let path = path(&s, "idfile");
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"build-mod yes\n").unwrap();
    // The file is not older than its mark, so it is as if it was cut.
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(9))
        .unwrap();
    let told = edited(&s, 0, "idfile", "sed -i 's/Reception/Desk/' \"$1\"");
    assert!(told.contains("idfile is changed"), "{told}");
    let wrong = format!("warning: {}:4: it is no setting", path.display());
    assert!(told.contains(&wrong), "{told}");
    assert!(content(&s, "idfile").contains("build-mod yes\n"));
}

#[test]
fn comments_stay_and_machines_are_sorted() {
    let s = with_machine();
    let script = format!(
        "{{ cat; echo '# attic'; echo '{B} remote 2026-11-30T19:00:00Z attic'
        printf '\\n# first\\n{} local 2026-11-30T19:00:00Z nil\\n# end' ; }} <\"$1\" >\"$1.new\"
        mv \"$1.new\" \"$1\"",
        "0".repeat(32)
    );
    edited(&s, 0, "idfile", &script);
    let text = content(&s, "idfile");
    let (_, machines) = text.split_once("\n\n").unwrap();
    let names = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
    let lines: Vec<String> = machines.lines().map(names).collect();
    assert_eq!(
        lines,
        ["first", "nil", "Reception", "attic", "attic", "end"]
    );
    assert_eq!(s.inner().count().unwrap(), 3);
    s.good(&["machine", "delete", B]);
    for comment in ["# attic\n", "# first\n", "# end\n"] {
        assert!(content(&s, "idfile").contains(comment), "{comment}");
    }
}

#[test]
fn edit_of_sestab_warns_if_every_machine_is_denied() {
    let s = with_machine();
    s.good(&["door", "open"]);
    let told = edited(
        &s,
        0,
        "sestab",
        "sed -i 's/^level 1/level 2/; /include/d' \"$1\"",
    );
    assert!(
        told.contains("warning: the include list is empty"),
        "{told}"
    );
    assert_eq!(s.json(&["door", "status"])["level"], 2);
    let told = edited(
        &s,
        0,
        "sestab",
        &format!("echo {B} exclude 2026-11-30T19:00:00Z >>\"$1\""),
    );
    assert!(told.contains("the include list is empty"), "{told}");
    assert!(s.outer().get(List::Exclude, &id(B)).unwrap().is_some());
    s.good(&["door", "open"]);
    let told = edited(&s, 0, "idfile", &format!("sed -i /^{A}/d \"$1\""));
    assert!(told.contains("warning: no machine is authorized"), "{told}");
    let told = edited(&s, 0, "sestab", "echo folder /nonexistent >>\"$1\"");
    assert!(
        told.contains("warning: /nonexistent/idfile: there is no such file"),
        "{told}"
    );
    assert!(told.lines().all(|l| l.starts_with("cosadm: ")), "{told}");
}

/// Nothing is lost, and nothing waits for a person.
#[test]
fn other_changes_fail_at_once_while_the_editor_runs() {
    let s = with_machine();
    let script = format!(
        "\"$COSADM\" -C \"$DIR\" machine list >\"$DIR/list\"
        ! \"$COSADM\" -C \"$DIR\" machine rename {A} lost 2>\"$DIR/lost\" || exit 9
        sed -i 's/Reception/Desk/' \"$1\""
    );
    let begun = Instant::now();
    edited(&s, 0, "idfile", &script);
    assert!(begun.elapsed() < Duration::from_secs(4));
    let told = fs::read_to_string(s.dir.join("lost")).unwrap();
    assert!(
        told.contains("cosadm edit (process ") && told.contains(") holds it; nothing was changed"),
        "{told}"
    );
    assert!(
        fs::read_to_string(s.dir.join("list"))
            .unwrap()
            .contains("Reception")
    );
    let names = s.inner().machines_by_name().unwrap();
    let names: Vec<&str> = names.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["Desk"]);
    // The other door is not locked.
    let script = "\"$COSADM\" -C \"$DIR\" machine rename Desk Counter";
    edited(&s, 0, "sestab", script);
}

#[test]
fn change_without_the_lock_is_not_overwritten() {
    let s = with_machine();
    let script = "sed -i 's/Reception/Desk/' \"$1\"
        (cat \"$DIR/state/idfile\"; echo '# theirs') >\"$DIR/new\"; chmod 600 \"$DIR/new\"
        mv \"$DIR/new\" \"$DIR/state/idfile\"; touch -d +9sec \"$DIR/state/idfile\"";
    let told = edited(&s, 1, "idfile", script);
    assert!(
        told.contains("without its lock; nothing was changed"),
        "{told}"
    );
    assert!(told.contains("your copy is kept: "), "{told}");
    assert!(content(&s, "idfile").ends_with("# theirs\n"));
    let copy = fs::read_to_string(copies(&s)[0].join("idfile")).unwrap();
    assert!(copy.contains("Desk"));
}

/// Reads a terminal until it shows this; returns what came before.
fn sees(terminal: &fs::File, what: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(what) {
        let mut bytes = [0; 512];
        let n = std::io::Read::read(&mut Patient(terminal), &mut bytes).unwrap_or(0);
        assert!(n > 0, "{what:?} never came:\n{seen}");
        seen += &String::from_utf8_lossy(&bytes[..n]);
    }
    seen
}

/// Runs an edit at a terminal of its own, in the foreground.
fn at_a_terminal(s: &Host, script: &str) -> (fs::File, std::process::Child) {
    let of = command(s, "idfile", script);
    let ends = nix::pty::openpty(None, None).unwrap();
    let end = || Stdio::from(ends.slave.try_clone().unwrap());
    let mut setsid = Command::new("setsid");
    setsid
        .arg("--ctty")
        .arg(of.get_program())
        .args(of.get_args());
    for (name, value) in of.get_envs() {
        setsid.env(name, value.unwrap_or_default());
    }
    setsid.stdin(end()).stdout(end()).stderr(end());
    let child = setsid.spawn().unwrap();
    (ends.master.into(), child)
}

const ASKED: &str = "What now? (e)dit again, e(x)it without saving: ";

#[test]
fn wrong_line_is_edited_again_and_an_interrupt_is_the_editors() {
    let s = with_machine();
    // The second time it is interrupted, and goes on, as an editor does.
    let script = "if ! grep -q oops \"$1\"; then echo oops >>\"$1\"; exit; fi
        trap 'sed -i \"s/^oops/# fine/\" \"$1\"; exit 0' INT
        echo ready; while :; do sleep 0.1; done";
    let (mut terminal, mut child) = at_a_terminal(&s, script);
    let seen = sees(&terminal, ASKED);
    assert!(
        seen.contains(": it is no setting, password or machine"),
        "{seen}"
    );
    terminal.write_all(b"what\n").unwrap();
    sees(&terminal, ASKED);
    terminal.write_all(b"e\n").unwrap();
    sees(&terminal, "ready");
    terminal.write_all(&[3]).unwrap();
    sees(&terminal, "is changed");
    assert!(child.wait().unwrap().success());
    assert!(content(&s, "idfile").contains("# fine\n"));
    assert!(copies(&s).is_empty());
}

#[test]
fn edit_that_is_left_or_interrupted_changes_nothing() {
    let s = with_machine();
    let before = content(&s, "idfile");
    let (mut terminal, mut child) = at_a_terminal(&s, "echo oops >>\"$1\"");
    sees(&terminal, ASKED);
    terminal.write_all(b"x\n").unwrap();
    sees(&terminal, "nothing was changed");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(copies(&s).is_empty());
    // An editor that an interrupt ends has failed.
    // A shell that starts a program when the signal comes heeds it once that program has ended.
    let script = "echo ready; while :; do sleep 0.1; done";
    let (mut terminal, mut child) = at_a_terminal(&s, script);
    sees(&terminal, "ready");
    terminal.write_all(&[3]).unwrap();
    sees(&terminal, "the editor failed");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(copies(&s).is_empty());
    assert_eq!(content(&s, "idfile"), before);
    // Killed, it leaves the copy to its user, and no lock.
    let (terminal, mut child) = at_a_terminal(&s, "echo ready; sleep 60");
    sees(&terminal, "ready");
    child.kill().unwrap();
    child.wait().unwrap();
    s.good(&["machine", "rename", A, "Desk"]);
    let folder = &copies(&s)[0];
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(folder), mode(&folder.join("idfile"))), (0o700, 0o600));
    // Its editor ends with the terminal.
    drop(terminal);
}

/// The copy is in this host's state folder, and the lock beside the shared file.
#[test]
fn shared_inner_door_is_edited_under_its_own_lock() {
    let s = Host::new();
    let shared = s.folder("shared", 0o700);
    s.good(&["settings", "set", "folder", shared.to_str().unwrap()]);
    s.good(&["machine", "add", A, "--name", "Reception"]);
    let script = "echo \"$1\" >\"$DIR/where\"; sed -i s/Reception/Desk/ \"$1\"";
    edited(&s, 0, "idfile", script);
    let inner = Inner::open(&shared.join("idfile")).unwrap();
    assert_eq!(inner.machines().unwrap()[0].name.as_str(), "Desk");
    let copy = fs::read_to_string(s.dir.join("where")).unwrap();
    assert!(Path::new(&copy).starts_with(Outer::path(&s.paths()).parent().unwrap()));
    assert!(shared.join("idfile.lock").exists());
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 2);
}
