//! A command that rewrites a file keeps its group, mode, access control list and symbolic link.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use cosserver::sys::acl;
use nix::unistd::geteuid;

use super::{Scratch, chmod, host, me, mode};

/// Allows user 65534 to read a file of mode 0640: the version 2, then tag, permissions and ID of
/// each entry, as the kernel stores them.
const LIST: &[u8] = b"\x02\0\0\0\
    \x01\0\x06\0\xff\xff\xff\xff\
    \x02\0\x04\0\xfe\xff\0\0\
    \x04\0\x04\0\xff\xff\xff\xff\
    \x10\0\x04\0\xff\xff\xff\xff\
    \x20\0\0\0\xff\xff\xff\xff";

/// The group `adm` of Debian; any other group would do.
const GROUP: u32 = 4;

/// Moves a file elsewhere, puts a link in its place, and grants others read access. Returns whether
/// the file system has access lists.
fn grant(file: &Path, elsewhere: &Path) -> bool {
    let target = elsewhere.join(file.file_name().unwrap());
    if file.exists() {
        fs::rename(file, &target).unwrap();
    } else {
        fs::write(&target, "").unwrap();
    }
    symlink(&target, file).unwrap();
    chmod(&target, 0o640);
    if geteuid().is_root() {
        chown(&target, None, Some(GROUP)).unwrap();
    }
    acl::set_access_list(&target, Some(LIST)).is_ok()
}

#[test]
fn commands_keep_what_the_files_grant() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    let elsewhere = scratch.0.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    chmod(&elsewhere, 0o700);
    let own = fs::metadata(&elsewhere).unwrap().gid();
    let group = if geteuid().is_root() { GROUP } else { own };
    let kept = |file: &Path, has_lists: bool| {
        assert!(fs::symlink_metadata(file).unwrap().is_symlink(), "{file:?}");
        let target = fs::canonicalize(file).unwrap();
        assert_eq!(mode(&target), 0o640, "{file:?}");
        assert_eq!(fs::metadata(&target).unwrap().gid(), group, "{file:?}");
        let list = acl::access_list(&target).unwrap();
        assert_eq!(list.as_deref(), has_lists.then_some(LIST), "{file:?}");
    };

    // The host table, by each command that changes it.
    let table = s.paths().hostinfo();
    let has_lists = grant(&table, &elsewhere);
    let card = s.invite("hosta");
    kept(&table, has_lists);
    s.invite("hostc");
    s.good(&["host", "remove", "hostc"]);
    kept(&table, has_lists);
    // The client's table and pins.
    let elsewhere = scratch.0.join("client");
    fs::create_dir(&elsewhere).unwrap();
    chmod(&elsewhere, 0o700);
    let (table, pins) = (a.paths().hostinfo(), a.paths().known_hosts());
    grant(&table, &elsewhere);
    grant(&pins, &elsewhere);
    assert!(a.join(&card, &["--name", "hostb"]).status.success());
    kept(&table, has_lists);
    kept(&pins, has_lists);
    assert_eq!(a.lines().len(), 1);

    // A cookie keeps its link and its group, and grants others nothing.
    let cookie = s.paths().cookie_in(&host("hosta"));
    let target = elsewhere.join("hosta.in");
    fs::rename(&cookie, &target).unwrap();
    symlink(&target, &cookie).unwrap();
    chmod(&target, 0o400);
    s.good(&["host", "rotate", "hosta"]);
    assert!(fs::symlink_metadata(&cookie).unwrap().is_symlink());
    assert_eq!(mode(&target), 0o400);
    let again = ["host", "invite", "hosta", "--run-as", &me()];
    assert!(!s.good(&again).is_empty());
}
