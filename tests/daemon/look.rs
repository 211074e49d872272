//! Observation of the daemon from outside: sets its configuration, watches its processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hostile::RawConnection;
use super::{COSSERVER, Daemon, Folder, PATIENCE, prepare};

impl Daemon {
    /// Starts a daemon with only these settings in `cosserver.toml`.
    pub fn start_as(settings: &str, options: &str) -> Self {
        Self::start_in(configured(settings, options), &[])
    }

    /// Returns how many descriptors the gate has open without other connections. Measured while it
    /// holds a greeted connection: before that it may not even listen yet.
    pub fn gate_at_rest(&self) -> usize {
        let gate = self.process("gate");
        let lines = self.log.all().len();
        let mut held = RawConnection::connect(self.port);
        held.greet();
        let open = descriptors(gate).saturating_sub(1);
        drop(held);
        self.log.wait_from(lines, |l| l.contains("cause=left"));
        until("the gate is at rest", || descriptors(gate) <= open);
        open
    }
}

/// Returns the daemon's program, for a test that starts it itself.
pub fn cosserver() -> Command {
    Command::new(COSSERVER)
}

/// Creates directories like [`prepare`], with only these settings in `cosserver.toml`.
pub fn configured(settings: &str, options: &str) -> Folder {
    let folder = prepare("", options);
    // Independent of the ~/.bashrc of the user that runs the tests.
    let settings = if settings.contains("[exec]") {
        settings.to_owned()
    } else if settings.contains("exec.") {
        format!("exec.ssh-client = false\n{settings}")
    } else {
        format!("{settings}\n[exec]\nssh-client = false\n")
    };
    fs::write(folder.path("S/cosserver.toml"), settings).unwrap();
    folder
}

/// Returns a job that prints `ready`, waits for the signal of this name, and becomes a shell that
/// runs `then`. A shell with a trap may lose a signal that comes just before it reads or forks;
/// sigwait(3) cannot. The signal stays blocked: kernel and guard may both send it.
pub fn at_signal(name: &str, then: &str) -> String {
    let wait = format!(
        "import os, signal, sys\n\
         one = {{signal.SIG{name}}}\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, one)\n\
         print(\"ready\", flush=True)\n\
         signal.sigwait(one)\n\
         os.execvp(\"sh\", [\"sh\", \"-c\", sys.argv[1]])"
    );
    format!("exec python3 -c '{wait}' '{then}'")
}

/// Returns a job that reports that it runs, and records its hang-up. SIGPIPE does not end it
/// before.
pub fn hangs_up(marker: &Path) -> String {
    let marker = marker.display();
    [
        "trap \"\" PIPE; ",
        &at_signal("HUP", &format!(": >{marker}")),
    ]
    .concat()
}

/// Counts a daemon's children without its registry worker and look-up processes, which exist only
/// while there is work for them.
pub fn without_doors(pid: i32) -> usize {
    lasting_children(pid).len()
}

/// Returns a daemon's children without its registry worker and look-up processes.
pub fn lasting_children(pid: i32) -> Vec<i32> {
    loop {
        let all = named_children(pid);
        let lasting = all.iter().filter(|child| !comes_and_goes(**child));
        let lasting = lasting.copied().collect();
        // A process that has ended in the meantime had no name to recognize it by.
        if super::children(pid) == all {
            return lasting;
        }
    }
}

/// Counts a daemon's children with this role.
pub fn of_role(pid: i32, role: &str) -> usize {
    let all = named_children(pid);
    all.iter().filter(|child| has_role(**child, role)).count()
}

fn comes_and_goes(pid: i32) -> bool {
    has_role(pid, "registry") || has_role(pid, "lookup")
}

fn has_role(pid: i32, role: &str) -> bool {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    // A process of a daemon started by inetd has no command line of its own.
    of("comm").trim() == format!("cos: {role}")
        || of("cmdline").trim_end_matches('\0') == format!("cosserver: {role}")
}

/// Returns a daemon's children, once each has its own name: a process that has just been forked
/// still has its parent's. A process that keeps that name for a second is counted with it.
fn named_children(pid: i32) -> Vec<i32> {
    let parents = status(pid, "Name");
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let all = super::children(pid);
        let named = all.iter().all(|child| status(*child, "Name") != parents);
        if named || Instant::now() >= end {
            return all;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Returns the processes of a session that have not ended, by its leader's process ID, with their
/// groups.
pub fn members(leader: i32) -> Vec<(i32, i32)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let of = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let (group, session) = (fields.nth(1)?.parse().ok()?, fields.next()?);
        let is_one = session.parse() == Ok(leader) && !["Z", "X"].contains(&state);
        is_one.then_some((pid, group))
    };
    pids.filter_map(of).collect()
}

/// Waits until a condition holds, if it has no event of its own, such as the end of another
/// process's child.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it did not come about: {what}");
        // The awaited process may need the processor.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Returns a line of a process's `/proc/PID/status`.
pub fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Stops a process, and waits until each of its threads is stopped: right after the signal it may
/// still answer once.
pub fn stop(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    until("it is stopped", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let states = tasks.map(|task| fs::read_to_string(task.path().join("stat")));
        states.flatten().all(|stat| stat.contains(") T "))
    });
}

/// Counts a process's open descriptors without its channels to the registry worker and look-up
/// processes, which come and go, and without one for each registry file: the process closes a file
/// that is being written to, and opens it again at the next read.
pub fn descriptors(pid: i32) -> usize {
    // A process that is started or ends during the count would be counted partly.
    let (children, mut open) = loop {
        let children = named_children(pid);
        let open = open_files(pid);
        if super::children(pid) == children {
            break (children, open);
        }
    };
    for door in ["sestab", "idfile"] {
        if let Some(at) = open.iter().position(|path| path.ends_with(door)) {
            open.swap_remove(at);
        }
    }
    let doors = children.iter().filter(|child| comes_and_goes(**child));
    open.len().saturating_sub(doors.count())
}

/// The same once the number is stable for a tenth of a second: what a process opens for a moment is
/// closed again.
pub fn descriptors_at_rest(pid: i32) -> usize {
    let mut last = (descriptors(pid), Instant::now());
    until("it is at rest", || {
        let open = descriptors(pid);
        if open != last.0 {
            last = (open, Instant::now());
        }
        last.1.elapsed() >= Duration::from_millis(100)
    });
    last.0
}

/// Returns the targets of a process's descriptors.
fn open_files(pid: i32) -> Vec<PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    all.map(|entry| fs::read_link(entry.unwrap().path()).unwrap_or_default())
        .collect()
}
