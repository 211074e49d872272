//! A process that is killed during a write loses nothing: at every single write of every change,
//! and at any moment while machines register with a daemon.

use crate::daemon;
use crate::door;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::time::Duration;

use cosserver::config::paths::Paths;
use cosserver::protocol::prompt::Asks;
use cosserver::registry::inner::{Setting, Settings};
use cosserver::registry::{Doors, Id, Level, List, Outer, RegistrationOutcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use daemon::{COSADM, Daemon, Folder, children, long, must, run};
use door::{At, Machine, Manager, Outcome, QUICK, is_deleted, name, preload};

/// Number of existing machines: more than one page of each file holds.
const MACHINES: u16 = 300;
const CHOSEN: &str = "a password that the manager chose";
const BACKDOOR: &str = "the back door's password";

fn id(n: u16) -> Id {
    let mut id = [0x5a; 16];
    // Spread over the whole list.
    id[..2].copy_from_slice(&n.wrapping_mul(0x9e37).to_be_bytes());
    id[2..4].copy_from_slice(&n.to_be_bytes());
    Id(id)
}

/// A machine that registers, and another.
const NEW: Id = Id([0x77; 16]);
const OTHER: Id = Id([0x78; 16]);

/// A change: its name, and its transactions in order.
type Work = (&'static str, &'static [fn(&Path)]);

const WORKS: &[Work] = &[
    (
        "otp add, chosen",
        &[|at| {
            let inner = &mut Manager::in_folder(at).inner;
            inner.add_chosen(&name("new"), b"another").unwrap();
        }],
    ),
    (
        "otp add, generated",
        &[|at| {
            drop(Manager::in_folder(at).inner.add_generated(&name("new")));
        }],
    ),
    (
        "otp delete",
        &[|at| {
            assert!(
                Manager::in_folder(at)
                    .inner
                    .delete_password("chosen")
                    .unwrap()
            );
        }],
    ),
    (
        "machine add",
        &[|at| {
            let inner = &mut Manager::in_folder(at).inner;
            assert!(inner.add(&NEW, &name("new"), true).unwrap());
        }],
    ),
    (
        "machine rename",
        &[|at| {
            let inner = &mut Manager::in_folder(at).inner;
            assert!(inner.rename(&id(7), &name("another name")).unwrap());
        }],
    ),
    (
        "machine delete",
        &[|at| {
            assert!(Manager::in_folder(at).inner.delete(&id(7)).unwrap());
        }],
    ),
    (
        "machine delete --exclude",
        &[
            |at| {
                let outer = &mut Manager::in_folder(at).outer;
                assert!(outer.put(List::Exclude, &id(7), "gone").unwrap());
            },
            |at| {
                assert!(Manager::in_folder(at).inner.delete(&id(7)).unwrap());
            },
        ],
    ),
    (
        "exclude add",
        &[|at| {
            let outer = &mut Manager::in_folder(at).outer;
            assert!(outer.put(List::Exclude, &NEW, "new").unwrap());
        }],
    ),
    (
        "exclude delete",
        &[|at| {
            let outer = &mut Manager::in_folder(at).outer;
            assert!(outer.delete(List::Exclude, &id(1_000)).unwrap());
        }],
    ),
    (
        "door close",
        &[|at| {
            assert_eq!(Manager::in_folder(at).close(), u64::from(MACHINES));
        }],
    ),
    (
        "door open",
        &[|at| {
            Manager::in_folder(at).outer.set_level(Level::Off).unwrap();
        }],
    ),
    (
        "settings set",
        &[|at| {
            let all = [
                Setting::BuildMode(false),
                Setting::RemoteOnly(true),
                Setting::Welcome("w".repeat(512)),
            ];
            Manager::in_folder(at).inner.set(&all).unwrap();
        }],
    ),
    (
        "settings set backdoor-password",
        &[|at| {
            let inner = &mut Manager::in_folder(at).inner;
            inner.set_backdoor(None).unwrap();
        }],
    ),
    (
        "a host's first proof",
        &[|at| {
            doors(at).introduce(NEW, &name("hosta"), true).unwrap();
        }],
    ),
    (
        "a name in build mode",
        &[|at| {
            registered(doors(at).register(NEW, name("jo"), true).unwrap());
        }],
    ),
    ("the backdoor password", &[|at| activates(at, BACKDOOR)]),
    ("a chosen password", &[|at| activates(at, CHOSEN)]),
    (
        "a generated password",
        &[|at| activates(at, &generated(at))],
    ),
];

fn doors(at: &Path) -> Doors {
    Doors::of(&Paths::of_dir(at))
}

fn registered(outcome: RegistrationOutcome) {
    assert!(matches!(outcome, RegistrationOutcome::Registered(..)));
}

fn activates(at: &Path, password: &str) {
    registered(activate(at, NEW, password));
}

fn activate(at: &Path, id: Id, password: &str) -> RegistrationOutcome {
    let mut doors = doors(at);
    let outcome = doors.activate(id, password.as_bytes(), &name("jo"), true);
    outcome.unwrap()
}

/// Returns the generated password of a directory that [`filled`] has created.
fn generated(at: &Path) -> String {
    fs::read_to_string(at.join("generated")).unwrap()
}

/// Creates a configuration directory with a full registry, the outer door open.
fn filled() -> Folder {
    let folder = empty();
    let paths = Paths::of_dir(&folder.0);
    Doors::make(&paths).unwrap();
    let mut m = Manager::in_folder(&folder.0);
    for n in 0..MACHINES {
        let called = format!("machine {n}");
        m.inner.add(&id(n), &name(&called), n % 2 == 0).unwrap();
    }
    m.close();
    m.outer.set_level(Level::Open).unwrap();
    for n in 1_000..1_000 + MACHINES {
        m.outer.put(List::Exclude, &id(n), "excluded").unwrap();
    }
    m.inner
        .add_chosen(&name("chosen"), CHOSEN.as_bytes())
        .unwrap();
    let made = m.inner.add_generated(&name("generated")).unwrap();
    fs::write(folder.path("generated"), made.shown().as_bytes()).unwrap();
    m.inner.set_backdoor(Some(BACKDOOR.as_bytes())).unwrap();
    m.inner.set(&[Setting::BuildMode(true)]).unwrap();
    folder
}

fn empty() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

/// Copies the directory.
fn copy_of(folder: &Folder) -> Folder {
    let copy = empty();
    fs::copy(folder.path("generated"), copy.path("generated")).unwrap();
    fs::create_dir(copy.path("state")).unwrap();
    fs::set_permissions(copy.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    for file in ["state/sestab", "state/idfile"] {
        fs::copy(folder.path(file), copy.path(file)).unwrap();
    }
    copy
}

/// The contents of both files without the times.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    level: Level,
    include: Vec<(Id, String)>,
    exclude: Vec<(Id, String)>,
    machines: Vec<(Id, String, bool)>,
    deleted: Vec<Id>,
    settings: Settings,
    passwords: Vec<(String, bool)>,
}

impl State {
    /// Reads intact files.
    fn of(at: &Path) -> Self {
        let m = Manager::in_folder(at);
        assert_eq!(m.outer.wrong_lines(), Ok(Vec::new()));
        assert_eq!(m.inner.wrong_lines(), Ok(Vec::new()));
        let list = |list| {
            let all = m.outer.items(list).unwrap().into_iter();
            all.map(|item| (item.id, item.name)).collect::<Vec<_>>()
        };
        let (include, exclude) = (list(List::Include), list(List::Exclude));
        let machines = m.machines().into_iter();
        let machines = machines.map(|m| (m.id, m.name.to_string(), m.remote));
        let passwords = m.inner.passwords().unwrap().into_iter();
        Self {
            level: m.outer.level().unwrap(),
            include,
            exclude,
            machines: machines.collect(),
            settings: m.inner.settings().unwrap(),
            passwords: passwords.map(|p| (p.name, p.generated)).collect(),
            deleted: (0..MACHINES)
                .map(id)
                .filter(|id| is_deleted(&m.inner, id))
                .collect(),
        }
    }
}

/// Has a separate process do this work there, killed at its n-th write. Returns whether it was
/// killed.
fn is_killed(killer: &Path, at: &Path, what: &str, n: u32, torn: bool) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let (_, module) = module_path!().split_once("::").unwrap();
    let test = format!("{module}::killable_child_process");
    child.args(["--exact", &test, "--nocapture"]);
    child.env("KILLED_WORK", what).env("KILLED_AT", at);
    ends_by_kill(&mut child, killer, at, n, torn)
}

/// Runs this to its end or its n-th write there. Returns whether it was killed.
fn ends_by_kill(child: &mut Command, killer: &Path, at: &Path, n: u32, torn: bool) -> bool {
    let there = fs::canonicalize(at).unwrap().join("state");
    child.env("KILL_IN", there).env("KILL_AT", n.to_string());
    if torn {
        child.env("KILL_TORN", "1");
    }
    let out = run(child.env("LD_PRELOAD", killer));
    let killed = out.status.signal() == Some(Signal::SIGKILL as i32);
    assert!(killed || out.status.success(), "{child:?}: {out:?}");
    killed
}

/// The other tests start this one in separate processes; by itself it does nothing.
#[test]
fn killable_child_process() {
    let Some(what) = std::env::var_os("KILLED_WORK") else {
        return;
    };
    let at = PathBuf::from(std::env::var_os("KILLED_AT").unwrap());
    if what == "make" {
        return Doors::make(&Paths::of_dir(&at)).unwrap();
    }
    let work = WORKS.iter().find(|(name, _)| what == *name).unwrap();
    for step in work.1 {
        step(&at);
    }
}

/// Returns whether a temporary file was left: it was killed between its first write and the
/// replacement.
fn is_half_written(at: &Path) -> bool {
    let files = fs::read_dir(at.join("state")).unwrap();
    let mut names = files.map(|file| file.unwrap().file_name());
    names.any(|name| name.as_encoded_bytes().ends_with(b".tmp"))
}

#[test]
fn a_change_is_made_whole_or_not_at_all() {
    let tools = Folder::new();
    let killer = preload(&tools.0, "killer");
    let template = filled();
    let before = State::of(&template.0);
    let (mut kills, mut half_written) = (0, 0);
    let enough = if long() { 900 } else { 0 };
    let mut round = 0;
    while round == 0 || kills < enough {
        let torn = round % 2 == 1;
        for (what, steps) in WORKS {
            // The allowed contents: those from before, and those after each step.
            let whole = copy_of(&template);
            let mut allowed = vec![before.clone()];
            for step in *steps {
                step(&whole.0);
                allowed.push(State::of(&whole.0));
            }
            assert!(
                allowed.windows(2).all(|w| w[0] != w[1]),
                "{what} does nothing"
            );
            let mut n = 1;
            loop {
                let here = copy_of(&template);
                let killed = is_killed(&killer, &here.0, what, n, torn);
                half_written += usize::from(is_half_written(&here.0));
                let found = State::of(&here.0);
                if !killed {
                    assert_eq!(Some(&found), allowed.last(), "{what} was not killed");
                    break;
                }
                assert!(allowed.contains(&found), "{what}, killed at {n}: {found:?}");
                serves_once(&here.0, &found);
                kills += 1;
                n += 1;
            }
            assert!(n > 4, "{what} was killed {} times", n - 1);
        }
        round += 1;
    }
    assert!(
        half_written > WORKS.len(),
        "{half_written} of {kills} half written"
    );
    eprintln!("{kills} killed, {half_written} of them with a half-written file");
}

/// The same with the manager's own program.
#[test]
fn cosadm_changes_the_whole_or_nothing() {
    let tools = Folder::new();
    let killer = preload(&tools.0, "killer");
    let template = filled();
    let before = State::of(&template.0);
    let (gone, new) = (id(7).to_string(), NEW.to_string());
    let commands: &[&[&str]] = &[
        &["otp", "add", "Reception PC"],
        &["machine", "add", &new, "--name", "new"],
        &["machine", "delete", &gone],
        &["machine", "delete", &gone, "--exclude"],
        &["exclude", "add", &new],
        &["door", "close"],
        &["settings", "set", "build-mode", "no"],
    ];
    let mut kills = 0;
    for words in commands {
        let cosadm = |at: &Folder| {
            let mut cosadm = Command::new(COSADM);
            cosadm.arg("-C").arg(&at.0).args(*words);
            cosadm
        };
        let whole = copy_of(&template);
        must(&mut cosadm(&whole));
        let mut allowed = vec![before.clone(), State::of(&whole.0)];
        assert_ne!(allowed[0], allowed[1], "{words:?} does nothing");
        if words.contains(&"--exclude") {
            // It is excluded before it is deleted.
            let mut excluded = before.clone();
            excluded.exclude.clone_from(&allowed[1].exclude);
            allowed.push(excluded);
        }
        let mut n = 1;
        loop {
            let here = copy_of(&template);
            let killed = ends_by_kill(&mut cosadm(&here), &killer, &here.0, n, n % 2 == 0);
            let found = State::of(&here.0);
            if !killed {
                assert_eq!(found, allowed[1], "{words:?} was not killed");
                break;
            }
            assert!(allowed.contains(&found), "{words:?}, killed at {n}");
            serves_once(&here.0, &found);
            kills += 1;
            n += 1;
        }
        assert!(n > 4, "{words:?} was killed {} times", n - 1);
    }
    eprintln!("cosadm: {kills} killed");
}

/// Either the password exists and its machine is not registered, or the password is gone and the
/// machine is registered; and it registers no other machine.
fn serves_once(at: &Path, found: &State) {
    let is_in = |id: Id| found.machines.iter().any(|m| m.0 == id);
    for (called, password) in [("chosen", CHOSEN.to_owned()), ("generated", generated(at))] {
        let is_left = found.passwords.iter().any(|p| p.0 == called);
        let used = found.machines.iter().any(|m| m.0 == NEW && m.1 == called);
        if !is_left && !used {
            // The manager has deleted it.
            assert!(!is_in(NEW));
            continue;
        }
        assert_ne!(is_left, used, "{called}");
        if found.level != Level::Open {
            continue;
        }
        let first = activate(at, OTHER, &password);
        assert_eq!(
            matches!(first, RegistrationOutcome::Registered(..)),
            is_left,
            "{called}"
        );
        let last = activate(at, Id([0x79; 16]), &password);
        assert!(
            matches!(last, RegistrationOutcome::Wrong(_)),
            "{called} serves twice"
        );
        Manager::in_folder(at).inner.delete(&OTHER).unwrap();
    }
}

/// A host that is started for the first time.
#[test]
fn registry_is_created_completely_or_not_at_all() {
    let tools = Folder::new();
    let killer = preload(&tools.0, "killer");
    for torn in [false, true] {
        let mut n = 1;
        loop {
            let here = empty();
            let killed = is_killed(&killer, &here.0, "make", n, torn);
            let wrong = Doors::check(&Paths::of_dir(&here.0));
            assert_eq!(wrong, Ok(Vec::new()), "killed at {n}");
            let (_, without) = Doors::start(&Paths::of_dir(&here.0)).unwrap();
            assert!(without.is_empty(), "killed at {n}: {without:?}");
            let made = State::of(&here.0);
            assert_eq!((made.level, made.machines.len()), (Level::Closed, 0));
            if !killed {
                break;
            }
            n += 1;
        }
        assert!(n > 4, "killed {} times", n - 1);
    }
}

/// Returns the registry workers of a daemon.
fn registry_workers(d: &Daemon) -> Vec<i32> {
    let is_worker = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"cosserver: registry\0")
    };
    children(d.pid()).into_iter().filter(is_worker).collect()
}

/// Eight machines type a password at once while a process is killed: alternately a registry worker
/// and the whole daemon.
#[test]
fn a_daemon_that_is_killed_has_registered_one_or_none() {
    let mut d = Daemon::start_with(QUICK, "");
    let paths = Paths::of_dir(&d.server());
    let mut m = Manager::at(&d, Level::Open);
    m.inner.add(&id(1), &name("before"), true).unwrap();
    m.inner.add_generated(&name("nobody")).unwrap();
    let mut registered = 1;
    let (mut early, mut late) = (0, 0);
    for round in 0..if long() { 200 } else { 8 } {
        let called = name(&format!("PC {round}"));
        let (password, most) = if round % 4 < 2 {
            let made = m.inner.add_generated(&called).unwrap();
            (made.shown().to_string(), 20_000)
        } else {
            let chosen = format!("the password of round {round}");
            m.inner.add_chosen(&called, chosen.as_bytes()).unwrap();
            (chosen, 150_000)
        };
        let random = cosserver::secret::random().unwrap();
        let moment = Duration::from_micros(u64::from_be_bytes(random) % most);
        let at = At::of(&d);
        let start = Barrier::new(9);
        let outcomes: Vec<(Machine, Outcome)> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let machine = Machine::new();
                        let talk = machine.is_asked(&at, Asks::Activation);
                        start.wait();
                        let outcome = talk.types(&password);
                        (machine, outcome)
                    })
                })
                .collect();
            start.wait();
            // Any moment is suitable: that is what is tested.
            std::thread::park_timeout(moment);
            if round % 2 == 0 {
                for pid in registry_workers(&d) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            } else {
                d.signal(Signal::SIGKILL);
            }
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        if round % 2 == 1 {
            d.child.wait().unwrap();
            let folder = std::mem::take(&mut d.folder);
            d = Daemon::start_in(folder, &[]);
        }
        let wrong = Outer::open(&paths).unwrap().wrong_lines();
        assert_eq!(wrong, Ok(Vec::new()));
        m = Manager::of(&d);
        assert_eq!(m.inner.wrong_lines(), Ok(Vec::new()));
        let told: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::In(_)))
            .map(|(machine, _)| machine.id())
            .collect();
        let new: Vec<_> = m
            .machines()
            .into_iter()
            .filter(|m| m.name == called)
            .collect();
        let left = m.inner.passwords().unwrap();
        let is_left = left.iter().any(|p| p.name == called.as_str());
        assert_eq!(new.len(), usize::from(!is_left), "round {round}: {new:?}");
        assert!(told.len() <= new.len(), "round {round}: {told:?}");
        if let (Some(told), Some(new)) = (told.first(), new.first()) {
            assert_eq!(*told, new.id, "round {round}");
        }
        registered += new.len();
        assert_eq!(m.machines().len(), registered, "round {round}: one is lost");
        if is_left {
            early += 1;
            // The password still works, for one machine.
            let at = At::of(&d);
            let again = Machine::new();
            let outcome = again.is_asked(&at, Asks::Activation).types(&password);
            assert!(
                matches!(outcome, Outcome::In(_)),
                "round {round}: {outcome:?}"
            );
            registered += 1;
        } else {
            late += 1;
            assert!(outcomes.iter().any(|(m, _)| m.id() == new[0].id));
        }
        let at = At::of(&d);
        let next = Machine::new();
        let outcome = next.is_asked(&at, Asks::Activation).types(&password);
        assert!(
            matches!(outcome, Outcome::Denied(_)),
            "round {round}: {outcome:?}"
        );
    }
    eprintln!("killed before it was used: {early}, after: {late}");
}
