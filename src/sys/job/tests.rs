//! Tests of children whose parent continues while they start.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

use std::fs::File;
use std::io::Read;
#[cfg(direct_calls)]
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::pipe2;

use super::*;

/// Runs a program and returns its output with its errors, and its exit status.
fn outcome(starter: &mut Starter, path: &str, argv: &[&str]) -> (String, i32) {
    let string = |s: &str| CString::new(s).unwrap();
    let program = Program {
        path: string(path),
        argv: argv.iter().copied().map(string).collect(),
        environment: vec![string("NAME=value")],
        folder: string("/usr"),
        mask: 0o022,
        user: None,
    };
    let nothing = OwnedFd::from(File::open("/dev/null").unwrap());
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let ends = Ends {
        are_its_own: true,
        stdin: nothing.as_fd(),
        stdout: write.as_fd(),
        stderr: write.as_fd(),
    };
    let pid = starter.job(program, ends, Limits::default(), None).unwrap();
    drop(write);
    let mut said = String::new();
    File::from(read).read_to_string(&mut said).unwrap();
    let WaitStatus::Exited(_, status) = waitpid(pid, None).unwrap() else {
        return (said, -1);
    };
    (said, status)
}

#[test]
fn a_program_gets_its_words_its_environment_and_its_folder() {
    let script = "echo \"$1 $NAME $PWD\"; umask; exit 7";
    let words = ["sh", "-c", script, "x", "a  b"];
    let (said, status) = outcome(&mut Starter::default(), "/bin/sh", &words);
    assert_eq!(said, "a  b value /usr\n0022\n");
    assert_eq!(status, 7);
}

/// A program that does not exist, in a directory that does not exist.
fn missing() -> Program {
    Program {
        path: c"/nowhere".into(),
        argv: vec![c"nowhere".into()],
        environment: Vec::new(),
        folder: c"/not/there/either".into(),
        mask: 0o022,
        user: None,
    }
}

/// Failed calls of the child do not change its parent's `errno`.
#[test]
fn starting_a_job_keeps_errno() {
    let nothing = OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
    let ends = Ends {
        are_its_own: true,
        stdin: nothing.as_fd(),
        stdout: nothing.as_fd(),
        stderr: nothing.as_fd(),
    };
    let mut starter = Starter::default();
    nix::errno::Errno::set_raw(12345);
    let pid = starter
        .job(missing(), ends, Limits::default(), None)
        .unwrap();
    let status = waitpid(pid, None);
    assert_eq!(nix::errno::Errno::last_raw(), 12345);
    assert_eq!(status.unwrap(), WaitStatus::Exited(pid, 127));
}

/// Regression: a guard learned of a job from its starter, which might have died before it said so.
#[cfg(direct_calls)]
#[test]
fn a_leaders_number_is_where_it_is_wanted_however_it_is_started() {
    use std::sync::atomic::{AtomicI32, Ordering};
    let nothing = OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
    let ends = Ends {
        are_its_own: true,
        stdin: nothing.as_fd(),
        stdout: nothing.as_fd(),
        stderr: nothing.as_fd(),
    };
    let mut starter = Starter::default();
    for forks in [false, true] {
        if forks {
            starter.fork_next();
        }
        let number = AtomicI32::new(0);
        let pid = starter.job(missing(), ends, Limits::default(), Some(&number));
        let pid = pid.unwrap();
        assert_eq!(number.load(Ordering::Acquire), pid.as_raw());
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 127));
    }
}

#[test]
fn a_program_that_cannot_be_executed_says_so() {
    let mut starter = Starter::default();
    let missing = outcome(&mut starter, "/nowhere/at/all", &["all"]);
    assert_eq!(
        missing,
        ("cosserver: /nowhere/at/all: no such file\n".into(), 127)
    );
    let folder = outcome(&mut starter, "/usr", &["usr"]);
    assert_eq!(folder, ("cosserver: /usr: permission denied\n".into(), 126));
}

/// Without close_range(2) every descriptor is closed, by `/proc` or up to the limit, also with a
/// high number. Skipped where the limit does not allow such a number.
#[test]
fn high_numbers_are_closed_one_by_one_too() {
    closes_high_numbers(|first| {
        child::close_each(first);
        true
    });
    closes_high_numbers(child::close_listed);
}

fn closes_high_numbers(close: fn(i32) -> bool) {
    const HIGH: i32 = 70_000;
    let which = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = crate::sys::rlimits::get(which).unwrap();
    if hard <= 70_000 {
        return;
    }
    let Some(pid) = fork_quietly().unwrap() else {
        calls::limit(which, hard, hard);
        let there = calls::duplicate(2, HIGH).is_ok();
        let done = close(3);
        // SAFETY: asks for a flag of a number.
        let closed = unsafe { libc::fcntl(HIGH, libc::F_GETFD) } < 0;
        // SAFETY: as above.
        let stays = unsafe { libc::fcntl(2, libc::F_GETFD) } >= 0;
        calls::exit(i32::from(!there || !closed || !done || !stays))
    };
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
}

/// Anything but 0 would open the memory that a child of another user shares.
#[cfg(direct_calls)]
#[test]
fn memory_is_shared_only_where_it_stays_closed() {
    assert!(start::keeps_closed(Some(b"0\n")));
    for other in [&b"1\n"[..], b"2\n", b"", b"00\n"] {
        assert!(!start::keeps_closed(Some(other)));
    }
    assert!(!start::keeps_closed(None));
}

/// What is lent to a child comes back when it has executed its program: after a thousand in a row
/// nothing is lent.
#[cfg(direct_calls)]
#[test]
fn memory_lent_to_a_child_returns_after_exec() {
    let mut starter = Starter::default();
    for _ in 0..1000 {
        assert_eq!(outcome(&mut starter, "/bin/true", &["true"]).1, 0);
        // It has ended, so the kernel has cleared its word.
        assert_eq!(starter.beginning(), 0);
    }
}

/// A child of this process that has not executed its program, and continues only when its error
/// message is read: that the program is missing.
#[cfg(direct_calls)]
struct Stuck {
    starter: Starter,
    pid: Pid,
    complaints: File,
}

#[cfg(direct_calls)]
impl Stuck {
    fn start(user: Option<Identity>) -> Self {
        use nix::fcntl::{FcntlArg, fcntl};
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut filler = File::from(write);
        while filler.write(&[b'x'; 4096]).is_ok() {}
        fcntl(&filler, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let ends = Ends {
            are_its_own: true,
            stdin: filler.as_fd(),
            stdout: filler.as_fd(),
            stderr: filler.as_fd(),
        };
        let mut starter = Starter::default();
        let program = Program { user, ..missing() };
        let pid = starter.job(program, ends, Limits::default(), None).unwrap();
        assert_eq!(starter.beginning(), 1);
        Self {
            starter,
            pid,
            complaints: File::from(read),
        }
    }

    fn let_go(mut self) {
        let mut said = Vec::new();
        self.complaints.read_to_end(&mut said).unwrap();
        let complaints = b"xcosserver: home folder /not/there/either: no such file; \
            the command runs in /\ncosserver: /nowhere: no such file\n";
        assert!(said.ends_with(complaints));
        let ended = waitpid(self.pid, None).unwrap();
        assert_eq!(ended, WaitStatus::Exited(self.pid, 127));
        assert_eq!(self.starter.beginning(), 0);
    }
}

/// A child that cannot continue to its program delays no other process: with vfork this process
/// would wait for it.
#[cfg(direct_calls)]
#[test]
fn stuck_child_does_not_delay_other_jobs() {
    let mut stuck = Stuck::start(None);
    assert_eq!(outcome(&mut stuck.starter, "/bin/true", &["true"]).1, 0);
    assert_eq!(stuck.starter.beginning(), 1);
    stuck.let_go();
}

/// The user that the child has become may stop and end it, and nothing else: the memory that it
/// shares with this process is closed to that user.
#[cfg(direct_calls)]
#[test]
fn the_memory_that_a_child_shares_is_closed_to_its_user() {
    use nix::sys::signal::{Signal, kill};
    use std::os::unix::process::CommandExt;
    const OTHER_UID: u32 = 54_321;
    if !nix::unistd::geteuid().is_root() {
        return say_skipped();
    }
    let stuck = Stuck::start(Some(identity(OTHER_UID)));
    let pid = stuck.pid;
    let status = format!("/proc/{pid}/status");
    let has = |what: &str| std::fs::read_to_string(&status).unwrap().contains(what);
    while !has(&format!("Uid:\t{OTHER_UID}")) {
        std::thread::yield_now();
    }
    let as_other_user = |script: &str| {
        let mut sh = std::process::Command::new("/bin/sh");
        sh.args(["-c", script]).uid(OTHER_UID).gid(OTHER_UID);
        sh.output().unwrap().status.success()
    };
    for file in ["mem", "maps", "environ", "fd/0", "auxv"] {
        let read = format!("head -c1 /proc/{pid}/{file}");
        assert!(!as_other_user(&read), "{file}");
    }
    assert!(as_other_user("head -c1 /proc/$$/maps"));
    assert!(as_other_user(&format!("kill -STOP {pid}")));
    while !has("State:\tT") {
        std::thread::yield_now();
    }
    assert_eq!(
        outcome(&mut Starter::default(), "/bin/true", &["true"]).1,
        0
    );
    kill(pid, Signal::SIGCONT).unwrap();
    stuck.let_go();
}

/// With `fs.suid_dumpable` = 1 a change of user opens the memory to that user until the child
/// closes it. The memory must be closed to the user in that moment too. The child is a fork here,
/// stopped in the middle of the change.
#[cfg(direct_calls)]
#[test]
fn memory_stays_closed_during_a_change_of_user() {
    use std::os::unix::process::CommandExt;
    const OTHER_UID: u32 = 54_322;
    if !nix::unistd::geteuid().is_root() {
        return say_skipped();
    }
    let (receiver, tell) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let (wait, go) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let Some(pid) = fork_quietly().unwrap() else {
        // If this test fails, the child reads end of file.
        calls::close(go.as_raw_fd());
        let user = identity(OTHER_UID);
        let groups = calls::groups(&user.groups).and_then(|()| calls::group(user.gid));
        let changed = groups.and_then(|()| calls::become_user(user.uid));
        // As the kernel would do here.
        calls::process_option(libc::PR_SET_DUMPABLE, 1);
        calls::write(tell.as_raw_fd(), &[u8::from(changed.is_ok())]);
        let _ = nix::unistd::read(&wait, &mut [0]);
        calls::exit(i32::from(calls::user(user.uid).is_err()))
    };
    let mut changed = [0];
    File::from(receiver).read_exact(&mut changed).unwrap();
    assert_eq!(changed, [1]);
    let as_other_user = |script: &str| {
        let mut sh = std::process::Command::new("/bin/sh");
        sh.args(["-c", script]).uid(OTHER_UID).gid(OTHER_UID);
        sh.output().unwrap().status.success()
    };
    assert!(as_other_user("head -c1 /proc/$$/maps"));
    for file in ["maps", "environ", "auxv"] {
        let read = format!("head -c1 /proc/{pid}/{file}");
        assert!(!as_other_user(&read), "{file}");
    }
    File::from(go).write_all(&[1]).unwrap();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
}

#[cfg(direct_calls)]
#[allow(clippy::print_stderr, reason = "who runs the tests is to know")]
fn say_skipped() {
    eprintln!("skipped: it needs root: sudo make test");
}

#[cfg(direct_calls)]
fn identity(number: u32) -> Identity {
    let number = IdNumber::new(number).unwrap();
    Identity {
        uid: number,
        gid: number,
        groups: vec![number],
    }
}

/// A change of user that changes nothing leaves the job as root, and reports success.
#[test]
fn failed_change_of_user_is_detected() {
    let own = |number: u32| IdNumber::new(number).unwrap();
    let uid = own(nix::unistd::getuid().as_raw());
    let gid = own(nix::unistd::getgid().as_raw());
    assert!(calls::is_user(uid, gid));
    assert!(!calls::is_user(own(54_321), gid));
    assert!(!calls::is_user(uid, own(54_321)));
}
