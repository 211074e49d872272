//! Several processes with one file: races, and kills. They are child processes here, since the
//! locks of one process do not exclude it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::tests::{
    LIMITS, NOW, anonymous_of, check, find, host, of_user, open, sweep, upgrade_to,
};
use super::*;
use crate::config::scratch::{Numbers, Scratch};
use crate::sys::forked::Forked;

/// A child process, and the file to which it writes lines.
struct Child {
    process: Option<Forked>,
    said: PathBuf,
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
    }
}

impl Child {
    /// Starts one, which does not begin before the file `go` is there.
    fn start(scratch: &Scratch, name: &str, work: impl FnOnce(&TokenFile, &mut File)) -> Self {
        let said = scratch.path().join(name);
        let mut file = File::create(&said).unwrap();
        let go = scratch.path().join("go");
        let process = Forked::start(|| {
            let tokens = open(scratch);
            while !go.exists() {
                std::thread::yield_now();
            }
            // The child must not go on as the test's own thread.
            let _ = catch_unwind(AssertUnwindSafe(|| work(&tokens, &mut file)));
        });
        Self {
            process: Some(process.unwrap()),
            said,
        }
    }

    /// Waits until it has ended, and returns its lines.
    fn wait(mut self) -> Vec<String> {
        let process = self.process.take().unwrap();
        nix::sys::wait::waitpid(process.pid, None).unwrap();
        lines(&self.said)
    }

    /// Kills it once it has said so many bytes, and returns its lines.
    fn kill_after(mut self, length: u64) -> Vec<String> {
        let process = self.process.take().unwrap();
        while fs::metadata(&self.said).unwrap().len() < length {
            let has_ended = crate::sys::process::reap(process.pid);
            assert!(!has_ended, "it has ended by itself");
            std::thread::yield_now();
        }
        process.end();
        lines(&self.said)
    }
}

fn go(scratch: &Scratch) {
    fs::write(scratch.path().join("go"), "").unwrap();
}

fn lines(path: &PathBuf) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn say(file: &mut File, line: &str) {
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Does it again while another process holds a lock.
fn patiently<T>(mut work: impl FnMut() -> Result<T, NotDone>) -> Result<T, NotDone> {
    loop {
        match work() {
            Err(NotDone::Busy) => std::thread::yield_now(),
            done => return done,
        }
    }
}

/// Has 64 processes change a token at the same time, as it was found before; returns what each says.
fn race(scratch: &Scratch, token: &Token, kinds: usize) -> Vec<String> {
    let all: Vec<Child> = (0..64)
        .map(|n: usize| {
            Child::start(scratch, &format!("racer{n}"), |file, said| {
                let done = match n % kinds {
                    0 => patiently(|| file.renew(token, NOW + 300, NOW)),
                    1 => {
                        let user = format!("user{n}");
                        let done =
                            patiently(|| file.upgrade(token, upgrade_to(&user), NOW, &LIMITS));
                        done.map(|done| done.token)
                    }
                    _ => {
                        let done = patiently(|| file.end(token.index()));
                        return say(said, &format!("ended {}", done.unwrap().is_some()));
                    }
                };
                match done {
                    Ok(token) => say(said, &format!("changed {}", *token.key().to_hex())),
                    Err(why) => say(said, &format!("{why:?}")),
                }
            })
        })
        .collect();
    go(scratch);
    all.into_iter().flat_map(Child::wait).collect()
}

fn count(said: &[String], start: &str) -> usize {
    said.iter().filter(|line| line.starts_with(start)).count()
}

#[test]
fn of_64_racing_renewals_and_upgrades_of_one_state_one_succeeds() {
    for new in [of_user("jo"), anonymous_of("192.0.2.1")] {
        let (scratch, file) = host();
        let token = file.issue(new, NOW, &LIMITS).ok().unwrap();
        let said = race(&scratch, &token, 2);
        let (changed, failed) = (count(&said, "changed"), count(&said, "Changed"));
        assert_eq!((changed, failed), (1, 63), "{said:?}");
        let now = find(&file, token.index(), NOW).unwrap();
        let key = format!("changed {}", *now.key().to_hex());
        assert!(said.contains(&key), "the change is there");
        check(&file);
    }
}

#[test]
fn of_64_racing_changes_and_logouts_one_logout_ends_the_token() {
    for new in [of_user("jo"), anonymous_of("192.0.2.1")] {
        let (scratch, file) = host();
        let token = file.issue(new, NOW, &LIMITS).ok().unwrap();
        let said = race(&scratch, &token, 3);
        assert_eq!(count(&said, "ended true"), 1, "{said:?}");
        assert_eq!(count(&said, "ended"), 21);
        let failed = count(&said, "Changed") + count(&said, "Gone");
        let changed = count(&said, "changed");
        assert!(changed <= 1 && changed + failed == 43, "{said:?}");
        assert!(find(&file, token.index(), NOW).is_none());
        sweep(&file, NOW);
        assert_eq!(check(&file), []);
    }
}

#[test]
fn processes_that_renew_one_token_lose_no_renewal() {
    let (scratch, file) = host();
    let token = file.issue(of_user("jo"), NOW, &LIMITS).ok().unwrap();
    let all: Vec<Child> = (0..8)
        .map(|n| {
            Child::start(&scratch, &format!("renewer{n}"), |file, said| {
                for _ in 0..100 {
                    loop {
                        let token = find(file, token.index(), NOW).unwrap();
                        match patiently(|| file.renew(&token, NOW + 200, NOW)) {
                            Ok(_) => break,
                            Err(NotDone::Changed) => {}
                            Err(why) => panic!("{why:?}"),
                        }
                    }
                }
                say(said, "done");
            })
        })
        .collect();
    go(&scratch);
    let said: Vec<String> = all.into_iter().flat_map(Child::wait).collect();
    assert_eq!(said, ["done"; 8]);
    assert_eq!(find(&file, token.index(), NOW).unwrap().revision, 801);
}

#[test]
fn processes_that_open_the_file_at_the_same_time_get_the_same_one() {
    let scratch = super::tests::scratch();
    let all: Vec<Child> = (0..16)
        .map(|n| {
            Child::start(&scratch, &format!("opener{n}"), |file, said| {
                let token = patiently(|| file.issue(of_user("jo"), NOW, &LIMITS));
                say(said, &token.ok().unwrap().index().to_string());
            })
        })
        .collect();
    go(&scratch);
    let indexes: BTreeSet<String> = all.into_iter().flat_map(Child::wait).collect();
    assert_eq!(indexes.len(), 16);
    let there = open(&scratch).all(NOW).unwrap();
    let there: BTreeSet<String> = there.iter().map(|info| info.index.to_string()).collect();
    assert_eq!(there, indexes);
}

#[test]
fn caps_hold_when_many_processes_issue_at_the_same_time() {
    let (scratch, file) = host();
    let all: Vec<Child> = (0..16)
        .map(|n| {
            Child::start(&scratch, &format!("issuer{n}"), |file, said| {
                let new = || anonymous_of("192.0.2.1");
                let token = patiently(|| file.issue(new(), NOW, &LIMITS));
                say(said, if token.is_ok() { "issued" } else { "refused" });
            })
        })
        .collect();
    go(&scratch);
    let said: Vec<String> = all.into_iter().flat_map(Child::wait).collect();
    assert_eq!((count(&said, "issued"), count(&said, "refused")), (4, 12));
    assert_eq!(file.all(NOW).unwrap().len(), 4);
}

/// Issues, changes and ends tokens until it is killed. Says what it is about to do, and what it has
/// done: `+` issued, `-` about to be ended, `x` ended.
fn go_on(file: &TokenFile, said: &mut File, seed: u64) {
    let limits = Limits {
        all: MOST,
        anonymous: ANONYMOUS_MOST,
        anonymous_per_source: ANONYMOUS_MOST,
    };
    let mut numbers = Numbers(seed);
    let mut own: Vec<Index> = Vec::new();
    loop {
        let any = (!own.is_empty()).then(|| numbers.below(own.len()));
        match (numbers.below(10), any) {
            (0..3, Some(n)) => {
                let token = find(file, own[n], NOW).unwrap();
                let done = patiently(|| file.renew(&token, NOW + 200, NOW));
                assert!(done.is_ok());
            }
            (3, Some(n)) => {
                let token = find(file, own[n], NOW).unwrap();
                let done = patiently(|| file.upgrade(&token, upgrade_to("al"), NOW, &limits));
                assert!(done.is_ok());
            }
            (4..7, Some(n)) => {
                let index = own.swap_remove(n);
                say(said, &format!("-{index}"));
                let ended = patiently(|| file.end(index)).unwrap();
                assert!(ended.is_some());
                say(said, &format!("x{index}"));
            }
            (7, _) => drop(file.sweep(NOW, 16).unwrap()),
            (kind, _) => {
                let new = match kind {
                    8 => anonymous_of("192.0.2.1"),
                    _ => of_user("jo"),
                };
                let token = patiently(|| file.issue(new.clone(), NOW, &limits));
                let index = token.ok().unwrap().index();
                own.push(index);
                say(said, &format!("+{index}"));
            }
        }
    }
}

#[test]
fn killed_writers_lose_and_double_no_token() {
    let (scratch, file) = host();
    go(&scratch);
    let mut numbers = Numbers(0x9e37_79b9);
    let (mut live, mut gone, mut open) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut kills = 0;
    for round in 0..40 {
        let all: Vec<(Child, u64)> = (0..3)
            .map(|n| {
                let (seed, name) = (numbers.next() | 1, format!("writer{round}-{n}"));
                let length = 18 * numbers.below(60);
                let child = Child::start(&scratch, &name, |file, said| go_on(file, said, seed));
                (child, u64::try_from(length).unwrap())
            })
            .collect();
        for (child, length) in all {
            kills += 1;
            for line in child.kill_after(length) {
                let (what, index) = line.split_at(1);
                let index = Index::parse(index).unwrap();
                let is_new = match what {
                    "+" => !gone.contains(&index) && live.insert(index),
                    "-" => live.remove(&index) && open.insert(index),
                    _ => open.remove(&index) && gone.insert(index),
                };
                assert!(is_new, "{line}: used twice");
            }
        }
        let there: BTreeSet<Index> = check(&file).into_iter().collect();
        assert!(live.is_subset(&there), "a token is lost");
        assert!(gone.is_disjoint(&there), "an ended token is there");
        let others = there
            .difference(&live)
            .filter(|index| !open.contains(index));
        assert!(others.count() <= kills);
    }
    // What was left half done is completed.
    sweep(&file, NOW);
    let there = check(&file);
    assert_eq!(file.all(NOW).unwrap().len(), there.len());
    let slots = file.storage.slots().unwrap();
    let ended = (0..slots)
        .filter(|slot| matches!(file.storage.record(*slot).unwrap(), Record::Ended(_)))
        .count();
    assert_eq!(ended, 0);
}

#[test]
fn lock_that_another_process_holds_is_not_waited_for() {
    let (scratch, file) = host();
    let token = file.issue(of_user("jo"), NOW, &LIMITS).ok().unwrap();
    let index = token.index();
    let holder = Child::start(&scratch, "holder", |file, said| {
        let _lists = file.storage.lock_lists().ok().unwrap();
        let _slot = file.storage.lock_slot(index.slot()).ok().unwrap();
        say(said, "holds");
        loop {
            std::thread::park();
        }
    });
    go(&scratch);
    while lines(&holder.said).is_empty() {
        std::thread::yield_now();
    }
    let busy = Some(NotDone::Busy);
    assert_eq!(file.issue(of_user("jo"), NOW, &LIMITS).err(), busy);
    assert_eq!(file.renew(&token, NOW + 200, NOW).err(), busy);
    let upgraded = file.upgrade(&token, upgrade_to("al"), NOW, &LIMITS);
    assert_eq!(upgraded.err(), busy);
    assert_eq!(file.note_folder(&token, NOW).err(), busy);
    assert_eq!(file.end(index).err(), busy);
    assert_eq!(file.sweep(NOW + 100, 10).unwrap(), []);
    // A reader needs no lock.
    assert_eq!(find(&file, index, NOW).unwrap().info(), token.info());
    assert_eq!(file.all(NOW).unwrap().len(), 1);
    drop(holder);
    assert_eq!(file.sweep(NOW + 100, 10).unwrap().len(), 1);
    check(&file);
}
