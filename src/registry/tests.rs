//! Tests of both doors together, as the daemon uses them.

use super::*;
use crate::config::scratch::Scratch;
use crate::registry::decision::{AccessDecision, PromptFor, decide};
use crate::registry::lock::Lock;
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
fn reading_here_never_waits_and_never_writes() {
    let (scratch, mut doors, mut outer, mut inner) = host();
    let paths = scratch.paths();
    inner.add(&id(1), &name("pc"), true).unwrap();
    let mut here = Doors::here(&paths);
    for n in 1..3 {
        assert_eq!(here.look_here(id(n)), doors.look(id(n)).ok());
    }
    // Another process is writing.
    let path = Inner::path(&paths, None);
    let lock = Lock::take(&path).unwrap();
    let begun = Instant::now();
    assert!(here.look_here(id(1)).is_some());
    assert!(begun.elapsed() < Duration::from_secs(1));
    drop(lock);
    // A folder of its own may hang, so it is not read at all, except for an excluded machine.
    let shared = Scratch::new();
    outer.set_folder(Some(shared.path())).unwrap();
    Inner::create(&Inner::path(&paths, Some(shared.path()))).unwrap();
    let files = || std::fs::read_dir(shared.path()).unwrap().count();
    let count = files();
    assert_eq!(here.look_here(id(1)), None);
    outer.put(List::Exclude, &id(1), "pc").unwrap();
    assert!(here.look_here(id(1)).unwrap().excluded);
    assert_eq!(files(), count);
}

/// A line is found wherever it is in a file of many machines, sorted or not.
#[test]
fn a_file_edited_by_hand_is_read_whole() {
    let (scratch, mut doors, mut outer, mut inner) = host();
    outer.set_level(Level::Open).unwrap();
    let each = |n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        Id(id)
    };
    for n in 0..300 {
        inner
            .add(
                &each(n),
                &name("a machine with a name of some length"),
                true,
            )
            .unwrap();
    }
    inner.delete(&each(7)).unwrap();
    inner.add_chosen(&name("pending"), b"secret").unwrap();
    let check = |doors: &mut Doors| {
        for n in 0..300 {
            let state = doors.look(each(n)).unwrap().state;
            let is_known = matches!(state, RegistrationState::Known { .. });
            assert_eq!(is_known, n != 7, "{n}");
            assert_eq!(state == RegistrationState::Deleted, n == 7);
            let other = doors.look(each(1_000 + n)).unwrap();
            assert_eq!(other.state, RegistrationState::Never);
            assert!(other.passwords);
        }
    };
    check(&mut doors);
    let path = Inner::path(&scratch.paths(), None);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    // Comments and blank lines anywhere.
    let noted: Vec<_> = lines.iter().flat_map(|l| [*l, "# a comment", ""]).collect();
    std::fs::write(&path, noted.join("\n")).unwrap();
    check(&mut doors);
    // The machines first, in another order.
    lines[1..].reverse();
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    check(&mut doors);
    check(&mut Doors::of(&scratch.paths()));
    // The next change sorts it again.
    inner.rename(&each(3), &name("another")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let ids: Vec<_> = text
        .lines()
        .filter(|l| {
            l.starts_with(|c: char| {
                c.is_ascii_hexdigit() && l.len() > 40 && l.as_bytes()[32] == b' '
            })
        })
        .collect();
    assert!(ids.len() == 300 && ids.is_sorted());
    check(&mut doors);
}

/// A comment stays with its machine, and a wrong line stays in the file.
#[test]
fn a_wrong_line_costs_one_machine() {
    let (scratch, mut doors, mut outer, mut inner) = host();
    outer.set_level(Level::Closed).unwrap();
    for n in 1..=6 {
        inner.add(&id(n), &name("pc"), true).unwrap();
        outer.put(List::Include, &id(n), "pc").unwrap();
    }
    let path = Outer::path(&scratch.paths());
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = |n: u8| {
        lines
            .iter()
            .position(|l| l.starts_with(&id(n).to_string()))
            .unwrap()
    };
    let (one, two, three, four) = (at(1), at(2), at(3), at(4));
    lines[one] = format!("# the first\n{} include yesterday pc", id(1));
    lines[two] = format!("{} exclude yesterday \u{1b}[2J", id(2));
    lines[three] = format!("{} inclued 2026-11-30T19:00:00Z pc", id(3));
    lines[four] += "\nnonsense\nlevel 9\n";
    std::fs::write(&path, lines.join("\n")).unwrap();
    for _ in 0..2 {
        let status: Vec<_> = (1..=6).map(|n| doors.look(id(n)).unwrap()).collect();
        let included: Vec<_> = status.iter().map(|s| s.included).collect();
        assert_eq!(included, [false, false, false, true, true, true]);
        // A line that denies counts, even if it is wrong otherwise, and so does one that says
        // nothing that is known.
        let excluded: Vec<_> = status.iter().map(|s| s.excluded).collect();
        assert_eq!(excluded, [false, true, true, false, false, false]);
        assert_eq!(status[0].level, Level::Closed);
        let wrong = outer.wrong_lines().unwrap();
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert!(wrong[0].to_string().contains("sestab:"), "{wrong:?}");
        assert_eq!(Doors::check(&scratch.paths()).unwrap().len(), 5);
        let (_, without) = Doors::start(&scratch.paths()).unwrap();
        assert_eq!(without.len(), 5, "{without:?}");
        outer.put(List::Exclude, &id(9), "").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("nonsense\n") && text.contains("inclued"));
        let first = format!("# the first\n{}", id(1));
        assert!(text.contains(&first), "{text}");
    }
}

/// Regression: a line of blanks was taken for a setting, which belongs before all machines: the
/// search went on behind it, and missed an excluded machine.
#[test]
fn a_line_of_blanks_hides_no_machine() {
    let (scratch, mut doors, mut outer, _) = host();
    let path = Outer::path(&scratch.paths());
    let mut text = std::fs::read_to_string(&path).unwrap();
    for n in 0..=255_u8 {
        let blank = [" ", "\t", "\r", "password is no ID", "nonsense"][usize::from(n % 5)];
        text += &format!("{} exclude 2026-11-30T19:00:00Z pc\r\n{blank}\n", id(n));
    }
    std::fs::write(&path, text).unwrap();
    for _ in 0..2 {
        for n in 0..=255 {
            assert!(doors.look(id(n)).unwrap().excluded, "{n}");
        }
        // The next change leaves it sorted.
        outer.put(List::Include, &id(7), "").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let places = text
        .lines()
        .skip(1)
        .filter_map(|line| crate::registry::text::place(line.as_bytes()));
    assert!(places.is_sorted(), "{text}");
    assert_eq!(text.matches("nonsense\n").count(), 51, "{text}");
}

/// Regression: the second line of a setting, which does not count, became the first when the file
/// was written again; and a wrong password hid the settings behind it.
#[test]
fn a_change_keeps_the_settings_that_count() {
    let (scratch, mut doors, mut outer, mut inner) = host();
    let path = Outer::path(&scratch.paths());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "level 1\nlevel 0\npassword is no setting\n").unwrap();
    let file = Inner::path(&scratch.paths(), None);
    let text = std::fs::read_to_string(&file).unwrap();
    let wrong = "build-mode yes\nbuild-mode no\npassword 00 chosen 2026-11-30 pc\n";
    std::fs::write(&file, text + wrong).unwrap();
    for n in 1..4 {
        let status = doors.look(id(9)).unwrap();
        assert_eq!((status.level, status.build_mode), (Level::Open, true));
        assert!(!status.passwords);
        outer.put(List::Include, &id(n), "").unwrap();
        inner.add(&id(n), &name("pc"), true).unwrap();
        assert_eq!(outer.level().unwrap(), Level::Open);
        assert_eq!(outer.wrong_lines().unwrap().len(), 2);
        assert_eq!(inner.wrong_lines().unwrap().len(), 2);
    }
}

/// A wrong line of a machine is no missing line: its host is not registered again.
#[test]
fn a_misspelled_deletion_denies_and_stays() {
    let (scratch, mut doors, mut outer, _) = host();
    outer.set_level(Level::Open).unwrap();
    let path = Inner::path(&scratch.paths(), None);
    for (n, line) in [
        "  deleted 2026-11-30T19:00:00Z pc",
        "\tdeleted\t2026-11-30T19:00:00Z pc",
        " Deleted 2026-11-30T19:00:00Z pc",
        " deleted",
        " remote 2026-11-30 pc",
        "",
    ]
    .iter()
    .enumerate()
    {
        let id = id(u8::try_from(n).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{id}{line}\n")).unwrap();
        assert_eq!(
            doors.look(id).unwrap().state,
            RegistrationState::Deleted,
            "{line}"
        );
        assert!(!doors.introduce(id, &name("hosta"), true).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("{id}{line}\n")), "{text}");
    }
}

/// Processes have different working folders: one would read another registry than the next.
#[test]
fn a_relative_folder_of_the_inner_door_denies() {
    let (scratch, mut doors, mut outer, _) = host();
    let path = Outer::path(&scratch.paths());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "folder shared\n").unwrap();
    let told = doors.look(id(1)).unwrap_err().to_string();
    assert!(told.contains("not an absolute path"), "{told}");
    assert_eq!(outer.wrong_lines().unwrap().len(), 1);
    assert!(Doors::check(&scratch.paths()).is_err());
    outer.set_folder(None).unwrap();
    assert!(doors.look(id(1)).is_ok());
}

/// An indented line is a line.
#[test]
fn blanks_before_a_line_are_ignored() {
    let (scratch, mut doors, mut outer, _) = host();
    let path = Outer::path(&scratch.paths());
    let text = std::fs::read_to_string(&path).unwrap();
    let line = format!(
        "  {} exclude 2026-11-30T19:00:00Z pc\n\t# a comment\n",
        id(1)
    );
    std::fs::write(&path, text + " level 1\n" + &line).unwrap();
    for _ in 0..2 {
        let status = doors.look(id(1)).unwrap();
        assert_eq!((status.excluded, status.level), (true, Level::Open));
        assert!(outer.wrong_lines().unwrap().is_empty());
        outer.put(List::Include, &id(2), "").unwrap();
    }
}

/// A registration does not wait until a person has ended an editor.
#[test]
fn a_change_during_an_edit_fails_at_once() {
    let (scratch, _, mut outer, _) = host();
    let (tell, hear) = std::os::unix::net::UnixStream::pair().unwrap();
    let editor = crate::sys::forked::Forked::start(|| {
        let edit = Outer::open(&scratch.paths()).and_then(Outer::edit);
        let _ = nix::unistd::write(&tell, &[u8::from(edit.is_ok())]);
        loop {
            nix::unistd::pause();
        }
    })
    .unwrap();
    let mut byte = [0];
    nix::unistd::read(&hear, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    let begun = Instant::now();
    let told = outer
        .put(List::Exclude, &id(1), "")
        .unwrap_err()
        .to_string();
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(told.contains("cosadm edit"), "{told}");
    editor.end();
    outer.put(List::Exclude, &id(1), "").unwrap();
}

/// A file that was cut short has lost exclusions.
#[test]
fn a_truncated_registry_file_denies() {
    let (scratch, mut doors, mut outer, _) = host();
    for n in 1..=9 {
        outer.put(List::Exclude, &id(n), "pc").unwrap();
    }
    let path = Outer::path(&scratch.paths());
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 100).unwrap();
    file.set_modified(modified).unwrap();
    let told = doors.look(id(1)).unwrap_err().to_string();
    assert!(told.contains("damaged"), "{told}");
    assert!(Doors::start(&scratch.paths()).is_err());
    assert!(outer.put(List::Exclude, &id(1), "pc").is_err());
}

/// Another process writes the file all the time, and is killed.
#[test]
fn a_killed_writer_leaves_the_old_file() {
    use crate::sys::forked::Forked;
    let (scratch, mut doors, mut outer, _) = host();
    outer.put(List::Exclude, &id(1), "pc").unwrap();
    for round in 0_u8..20 {
        let child = Forked::start(|| {
            let mut outer = Outer::open(&scratch.paths()).unwrap();
            loop {
                outer.put(List::Include, &id(2), "pc").unwrap();
                outer.delete(List::Include, &id(2)).unwrap();
            }
        })
        .unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(u64::from(round) + 2) {
            assert!(doors.look(id(1)).unwrap().excluded);
        }
        nix::sys::signal::kill(child.pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child.pid, None).unwrap();
        assert!(doors.look(id(1)).unwrap().excluded);
        // Its lock is gone with it.
        outer.put(List::Exclude, &id(3 + round), "pc").unwrap();
        assert_eq!(outer.count(List::Exclude).unwrap(), u64::from(round) + 2);
        assert!(outer.wrong_lines().unwrap().is_empty());
    }
}

#[test]
fn a_visit_does_not_rewrite_the_registry() {
    let (scratch, mut doors, mut outer, mut inner) = host();
    outer.set_level(Level::Open).unwrap();
    inner.add(&id(1), &name("pc"), true).unwrap();
    let known = |unseen| RegistrationState::Known { unseen };
    assert_eq!(doors.look(id(1)).unwrap().state, known(true));
    let path = Inner::path(&scratch.paths(), None);
    let before = std::fs::metadata(&path).unwrap();
    doors.saw(id(1)).unwrap();
    assert_eq!(doors.look(id(1)).unwrap().state, known(false));
    let after = std::fs::metadata(&path).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((before.ino(), before.mtime()), (after.ino(), after.mtime()));
    // A registration is a visit.
    inner
        .set(&[crate::registry::inner::Setting::BuildMode(true)])
        .unwrap();
    doors.register(id(2), name("two"), true).unwrap();
    assert_eq!(doors.look(id(2)).unwrap().state, known(false));
}

/// A copy is restored into the same file and changed once.
#[test]
fn restored_copy_in_the_same_file_is_read() {
    let (scratch, mut doors, mut outer, _) = host();
    let mut reader_here = Doors::here(&scratch.paths());
    let path = Outer::path(&scratch.paths());
    let copy = std::fs::read(&path).unwrap();
    outer.put(List::Exclude, &id(1), "").unwrap();
    assert!(doors.look(id(1)).unwrap().excluded);
    assert!(reader_here.look_here(id(1)).unwrap().excluded);
    drop(outer);
    std::fs::write(&path, copy).unwrap();
    let mut outer = Outer::open(&scratch.paths()).unwrap();
    outer.put(List::Exclude, &id(2), "").unwrap();
    for n in [1, 2] {
        assert_eq!(doors.look(id(n)).unwrap().excluded, n == 2);
        assert_eq!(reader_here.look_here(id(n)).unwrap().excluded, n == 2);
    }
}

/// A change in one door counts even if the reader was waiting for the other door.
#[test]
fn reader_checks_both_doors_again_after_waiting() {
    let (_scratch, mut doors, mut outer, mut inner) = host();
    outer.set_level(Level::Open).unwrap();
    inner.add(&id(1), &name("pc"), true).unwrap();
    assert!(!doors.look(id(1)).unwrap().excluded);
    // The first answer takes long, and the outer door changes after it was read.
    let mut looks = 0;
    let status = doors.again_if_slow(|doors| {
        let status = doors.look_once(id(1));
        if looks == 0 {
            outer.put(List::Exclude, &id(1), "").unwrap();
            std::thread::sleep(SOON);
        }
        looks += 1;
        status
    });
    assert!(status.unwrap().excluded);
}

/// Opening a fifo blocks until there is a writer.
#[test]
fn a_registry_file_that_is_a_fifo_or_a_link_is_not_read() {
    let (scratch, mut doors, mut outer, _) = host();
    outer.set_level(Level::Open).unwrap();
    doors.look(id(1)).unwrap();
    let path = scratch.paths().state.join("idfile");
    let away = scratch.paths().state.join("away");
    std::fs::rename(&path, &away).unwrap();
    let refused = |doors: &mut Doors| {
        let told = doors.look(id(1)).err().unwrap().to_string();
        assert!(told.contains("no plain file"), "{told}");
        assert_eq!(Doors::here(&scratch.paths()).look_here(id(1)), None);
        std::fs::remove_file(&path).unwrap();
    };
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&mut doors);
    std::os::unix::fs::symlink(&away, &path).unwrap();
    refused(&mut doors);
    std::fs::rename(&away, &path).unwrap();
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
        let machines = inner.machines().unwrap().into_iter();
        outer.close(machines.map(|m| (m.id, m.name)).collect())
    };
    let refused = close(&inner, &mut outer).unwrap_err();
    assert!(
        refused.to_string().contains("deny every machine"),
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
    let (scratch, mut doors, mut outer, _) = host();
    let each = |n: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        Id(id)
    };
    let count = 20_000;
    let machines = (0..count).map(|n| (each(n), name("a machine with a name of some length")));
    let machines: Vec<_> = machines.collect();
    let is_closed = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_closed.load(std::sync::atomic::Ordering::Relaxed) {
                let begun = Instant::now();
                doors.look(each(1)).unwrap();
                longest = longest.max(begun.elapsed());
            }
            assert!(doors.look(each(1)).unwrap().included);
            longest
        });
        assert_eq!(outer.close(machines).unwrap(), u64::from(count));
        is_closed.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() < Duration::from_secs(1));
    });
    let file = Outer::path(&scratch.paths());
    assert!(std::fs::metadata(file).unwrap().len() > 1_000_000);
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
