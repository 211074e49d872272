//! A test machine: the files of this one, with every change discarded at the end (an overlay), and
//! its own loopback network, processes, `/dev` and `/run`. What is installed and started in it
//! touches nothing outside. Only root can create one.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use crate::daemon::{self, Folder, Lines, PATIENCE};

/// Returns the directory of the project.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the directory of the programs that these tests were built with.
pub(crate) fn programs() -> &'static Path {
    Path::new(daemon::COSSERVER).parent().unwrap()
}

/// Where a machine has the project's directory and its programs: the original may be in a place
/// that other users cannot read.
pub(crate) const CHECKOUT: &str = "/srv/checkout";
pub(crate) const PROGRAMS: &str = "/srv/programs";

/// Returns where `scripts/need` has unpacked packages for the tests: inetds, runit, OpenRC,
/// fail2ban.
pub(crate) fn tools() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools/root")
}

/// Returns where it has unpacked packages for `make soak`, to be copied over the files of a
/// machine.
pub(crate) fn soak_tools() -> PathBuf {
    tools().with_file_name("soak")
}

/// Returns one of these programs. If it is missing, its test has nothing to do, and says so; CI
/// fails.
pub(crate) fn tool(path: &str) -> Option<PathBuf> {
    let found = Some(tools().join(path)).filter(|p| p.exists());
    if found.is_none() {
        let why = format!("no {path}: scripts/need test unpacks it");
        assert!(!daemon::in_ci(), "{why}");
        daemon::report_skipped(&why);
    }
    found
}

/// Returns a program of systemd: the installed one, otherwise the one that was unpacked with its
/// libraries. It may run here or in a machine.
pub(crate) fn of_systemd(name: &str) -> Option<Command> {
    if let Some(installed) = daemon::session::on_path(name) {
        return Some(Command::new(installed));
    }
    let mut command = Command::new(tool(&format!("usr/bin/{name}"))?);
    let (mut libraries, mut units) = (Vec::new(), Vec::new());
    for folder in ["lib", "usr/lib"] {
        units.push(tools().join(folder).join("systemd/system"));
        for entry in fs::read_dir(tools().join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            libraries.push(path.join("systemd"));
            libraries.push(path);
        }
    }
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    command.env("SYSTEMD_UNIT_PATH", std::env::join_paths(units).unwrap());
    Some(command)
}

/// Sets up the machine, up to its first process, which reaps all children.
const BOOT: &str = r#"
set -e
here=$1 top=$2 programs=$3
mount -t tmpfs -o mode=755 machine "$here"
mkdir "$here/upper" "$here/work" "$here/root"
mount -t overlay -o "lowerdir=/,upperdir=$here/upper,workdir=$here/work" machine "$here/root"
cd "$here/root"
for folder in tmp run var/tmp; do mount -t tmpfs machine $folder; done
chmod 1777 tmp var/tmp
mount -t proc proc proc
mount -t tmpfs -o mode=755 machine dev
mkdir dev/shm
for device in null zero full random urandom tty; do
	: >dev/$device
	mount --bind /dev/$device dev/$device
done
ln -s /proc/self/fd dev/fd
for folder in "$top" "$programs"; do
	mkdir -p ".$folder"
	mount --bind "$folder" ".$folder"
done
mkdir -p srv/checkout srv/programs
mount --bind "$top" srv/checkout
mount --bind "$programs" srv/programs
rm -rf etc/cosserver var/lib/cosserver etc/init.d/cosserver etc/pam.d/cosserver usr/local/lib/cosserver
# bash reads it for each command, and what it starts may wait a minute for another machine.
rm -f root/.bashrc
ip link set lo up
hostname hostb
exec chroot . python3 -c '
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print("up", flush=True)
while True:
    signal.sigwait([signal.SIGCHLD])
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
'
"#;

/// A machine; all of it ends with the value.
pub(crate) struct Machine {
    boot: Child,
    first: i32,
    _folder: Folder,
}

impl Machine {
    /// Starts a machine; returns `None`, and says why, if this user cannot create one.
    pub(crate) fn start() -> Option<Self> {
        if !daemon::needs_root() {
            return None;
        }
        let folder = Folder::new();
        let flags = "--mount --net --pid --uts --ipc --fork --kill-child";
        let mut boot = Command::new("unshare")
            .args(flags.split(' '))
            .args(["sh", "-c", BOOT, "sh"])
            .args([&folder.0, top(), programs()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(boot.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        if line != "up\n" {
            let out = boot.wait_with_output().unwrap();
            let why = String::from_utf8_lossy(&out.stderr);
            let why = format!("no machine can be made here: {}", why.trim_end());
            assert!(!daemon::in_ci(), "{why}");
            daemon::report_skipped(&why);
            return None;
        }
        let first = daemon::children(i32::try_from(boot.id()).unwrap())[0];
        Some(Self {
            boot,
            first,
            _folder: folder,
        })
    }

    /// Starts a machine with cosserver installed for this init, its directory created, and root's
    /// client, which may run commands there as `hostb`.
    pub(crate) fn with_cosserver(init: &str) -> Option<Self> {
        let machine = Self::start()?;
        machine.make(&format!("install INIT={init}"));
        machine.must(
            "cosadm init
             cosadm host invite hosta --addr 127.0.0.1 --addr ::1 --run-as root >/root/card
             cosadm -C /root/A init
             cosadm -C /root/A host join /root/card --name hostb
             cat /etc/cosserver/cosserver.toml >/root/toml
             { echo 'listen = [\"127.0.0.1\", \"::1\"]'; cat /root/toml; } >/etc/cosserver/cosserver.toml",
        );
        Some(machine)
    }

    /// Connects two machines by a virtual cable, on which each has its address.
    pub(crate) fn connect(&self, here: &str, other: &Self, there: &str) {
        let end = |address: &str| address.rsplit('.').next().unwrap().to_owned();
        let cable = format!("cable{}-{}", end(here), end(there));
        let pids = [self, other].map(|machine| machine.first.to_string());
        let made = Command::new("ip")
            .args(["link", "add", &cable, "netns", &pids[0], "type", "veth"])
            .args(["peer", "name", &cable, "netns", &pids[1]])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        for (machine, own, peer) in [(self, here, there), (other, there, here)] {
            machine.must(&format!(
                "ip addr add {own} peer {peer} dev {cable}
                 ip link set {cable} up"
            ));
        }
    }

    /// Runs `make` in the project's directory; returns its output.
    pub(crate) fn make(&self, what: &str) -> String {
        self.must(&format!(
            "make --no-print-directory -s -C {CHECKOUT} PROGRAMS={PROGRAMS} {what} 2>&1"
        ))
    }

    /// Returns a path in the machine, as seen from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.first)).join(inside.trim_start_matches('/'))
    }

    pub(crate) fn text(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|e| panic!("{inside}: {e}"))
    }

    /// Collects what the machine's programs send to syslog, with its priority in front; must be
    /// called before they start.
    pub(crate) fn syslog(&self) -> Lines {
        Lines::collect(Datagrams(
            UnixDatagram::bind(self.path("/dev/log")).unwrap(),
        ))
    }

    /// Creates a shell in the machine that will run this script.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.first.to_string()])
            .args(["-m", "-n", "-p", "-u", "-i", "-r", "-w"])
            .args(["sh", "-c", script])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("COS_CONFIG_DIR_A", "/root/A")
            .stdin(Stdio::null());
        command
    }

    /// Runs a script to its end.
    pub(crate) fn sh(&self, script: &str) -> Output {
        self.shell(script).output().unwrap()
    }

    /// Runs a script, which must end with this status; returns all its output.
    pub(crate) fn ends(&self, status: i32, script: &str) -> String {
        let out = self.sh(script);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert_eq!(out.status.code(), Some(status), "{script}: {said}");
        said
    }

    /// Runs a script, each line of which must succeed.
    pub(crate) fn must(&self, script: &str) -> String {
        self.ends(0, &format!("set -e\n{script}"))
    }

    /// Puts the unpacked packages' files where they would be if installed.
    pub(crate) fn install_tools(&self) {
        self.install_tree(&tools());
    }

    /// Copies a tree over the machine's own files, and keeps symbolic links to directories, such as
    /// `/bin`.
    pub(crate) fn install_tree(&self, tree: &Path) {
        let mut from = Command::new("tar");
        from.arg("-C").arg(tree).args(["-cf", "-", "."]);
        let mut from = from.stdout(Stdio::piped()).spawn().unwrap();
        let out = self
            .shell("exec tar -C / --keep-directory-symlink --no-same-owner -xf -")
            .stdin(from.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(from.wait().unwrap().success(), "{}", tree.display());
        assert!(out.status.success(), "{out:?}");
    }

    /// Runs `cosrsh hostb WORDS…`, as root's scripts call it.
    pub(crate) fn cosrsh(&self, words: &str) -> Output {
        self.sh(&format!("COS_CONFIG_DIR=/root/A cosrsh hostb {words}"))
    }

    /// Checks that the machine's daemon runs commands, with output, input and exit status.
    pub(crate) fn serves(&self) {
        let out = self.cosrsh("'echo out; echo err >&2; exit 3'");
        assert_eq!(out.status.code(), Some(3), "{out:?}");
        assert_eq!((&*out.stdout, &*out.stderr), (&b"out\n"[..], &b"err\n"[..]));
        let back = self.must("echo in | COS_CONFIG_DIR=/root/A cosrsh hostb cat");
        assert_eq!(back, "in\n");
        assert_eq!(self.cosrsh("true").status.code(), Some(0));
    }

    /// Returns the command lines of the machine's processes that contain this word, without those
    /// of the commands that ask.
    pub(crate) fn running(&self, word: &str) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path("/proc")).unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(word) {
                found.push(format!("{} {line}", entry.file_name().to_string_lossy()));
            }
        }
        found
    }

    /// Waits until a condition holds.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        daemon::until(what, || is_so(self));
    }

    /// Returns the process ID in the pid file.
    pub(crate) fn pid(&self) -> i32 {
        self.text("/run/cosserver/cosserver.pid")
            .trim()
            .parse()
            .unwrap()
    }
}

/// The datagrams that arrive at a socket, one per line.
struct Datagrams(UnixDatagram);

impl Read for Datagrams {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = into.len() - 1;
        let n = self.0.recv(&mut into[..most])?;
        into[n] = b'\n';
        Ok(n + 1)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.boot.kill();
        let _ = self.boot.wait();
        // Its first process ends all others; the directory is free when it is gone.
        let end = Instant::now() + PATIENCE;
        while Path::new(&format!("/proc/{}/root/etc", self.first)).exists() && Instant::now() < end
        {
            std::thread::yield_now();
        }
    }
}
