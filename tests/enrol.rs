//! The inner door of a real daemon and the real client: which machine is registered, by what, and
//! which is denied.

use crate::daemon;
use crate::login;
use crate::seat;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cosserver::config::name::HostName;
use cosserver::config::paths::Paths;
use cosserver::config::{keys, known_hosts};
use cosserver::registry::inner::Setting;
use cosserver::registry::{Id, Inner, Level, List, Name, Outer};

use daemon::session::{Ended, Session};
use daemon::{COS, Daemon, Folder, needs_root};
use login::{Logins, PASSWORD};
use seat::Seat;

const ADDRESS: &str = "127.0.0.1";

/// The registry of a daemon, with the manager's access to it.
struct Doors {
    outer: Outer,
    inner: Inner,
}

impl Doors {
    fn of(d: &Daemon, level: Level) -> Self {
        let paths = Paths::of_dir(&d.server());
        let mut outer = Outer::open(&paths).unwrap();
        outer.set_level(level).unwrap();
        let inner = Inner::open(&Inner::path(&paths, None)).unwrap();
        Self { outer, inner }
    }

    fn set(&mut self, setting: Setting) {
        self.inner.set(&[setting]).unwrap();
    }

    /// Returns the names of all authorized machines.
    fn names(&self) -> Vec<String> {
        let all = self.inner.machines().unwrap().into_iter();
        let mut all: Vec<_> = all.map(|m| m.name.to_string()).collect();
        all.sort();
        all
    }
}

/// A machine that is unknown to the daemon: its directory, where the daemon's key is pinned, and
/// nothing else.
struct Machine {
    folder: Folder,
    port: u16,
}

impl Machine {
    fn new(d: &Daemon) -> Self {
        let folder = Folder::new();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
        let joined = Paths::of_dir(&d.client());
        let pins = known_hosts::pins(&joined, &HostName::parse("hostb").unwrap()).unwrap();
        let own = Paths::of_dir(&folder.0);
        known_hosts::pin(&own, &HostName::parse(ADDRESS).unwrap(), &pins[0]).unwrap();
        keys::create(&own.machine_key()).unwrap();
        let port = d.port;
        Self { folder, port }
    }

    fn id(&self) -> Id {
        id_of(&self.folder.0)
    }

    /// `cos enrol FLAGS…`
    fn enrol(&self, flags: &[&str]) -> Command {
        enrol(&self.folder.0, self.port, ADDRESS, flags)
    }

    /// The same in a script, which supplies these lines.
    fn enrols(&self, flags: &[&str], lines: &[&str]) -> Ended {
        ended(&self.enrol(flags), lines)
    }
}

fn id_of(folder: &Path) -> Id {
    let key = keys::load_machine_key(&Paths::of_dir(folder)).unwrap();
    Id::of(&key.public)
}

fn enrol(folder: &Path, port: u16, host: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(COS);
    command.arg("-C").arg(folder).arg("enrol").args(flags);
    command.args(["-p", &port.to_string(), host]);
    command.env_remove("COS_ASKPASS");
    command
}

/// Runs a client without a terminal, with these lines on its standard input, to its end.
fn ended(command: &Command, lines: &[&str]) -> Ended {
    let mut alone = Command::new("setsid");
    alone.arg("--wait").arg(command.get_program());
    alone.args(command.get_args());
    for name in ["COS_ASKPASS", "GUI_HOST", "GUI_PORT"] {
        alone.env_remove(name);
    }
    let mut session = Session::spawn(&mut alone);
    for line in lines {
        session.say(line);
    }
    drop(session.stdin.take());
    session.finish()
}

fn is_registered(ended: &Ended, id: Id) {
    let words = format!("{ADDRESS} has registered this machine: {id}");
    assert_eq!(
        (ended.status, &ended.out),
        (Some(0), &vec![words]),
        "{ended:?}"
    );
}

fn is_already_allowed(ended: &Ended, id: Id) {
    let words = format!("{ADDRESS} already allows this machine: {id}");
    assert_eq!(
        (ended.status, &ended.out),
        (Some(0), &vec![words]),
        "{ended:?}"
    );
}

/// Checks that it was denied, for this cause in the log, and with this message.
fn is_denied(d: &Daemon, ended: &Ended, cause: &str, words: &str) {
    assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
    let said = ended.err.concat();
    assert!(said.contains(words), "{ended:?}");
    let reference = login::reference(&said);
    let line = d.log.wait(&format!("ref={reference}"));
    assert!(line.contains(&format!(" cause={cause} ")), "{line}");
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Steps 5 to 10 of the seed, and 16.
#[test]
fn in_build_mode_a_name_registers() {
    let d = Daemon::start();
    let mut doors = Doors::of(&d, Level::Open);
    let m = Machine::new(&d);
    is_denied(
        &d,
        &m.enrols(&["--name", "PC 17"], &[]),
        "unknown-machine",
        "if the log says unknown-machine: ",
    );
    doors.set(Setting::BuildMode(true));
    is_registered(&m.enrols(&["--name", "PC 17"], &[]), m.id());
    let line = d.log.wait("registered machine=");
    assert!(
        line.contains(&m.id().to_string()) && line.contains("PC 17"),
        "{line}"
    );
    // From now on it is not prompted, in build mode or not.
    for on in [true, false] {
        doors.set(Setting::BuildMode(on));
        is_already_allowed(&m.enrols(&[], &[]), m.id());
    }
    // A user types it.
    doors.set(Setting::BuildMode(true));
    let other = Machine::new(&d);
    let mut seat = Seat::take(&other.enrol(&[]));
    seat.sees("nter your name: ");
    seat.types(b"Joan\n");
    seat.sees("Correct? (Y/N) ");
    seat.types(b"Y\n");
    is_registered(&seat.ends(), other.id());
    assert_eq!(doors.names(), ["Joan", "PC 17"]);
    // A script that gives no name makes no attempt.
    let none = Machine::new(&d);
    let ended = none.enrols(&["--password-fd", "0"], &["Joan"]);
    assert!(ended.err.concat().contains("give --name NAME"), "{ended:?}");
    assert_eq!(doors.names(), ["Joan", "PC 17"]);
}

/// As at a login: the user accepts the host's key first.
#[test]
fn unpinned_host_key_is_accepted_before_registration_starts() {
    let d = Daemon::start();
    let mut doors = Doors::of(&d, Level::Open);
    doors.set(Setting::BuildMode(true));
    let m = Machine::new(&d);
    let known_hosts = m.folder.path("known_hosts");
    let pinned = fs::read_to_string(&known_hosts).unwrap();
    fs::remove_file(&known_hosts).unwrap();
    let ended = m.enrols(&["--name", "PC", "--password-fd", "0"], &[]);
    assert_eq!(ended.status, Some(255), "{ended:?}");
    assert!(ended.err.concat().contains(pinned.trim_end()), "{ended:?}");
    // A denial does not prove the key, so accepting it has no effect.
    doors.outer.set_level(Level::Closed).unwrap();
    let mut seat = Seat::take(&m.enrol(&["--name", "PC"]));
    seat.sees("(yes/no) ");
    seat.types(b"yes\n");
    let ended = seat.ends();
    assert_eq!(ended.status, Some(255), "{ended:?}");
    let told = ended.err.concat();
    assert!(told.contains("its key is not pinned"), "{told}");
    assert!(!known_hosts.exists());
    doors.outer.set_level(Level::Open).unwrap();
    let mut seat = Seat::take(&m.enrol(&["--name", "PC"]));
    seat.sees("(yes/no) ");
    seat.types(b"yes\n");
    is_registered(&seat.ends(), m.id());
    assert_eq!(fs::read_to_string(&known_hosts).unwrap(), pinned);
    assert_eq!(doors.names(), ["PC"]);
}

/// Steps 18 to 23.
#[test]
fn a_one_time_password_registers_once_and_under_the_managers_name() {
    let d = Daemon::start();
    let mut doors = Doors::of(&d, Level::Open);
    let password = doors.inner.add_generated(&name("Reception PC")).unwrap();
    doors
        .inner
        .add_chosen(&name("Counter"), b"open sesame")
        .unwrap();
    let [one, two, three] = [(); 3].map(|()| Machine::new(&d));
    let by = |m: &Machine, password: &str| {
        m.enrols(&["--password-fd", "0", "--name", "me"], &[password])
    };
    let used = "the activation password was not accepted";
    is_denied(&d, &by(&one, "0000-0000"), "activation", used);
    is_registered(&by(&one, &password.shown()), one.id());
    is_denied(&d, &by(&two, &password.shown()), "activation", used);
    // At a terminal it is not echoed.
    let mut seat = Seat::take(&two.enrol(&[]));
    seat.sees("ACTIVATION password: ");
    seat.types_unseen(b"open sesame\n");
    let seen = seat.seen.clone();
    is_registered(&seat.ends(), two.id());
    assert!(!seen.contains("sesame"), "{seen}");
    assert_eq!(doors.names(), ["Counter", "Reception PC"]);
    // The last one is used up: no machine is prompted any more.
    is_denied(
        &d,
        &by(&three, "open sesame"),
        "unknown-machine",
        "if the log says unknown-machine: ",
    );
    assert!(doors.inner.passwords().unwrap().is_empty());
}

/// Step 24.
#[test]
fn backdoor_password_registers_any_machine() {
    let d = Daemon::start();
    let mut doors = Doors::of(&d, Level::Open);
    doors.inner.set_backdoor(Some(b"back door")).unwrap();
    for n in 1..=2 {
        let m = Machine::new(&d);
        is_registered(&m.enrols(&["--password-fd", "0"], &["back door"]), m.id());
        assert_eq!(doors.names().len(), n);
    }
    assert!(
        doors.names().iter().all(|n| n.ends_with("@127.0.0.1")),
        "{:?}",
        doors.names()
    );
}

/// While the outer door is closed, or the machine excluded, it is not prompted, whatever the answer
/// would be.
#[test]
fn denied_machine_is_not_prompted() {
    let d = Daemon::start();
    let mut doors = Doors::of(&d, Level::Closed);
    doors.set(Setting::BuildMode(true));
    doors.inner.set_backdoor(Some(b"back door")).unwrap();
    let m = Machine::new(&d);
    let tries = || m.enrols(&["--name", "PC", "--password-fd", "0"], &["back door"]);
    is_denied(
        &d,
        &tries(),
        "unknown-machine",
        "if the log says unknown-machine: ",
    );
    doors.outer.put(List::Include, &m.id(), "PC").unwrap();
    is_denied(&d, &tries(), "unknown-machine", &m.id().to_string());
    // On both lists, it is allowed.
    doors.inner.add(&m.id(), &name("PC"), true).unwrap();
    is_already_allowed(&tries(), m.id());
    // If excluded, it is denied whatever else applies.
    for level in Level::ALL {
        doors.outer.set_level(level).unwrap();
        doors.outer.put(List::Exclude, &m.id(), "PC").unwrap();
        is_denied(&d, &tries(), "excluded", &m.id().to_string());
        doors.outer.delete(List::Exclude, &m.id()).unwrap();
    }
    // Level 0 checks no list of machines.
    doors.outer.set_level(Level::Off).unwrap();
    let other = Machine::new(&d);
    is_already_allowed(&other.enrols(&[], &[]), other.id());
    assert_eq!(doors.names(), ["PC"]);
}

/// A host that the manager has deleted is unknown, even with a valid cookie.
#[test]
fn a_deleted_host_is_asked_for_its_commands_and_registers_again() {
    let d = Daemon::start();
    let mut doors = Doors::of(&d, Level::Open);
    doors.set(Setting::Welcome("Welcome to hostb".into()));
    // Its first proof makes it known, under its name.
    let out = daemon::run(&mut d.cos(&["-v", "true"]));
    assert!(out.status.success(), "{out:?}");
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(err.contains("\nWelcome to hostb\n"), "{err}");
    let id = id_of(&d.client());
    assert!(
        err.contains(&format!("the ID of this machine is {id}")),
        "{err}"
    );
    daemon::until("it is registered", || doors.names() == ["hosta"]);
    assert!(doors.inner.delete(&id).unwrap());

    doors.set(Setting::BuildMode(true));
    let ended_without = ended(&d.cos(&["true"]), &[]);
    assert_eq!(ended_without.status, Some(255));
    let folder = d.client();
    let said = format!(
        "cos: hostb: this machine is not known to hostb; `cos -C {} enrol -p {} hostb` first",
        folder.display(),
        d.port
    );
    assert_eq!(ended_without.err, [said]);
    // At a terminal the user is prompted, before the rest of a long command is requested.
    let long = "x".repeat(5_000);
    let mut seat = Seat::take(&d.cos(&["echo", &long]));
    seat.sees("nter your name: ");
    seat.types(b"hosta again\n");
    seat.sees("Correct? (Y/N) ");
    seat.types(b"Y\n");
    let ended = seat.ends();
    assert_eq!(
        (ended.status, ended.out),
        (Some(0), vec![long]),
        "{:?}",
        ended.err
    );
    assert_eq!(doors.names(), ["hosta again"]);
    d.says(0, &["true"]);
    // Or it is registered by a separate command.
    assert!(doors.inner.delete(&id).unwrap());
    let command = enrol(&d.client(), d.port, "hostb", &["--name", "third"]);
    let ended = self::ended(&command, &[]);
    assert_eq!(
        ended.out,
        [format!("hostb has registered this machine: {id}")],
        "{ended:?}"
    );
    assert_eq!(ended.err, ["Welcome to hostb"]);
    d.says(0, &["true"]);
}

/// `cos -C FOLDER gui FLAGS… -p PORT -l alice HOST hello`.
fn gui(folder: &Path, port: u16, flags: &[&str]) -> Command {
    let mut command = Command::new(COS);
    command.arg("-C").arg(folder).arg("gui").args(flags);
    command.args(["-p", &port.to_string(), "-l", "alice", ADDRESS, "hello"]);
    for name in ["GUI_HOST", "GUI_PORT", "COS_ASKPASS"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn login_prompts_for_registration_first_and_a_script_gets_no_prompt() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let d = &l.d;
    let mut doors = Doors::of(d, Level::Open);
    doors
        .inner
        .add_chosen(&name("Desk"), b"open sesame")
        .unwrap();
    let m = Machine::new(d);
    let folder: &PathBuf = &m.folder.0;
    // The login's password is not used.
    let ended = ended(&gui(folder, d.port, &["--password-fd", "0"]), &[PASSWORD]);
    let said = format!(
        "cos: {ADDRESS}: this machine is not known to {ADDRESS}; `cos -C {} enrol -p {} {ADDRESS}` first",
        folder.display(),
        d.port
    );
    assert_eq!((ended.status, ended.err), (Some(255), vec![said]));
    assert_eq!(d.log.count("cause=activation"), 0);
    let mut seat = Seat::take(&gui(folder, d.port, &[]));
    seat.sees(&format!(
        "{ADDRESS}: Please enter your ACTIVATION password: "
    ));
    seat.types_unseen(b"open sesame\n");
    seat.sees(&format!("alice@{ADDRESS}: Password: "));
    seat.types_unseen(format!("{PASSWORD}\n").as_bytes());
    let ended = seat.ends();
    assert_eq!(
        (ended.status, ended.out),
        (Some(0), vec!["hello".to_owned()]),
        "{:?}",
        ended.err
    );
    assert_eq!(doors.names(), ["Desk"]);
    // From then on a script is prompted only for its login.
    let ended = self::ended(&gui(folder, d.port, &["--password-fd", "0"]), &[PASSWORD]);
    assert_eq!(
        (ended.status, ended.out),
        (Some(0), vec!["hello".to_owned()]),
        "{:?}",
        ended.err
    );
    // While closed, an unknown machine is not prompted for any password.
    doors.outer.set_level(Level::Closed).unwrap();
    let ended = self::ended(&gui(folder, d.port, &["--password-fd", "0"]), &[PASSWORD]);
    is_denied(d, &ended, "unknown-machine", "access denied");
    assert!(
        ended.err.concat().contains(&m.id().to_string()),
        "{ended:?}"
    );
}
