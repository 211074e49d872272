use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::Barrier;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::config::scratch::{Scratch, chmod};

fn refused(path: &Path, kind: Kind) -> String {
    read(path, kind, 100).expect_err("it was read").to_string()
}

#[test]
fn an_ordinary_file() {
    let scratch = Scratch::new();
    let file = scratch.file("f", "hello", 0o644);
    assert_eq!(*read(&file, Kind::Policy, 5).unwrap(), b"hello");
    assert_eq!(
        *read(&scratch.file("empty", "", 0o600), Kind::Secret, 0).unwrap(),
        b""
    );
    assert!(
        read_if_there(&scratch.path().join("none"), Kind::Policy, 5)
            .unwrap()
            .is_none()
    );
    assert!(
        read_if_there(&scratch.path().join("no/ne"), Kind::Policy, 5)
            .unwrap()
            .is_none()
    );
    assert!(refused(&scratch.path().join("none"), Kind::Policy).contains("no such file"));
}

#[test]
fn modes() {
    let scratch = Scratch::new();
    for (mode, policy, secret) in [
        (0o600, true, true),
        (0o400, true, true),
        (0o640, true, false),
        (0o604, true, false),
        (0o644, true, false),
        (0o660, false, false),
        (0o620, false, false),
        (0o602, false, false),
        (0o610, true, false),
    ] {
        let file = scratch.file("f", "x", mode);
        assert_eq!(read(&file, Kind::Policy, 5).is_ok(), policy, "{mode:o}");
        assert_eq!(read(&file, Kind::Secret, 5).is_ok(), secret, "{mode:o}");
    }
    let told = refused(&scratch.file("g", "x", 0o664), Kind::Policy);
    assert!(
        told.contains("g: it can be written by its group (mode 0664)"),
        "{told}"
    );
}

#[test]
fn folders_above() {
    let scratch = Scratch::new();
    let file = scratch.file("a/b/f", "x", 0o600);
    let above = scratch.path().join("a");
    for (mode, good) in [
        (0o755, true),
        (0o775, false),
        (0o757, false),
        (0o1777, true),
        (0o1770, true),
        (0o700, true),
    ] {
        chmod(&above, mode);
        assert_eq!(read(&file, Kind::Secret, 5).is_ok(), good, "{mode:o}");
    }
    chmod(&above, 0o777);
    let told = refused(&file, Kind::Policy);
    assert!(
        told.contains("a can be written by all users (mode 0777)"),
        "{told}"
    );
    assert!(create_new(&scratch.path().join("a/b/new"), b"x", 0o600).is_err());
    assert!(replace(&file, b"y", 0o600).is_err());
    assert!(make_folder(&scratch.path().join("a/b/c"), 0o700).is_err());
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_foreign_owner() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("a/f", "x", 0o600);
    let above = scratch.path().join("a");
    chown(&file, Some(12345), None).unwrap();
    assert!(refused(&file, Kind::Policy).contains("it is owned by user 12345, not by root"));
    chown(&file, Some(0), None).unwrap();
    chown(&above, Some(12345), None).unwrap();
    assert!(refused(&file, Kind::Policy).contains("a is owned by user 12345"));
    // The owner of a sticky folder can replace what is in it, so it is rejected too.
    chmod(&above, 0o1755);
    assert!(read(&file, Kind::Policy, 5).is_err());
}

#[test]
fn symbolic_links() {
    let scratch = Scratch::new();
    let file = scratch.file("real/f", "x", 0o644);
    let link = scratch.path().join("link");
    symlink("real/f", &link).unwrap();
    assert_eq!(*read(&link, Kind::Policy, 5).unwrap(), b"x");
    let folder = scratch.path().join("folder");
    symlink(scratch.path().join("real"), &folder).unwrap();
    assert_eq!(*read(&folder.join("f"), Kind::Policy, 5).unwrap(), b"x");

    replace(&link, b"y", 0o644).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&file).unwrap(), b"y");

    // The folders of the target are checked, not only those of the link.
    chmod(&scratch.path().join("real"), 0o777);
    assert!(refused(&link, Kind::Policy).contains("real can be written by all users"));
    assert!(read(&folder.join("f"), Kind::Policy, 5).is_err());

    let round = scratch.path().join("round");
    symlink("round", &round).unwrap();
    assert!(refused(&round, Kind::Policy).contains("too many symbolic links"));
    let nowhere = scratch.path().join("nowhere");
    symlink("gone", &nowhere).unwrap();
    assert!(read_if_there(&nowhere, Kind::Policy, 5).unwrap().is_none());
    if geteuid().is_root() {
        let foreign = scratch.path().join("foreign");
        chmod(&scratch.path().join("real"), 0o755);
        symlink("real/f", &foreign).unwrap();
        std::os::unix::fs::lchown(&foreign, Some(12345), None).unwrap();
        assert!(refused(&foreign, Kind::Policy).contains("foreign: it is owned by user 12345"));
    }
}

#[test]
fn opening_a_special_file_does_not_block() {
    let scratch = Scratch::new();
    let fifo = scratch.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    assert!(refused(&fifo, Kind::Policy).contains("no regular file"));
    let folder = scratch.folder("d", 0o700);
    assert!(read(&folder, Kind::Policy, 5).is_err());
    assert!(read(Path::new("/dev/zero"), Kind::Policy, 5).is_err());
    assert!(read(Path::new("/"), Kind::Policy, 5).is_err());
    assert!(read(&scratch.file("f", "x", 0o600).join("g"), Kind::Policy, 5).is_err());
}

#[test]
fn too_long() {
    let scratch = Scratch::new();
    let file = scratch.file("f", [b'x'; 101], 0o600);
    assert!(refused(&file, Kind::Policy).contains("101 bytes"));
    // A sparse file of a terabyte is rejected before a byte is read.
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(refused(&file, Kind::Policy).contains("1099511627776 bytes"));
}

#[test]
fn one_of_two_concurrent_creators_wins() {
    let scratch = Scratch::new();
    for round in 0..50 {
        let path = scratch.path().join(round.to_string());
        let start = Barrier::new(2);
        let make = |content: &'static [u8]| {
            start.wait();
            create_new(&path, content, 0o600).unwrap()
        };
        let (a, b) = std::thread::scope(|s| {
            let a = s.spawn(|| make(b"a"));
            let b = s.spawn(|| make(b"b"));
            (a.join().unwrap(), b.join().unwrap())
        });
        assert_ne!(a, b);
        assert_eq!(
            fs::read(&path).unwrap(),
            if a == Created::New { b"a" } else { b"b" }
        );
    }
    // No temporary file is left.
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 50);
}

#[test]
fn replacing() {
    let scratch = Scratch::new();
    let path = scratch.path().join("f");
    replace(&path, b"one", 0o600).unwrap();
    replace(&path, b"two", 0o644).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    // The mode argument applies only to a new file.
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    assert!(remove(&path).unwrap());
    assert!(!remove(&path).unwrap());
}

/// Under inetd, a folder that had become writable by all stayed trusted for the whole session.
#[test]
fn checker_checks_again_after_forget() {
    let scratch = Scratch::new();
    let folder = scratch
        .file("a/b/f", "x", 0o600)
        .parent()
        .unwrap()
        .to_owned();
    let checker = Checker::new();
    assert_eq!(checker.make_folder(&folder, 0o700), Ok(Created::There));
    assert_eq!(
        checker.make_folder(&folder.join("new"), 0o700),
        Ok(Created::New)
    );
    chmod(&scratch.path().join("a"), 0o777);
    assert!(checker.check_folder(&folder).is_ok());
    checker.forget();
    assert!(checker.check_folder(&folder).is_err());
    assert!(checker.make_folder(&folder, 0o700).is_err());
    assert!(checker.make_folder(&folder.join("newer"), 0o700).is_err());
    assert!(!folder.join("newer").exists());
}

#[test]
fn checker_checks_a_folder_once() {
    let scratch = Scratch::new();
    let file = scratch.file("a/f", "x", 0o600);
    let checker = Checker::new();
    assert!(
        checker
            .read_if_there(&file, Kind::Secret, 5)
            .unwrap()
            .is_some()
    );
    chmod(&scratch.path().join("a"), 0o777);
    assert!(
        checker
            .read_if_there(&file, Kind::Secret, 5)
            .unwrap()
            .is_some()
    );
    // The file itself is judged every time.
    chmod(&file, 0o644);
    assert!(checker.read_if_there(&file, Kind::Secret, 5).is_err());
    assert!(
        Checker::new()
            .read_if_there(&file, Kind::Policy, 5)
            .is_err()
    );
    // So is one beside it, since the folders above both were checked.
    let beside = scratch.file("a/d/e/g", "x", 0o600);
    let next = scratch.file("a/d/h/g", "x", 0o600);
    let other = Checker::new();
    chmod(&scratch.path().join("a"), 0o755);
    let reads = |file: &Path| other.read_if_there(file, Kind::Secret, 5).is_ok();
    assert!(reads(&beside));
    chmod(&scratch.path().join("a/d"), 0o777);
    assert!(reads(&next));
    chmod(&scratch.path().join("a/d/h"), 0o777);
    assert!(
        Checker::new()
            .read_if_there(&next, Kind::Secret, 5)
            .is_err()
    );
    chmod(&scratch.path().join("a/d"), 0o755);
    chmod(&scratch.path().join("a"), 0o777);
    // Below a folder that was checked, only the new folder is checked.
    let below = scratch.file("a/b/g", "x", 0o600);
    assert!(
        checker
            .read_if_there(&below, Kind::Secret, 5)
            .unwrap()
            .is_some()
    );
    let open = scratch.file("a/c/g", "x", 0o600);
    chmod(&scratch.path().join("a/c"), 0o777);
    assert!(checker.read_if_there(&open, Kind::Secret, 5).is_err());
}

/// If only the folder could not be synced, the file exists, and the fault must not say that nothing
/// was written. Root can open every folder, so this case does not arise for it.
#[test]
fn failed_sync_of_a_folder_has_its_own_error() {
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.file("f", "old", 0o600);
    let told = |fault: Fault| fault.to_string();
    chmod(scratch.path(), 0o300);
    let replaced = replace(&file, b"new", 0o600).map_err(told);
    let made = create_new(&scratch.path().join("g"), b"g", 0o600).map_err(told);
    let removed = remove(&scratch.path().join("g")).map_err(told);
    chmod(scratch.path(), 0o700);
    for (outcome, words) in [
        (replaced.err(), "written, but its folder was not synced"),
        (made.err(), "written, but its folder was not synced"),
        (removed.err(), "removed, but its folder was not synced"),
    ] {
        assert!(
            outcome.as_ref().is_some_and(|o| o.contains(words)),
            "{outcome:?}"
        );
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
}

/// Returns an access control list in the kernel's form that lets user 65534 read a file of mode
/// 0640: its version, then tag, permissions and number of each entry.
fn list_for_dummy() -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, permissions, number) in [
        (0x01_u16, 6_u16, none),
        (0x02, 4, 65534),
        (0x04, 4, none),
        (0x10, 4, none),
        (0x20, 0, none),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(number.to_le_bytes());
    }
    list
}

#[test]
fn a_replaced_file_keeps_its_group_mode_list_and_link() {
    use crate::sys::acl::{access_list, set_access_list};

    let scratch = Scratch::new();
    scratch.folder("elsewhere", 0o700);
    let target = scratch.file("elsewhere/hostinfo", "old", 0o640);
    let link = scratch.path().join("hostinfo");
    symlink("elsewhere/hostinfo", &link).unwrap();
    let group = if geteuid().is_root() {
        chown(&target, None, Some(4)).unwrap();
        4
    } else {
        fs::metadata(&target).unwrap().gid()
    };
    let list = list_for_dummy();
    let has_lists = set_access_list(&target, Some(&list)).is_ok();
    replace(&link, b"new", 0o644).unwrap();
    let about = fs::metadata(&target).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((about.gid(), about.mode() & 0o7777), (group, 0o640));
    let kept = access_list(&target).unwrap();
    assert_eq!(kept, has_lists.then(|| list.clone()));
    assert_eq!(
        fs::read_dir(scratch.path().join("elsewhere"))
            .unwrap()
            .count(),
        1
    );

    // A secret gives others no access, whatever the old file gave them.
    replace(&link, b"secret", 0o600).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(access_list(&target).unwrap(), None);
    // A file that its owner may only read stays read-only.
    chmod(&target, 0o400);
    replace(&link, b"secret", 0o600).unwrap();
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o400);

    // A dangling link is not replaced.
    fs::remove_file(&target).unwrap();
    let told = replace(&link, b"new", 0o644).unwrap_err().to_string();
    assert!(told.contains("to a file that does not exist"), "{told}");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let folder = scratch.folder("folder", 0o700);
    assert!(replace(&folder, b"new", 0o644).is_err());
}
