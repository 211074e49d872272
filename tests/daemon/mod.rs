//! A real daemon with its own directories, for the integration tests: set up by `cosadm` as an
//! administrator would, listening on a port that the system chose, stopped by its process ID.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

pub mod hostile;
pub mod inetd;
pub mod look;
pub mod missing;
pub mod nss;
pub mod stats;

pub mod session;

#[allow(unused_imports, reason = "each test file uses a part")]
pub use look::*;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const COSSERVER: &str = env!("CARGO_BIN_EXE_cosserver");
pub const COS: &str = env!("CARGO_BIN_EXE_cos");
pub const COSADM: &str = env!("CARGO_BIN_EXE_cosadm");

/// Returns whether this test run is root: only then are there a full sandbox and other users.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The same. If this is not root, the test has nothing to do; if it is root without the right to
/// its own mounts, continuous integration fails.
pub fn needs_root() -> bool {
    if !is_root() {
        report_skipped("not root");
        return false;
    }
    if in_ci() {
        assert!(can_mount(), "root without namespaces (CAP_SYS_ADMIN)");
    }
    true
}

/// Returns whether this is continuous integration, where no test that root can run is skipped.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// Returns whether this root can create mount namespaces: in a container it may not.
fn can_mount() -> bool {
    static CAN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *CAN.get_or_init(|| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "true"]);
        run(&mut unshare).status.success()
    })
}

/// Reports that a test had nothing to do, bypassing the harness, which hides the output of a test
/// that passes. `scripts/test` counts these lines.
pub fn report_skipped(why: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or("?");
    let _ = std::io::stderr().write_all(format!("skipped: {name}: {why}\n").as_bytes());
}

/// Returns the user that runs the tests.
pub fn me() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap()
        .name
}

/// Returns whether the long counts are requested (`make soak`).
pub fn long() -> bool {
    std::env::var_os("COS_LONG").is_some()
}

/// A private directory, removed with the value.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cos-test-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines that a process has written, and a way to wait for one.
#[derive(Clone, Default)]
pub struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    /// Collects lines until the end of the input.
    pub fn collect(from: impl std::io::Read + Send + 'static) -> Self {
        Self::collect_to_end(from).0
    }

    /// The same, with the collecting thread, which ends after the last line.
    pub fn collect_to_end(
        from: impl std::io::Read + Send + 'static,
    ) -> (Self, std::thread::JoinHandle<()>) {
        let lines = Self::default();
        let copy = lines.clone();
        let thread = std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                copy.0.0.lock().unwrap().push(line);
                copy.0.1.notify_all();
            }
        });
        (lines, thread)
    }

    /// Returns all lines so far.
    pub fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits for a line from number `from` on for which `wanted` holds; returns its number and
    /// text.
    pub fn wait_from(&self, from: usize, wanted: impl Fn(&str) -> bool) -> (usize, String) {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            let found = lines.iter().enumerate().skip(from).find(|(_, l)| wanted(l));
            if let Some((n, line)) = found {
                return (n, line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "the line did not come; the log:\n{}",
                lines.join("\n")
            );
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for a line that contains `part`.
    pub fn wait(&self, part: &str) -> String {
        self.wait_from(0, |l| l.contains(part)).1
    }

    /// Counts the lines that contain `part`.
    pub fn count(&self, part: &str) -> usize {
        self.all().iter().filter(|l| l.contains(part)).count()
    }

    /// Waits until at least this many lines contain `part`.
    pub fn said_at_least(&self, part: &str, times: usize) {
        let mut from = 0;
        for _ in 0..times {
            from = self.wait_from(from, |line| line.contains(part)).0 + 1;
        }
    }

    /// Waits until this many lines contain `part`: a line may come later than its event. More are a
    /// failure.
    pub fn said_times(&self, part: &str, times: usize) {
        self.said_at_least(part, times);
        assert_eq!(self.count(part), times, "{part}: {:#?}", self.all());
    }
}

/// Runs a command to its end and takes its output.
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that must succeed, and returns its stdout.
pub fn must(command: &mut Command) -> Vec<u8> {
    let out = run(command);
    assert!(out.status.success(), "{command:?}: {out:?}");
    out.stdout
}

/// A server directory, a client directory that is joined to it as `hostb`, and the daemon that
/// serves the client.
pub struct Daemon {
    pub folder: Folder,
    pub log: Lines,
    pub port: u16,
    pub child: Child,
}

impl Daemon {
    /// Starts one with the defaults.
    pub fn start() -> Self {
        Self::start_with("", "")
    }

    /// Starts one with further lines in `cosserver.toml`, and further options for the caller's line
    /// in `hostinfo`.
    pub fn start_with(settings: &str, options: &str) -> Self {
        let folder = prepare(settings, options);
        Self::start_in(folder, &[])
    }

    /// Starts one in directories that [`prepare`] made, with further flags.
    pub fn start_in(folder: Folder, flags: &[&str]) -> Self {
        Self::start_by(Command::new(COSSERVER), folder, flags)
    }

    /// Starts one by a command that becomes the daemon, given its flags.
    pub fn start_by(mut command: Command, folder: Folder, flags: &[&str]) -> Self {
        let mut child = command
            .args(["-D", "-e", "-p", "0", "-f"])
            .arg(folder.path("S/cosserver.toml"))
            .args(flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        let line = log.wait("listening on 127.0.0.1:");
        let port = line.rsplit(':').next().unwrap().parse().unwrap();
        Self {
            folder,
            log,
            port,
            child,
        }
    }

    pub fn server(&self) -> PathBuf {
        self.folder.path("S")
    }

    pub fn client(&self) -> PathBuf {
        self.folder.path("A")
    }

    /// `cos -C A run -p PORT hostb WORDS…`
    pub fn cos(&self, words: &[&str]) -> Command {
        let mut command = Command::new(COS);
        command.arg("-C").arg(self.client());
        command
            .args(["run", "-p", &self.port.to_string(), "hostb"])
            .args(words);
        command
    }

    /// Creates `cosrsh WORDS…` as a tool calls it: the environment names the directory, the host
    /// table the port. After [`Self::install_cosrsh`].
    pub fn cosrsh(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.folder.path("bin/cosrsh"));
        command.env("COS_CONFIG_DIR", self.client()).args(words);
        command
    }

    /// Links `bin/cosrsh`, and writes the daemon's port into the client's host table, as for a
    /// daemon with its own port.
    pub fn install_cosrsh(&self) {
        fs::create_dir(self.folder.path("bin")).unwrap();
        std::os::unix::fs::symlink(COS, self.folder.path("bin/cosrsh")).unwrap();
        let hostinfo = self.client().join("hostinfo");
        let text = fs::read_to_string(&hostinfo).unwrap();
        let line = text.lines().find(|l| l.starts_with("hostb ")).unwrap();
        let words: Vec<String> = line
            .split(' ')
            .filter(|w| !w.starts_with("port="))
            .map(str::to_owned)
            .chain([format!("port={}", self.port)])
            .collect();
        fs::write(&hostinfo, text.replace(line, &words.join(" "))).unwrap();
    }

    /// Starts `cos -C A run hostb WORDS…`, to watch it while it runs.
    pub fn session(&self, words: &[&str]) -> session::Session {
        session::Session::spawn(&mut self.cos(words))
    }

    /// Returns the output of a command that must have this status.
    pub fn says(&self, status: i32, words: &[&str]) -> Vec<u8> {
        let out = run(&mut self.cos(words));
        assert_eq!(
            out.status.code(),
            Some(status),
            "{words:?}: {out:?}\n{}",
            self.log_text()
        );
        out.stdout
    }

    /// Runs a command with `input`.
    pub fn with_input(&self, input: &[u8], words: &[&str]) -> Output {
        let mut child = self
            .cos(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap();
        out
    }

    pub fn log_text(&self) -> String {
        self.log.all().join("\n")
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Returns the process ID of the daemon's gate, relay or registry worker. Waits for it: a
    /// registry worker that has just been started may not have executed its program yet.
    pub fn process(&self, role: &str) -> i32 {
        let wanted = format!("cosserver: {role}");
        let is_it = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).next() == Some(wanted.as_bytes())
        };
        // The kernel may omit one from the list while another ends, so keep what was found.
        let mut found = None;
        until(&format!("there is a {role}"), || {
            found = children(self.pid()).into_iter().find(is_it);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no {role}; {}", self.log_text()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace()
        .map(|p| p.parse().unwrap())
        .collect()
}

/// Creates the directories `S` and `A`, joined by `cosadm`, for a daemon that runs commands as the
/// user that runs the tests.
pub fn prepare(settings: &str, options: &str) -> Folder {
    let folder = Folder::new();
    let (server, client) = (folder.path("S"), folder.path("A"));
    let adm = |dir: &Path| {
        let mut command = Command::new(COSADM);
        command.arg("-C").arg(dir);
        command
    };
    must(adm(&server).arg("init"));
    settle(&server.join("cosserver.toml"), settings);
    // Independent of the ~/.bashrc of the user that runs the tests.
    if !settings.contains("ssh-client") {
        settle(&server.join("cosserver.toml"), "[exec]\nssh-client = false");
    }
    let invite = [
        "host",
        "invite",
        "hosta",
        "--addr",
        "127.0.0.1",
        "--addr",
        "::1",
        "--run-as",
        &me(),
    ];
    let card = must(adm(&server).args(invite));
    if !options.is_empty() {
        let hostinfo = server.join("hostinfo");
        let text = fs::read_to_string(&hostinfo).unwrap();
        let line = text.lines().find(|l| l.starts_with("hosta ")).unwrap();
        fs::write(&hostinfo, text.replace(line, &format!("{line} {options}"))).unwrap();
    }
    let file = folder.path("card");
    fs::write(&file, card).unwrap();
    must(adm(&client).arg("init"));
    must(
        adm(&client)
            .args(["host", "join"])
            .arg(&file)
            .args(["--name", "hostb"]),
    );
    folder
}

/// Sets security level 0: machines are not checked. For tests that do not concern the registry.
pub fn set_level_0(server: &Path) {
    use cosserver::registry::{Doors, Level, Outer};
    let paths = cosserver::config::paths::Paths::of_dir(server);
    Doors::make(&paths).unwrap();
    let mut outer = Outer::open(&paths).unwrap();
    outer.set_level(Level::Off).unwrap();
}

/// Writes further lines into a settings file that has all its tables already: lines under a
/// `[table]` of `settings` go after that table's line.
pub fn settle(file: &Path, settings: &str) {
    let mut text = fs::read_to_string(file).unwrap();
    let (mut at, mut top) = (0, String::new());
    for line in settings.lines() {
        if line.starts_with('[') {
            at = text.find(&format!("\n{line}\n")).unwrap() + line.len() + 2;
        } else if at == 0 {
            top.push_str(&format!("{line}\n"));
        } else {
            text.insert_str(at, &format!("{line}\n"));
        }
    }
    fs::write(file, top + &text).unwrap();
}

pub fn append(file: &Path, text: &str) {
    let mut f = fs::OpenOptions::new().append(true).open(file).unwrap();
    f.write_all(text.as_bytes()).unwrap();
}
