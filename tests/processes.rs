//! Deaths and shortages: gate, relay and monitor killed at any time; too few descriptors, too few
//! processes. What can continue continues, and nothing leaks.

use crate::daemon;
use crate::program;

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::Command as Start;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cosserver::protocol::request::Command;
use cosserver::protocol::stream::{End, Message, Stream};
use daemon::hostile::{Caller, RawConnection, timed};
use daemon::missing::{ALLOW, FIRST_ARGUMENT, answer, errno, filtered, load, unless};
use daemon::session::{Patient, lives};
use daemon::{Daemon, hangs_up, until};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Waits until there is no child but gate and relay, and none of them is a zombie.
fn settled(d: &Daemon) {
    until("gate and relay alone are left", || {
        let children = daemon::children(d.pid());
        daemon::without_doors(d.pid()) == 2 && children.iter().all(|c| lives(*c))
    });
}

/// Returns how many descriptors the monitor has open without connections.
fn monitor_at_rest(d: &Daemon) -> usize {
    d.gate_at_rest();
    daemon::descriptors_at_rest(d.pid())
}

/// Settled, and the monitor has as many descriptors as at first.
fn settled_at(d: &Daemon, at_rest: usize) {
    settled(d);
    until("the monitor's descriptors are what they were", || {
        daemon::descriptors(d.pid()) == at_rest
    });
}

#[test]
fn a_gate_killed_under_load_is_replaced_and_no_session_notices() {
    let d = Daemon::start();
    let at_rest = monitor_at_rest(&d);
    let caller = Caller::of(&d);
    let mut session = caller.accepted(d.port, "cat");
    session.send(&Message::Data(Stream::Main, b"before\n"));
    session.until(b"before\n");
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let out = daemon::run(&mut d.cos(&["echo served"]));
                    // A client that was in the gate when it died gets an error; none hangs.
                    assert!(matches!(out.status.code(), Some(0 | 255)), "{out:?}");
                    if out.stdout == b"served\n" {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        until("there is load", || served.load(Ordering::Relaxed) > 5);
        let lines = d.log.all().len();
        kill_9(d.process("gate"));
        let start = Instant::now();
        d.log
            .wait_from(lines, |l| l.starts_with("started process=gate"));
        d.log.wait_from(lines, |l| l.starts_with("end session="));
        let took = start.elapsed();
        let before = served.load(Ordering::Relaxed);
        until("they are served again", || {
            served.load(Ordering::Relaxed) > before + 3
        });
        stop.store(true, Ordering::Relaxed);
        assert!(
            took < Duration::from_secs(1),
            "a new one served after {took:?}"
        );
    });
    session.send(&Message::Data(Stream::Main, b"after\n"));
    session.until(b"after\n");
    session.send(&Message::Eof(Stream::Main));
    assert_eq!(session.finish().1, Some(End::Exited(0)));
    settled_at(&d, at_rest);
}

#[test]
fn killed_relay_ends_its_jobs_and_is_replaced() {
    let d = Daemon::start();
    let at_rest = monitor_at_rest(&d);
    let caller = Caller::of(&d);
    let marker = d.folder.path("hung-up");
    let mut session = caller.accepted(d.port, &hangs_up(&marker));
    session.until(b"ready\n");
    let lines = d.log.all().len();
    kill_9(d.process("relay"));
    assert_eq!(session.finish().1, None, "cut, not ended");
    d.log
        .wait_from(lines, |l| l.starts_with("started process=relay"));
    until("the job is hung up", || marker.exists());
    let (_, line) = d.log.wait_from(lines, |l| l.starts_with("end session=0"));
    assert!(line.contains("how=cut"), "{line}");
    assert_eq!(d.says(0, &["echo", "again"]), b"again\n");
    settled_at(&d, at_rest);
}

/// Between a relay's death and the start of the next one no command is started without a relay.
#[test]
fn without_a_relay_no_command_begins() {
    let d = Daemon::start_as("daemon.refusal-interval = 1\n", "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("begun");
    let at_rest = monitor_at_rest(&d);
    // Each death doubles the pause before the next start.
    for _ in 0..4 {
        let lines = d.log.all().len();
        kill_9(d.process("relay"));
        d.log
            .wait_from(lines, |l| l.starts_with("started process=relay"));
    }
    let lines = d.log.all().len();
    kill_9(d.process("relay"));
    d.log.wait_from(lines, |l| l == "lost process=relay");
    let mut s = caller.ask(d.port, &format!("touch {}", marker.display()));
    let reference = s.denied();
    let line = d.log.wait(&reference);
    assert!(
        line.contains("cause=busy") && line.contains("relay"),
        "{line}"
    );
    assert!(!marker.exists());
    d.log
        .wait_from(lines, |l| l.starts_with("started process=relay"));
    d.says(0, &["true"]);
    settled_at(&d, at_rest);
}

#[test]
fn killed_monitor_ends_gate_relay_and_jobs() {
    let mut d = Daemon::start();
    let caller = Caller::of(&d);
    let marker = d.folder.path("hung-up");
    let mut session = caller.accepted(d.port, &hangs_up(&marker));
    session.until(b"ready\n");
    let mut waiting = RawConnection::connect(d.port);
    waiting.greet();
    let all = daemon::children(d.pid());
    assert_eq!(daemon::without_doors(d.pid()), 3);
    kill_9(d.pid());
    d.child.wait().unwrap();
    until("gate, relay and job end", || all.iter().all(|c| !lives(*c)));
    until("the job is hung up", || marker.exists());
    assert_eq!(session.finish().1, None);
    waiting.closed();
}

#[test]
fn repeated_deaths_are_met_with_longer_pauses_and_leave_no_zombie() {
    let d = Daemon::start();
    let at_rest = monitor_at_rest(&d);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let lines = d.log.all().len();
        kill_9(d.process("gate"));
        let ((), took) = timed(|| {
            d.log
                .wait_from(lines, |l| l.starts_with("started process=gate"));
        });
        pauses.push(took);
    }
    // One of the first two: a busy machine may delay one.
    let short = pauses[..2].iter().min();
    assert!(short < Some(&Duration::from_millis(700)), "{pauses:?}");
    assert!(pauses[4] > Duration::from_millis(800), "{pauses:?}");
    settled_at(&d, at_rest);
    // Connections made in the meantime waited in the kernel.
    kill_9(d.process("gate"));
    d.says(0, &["true"]);
    settled_at(&d, at_rest);
}

/// A log that is not read does not stop the daemon, which reports afterwards how many lines are
/// lost.
#[test]
fn a_full_pipe_behind_stderr_stops_nothing() {
    let folder = daemon::configured("daemon.refusal-interval = 1\n", "");
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    // The size that the kernel gives to a user with many pipes: it is full soon.
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(8192)).unwrap();
    let child = daemon::cosserver()
        .args(["-D", "-e", "-p", "0", "-f"])
        .arg(folder.path("S/cosserver.toml"))
        .stderr(write.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut d = Daemon {
        folder,
        log: daemon::Lines::default(),
        port: 0,
        child,
    };
    let mut read = Patient(fs::File::from(read));
    let mut receive = || {
        let mut bytes = vec![0; 1 << 16];
        let n = read.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    let port = |log: &str| {
        let (_, rest) = log.split_once("listening on 127.0.0.1:")?;
        rest.split_once('\n')?.0.parse().ok()
    };
    let mut log = String::new();
    while port(&log).is_none() {
        log += &receive();
    }
    d.port = port(&log).unwrap();
    // Checks, as a writer would, whether there is room for a line.
    let is_full = || {
        let mut fds = [PollFd::new(write.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 0
    };
    // Two lines a command, each with its first 200 bytes.
    let long = format!("true {}", "x".repeat(400));
    until("the pipe is full", || {
        d.says(0, &[&long]);
        is_full()
    });
    for _ in 0..20 {
        d.says(0, &[&long]);
    }
    assert!(is_full(), "somebody has read it");
    // When read at last, the log continues, with the number of lines that were dropped.
    // (The last session's end may be logged while it is read.)
    let before = receive();
    d.says(0, &["true"]);
    let all = before + &receive();
    let mut lost = all.lines().filter_map(|l| l.strip_prefix("dropped lines="));
    let first = lost.next().unwrap_or_else(|| panic!("{all}"));
    assert!(first.parse::<u32>().unwrap() > 30, "{all}");
    // When full again, the daemon ends normally.
    until("the pipe is full again", || {
        d.says(0, &[&long]);
        is_full()
    });
    d.signal(Signal::SIGTERM);
    assert!(daemon::session::wait(&mut d.child).success());
}

/// Few descriptors and many connections: the daemon survives, serves as many clients as it can, and
/// has all descriptors back afterwards.
#[test]
fn too_few_descriptors_cost_no_process() {
    let settings = "limits.hello = 2\ndaemon.refusal-interval = 1\nexec.hup-to-kill = 1\n";
    let folder = daemon::configured(settings, "");
    let mut command = Start::new("prlimit");
    command.args(["--nofile=40:40", daemon::COSSERVER]);
    let d = Daemon::start_by(command, folder, &[]);
    let caller = Caller::of(&d);
    let (gate, relay) = (d.process("gate"), d.process("relay"));
    d.gate_at_rest();
    let open = [gate, relay, d.pid()].map(daemon::descriptors);
    let mut silent: Vec<RawConnection> = (0..100).map(|_| RawConnection::connect(d.port)).collect();
    // An unauthenticated client that greets when the gate has no descriptor left to hand over.
    let mut asks: Vec<RawConnection> = (0..10).map(|_| RawConnection::connect(d.port)).collect();
    for s in &mut asks {
        s.send(&daemon::hostile::hello());
    }
    // Connections that were evicted, or were late, are closed.
    silent.iter_mut().for_each(|s| s.closed());
    for s in &mut asks {
        s.rest();
    }
    assert_eq!(d.says(0, &["echo", "served"]), b"served\n");
    // This few descriptors are enough for one session, whose slot is free when its end is logged.
    d.log.wait("end session=");
    // More sessions than the relay has descriptors for: some are cut or denied, the running ones
    // continue.
    let mut first = caller.accepted(d.port, "cat");
    first.send(&Message::Data(Stream::Main, b"first\n"));
    first.until(b"first\n");
    let mut others: Vec<RawConnection> = (0..12).map(|_| caller.ask(d.port, "cat")).collect();
    for s in &mut others {
        // Each gets an answer or is closed.
        s.record();
    }
    first.send(&Message::Data(Stream::Main, b"still\n"));
    first.until(b"still\n");
    drop(others);
    first.send(&Message::Eof(Stream::Main));
    assert_eq!(first.finish().1, Some(End::Exited(0)));
    drop(first);
    drop((silent, asks));
    assert_eq!((d.process("gate"), d.process("relay")), (gate, relay));
    until("descriptors are back", || {
        [gate, relay, d.pid()].map(daemon::descriptors) <= open
    });
    assert_eq!(d.says(0, &["echo", "again"]), b"again\n");
}

/// Prepares an ordinary user's daemon, with its own directories.
fn ordinary() -> Option<(daemon::Folder, Start)> {
    if !daemon::is_root() {
        return None;
    }
    // The user's shell may be nologin, so only programs are allowed.
    let programs = "commands=\"/usr/bin/id -u\" commands=/bin/true";
    let folder = daemon::configured("daemon.refusal-interval = 1\n", programs);
    let hostinfo = folder.path("S/hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    fs::write(&hostinfo, text.replace("run-as=root", "run-as=nobody")).unwrap();
    let chown = ["-R", "65534:65534"];
    daemon::must(Start::new("chown").args(chown).arg(folder.path("S")));
    // In a directory of the test, which the user may enter.
    let copy = folder.path("cosserver");
    program::copy(daemon::COSSERVER, &copy);
    let mut command = Start::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    Some((folder, command))
}

/// As an ordinary user it serves only that user, in the same processes.
#[test]
fn ordinary_users_daemon_serves_only_that_user() {
    let Some((folder, mut command)) = ordinary() else {
        return;
    };
    command.arg(folder.path("cosserver"));
    let d = Daemon::start_by(command, folder, &[]);
    let mut caller = Caller::of(&d);
    let id = Command::Words(vec![b"/usr/bin/id".to_vec(), b"-u".to_vec()]);
    let root = caller.ask_for(d.port, id.clone()).denied();
    assert!(d.log.wait(&root).contains("cause=user"));
    caller.user = "nobody".into();
    let (output, end) = caller.accepted_for(d.port, id).finish();
    assert_eq!((output, end), (b"65534\n".to_vec(), Some(End::Exited(0))));
    for pid in [d.pid(), d.process("gate"), d.process("relay")] {
        assert_eq!(daemon::status(pid, "Uid"), "65534\t65534\t65534\t65534");
        // Not dumpable: only root can read its files in /proc.
        use std::os::unix::fs::MetadataExt;
        let about = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(about.uid(), 0, "others of this user can read its memory");
    }
    let line = d.log.wait("started process=gate");
    assert!(
        line.contains("chroot=false") && line.contains("seccomp=true"),
        "{line}"
    );
    assert_eq!(daemon::status(d.process("gate"), "Seccomp"), "2");
}

/// If a process cannot be created: denied with the cause, and served again afterwards.
#[test]
fn too_few_processes_are_a_refusal_and_no_death() {
    let Some((folder, mut command)) = ordinary() else {
        return;
    };
    command.arg(folder.path("cosserver"));
    let d = Daemon::start_by(command, folder, &[]);
    let mut caller = Caller::of(&d);
    caller.user = "nobody".into();
    let program = Command::Words(vec![b"/bin/true".to_vec()]);
    caller.accepted_for(d.port, program.clone()).finish();
    let limit = |n: &str| {
        let mut command = Start::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["prlimit", "--pid", &d.pid().to_string()]);
        daemon::must(command.arg(format!("--nproc={n}")));
    };
    limit("1:1000");
    let reference = caller.ask_for(d.port, program.clone()).denied();
    let line = d.log.wait(&reference);
    // The job's process could not be started; or, while the first command's registration is still
    // being written, the registry worker.
    assert!(
        line.contains("cause=system") || line.contains("cause=registry"),
        "{line}"
    );
    let why = ["EAGAIN", "(os error 11)"];
    assert!(why.iter().any(|w| line.contains(w)), "{line}");
    limit("1000:1000");
    let (_, end) = caller.accepted_for(d.port, program).finish();
    assert_eq!(end, Some(End::Exited(0)));
    settled(&d);
}

/// A slow look-up keeps none of the daemon's resources: not the port, not the channels.
#[test]
fn a_slow_look_up_does_not_outlive_the_monitor() {
    let folder = daemon::configured("", "");
    // A name that gets no answer, if there is no name server to reject it.
    let hostinfo = folder.path("S/hostinfo");
    daemon::append(&hostinfo, "slow.invalid cos run-as=root\n");
    let mut d = Daemon::start_in(folder, &[]);
    let all = daemon::children(d.pid());
    for pid in &all {
        if fs::read(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .starts_with(b"cosserver: ")
        {
            continue;
        }
        // The look-up process, if it still exists: its pipe and the standard descriptors.
        assert!(
            daemon::descriptors(*pid) <= 6,
            "{}",
            daemon::descriptors(*pid)
        );
    }
    d.says(0, &["true"]);
    kill_9(d.pid());
    d.child.wait().unwrap();
    until("all have ended", || all.iter().all(|c| !lives(*c)));
    std::net::TcpListener::bind(("127.0.0.1", d.port)).unwrap();
}

/// Many requests at once, the first for this daemon: one look-up of the account serves them all,
/// one machine key is recorded, and none is denied.
#[test]
fn many_first_requests_at_once_are_all_served() {
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let ready = std::sync::Barrier::new(40);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let mut s = RawConnection::connect(d.port);
                let greeting = s.greet();
                let (hello, noise) = caller.client_hello(&greeting, &caller.request("echo x"));
                ready.wait();
                s.send(&hello);
                assert_eq!(s.session(noise).finish().0, b"x\n");
            });
        }
    });
    d.log.said_times("machine-recorded", 1);
    assert_eq!(d.log.count("denied"), 0);
    settled(&d);
}

/// An authenticated client that never stops signalling its job does not delay other clients.
#[test]
fn a_flood_of_signals_does_not_stop_the_monitor() {
    use cosserver::protocol::stream::Signal as Wish;
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let mut session = caller.accepted(d.port, "trap '' INT; echo ready; cat");
    session.until(b"ready\n");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                session.send(&Message::Signal(Wish::Interrupt));
            }
        });
        for _ in 0..10 {
            assert_eq!(d.says(0, &["echo served"]), b"served\n");
        }
        stop.store(true, Ordering::Relaxed);
    });
    session.send(&Message::Eof(Stream::Main));
    assert_eq!(session.finish().1, Some(End::Exited(0)));
}

/// Starts a standalone daemon, or inetd's.
fn either(inetd: bool, command: Option<Start>) -> Daemon {
    let folder = daemon::prepare("[exec]\nhup-to-kill = 1\n", "");
    let program = match (inetd, command) {
        (true, Some(mut command)) => {
            let server = daemon::inetd::superserver();
            command.arg(server.get_program()).args(server.get_args());
            command
        }
        (true, None) => daemon::inetd::superserver(),
        (false, Some(mut command)) => {
            command.arg(daemon::COSSERVER);
            command
        }
        (false, None) => Start::new(daemon::COSSERVER),
    };
    Daemon::start_by(program, folder, &[])
}

/// Returns the monitor of the only session.
fn monitor(d: &Daemon, inetd: bool) -> i32 {
    if inetd {
        daemon::children(d.pid())[0]
    } else {
        d.pid()
    }
}

/// Returns whether a daemon of this directory has its guard, which is not the monitor's child.
/// Under inetd the standby guard does not count.
fn is_guarded(d: &Daemon, monitor: i32) -> bool {
    let folder = d.folder.0.display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.into_iter().any(|entry| {
        let of = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let is_child = of("status").contains(&format!("\nPPid:\t{monitor}\n"));
        of("comm") == "cos: guard\n" && of("cmdline").contains(&folder) && !is_child
    })
}

/// The kernel signals only the leader of a job when its parent dies. Of the leader's children one
/// ends on a hang-up, and one must be killed.
#[test]
fn killed_monitor_ends_every_process_of_a_job() {
    for inetd in [false, true] {
        let mut d = either(inetd, None);
        let script = "sleep 1000 & echo $!; (trap '' HUP; exec sleep 1000) & echo $!; echo $$; \
                      read x; echo end; wait";
        let mut session = d.session(&[script]);
        session.say("all run");
        session.out.wait("end");
        let lines = session.out.all();
        let all: Vec<i32> = lines[..3].iter().map(|n| n.parse().unwrap()).collect();
        assert!(all.iter().all(|pid| lives(*pid)));
        // Under inetd the guard starts when the job has run for a moment.
        let monitor = monitor(&d, inetd);
        until("the job is guarded", || is_guarded(&d, monitor));
        kill_9(monitor);
        if !inetd {
            d.child.wait().unwrap();
        }
        until("every process of the job ends", || {
            all.iter().all(|pid| !lives(*pid))
        });
    }
}

/// Regression: under inetd there was no guard in a job's first 10 ms, and no guard anywhere knew of
/// the job until the monitor had recorded it.
#[test]
fn killed_monitor_ends_every_process_of_a_job_that_just_started() {
    let without_standby = vec![
        load(0),
        unless(u32::try_from(libc::SYS_clone).unwrap(), 3),
        load(FIRST_ARGUMENT),
        unless(u32::try_from(libc::CLONE_VM).unwrap(), 1),
        answer(errno(libc::EPERM)),
        answer(ALLOW),
    ];
    for (inetd, filter) in [(false, None), (true, None), (true, Some(without_standby))] {
        // The monitor had its guard before the job.
        let has_guard = !inetd || filter.is_some();
        let d = match filter {
            Some(filter) => {
                let command = filtered(daemon::inetd::superserver(), filter);
                Daemon::start_by(
                    command,
                    daemon::prepare("[exec]\nhup-to-kill = 1\n", ""),
                    &[],
                )
            }
            None => either(inetd, None),
        };
        let written = d.folder.0.join("written");
        // The monitor does nothing more, whatever it was about to do.
        let script = format!(
            "kill -STOP $PPID; (sleep 1000 & one=$!; (trap '' HUP; exec sleep 1000) & \
             echo $PPID $$ $one $!) >{0}.part; mv {0}.part {0}; sleep 1000",
            written.display()
        );
        let _session = d.session(&[&script]);
        until("the job has started others", || written.exists());
        let all = fs::read_to_string(&written).unwrap();
        let all: Vec<i32> = all.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let (monitor, job) = all.split_first().unwrap();
        assert_eq!(job.len(), 3, "{job:?}");
        assert!(job.iter().all(|pid| lives(*pid)));
        assert!(is_guarded(&d, *monitor) || !has_guard);
        kill_9(*monitor);
        until("every process of the job ends", || {
            job.iter().all(|pid| !lives(*pid))
        });
    }
}

/// A shell with job control starts each command in its own process group. Regression: the guard
/// ended only the job's first group.
#[test]
fn killed_monitor_ends_every_process_group_of_a_job() {
    let mut d = either(false, None);
    let script = "set -m; sleep 1000 & echo $!; (trap '' HUP; exec sleep 1000) & echo $!; \
                  read x; echo end; wait";
    let mut session = d.session(&[script]);
    session.say("all run");
    session.out.wait("end");
    let lines = session.out.all();
    let all: Vec<i32> = lines[..2].iter().map(|n| n.parse().unwrap()).collect();
    for pid in &all {
        let group = nix::unistd::getpgid(Some(Pid::from_raw(*pid))).unwrap();
        assert_eq!(group.as_raw(), *pid, "a group of its own");
    }
    kill_9(d.pid());
    d.child.wait().unwrap();
    until("every process of the job ends", || {
        all.iter().all(|pid| !lives(*pid))
    });
}

/// Returns a process's OOM score adjustment.
fn oom(pid: i32) -> i32 {
    let value = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    value.trim().parse().unwrap()
}

/// The monitor's value is the lowest, and a job's is the one that the daemon was started with,
/// however soon it starts after the job before.
#[test]
fn jobs_go_before_the_monitor_when_memory_runs_out() {
    if !daemon::needs_root() {
        return;
    }
    let script = "echo $1 >/proc/self/oom_score_adj && shift && exec \"$@\"";
    let with = |value: &str, program: &[&str]| {
        let mut command = Start::new("/bin/sh");
        command.args(["-c", script, "sh", value]).args(program);
        command
    };
    // Without CAP_SYS_RESOURCE a raised value may be reset, and nothing more.
    let may = daemon::run(&mut with("-1000", &["true"])).status.success();
    let (lowest, relays) = if may { (-1000, -500) } else { (0, 8) };
    for inetd in [false, true] {
        let d = either(inetd, Some(with("17", &[])));
        for _ in 0..3 {
            let mut session = d.session(&["cat /proc/self/oom_score_adj; echo $$; read x"]);
            session.out.wait_from(1, |_| true);
            let lines = session.out.all();
            assert_eq!(lines[0], "17", "inetd {inetd}");
            let monitor = monitor(&d, inetd);
            until("the monitor is protected", || oom(monitor) == lowest);
            assert_eq!(oom(lines[1].parse().unwrap()), 17, "inetd {inetd}");
            if !inetd {
                assert_eq!(
                    (oom(d.process("gate")), oom(d.process("relay"))),
                    (17, relays)
                );
            }
            session.say("end");
            assert_eq!(session.finish().status, Some(0));
        }
        // They follow each other faster than the value is lowered again.
        for n in 0..20 {
            let says = d.says(0, &["cat /proc/self/oom_score_adj"]);
            assert_eq!(says, b"17\n", "inetd {inetd}, {n}");
        }
    }
}

/// A control group with this memory limit, for one test; removed with the value.
struct MemoryGroup(std::path::PathBuf);

impl MemoryGroup {
    /// `None`: none can be created here.
    fn new(limit: u64) -> Option<Self> {
        let name = format!("cos-test-{}", std::process::id());
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
        let files = ["memory.limit_in_bytes", "memory.max"];
        for (root, file) in roots.into_iter().zip(files) {
            let folder = std::path::Path::new(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self(folder);
            let limit = limit.to_string();
            if group.0.join(file).exists() && fs::write(group.0.join(file), limit).is_ok() {
                return Some(group);
            }
        }
        daemon::report_skipped("no memory groups");
        None
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        until("the group is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

/// Regression: in a burst of commands the monitor had its original value all the time, and the
/// kernel killed it first: memory runs out when a command starts.
#[test]
fn where_memory_is_short_the_monitor_stays_protected_while_jobs_start() {
    if !daemon::needs_root() {
        return;
    }
    let Some(group) = MemoryGroup::new(60 << 20) else {
        return;
    };
    let script = "echo 500 >/proc/self/oom_score_adj && echo $$ >$1/cgroup.procs && shift && \
                  exec \"$@\"";
    let mut command = Start::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(&group.0);
    let d = either(false, Some(command));
    d.says(0, &["true"]);
    let lowest = oom(d.pid());
    assert!(lowest < 500);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                assert_eq!(oom(d.pid()), lowest);
            }
        });
        for _ in 0..20 {
            let says = d.says(0, &["cat /proc/self/oom_score_adj"]);
            assert_eq!(says, b"500\n");
        }
        over.store(true, Ordering::Release);
        looking.join().unwrap();
    });
    drop(d);
}

/// A limit of open files that root may not raise.
const FEW: &str = "ulimit -n 400 && exec setpriv --bounding-set=-sys_resource \"$@\"";

#[test]
fn sessions_that_there_are_no_open_files_for_are_refused_before_they_start() {
    if !daemon::needs_root() {
        return;
    }
    let mut command = Start::new("/bin/sh");
    command.args(["-c", FEW, "sh", daemon::COSSERVER]);
    let folder = daemon::prepare("[daemon]\nrefusal-interval = 1\n", "");
    let d = Daemon::start_by(command, folder, &[]);
    d.log
        .wait("limits.sessions is 4096, but the limit of open files allows 16");
    let all: Vec<_> = (0..24).map(|_| d.session(&["echo runs; read x"])).collect();
    let mut ran = 0;
    let refused = "too many sessions for the limit of open files";
    until("each runs or is refused", || {
        d.log.count("exec session=") + d.log.count(refused) >= 24
    });
    for mut session in all {
        let mut stdin = session.stdin.take().unwrap();
        let _ = std::io::Write::write_all(&mut stdin, b"end\n");
        let ended = session.finish();
        match ended.status {
            Some(0) => ran += usize::from(ended.out == ["runs"]),
            status => assert_eq!(status, Some(255), "{ended:?}"),
        }
    }
    assert_eq!(
        (ran, d.log.count("exec session=")),
        (16, 16),
        "{}",
        d.log_text()
    );
    assert_eq!(d.log.count("how=cut"), 0);
}

#[test]
fn a_low_limit_of_open_files_is_raised_and_a_job_has_it_back() {
    if !daemon::needs_root() {
        return;
    }
    let mut command = Start::new("/bin/sh");
    command.args([
        "-c",
        "ulimit -n 400 && exec \"$@\"",
        "sh",
        daemon::COSSERVER,
    ]);
    let d = Daemon::start_by(command, daemon::prepare("", ""), &[]);
    let says = d.says(0, &["ulimit -Sn; ulimit -Hn"]);
    assert_eq!(says, b"400\n400\n");
    if d.log.count("the limit of open files allows") > 0 {
        return daemon::report_skipped("this root may not raise its limit of open files");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", d.process("relay"))).unwrap();
    let line = limits
        .lines()
        .find(|l| l.starts_with("Max open files"))
        .unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(soft, 5 * 4096 + 320);
}
