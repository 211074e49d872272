//! A client that runs while the test watches, and what a test waits for: lines, the end of a
//! process, a named pipe. Nothing here waits for longer than [`PATIENCE`].

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cosserver::sys::pidfd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lines, PATIENCE};

/// A running client: its input is a pipe, its outputs are collected as lines.
pub struct Session {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub out: Lines,
    pub err: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// How a client ended, and all its output.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: Option<i32>,
    pub out: Vec<String>,
    pub err: Vec<String>,
}

impl Session {
    /// Starts a client with pipes for all three streams.
    pub fn spawn(command: &mut Command) -> Self {
        let all = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self::of(all.stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Takes over a client that was started with pipes for its outputs; without one for standard
    /// output, no lines arrive there.
    pub fn of(mut child: Child) -> Self {
        let (out, one) = match child.stdout.take() {
            Some(out) => Lines::collect_to_end(out),
            None => Lines::collect_to_end(std::io::empty()),
        };
        let (err, two) = Lines::collect_to_end(child.stderr.take().unwrap());
        Self {
            stdin: child.stdin.take(),
            child,
            out,
            err,
            readers: vec![one, two],
        }
    }

    /// Sends the command a line.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends the client a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the client's end, without changing its input.
    pub fn finish(mut self) -> Ended {
        let status = wait(&mut self.child);
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended {
            status: status.code(),
            out: self.out.all(),
            err: self.err.all(),
        }
    }
}

/// Starts a client without input whose output goes to this pipe; also returns its error lines.
pub fn start_onto(mut command: Command, out: OwnedFd) -> (Child, Lines) {
    command.stdin(Stdio::null()).stdout(out);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let err = Lines::collect(child.stderr.take().unwrap());
    (child, err)
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end. A child that takes too long is killed, and the test fails.
pub fn wait(child: &mut Child) -> ExitStatus {
    let pid = i32::try_from(child.id()).unwrap();
    if !ends(pid) {
        child.kill().unwrap();
        panic!("process {pid} did not end: {:?}", child.wait());
    }
    child.wait().unwrap()
}

/// Returns whether a process ends within the time limit of a test.
pub fn ends(pid: i32) -> bool {
    let Some(watch) = pidfd::open(Pid::from_raw(pid)) else {
        return true;
    };
    becomes(&watch, PollFlags::POLLIN, PATIENCE)
}

/// Returns whether a process exists and is not a zombie.
pub fn lives(pid: i32) -> bool {
    state(pid).is_some_and(|s| s != 'Z')
}

/// Returns the letter for a process's state in `/proc`.
pub fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Returns whether a descriptor becomes ready in time.
fn becomes(fd: &impl AsFd, events: PollFlags, within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd.as_fd(), events)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// A result that another thread will produce.
pub struct Later<T>(Receiver<T>);

/// Runs a function that may block in another thread.
pub fn later<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Later<T> {
    let (tell, receive) = channel();
    std::thread::spawn(move || tell.send(work()));
    Later(receive)
}

impl<T> Later<T> {
    /// Waits for the result; the test fails if it does not come.
    pub fn get(&self) -> T {
        let patience = if super::long() {
            20 * PATIENCE
        } else {
            PATIENCE
        };
        self.0.recv_timeout(patience).unwrap()
    }
}

/// A reader that must have data, or reach its end, in time.
pub struct Patient<F>(pub F);

impl<F: Read + AsFd> Read for Patient<F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let ready = becomes(&self.0, PollFlags::POLLIN, PATIENCE);
        assert!(ready, "nothing came, and no end");
        self.0.read(into)
    }
}

/// Returns a status as a shell sees it: 128 plus the signal if one killed it.
pub fn as_shell(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|n| 128 + n))
}

/// A named pipe, by which a job and its test communicate besides the three streams.
pub struct Fifo {
    pub path: PathBuf,
    read: File,
}

impl Fifo {
    pub fn new(path: PathBuf) -> Self {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let mut options = OpenOptions::new();
        let read = options.read(true).custom_flags(nonblocking());
        let read = read.open(&path).unwrap();
        Self { path, read }
    }

    /// Returns the path, for a command line.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Waits until something has been written, and returns it.
    pub fn receive(&mut self) -> String {
        assert!(becomes(&self.read, PollFlags::POLLIN, PATIENCE), "nothing");
        let mut bytes = [0; 4096];
        let n = self.read.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    }

    /// Waits until no process has it open for writing any more, after one had; returns all that was
    /// written.
    pub fn receive_all(&mut self) -> String {
        let mut all = Vec::new();
        loop {
            assert!(
                becomes(&self.read, PollFlags::POLLIN, PATIENCE),
                "it is still held"
            );
            let mut bytes = [0; 4096];
            match self.read.read(&mut bytes).unwrap() {
                0 => return String::from_utf8(all).unwrap(),
                n => all.extend_from_slice(&bytes[..n]),
            }
        }
    }
}

/// A named pipe on which a job waits (`read x <PATH`) until the test opens it.
pub struct Gate {
    pub path: PathBuf,
    both: File,
}

impl Gate {
    pub fn new(path: PathBuf) -> Self {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let both = OpenOptions::new().read(true).write(true).open(&path);
        Self {
            path,
            both: both.unwrap(),
        }
    }

    /// Returns the path, for a command line.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Lets one reader continue.
    pub fn open(&mut self) {
        self.both.write_all(b"go\n").unwrap();
    }
}

fn nonblocking() -> i32 {
    nix::fcntl::OFlag::O_NONBLOCK.bits()
}

/// Creates a pipe: its read and its write end.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
}

/// Returns a number from `/proc/PID/status` by its name.
pub fn status_number(pid: i32, name: &str) -> u64 {
    let status = super::status(pid, name);
    status.split_whitespace().next().unwrap().parse().unwrap()
}

/// Finds a program by its name, on the path of the tests.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").into(), Path::new("/sbin").into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
