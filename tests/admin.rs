//! `cosadm` as an administrator runs it: the real program in private directories.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use cosserver::config::card::Card;
use cosserver::config::hostinfo::{Entry, HostTable, Method};
use cosserver::config::machines::{self, Recorded};
use cosserver::config::name::HostName;
use cosserver::config::paths::Paths;
use cosserver::config::{cookie, keys, known_hosts};
use cosserver::secret::PublicKey;
use nix::unistd::{User, geteuid};

#[path = "admin/cards.rs"]
mod cards;
#[path = "admin/kept.rs"]
mod kept;
#[path = "admin/rotated.rs"]
mod rotated;
#[path = "admin/told.rs"]
mod told;
#[path = "admin/trouble.rs"]
mod trouble;
#[path = "admin/words.rs"]
mod words;

const COSADM: &str = env!("CARGO_BIN_EXE_cosadm");

/// A private directory, removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cosserver-admin-{}-{number}", std::process::id());
        let path = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
        fs::create_dir(&path).unwrap();
        chmod(&path, 0o700);
        Self(path)
    }

    /// Creates a directory in it by `cosadm init`.
    fn init(&self, name: &str) -> Folder {
        let folder = Folder(self.0.join(name));
        folder.good(&["init"]);
        folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A configuration directory.
struct Folder(PathBuf);

impl Folder {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(COSADM);
        command
            .arg("-C")
            .arg(&self.0)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its standard output.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs a command that must fail with that exit code, and returns its standard error.
    fn bad(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(!told.contains("panicked"), "{told}");
        assert!(
            told.lines().all(|line| line.starts_with("cosadm: ")),
            "{told}"
        );
        told
    }

    /// Invites a host from loopback, to run commands as the user that runs the test.
    fn invite(&self, name: &str) -> String {
        self.good(&[
            "host",
            "invite",
            name,
            "--addr",
            "127.0.0.1",
            "--run-as",
            &me(),
        ])
    }

    /// Runs `host join -` with a card on standard input.
    fn join(&self, card: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(&["host", "join", "-"]);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(card.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    fn paths(&self) -> Paths {
        Paths::of_dir(&self.0)
    }

    fn entry(&self, name: &str) -> Entry {
        HostTable::load(&self.paths())
            .unwrap()
            .get(&host(name))
            .unwrap()
            .clone()
    }

    fn table(&self) -> String {
        fs::read_to_string(self.paths().hostinfo()).unwrap()
    }

    /// Returns the lines of hostinfo that are not comments.
    fn lines(&self) -> Vec<String> {
        let table = self.table();
        table
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn append(&self, text: &str) {
        let mut file = File::options()
            .append(true)
            .open(self.paths().hostinfo())
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn me() -> String {
    User::from_uid(geteuid()).unwrap().unwrap().name
}

/// Returns every file below a directory with its content.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn init_makes_what_is_missing_and_overwrites_nothing() {
    let scratch = Scratch::new();
    let folder = scratch.init("a/b/S");
    let paths = folder.paths();
    for (path, expected) in [
        (paths.dir.clone(), 0o700),
        (paths.settings(), 0o644),
        (paths.hostinfo(), 0o644),
        (paths.host_key(), 0o600),
        (paths.machine_key(), 0o600),
        (paths.cookies(), 0o700),
        (paths.machines(), 0o700),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    assert!(folder.good(&["check"]).ends_with("no problem\n"));

    let before = content(&folder.0);
    let told = folder.good(&["init"]);
    assert!(told.contains("there") && !told.contains("made "), "{told}");
    assert_eq!(content(&folder.0), before);

    fs::remove_file(paths.machine_key()).unwrap();
    fs::write(paths.hostinfo(), "mine cos\n").unwrap();
    let told = folder.good(&["init"]);
    assert_eq!(
        told.lines().filter(|line| line.starts_with("made")).count(),
        1,
        "{told}"
    );
    assert_eq!(folder.lines(), ["mine cos"]);
    assert!(keys::load_machine_key(&paths).is_ok());
}

#[test]
fn trust_in_two_commands() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    let card = s.invite("hosta");
    assert!(
        card.starts_with("-----BEGIN") && card.ends_with("INVITATION-----\n"),
        "only the card: {card}"
    );
    assert_eq!(card.lines().count(), 9);
    let file = scratch.0.join("card");
    fs::write(&file, &card).unwrap();
    a.good(&["host", "join", file.to_str().unwrap(), "--name", "hostb"]);

    let card = Card::parse(card.as_bytes()).ok().unwrap();
    assert_eq!(card.addresses, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    let inbound = s.entry("hosta");
    assert_eq!(
        inbound
            .run_as
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [me()]
    );
    assert_eq!(
        inbound.addresses.contains("127.0.0.1".parse().unwrap()),
        Some(true)
    );
    let outbound = a.entry("hostb");
    assert_eq!(outbound.method, Method::Cos);
    let addresses: Vec<_> = outbound.addresses.plain();
    let addresses: Vec<_> = addresses.iter().map(|a| a.ip()).collect();
    assert_eq!(addresses, card.addresses);
    assert_eq!(outbound.port, Some(card.port));
    assert_eq!(outbound.as_name, Some(host("hosta")));
    assert_eq!(outbound.server_name(), &card.server);
    assert!(outbound.run_as.is_empty(), "join grants nothing inbound");

    let key = keys::load_host_key(&s.paths()).ok().unwrap().public;
    assert_eq!(
        known_hosts::pins(&a.paths(), &host("hostb")).unwrap(),
        [key]
    );
    let there = cookie::load_in(&s.paths(), &host("hosta")).ok().unwrap();
    let here = cookie::load_out(&a.paths(), &host("hostb")).ok().unwrap();
    assert!(
        there.len() == 1
            && here.len() == 1
            && there[0].same(&here[0])
            && there[0].same(&card.cookie)
    );
    assert_eq!(mode(&s.paths().cookie_in(&host("hosta"))), 0o600);
    for folder in [&s, &a] {
        assert!(folder.good(&["check"]).ends_with("no problem\n"));
    }
    let mut by_environment = Command::new(COSADM);
    by_environment
        .args(["host", "list"])
        .env("COS_CONFIG_DIR", &a.0);
    assert_eq!(
        text(&by_environment.output().unwrap().stdout),
        a.good(&["host", "list"])
    );
    // The same card again changes nothing.
    let before = content(&a.0);
    a.good(&["host", "join", file.to_str().unwrap(), "--name", "hostb"]);
    assert_eq!(content(&a.0), before);
}

#[test]
fn values_on_the_card_can_be_set_and_overridden() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    let settings = "name = \"Real\"\nport = 9102\nlisten = [\"192.0.2.7\", \"127.0.0.1\"]\n";
    fs::write(s.paths().settings(), settings).unwrap();
    let invite = |name: &str, more: &[&str]| {
        s.good(
            &[
                &[
                    "host",
                    "invite",
                    name,
                    "--addr",
                    "192.0.2.0/24",
                    "--run-as",
                    &me(),
                ],
                more,
            ]
            .concat(),
        )
    };
    let card = invite("hosta", &[]);
    for line in [
        "server: real",
        "addr: 192.0.2.7",
        "port: 9102",
        "caller: hosta",
    ] {
        assert!(card.lines().any(|l| l == line), "{line}: {card}");
    }
    assert!(invite("hostc", &["--port", "7"]).contains("\nport: 7\n"));
    assert!(
        a.join(
            &card,
            &["--addr", "203.0.113.5", "--addr=::1", "--port", "80"]
        )
        .status
        .success()
    );
    assert_eq!(
        a.lines(),
        ["real cos addr=203.0.113.5,::1 port=80 as=hosta"]
    );
    fs::write(s.paths().settings(), "port = 0\n").unwrap();
    let told = s.bad(1, &["host", "rotate", "hosta"]);
    assert!(told.contains("--port N"), "{told}");
}

#[test]
fn rotating() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    let (hosta, hostb) = (host("hosta"), host("hostb"));
    assert!(
        a.join(&s.invite("hosta"), &["--name", "hostb"])
            .status
            .success()
    );
    let live = || cookie::load_in(&s.paths(), &hosta).ok().unwrap();
    let old = live().remove(0);
    assert_eq!(
        machines::record(&s.paths(), &hosta, PublicKey([7; 32])).unwrap(),
        Recorded::New
    );
    // Manual changes on the client are kept.
    let table = a.table().replace("port=9002", "user=jo port=9102") + "# the end";
    fs::write(a.paths().hostinfo(), table).unwrap();

    let card = s.good(&["host", "rotate", "hosta"]);
    let both = live();
    assert!(both.len() == 2 && both[1].same(&old) && !both[0].same(&old));
    assert_eq!(machines::recorded(&s.paths(), &hosta).unwrap(), None);
    assert!(s.good(&["check"]).contains("two cookies are live"));

    let joined = a.join(&card, &["--name", "hostb"]);
    assert!(joined.status.success() && text(&joined.stderr).contains("port=9102 stays"));
    let entry = a.entry("hostb");
    assert_eq!(
        (entry.port, entry.user.unwrap().as_str()),
        (Some(9102), "jo")
    );
    assert!(a.table().ends_with("# the end"));
    let out = cookie::load_out(&a.paths(), &hostb).ok().unwrap();
    assert!(out.len() == 1 && out[0].same(&both[0]));
    assert_eq!(known_hosts::pins(&a.paths(), &hostb).unwrap().len(), 1);

    s.good(&["host", "rotate", "hosta", "--finish"]);
    assert!(live().len() == 1 && live()[0].same(&both[0]));
    s.good(&["host", "rotate", "hosta", "--finish"]);
    assert_eq!(live().len(), 1);
    // Never more than two.
    s.good(&["host", "rotate", "hosta"]);
    s.good(&["host", "rotate", "hosta", "--again"]);
    assert_eq!(live().len(), 2);
}

#[test]
fn both_ways_between_two_hosts() {
    let scratch = Scratch::new();
    let (a, b) = (scratch.init("A"), scratch.init("B"));
    assert!(
        a.join(&b.invite("hosta"), &["--name", "hostb"])
            .status
            .success()
    );
    // The joined host is invited: the same line then has both roles.
    let card = a.good(&["host", "invite", "hostb", "--run-as", &me()]);
    assert!(b.join(&card, &["--name", "hosta"]).status.success());
    for (folder, other) in [(&a, "hostb"), (&b, "hosta")] {
        assert_eq!(folder.lines().len(), 1);
        let entry = folder.entry(other);
        let whole = entry.run_as.len() == 1 && entry.as_name.is_some() && entry.port.is_some();
        assert!(whole, "{:?}", folder.lines());
        assert!(folder.good(&["check"]).ends_with("no problem\n"));
    }
}

#[test]
fn removing() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    // The first command that changes something creates the lock file.
    let (before_s, before_a) = (content(&s.0), content(&a.0));
    assert!(
        a.join(&s.invite("hosta"), &["--name", "hostb"])
            .status
            .success()
    );
    machines::record(&s.paths(), &host("hosta"), PublicKey([7; 32])).unwrap();
    s.good(&["host", "remove", "HOSTA"]);
    assert_eq!(content(&s.0), before_s);
    a.good(&["host", "remove", "hostb"]);
    fs::remove_file(a.paths().known_hosts()).unwrap();
    assert_eq!(content(&a.0), before_a);
    // Invalid or duplicate lines are removed as well.
    s.append("hosta cos prot=1\nhosta cos\nhostc cos\n");
    s.good(&["host", "remove", "hosta"]);
    assert_eq!(s.lines(), ["hostc cos"]);
}

#[test]
fn hosts_invited_at_the_same_time_are_all_there() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.append("# kept\nother ssh   # as it is\n");
    let start = |name: &str| {
        let mut command = s.command(&[
            "host",
            "invite",
            name,
            "--addr",
            "127.0.0.1",
            "--run-as",
            &me(),
        ]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let holds = |name: &str, card: &[u8]| {
        let card = Card::parse(card).ok().unwrap();
        cookie::load_in(&s.paths(), &host(name)).ok().unwrap()[0].same(&card.cookie)
    };
    let names: Vec<String> = (0..16).map(|i| format!("host{i}")).collect();
    let children: Vec<_> = names.iter().map(|name| start(name)).collect();
    for (name, child) in names.iter().zip(children) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(holds(name, &output.stdout));
        s.entry(name);
    }
    assert_eq!(s.lines().len(), 17);
    assert!(s.table().contains("# kept\nother ssh   # as it is\n"));
    // Several commands that invite the same host print one card.
    let children: Vec<_> = (0..8).map(|_| start("same")).collect();
    let outputs = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap());
    let outputs: Vec<Output> = outputs.collect();
    assert!(outputs.iter().all(|output| output.status.success()));
    assert!(outputs.iter().all(|output| holds("same", &output.stdout)));
    s.entry("same");
}

#[test]
fn listing_and_showing() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    s.append("hostb ssh addr=192.0.2.2 user=jo\nhostc cos prot=1\n");
    let output = s.run(&["host", "list"]);
    let told = text(&output.stdout);
    assert!(
        output.status.success() && told.lines().count() == 2,
        "{told}"
    );
    assert!(
        told.contains("hosta  it may run any command here as "),
        "{told}"
    );
    assert!(
        told.contains("this host asks it by ssh at 192.0.2.2 as jo"),
        "{told}"
    );
    let faults = text(&output.stderr);
    assert!(
        faults.contains("hostc is denied: unknown option \"prot\"; did you mean \"port\"?"),
        "{faults}"
    );
    let json = s.good(&["host", "list", "--json"]);
    assert!(
        json.starts_with("{\"hosts\":[{\"name\":\"hosta\",\"line\":") && json.ends_with("]}\n"),
        "{json}"
    );
    assert!(
        json.contains("\"faults\":[\"") && json.contains("did you mean \\\"port\\\"?"),
        "{json}"
    );
    assert!(
        s.good(&["host", "show", "hosta", "--json"])
            .contains("\"cookies_in\":1,\"cookies_out\":0")
    );
    assert!(
        s.good(&["host", "show", "hosta"])
            .contains("cookies, it asks us      1\n")
    );
    assert!(
        s.bad(1, &["host", "show", "hostc"])
            .contains("did you mean \"port\"?")
    );
}
