//! The inner door's file by itself.

use super::*;
use crate::config::scratch::{Scratch, chmod};

fn id(n: u8) -> Id {
    Id([n; 16])
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn inner() -> (Scratch, Inner) {
    let scratch = Scratch::new();
    let path = scratch.path().join("idfile");
    Inner::create(&path).unwrap();
    let inner = Inner::open(&path).unwrap();
    (scratch, inner)
}

#[test]
fn one_time_password_is_valid_once() {
    let (_scratch, mut inner) = inner();
    let made = inner.add_generated(&name("made")).unwrap().shown();
    inner.add_chosen(&name("chosen"), b"secret").unwrap();
    let mut activate =
        |n, password: &[u8]| inner.activate(&id(n), password, &name("x"), true, &mut || Ok(true));
    assert_eq!(activate(1, b"Secret").unwrap(), None);
    assert_eq!(activate(1, b"secret").unwrap(), Some(name("chosen")));
    assert_eq!(activate(2, b"secret").unwrap(), None);
    assert_eq!(
        activate(2, made.to_lowercase().as_bytes()).unwrap(),
        Some(name("made"))
    );
    assert_eq!(activate(3, made.as_bytes()).unwrap(), None);
    assert_eq!(activate(3, b"").unwrap(), None);
    assert_eq!(activate(3, &[b'x'; 5_000]).unwrap(), None);
    assert_eq!(inner.count().unwrap(), 2);
}

#[test]
fn backdoor_password_is_valid_until_removed() {
    let (_scratch, mut inner) = inner();
    inner.set_backdoor(Some(b"backdoor")).unwrap();
    assert!(inner.settings().unwrap().backdoor);
    for n in 1..=3 {
        let registered = inner.activate(&id(n), b"backdoor", &name("jo"), true, &mut || Ok(true));
        assert_eq!(registered.unwrap(), Some(name("jo")));
    }
    inner.set_backdoor(None).unwrap();
    assert_eq!(
        inner
            .activate(&id(4), b"backdoor", &name("jo"), true, &mut || Ok(true))
            .unwrap(),
        None
    );
}

#[test]
fn each_name_has_a_password_of_its_own() {
    let (_scratch, mut inner) = inner();
    inner.add_chosen(&name("one"), b"secret").unwrap();
    assert!(inner.add_chosen(&name("one"), b"other").is_err());
    assert!(inner.add_generated(&name("one")).is_err());
    assert!(inner.add_chosen(&name("two"), b"secret").is_err());
    assert!(inner.set_backdoor(Some(b"secret")).is_err());
    inner.set_backdoor(Some(b"backdoor")).unwrap();
    assert!(inner.add_chosen(&name("two"), b"backdoor").is_err());
    assert!(inner.add_chosen(&name("two"), b"").is_err());
    assert!(inner.delete_password("one").unwrap() && !inner.delete_password("one").unwrap());
}

/// No chosen or generated password is readable in the file.
#[test]
fn passwords_are_kept_as_hashes() {
    let (scratch, mut inner) = inner();
    inner.add_chosen(&name("one"), b"a chosen secret").unwrap();
    inner.set_backdoor(Some(b"a backdoor secret")).unwrap();
    let made = inner.add_generated(&name("two")).unwrap();
    drop(inner.passwords());
    let bytes = std::fs::read(scratch.path().join("idfile")).unwrap();
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    assert!(has(b"one") && has(b"two"));
    assert!(!has(b"secret") && !has(made.shown().as_bytes()) && !has(&made.secret_bytes()));
}

#[test]
fn a_machine_that_is_known_uses_no_password_up() {
    let (_scratch, mut inner) = inner();
    inner.add(&id(1), &name("pc"), false).unwrap();
    inner.add_chosen(&name("two"), b"secret").unwrap();
    let registered = inner.activate(&id(1), b"secret", &name("x"), true, &mut || Ok(true));
    assert_eq!(registered.unwrap(), Some(name("pc")));
    assert_eq!(inner.passwords().unwrap().len(), 1);
    assert_eq!(inner.machine(&id(1)).unwrap().unwrap().name, name("pc"));
}

/// A user who types a name does not rename a machine that the administrator has named first.
#[test]
fn build_mode_does_not_rename_a_machine() {
    let (_scratch, mut inner) = inner();
    let register = |inner: &mut Inner, n, as_| {
        inner
            .register(&id(n), &name(as_), true, &mut || Ok(true))
            .unwrap()
    };
    assert_eq!(register(&mut inner, 1, "jo"), None);
    inner.set(&[Setting::BuildMode(true)]).unwrap();
    assert_eq!(register(&mut inner, 1, "jo"), Some(name("jo")));
    assert_eq!(register(&mut inner, 1, "joan"), Some(name("jo")));
    inner.delete(&id(1)).unwrap();
    assert_eq!(register(&mut inner, 1, "joan"), Some(name("joan")));
}

#[test]
fn deleted_host_is_not_registered_again_by_its_cookie() {
    let (_scratch, mut inner) = inner();
    let state = |inner: &mut Inner| inner.look(&id(1)).unwrap().0;
    assert!(inner.introduce(&id(1), &name("hosta"), true).unwrap());
    assert!(!inner.introduce(&id(1), &name("other"), true).unwrap());
    inner.delete(&id(1)).unwrap();
    assert!(!inner.introduce(&id(1), &name("hosta"), true).unwrap());
    assert_eq!(state(&mut inner), State::Deleted);
    assert!(inner.add(&id(1), &name("hosta"), true).unwrap());
    assert_eq!(state(&mut inner), State::Authorized);
}

/// A file that is not an inner door, is damaged, or is of another version, is rejected and left
/// unchanged.
#[test]
fn invalid_inner_door_is_not_changed() {
    let (scratch, mut inner) = inner();
    inner.add(&id(1), &name("pc"), true).unwrap();
    drop(inner);
    let path = scratch.path().join("idfile");
    let good = std::fs::read_to_string(&path).unwrap();
    let refused = |content: &[u8], words: &str| {
        std::fs::write(&path, content).unwrap();
        let told = Inner::open(&path).err().unwrap().to_string();
        assert!(told.contains(words) && told.contains("idfile"), "{told}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    };
    refused(b"", "the inner door is empty; put a copy back");
    refused(&[b'x'; 9_192], "it is not the inner door");
    refused(&[0; 9_192], "it is not the inner door");
    refused(b"cosserver sestab 1\n", "it is not the inner door");
    let newer = good.replace("cosserver idfile 1", "cosserver idfile 2");
    refused(newer.as_bytes(), "another version");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(Inner::open(&path).unwrap().count().unwrap(), 1);
    for mode in [0o640, 0o606] {
        chmod(&path, mode);
        assert!(Inner::open(&path).is_err());
    }
}

/// Machines come each once, in the order of their names.
#[test]
fn machines_are_sorted_by_name() {
    let (_scratch, mut inner) = inner();
    assert!(inner.is_untouched().unwrap());
    for (n, named) in [
        (1, "b"),
        (2, "A"),
        (3, "a"),
        (4, "C"),
        (5, "gone"),
        (6, "a"),
    ] {
        inner.add(&id(n), &name(named), true).unwrap();
    }
    inner.delete(&id(5)).unwrap();
    assert!(!inner.is_untouched().unwrap());
    let found = inner.machines_by_name().unwrap();
    let expected = [id(2), id(3), id(6), id(1), id(4)];
    assert_eq!(found.iter().map(|m| m.id).collect::<Vec<_>>(), expected);
    assert_eq!(inner.count().unwrap(), 5);
}

/// The file is what the manual page describes.
#[test]
fn inner_door_is_a_file_for_an_administrator() {
    let (scratch, mut inner) = inner();
    let path = scratch.path().join("idfile");
    inner.set(&[Setting::BuildMode(true)]).unwrap();
    inner.set(&[Setting::Welcome("Grüezi".into())]).unwrap();
    inner.add_chosen(&name("two words"), b"secret").unwrap();
    inner.add(&id(2), &name("Réception PC"), true).unwrap();
    inner.add(&id(1), &name("b"), false).unwrap();
    inner.add(&id(3), &name("old"), true).unwrap();
    inner.delete(&id(3)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("cosserver idfile 1"));
    let words: Vec<_> = lines.map(|l| l.split(' ').collect::<Vec<_>>()).collect();
    let first: Vec<_> = words.iter().map(|w| w[0]).collect();
    let ids = [1, 2, 3].map(|n| id(n).to_string());
    let before = [
        "changes",
        "sorted",
        "build-mode",
        "welcome",
        "salt",
        "password",
    ];
    assert_eq!(first[..6], before);
    assert_eq!(first[6..], ids.each_ref().map(String::as_str));
    assert_eq!((words[2][1], words[3][1]), ("yes", "Grüezi"));
    assert_eq!(words[5][2], "chosen");
    assert_eq!(words[5][4..], ["two", "words"]);
    assert_eq!(
        (words[6][1], words[7][1], words[8][1]),
        ("local", "remote", "deleted")
    );
    assert_eq!(words[7][3..], ["Réception", "PC"]);
    for row in &words[6..] {
        assert!(Occurred::parse(row[2]).is_some(), "{row:?}");
    }
}
