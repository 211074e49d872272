//! Faults of the registry's files: full, read-only, damaged, newer, many at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use cosserver::registry::{Inner, List, Outer};

use super::host::{Host, chmod, text};
use super::{A, B};
use crate::daemon::{COSADM, Folder, in_ci, needs_root, report_skipped, until};
use crate::door::preload;

/// Runs a shell with its own mounts, which no other process sees. `None`: this user cannot do that.
fn apart(dir: &Path, script: &str) -> Option<(Option<i32>, String)> {
    if !needs_root() {
        return None;
    }
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .env("DIR", dir)
        .env("COSADM", COSADM)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = text(&out.stderr);
    if out.status.code() == Some(99) || told.contains("unshare failed") {
        assert!(!in_ci(), "nothing can be mounted here: {told}");
        report_skipped(&format!("nothing can be mounted here: {told}"));
        return None;
    }
    Some((out.status.code(), text(&out.stdout) + &told))
}

/// A full disk: the existing data is unchanged, and everything works once there is room.
const FULL: &str = r#"
    mount -t tmpfs -o size=256k,mode=0700 tmpfs "$DIR" || exit 99
    cd "$DIR" && "$COSADM" -C S init >/dev/null || exit 10
    s() { "$COSADM" -C S "$@"; }
    A=00112233445566778899aabbccddeeff
    s machine add $A --name a && s door open && s otp add jo >password || exit 11
    before=$(cat S/state/sestab S/state/idfile | sha256sum)
    cat /dev/zero >filler 2>/dev/null && exit 12
    s machine delete $A && exit 13
    s machine delete $A --exclude && exit 14
    s exclude add $A && exit 15
    s otp delete jo && exit 16
    s settings set build-mode yes && exit 17
    s door close && exit 18
    s sestab level 0 && exit 19
    s machine list | grep -q $A || exit 20
    s sestab list >/dev/null || exit 21
    rm filler
    test "$before" = "$(cat S/state/sestab S/state/idfile | sha256sum)" || exit 22
    ls -A S/state | grep tmp && exit 23
    s machine delete $A --exclude && s otp delete jo && s settings set build-mode yes || exit 24
"#;

/// Other paths to the system's directory, before it exists and after that.
const OTHER_WAYS: &str = r#"
    mkdir -m 755 "$DIR/etc" && cp /etc/passwd /etc/group "$DIR/etc" || exit 99
    mount --bind "$DIR/etc" /etc || exit 99
    mount -t tmpfs -o mode=0755 tmpfs /var/lib && mount -t tmpfs -o mode=0755 tmpfs /run || exit 99
    unset COS_CONFIG_DIR
    programs=${COSADM%/*}
    A=00112233445566778899aabbccddeeff
    "$COSADM" -C /etc/../etc/cosserver init >/dev/null || exit 10
    test -e /var/lib/cosserver/doors || exit 11
    "$COSADM" machine add $A --name a || exit 12
    ln -s /etc/cosserver "$DIR/cs" && cd "$DIR" || exit 13
    id=$("$programs/cos" key show) || exit 14
    check=$("$COSADM" check)
    test=$("$programs/cosserver" -e -t 2>&1)
    for dir in "$DIR/cs" "$DIR/cs/" /etc/cosserver/../cosserver cs cs/../cosserver; do
        test "$("$COSADM" -C "$dir" check)" = "$check" || { "$COSADM" -C "$dir" check; echo "$check"; exit 20; }
        "$COSADM" -C "$dir" machine list | grep -q $A || exit 21
        test "$("$programs/cos" -C "$dir" key show)" = "$id" || exit 22
        said=$("$programs/cosserver" -e -t -f "$dir/cosserver.toml" 2>&1)
        test "$said" = "$test" || { echo "$said"; echo "$test"; exit 23; }
    done
    test ! -e /etc/cosserver/state || exit 24
"#;

/// Regression: if the path differed, a second, empty registry was created and used.
#[test]
fn a_path_that_leads_to_the_systems_folder_is_the_systems() {
    let folder = Folder::new();
    if let Some((code, told)) = apart(&folder.0, OTHER_WAYS) {
        assert_eq!(code, Some(0), "{told}");
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    let folder = Folder::new();
    let Some((code, told)) = apart(&folder.0, FULL) else {
        return;
    };
    assert_eq!(code, Some(0), "{told}");
    let full = told
        .matches("the disk is full; nothing was changed")
        .count();
    assert_eq!(full, 7, "{told}");
}

/// Files that cannot be written are read all the same.
const READ_ONLY: &str = r#"
    cd "$DIR" && mount --bind S S && mount -o remount,ro,bind S || exit 99
    s() { "$COSADM" -C S "$@"; }
    s machine list && s door status && s sestab list || exit 10
    s sestab inquire 00112233445566778899aabbccddeeff || exit 11
    s check >/dev/null || exit 12
    s machine delete 00112233445566778899aabbccddeeff && exit 13
    s exclude add 00112233445566778899aabbccddeeff && exit 14
    s door open && exit 15
    s settings set welcome yes && exit 16
    exit 0
"#;

#[test]
fn a_medium_that_cannot_be_written_is_read() {
    let s = Host::new();
    s.good(&["machine", "add", A, "--name", "Reception"]);
    let folder = s.dir.parent().unwrap();
    let Some((code, told)) = apart(folder, READ_ONLY) else {
        return;
    };
    assert_eq!(code, Some(0), "{told}");
    let refused = told.matches("it cannot be written (").count();
    assert_eq!(refused, 4, "{told}");
    assert_eq!(
        s.json(&["machine", "list"])["machines"][0]["name"],
        "Reception"
    );
}

/// A change to a file, and the message about it.
type Harm = (&'static str, fn(&Path));

const HARMS: &[Harm] = &[
    // Cut short without a change of its time.
    ("damaged", |path| {
        let about = fs::metadata(path).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(about.len() - 10).unwrap();
        file.set_modified(about.modified().unwrap()).unwrap();
    }),
    ("another version of cosserver", |path| {
        let text = fs::read_to_string(path).unwrap();
        let (first, rest) = text.split_once(" 1\n").unwrap();
        fs::write(path, format!("{first} 9\n{rest}")).unwrap();
    }),
    ("if it was put here by mistake", |path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replacen("cosserver", "somebody", 1)).unwrap();
    }),
    ("if it was put here by mistake", |path| {
        let size = fs::metadata(path).unwrap().len();
        fs::write(path, vec![0xff; usize::try_from(size).unwrap()]).unwrap();
    }),
    ("others may read or write it; chmod 600", |path| {
        chmod(path, 0o640)
    }),
    ("it is no plain file", |path| {
        fs::rename(path, path.with_extension("away")).unwrap();
        std::os::unix::fs::symlink(path.with_extension("away"), path).unwrap();
    }),
    ("is gone, and with it", |path| {
        fs::remove_file(path).unwrap()
    }),
];

#[test]
fn invalid_registry_file_is_named_and_not_changed() {
    for (number, (words, harm)) in HARMS.iter().enumerate() {
        for is_outer in [true, false] {
            let s = Host::new();
            s.good(&["machine", "add", A, "--name", "a"]);
            s.good(&["exclude", "add", B]);
            let path = if is_outer {
                Outer::path(&s.paths())
            } else {
                Inner::path(&s.paths(), None)
            };
            harm(&path);
            let before = fs::read(&path).ok();
            let name = path.file_name().unwrap().to_str().unwrap();
            let about = format!("{number} {name}: {words}");
            for command in [
                &["door", "close"][..],
                &["machine", "delete", A, "--exclude"],
                &["settings", "set", "build-mode", "yes"],
            ] {
                let told = s.bad(1, command);
                assert!(
                    told.contains(words) && told.contains(name),
                    "{about}: {told}"
                );
            }
            if is_outer {
                assert!(s.bad(1, &["exclude", "list"]).contains(words), "{about}");
            } else {
                // The other door still works.
                assert_eq!(
                    s.json(&["exclude", "list"])["excluded"][0]["id"],
                    B,
                    "{about}"
                );
            }
            let check = s.run(&["check"]);
            let told = text(&check.stdout);
            assert_eq!(check.status.code(), Some(1), "{about}: {told}");
            let problem =
                |l: &str| l.starts_with("problem") && l.contains(words) && l.contains(name);
            assert!(told.lines().any(problem), "{about}: {told}");
            assert_eq!(fs::read(&path).ok(), before, "{about}");
        }
    }
}

#[test]
fn eight_concurrent_writers_all_succeed() {
    const EACH: u32 = 8;
    let s = Host::new();
    thread::scope(|scope| {
        for writer in 0..8_u32 {
            let s = &s;
            scope.spawn(move || {
                for n in 0..EACH {
                    let id = format!("{writer:016x}{n:016x}");
                    let name = format!("machine {writer} {n}");
                    s.good(&["machine", "add", &id, "--name", &name]);
                    s.good(&["exclude", "add", &id]);
                    s.good(&["otp", "add", &name]);
                    if n % 2 == 0 {
                        s.good(&["machine", "delete", &id]);
                        s.good(&["door", "open"]);
                    }
                }
            });
        }
    });
    let all = 8 * u64::from(EACH);
    assert_eq!(s.inner().count().unwrap(), all / 2);
    assert_eq!(s.outer().count(List::Exclude).unwrap(), all);
    assert_eq!(s.inner().passwords().unwrap().len() as u64, all);
    assert!(s.run(&["check"]).status.success());
}

/// A password that did not reach its recipient is unusable, and its name is free.
#[test]
fn a_password_that_was_not_written_is_withdrawn() {
    let s = Host::new();
    for sink in ["/dev/full", "/dev/null"] {
        let script = format!("exec \"$0\" -C \"$1\" otp add Jo >{sink}");
        let out = s.shell(&script);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        let told = text(&out.stderr);
        assert_eq!(told.contains("is withdrawn"), sink == "/dev/full", "{told}");
        assert!(s.inner().passwords().unwrap().is_empty());
    }
    // In a file, only its owner can read it.
    let file = s.dir.join("password");
    let script = format!(
        "umask 022; exec \"$0\" -C \"$1\" otp add Jo >'{}'",
        file.display()
    );
    assert!(s.shell(&script).status.success());
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// Has this host's commands wait when they open the inner door, until the file is removed.
fn hang(s: &Host) -> (Vec<(&'static str, PathBuf)>, PathBuf) {
    let hangs = s.dir.join("hangs");
    fs::write(&hangs, "").unwrap();
    let outer = s.outer();
    let door = Inner::path(&s.paths(), outer.folder().unwrap().as_deref());
    let library = preload(&s.dir, "hang");
    let variables = vec![
        ("LD_PRELOAD", library),
        ("HANG_ON", fs::canonicalize(door).unwrap()),
        ("HANG_WHILE", hangs.clone()),
    ];
    (variables, hangs)
}

/// Regression: every command read the inner door's count of changes before it ran, even if that was
/// in a shared directory that hangs.
#[test]
fn hanging_inner_door_does_not_delay_an_exclusion() {
    let s = Host::new();
    let shared = s.folder("shared", 0o700);
    s.good(&["settings", "set", "folder", shared.to_str().unwrap()]);
    let (hanging, _) = hang(&s);
    let commands: [&[&str]; 6] = [
        &["exclude", "add", A],
        &["exclude", "add", B, "--name", "gone", "--now"],
        &["exclude", "delete", B],
        &["sestab", "set", "E", B],
        &["sestab", "list"],
        &["kill", "7"],
    ];
    for command in commands {
        let mut child = s.command(command);
        let child = child.envs(hanging.clone()).stdin(Stdio::null());
        let mut child = child.spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        let waiter = thread::spawn(move || tell.send(child.wait().unwrap()));
        let Ok(status) = told.recv_timeout(std::time::Duration::from_secs(20)) else {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            panic!("it waits: {command:?}");
        };
        waiter.join().unwrap().unwrap();
        assert_eq!(status.success(), command[0] != "kill", "{command:?}");
    }
    // The change is noted all the same.
    let note = fs::read_to_string(s.paths().registry_note()).unwrap();
    assert!(note.contains("state/sestab "), "{note}");
}

/// The name is looked up last, when the machine is on the list already; if another command removes
/// the machine from the list in the meantime, that stays.
#[test]
fn exclusion_while_the_inner_door_hangs_applies_at_once_and_can_be_undone() {
    let s = Host::new();
    let (hanging, hangs) = hang(&s);
    let excluded = || s.good(&["exclude", "list"]).contains(A);
    let commands: [&[&str]; 2] = [&["exclude", "add", A], &["sestab", "set", "E", A]];
    for command in commands {
        let mut child = s.command(command);
        let child = child.envs(hanging.clone()).stdin(Stdio::null());
        let mut child = child.spawn().unwrap();
        until("it is on the list", excluded);
        assert!(child.try_wait().unwrap().is_none(), "{command:?}");
        s.good(&["exclude", "delete", A]);
        assert!(child.wait().unwrap().success(), "{command:?}");
        assert!(!excluded(), "{command:?}");
    }
    fs::remove_file(hangs).unwrap();
    s.good(&["exclude", "add", A]);
    assert!(excluded());
}
