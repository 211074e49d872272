//! IDMAINT: `cosadm` without a command, on a terminal that the test controls.

use crate::daemon;
use crate::host;

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use cosserver::registry::inner::Setting;
use cosserver::registry::{Id, Inner, Level, List, Name, Outer};
use daemon::session::{Patient, as_shell};
use daemon::{COSADM, until};
use host::Host;
use nix::sys::termios::{LocalFlags, tcgetattr};

/// The end of a main screen.
const CHOICE: &str = "Your choice (Enter leaves): ";
/// The question on leaving.
const CLOSE: &str = "Close outer door? (Y closes it, N opens it, Enter leaves it as it is) ";

/// The menu at its own terminal.
struct Menu {
    terminal: fs::File,
    seen: String,
    /// How much of the screen's output the test has waited for.
    at: usize,
    child: Child,
}

impl Menu {
    fn open(host: &Host) -> Self {
        Self::sized(host, None)
    }

    /// Starts it on a screen with this many lines.
    fn sized(host: &Host, rows: Option<u16>) -> Self {
        let size = rows.map(|ws_row| nix::pty::Winsize {
            ws_row,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        });
        let ends = nix::pty::openpty(size.as_ref(), None).unwrap();
        let end = || Stdio::from(ends.slave.try_clone().unwrap());
        let mut setsid = Command::new("setsid");
        setsid.args(["--ctty", COSADM, "-C"]).arg(&host.dir);
        setsid.stdin(end()).stdout(end()).stderr(end());
        let child = setsid.spawn().unwrap();
        Self {
            terminal: ends.master.into(),
            seen: String::new(),
            at: 0,
            child,
        }
    }

    /// Waits until the screen shows this, after what was waited for before; returns the text in
    /// between.
    fn sees(&mut self, what: &str) -> String {
        loop {
            if let Some(found) = self.seen[self.at..].find(what) {
                let between = self.seen[self.at..self.at + found].to_owned();
                self.at += found + what.len();
                return between;
            }
            let mut bytes = [0; 512];
            let n = std::io::Read::read(&mut Patient(&self.terminal), &mut bytes);
            let n = n.unwrap_or(0);
            assert!(n > 0, "{what:?} never came:\n{}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes[..n]);
        }
    }

    /// Waits for a prompt and answers it.
    fn answers(&mut self, prompt: &str, line: &str) -> String {
        let before = self.sees(prompt);
        self.terminal.write_all(line.as_bytes()).unwrap();
        self.terminal.write_all(b"\n").unwrap();
        before
    }

    /// The same, once the echo is off.
    fn answers_unseen(&mut self, prompt: &str, line: &str) {
        self.sees(prompt);
        let echoes = || {
            let settings = tcgetattr(self.terminal.as_fd()).unwrap();
            settings.local_flags.contains(LocalFlags::ECHO)
        };
        until("the echo is off", || !echoes());
        self.terminal.write_all(line.as_bytes()).unwrap();
        self.terminal.write_all(b"\n").unwrap();
    }

    /// Types keys.
    fn types(&mut self, keys: &[u8]) {
        self.terminal.write_all(keys).unwrap();
    }

    /// Waits for its end; returns its exit status, and the rest of the screen.
    fn ends(mut self) -> (Option<i32>, String) {
        let mut ended = None;
        until("the menu ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        let mut bytes = [0; 4_096];
        while let Ok(n) = std::io::Read::read(&mut Patient(&self.terminal), &mut bytes) {
            if n == 0 {
                break;
            }
            self.seen += &String::from_utf8_lossy(&bytes[..n]);
        }
        (as_shell(ended.unwrap()), self.seen[self.at..].to_owned())
    }

    /// Leaves it by Enter, with this answer about the outer door.
    fn leaves(mut self, answer: &str) -> String {
        self.answers(CHOICE, "");
        self.answers(CLOSE, answer);
        let (status, last) = self.ends();
        assert_eq!(status, Some(0), "{last}");
        last
    }
}

impl Drop for Menu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn id(n: u8) -> Id {
    Id([n; 16])
}

fn add(host: &Host, n: u8, name: &str) {
    let name = Name::parse(name).unwrap();
    host.inner().add(&id(n), &name, n > 1).unwrap();
}

/// The first run, steps 3 to 7 of the seed.
#[test]
fn the_first_run_asks_for_the_folder() {
    let s = Host::new();
    let shared = s.folder("shared", 0o700);
    let mut menu = Menu::open(&s);
    menu.answers("Folder (Enter: ", "/nowhere/at/all");
    menu.sees("! make it first");
    menu.answers("Folder (Enter: ", shared.to_str().unwrap());
    menu.sees("The inner door is now ");
    menu.answers(CHOICE, "s");
    menu.answers("Enable Build Mode? (Y/N) [N] ", "Y");
    menu.answers("Secure Remote Users Only? (Y/N) [N] ", "N");
    menu.answers_unseen("Backdoor Getin Password (not shown; Enter: none) ", "");
    menu.answers("Welcome message at start-up? (Y/N) [N] ", "Y");
    menu.answers("Correct? (Y/N) ", "Y");
    menu.sees("The settings are kept.");
    menu.answers(CHOICE, "");
    // No machine is authorized, so the outer door is not closed.
    menu.sees("The outer door is closed (level 2).");
    menu.answers(CLOSE, "N");
    menu.sees("The outer door is open (level 1).");
    menu.sees("Include list: no machine. Exclude list: no machine.");
    menu.sees("build mode is on");
    assert_eq!(menu.ends().0, Some(0));
    assert_eq!(s.outer().folder().unwrap(), Some(shared.clone()));
    assert_eq!(s.outer().level().unwrap(), Level::Open);
    let inner = Inner::open(&shared.join("idfile")).unwrap();
    let settings = inner.settings().unwrap();
    assert!(settings.build_mode && !settings.remote_only && !settings.backdoor);
    assert!(settings.welcome.starts_with("Welcome to "));
    // From now on there is a list, and no question before it.
    let mut menu = Menu::open(&s);
    let before = menu.sees(CHOICE);
    assert!(!before.contains("Folder") && before.contains("no machine is authorized"));
    drop(menu);
    // The default is this host's own directory.
    let t = Host::new();
    let mut menu = Menu::open(&t);
    menu.answers("Folder (Enter: ", "");
    menu.leaves("");
    assert_eq!(t.outer().folder().unwrap(), None);
}

#[test]
fn menu_close_includes_authorized_machines() {
    let s = Host::new();
    s.outer().set_level(Level::Open).unwrap();
    s.inner().set(&[Setting::BuildMode(true)]).unwrap();
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "");
    menu.answers(CLOSE, "maybe");
    menu.answers("! type Y or N", "y");
    menu.sees("! the outer door is not closed: no machine is authorized");
    menu.sees("The outer door is open");
    assert_eq!(menu.ends().0, Some(0));
    add(&s, 1, "This one");
    add(&s, 2, "Another");
    let mut menu = Menu::open(&s);
    let list = menu.answers(CHOICE, "");
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    let row = |n: &str| rows.iter().find(|r| r.first() == Some(&n)).unwrap();
    let (one, two) = (id(1).to_string(), id(2).to_string());
    assert_eq!(
        (row("1")[1], row("1")[2], row("1")[4]),
        ("Another", &*two, "Remote")
    );
    assert_eq!((row("2")[3], row("2")[5]), (&*one, "Local"));
    menu.sees("2 machines authorized, 0 excluded.");
    menu.answers(CLOSE, "Y");
    menu.sees("The outer door is closed (level 2).");
    menu.sees("Include list: 2 machines. Exclude list: no machine.");
    assert_eq!(menu.ends().0, Some(0));
    assert_eq!(s.outer().count(List::Include).unwrap(), 2);
    // Enter leaves it as it is; so does end of input.
    add(&s, 3, "Behind it");
    add(&s, 4, "Behind it too");
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "");
    menu.sees("2 authorized machines are not on the include list");
    menu.answers(CLOSE, "");
    assert_eq!(menu.ends().0, Some(0));
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "");
    menu.sees(CLOSE);
    menu.types(&[4]);
    assert_eq!(menu.ends().0, Some(0));
    assert_eq!(s.outer().level().unwrap(), Level::Closed);
}

#[test]
fn users_are_deleted_and_excluded() {
    let s = Host::new();
    for (n, name) in [(1, "anna"), (2, "bert"), (3, "carl")] {
        add(&s, n, name);
    }
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "z");
    menu.sees("! \"z\" is not a choice");
    menu.answers(CHOICE, "D");
    menu.answers("Enter Line# to Delete: ", "x");
    menu.answers("Enter Line# to Delete: ", "9");
    menu.sees("! there is no line 9");
    menu.answers(CHOICE, "d");
    menu.answers("Enter Line# to Delete: ", "1");
    menu.answers("Delete anna (", "N");
    menu.sees("Nothing was deleted.");
    menu.answers(CHOICE, "d");
    menu.answers("Enter Line# to Delete: ", "2");
    menu.answers("Delete bert (", "Y");
    menu.answers("Add to Exclude List? (Y/N) ", "N");
    menu.sees("bert is deleted.");
    menu.answers(CHOICE, "d");
    menu.answers("Enter Line# to Delete: ", "2");
    menu.answers("Delete carl (", "Y");
    menu.answers("Add to Exclude List? (Y/N) ", "Y");
    menu.sees("carl is deleted and excluded.");
    menu.sees("Its existing sessions continue, and `cosadm");
    menu.sees(&format!("exclude add {} --now` hangs them up", id(3)));
    menu.answers(CHOICE, "x");
    let list = menu.answers("Your choice (Enter returns): ", "D");
    assert!(list.contains("1 carl ") && !list.contains("bert"), "{list}");
    menu.answers("Enter Line# to Delete: ", "1");
    menu.answers("off the exclude list? (Y/N) ", "Y");
    menu.sees("carl is not excluded any more.");
    menu.answers("Your choice (Enter returns): ", "A");
    let list = menu.sees(CHOICE);
    assert!(list.contains("1 anna ") && !list.contains("carl"), "{list}");
    assert_eq!(s.inner().count().unwrap(), 1);
    assert_eq!(s.outer().count(List::Exclude).unwrap(), 0);
}

#[test]
fn one_time_passwords_are_added_and_deleted() {
    let s = Host::new();
    add(&s, 1, "anna");
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "o");
    let returns = "Your choice (Enter returns): ";
    menu.answers(returns, "a");
    menu.answers("Name: ", "Reception PC");
    menu.answers_unseen("Password (not shown; Enter: one is made): ", "once only");
    menu.answers_unseen("The same again: ", "once olny");
    menu.sees("! the passwords do not match");
    menu.answers_unseen("Password (not shown; Enter: one is made): ", "once only");
    menu.answers_unseen("The same again: ", "once only");
    menu.sees("Reception PC has a one-time password.");
    menu.sees("! the outer door is closed: no machine can register until");
    menu.answers(returns, "a");
    menu.answers("Name: ", "Attic");
    menu.answers_unseen("Password (not shown; Enter: one is made): ", "");
    menu.sees("shown this once:");
    let list = menu.answers(returns, "a");
    assert!(list.contains("no machine can register until"), "{list}");
    let made = list
        .lines()
        .map(str::trim)
        .find(|l| l.len() == 39)
        .unwrap()
        .to_owned();
    assert!(
        list.contains("1 Attic ") && list.contains("2 Reception PC "),
        "{list}"
    );
    menu.answers("Name: ", "Attic");
    menu.answers_unseen("Password (not shown; Enter: one is made): ", "");
    menu.sees("delete it first");
    menu.answers(returns, "d");
    menu.answers("Enter Line# to Delete: ", "2");
    menu.answers("Delete the one-time password of Reception PC? (Y/N) ", "Y");
    menu.sees("of Reception PC is deleted.");
    menu.answers(returns, "");
    menu.answers(CHOICE, "");
    menu.sees("1 one-time password not used yet.");
    assert!(!menu.seen.contains("once only"), "{}", menu.seen);
    let (attic, other) = (Name::parse("Attic").unwrap(), Name::parse("x").unwrap());
    let activate = |typed: &str| {
        s.inner()
            .activate(&id(9), typed.as_bytes(), &other, true, &mut || Ok(true))
    };
    assert_eq!(activate("once only").unwrap(), None);
    assert_eq!(activate(&made).unwrap(), Some(attic));
}

#[test]
fn backdoor_is_kept_replaced_and_removed() {
    let s = Host::new();
    add(&s, 1, "anna");
    let other = Name::parse("x").unwrap();
    let settings = |typed: &[&str], correct: &str| {
        let mut menu = Menu::open(&s);
        menu.answers(CHOICE, "s");
        menu.answers("Enable Build Mode?", "");
        menu.answers("Secure Remote Users Only?", "Y");
        menu.answers_unseen("Backdoor Getin Password (not shown; ", typed[0]);
        if let Some(again) = typed.get(1) {
            menu.answers_unseen("The same again: ", again);
        }
        menu.answers("Welcome message at start-up?", "");
        menu.answers("Correct? (Y/N) ", correct);
        if correct == "N" {
            menu.sees("Enable Build Mode?");
        } else {
            menu.sees("The settings are kept.");
        }
        menu.seen.clone()
    };
    // Not correct, so everything is asked again; then left: nothing has changed.
    settings(&["back door", "back door"], "N");
    let now = s.inner().settings().unwrap();
    assert!(!now.backdoor && !now.remote_only);
    let seen = settings(&["back door", "back door"], "Y");
    assert!(!seen.contains("back door"), "{seen}");
    let now = s.inner().settings().unwrap();
    assert!(now.backdoor && now.remote_only && !now.build_mode);
    // Enter keeps it.
    settings(&[""], "Y");
    let known = s
        .inner()
        .activate(&id(2), b"back door", &other, true, &mut || Ok(true));
    assert_eq!(known.unwrap(), Some(other.clone()));
    settings(&["another one", "another one"], "Y");
    let known = s
        .inner()
        .activate(&id(3), b"back door", &other, true, &mut || Ok(true));
    assert_eq!(known.unwrap(), None);
    settings(&["-"], "Y");
    assert!(!s.inner().settings().unwrap().backdoor);
}

#[test]
fn a_long_list_is_shown_by_pages() {
    let s = Host::new();
    for n in 1..=12 {
        add(&s, n, &format!("machine {n:02}"));
    }
    // Room for five lines.
    let mut menu = Menu::sized(&s, Some(12));
    let first = menu.answers(CHOICE, "p");
    assert!(first.contains("page 1 of 3, 12 lines"), "{first}");
    assert!(
        first.contains("machine 05") && !first.contains("machine 06"),
        "{first}"
    );
    assert!(menu.answers(CHOICE, "n").contains("page 1 of 3"));
    assert!(menu.answers(CHOICE, "n").contains("    6 machine 06 "));
    let last = menu.answers(CHOICE, "n");
    assert!(
        last.contains("page 3 of 3") && last.contains("   12 machine 12 "),
        "{last}"
    );
    assert!(menu.answers(CHOICE, "d").contains("page 3 of 3"));
    // Also a line of another page.
    menu.answers("Enter Line# to Delete: ", "2");
    menu.answers("Delete machine 02 (", "y");
    menu.answers("Add to Exclude List? (Y/N) ", "n");
    assert!(menu.answers(CHOICE, "p").contains("page 3 of 3, 11 lines"));
}

/// Concurrent changes are noticed, and no machine is deleted in place of another.
#[test]
fn a_line_is_what_was_shown() {
    let s = Host::new();
    add(&s, 1, "anna");
    add(&s, 2, "bert");
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "d");
    s.inner().delete(&id(1)).unwrap();
    menu.answers("Enter Line# to Delete: ", "1");
    menu.answers("Delete anna (", "y");
    menu.answers("Add to Exclude List? (Y/N) ", "n");
    menu.sees("! ");
    menu.sees("is not among the authorized machines");
    let list = menu.sees(CHOICE);
    assert!(list.contains("1 bert "), "{list}");
    // An open menu does not block other commands.
    s.good(&["machine", "delete", &id(2).to_string(), "--exclude"]);
    menu.types(b"\n");
    menu.sees("1 excluded.");
}

#[test]
fn interrupted_menu_changes_nothing() {
    let s = Host::new();
    add(&s, 1, "anna");
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "d");
    menu.answers("Enter Line# to Delete: ", "1");
    menu.answers("Delete anna (", "y");
    menu.sees("Add to Exclude List? (Y/N) ");
    menu.types(&[3]);
    assert_eq!(menu.ends().0, Some(130));
    let mut menu = Menu::open(&s);
    menu.answers(CHOICE, "s");
    menu.answers("Enable Build Mode?", "y");
    menu.answers("Secure Remote Users Only?", "y");
    menu.sees("Backdoor Getin Password");
    let settings = |m: &Menu| tcgetattr(m.terminal.as_fd()).unwrap().local_flags;
    until("the echo is off", || {
        !settings(&menu).contains(LocalFlags::ECHO)
    });
    menu.types(b"half\x03");
    menu.sees("interrupted; nothing more was changed");
    assert!(settings(&menu).contains(LocalFlags::ECHO));
    assert_eq!(menu.ends().0, Some(1));
    assert_eq!(s.inner().count().unwrap(), 1);
    assert_eq!(s.outer().count(List::Exclude).unwrap(), 0);
    let now = s.inner().settings().unwrap();
    assert!(!now.build_mode && !now.remote_only && !now.backdoor);
}

#[test]
fn menu_reports_files_that_cannot_be_opened() {
    let s = Host::new();
    fs::write(Outer::path(&s.paths()), "x".repeat(9_000)).unwrap();
    let mut menu = Menu::open(&s);
    menu.sees("state/sestab: it is not the outer door");
    assert_eq!(menu.ends().0, Some(1));
    let none = Host::of(s.dir.join("none"));
    let mut menu = Menu::open(&none);
    menu.sees("there is no such folder");
    assert_eq!(menu.ends().0, Some(1));
    // Without a terminal it is an error, as before.
    assert!(s.bad(2, &[]).contains("on a terminal there is a menu"));
}
