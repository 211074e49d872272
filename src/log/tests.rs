//! Tests of the log: how values are escaped, and a syslog daemon that listens, is full, is gone or
//! was restarted.

use std::sync::mpsc::channel;

use super::*;
use crate::config::scratch::Scratch;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_value_cannot_pose_as_another_field_or_line() {
    let show = |s: &str| Escaped(s).to_string();
    assert_eq!(show("hosta"), "hosta");
    assert_eq!(show(""), "\"\"");
    assert_eq!(show("a b=c"), "\"a b=c\"");
    assert_eq!(show("x\ny\u{1b}[0m"), "\"x\\u{a}y\\u{1b}[0m\"");
    assert_eq!(show("q\"\\"), "\"q\\\"\\\\\"");
}

/// A syslog daemon: its socket, and what it receives.
struct Daemon {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Daemon {
    fn start(path: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { path, socket }
    }

    /// Stops the daemon and returns the path of its socket.
    fn stop(self) -> PathBuf {
        std::fs::remove_file(&self.path).unwrap();
        self.path
    }

    /// Returns the next datagram.
    fn receive(&self) -> String {
        let mut bytes = [0; 4096];
        let n = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    }

    fn has_received_all(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let e = self.socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).unwrap();
    }
}

/// Lets [`AGAIN_AFTER`] pass, so that the next line connects again.
fn later(syslog: &mut Syslog) {
    syslog.tried = syslog.tried.and_then(|at| at.checked_sub(AGAIN_AFTER));
}

#[test]
fn one_line_is_one_datagram_with_its_priority_and_our_number() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(scratch.path().join("log"));
    let nobody = scratch.path().join("nobody");
    let sockets = vec![nobody, daemon.path.clone()];
    let mut log = Log::syslog_at(sockets, Level::Debug);
    let us = format!("cosserver[{}]", std::process::id());
    // authpriv is 10 times 8; err, warning, info and debug are 3, 4, 6 and 7.
    for (level, priority) in [
        (Level::Error, 83),
        (Level::Warning, 84),
        (Level::Info, 86),
        (Level::Debug, 87),
    ] {
        log.say(level, "denied", &[("host", &"a\n<0>b"), ("n", &7)]);
        let said = daemon.receive();
        assert_eq!(
            said,
            format!("<{priority}>{us}: denied host=\"a\\u{{a}}<0>b\" n=7")
        );
    }
    log.line(Level::Info, "listening on 127.0.0.1:9002");
    assert_eq!(
        daemon.receive(),
        format!("<86>{us}: listening on 127.0.0.1:9002")
    );
    let mut log = Log::syslog_at(vec![daemon.path.clone()], Level::Info);
    log!(log, Debug, "denied");
    daemon.has_received_all();
}

#[test]
fn restarted_syslog_daemon_loses_no_line() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(scratch.path().join("log"));
    let mut log = Log::syslog_at(vec![daemon.path.clone()], Level::Info);
    for n in 0..3 {
        log!(log, Info, "end", session = n);
        assert!(daemon.receive().ends_with(&format!(": end session={n}")));
    }
    let daemon = Daemon::start(daemon.stop());
    log!(log, Info, "stopped");
    assert!(daemon.receive().ends_with(": stopped"));
    daemon.has_received_all();
}

#[test]
fn missing_syslog_daemon_is_reported() {
    let scratch = Scratch::new();
    let [log, other] = ["log", "other"].map(|name| scratch.path().join(name));
    // A path that exists but is no socket: journald's is a folder.
    let sockets = [log.clone(), scratch.path().to_path_buf(), other.clone()];
    let no_log = Some(format!("no {}", log.display()));
    assert_eq!(no_socket_of(&sockets), no_log);
    let daemon = UnixDatagram::bind(&other).unwrap();
    assert_eq!(no_socket_of(&sockets), None);
    // The daemon was killed and has left its socket behind.
    drop(daemon);
    let nobody = Some(format!("no process listens at {}", other.display()));
    assert_eq!(no_socket_of(&sockets), nobody);
}

#[test]
fn lines_without_a_syslog_daemon_are_counted() {
    let scratch = Scratch::new();
    let path = scratch.path().join("log");
    let mut syslog = Syslog::at(vec![path.clone()]);
    for line in [&b"one"[..], b"two"] {
        assert_eq!(syslog.write(line).unwrap(), 3, "the line is done with");
    }
    let daemon = Daemon::start(path);
    // It tries to connect once a second, not at every line.
    syslog.write_all(b"three").unwrap();
    assert_eq!(syslog.dropped, 3);
    later(&mut syslog);
    syslog.write_all(b"four").unwrap();
    assert_eq!(daemon.receive(), "<84>cosserver: dropped lines=3");
    assert_eq!(daemon.receive(), "four");
    // The daemon goes away, and comes back.
    let path = daemon.stop();
    syslog.write_all(b"five").unwrap();
    let daemon = Daemon::start(path);
    later(&mut syslog);
    syslog.write_all(b"six").unwrap();
    assert_eq!(daemon.receive(), "<84>cosserver: dropped lines=1");
    assert_eq!(daemon.receive(), "six");
    daemon.has_received_all();
}

#[test]
fn unresponsive_syslog_daemon_does_not_block_logging() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(scratch.path().join("log"));
    let mut syslog = Syslog::at(vec![daemon.path.clone()]);
    let (tell, receive) = channel();
    std::thread::spawn(move || {
        let mut sent = 0_u32;
        while syslog.dropped < 5 {
            syslog.write_all(b"line").unwrap();
            sent += 1;
        }
        tell.send((syslog, sent)).unwrap();
    });
    let (mut syslog, sent) = receive.recv_timeout(PATIENCE).expect("it waits for room");
    for _ in 0..sent - 5 {
        assert_eq!(daemon.receive(), "line");
    }
    daemon.has_received_all();
    syslog.write_all(b"last").unwrap();
    assert_eq!(daemon.receive(), "<84>cosserver: dropped lines=5");
    assert_eq!(daemon.receive(), "last");
    assert_eq!(syslog.dropped, 0);
}

#[test]
fn log_lines_of_one_user_are_rate_limited_without_affecting_others() {
    let scratch = Scratch::new();
    let daemon = Daemon::start(scratch.path().join("log"));
    let mut log = Log::syslog_at(vec![daemon.path.clone()], Level::Info);
    // As if all lines came in one second.
    let begin = |log: &mut Log, at: Instant| {
        for rate_limit in log.users.values_mut() {
            rate_limit.second = at;
        }
    };
    let ahead = Instant::now() + PATIENCE;
    let say = |log: &mut Log, uid| {
        log_by_user!(log, uid, Info, "signed", uid);
        begin(log, ahead);
    };
    for _ in 0..OF_ONE + 5 {
        say(&mut log, 1000);
    }
    say(&mut log, 1001);
    for uid in [vec![1000; OF_ONE as usize], vec![1001]].concat() {
        assert!(daemon.receive().ends_with(&format!(": signed uid={uid}")));
    }
    daemon.has_received_all();
    let second = Duration::from_secs(1);
    begin(&mut log, Instant::now().checked_sub(second).unwrap());
    say(&mut log, 1000);
    assert!(
        daemon
            .receive()
            .ends_with(": suppressed event=signed lines=5 uid=1000")
    );
    assert!(daemon.receive().ends_with(": signed uid=1000"));
    // A flood that ends is reported too.
    for _ in 1..OF_ONE + 2 {
        say(&mut log, 1000);
    }
    for _ in 1..OF_ONE {
        assert!(daemon.receive().ends_with(": signed uid=1000"));
    }
    assert!(log.deadline().is_some());
    log.tell_suppressed();
    assert!(
        daemon
            .receive()
            .ends_with(": suppressed event=signed lines=2 uid=1000")
    );
    assert_eq!(log.deadline(), None);
    daemon.has_received_all();
    // A line below the log level does not count as suppressed.
    for _ in 0..2 * NOISE {
        log_ratelimited!(log, Debug, "asked");
    }
    assert_eq!(log.deadline(), None);
    // Any number of users takes bounded memory.
    let many = u32::try_from(USERS).unwrap();
    let mut log = Log::syslog_at(Vec::new(), Level::Info);
    for uid in 0..2 * many {
        log_by_user!(log, uid, Info, "signed");
        begin(&mut log, ahead);
    }
    assert!(log.users.len() <= USERS + 1);
}
