//! What gate, relay and monitor hide from each other, and how they survive a fault of one of them:
//! signals, a back-off, a broken listener, many connections.
#![allow(
    clippy::undocumented_unsafe_blocks,
    unsafe_code,
    reason = "a test panics where something is not as it should be, starts programs, and does what an attacker would"
)]

use crate::daemon;
#[path = "login/left_over.rs"]
mod left_over;
#[allow(dead_code, unused_imports, reason = "each test file uses a part")]
use crate::taken;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{Command, Request, Service};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::{End, Message, Stream};
use daemon::hostile::{Caller, RawConnection, Session};
use daemon::session::{Fifo, Gate, lives};
use daemon::{Daemon, PATIENCE, needs_root, until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::socket::{Shutdown, SockType, shutdown};
use nix::unistd::Pid;

/// Returns the processor time of a process, in the kernel's ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// They are not dumpable: only root can read their files in /proc, and no other process of their
/// user can trace them. Their standard error is not the monitor's log.
#[test]
fn gate_and_relay_are_closed_to_their_user_and_cannot_write_the_log() {
    if !needs_root() {
        return;
    }
    let d = Daemon::start();
    for name in ["gate", "relay"] {
        let pid = d.process(name);
        let about = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(about.uid(), 0, "{name}");
        for number in 0..3 {
            let to = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(to.to_str(), Some("/dev/null"), "{name} {number}");
        }
    }
}

/// Ctrl-C in the terminal of `cosserver -D`: only the monitor decides what it means, and running
/// commands have their grace period.
#[test]
fn a_signal_to_the_whole_group_leaves_the_commands_their_grace() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = daemon::configured("", "");
        let mut go = Gate::new(folder.path("go"));
        let mut command = daemon::cosserver();
        command.process_group(0);
        let mut d = Daemon::start_by(command, folder, &[]);
        let session = d.session(&[&format!("echo ready; read x <{}; echo over", go.name())]);
        session.out.wait("ready");
        killpg(Pid::from_raw(d.pid()), signal).unwrap();
        d.log.wait("stopping sessions=1");
        go.open();
        let ended = session.finish();
        assert_eq!(ended.status, Some(0), "{ended:?}");
        assert_eq!(ended.out, ["ready", "over"]);
        assert!(daemon::session::wait(&mut d.child).success());
    }
}

/// The same signals, sent directly to gate and relay.
#[test]
fn gate_and_relay_end_by_no_signal_that_is_meant_for_the_daemon() {
    let d = Daemon::start();
    let both = ["gate", "relay"].map(|name| d.process(name));
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        for pid in both {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
        d.says(0, &["true"]);
    }
    assert!(both.into_iter().all(lives));
    assert_eq!(d.log.count("lost process="), 0);
}

/// Regression: the gate was to be started again later, but the daemon stopped: nothing waits for
/// that moment any more.
#[test]
fn daemon_that_stops_during_a_back_off_uses_no_cpu() {
    let folder = daemon::configured("", "");
    let mut go = Gate::new(folder.path("go"));
    let mut said = Fifo::new(folder.path("said"));
    let mut d = Daemon::start_in(folder, &[]);
    // Longer than the gate's last pause, followed by time in which nothing is due.
    let script = format!(
        "exec 8>{}; echo ready >&8; read x <{1}; sleep 1; echo due >&8; sleep 2; \
         echo later >&8; read x <{1}",
        said.name(),
        go.name()
    );
    let session = d.session(&[&script]);
    said.receive();
    for _ in 0..3 {
        let lines = d.log.all().len();
        kill(Pid::from_raw(d.process("gate")), Signal::SIGKILL).unwrap();
        d.log
            .wait_from(lines, |l| l.starts_with("started process=gate"));
    }
    // The fourth death in a row: a pause of 0.8 s.
    let lines = d.log.all().len();
    kill(Pid::from_raw(d.process("gate")), Signal::SIGKILL).unwrap();
    d.log
        .wait_from(lines, |l| l.starts_with("lost process=gate"));
    d.signal(Signal::SIGTERM);
    d.log.wait("stopping sessions=1");
    d.log.said_times("started process=gate", 4);
    go.open();
    said.receive();
    let before = ticks(d.pid());
    said.receive();
    let took = ticks(d.pid()) - before;
    go.open();
    assert_eq!(session.finish().status, Some(0));
    assert!(daemon::session::wait(&mut d.child).success());
    assert!(took < 10, "the monitor took {took} ticks to wait");
}

/// A listening socket that no longer listens is tried from time to time, not continuously.
#[test]
fn permanently_failing_listener_does_not_make_the_gate_spin() {
    if !needs_root() {
        return;
    }
    let folder = daemon::configured("", "");
    let mut go = Gate::new(folder.path("go"));
    let mut said = Fifo::new(folder.path("said"));
    let d = Daemon::start_in(folder, &[]);
    // Time in which nothing is due: the gate's work in it is measured.
    let script = format!(
        "read x <{}; sleep 2; echo later >{}",
        go.name(),
        said.name()
    );
    let session = d.session(&[&script]);
    d.log.wait("exec session=0");
    let gate = d.process("gate");
    let mut ours = taken::sockets_of(d.pid(), SockType::Stream, libc::AF_INET);
    ours.retain(|socket| cosserver::sys::socket::listens(socket));
    assert_eq!(ours.len(), 1);
    shutdown(ours[0].as_raw_fd(), Shutdown::Both).unwrap();
    let before = ticks(gate);
    go.open();
    said.receive();
    let took = ticks(gate) - before;
    assert!(took < 20, "the gate took {took} ticks to wait");
    assert_eq!(session.finish().status, Some(0));
}

/// More listening sockets than one message to the gate can carry.
#[test]
fn every_one_of_many_addresses_is_listened_on() {
    let all: Vec<String> = (1..=40).map(|n| format!("127.0.0.{n}")).collect();
    let d = Daemon::start_as(&format!("listen = {all:?}\n"), "");
    for address in &all {
        let socket = TcpStream::connect((address.as_str(), d.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        RawConnection { socket }.greet();
    }
    assert_eq!(d.log.count("fault"), 0);
}

/// Counts these bytes in a process's memory.
fn copies(pid: i32, wanted: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, mode) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let length = u64::from_str_radix(to, 16).unwrap() - from;
        if !mode.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let mut bytes = vec![0; length as usize];
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        let mut at = 0;
        while let Some(n) = bytes[at..].iter().position(|b| *b == wanted[0]) {
            at += n;
            found += usize::from(bytes[at..].starts_with(wanted));
            at += 1;
        }
    }
    found
}

/// During a session its thread keeps the ciphers, but neither the message that brought the keys nor
/// the data read from it; after the session, it keeps nothing.
#[test]
fn the_relay_keeps_a_sessions_keys_once() {
    if !needs_root() {
        return;
    }
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let mut s = RawConnection::connect(d.port);
    let greeting = s.greet();
    let command = Command::Words(vec!["echo ready; read x".into()]);
    let (hello, noise) = caller.client_hello(&greeting, &caller.request_of(command));
    s.send(&hello);
    let answer = s.record().unwrap();
    let content = record::parse(&answer, &[Kind::Answer]).unwrap().content;
    let keys = noise.read_2(content).unwrap().1;
    let mut session = Session {
        sealer: Sealer::new(keys.suite, &keys.to_server).unwrap(),
        opener: Opener::new(keys.suite, &keys.to_client).unwrap(),
        raw_connection: s,
    };
    // The session's thread is serving: the job's output has arrived.
    session.until(b"ready\n");
    let relay = d.process("relay");
    let both = [&keys.to_server.key, &keys.to_client.key];
    for key in both {
        let found = copies(relay, key.expose());
        assert_eq!(found, 1, "copies of a raw key");
    }
    session.send(&Message::Eof(Stream::Main));
    assert_eq!(session.finish().1, Some(End::Exited(1)));
    drop(session);
    for key in both {
        until("none is left", || copies(relay, key.expose()) == 0);
    }
}

/// The daemon waits for a client that was told the end of its command and does not hang up, but not
/// with as many threads as there are such clients.
#[test]
fn clients_that_do_not_hang_up_hold_a_bounded_number_of_threads() {
    const CLIENTS: usize = 340;
    let d = Daemon::start();
    let caller = Caller::of(&d);
    d.says(0, &["true"]);
    let held: Vec<_> = std::thread::scope(|scope| {
        let some: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let one = || {
                        let mut session = caller.accepted(d.port, "true");
                        assert_eq!(session.finish().1, Some(End::Exited(0)));
                        session
                    };
                    (0..CLIENTS / 4).map(|_| one()).collect::<Vec<_>>()
                })
            })
            .collect();
        some.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(held.len(), CLIENTS);
    let relay = d.process("relay");
    let threads = fs::read_dir(format!("/proc/{relay}/task")).unwrap().count();
    assert!(
        threads <= 300,
        "{threads} threads for sessions that are over"
    );
}

/// `LC_` is not a category, and is not passed as one.
#[test]
fn bare_lc_variable_is_not_passed_to_a_command() {
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let variable = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let request = Request {
        service: Service::Exec,
        user: caller.user.clone(),
        caller_user: "tester".parse().unwrap(),
        command: Command::Words(vec!["env | grep ^LC_; true".into()]),
        environment: vec![variable("LC_", "no"), variable("LC_TIME", "C")],
        linger: None,
    };
    let mut s = RawConnection::connect(d.port);
    let greeting = s.greet();
    let (hello, noise) = caller.client_hello(&greeting, &request.encode().unwrap());
    s.send(&hello);
    let (output, end) = s.session(noise).finish();
    assert_eq!(
        (output, end),
        (b"LC_TIME=C\n".to_vec(), Some(End::Exited(0)))
    );
}

/// PROTOCOL.md, 8: a grant for a stream that has ended is ignored, however large.
#[test]
fn credit_for_a_stream_that_has_ended_means_nothing() {
    let d = Daemon::start();
    let mut session = Caller::of(&d).accepted(d.port, "exec 2>&-; read x; echo over");
    loop {
        let mut record = session
            .raw_connection
            .record()
            .expect("the session was cut");
        let text = session.opener.open(&mut record[2..]).unwrap();
        if Message::parse(text).unwrap() == Message::Eof(Stream::Error) {
            break;
        }
    }
    for _ in 0..3 {
        session.send(&Message::Credit(Stream::Error, 16_000_000));
    }
    session.send(&Message::Data(Stream::Main, b"go\n"));
    assert_eq!(session.finish(), (b"over\n".to_vec(), Some(End::Exited(0))));
}

/// A daemon in the background does not keep the file system busy on which it was started.
#[test]
fn background_daemon_changes_to_the_root_directory() {
    // The daemon is closed to its own user: only root can see its working directory.
    if !daemon::needs_root() {
        return;
    }
    let folder = daemon::configured("", "");
    let mut command = daemon::cosserver();
    command.current_dir(folder.path("S"));
    command.args(["-p", "0", "-f", "cosserver.toml"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.stderr(Stdio::null()).status().unwrap().success());
    let pid = fs::read_to_string(folder.path("S/run/cosserver.pid")).unwrap();
    let pid: i32 = pid.trim().parse().unwrap();
    let stands = fs::read_link(format!("/proc/{pid}/cwd"));
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    until("it has ended", || !lives(pid));
    assert_eq!(stands.unwrap().to_str(), Some("/"));
}
