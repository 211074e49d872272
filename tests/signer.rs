//! Ordinary users: their `cos` and `cosrsh` by the signer of their host, its socket and its set-uid
//! program; which users they may be on the other host; and every misuse of it.

use crate::daemon;

#[path = "signer/crowd.rs"]
mod crowd;
#[path = "signer/descriptors.rs"]
mod descriptors;
#[path = "signer/services.rs"]
mod services;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cosserver::protocol::hello::{Hello, ServerHello};
use cosserver::protocol::noise::{Initiator, Prepared};
use cosserver::protocol::opening::{Credential, Hosts, Opening};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{Command as Words, Request, Service};
use cosserver::secret::{KeyPair, PublicKey};
use cosserver::signer::fields::{Ask, MESSAGE, Reply, Signed};
use cosserver::sys::{local, passing};
use daemon::hostile::{Caller, Greeting, RawConnection};
use daemon::session::Session;
use daemon::{
    COS, COSADM, COSSERVER, Daemon, Folder, Lines, append, must, needs_root, prepare, run,
};

const COS_SIGN: &str = env!("CARGO_BIN_EXE_cos-sign");

/// Users of the callers' machine, who have no other rights there.
const ALICE: u32 = 61_001;
const BOB: u32 = 61_002;
const CAROL: u32 = 61_003;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The server and a machine `hosta`, which have their own files in place of the system's: `/etc`
/// with their users and the host table, `/run` and `/var/lib`.
struct Machine {
    server: Daemon,
    bin: PathBuf,
}

impl Machine {
    /// `users`: further options for hosta's line on the server.
    fn new(users: &str) -> Self {
        let folder = prepare(
            "[exec]\nhup-to-kill = 1\n[subsystem]\nwho = \"/usr/bin/id -un\"",
            &format!("commands=\"/usr/bin/id ...\" {users}"),
        );
        append(&folder.path("S/cosserver.toml"), APPLICATIONS);
        let root = folder.path("m");
        let bin = root.join("bin");
        for folder in ["etc/pam.d", "run", "lib", "home", "bin"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let stack = ["auth", "account", "password", "session"]
            .map(|what| format!("{what} required pam_permit.so\n"));
        fs::write(root.join("etc/pam.d/cosserver"), stack.concat()).unwrap();
        for folder in [&folder.0, &root, &root.join("run"), &root.join("home")] {
            mode(folder, 0o755);
        }
        let users = [("alice", ALICE), ("bob", BOB), ("carol", CAROL)];
        let mut passwd =
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n".to_owned();
        for (name, uid) in users {
            let home = root.join("home").join(name);
            fs::create_dir(&home).unwrap();
            chown(&home, Some(uid), Some(uid)).unwrap();
            passwd += &format!("{name}:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
        }
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(
            root.join("etc/nsswitch.conf"),
            "passwd: files\ngroup: files\nhosts: files\n",
        )
        .unwrap();
        for file in ["/etc/ld.so.cache", "/etc/hosts", "/etc/ld.so.conf"] {
            let name = Path::new(file).file_name().unwrap();
            let _ = fs::copy(file, root.join("etc").join(name));
        }
        for (program, name) in [(COS, "cos"), (COS_SIGN, "cos-sign")] {
            fs::copy(program, bin.join(name)).unwrap();
            mode(&bin.join(name), 0o755);
        }
        fs::remove_file(bin.join("cos-sign")).unwrap();
        std::os::unix::fs::symlink("cos", bin.join("cosrsh")).unwrap();
        // The server has separate accounts, although with the same names.
        let own = folder.path("s");
        must(Command::new("cp").arg("-a").arg(&root).arg(&own));
        let server = Daemon::start_by(inside(&own, &[COSSERVER.to_owned()]), folder, &[]);
        let machine = Self { server, bin };
        must(machine.root(COSADM).arg("init"));
        must(
            machine
                .root(COSADM)
                .args(["host", "join"])
                .arg(machine.server.folder.path("card"))
                .args([
                    "--name",
                    "hostb",
                    "--port",
                    &machine.server.port.to_string(),
                ]),
        );
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.folder.path("m").join(name)
    }

    /// Returns a program of root on that machine.
    fn root(&self, program: &str) -> Command {
        inside(&self.path(""), &[program.to_owned()])
    }

    /// Returns a program of a user on that machine.
    fn of(&self, uid: u32, program: &str) -> Command {
        let mut command = self.of_number(uid, program);
        let name = ["alice", "bob", "carol"][usize::try_from(uid - ALICE).unwrap()];
        command.env("HOME", self.path("home").join(name));
        command
    }

    /// The same for a user without a home directory.
    fn of_number(&self, uid: u32, program: &str) -> Command {
        let numbers = [format!("--reuid={uid}"), format!("--regid={uid}")];
        let setpriv = ["setpriv".to_owned(), numbers[0].clone(), numbers[1].clone()];
        let rest = [
            "--clear-groups".to_owned(),
            self.bin.join(program).display().to_string(),
        ];
        let mut command = inside(&self.path(""), &[&setpriv[..], &rest[..]].concat());
        command.env("HOME", "/nowhere");
        command
    }

    /// Runs `cos run hostb id -un` as a user there, with these words before the host.
    fn id(&self, uid: u32, words: &[&str]) -> Output {
        run(self
            .of(uid, "cos")
            .arg("run")
            .args(words)
            .args(["hostb", "/usr/bin/id", "-un"]))
    }

    /// Checks its output.
    fn is(&self, uid: u32, words: &[&str], user: &str) {
        let out = self.id(uid, words);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(
            (out.status.code(), said.trim_end()),
            (Some(0), user),
            "{out:?}\n{}",
            self.server.log_text()
        );
    }

    fn is_denied(&self, uid: u32, words: &[&str]) -> String {
        let from = self.server.log.all().len();
        let out = self.id(uid, words);
        assert_eq!(out.status.code(), Some(255), "{out:?}");
        self.server
            .log
            .wait_from(from, |l| l.contains("denied ref="))
            .1
    }

    /// Installs the set-uid program.
    fn install_cos_sign(&self) {
        fs::copy(COS_SIGN, self.bin.join("cos-sign")).unwrap();
        mode(&self.bin.join("cos-sign"), 0o4755);
    }

    /// Starts the daemon of that machine, which signs.
    fn daemon(&self) -> Signing {
        self.daemon_by(&[])
    }

    /// The same by a program that starts it.
    fn daemon_by(&self, before: &[String]) -> Signing {
        let settings = self.path("etc/cosserver/cosserver.toml");
        let text = fs::read_to_string(&settings).unwrap();
        assert!(!text.contains("\nlisten ="), "{text}");
        fs::write(&settings, format!("listen = [\"127.0.0.1\"]\n{text}")).unwrap();
        let words = [before, &[COSSERVER.to_owned()]].concat();
        let mut command = inside(&self.path(""), &words);
        command.args(["-D", "-e", "-p", "0", "-f", "/etc/cosserver/cosserver.toml"]);
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        log.wait("listening on");
        Signing { child, log }
    }
}

/// Returns a program that has these directories in place of the system's.
fn inside(root: &Path, before: &[String]) -> Command {
    let mounts = "mount --bind \"$1/etc\" /etc && mount --bind \"$1/run\" /run && \
                  mount --bind \"$1/lib\" /var/lib && \
                  { test ! -e \"$1/overflowuid\" || \
                  mount --bind \"$1/overflowuid\" /proc/sys/kernel/overflowuid; } && \
                  shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        mounts,
        "sh",
    ]);
    command.arg(root).args(before);
    for name in ["COS_CONFIG_DIR", "XDG_CONFIG_HOME", "GUI_HOST", "GUI_PORT"] {
        command.env_remove(name);
    }
    command
}

/// Applications of the server: one that prints its user, one that stays.
const APPLICATIONS: &str = "
[gui.who]
command = [\"/bin/sh\", \"-c\", \"id -un; echo $GUI_HOST $GUI_PORT\"]
users = [\"*\", \"root\"]
remote = true
[gui.stay]
command = [\"/bin/sh\", \"-c\", \"exec sleep 600\"]
users = [\"*\", \"root\"]
remote = true
[gui.deaf]
command = [\"/bin/sh\", \"-c\", \"trap '' HUP; : >deaf; exec sleep 600\"]
users = [\"*\", \"root\"]
remote = true
";

struct Signing {
    child: std::process::Child,
    log: Lines,
}

impl Drop for Signing {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = daemon::session::wait(&mut self.child);
    }
}

/// Returns whether this run can simulate that machine.
fn can() -> bool {
    needs_root()
}

// ---- as it is meant ----

#[test]
fn users_ask_in_their_hosts_name_by_the_daemons_socket() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root,bob:nobody");
    // There is no signer yet, and the message says what to do.
    let told = String::from_utf8(m.id(ALICE, &[]).stderr).unwrap();
    assert!(
        told.contains("start cosserver(8) here") && told.contains("cos-sign"),
        "{told}"
    );

    let signing = m.daemon();
    let socket = fs::metadata(m.path("run/cosserver/sign")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o666);
    let folder = fs::metadata(m.path("run/cosserver")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o755);
    m.is(ALICE, &["-l", "root"], "root");
    m.is(ALICE, &[], "root");
    m.is(BOB, &[], "nobody");
    let line = m.server.log.wait("caller=bob");
    assert!(
        line.contains("host=hosta") && line.contains("user=nobody"),
        "{line}"
    );
    signing
        .log
        .wait("signed user=alice host=hostb service=exec");

    // As rsh's users call it, and with a command that does not fit into the greeting.
    let out = run(m.of(ALICE, "cosrsh").args(["hostb", "/usr/bin/id", "-u"]));
    assert_eq!(out.stdout, b"0\n", "{out:?}");
    let many = vec!["--zero".to_owned(); 1_000];
    let out = run(m
        .of(ALICE, "cosrsh")
        .args(["hostb", "/usr/bin/id", "-u"])
        .args(many));
    assert_eq!(out.stdout, b"0\0", "{out:?}");

    // A user without a home directory can make requests all the same.
    let out = run(m
        .of(ALICE, "cos")
        .args(["run", "hostb", "/usr/bin/id", "-u"])
        .env("HOME", "/nowhere"));
    assert_eq!(out.stdout, b"0\n", "{out:?}");
    // The user's own directory takes precedence if it has the host.
    let own = m.path("home/alice/.config/cosserver");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("hostinfo"), "hostb cos addr=127.0.0.9 port=9\n").unwrap();
    for path in [own.parent().unwrap(), &own, &own.join("hostinfo")] {
        chown(path, Some(ALICE), Some(ALICE)).unwrap();
    }
    let told = String::from_utf8(m.id(ALICE, &[]).stderr).unwrap();
    assert!(
        told.contains("hostb.out") && told.contains("no cookie"),
        "{told}"
    );
    fs::write(own.join("hostinfo"), "hostx cos\n").unwrap();
    m.is(ALICE, &[], "root");
    let out = run(m.of(ALICE, "cos").args(["run", "hosty", "id"]));
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(told.contains("hosty is in neither "), "{told}");
}

#[test]
fn unset_or_foreign_home_is_replaced_from_the_user_database() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root");
    m.install_cos_sign();
    let id = ["run", "hostb", "/usr/bin/id", "-un"];
    let etc = ["-C", "/etc/cosserver"];
    let bobs = m.path("home/bob");
    for before in [&[][..], &etc] {
        for home in [None, Some(bobs.as_path()), Some(Path::new("/root"))] {
            let mut command = m.of(ALICE, "cos");
            command.args(before).args(id).env_remove("HOME");
            if let Some(home) = home {
                // As sudo -E leaves them.
                command.env("HOME", home);
                command.env("XDG_CONFIG_HOME", home.join(".config"));
            }
            let out = run(&mut command);
            assert_eq!(out.stdout, b"root\n", "{before:?} {home:?}: {out:?}");
        }
    }
    // Her own files are in her own home directory.
    let mut show = m.of(ALICE, "cos");
    let out = run(show.args(["key", "show", "--json"]).env("HOME", &bobs));
    let file = m.path("home/alice/.config/cosserver/machine.key");
    let told = String::from_utf8(out.stdout).unwrap();
    assert!(
        told.contains(&format!("{:?}", file.display().to_string())),
        "{told}"
    );
    assert!(!bobs.join(".config").exists());
    // Her own key is not shown as that of another directory.
    let mut show = m.of(ALICE, "cos");
    let out = run(show.args(["-C", "/etc/cosserver", "key", "show"]));
    let told = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), out.stdout.len()), (Some(255), 0));
    assert_eq!(
        told,
        "cos: the key of /etc/cosserver belongs to root\ncos: run it as root\n"
    );
    // If the database has no home directory either, the system's directory is used.
    let mut unknown_user = m.of_number(CAROL + 1, "cos");
    let out = run(unknown_user.args(["key", "show"]).env_remove("HOME"));
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(told.contains("/etc/cosserver/machine.key"), "{told}");
}

#[test]
fn users_ask_by_the_set_uid_program_where_no_daemon_runs() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root,bob:nobody");
    m.install_cos_sign();
    m.is(ALICE, &[], "root");
    m.is(BOB, &[], "nobody");
    let out = run(m
        .of(ALICE, "cosrsh")
        .args(["-l", "root", "hostb", "/usr/bin/id", "-u"]));
    assert_eq!(out.stdout, b"0\n", "{out:?}");
    m.is_denied(CAROL, &[]);
    m.is_denied(BOB, &["-l", "root"]);

    // What it is started with is not used.
    let mut ask = m.ask(&[1; 32], KeyPair::random().unwrap().public);
    let program = |command: &mut Command, ask: &[u8]| {
        let file = m.path("ask");
        fs::write(&file, ask).unwrap();
        let out = command
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        Reply::decode(&out.stdout).unwrap()
    };
    let evil = m.path("home/bob");
    fs::write(evil.join("hostinfo"), "hostb cos\n").unwrap();
    let mut command = m.of(BOB, "cos-sign");
    command
        .env("COS_CONFIG_DIR", &evil)
        .env("HOME", &evil)
        .env("USER", "root")
        .env("LD_PRELOAD", "x");
    let Reply::Signed(signed) = program(command.arg("--user=root"), &ask.encode().unwrap()) else {
        panic!("not signed");
    };
    assert_eq!(name_in(&signed), "bob");
    // It rejects what the daemon rejects.
    ask.pin = PublicKey([4; 32]);
    for message in [
        ask.encode().unwrap(),
        vec![0; MESSAGE + 100],
        Vec::new(),
        b"mac me".to_vec(),
    ] {
        let reply = program(&mut m.of(BOB, "cos-sign"), &message);
        assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    }
    // Without its set-uid bit it can do nothing.
    mode(&m.bin.join("cos-sign"), 0o755);
    let told = String::from_utf8(m.id(ALICE, &[]).stderr).unwrap();
    assert!(told.contains("not set-uid root"), "{told}");
}

/// The signer signs it like a command, and the host's line says which are allowed.
#[test]
fn users_ask_for_a_subsystem() {
    if !can() {
        return;
    }
    let m = Machine::new("subsystems=who");
    let ask = |uid, words: &[&str]| run(m.of(uid, "cosrsh").args(words));
    let is = |uid, words: &[&str], user: &str| {
        let out = ask(uid, words);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let log = m.server.log_text();
        assert_eq!(said.trim_end(), user, "{out:?}\n{log}");
        assert_eq!(out.status.code(), Some(0));
    };
    let signing = m.daemon();
    is(ALICE, &["hostb", "-s", "who"], "alice");
    signing
        .log
        .wait("signed user=alice host=hostb service=subsystem");
    let line = m.server.log.wait(" service=subsystem command=who");
    assert!(line.contains(" user=alice caller=alice "), "{line}");
    let denied = |uid, words: &[&str], cause: &str| {
        let from = m.server.log.all().len();
        assert_eq!(ask(uid, words).status.code(), Some(255));
        let is_it = |l: &str| l.contains("denied ref=");
        let line = m.server.log.wait_from(from, is_it).1;
        assert!(line.contains(&format!("cause={cause} ")), "{line}");
    };
    denied(BOB, &["hostb", "-s", "sftp"], "subsystem");
    denied(BOB, &["-l", "alice", "-s", "hostb", "who"], "user");
    drop(signing);
    m.install_cos_sign();
    is(BOB, &["-s", "hostb", "who"], "bob");
}

#[test]
fn signed_user_is_mapped_by_the_host_entry() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root,bob:nobody");
    let _signing = m.daemon();
    let line = m.is_denied(ALICE, &["-l", "nobody"]);
    assert!(
        line.contains("cause=user") && line.contains("does not allow alice to run as nobody"),
        "{line}"
    );
    m.is_denied(BOB, &["-l", "root"]);
    m.is_denied(CAROL, &[]);
    // run-as= names root for the host itself, and not for its users.
    let hostinfo = m.server.server().join("hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    assert!(text.contains("run-as=root "), "{text}");
    for (users, uid, words) in [
        ("users=-", ALICE, &[][..]),
        ("users=-", ALICE, &["-l", "root"]),
        ("", ALICE, &["-l", "root"]),
        ("users=carol", ALICE, &[]),
    ] {
        fs::write(
            &hostinfo,
            text.replace("users=alice:root,bob:nobody", users),
        )
        .unwrap();
        let line = m.is_denied(uid, words);
        assert!(line.contains("cause=user"), "{users}: {line}");
    }
    // Without users= each user has the same name there.
    fs::write(&hostinfo, text.replace("users=alice:root,bob:nobody", "")).unwrap();
    m.is(ALICE, &[], "alice");
    m.is(CAROL, &[], "carol");
    m.is_denied(CAROL, &["-l", "alice"]);
    // But not if that is root here.
    let passwd = m.server.folder.path("s/etc/passwd");
    let accounts = fs::read_to_string(&passwd).unwrap();
    let carol = format!("carol:x:{CAROL}:{CAROL}:");
    assert!(accounts.contains(&carol));
    fs::write(&passwd, accounts.replace(&carol, "carol:x:0:0:")).unwrap();
    let line = m.is_denied(CAROL, &[]);
    assert!(
        line.contains("cause=user") && line.contains("carol is root here"),
        "{line}"
    );
    m.is(ALICE, &[], "alice");
    // Root there, with a request by the signer, is not root here.
    let line = m.signed_request(&hostinfo, &text);
    assert!(line.contains("cause=user"), "{line}");
}

#[test]
fn an_application_starts_another_in_its_users_name() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice,bob:carol");
    let signing = m.daemon();
    let gui = |uid, words: &[&str]| {
        let mut command = m.of(uid, "cos");
        command
            .env("GUI_HOST", "192.0.2.7")
            .env("GUI_PORT", "9103")
            .arg("gui")
            .args(words);
        run(&mut command)
    };
    for (uid, user) in [(ALICE, "alice"), (BOB, "carol")] {
        let out = gui(uid, &["hostb", "who"]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(
            said,
            format!("{user}\n192.0.2.7 9103\n"),
            "{out:?}\n{}",
            m.server.log_text()
        );
    }
    signing.log.wait("signed user=bob host=hostb service=gui");
    for (uid, words) in [
        (CAROL, &["hostb", "who"][..]),
        (ALICE, &["-l", "root", "hostb", "who"]),
    ] {
        assert_eq!(gui(uid, words).status.code(), Some(255), "{words:?}");
    }
    // A detached one is listed, and can be hung up.
    let out = gui(BOB, &["--detach", "hostb", "stay"]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let ask = |words: &[&str]| {
        let mut command = Command::new(COSADM);
        run(command.arg("-C").arg(m.server.server()).args(words))
    };
    let who = || {
        let out = ask(&["who", "--json"]);
        let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        value["sessions"].as_array().unwrap().clone()
    };
    daemon::until("it is on by itself", || who().len() == 1);
    let on = who().remove(0);
    assert_eq!(
        (on["user"].as_str(), on["caller"].as_str()),
        (Some("carol"), Some("bob"))
    );
    assert_eq!(
        (on["service"].as_str(), on["detached"].as_bool()),
        (Some("gui stay"), Some(true))
    );
    assert!(on["in"].is_null() && on["out"].is_null(), "{on}");
    let pid = i32::try_from(on["pid"].as_i64().unwrap()).unwrap();
    assert!(daemon::session::lives(pid));
    let id = on["id"].to_string();
    assert_eq!(ask(&["kill", &id]).status.code(), Some(0));
    assert!(daemon::session::ends(pid));
    daemon::until("it is gone", || who().is_empty());
    assert_eq!(ask(&["kill", &id]).status.code(), Some(1));
    // One that ignores the hang-up is killed.
    assert!(gui(BOB, &["--detach", "hostb", "deaf"]).status.success());
    let deaf = m.path("home/carol/deaf");
    daemon::until("it is deaf", || deaf.exists());
    let on = who().remove(0);
    let pid = i32::try_from(on["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(ask(&["kill", &on["id"].to_string()]).status.code(), Some(0));
    assert!(daemon::session::ends(pid));
    daemon::until("it is gone", || who().is_empty());
    // So is one with a client.
    let mut command = m.of(ALICE, "cos");
    command
        .env("GUI_HOST", "192.0.2.7")
        .env("GUI_PORT", "9103")
        .args(["gui", "hostb", "stay"]);
    let session = Session::spawn(&mut command);
    daemon::until("it is on", || who().len() == 1);
    let on = who().remove(0);
    assert_eq!(
        (on["service"].as_str(), on["detached"].as_bool()),
        (Some("gui stay"), Some(false))
    );
    assert_eq!(ask(&["kill", &on["id"].to_string()]).status.code(), Some(0));
    assert_eq!(session.finish().status, Some(255));
    daemon::until("it is gone", || who().is_empty());
    // Without a signer there is a prompt for a password, and the reason is given.
    drop(signing);
    let stack = m.server.folder.path("s/etc/pam.d/cosserver");
    let text = fs::read_to_string(&stack).unwrap();
    let asks = text.replace("auth required pam_permit.so", "auth required pam_unix.so");
    fs::write(stack, asks).unwrap();
    // The registry does not know her own machine; at level 0, no user can answer.
    for words in ["access denied (reference", "but there is no terminal"] {
        let out = gui(ALICE, &["-o", "BatchMode=yes", "hostb", "who"]);
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            told.contains(words) && told.contains("needs a signer to ask hostb"),
            "{told}"
        );
        daemon::set_level_0(&m.server.server());
    }
}

// ---- misuse ----

impl Machine {
    fn ask(&self, nonce: &[u8; 32], key: PublicKey) -> Ask {
        let caller = Caller::in_folder(&self.server.client());
        Ask {
            host: "hostb".into(),
            nonce: *nonce,
            pin: caller.host,
            key,
            which: 0,
            service: Service::Exec,
            user: "root".into(),
            command: Words::Words(vec![b"/usr/bin/id".to_vec()]),
            environment: Vec::new(),
            linger: None,
        }
    }

    fn call(&self) -> OwnedFd {
        let path = self.path("run/cosserver/sign");
        local::call(&path, Duration::from_secs(20)).unwrap()
    }

    /// Returns the signer's reply to a message; `None`: it hangs up.
    fn says(&self, message: &[u8]) -> Option<Reply> {
        let socket = self.call();
        match passing::send(socket.as_fd(), message, &[]) {
            Err(nix::errno::Errno::EPIPE) => None,
            sent => {
                sent.unwrap();
                reply(&socket)
            }
        }
    }

    /// Root of the machine makes a request by the signer, without users= on the server; returns the
    /// line of the server's log.
    fn signed_request(&self, hostinfo: &Path, text: &str) -> String {
        fs::write(hostinfo, text.replace("users=alice:root,bob:nobody", "")).unwrap();
        let from = self.server.log.all().len();
        let mut v = Vouched::greet(self);
        let signed = v.signed(self);
        v.send(&signed);
        v.raw_connection.denied();
        self.server
            .log
            .wait_from(from, |l| l.contains("denied ref="))
            .1
    }
}

fn reply(socket: &OwnedFd) -> Option<Reply> {
    let mut buffer = vec![0; MESSAGE];
    let got = match passing::receive(socket.as_fd(), &mut buffer) {
        // It hung up with unread data.
        Err(nix::errno::Errno::ECONNRESET) => return None,
        got => got.unwrap(),
    };
    (got.length > 0).then(|| Reply::decode(&buffer[..got.length]).unwrap())
}

fn name_in(signed: &Signed) -> String {
    Request::decode(&signed.request)
        .unwrap()
        .caller_user
        .to_string()
}

/// A connection to the server, for which a request is to be signed.
struct Vouched {
    raw_connection: RawConnection,
    greeting: Greeting,
    key: KeyPair,
    host: PublicKey,
}

impl Vouched {
    fn greet(m: &Machine) -> Self {
        let mut raw_connection = RawConnection::connect(m.server.port);
        let greeting = raw_connection.greet();
        Self {
            raw_connection,
            greeting,
            key: KeyPair::random().unwrap(),
            host: Caller::in_folder(&m.server.client()).host,
        }
    }

    fn nonce(&self) -> [u8; 32] {
        let hello = Hello::parse(&self.greeting.hello).unwrap();
        ServerHello::parse(&self.greeting.server_hello, &hello)
            .unwrap()
            .nonce
    }

    fn signed(&self, m: &Machine) -> Signed {
        let ask = m.ask(&self.nonce(), self.key.public);
        match m.says(&ask.encode().unwrap()) {
            Some(Reply::Signed(signed)) => signed,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a ClientHello with this in it.
    fn send(&mut self, signed: &Signed) -> Initiator {
        let hello = Hello::parse(&self.greeting.hello).unwrap();
        let theirs = ServerHello::parse(&self.greeting.server_hello, &hello).unwrap();
        let hosts = Hosts {
            caller: signed.caller.clone(),
            server: signed.server.clone(),
            proof: signed.proof,
        };
        let opening = Opening {
            request: &signed.request,
            credential: Credential::Vouch(hosts, signed.machine),
        };
        let mut noise = Initiator::new(
            theirs.suite,
            &self.key,
            &self.host,
            &self.greeting.hello,
            &self.greeting.server_hello,
            Prepared::default(),
        )
        .unwrap();
        let message = noise.message_1(&opening.encode().unwrap()).unwrap();
        self.raw_connection
            .send(&record::compose(Kind::ClientHello, &message).unwrap());
        noise
    }
}

#[test]
fn signature_is_valid_only_for_its_connection_and_content() {
    if !can() {
        return;
    }
    let m = Machine::new("users=root:root");
    let _signing = m.daemon();
    let denied = |mut v: Vouched, signed: &Signed, cause: &str| {
        let from = m.server.log.all().len();
        v.send(signed);
        v.raw_connection.denied();
        let line = m
            .server
            .log
            .wait_from(from, |l| l.contains("denied ref="))
            .1;
        assert!(line.contains(&format!("cause={cause}")), "{line}");
    };
    // The valid one is accepted: so whatever fails below fails for its own reason.
    let mut v = Vouched::greet(&m);
    let signed = v.signed(&m);
    let noise = v.send(&signed);
    let (said, _) = v.raw_connection.session(noise).finish();
    assert!(said.starts_with(b"uid=0(root)"), "{said:?}");

    // Replayed on another connection: the nonce differs, with any key in the handshake.
    let again = Vouched::greet(&m);
    denied(again, &signed, "proof");
    let again = Vouched {
        key: v.key.clone(),
        ..Vouched::greet(&m)
    };
    denied(again, &signed, "proof");
    // Another user's handshake, with this connection's nonce.
    let mut v = Vouched::greet(&m);
    let signed = v.signed(&m);
    v.key = KeyPair::random().unwrap();
    denied(v, &signed, "proof");
    // A changed request: another name, another command.
    for change in [
        |r: &mut Request| r.caller_user = "alice".parse().unwrap(),
        |r: &mut Request| r.user = "nobody".into(),
        |r: &mut Request| r.command = Words::Words(vec![b"/usr/bin/id".to_vec(), b"-u".to_vec()]),
    ] {
        let v = Vouched::greet(&m);
        let mut signed = v.signed(&m);
        let mut request = Request::decode(&signed.request).unwrap();
        change(&mut request);
        signed.request = request.encode().unwrap();
        denied(v, &signed, "proof");
    }
    // The vouching machine must be the recorded one, and no other host's.
    let v = Vouched::greet(&m);
    let mut signed = v.signed(&m);
    signed.machine = v.key.public;
    denied(v, &signed, "machine-key");
    let v = Vouched::greet(&m);
    let mut signed = v.signed(&m);
    signed.caller = "hostx".into();
    denied(v, &signed, "unknown-host");
    // A signature for the user is not valid for the host itself.
    let mut v = Vouched::greet(&m);
    let signed = v.signed(&m);
    let caller = Caller {
        machine: v.key.clone(),
        ..Caller::in_folder(&m.server.client())
    };
    let (hello, _) = caller.client_hello(&v.greeting, &signed.request);
    v.raw_connection.send(&hello);
    v.raw_connection.denied();
}

#[test]
fn the_signer_signs_nothing_else() {
    if !can() {
        return;
    }
    let m = Machine::new("users=-");
    let signing = m.daemon();
    let key = KeyPair::random().unwrap().public;
    let ask = m.ask(&[1; 32], key);
    let Some(Reply::Signed(signed)) = m.says(&ask.encode().unwrap()) else {
        panic!("not signed");
    };
    assert_eq!(name_in(&signed), "root", "the kernel's word");
    let pin = PublicKey([2; 32]);
    let mut with_a_name = ask.encode().unwrap();
    with_a_name[0] += 1;
    with_a_name.extend_from_slice(b"\x0f\x65alice");
    for (what, message) in [
        (
            "a key that is not pinned",
            Ask { pin, ..ask.clone() }.encode().unwrap(),
        ),
        (
            "a host that is not there",
            Ask {
                host: "hostx".into(),
                ..ask.clone()
            }
            .encode()
            .unwrap(),
        ),
        (
            "no host's name",
            Ask {
                host: "../x".into(),
                ..ask.clone()
            }
            .encode()
            .unwrap(),
        ),
        (
            "a cookie that is not there",
            Ask {
                which: 1,
                ..ask.clone()
            }
            .encode()
            .unwrap(),
        ),
        ("another's name", with_a_name),
        (
            "a proof of these bytes",
            b"cosserver hash v1 client".to_vec(),
        ),
        ("a proof of this request", signed.request),
    ] {
        match m.says(&message) {
            Some(Reply::Refused(why)) => assert!(!why.is_empty()),
            other => panic!("{what}: {other:?}"),
        }
    }
    signing.log.wait("not-signed user=root host=hostx why=");
    assert!(m.says(&vec![0xa0; MESSAGE + 1]).is_none(), "too long");

    // Silent connections delay only those of the same user.
    let idle: Vec<OwnedFd> = (0..8).map(|_| m.call()).collect();
    let ninth = m.call();
    let message = ask.encode().unwrap();
    passing::send(ninth.as_fd(), &message, &[]).unwrap();
    let out = m.id(ALICE, &[]);
    assert_eq!(out.status.code(), Some(255));
    signing.log.wait("signed user=alice");
    // Until the silent ones have used their quarter of a second.
    let answer = reply(&ninth);
    assert!(matches!(answer, Some(Reply::Signed(_))), "{answer:?}");
    // This many may wait, and no more.
    let mut waiting: Vec<OwnedFd> = (0..66).map(|_| m.call()).collect();
    let last = waiting.pop().unwrap();
    assert!(reply(&last).is_none(), "a line without an end");
    // Closed connections are removed from the queue.
    drop((idle, waiting));
    daemon::until("the places are given back", || {
        matches!(m.says(&message), Some(Reply::Signed(_)))
    });
}

/// An NSS module runs as that user, and could request to be it on other hosts.
#[test]
fn the_daemons_own_user_is_not_signed_for() {
    if !can() {
        return;
    }
    let m = Machine::new("users=*");
    append(&m.path("etc/passwd"), "_cosserver:x:990:990::/:/bin/sh\n");
    let _signing = m.daemon();
    let mut cos = m.of_number(990, "cos");
    let out = run(cos.args(["run", "hostb", "/usr/bin/id", "-un"]));
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(told.contains("user 990 is the daemon's own"), "{told}");
}

/// The kernel's overflow ID may have been changed.
#[test]
fn kernel_overflow_user_id_is_not_signed_for() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root,carol:root");
    m.install_cos_sign();
    m.is(CAROL, &[], "root");
    fs::write(m.path("overflowuid"), format!("{CAROL}\n")).unwrap();
    let refused = || {
        let out = m.id(CAROL, &[]);
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(told.contains("may be any user"), "{told}");
        m.is(ALICE, &[], "root");
    };
    refused();
    let _signing = m.daemon();
    refused();
}

#[test]
fn ordinary_users_daemon_signs_only_for_that_user() {
    let folder = prepare("", "");
    let d = Daemon::start_in(folder, &[]);
    let socket = fs::metadata(d.server().join("run/sign")).unwrap();
    let wanted = if daemon::is_root() { 0o666 } else { 0o600 };
    assert_eq!(socket.permissions().mode() & 0o777, wanted);
    let control = fs::metadata(d.server().join("run/control")).unwrap();
    assert_eq!(control.permissions().mode() & 0o777, 0o600);
    // They are removed with the daemon.
    let folder: Folder = prepare("", "");
    let run = folder.path("S/run");
    let mut d = Daemon::start_in(folder, &[]);
    d.signal(nix::sys::signal::Signal::SIGTERM);
    daemon::session::wait(&mut d.child);
    assert!(!run.join("sign").exists() && !run.join("control").exists());
}
