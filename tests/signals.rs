//! Signals in both directions, and a client that is gone: against the real daemon.

use crate::daemon;

use std::fs::File;
use std::io::Read;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use cosserver::sys::pidfd;
use daemon::hostile::{RawConnection, hello};
use daemon::session::{self, Fifo, Patient, Session, ends, lives, state};
use daemon::{Daemon, run, until};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A job whose client is gone is killed one second after its hang-up.
const KILL_SOON: &str = "[exec]\nhup-to-kill = 1\n";

/// Signals that end no process by default.
const HARMLESS: [i32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];

#[test]
fn every_signal_as_the_cause_of_death() {
    let d = Daemon::start();
    let next = AtomicI32::new(1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n > 64 {
                        return;
                    }
                    // 32 and 33 are the C library's own, and no shell sends them.
                    if HARMLESS.contains(&n) || n == 32 || n == 33 {
                        continue;
                    }
                    let mut job =
                        d.session(&["exec", "sh", "-c", "'ulimit -c 0; echo $$; read x'"]);
                    let pid: i32 = job.out.wait("").parse().unwrap();
                    must_kill(pid, n);
                    job.stdin.take();
                    let ended = job.finish();
                    assert_eq!(ended.status, Some(128 + n), "{}", d.log_text());
                    let line = d.log.wait(&format!("status=signal-{n} "));
                    assert!(line.contains("how=done"), "{line}");
                }
            });
        }
    });
}

/// Sends a signal by kill(1), which knows the real-time signals too.
fn must_kill(pid: i32, n: i32) {
    daemon::must(Command::new("kill").args([&format!("-{n}"), &pid.to_string()]));
}

#[test]
fn the_clients_signals_reach_the_whole_remote_group() {
    let d = Daemon::start();
    let d = &d;
    std::thread::scope(|scope| {
        for (signal, name) in [
            (Signal::SIGINT, "INT"),
            (Signal::SIGTERM, "TERM"),
            (Signal::SIGHUP, "HUP"),
            (Signal::SIGQUIT, "QUIT"),
        ] {
            scope.spawn(move || {
                // A shell that waits for another one in the foreground: both receive it.
                let child = daemon::at_signal(name, "echo child; exit 3");
                let script = format!("trap 'echo parent' {name}; ({child}); exit 7");
                let job = d.session(&[&script]);
                job.out.wait("ready");
                job.signal(signal);
                let ended = job.finish();
                assert_eq!(
                    ended.out,
                    ["ready", "child", "parent"],
                    "{name} {:?}",
                    ended.err
                );
                assert_eq!(ended.status, Some(7), "{name}");

                // By default the signal ends the command, and the client is told.
                let job = d.session(&["exec sh -c 'ulimit -c 0; echo ready; read x'"]);
                job.out.wait("ready");
                job.signal(signal);
                assert_eq!(job.finish().status, Some(128 + signal as i32), "{name}");
            });
        }
    });
}

#[test]
fn a_signal_that_the_client_ignores_stays_ignored() {
    let d = Daemon::start();
    let cos = d.cos(&["echo ready; read x; echo $x"]);
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    nohup.arg(cos.get_program()).args(cos.get_args());
    let mut job = Session::spawn(&mut nohup);
    job.out.wait("ready");
    job.signal(Signal::SIGHUP);
    job.say("still there");
    let ended = job.finish();
    assert_eq!(ended.out, ["ready", "still there"]);
    assert_eq!(ended.status, Some(0));
}

#[test]
fn killed_client_ends_its_job() {
    let d = Daemon::start_with(KILL_SOON, "");
    let mut fifo = Fifo::new(d.folder.path("fifo"));
    let script = format!(
        "exec 9>{} 2>/dev/null; trap 'echo hup >&9; exit' HUP; echo $$; sleep 1000 & wait",
        fifo.name()
    );
    let job = d.session(&[&script]);
    let leader: i32 = job.out.wait("").parse().unwrap();
    job.signal(Signal::SIGKILL);
    assert_eq!(
        fifo.receive_all(),
        "hup\n",
        "the group is hung up, and it is gone"
    );
    assert!(ends(leader));
    let line = d.log.wait("end session=");
    assert!(line.contains("how=client-gone"), "{line}");
}

#[test]
fn a_job_that_ignores_the_hang_up_is_killed_and_what_escaped_lives_on() {
    let d = Daemon::start_with(KILL_SOON, "");
    let mut fifo = Fifo::new(d.folder.path("fifo"));
    let escape = "import os; os.setsid(); print(os.getpid(), flush=True); os.execlp(\"sleep\", \"sleep\", \"1000\")";
    let script = format!(
        "trap '' HUP; python3 -c '{escape}' & exec 9>{}; echo ready; sleep 1000 & sleep 1000; sleep 1000",
        fifo.name()
    );
    let job = d.session(&[&script]);
    job.out.wait("ready");
    let (_, escaped) = job.out.wait_from(0, |l| l.parse::<i32>().is_ok());
    let escaped: i32 = escaped.parse().unwrap();
    job.signal(Signal::SIGKILL);
    assert_eq!(fifo.receive_all(), "", "everything in the group is gone");
    let line = d.log.wait("end session=");
    let there = lives(escaped);
    kill(Pid::from_raw(escaped), Signal::SIGKILL).unwrap();
    assert!(there, "what left the group is not ours to kill");
    assert!(
        line.contains("how=client-gone") && line.contains("status=signal-9"),
        "{line}"
    );
    let ms = line.split("ms=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(
        ms.parse::<u64>().unwrap() >= 1000,
        "not before the grace: {line}"
    );
}

#[test]
fn a_job_has_its_whole_grace_to_end_by_itself() {
    // Longer than the test may take: the job must not be killed at all.
    let d = Daemon::start_with("[exec]\nhup-to-kill = 1000\n", "");
    let mut fifo = Fifo::new(d.folder.path("fifo"));
    let mut gate = session::Gate::new(d.folder.path("gate"));
    // Its child exists before the hang-up, and is waited for: otherwise it would count until the
    // system's first process has reaped it. It has executed a program by then: a process that a
    // shell has only just forked may still have the shell's handlers, which lose the hang-up.
    let script = format!(
        "exec 9>{} 2>/dev/null; trap 'echo hup >&9; read x <{}; wait; echo tidied >&9; exit 0' HUP; sh -c 'echo $PPID; exec sleep 1000' 9>&- & wait",
        fifo.name(),
        gate.name()
    );
    let job = d.session(&[&script]);
    let leader: i32 = job.out.wait("").parse().unwrap();
    job.signal(Signal::SIGKILL);
    assert_eq!(fifo.receive(), "hup\n");
    gate.open();
    assert_eq!(fifo.receive_all(), "tidied\n");
    if !groups_outlive_their_leaders() {
        // The daemon waits for the grace period in case the group has other processes.
        killpg(Pid::from_raw(leader), Signal::SIGKILL).unwrap();
        d.signal(Signal::SIGKILL);
        return;
    }
    let line = d.log.wait("end session=");
    assert!(line.contains("how=client-gone status=0"), "{line}");
}

/// Returns whether this system can signal a group without its leader (Linux 6.9).
fn groups_outlive_their_leaders() -> bool {
    let group = pidfd::open(nix::unistd::getpid()).unwrap();
    matches!(
        pidfd::signal_group(&group, None),
        Ok(()) | Err(Errno::ESRCH)
    )
}

/// A session whose client is gone keeps its slot while a process of its job is left, and no longer.
#[test]
fn the_last_of_a_job_frees_its_slot() {
    if !groups_outlive_their_leaders() {
        return;
    }
    let settings =
        "[exec]\nhup-to-kill = 1000\n[limits]\nsessions = 1\n[daemon]\nrefusal-interval = 1\n";
    let d = Daemon::start_with(settings, "");
    let mut gate = session::Gate::new(d.folder.path("gate"));
    // The leader ends on the hang-up; the process that it waits for does not.
    let stays = format!("trap \"\" HUP; echo stays; read x <{}", gate.name());
    let job = d.session(&[&format!("sh -c '{stays}' & echo $$; wait")]);
    let (_, leader) = job.out.wait_from(0, |l| l.parse::<i32>().is_ok());
    job.out.wait("stays");
    job.signal(Signal::SIGKILL);
    let leader: i32 = leader.parse().unwrap();
    until("the leader has ended", || !lives(leader));
    let refused = d.session(&["true"]).finish();
    assert_eq!(refused.status, Some(255), "{refused:?}");
    assert!(d.log.wait("denied ").contains("cause=busy"));
    assert_eq!(d.log.count("end session="), 0);
    gate.open();
    let line = d.log.wait("end session=0");
    assert!(
        line.contains("how=client-gone") && line.contains("status=signal-1"),
        "{line}"
    );
    assert_eq!(d.session(&["true"]).finish().status, Some(0));
}

#[test]
fn signal_arrives_although_the_output_is_unread() {
    let d = Daemon::start();
    let (read, write) = session::pipe();
    let command =
        d.cos(&["trap 'echo trapped >&2; exit 9' TERM; echo $$ >&2; yes; echo never >&2"]);
    let (mut client, err) = session::start_onto(command, write);
    let shell: i32 = err.wait("").parse().unwrap();
    // The flood has stopped: credit, pipes and buffers are full.
    let child = || daemon::children(shell).first().copied();
    until("the command writes", || child().is_some());
    let yes = child().unwrap();
    let mut before = (0, 0);
    let mut same = 0;
    until("the flood stands", || {
        let now = (written(yes), 1);
        same = if now == before && now.0 > (1 << 20) && state(yes) == Some('S') {
            same + 1
        } else {
            0
        };
        before = now;
        same > 20
    });
    kill(
        Pid::from_raw(i32::try_from(client.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    err.wait("trapped");
    assert!(ends(yes) && ends(shell), "both got it");
    // What was written before still arrives, and then the status.
    let mut all = Vec::new();
    Patient(File::from(read)).read_to_end(&mut all).unwrap();
    assert!(all.len() > (1 << 20) && all.iter().all(|b| b"y\n".contains(b)));
    assert_eq!(session::wait(&mut client).code(), Some(9));
    assert_eq!(err.count("never"), 0);
}

/// Returns the bytes that a process has written so far.
fn written(pid: i32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find(|l| l.starts_with("wchar:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_job_that_is_killed_while_its_output_waits_loses_none_of_it() {
    let d = Daemon::start_with("[exec]\nlinger = 0\n", "");
    let (read, write) = session::pipe();
    let command = d.cos(&["echo $$ >&2; seq 1 150000; kill -9 $$"]);
    let (mut client, err) = session::start_onto(command, write);
    let leader: i32 = err.wait("").parse().unwrap();
    assert!(ends(leader), "the job is dead before anybody reads");
    let mut all = Vec::new();
    Patient(File::from(read)).read_to_end(&mut all).unwrap();
    let expected = run(Command::new("seq").args(["1", "150000"])).stdout;
    assert!(all == expected, "{} of {} bytes", all.len(), expected.len());
    assert_eq!(session::wait(&mut client).code(), Some(137));
}

/// Regression: it died of SIGPIPE first, in 32 of 80 cases, because its pipes were closed before
/// the signal was sent.
#[test]
fn a_job_that_handles_a_hang_up_is_not_killed_by_sigpipe_first() {
    let d = Daemon::start();
    let d = &d;
    std::thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || {
                for round in 0..8 {
                    let file = d.folder.path(&format!("hung-{n}-{round}"));
                    // A shell that waits for room in the pipe runs no trap.
                    let job = format!(
                        "trap 'echo a; echo hung > {0}; exit' HUP; echo ready; while :; do echo y; done",
                        file.display()
                    );
                    let client = d.session(&[&job]);
                    client.out.wait("ready");
                    client.signal(Signal::SIGKILL);
                    until("the job handles the hang-up", || file.exists());
                }
            });
        }
    });
    // The same if the administrator hangs it up.
    let file = d.folder.path("killed");
    let job = format!(
        "trap 'echo a; echo hung > {}; exit' HUP; echo ready; while :; do echo y; done",
        file.display()
    );
    let client = d.session(&[&job]);
    client.out.wait("ready");
    // Four threads ran eight sessions each before.
    d.log.wait("exec session=32 ");
    daemon::must(
        Command::new(daemon::COSADM)
            .arg("-C")
            .arg(d.server())
            .args(["kill", "32"]),
    );
    until("the job handles the hang-up", || file.exists());
}

/// A command may take long to end, without output in between: the host answers for it.
#[test]
fn a_command_has_time_to_handle_a_signal() {
    let d = Daemon::start();
    let job = d.session(&[&daemon::at_signal("TERM", "sleep 7; exit 3")]);
    job.out.wait("ready");
    job.signal(Signal::SIGTERM);
    let ended = job.finish();
    assert_eq!((ended.status, ended.err.len()), (Some(3), 0), "{ended:?}");
}

/// Regression: a deadline that passed while the gate was stopped was checked before the received
/// data was read.
#[test]
fn data_received_while_the_gate_was_stopped_is_not_late() {
    let d = Daemon::start_with("[limits]\nhello = 3\n", "");
    let mut raw_connection = RawConnection::connect(d.port);
    // By then it is accepted.
    assert_eq!(d.session(&["true"]).finish().status, Some(0));
    let gate = Pid::from_raw(d.process("gate"));
    daemon::stop(gate.as_raw());
    until("it is stopped", || state(gate.as_raw()) == Some('T'));
    raw_connection.send(&hello());
    pass(5);
    kill(gate, Signal::SIGCONT).unwrap();
    assert!(raw_connection.record().is_some(), "{}", d.log_text());
}

/// Regression: the same with many connections: deadlines were checked after the first 1,024 had
/// been read.
#[test]
fn data_from_many_connections_while_the_gate_was_stopped_is_not_late() {
    // The first connection's deadline must not have passed when the last connects: use as many
    // seconds as that takes on a busy machine.
    for hello_within in [4, 12, 27] {
        if a_stopped_gates_crowd_is_served(hello_within) {
            return;
        }
    }
    panic!("2,000 connections take too long here");
}

/// Returns whether all of it was; `false`: connecting took longer than the deadline for a hello.
fn a_stopped_gates_crowd_is_served(hello_within: u64) -> bool {
    let d = Daemon::start_with(&format!("[limits]\nhello = {hello_within}\n"), "");
    let begin = std::time::Instant::now();
    let mut crowd: Vec<RawConnection> = (0..2_000_u32)
        .map(|n| {
            let from = std::net::Ipv4Addr::from(0x7f05_0001 + n % 500);
            RawConnection::from_address(from.into(), d.port)
        })
        .collect();
    // By then all are accepted.
    assert_eq!(d.session(&["true"]).finish().status, Some(0));
    let gate = Pid::from_raw(d.process("gate"));
    kill(gate, Signal::SIGSTOP).unwrap();
    until("it is stopped", || state(gate.as_raw()) == Some('T'));
    if begin.elapsed().as_secs() >= hello_within {
        return false;
    }
    for raw_connection in &mut crowd {
        raw_connection.send(&hello());
    }
    pass(hello_within + 2);
    kill(gate, Signal::SIGCONT).unwrap();
    let late = crowd
        .iter_mut()
        .filter_map(|s| s.record().is_none().then_some(()));
    assert_eq!(late.count(), 0, "{}", d.log_text());
    true
}

/// The client's address and the daemon's, in private networks for the test.
const HERE: &str = "10.99.0.2";
const THERE: &str = "10.99.0.1";
/// A hardware address that no card has: packets sent there are lost.
const NOBODY: &str = "02:00:00:00:00:99";

/// A daemon in this thread's own network, and another network for its clients.
struct Apart {
    d: Daemon,
    /// Keeps the clients' network alive.
    holder: std::process::Child,
}

impl Apart {
    fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let pid = holder.id().to_string();
        until("the other network is there", || {
            network(&pid).is_some_and(|n| Some(n) != network("thread-self"))
        });
        let pair = format!("link add there type veth peer name here netns {pid}");
        let out = run(Command::new("ip").args(pair.split(' ')));
        if !out.status.success() {
            let _ = (holder.kill(), holder.wait());
            panic!("no veth: {out:?}");
        }
        for (device, address, inside) in [("there", THERE, false), ("here", HERE, true)] {
            for words in [
                format!("addr add {address}/24 dev {device}"),
                format!("link set {device} up"),
                "link set lo up".to_owned(),
            ] {
                daemon::must(in_network(&holder, inside, "ip").args(words.split(' ')));
            }
        }
        let settings =
            format!("listen = [\"127.0.0.1\", \"{THERE}\"]\n{KILL_SOON}[daemon]\nkeep-alive = 1\n");
        let folder = daemon::prepare(&settings, "");
        for (table, line, address) in [("S", "hosta ", HERE), ("A", "hostb ", THERE)] {
            let file = folder.path(table).join("hostinfo");
            let text = std::fs::read_to_string(&file).unwrap();
            let text: Vec<String> = text
                .lines()
                .map(|l| {
                    let words = l.split(' ').map(|w| {
                        let is_address = l.starts_with(line) && w.starts_with("addr=");
                        if is_address {
                            format!("addr={address}")
                        } else {
                            w.to_owned()
                        }
                    });
                    words.collect::<Vec<_>>().join(" ") + "\n"
                })
                .collect();
            std::fs::write(&file, text.concat()).unwrap();
        }
        Self {
            d: Daemon::start_in(folder, &[]),
            holder,
        }
    }

    /// Starts `cos run hostb WORDS…` in the other network.
    fn session(&self, words: &[&str]) -> Session {
        let mut command = in_network(&self.holder, true, daemon::COS);
        command.arg("-C").arg(self.d.client());
        command.args(["run", "-o", "ServerAliveInterval=1", "-p"]);
        command
            .args([&self.d.port.to_string(), "hostb"])
            .args(words);
        Session::spawn(&mut command)
    }

    /// Makes all packets between the two be lost silently, or no longer.
    fn set_lossy(&self, lossy: bool) {
        let change = if lossy { "replace" } else { "del" };
        for (device, peer, inside) in [("there", HERE, false), ("here", THERE, true)] {
            let words = format!("neigh {change} {peer} lladdr {NOBODY} dev {device} nud permanent");
            daemon::must(in_network(&self.holder, inside, "ip").args(words.split(' ')));
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Returns a program in the clients' network, or in the daemon's.
fn in_network(holder: &std::process::Child, inside: bool, program: &str) -> Command {
    if !inside {
        return Command::new(program);
    }
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &holder.id().to_string(), program]);
    command
}

/// Regression: with data in transit it took 947 s, because keep-alive works only during silence.
#[test]
fn a_network_that_dies_ends_both_sides_in_two_intervals() {
    if !daemon::needs_root() {
        return;
    }
    let apart = Apart::new();
    let all = [
        // Nothing in transit, the host sends, the client sends.
        "echo ready; exec sleep 1000",
        "echo ready; while sleep 0.1; do echo; done",
        "echo ready; exec cat >/dev/null",
    ];
    for (n, job) in all.into_iter().enumerate() {
        let mut client = apart.session(&[job]);
        client.out.wait("ready");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writer = client.stdin.take().filter(|_| n == 2).map(|mut stdin| {
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || {
                use std::io::Write;
                while !stop.load(Ordering::Relaxed) && stdin.write_all(&[0; 65_536]).is_ok() {}
            })
        });
        apart.set_lossy(true);
        let begin = std::time::Instant::now();
        let ended = client.finish();
        let line = apart.d.log.wait(&format!("end session={n} "));
        let took = begin.elapsed();
        stop.store(true, Ordering::Relaxed);
        writer.map(std::thread::JoinHandle::join);
        apart.set_lossy(false);
        assert_eq!(ended.status, Some(255), "{job}: {ended:?}");
        let timed_out = ended.err.concat().contains("timed out");
        assert!(timed_out, "{job}: {:?}", ended.err);
        assert!(line.contains("how=client-gone"), "{line}");
        assert!(took.as_secs() < 10, "{job}: {took:?}");
    }
}

impl Apart {
    /// Stops the daemon's relay, or continues it.
    fn signal_relay(&self, signal: Signal) {
        kill(Pid::from_raw(self.d.process("relay")), signal).unwrap();
    }
}

/// Waits for this many seconds, which the test is about.
fn pass(seconds: u64) {
    let begin = std::time::Instant::now();
    until("the time has passed", || {
        begin.elapsed().as_secs() >= seconds
    });
}

/// A closed window lifts the limit that ends a dead connection. Regression: if the network failed
/// then, it was noticed after a quarter of an hour.
#[test]
fn a_network_that_dies_while_the_window_is_closed_ends_both_sides() {
    if !daemon::needs_root() {
        return;
    }
    let apart = Apart::new();
    // The client reads nothing.
    let client = apart.session(&["echo ready; exec yes"]);
    client.out.wait("ready");
    client.signal(Signal::SIGSTOP);
    pass(4);
    assert_eq!(apart.d.log.count("end session="), 0);
    apart.set_lossy(true);
    let begin = std::time::Instant::now();
    let line = apart.d.log.wait("end session=0 ");
    assert!(line.contains("how=client-gone"), "{line}");
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    client.signal(Signal::SIGKILL);
    let _ = client.finish();
    apart.set_lossy(false);

    // The host reads nothing.
    let mut client = apart.session(&["echo ready; exec cat >/dev/null"]);
    client.out.wait("ready");
    apart.signal_relay(Signal::SIGSTOP);
    let mut stdin = client.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        while stdin.write_all(&[0; 65_536]).is_ok() {}
    });
    pass(4);
    assert!(client.child.try_wait().unwrap().is_none());
    apart.set_lossy(true);
    let begin = std::time::Instant::now();
    let ended = client.finish();
    let took = begin.elapsed();
    apart.set_lossy(false);
    apart.signal_relay(Signal::SIGCONT);
    writer.join().unwrap();
    assert_eq!(ended.status, Some(255), "{ended:?}");
    assert!(ended.err.concat().contains("timed out"), "{ended:?}");
    assert!(took.as_secs() < 10, "{took:?}");
}

/// Regression: the client checked its window only when nothing else happened, so with continuous
/// input a stopped host looked like a dead one.
#[test]
fn a_host_that_is_stopped_is_no_dead_one_while_input_comes() {
    if !daemon::needs_root() {
        return;
    }
    let apart = Apart::new();
    let mut client = apart.session(&["echo ready; exec wc -c"]);
    client.out.wait("ready");
    apart.signal_relay(Signal::SIGSTOP);
    // More than the host's window accepts, and less than the system accepts from the client.
    let much = 150_000;
    let mut stdin = client.stdin.take().unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = std::sync::Arc::clone(&stop);
        move || {
            use std::io::Write;
            stdin.write_all(&vec![0; much]).unwrap();
            let mut more = 0;
            while !stop.load(Ordering::Relaxed) {
                stdin.write_all(&[0]).unwrap();
                more += 1;
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            more
        }
    });
    pass(8);
    apart.signal_relay(Signal::SIGCONT);
    stop.store(true, Ordering::Relaxed);
    let more: usize = writer.join().unwrap();
    let ended = client.finish();
    assert_eq!((ended.status, ended.err.len()), (Some(0), 0), "{ended:?}");
    assert_eq!(ended.out.last(), Some(&(much + more).to_string()));
}

/// The limit that ends a dead connection also counts the time of a closed window.
#[test]
fn a_client_that_is_stopped_is_no_dead_one() {
    if !daemon::needs_root() {
        return;
    }
    let apart = Apart::new();
    let much = "echo ready; sleep 1; head -c 64000000 /dev/zero | tr '\\0' x | fold -w 1000000; echo; echo all";
    let client = apart.session(&[much]);
    client.out.wait("ready");
    client.signal(Signal::SIGSTOP);
    // Longer than either side's limit.
    let begin = std::time::Instant::now();
    until("three limits have passed", || {
        begin.elapsed().as_secs() >= 6
    });
    assert_eq!(apart.d.log.count("end session="), 0);
    client.signal(Signal::SIGCONT);
    let ended = client.finish();
    assert_eq!(
        (ended.status, ended.err.len()),
        (Some(0), 0),
        "{:?}",
        ended.err
    );
    assert_eq!(ended.out.last().map(String::as_str), Some("all"));
    assert_eq!(ended.out.iter().map(String::len).sum::<usize>(), 64_000_008);
}

/// Regression: after the end was reported the relay waited 10 s and closed, and the kernel dropped
/// the data for which a stopped client had no room: the end of the output, and the status.
#[test]
fn a_client_that_is_stopped_over_the_commands_end_gets_all_of_it() {
    let d = Daemon::start_with("[daemon]\nkeep-alive = 1\n", "");
    // A size that the daemon's system accepts from the relay but the client's does not accept from
    // it, and one that the client's accepts at once.
    let sizes = [700_000, 50_000];
    let clients = sizes.map(|size| {
        let mut gate = session::Gate::new(d.folder.path(&format!("gate{size}")));
        let job = format!(
            "echo $$; read go <{}; head -c {size} /dev/zero | tr '\\0' x | fold -w 1000; exit 7",
            gate.name()
        );
        let client = d.session(&[&job]);
        let pid = || client.out.all().first().and_then(|l| l.parse().ok());
        until("it runs", || pid().is_some());
        client.signal(Signal::SIGSTOP);
        until("it is stopped", || state(client.pid()) == Some('T'));
        gate.open();
        let pid: i32 = pid().unwrap();
        until("the command has ended", || !lives(pid));
        client
    });
    // Longer than the relay waits for a client that has been told, and then than the kernel waits
    // for one that has gone.
    pass(15);
    assert_eq!(d.log.count("end session=0 "), 0, "{}", d.log_text());
    d.log.wait("end session=1 ");
    for (client, size) in clients.into_iter().zip(sizes) {
        client.signal(Signal::SIGCONT);
        let ended = client.finish();
        assert_eq!(
            (ended.status, ended.err.len()),
            (Some(7), 0),
            "{:?}",
            ended.err
        );
        let got: usize = ended.out.iter().skip(1).map(String::len).sum();
        assert_eq!(got, size);
    }
    let line = d.log.wait("end session=0 ");
    assert!(line.contains("how=done"), "{line}");
}
