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
    let path = scratch.path().join("idfile.db");
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
    let bytes = std::fs::read(scratch.path().join("idfile.db")).unwrap();
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

/// SQLite would play the journal back into the new file.
#[test]
fn journal_without_its_file_is_not_touched() {
    let scratch = Scratch::new();
    let path = scratch.path().join("idfile.db");
    let journal = scratch.path().join("idfile.db-journal");
    std::fs::write(&journal, "x").unwrap();
    let told = Inner::create(&path).err().unwrap().to_string();
    assert!(told.contains("idfile.db-journal"), "{told}");
    assert!(journal.exists() && !path.exists());
    std::fs::remove_file(&journal).unwrap();
    Inner::create(&path).unwrap();
    assert_eq!(Inner::open(&path).unwrap().count().unwrap(), 0);
}

#[test]
fn deleted_host_is_not_registered_again_by_its_cookie() {
    let (_scratch, mut inner) = inner();
    assert!(inner.introduce(&id(1), &name("hosta"), true).unwrap());
    assert!(!inner.introduce(&id(1), &name("other"), true).unwrap());
    inner.delete(&id(1)).unwrap();
    assert!(!inner.introduce(&id(1), &name("hosta"), true).unwrap());
    assert_eq!(inner.look(&id(1)).unwrap().0, RegistrationState::Deleted);
    inner.saw(&id(1)).unwrap();
    assert_eq!(inner.look(&id(1)).unwrap().0, RegistrationState::Deleted);
    assert!(inner.add(&id(1), &name("hosta"), true).unwrap());
    assert_eq!(
        inner.look(&id(1)).unwrap().0,
        RegistrationState::Known { unseen: true }
    );
    inner.saw(&id(1)).unwrap();
    assert_eq!(
        inner.look(&id(1)).unwrap().0,
        RegistrationState::Known { unseen: false }
    );
}

/// A file that is not an inner door, is damaged, or is newer, is rejected and left unchanged.
#[test]
fn invalid_inner_door_is_not_changed() {
    let (scratch, mut inner) = inner();
    inner.add(&id(1), &name("pc"), true).unwrap();
    drop(inner);
    let path = scratch.path().join("idfile.db");
    let good = std::fs::read(&path).unwrap();
    let refused = |content: &[u8], words: &str| {
        std::fs::write(&path, content).unwrap();
        let told = Inner::open(&path)
            .and_then(|i| i.check_whole())
            .unwrap_err()
            .to_string();
        assert!(told.contains(words) && told.contains("idfile.db"), "{told}");
        assert_eq!(std::fs::read(&path).unwrap(), content);
    };
    refused(b"", "it is not the inner door");
    refused(&[b'x'; 8_192], "damaged");
    let mut torn = good.clone();
    torn[4_096..].fill(0xff);
    refused(&torn, "damaged");
    // user_version, at byte 60 of the header.
    let mut newer = good.clone();
    newer[60..64].copy_from_slice(&2_u32.to_be_bytes());
    refused(&newer, "newer cosserver");
    let mut foreign = good.clone();
    foreign[68..72].copy_from_slice(&7_u32.to_be_bytes());
    refused(&foreign, "it is not the inner door");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(Inner::open(&path).unwrap().count().unwrap(), 1);
    for mode in [0o640, 0o606] {
        chmod(&path, mode);
        assert!(Inner::open(&path).is_err());
    }
}

/// Another user who can write the file cannot make it run anything.
#[test]
fn registry_file_with_a_foreign_trigger_is_refused() {
    let (scratch, inner) = inner();
    drop(inner);
    let path = scratch.path().join("idfile.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TRIGGER t AFTER INSERT ON machine BEGIN DELETE FROM password; END")
        .unwrap();
    drop(db);
    let told = Inner::open(&path).err().unwrap().to_string();
    assert!(
        told.contains("its tables are not those of cosserver"),
        "{told}"
    );
}

/// Machines come page by page, each once, in the order of their names.
#[test]
fn machines_come_in_pages() {
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
    let expected = [id(2), id(3), id(6), id(1), id(4)];
    for most in 1..=6 {
        let mut found: Vec<Machine> = Vec::new();
        loop {
            let page = inner.machines_after(found.last(), most).unwrap();
            let from = u64::try_from(found.len()).unwrap();
            assert_eq!(inner.machines_from(from, most).unwrap(), page);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found.iter().map(|m| m.id).collect::<Vec<_>>(), expected);
    }
}

/// No list is sorted in memory or read again from its start.
#[test]
fn a_page_is_found_by_its_index() {
    let (_scratch, inner) = inner();
    let query = "EXPLAIN QUERY PLAN SELECT id, name, authorized, remote, seen FROM machine
                 WHERE deleted IS NULL AND (name, id) > (?1, ?2)
                 ORDER BY name, id LIMIT ?3";
    let mut plan = inner.0.db.prepare(query).unwrap();
    let mut rows = plan.query(params!["a", [0_u8; 16], 7]).unwrap();
    let step: String = rows.next().unwrap().unwrap().get(3).unwrap();
    assert!(
        step.starts_with("SEARCH machine USING INDEX machine_by_name"),
        "{step}"
    );
    assert!(rows.next().unwrap().is_none());
}
