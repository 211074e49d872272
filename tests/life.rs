//! The daemon's life cycle: how it starts, under inetd, systemd and standalone, and how it stops.

use crate::daemon;

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command as Start, Stdio};
use std::time::Duration;

use cosserver::protocol::request::Command;
use cosserver::protocol::stream::{End, Message, Stream};
use daemon::hostile::{Caller, RawConnection, timed};
use daemon::session::later;
use daemon::{COS, COSSERVER, Daemon, Folder, Lines, PATIENCE, hangs_up, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn sigterm_lets_running_jobs_end_within_their_grace() {
    let mut d = Daemon::start_as("daemon.grace = 20\ndaemon.refusal-interval = 1\n", "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("late");
    let mut session = caller.accepted(d.port, "echo ready; cat");
    session.until(b"ready\n");
    let mut greeted = RawConnection::connect(d.port);
    let greeting = greeted.greet();
    d.signal(Signal::SIGTERM);
    assert!(d.log.wait("stopping ").contains("sessions=1"));
    // No new connection: not by the port, and not with a greeting from before.
    until("the port is closed", || {
        RawConnection::try_from_address("127.0.0.1".parse().unwrap(), d.port).is_err()
    });
    let touch = caller.request(&format!("touch {}", marker.display()));
    greeted.send(&caller.client_hello(&greeting, &touch).0);
    assert!(d.log.wait(&greeted.denied()).contains("stopping"));
    session.send(&Message::Data(Stream::Main, b"still here\n"));
    session.until(b"still here\n");
    session.send(&Message::Eof(Stream::Main));
    assert_eq!(session.finish().1, Some(End::Exited(0)));
    drop(session);
    assert!(d.child.wait().unwrap().success());
    assert!(!marker.exists(), "something was started");
    assert!(!d.server().join("run/cosserver.pid").exists());
}

#[test]
fn after_the_grace_jobs_are_hung_up_and_then_killed() {
    let settings = "daemon.grace = 1\nexec.hup-to-kill = 1\n";
    let mut d = Daemon::start_as(settings, "");
    let caller = Caller::of(&d);
    let marker = d.folder.path("hung-up");
    let mut session = caller.accepted(d.port, &hangs_up(&marker));
    session.until(b"ready\n");
    let mut deaf = caller.accepted(d.port, "trap '' HUP; echo deaf; exec sleep 1000");
    deaf.until(b"deaf\n");
    let (status, took) = timed(|| {
        d.signal(Signal::SIGTERM);
        d.child.wait().unwrap()
    });
    assert!(status.success());
    // The sum of both settings, and less than the grace period would be without them.
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_secs(25),
        "{took:?}"
    );
    assert!(marker.exists());
    d.log.said_times("end session=", 2);
    assert!(d.log_text().contains("status=signal-9"));
}

#[test]
fn a_second_sigterm_does_not_wait_for_the_grace() {
    let mut d = Daemon::start_as("daemon.grace = 600\nexec.hup-to-kill = 1\n", "");
    let marker = d.folder.path("hung-up");
    let mut session = Caller::of(&d).accepted(d.port, &hangs_up(&marker));
    session.until(b"ready\n");
    d.signal(Signal::SIGTERM);
    d.log.wait("stopping ");
    let (status, took) = timed(|| {
        d.signal(Signal::SIGTERM);
        d.child.wait().unwrap()
    });
    assert!(
        status.success() && took < Duration::from_secs(25),
        "{took:?}"
    );
    assert!(marker.exists());
}

/// A job that has ended by itself delays nothing: its client is told, and the daemon does not wait
/// for a process to kill.
#[test]
fn a_session_that_is_over_does_not_delay_the_end() {
    for _ in 0..5 {
        let mut d = Daemon::start_as("exec.hup-to-kill = 60\n", "");
        let mut session = Caller::of(&d).accepted(d.port, "echo x; exit 3");
        assert_eq!(session.finish().1, Some(End::Exited(3)));
        let ((), took) = timed(|| {
            d.signal(Signal::SIGTERM);
            d.signal(Signal::SIGTERM);
            assert!(d.child.wait().unwrap().success());
        });
        // Neither the time for killing nor the ten seconds that the client may take.
        assert!(took < Duration::from_secs(9), "{took:?}");
        assert!(d.log.wait("end session=0").contains("how=done status=3"));
    }
}

#[test]
fn an_idle_daemon_ends_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut d = Daemon::start();
        let _silent = RawConnection::connect(d.port);
        let ((), took) = timed(|| {
            d.signal(signal);
            assert!(d.child.wait().unwrap().success());
        });
        // Not even the ten seconds that an unauthenticated connection has for its hello.
        assert!(took < Duration::from_secs(9), "{took:?}");
    }
}

// ---- inetd ----

/// Starts a daemon for one connection, and returns the connection's other end.
fn inetd(folder: &Folder) -> (Child, Lines, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    let mut child = Start::new(COSSERVER)
        .args(["-i", "-e", "-f"])
        .arg(folder.path("S/cosserver.toml"))
        .stdin(OwnedFd::from(ours.try_clone().unwrap()))
        .stdout(OwnedFd::from(ours))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Lines::collect(child.stderr.take().unwrap());
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (child, log, theirs)
}

#[test]
fn i_serves_the_one_connection_and_ends() {
    let folder = daemon::configured(
        "limits.hello = 1\nlimits.handshake = 1\ndaemon.refusal-interval = 1\n",
        "",
    );
    let caller = Caller::in_folder(&folder.path("A"));
    let words = |text: &str| Command::Words(vec![text.into()]);

    let (mut child, log, socket) = inetd(&folder);
    let mut session = caller.accepted_on(RawConnection { socket }, words("cat; exit 7"));
    session.send(&Message::Data(Stream::Main, b"one\n"));
    session.send(&Message::Eof(Stream::Main));
    assert_eq!(session.finish(), (b"one\n".to_vec(), Some(End::Exited(7))));
    // inetd's other descriptors do not keep the connection open.
    assert_eq!(session.raw_connection.rest(), b"");
    drop(session);
    assert!(child.wait().unwrap().success());
    assert!(log.wait("end session=0").contains("status=7"));

    let (mut child, log, socket) = inetd(&folder);
    let mut liar = caller.clone();
    liar.name = "hostz".into();
    let mut s = RawConnection { socket };
    let greeting = s.greet();
    s.send(&liar.client_hello(&greeting, &liar.request("true")).0);
    assert!(log.wait(&s.denied()).contains("cause=unknown-host"));
    drop(s);
    assert!(child.wait().unwrap().success());

    for first in [
        &b""[..],
        b"GET / HTTP/1.0\r\n\r\n",
        &daemon::hostile::hello()[..4],
    ] {
        let (mut child, _log, socket) = inetd(&folder);
        let mut s = RawConnection { socket };
        s.send(first);
        s.closed();
        assert!(child.wait().unwrap().success());
    }
    // Closed at once by the peer; and a descriptor 0 that is not a connection.
    let (mut child, _log, socket) = inetd(&folder);
    drop(socket);
    assert!(child.wait().unwrap().success());
    let mut command = daemon::cosserver();
    let out = daemon::run(
        command
            .args(["-i", "-e", "-f"])
            .arg(folder.path("S/cosserver.toml")),
    );
    assert_eq!(out.status.code(), Some(1));
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .contains("descriptor 0")
    );
}

/// As inetd starts it: all three standard descriptors are the connection.
fn start_by_inetd(flags: &str, folder: &Folder) -> (Child, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    let child = Start::new(COSSERVER)
        .args([flags, "-f"])
        .arg(folder.path("S/cosserver.toml"))
        .stdin(OwnedFd::from(ours.try_clone().unwrap()))
        .stdout(OwnedFd::from(ours.try_clone().unwrap()))
        .stderr(OwnedFd::from(ours))
        .spawn()
        .unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (child, theirs)
}

/// Only the protocol reaches the peer, whatever the flags: no log, no error message, and nothing
/// that a job writes to its own standard error.
#[test]
fn inetd_connection_carries_only_the_protocol() {
    let folder = daemon::configured("daemon.refusal-interval = 1\n", "");
    let caller = Caller::in_folder(&folder.path("A"));
    let command = Command::Words(vec![b"echo noise >&2; echo ready; cat; exit 7".to_vec()]);
    for flags in ["-i", "-ie", "-id"] {
        let (mut child, socket) = start_by_inetd(flags, &folder);
        let mut session = caller.accepted_on(RawConnection { socket }, command.clone());
        session.until(b"ready\n");
        // No process holds the connection as a standard descriptor.
        let monitor = i32::try_from(child.id()).unwrap();
        let names = daemon::children(monitor);
        for pid in [monitor].iter().chain(&names) {
            for number in 0..3 {
                let to = fs::read_link(format!("/proc/{pid}/fd/{number}"));
                // The look-up process and the standby guard end once the session runs.
                if to.is_err() && !daemon::session::lives(*pid) {
                    continue;
                }
                let is_hushed = to.is_ok_and(|to| {
                    to == Path::new("/dev/null") || to.to_string_lossy().starts_with("pipe:")
                });
                assert!(is_hushed || !daemon::is_root(), "{flags}: {pid}: {number}");
            }
        }
        session.send(&Message::Data(Stream::Main, b"one\n"));
        session.send(&Message::Eof(Stream::Main));
        assert_eq!(session.finish(), (b"one\n".to_vec(), Some(End::Exited(7))));
        assert_eq!(session.raw_connection.rest(), b"", "{flags}");
        drop(session);
        assert!(child.wait().unwrap().success());

        // One that is denied, and one that is closed without an answer.
        let (mut child, socket) = start_by_inetd(flags, &folder);
        let mut liar = caller.clone();
        liar.name = "hostz".into();
        let mut s = RawConnection { socket };
        let greeting = s.greet();
        s.send(&liar.client_hello(&greeting, &liar.request("true")).0);
        s.denied();
        drop(s);
        assert!(child.wait().unwrap().success());
        let (mut child, socket) = start_by_inetd(flags, &folder);
        let mut s = RawConnection { socket };
        s.send(b"GET / HTTP/1.0\r\n\r\n");
        s.closed();
        assert!(child.wait().unwrap().success());
    }
    // Errors in the settings or the flags are not shown to the peer.
    fs::write(folder.path("S/cosserver.toml"), "limits.helo = 7\n").unwrap();
    for (flags, status) in [("-i", 1), ("-ie", 1), ("-iz", 2)] {
        let (mut child, socket) = start_by_inetd(flags, &folder);
        RawConnection { socket }.closed();
        assert_eq!(child.wait().unwrap().code(), Some(status), "{flags}");
    }
}

// ---- systemd ----

#[test]
fn service_manager_is_notified() {
    let folder = daemon::configured("", "");
    let path = folder.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let receive = || {
        let mut bytes = [0; 512];
        let n = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    };
    let mut command = daemon::cosserver();
    command.env("NOTIFY_SOCKET", &path);
    let mut d = Daemon::start_by(command, folder, &[]);
    assert_eq!(receive(), "READY=1");
    d.signal(Signal::SIGHUP);
    let reloading = receive();
    let (state, clock) = reloading.split_once('\n').unwrap();
    assert_eq!(state, "RELOADING=1");
    let micros: u64 = clock
        .strip_prefix("MONOTONIC_USEC=")
        .unwrap()
        .parse()
        .unwrap();
    let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let now = u64::try_from(clock.tv_sec()).unwrap() * 1_000_000 + 1_000_000;
    assert!(micros + 60_000_000 > now && micros < now, "{micros}, {now}");
    assert_eq!(receive(), "READY=1");
    // The jobs do not get the variable.
    assert_eq!(d.says(0, &["echo ${NOTIFY_SOCKET:-none}"]), b"none\n");
    d.signal(Signal::SIGTERM);
    assert_eq!(receive(), "STOPPING=1");
    d.child.wait().unwrap();
}

/// The manager's socket may be an abstract one.
#[test]
fn service_manager_is_notified_at_an_abstract_socket() {
    let folder = daemon::configured("", "");
    let name = format!("cosserver-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = daemon::cosserver();
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let _d = Daemon::start_by(command, folder, &[]);
    let mut bytes = [0; 512];
    let n = manager.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..n], b"READY=1");
}

/// Starts a shell that puts a socket at descriptor 3, and declares it for the process with this ID,
/// a word of the shell: `$$` is the daemon.
fn with_listen_fds(of: &str, folder: &Folder, socket: OwnedFd) -> Start {
    let run = format!(
        "exec 3<&0 </dev/null; LISTEN_PID={of} LISTEN_FDS=1 exec \"$0\" -D -e -p 0 -f \"$1\""
    );
    let mut command = Start::new("/bin/sh");
    command
        .args(["-c", &run])
        .arg(COSSERVER)
        .arg(folder.path("S/cosserver.toml"))
        .stdin(socket)
        .stderr(Stdio::piped());
    command
}

#[test]
fn a_socket_of_the_service_manager_is_listened_on() {
    let folder = daemon::configured("", "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut child = with_listen_fds("$$", &folder, listener.into())
        .spawn()
        .unwrap();
    let log = Lines::collect(child.stderr.take().unwrap());
    log.wait(&format!("listening on 127.0.0.1:{port}"));
    log.said_times("listening on ", 1);
    let mut d = Daemon {
        folder,
        log,
        port,
        child,
    };
    assert_eq!(d.says(0, &["echo served"]), b"served\n");
    d.signal(Signal::SIGTERM);
    assert!(d.child.wait().unwrap().success());

    // A socket that does not listen is an error, and causes no busy loop.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let out = with_listen_fds("$$", &d.folder, connected.into())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .contains("LISTEN_FDS")
    );
}

/// A socket for another process, whose environment was inherited, is not used.
#[test]
fn a_socket_for_another_process_is_not_listened_on() {
    for other in ["1", "$PPID", ""] {
        let folder = daemon::configured("", "");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = listener.local_addr().unwrap().to_string();
        let mut child = with_listen_fds(other, &folder, listener.into())
            .spawn()
            .unwrap();
        let log = Lines::collect(child.stderr.take().unwrap());
        let line = log.wait("listening on 127.0.0.1:");
        let port = line.rsplit(':').next().unwrap().parse().unwrap();
        let d = Daemon {
            folder,
            log,
            port,
            child,
        };
        assert_eq!(d.says(0, &["echo served"]), b"served\n");
        assert_eq!(d.log.count(&theirs), 0, "LISTEN_PID={other}");
    }
}

// ---- standalone ----

/// Returns the port of the process that listens on an IPv4 address, according to the system.
fn port_listened_on(address: std::net::Ipv4Addr) -> Option<u16> {
    let wanted = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (ip, port) = fields.next()?.split_once(':')?;
        let is_listening = fields.nth(1)? == "0A";
        (ip == wanted && is_listening).then(|| u16::from_str_radix(port, 16).unwrap())
    })
}

/// Without -D the parent returns when the daemon listens, keeps no descriptor of its starter, and
/// the pid file names the process to stop.
#[test]
fn in_the_background_the_parent_ends_when_it_listens() {
    // An address that only this test uses, by which its port is found.
    let [high, low] = [std::process::id() >> 8, std::process::id()].map(|n| n.to_le_bytes()[0]);
    let address = std::net::Ipv4Addr::new(127, 28, high, low);
    let settings = format!("listen = [\"{address}\"]\ndaemon.refusal-interval = 1\n");
    let folder = daemon::configured(&settings, "");
    let table = folder.path("A/hostinfo");
    let hosts = fs::read_to_string(&table).unwrap();
    let to_it = hosts.replace("addr=127.0.0.1,::1", &format!("addr={address}"));
    assert_ne!(to_it, hosts);
    fs::write(&table, to_it).unwrap();
    let start = |port: u16| {
        let mut command = daemon::cosserver();
        command.args(["-p", &port.to_string(), "-f"]);
        command.arg(folder.path("S/cosserver.toml"));
        // To the end of its output: no process may keep the pipes.
        later(move || daemon::run(&mut command)).get()
    };
    let out = start(0);
    assert!(out.status.success(), "{out:?}");
    let text = fs::read_to_string(folder.path("S/run/cosserver.pid")).unwrap();
    let pid: i32 = text.trim().parse().unwrap();
    let port = port_listened_on(address).unwrap();
    let out = daemon::run(Start::new(COS).arg("-C").arg(folder.path("A")).args([
        "run",
        "-p",
        &port.to_string(),
        "hostb",
        "echo served",
    ]));
    // A second daemon cannot have the same port, and says so.
    let second = start(port);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    until("it has ended", || {
        !Path::new(&format!("/proc/{pid}")).exists()
            || daemon::status(pid, "State").starts_with('Z')
    });
    assert_eq!(out.stdout, b"served\n", "{out:?}");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains(&format!("{address}, port {port}: ")) && said.contains("in use"),
        "{said}"
    );
    assert!(!folder.path("S/run/cosserver.pid").exists());
}

#[test]
fn a_port_of_the_systems_choice_is_the_same_on_every_address() {
    let d = Daemon::start();
    let v4 = d.log.wait("listening on 127.0.0.1:");
    let v6 = d.log.wait("listening on [::1]:");
    assert_eq!(v4.rsplit(':').next(), v6.rsplit(':').next());
    let mut answer = Vec::new();
    let mut s = RawConnection::from_address("::1".parse().unwrap(), d.port).socket;
    std::io::Write::write_all(&mut s, b"x\0").unwrap();
    let _ = s.read_to_end(&mut answer);
    assert!(answer.is_empty());
}
