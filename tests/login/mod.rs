//! Real PAM with the tests' own accounts: each test's thread gets a mount namespace with another
//! `/etc`, which the processes that it starts see too, and the machine's files stay unchanged. Only
//! for root.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

pub mod person;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::daemon::session::{Ended, Session};
use crate::daemon::{COS, Daemon, Folder, must, until};

/// The password of every account, and one that is no account's.
pub const PASSWORD: &str = "secret";
pub const WRONG: &str = "wrong";

/// The password's hash, a cheap one, and one as Debian makes it.
const CHEAP: &str = "$6$rounds=1000$cosserver$tJquyk4bKGj/gO9ljdi6bo6esro/ZJYw/X8ySLiBcSMfq3mg1c8yJLoCl2pRMV9qUZn7AVf9LRkXaA2dn.uv//";
pub const DEBIANS: &str =
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$GmcwIgvdUC9qLWcKCi6gklUa1dM3ziD43YxYNURLKy0";

/// The accounts: name, ID, prefix of the hash in shadow, and the fields `last change` and
/// `expires`.
const ACCOUNTS: &[(&str, u32, &str, &str, &str)] = &[
    ("alice", 3001, "", "20000", ""),
    ("bob", 3002, "", "20000", ""),
    ("locked", 3003, "!", "20000", ""),
    ("expired", 3004, "", "20000", "1"),
    // To be changed at once.
    ("stale", 3005, "", "0", ""),
];

/// The group that alice is in besides her own.
pub const STAFF: u32 = 3100;
/// The group that pam_group adds.
pub const GAMES: u32 = 3200;

/// A daemon with accounts, and what is needed to connect to it.
pub struct Logins {
    pub d: Daemon,
}

/// The accounts, the stack and the settings of a test.
pub struct Plan {
    /// The lines of `pam.d/cosserver`; `MODULE` stands for the test module's path and its log,
    /// `BARE` for only its path, `FOLDER` for the test's directory.
    pub stack: String,
    /// Further lines of `cosserver.toml`, under their own tables.
    pub settings: &'static str,
    /// The tables of applications; `FOLDER` stands for the test's directory.
    pub applications: &'static str,
    /// The password's hash.
    pub hash: &'static str,
    /// The lines under `[penalties]`.
    pub penalties: &'static str,
}

/// Only pam_unix, and the counting of sessions.
pub const STACK: &str = "\
auth required pam_unix.so
auth optional MODULE env=TAG=mine
account required pam_unix.so
password required pam_unix.so sha512 rounds=1000
session required pam_unix.so
session required MODULE
";

/// The applications of most tests.
pub const APPLICATIONS: &str = "
[gui.hello]
command = [\"/bin/echo\", \"hello\"]
users = [\"*\", \"root\"]
[gui.show]
command = [\"/bin/sh\", \"-c\", \"id -un; id; env | sort\"]
users = [\"alice\"]
[gui.stay]
command = [\"/bin/sh\", \"-c\", \"echo $$; exec sleep 600\"]
users = [\"*\", \"root\"]
";

impl Default for Plan {
    fn default() -> Self {
        Self {
            stack: STACK.into(),
            settings: "",
            applications: APPLICATIONS,
            hash: CHEAP,
            penalties: "authfail = 0\nnoauth = 0\n",
        }
    }
}

/// Only bob's login hangs, if this is around pam_unix's `auth`.
pub const BOB_HANGS: &str =
    "auth [success=1 default=ignore] pam_succeed_if.so quiet user != bob\nauth required BARE hang";

impl Plan {
    pub fn stack(stack: &str) -> Self {
        Self {
            stack: stack.into(),
            ..Self::default()
        }
    }

    /// Returns the usual stack, with lines before and after those of pam_unix's `auth`.
    pub fn around(before: &str, after: &str) -> Self {
        let auth = "auth required pam_unix.so\n";
        Self::stack(&STACK.replace(auth, &format!("{before}\n{auth}{after}\n")))
    }

    /// Creates directories, accounts and settings, and makes this thread use them.
    pub fn folder(&self) -> Folder {
        leave();
        let settings = format!("[penalties]\n{}{}", self.penalties, self.settings);
        let folder = crate::daemon::prepare(&settings, "");
        let here = folder.0.display().to_string();
        let bare = compile(&folder).display().to_string();
        let module = format!("{bare} log={}", log(&folder).display());
        let applications = self.applications.replace("FOLDER", &here);
        crate::daemon::append(&folder.path("S/cosserver.toml"), &applications);
        crate::daemon::set_level_0(&folder.path("S"));
        let etc = folder.path("etc");
        make_etc(&etc, &folder, self.hash);
        let stack = self.stack.replace("MODULE", &module).replace("BARE", &bare);
        fs::write(etc.join("pam.d/cosserver"), stack.replace("FOLDER", &here)).unwrap();
        // Users can enter their home directories, and nothing else.
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o711)).unwrap();
        enter(&etc);
        folder
    }

    pub fn start(&self) -> Logins {
        Logins {
            d: Daemon::start_in(self.folder(), &[]),
        }
    }

    /// Starts the daemon by this command, which becomes it.
    pub fn start_by(&self, mut command: Command) -> Logins {
        let folder = self.folder();
        command.arg(crate::daemon::COSSERVER);
        Logins {
            d: Daemon::start_by(command, folder, &[]),
        }
    }
}

thread_local! {
    /// Whether this thread sees another `/etc`.
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread its own view of the mounts, with another `/etc`.
fn enter(etc: &Path) {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect(
        "no mount namespace: these tests need CAP_SYS_ADMIN, as a container's root may lack",
    );
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(none, "/", none, private, none).unwrap();
    mount(Some(etc), "/etc", none, MsFlags::MS_BIND, none).unwrap();
    ENTERED.set(true);
}

/// Restores the machine's own `/etc`, for a test that will use another one.
fn leave() {
    if ENTERED.replace(false) {
        umount2("/etc", MntFlags::MNT_DETACH).unwrap();
    }
}

/// Puts the PAM module of these tests into a folder; it is compiled once.
fn compile(folder: &Folder) -> PathBuf {
    static COMPILED: OnceLock<Vec<u8>> = OnceLock::new();
    let module = folder.path("pam_double.so");
    let compiled = COMPILED.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/login/module.c");
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        must(cc.arg(&module).arg(source).arg("-lpam"));
        fs::read(&module).unwrap()
    });
    fs::write(&module, compiled).unwrap();
    module
}

fn log(folder: &Folder) -> PathBuf {
    folder.path("pam.log")
}

/// Creates the tests' accounts, and copies the machine's files that programs need to start.
fn make_etc(etc: &Path, folder: &Folder, hash: &str) {
    let home = folder.path("home");
    let inner = ["pam.d", "security", "alternatives"].map(|name| etc.join(name));
    for made in [etc, &home].into_iter().chain(inner.iter().map(|p| &**p)) {
        fs::create_dir(made).unwrap();
        fs::set_permissions(made, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["ld.so.cache", "ld.so.conf", "login.defs", "hosts"] {
        let own = Path::new("/etc").join(name);
        if own.exists() {
            fs::copy(own, etc.join(name)).unwrap();
        }
    }
    // Debian's links to programs. Not mounted: the folder is removed with all that is in it.
    for link in fs::read_dir("/etc/alternatives").into_iter().flatten() {
        let link = link.unwrap();
        if let Ok(to) = fs::read_link(link.path()) {
            symlink(to, etc.join("alternatives").join(link.file_name())).unwrap();
        }
    }
    let mut passwd = "root:x:0:0:root:/root:/bin/sh\n\
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
        _cosserver:x:990:990::/nonexistent:/usr/sbin/nologin\n\
        empty:x:3006:3006::/:/bin/sh\n"
        .to_owned();
    let mut shadow = "root:*:20000:0:99999:7:::\nempty::20000:0:99999:7:::\n".to_owned();
    let mut group = format!(
        "root:x:0:\nnogroup:x:65534:\n_cosserver:x:990:\nshadow:x:42:\nempty:x:3006:\n\
         staff2:x:{STAFF}:alice\ngames2:x:{GAMES}:\n"
    );
    for (name, number, before, changed, expires) in ACCOUNTS {
        let own = home.join(name);
        fs::create_dir(&own).unwrap();
        std::os::unix::fs::chown(&own, Some(*number), Some(*number)).unwrap();
        let own = own.display();
        passwd += &format!("{name}:x:{number}:{number}::{own}:/bin/sh\n");
        shadow += &format!("{name}:{before}{hash}:{changed}:0:99999:7::{expires}:\n");
        group += &format!("{name}:x:{number}:\n");
    }
    let sources = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n";
    for (name, text) in [
        ("passwd", &*passwd),
        ("group", &group),
        ("shadow", &shadow),
        ("nsswitch.conf", sources),
        ("environment", ""),
        ("pam.d/other", "auth required pam_deny.so\n"),
    ] {
        fs::write(etc.join(name), text).unwrap();
    }
    fs::set_permissions(etc.join("shadow"), fs::Permissions::from_mode(0o600)).unwrap();
}

impl Logins {
    /// Starts one with the usual plan.
    pub fn start() -> Self {
        Plan::default().start()
    }

    pub fn log_text(&self) -> String {
        self.d.log_text()
    }

    /// Creates `cos -C A gui [FLAGS…] -p PORT -l USER hostb WORDS…`, answered from descriptor 3,
    /// where these lines are waiting.
    pub fn gui(&self, user: &str, answers: &str, flags: &[&str], words: &[&str]) -> Command {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = self.d.folder.path(&format!("answers-{n}"));
        fs::write(&file, answers).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "f=$1; shift; exec \"$@\" 3<\"$f\"", "sh"]);
        command.arg(file).arg(COS).arg("-C").arg(self.d.client());
        command.args(["gui", "--password-fd", "3"]).args(flags);
        command.args(["-p", &self.d.port.to_string(), "-l", user, "hostb"]);
        command.args(words);
        for name in ["GUI_HOST", "GUI_PORT", "COS_ASKPASS"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs an application of alice's to its end.
    pub fn alice(&self, words: &[&str]) -> Ended {
        self.ended(&mut self.gui("alice", "secret\n", &[], words))
    }

    /// The same, and returns its output; it must succeed.
    pub fn alice_says(&self, words: &[&str]) -> Vec<String> {
        let ended = self.alice(words);
        assert_eq!(ended.status, Some(0), "{ended:?}\n{}", self.log_text());
        ended.out
    }

    /// Runs a client to its end, with no input.
    pub fn ended(&self, command: &mut Command) -> Ended {
        let mut session = Session::spawn(command);
        drop(session.stdin.take());
        session.finish()
    }

    /// Runs a client whose login must be denied; returns the reason, as in the log.
    pub fn refused(&self, user: &str, answers: &str, words: &[&str]) -> String {
        self.refused_for("login", user, answers, words)
    }

    /// The same for another cause.
    pub fn refused_for(&self, cause: &str, user: &str, answers: &str, words: &[&str]) -> String {
        let ended = self.ended(&mut self.gui(user, answers, &[], words));
        assert_eq!(ended.status, Some(255), "{ended:?}\n{}", self.log_text());
        assert_eq!(ended.out, Vec::<String>::new());
        // The error, where its reason is logged, and what helps an unknown machine.
        let is_help = |l: &String| l.starts_with("cos: to ") || l.starts_with("cos: if the log ");
        assert!(
            matches!(&ended.err[..], [_] | [_, _] | [_, _, _])
                && ended.err[1..].iter().all(is_help),
            "{ended:?}"
        );
        let reference = reference(&ended.err[0]);
        let line = self.d.log.wait(&format!("ref={reference}"));
        assert!(line.contains(&format!("cause={cause} ")), "{line}");
        line
    }

    /// Returns what the test module has written so far.
    pub fn notes(&self) -> Vec<String> {
        let text = fs::read_to_string(log(&self.d.folder)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Counts the notes that begin with this word.
    pub fn noted(&self, word: &str) -> usize {
        let lines = self.notes();
        lines
            .iter()
            .filter(|l| l.split(' ').next() == Some(word))
            .count()
    }

    /// Waits until this many sessions have been closed, and checks that everything that was opened
    /// and established was closed and deleted exactly once, in order.
    pub fn all_closed(&self, sessions: usize) {
        until("the sessions are closed", || {
            self.noted("cred-deleted") >= sessions
        });
        let notes = self.notes().join("\n");
        for word in ["cred-established", "opened", "closed", "cred-deleted"] {
            assert_eq!(self.noted(word), sessions, "{word}: {notes}");
        }
        if sessions == 1 {
            let words: Vec<_> = notes.lines().filter_map(|l| l.split(' ').next()).collect();
            let order = ["cred-established", "opened", "closed", "cred-deleted"];
            assert_eq!(words, order, "{notes}");
        }
    }
}

/// Returns the reference in a client's error message.
pub fn reference(line: &str) -> String {
    let is_hex = |w: &&str| w.len() == 16 && w.bytes().all(|b| b.is_ascii_hexdigit());
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .find(is_hex)
        .unwrap_or_else(|| panic!("no reference: {line}"))
        .to_owned()
}

/// Starts a client with its input closed, to watch it.
pub fn look_inner(command: &mut Command) -> Session {
    let mut session = Session::spawn(command);
    drop(session.stdin.take());
    session
}
