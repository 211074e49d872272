//! Tests of both doors together, as the daemon uses them.

use super::*;
use crate::config::scratch::Scratch;
use crate::registry::decision::{AccessDecision, PromptFor, decide};
use crate::registry::outer::List;

fn id(n: u8) -> Id {
    Id([n; 16])
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Returns a host with its doors, and each file open as in `cosadm`.
fn host() -> (Scratch, Doors, Outer, Inner) {
    let scratch = Scratch::new();
    let paths = scratch.paths();
    let doors = Doors::start(&paths).unwrap().0;
    let outer = Outer::open(&paths).unwrap();
    let inner = Inner::open(&Inner::path(&paths, None)).unwrap();
    (scratch, doors, outer, inner)
}

#[test]
fn by_default_unknown_machines_are_denied_without_a_prompt() {
    let (_scratch, mut doors, ..) = host();
    let seen = doors.look(id(1)).unwrap();
    assert_eq!(seen.level, Level::Closed);
    assert_eq!(seen.state, RegistrationState::Never);
    assert!(!seen.build_mode && !seen.passwords && seen.welcome.is_empty());
    assert!(matches!(
        decide(&seen, false, false),
        AccessDecision::Deny(_)
    ));
}

#[test]
fn change_by_the_administrator_applies_to_the_next_connection() {
    let (_scratch, mut doors, mut outer, mut inner) = host();
    outer.set_level(Level::Open).unwrap();
    inner.add(&id(1), &name("pc"), true).unwrap();
    let ask = |doors: &mut Doors, n| decide(&doors.look(id(n)).unwrap(), false, false);
    assert!(matches!(ask(&mut doors, 1), AccessDecision::Allow(_)));
    inner.add_chosen(&name("two"), b"secret").unwrap();
    assert_eq!(
        ask(&mut doors, 2),
        AccessDecision::Prompt(PromptFor::Activation)
    );
    outer.put(List::Exclude, &id(1), "pc").unwrap();
    assert!(doors.look(id(1)).unwrap().excluded);
    outer.delete(List::Exclude, &id(1)).unwrap();
    assert!(inner.delete(&id(1)).unwrap() && !inner.delete(&id(1)).unwrap());
    assert_eq!(doors.look(id(1)).unwrap().state, RegistrationState::Deleted);
    assert_eq!(inner.count().unwrap(), 0);
}

#[test]
fn nonblocking_reader_never_waits_and_never_writes() {
    let (scratch, mut doors, mut outer, mut inner) = host();
    inner.add(&id(1), &name("pc"), true).unwrap();
    let mut glance = NonblockingReader::of(&scratch.paths());
    for n in 1..3 {
        assert_eq!(glance.look(id(n)), doors.look(id(n)).ok());
    }
    // Another process is writing.
    let path = Inner::path(&scratch.paths(), None);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(glance.look(id(1)), None);
    assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    other.execute_batch("ROLLBACK").unwrap();
    assert!(glance.look(id(1)).is_some());
    // The writer was killed: its writes are in the file, and the former content is in the journal.
    other
        .execute_batch(
            "PRAGMA cache_size=1; BEGIN IMMEDIATE; DELETE FROM machine;
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<9999)
             INSERT INTO machine SELECT randomblob(16), 'n' || x, 1, 1, 1, NULL FROM n;",
        )
        .unwrap();
    let torn = Scratch::new();
    for file in ["sestab.db", "idfile.db", "idfile.db-journal"] {
        let to = torn.paths().state.join(file);
        std::fs::create_dir_all(&torn.paths().state).unwrap();
        std::fs::copy(scratch.paths().state.join(file), to).unwrap();
    }
    drop(other);
    let journal = torn.paths().state.join("idfile.db-journal");
    let torn_file = std::fs::read(torn.paths().state.join("idfile.db")).unwrap();
    let mut glance = NonblockingReader::of(&torn.paths());
    assert_eq!(glance.look(id(1)), None);
    let now = std::fs::read(torn.paths().state.join("idfile.db")).unwrap();
    assert!(journal.exists() && now == torn_file);
    let known = RegistrationState::Known { unseen: true };
    assert_eq!(Doors::of(&torn.paths()).look(id(1)).unwrap().state, known);
    assert_eq!(glance.look(id(1)).unwrap().state, known);
    // A folder that other hosts write to is not read at all, except for an excluded machine.
    let shared = Scratch::new();
    outer.set_folder(Some(shared.path())).unwrap();
    Inner::create(&Inner::path(&scratch.paths(), Some(shared.path()))).unwrap();
    let mut glance = NonblockingReader::of(&scratch.paths());
    assert_eq!(glance.look(id(1)), None);
    outer.put(List::Exclude, &id(1), "pc").unwrap();
    assert!(glance.look(id(1)).unwrap().excluded);
}

/// A copy is restored into the same file and changed once: its header then equals that of the file
/// that was read.
#[test]
fn restored_copy_in_the_same_file_is_read() {
    let (scratch, mut doors, mut outer, _) = host();
    let mut glance = NonblockingReader::of(&scratch.paths());
    let path = Outer::path(&scratch.paths());
    let copy = std::fs::read(&path).unwrap();
    outer.put(List::Exclude, &id(1), "").unwrap();
    assert!(doors.look(id(1)).unwrap().excluded);
    assert!(glance.look(id(1)).unwrap().excluded);
    drop(outer);
    std::fs::write(&path, copy).unwrap();
    let mut outer = Outer::open(&scratch.paths()).unwrap();
    outer.put(List::Exclude, &id(2), "").unwrap();
    for n in [1, 2] {
        assert_eq!(doors.look(id(n)).unwrap().excluded, n == 2);
        assert_eq!(glance.look(id(n)).unwrap().excluded, n == 2);
    }
}

/// A change in one door counts even if the reader was waiting for the other door.
#[test]
fn reader_checks_both_doors_again_after_waiting() {
    let (_scratch, mut doors, mut outer, mut inner) = host();
    outer.set_level(Level::Open).unwrap();
    inner.add(&id(1), &name("pc"), true).unwrap();
    assert!(!doors.look(id(1)).unwrap().excluded);
    let other = rusqlite::Connection::open(inner.file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| doors.look(id(1)).unwrap());
        // Long enough for the reader to have read the outer door.
        std::thread::sleep(std::time::Duration::from_millis(500));
        outer.put(List::Exclude, &id(1), "").unwrap();
        other.execute_batch("ROLLBACK").unwrap();
        assert!(looks.join().unwrap().excluded);
    });
}

/// Opening a fifo blocks until there is a writer.
#[test]
fn a_journal_that_became_a_fifo_is_not_opened() {
    let (scratch, mut doors, ..) = host();
    doors.look(id(1)).unwrap();
    let journal = scratch.paths().state.join("idfile.db-journal");
    nix::unistd::mkfifo(&journal, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let told = doors.look(id(1)).err().unwrap().to_string();
    assert!(told.contains("no plain file"), "{told}");
    assert_eq!(NonblockingReader::of(&scratch.paths()).look(id(1)), None);
    std::fs::remove_file(&journal).unwrap();
    assert!(doors.look(id(1)).is_ok());
}

#[test]
fn restored_file_is_read() {
    let (scratch, mut doors, mut outer, _) = host();
    let path = Outer::path(&scratch.paths());
    let copy = scratch.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    outer.put(List::Exclude, &id(1), "").unwrap();
    assert!(doors.look(id(1)).unwrap().excluded);
    std::fs::rename(&copy, &path).unwrap();
    assert!(!doors.look(id(1)).unwrap().excluded);
}

#[test]
fn missing_registry_file_denies() {
    let (scratch, mut doors, mut outer, _) = host();
    outer.set_level(Level::Open).unwrap();
    std::fs::remove_file(Inner::path(&scratch.paths(), None)).unwrap();
    assert!(doors.look(id(1)).is_err());
    std::fs::remove_file(Outer::path(&scratch.paths())).unwrap();
    assert!(doors.look(id(1)).is_err());
}

#[test]
fn closing_the_outer_door_includes_authorized_machines() {
    let (_scratch, mut doors, mut outer, mut inner) = host();
    outer.set_level(Level::Open).unwrap();
    let close = |inner: &Inner, outer: &mut Outer| {
        outer.close(&mut |put| inner.machines(&mut |m| put(&m.id, &m.name)))
    };
    let refused = close(&inner, &mut outer).unwrap_err();
    assert!(
        refused.to_string().contains("lock everybody out"),
        "{refused}"
    );
    assert_eq!(outer.level().unwrap(), Level::Open);
    for n in 1..=3 {
        inner.add(&id(n), &name("pc"), true).unwrap();
    }
    for gone in [0, 9] {
        outer.put(List::Include, &id(gone), "long gone").unwrap();
    }
    outer.put(List::Include, &id(2), "PC").unwrap();
    inner.delete(&id(3)).unwrap();
    assert_eq!(close(&inner, &mut outer).unwrap(), 2);
    assert_eq!(outer.count(List::Include).unwrap(), 2);
    assert!(doors.look(id(1)).unwrap().included);
    assert!(!doors.look(id(9)).unwrap().included);
    assert!(!doors.look(id(0)).unwrap().included);
    assert_eq!(
        outer.get(List::Include, &id(2)).unwrap().unwrap().name,
        "pc"
    );
    // Nothing is lost if the list is invalid.
    let wrong = outer.close(&mut |put| {
        put(&id(2), &name("pc"))?;
        put(&id(1), &name("pc"))
    });
    assert!(wrong.is_err());
    assert_eq!(outer.count(List::Include).unwrap(), 2);
    // A machine that is deleted now is denied by the inner door.
    inner.delete(&id(1)).unwrap();
    assert!(matches!(
        decide(&doors.look(id(1)).unwrap(), false, false),
        AccessDecision::Deny(_)
    ));
}

/// Until the door is closed it can be read, however many machines are taken over.
#[test]
fn closing_the_outer_door_does_not_delay_readers() {
    let (_scratch, mut doors, mut outer, _) = host();
    let each = |n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        Id(id)
    };
    // Many times the size of the cache.
    let count = 20_000;
    let closed = outer.close(&mut |put| {
        for n in 0..count {
            put(&each(n), &name("a machine with a name of some length"))?;
        }
        let seen = doors.look(each(1)).unwrap();
        assert!(!seen.included, "not yet");
        Ok(())
    });
    assert_eq!(closed.unwrap(), u64::from(count));
    assert!(doors.look(each(1)).unwrap().included);
}

#[test]
fn closed_outer_door_registers_no_machine() {
    let (_scratch, mut doors, mut outer, mut inner) = host();
    inner
        .set(&[crate::registry::inner::Setting::BuildMode(true)])
        .unwrap();
    inner.add_chosen(&name("two"), b"secret").unwrap();
    let wrong = |outcome| matches!(outcome, RegistrationOutcome::Wrong(_));
    assert!(wrong(doors.register(id(1), name("pc"), true).unwrap()));
    assert!(wrong(
        doors.activate(id(1), b"secret", &name("x"), true).unwrap()
    ));
    assert_eq!(inner.passwords().unwrap().len(), 1);
    outer.set_level(Level::Open).unwrap();
    assert!(!wrong(
        doors.activate(id(1), b"secret", &name("x"), true).unwrap()
    ));
    assert_eq!(inner.machine(&id(1)).unwrap().unwrap().name, name("two"));
    assert!(inner.passwords().unwrap().is_empty());
}

#[test]
fn an_inner_door_in_another_folder_is_shared() {
    let (scratch, mut doors, mut outer, mut own) = host();
    own.add(&id(1), &name("own"), false).unwrap();
    let folder = scratch.folder("shared", 0o700);
    outer.set_folder(Some(&folder)).unwrap();
    // Readers do not create it: its folder may not be mounted.
    assert!(doors.look(id(1)).is_err());
    let path = Inner::path(&scratch.paths(), Some(&folder));
    Inner::create(&path).unwrap();
    assert_eq!(doors.look(id(1)).unwrap().state, RegistrationState::Never);
    Inner::open(&path)
        .unwrap()
        .add(&id(1), &name("shared"), true)
        .unwrap();
    assert!(matches!(
        doors.look(id(1)).unwrap().state,
        RegistrationState::Known { .. }
    ));
}
