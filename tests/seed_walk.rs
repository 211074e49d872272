//! Seed 002, "How to Implement the Machine-Specific Security System", steps 1 to 27, against a real
//! daemon with real clients: once in the menu program at a terminal, and once by the subcommands.
//! Step 14's remote user connects from another address, which takes a private network for the test,
//! and therefore root.

use crate::daemon;
use crate::seat;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cosserver::config::name::HostName;
use cosserver::config::paths::Paths;
use cosserver::config::{keys, known_hosts};
use daemon::session::{Ended, Session};
use daemon::{COS, COSADM, COSSERVER, Daemon, Folder, must, needs_root, run};
use nix::sched::{CloneFlags, unshare};
use seat::Seat;

const HERE: &str = "127.0.0.1";
/// The host as the remote user sees it, and the remote user's address.
const THERE: &str = "10.99.0.1";
const FROM: &str = "10.99.0.2";

/// The manager's actions, by either interface.
trait Manager {
    /// Steps 2 and 3: the program is run for the first time, and asks for a directory.
    fn first_run(&mut self, folder: &Path);
    /// Steps 4 to 6.
    fn settings(&mut self, build_mode: bool, remote_only: bool, backdoor: &str, welcome: bool);
    /// Step 7: leaves, with the outer door closed or open. Returns the message.
    fn leave(&mut self, close: bool) -> String;
    /// Step 11: the list of authorized machines.
    fn list(&mut self) -> String;
    /// Steps 19 to 21.
    fn add_password(&mut self, name: &str, password: &str);
    /// Returns the users that have not used their one-time password.
    fn passwords(&mut self) -> String;
    fn delete_password(&mut self, name: &str);
    /// Steps 25 and 26.
    fn delete(&mut self, name: &str, exclude: bool);
    /// Step 27.
    fn excluded(&mut self) -> String;
    fn take_off(&mut self, name: &str);
}

// ---- the menu ----

/// IDMAINT at a terminal.
struct Menu {
    server: PathBuf,
    seat: Option<Seat>,
}

const MAIN: &str = "Your choice (Enter leaves): ";
const BELOW: &str = "Your choice (Enter returns): ";

impl Menu {
    /// Returns the menu at its main screen.
    fn seat(&mut self) -> &mut Seat {
        let server = &self.server;
        self.seat.get_or_insert_with(|| {
            let mut seat = Seat::take_whole(Command::new(COSADM).arg("-C").arg(server));
            seat.sees(MAIN);
            seat
        })
    }

    /// Types, and waits until this is shown; returns everything shown in between.
    fn types(&mut self, keys: &str, until: &str) -> String {
        let seat = self.seat();
        seat.seen.clear();
        seat.types(keys.as_bytes());
        seat.sees(until);
        seat.seen.clone()
    }

    /// The same for input that must not be shown.
    fn types_unseen(&mut self, keys: &str, until: &str) {
        let seat = self.seat();
        seat.seen.clear();
        seat.types_unseen(keys.as_bytes());
        seat.sees(until);
        let secret = keys.trim_end();
        // The input that removes the password is not secret.
        let is_shown = secret.len() > 1 && seat.seen.contains(secret);
        assert!(!is_shown, "it is shown");
    }

    /// Returns the line number of a name on a screen.
    fn line_of(screen: &str, name: &str) -> String {
        let line = screen.lines().find(|l| l.contains(name)).expect(screen);
        line.split_whitespace().next().unwrap().to_owned()
    }
}

const fn letter(yes: bool) -> &'static str {
    if yes { "Y\n" } else { "N\n" }
}

impl Manager for Menu {
    fn first_run(&mut self, folder: &Path) {
        let mut seat = Seat::take_whole(Command::new(COSADM).arg("-C").arg(&self.server));
        seat.sees("Folder (Enter: ");
        seat.types(format!("{}\n", folder.display()).as_bytes());
        seat.sees(MAIN);
        assert!(
            seat.seen.contains("(no machine is authorized)"),
            "{}",
            seat.seen
        );
        self.seat = Some(seat);
    }

    fn settings(&mut self, build_mode: bool, remote_only: bool, backdoor: &str, welcome: bool) {
        self.types("S\n", "Enable Build Mode?");
        self.types(letter(build_mode), "Secure Remote Users Only?");
        self.types(letter(remote_only), "Backdoor Getin Password");
        if backdoor.is_empty() {
            self.types_unseen("\n", "Welcome message at start-up?");
        } else {
            let typed = format!("{backdoor}\n");
            // Removing the password takes it once, setting one takes it twice.
            if backdoor != "-" {
                self.types_unseen(&typed, "gain");
            }
            self.types_unseen(&typed, "Welcome message at start-up?");
        }
        self.types(letter(welcome), "Correct? (Y/N)");
        let shown = self.types("Y\n", MAIN);
        assert!(shown.contains("The settings are kept."), "{shown}");
    }

    fn leave(&mut self, close: bool) -> String {
        let before = self.types("\n", "Close outer door?");
        assert!(before.contains("authorized,"), "{before}");
        self.types(letter(close), "Exclude list: ");
        let mut seat = self.seat.take().unwrap();
        seat.sees(".\r\n");
        let seen = seat.seen.clone();
        assert_eq!(seat.ends().status, Some(0));
        seen
    }

    fn list(&mut self) -> String {
        self.types("X\n", BELOW);
        self.types("\n", MAIN)
    }

    fn add_password(&mut self, name: &str, password: &str) {
        self.types("O\n", BELOW);
        self.types("A\n", "Name: ");
        self.types(&format!("{name}\n"), "Password (not shown");
        self.types_unseen(&format!("{password}\n"), "gain");
        self.types_unseen(&format!("{password}\n"), BELOW);
        self.types("\n", MAIN);
    }

    fn passwords(&mut self) -> String {
        let shown = self.types("O\n", BELOW);
        self.types("\n", MAIN);
        shown
    }

    fn delete_password(&mut self, name: &str) {
        let line = Self::line_of(&self.types("O\n", BELOW), name);
        self.types("D\n", "Enter Line# to Delete: ");
        self.types(&format!("{line}\n"), "(Y/N)");
        self.types("Y\n", BELOW);
        self.types("\n", MAIN);
    }

    fn delete(&mut self, name: &str, exclude: bool) {
        let line = Self::line_of(&self.list(), name);
        self.types("D\n", "Enter Line# to Delete: ");
        let asked = self.types(&format!("{line}\n"), "(Y/N)");
        assert!(asked.contains(&format!("Delete {name} ")), "{asked}");
        self.types("Y\n", "Add to Exclude List? (Y/N)");
        self.types(letter(exclude), MAIN);
    }

    fn excluded(&mut self) -> String {
        let shown = self.types("X\n", BELOW);
        self.types("A\n", MAIN);
        shown
    }

    fn take_off(&mut self, name: &str) {
        let line = Self::line_of(&self.types("X\n", BELOW), name);
        self.types("D\n", "Enter Line# to Delete: ");
        self.types(&format!("{line}\n"), "(Y/N)");
        self.types("Y\n", BELOW);
        self.types("\n", MAIN);
    }
}

// ---- the subcommands ----

/// The same by `cosadm`'s subcommands, as in a script.
struct Commands {
    server: PathBuf,
}

impl Commands {
    fn cosadm(&self, words: &[&str]) -> Command {
        let mut command = Command::new(COSADM);
        command.arg("-C").arg(&self.server).args(words);
        command
    }

    fn does(&self, words: &[&str]) -> String {
        String::from_utf8(must(&mut self.cosadm(words))).unwrap()
    }

    /// Runs it with a line on standard input.
    fn does_with(&self, words: &[&str], line: &str) {
        let mut session = Session::spawn(&mut self.cosadm(words));
        session.say(line);
        drop(session.stdin.take());
        let ended = session.finish();
        assert_eq!(ended.status, Some(0), "{words:?}: {ended:?}");
    }

    /// Returns the ID of a name in a list of objects.
    fn id_of(&self, words: &[&str], name: &str) -> String {
        let list = self.does(&[words, &["--json"]].concat());
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let mut fields = list.as_object().unwrap().values();
        let all = fields.find_map(|f| f.as_array()).unwrap();
        let found = all.iter().find(|m| m["name"] == name).expect(name);
        found["id"].as_str().unwrap().to_owned()
    }
}

impl Manager for Commands {
    fn first_run(&mut self, folder: &Path) {
        self.does(&["settings", "set", "folder", &folder.display().to_string()]);
    }

    fn settings(&mut self, build_mode: bool, remote_only: bool, backdoor: &str, welcome: bool) {
        let word = |yes| if yes { "yes" } else { "no" };
        self.does(&["settings", "set", "build-mode", word(build_mode)]);
        self.does(&["settings", "set", "remote-only", word(remote_only)]);
        self.does(&["settings", "set", "welcome", word(welcome)]);
        match backdoor {
            "" => {}
            "-" => self.does_with(&["settings", "set", "backdoor-password"], ""),
            new => self.does_with(&["settings", "set", "backdoor-password"], new),
        }
    }

    fn leave(&mut self, close: bool) -> String {
        let word = if close { "close" } else { "open" };
        let out = run(&mut self.cosadm(&["door", word]));
        let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        said + &self.does(&["door", "status"])
    }

    fn list(&mut self) -> String {
        self.does(&["machine", "list"])
    }

    fn add_password(&mut self, name: &str, password: &str) {
        self.does_with(&["otp", "add", name, "--password-fd", "0"], password);
    }

    fn passwords(&mut self) -> String {
        self.does(&["otp", "list"])
    }

    fn delete_password(&mut self, name: &str) {
        self.does(&["otp", "delete", name]);
    }

    fn delete(&mut self, name: &str, exclude: bool) {
        let id = self.id_of(&["machine", "list"], name);
        let exclude: &[&str] = if exclude { &["--exclude"] } else { &[] };
        self.does(&[&["machine", "delete", &id], exclude].concat());
    }

    fn excluded(&mut self) -> String {
        self.does(&["exclude", "list"])
    }

    fn take_off(&mut self, name: &str) {
        let id = self.id_of(&["exclude", "list"], name);
        self.does(&["exclude", "delete", &id]);
    }
}

// ---- the machines ----

/// A machine with its own key, which knows the host's.
struct Machine {
    folder: Folder,
    port: u16,
    host: &'static str,
}

impl Machine {
    fn new(d: &Daemon, host: &'static str) -> Self {
        let folder = Folder::new();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
        let joined = Paths::of_dir(&d.client());
        let pins = known_hosts::pins(&joined, &HostName::parse("hostb").unwrap()).unwrap();
        let own = Paths::of_dir(&folder.0);
        known_hosts::pin(&own, &HostName::parse(host).unwrap(), &pins[0]).unwrap();
        keys::create(&own.machine_key()).unwrap();
        let port = d.port;
        Self { folder, port, host }
    }

    /// Returns its ID, as shown to its user.
    fn id(&self) -> String {
        let mut show = Command::new(COS);
        show.arg("-C").arg(&self.folder.0).args(["key", "show"]);
        let id = String::from_utf8(must(&mut show))
            .unwrap()
            .trim()
            .to_owned();
        assert_eq!(id.len(), 32, "{id}");
        id
    }

    fn enrol(&self) -> Command {
        let mut command = Command::new(COS);
        command.arg("-C").arg(&self.folder.0).arg("enrol");
        command.args(["-p", &self.port.to_string(), self.host]);
        command.env_remove("COS_ASKPASS");
        command
    }

    /// A user at its terminal types a name.
    fn types_name(&self, name: &str) -> Ended {
        let mut seat = Seat::take(&self.enrol());
        seat.sees("nter your name: ");
        seat.types(format!("{name}\n").as_bytes());
        seat.sees("Correct? (Y/N)");
        seat.types(b"Y\n");
        seat.ends()
    }

    /// A user at its terminal types an activation password.
    fn types_password(&self, password: &str) -> Ended {
        let mut seat = Seat::take(&self.enrol());
        seat.sees("Please enter your ACTIVATION password");
        seat.types_unseen(format!("{password}\n").as_bytes());
        assert!(!seat.seen.contains(password));
        let ended = seat.ends();
        let told = ended
            .err
            .iter()
            .any(|l| l.contains("You have not been authorized"));
        assert!(told, "{ended:?}");
        ended
    }

    /// It connects, and no user is there to be prompted.
    fn calls(&self) -> Ended {
        let mut alone = Command::new("setsid");
        alone.arg("--wait").arg(COS).arg("-C").arg(&self.folder.0);
        alone.args(["enrol", "-p", &self.port.to_string(), self.host]);
        let mut session = Session::spawn(&mut alone);
        drop(session.stdin.take());
        session.finish()
    }

    fn is_allowed(&self) {
        let ended = self.calls();
        assert_eq!(ended.status, Some(0), "{ended:?}");
    }

    fn is_refused(&self, d: &Daemon, cause: &str) {
        let from = d.log.all().len();
        let ended = self.calls();
        assert_eq!(ended.status, Some(255), "{ended:?}");
        let (_, line) = d.log.wait_from(from, |l| l.starts_with("denied "));
        assert!(line.contains(&format!(" cause={cause} ")), "{line}");
    }
}

fn is_in(ended: &Ended) {
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

/// Returns the row of a machine in a list.
fn row(list: &str, name: &str) -> String {
    let row = list.lines().find(|l| l.contains(name));
    row.unwrap_or_else(|| panic!("no {name} in {list}"))
        .to_owned()
}

// ---- the walk ----

/// Gives this thread its own network, in which the host has a second address, and a client of that
/// one has another.
fn take_a_network() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for words in [
        "link set lo up",
        &format!("addr add {THERE}/32 dev lo"),
        &format!("addr add {FROM}/32 dev lo"),
        &format!("route replace local {THERE} dev lo src {FROM} table local"),
    ] {
        must(Command::new("ip").args(words.split(' ')));
    }
}

fn walk(make: impl FnOnce(PathBuf) -> Box<dyn Manager>) {
    let root = needs_root();
    let remote_host = if root { THERE } else { HERE };
    let mut settings =
        "[daemon]\nrefusal-interval = 1\n[penalties]\nexempt = [\"0.0.0.0/0\"]\n".to_owned();
    if root {
        take_a_network();
        settings = format!("listen = [\"{HERE}\", \"{THERE}\"]\n{settings}");
    }
    let remotely = if root { "Remote" } else { "Local" };
    let d = Daemon::start_with(&settings, "");
    let mut m = make(d.server());
    let local = Machine::new(&d, HERE);

    // 1. One version of everything.
    let version = |program: &str| {
        let out = must(Command::new(program).arg("--version"));
        let text = String::from_utf8(out).unwrap();
        text.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(version(COS), version(COSADM));
    assert_eq!(
        String::from_utf8(must(Command::new(COSSERVER).arg("-V")))
            .unwrap()
            .trim(),
        format!("cosserver {}", version(COS))
    );

    // 2, 3. The file is created where the manager wants it.
    let folder = d.folder.path("inner");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    m.first_run(&folder);
    assert!(folder.join("idfile").exists());

    // 4, 5, 6. Build mode, all machines, no backdoor, a welcome.
    m.settings(true, false, "", true);

    // 7. With no machine authorized the outer door does not close.
    let said = m.leave(true);
    assert!(said.contains("would deny every machine"), "{said}");
    local.is_refused(&d, "unknown-machine");
    m.leave(false);

    // 8. The user of any machine that connects is prompted for a name.
    let ended = local.types_name("Manager");
    is_in(&ended);
    let welcomed = ended
        .err
        .iter()
        .chain(&ended.out)
        .any(|l| l.contains("elcome"));
    assert!(welcomed, "{ended:?}");

    // 9, 10. The machine is on the list, and is not prompted again.
    local.is_allowed();

    // 11. Name, ID, date and location.
    let entry = row(&m.list(), "Manager");
    assert!(
        entry.contains(&local.id()) && entry.contains("Local"),
        "{entry}"
    );
    assert!(entry.contains("20"), "no date: {entry}");

    // 12, 13. Closed: one authorized, none excluded; and the machine passes both doors.
    let said = m.leave(true);
    assert!(said.contains("closed"), "{said}");
    local.is_allowed();

    // 14. A remote user is allowed only while the outer door is open.
    let remote = Machine::new(&d, remote_host);
    remote.is_refused(&d, "unknown-machine");
    m.list();
    m.leave(false);

    // 15, 16. The remote user types a name, and is on the list.
    is_in(&remote.types_name("Remote user"));
    let entry = row(&m.list(), "Remote user");
    assert!(
        entry.contains(&remote.id()) && entry.contains(remotely),
        "{entry}"
    );

    // 17. So may any other user.
    let anybody = Machine::new(&d, remote_host);
    is_in(&anybody.types_name("Anybody"));

    // 18. Without build mode a new user may not.
    m.settings(false, false, "", true);
    let second = Machine::new(&d, remote_host);
    second.is_refused(&d, "unknown-machine");

    // 19, 20, 21. A password for the second remote user, by name.
    m.add_password("Second user", "one time only");
    assert!(m.passwords().contains("Second user"));

    // 22, 23. The second user types it: it is erased, and the user is on the list by that name.
    let wrong = second.types_password("another one");
    assert_eq!(wrong.status, Some(255), "{wrong:?}");
    is_in(&second.types_password("one time only"));
    assert!(!m.passwords().contains("Second user"));
    assert!(row(&m.list(), "Second user").contains(&second.id()));
    let third = Machine::new(&d, remote_host);
    third.is_refused(&d, "unknown-machine");

    // The footnote: with the outer door closed no password registers a machine.
    m.add_password("Third user", "for the third");
    m.leave(true);
    third.is_refused(&d, "unknown-machine");
    second.is_allowed();
    m.list();
    m.leave(false);
    is_in(&third.types_password("for the third"));

    // 24. The backdoor is not erased.
    m.settings(false, false, "a backdoor", true);
    let (fourth, fifth) = (Machine::new(&d, remote_host), Machine::new(&d, remote_host));
    is_in(&fourth.types_password("a backdoor"));
    is_in(&fifth.types_password("a backdoor"));
    m.settings(false, false, "-", true);
    Machine::new(&d, remote_host).is_refused(&d, "unknown-machine");

    // 25, 26. A deleted user is stopped by the inner door, and in the session table until the outer
    // door is closed again; an excluded one by the outer door.
    m.leave(true);
    m.delete("Second user", false);
    second.is_refused(&d, "unknown-machine");
    m.delete("Third user", true);
    third.is_refused(&d, "excluded");
    let list = m.list();
    assert!(
        !list.contains("Second user") && !list.contains("Third user"),
        "{list}"
    );
    let said = m.leave(true);
    assert!(
        said.contains('5'),
        "of seven machines five are left: {said}"
    );
    remote.is_allowed();
    m.list();
    m.leave(false);
    third.is_refused(&d, "excluded");

    // 27. The list of excluded users, and one removed from it; a password deleted.
    let excluded = m.excluded();
    assert!(
        excluded.contains("Third user") && !excluded.contains("Second user"),
        "{excluded}"
    );
    m.take_off("Third user");
    assert!(!m.excluded().contains("Third user"));
    third.is_refused(&d, "unknown-machine");
    m.add_password("Nobody", "never used at all");
    m.delete_password("Nobody");
    assert!(!m.passwords().contains("Nobody"));
    let said = m.leave(true);
    assert!(said.contains("closed"), "{said}");

    // The network considerations: after a restart the outer door stays closed; and if only remote
    // users are secured, a local machine is not prompted.
    m.settings(false, true, "", true);
    m.leave(true);
    let folder = restart(d);
    let d = Daemon::start_in(folder, &[]);
    let unknown_machine = Machine::new(&d, HERE);
    unknown_machine.is_allowed();
    if root {
        Machine::new(&d, THERE).is_refused(&d, "unknown-machine");
    }
}

/// Ends a daemon, and returns its directories.
fn restart(mut d: Daemon) -> Folder {
    d.signal(nix::sys::signal::Signal::SIGTERM);
    d.child.wait().unwrap();
    let path = std::mem::replace(&mut d.folder.0, PathBuf::from("/nonexistent"));
    Folder(path)
}

#[test]
fn the_seeds_walk_in_the_menu() {
    walk(|server| Box::new(Menu { server, seat: None }));
}

#[test]
fn the_seeds_walk_by_subcommands() {
    walk(|server| Box::new(Commands { server }));
}
