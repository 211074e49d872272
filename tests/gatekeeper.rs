//! A gate taken over: the real gate is stopped, its end of the channel taken
//! from it, and the test asks the monitor whatever an attacker might. Nothing
//! is started and nothing learned. And what the gate and the relay are made of:
//! no privilege, no secret, no file.
//!
//! Needs root, for the descriptor of another process and for its memory; as an
//! ordinary user these tests say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    unsafe_code,
    reason = "a test panics where something is not as it should be, and takes what an attacker would"
)]

mod daemon;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use cosserver::channel::gate::{Connection, Order, Question};
use cosserver::channel::{Channel, Incoming};
use cosserver::config::name::HostName;
use cosserver::config::place::Place;
use cosserver::config::{cookie, keys};
use cosserver::secret::Secret;
use cosserver::wire::request::{self, Command};
use cosserver::wire::stream::{Message, Stream};
use daemon::hostile::{Caller, Greeting, Stranger, hello};
use daemon::{Daemon, PATIENCE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Whether this is root; if not, the test has nothing to do.
fn may() -> bool {
    if !daemon::is_root() {
        eprintln!("not root: passed over");
    }
    daemon::is_root()
}

/// Copies of a process's sockets of one type and family.
fn sockets_of(pid: i32, wanted: SockType, family: libc::c_int) -> Vec<OwnedFd> {
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(handle >= 0, "pidfd_open");
    let handle = unsafe { OwnedFd::from_raw_fd(handle as i32) };
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let number: i32 = entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&handle);
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, raw, number, 0) };
        if copy < 0 {
            continue;
        }
        let copy = unsafe { OwnedFd::from_raw_fd(copy as i32) };
        let mut domain: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&copy);
        let asked = unsafe {
            libc::getsockopt(
                raw,
                libc::SOL_SOCKET,
                libc::SO_DOMAIN,
                (&raw mut domain).cast(),
                &raw mut length,
            )
        };
        let kind = getsockopt(&copy, sockopt::SockType);
        if asked == 0 && domain == family && kind == Ok(wanted) {
            found.push(copy);
        }
    }
    found
}

/// The gate's place, taken.
struct Taken {
    channel: Channel,
    /// Strangers who come to us instead.
    listener: TcpListener,
    next: Connection,
}

impl Taken {
    fn from(d: &Daemon) -> Self {
        let gate = d.process("gate");
        kill(Pid::from_raw(gate), Signal::SIGSTOP).unwrap();
        daemon::until("the gate stands still", || {
            daemon::status(gate, "State").starts_with('T')
        });
        let mut ends = sockets_of(gate, SockType::SeqPacket, libc::AF_UNIX);
        assert_eq!(ends.len(), 1, "the gate's one channel");
        Self {
            channel: Channel::new(ends.remove(0)),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            next: 1 << 40,
        }
    }

    fn ask(&mut self, question: &Question<'_>, fds: Vec<OwnedFd>) {
        self.channel.send(question.encode(), fds).unwrap();
    }

    /// The monitor's next order but for what concerns no connection.
    fn order(&self) -> Vec<u8> {
        let mut buffer = vec![0; cosserver::channel::MESSAGE];
        loop {
            let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut fds, timeout), Ok(1), "the monitor says nothing");
            match self.channel.receive(&mut buffer).unwrap() {
                Incoming::Message(message, _) => match Order::decode(&message) {
                    Some(Order::Networks(..) | Order::Limits(_)) => {}
                    Some(_) => return message.to_vec(),
                    None => panic!("no order: {message:?}"),
                },
                Incoming::Nothing => {}
                Incoming::Gone => panic!("the monitor has given the gate up"),
            }
        }
    }

    /// Waits until the monitor has given this gate up.
    fn given_up(&self) {
        let mut buffer = vec![0; cosserver::channel::MESSAGE];
        daemon::until("the monitor gives this gate up", || {
            matches!(
                self.channel.receive(&mut buffer),
                Ok(Incoming::Gone) | Err(_)
            )
        });
    }

    /// A connection with both its ends: ours as if it had been accepted.
    fn stranger(&self, from: &str) -> (TcpStream, OwnedFd) {
        let port = self.listener.local_addr().unwrap().port();
        let theirs = Stranger::from_address(from.parse().unwrap(), port).socket;
        let (ours, _) = self.listener.accept().unwrap();
        (theirs, ours.into())
    }

    /// Has the monitor draw a nonce.
    fn greet(&mut self) -> (Connection, Greeting) {
        self.next += 1;
        let c = self.next;
        let hello = hello();
        self.ask(&Question::Hello(c, [127, 0, 0, 1].into(), &hello), vec![]);
        let order = self.order();
        let Some(Order::ServerHello(to, record)) = Order::decode(&order) else {
            panic!("no ServerHello: {:?}", Order::decode(&order));
        };
        assert_eq!(to, c);
        let server_hello = record.to_vec();
        (
            c,
            Greeting {
                hello,
                server_hello,
            },
        )
    }

    /// The monitor must close this connection.
    fn closed(&self, c: Connection, what: &str) {
        assert_eq!(
            Order::decode(&self.order()),
            Some(Order::Close(c)),
            "{what}"
        );
    }

    /// The monitor must refuse this connection, for this cause.
    fn denied(&self, d: &Daemon, c: Connection, cause: &str) {
        let order = self.order();
        let Some(Order::Deny(to, reference, _)) = Order::decode(&order) else {
            panic!("{cause}: {:?}", Order::decode(&order));
        };
        assert_eq!(to, c);
        let line = d.log.wait(&reference.to_hex());
        assert!(line.contains(&format!("cause={cause}")), "{line}");
    }
}

fn marked(d: &Daemon) -> (std::path::PathBuf, String) {
    let marker = d.folder.path("started");
    let command = format!("touch {}", marker.display());
    (marker, command)
}

#[test]
fn a_clienthello_needs_its_own_hello_its_own_nonce_and_its_own_socket() {
    if !may() {
        return;
    }
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let (marker, command) = marked(&d);
    let request = caller.request(&command);
    let mut gate = Taken::from(&d);

    // Never greeted.
    let (_, socket) = gate.stranger("127.0.0.1");
    let (_, other) = gate.greet();
    let good = caller.client_hello(&other, &request).0;
    gate.ask(&Question::ClientHello(77, &good), vec![socket]);
    gate.closed(77, "never greeted");

    // Twice for one Hello: the first try consumes it, right or wrong.
    let (c, greeting) = gate.greet();
    let mut thief = caller.clone();
    thief.cookie = Secret::random().unwrap();
    let wrong = thief.client_hello(&greeting, &request).0;
    let good = caller.client_hello(&greeting, &request).0;
    let (_peer, socket) = gate.stranger("127.0.0.1");
    let copy = socket.try_clone().unwrap();
    gate.ask(&Question::ClientHello(c, &wrong), vec![socket]);
    gate.denied(&d, c, "proof");
    gate.ask(&Question::ClientHello(c, &good), vec![copy]);
    gate.closed(c, "a second ClientHello");

    // Greeting twice under one number forgets both.
    let (c, greeting) = gate.greet();
    let from = [127, 0, 0, 1].into();
    gate.ask(&Question::Hello(c, from, &greeting.hello), vec![]);
    gate.closed(c, "a second Hello");
    let good = caller.client_hello(&greeting, &request).0;
    let (_peer, socket) = gate.stranger("127.0.0.1");
    gate.ask(&Question::ClientHello(c, &good), vec![socket]);
    gate.closed(c, "after a second Hello");

    // The nonce of one connection on another; a Hello that the client did not send.
    let (_, stale) = gate.greet();
    let (c, _) = gate.greet();
    let (_peer, socket) = gate.stranger("127.0.0.1");
    let old = caller.client_hello(&stale, &request).0;
    gate.ask(&Question::ClientHello(c, &old), vec![socket]);
    gate.denied(&d, c, "handshake");

    // Another host's address, another host's cookie.
    let (c, greeting) = gate.greet();
    let (_peer, socket) = gate.stranger("127.9.9.9");
    let good = caller.client_hello(&greeting, &request).0;
    gate.ask(&Question::ClientHello(c, &good), vec![socket]);
    gate.denied(&d, c, "address");
    let invite = [
        "host",
        "invite",
        "hostc",
        "--addr",
        "127.0.0.1",
        "--run-as",
        "root",
    ];
    daemon::must(
        std::process::Command::new(daemon::COSADM)
            .arg("-C")
            .arg(d.server())
            .args(invite),
    );
    let hostc = HostName::parse("hostc").unwrap();
    let mut thief = caller.clone();
    thief.cookie = cookie::load_in(&Place::of_dir(&d.server()), &hostc)
        .unwrap()
        .remove(0);
    let (c, greeting) = gate.greet();
    let (_peer, socket) = gate.stranger("127.0.0.1");
    let good = thief.client_hello(&greeting, &request).0;
    gate.ask(&Question::ClientHello(c, &good), vec![socket]);
    gate.denied(&d, c, "proof");

    assert!(!marker.exists(), "something was started");
    assert_eq!(d.log.count("exec session="), 0);
}

#[test]
fn what_comes_with_a_clienthello_must_be_a_connected_tcp_socket() {
    if !may() {
        return;
    }
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let (marker, command) = marked(&d);
    let request = caller.request(&command);
    let mut gate = Taken::from(&d);
    let (unix, _other_end) = UnixStream::pair().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect("127.0.0.1:9").unwrap();
    let (hung_up, left) = gate.stranger("127.0.0.1");
    left_with_reset(hung_up);
    let (peer, ahead) = gate.stranger("127.0.0.1");
    std::io::Write::write_all(&mut &peer, b"x").unwrap();
    let (_kept, many) = gate.stranger("127.0.0.1");
    let many: Vec<OwnedFd> = (0..20).map(|_| many.try_clone().unwrap()).collect();
    let cases: Vec<(&str, Vec<OwnedFd>)> = vec![
        ("no descriptor", vec![]),
        (
            "a file",
            vec![fs::File::open("/etc/passwd").unwrap().into()],
        ),
        (
            "/dev/null",
            vec![fs::File::open("/dev/null").unwrap().into()],
        ),
        (
            "a pipe",
            vec![nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap().0],
        ),
        ("a Unix socket", vec![unix.into()]),
        ("UDP", vec![udp.into()]),
        (
            "a listening socket",
            vec![TcpListener::bind("127.0.0.1:0").unwrap().into()],
        ),
        ("one that has left", vec![left]),
        ("bytes behind", vec![ahead]),
        ("too many", many),
    ];
    let before = daemon::descriptors(d.pid());
    for (what, fds) in cases {
        let (c, greeting) = gate.greet();
        let good = caller.client_hello(&greeting, &request).0;
        // By hand: the channel itself would not send so many.
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let message = Question::ClientHello(c, &good).encode();
        cosserver::sys::passing::send(gate.channel.as_fd(), &message, &borrowed).unwrap();
        gate.closed(c, what);
    }
    daemon::until("the monitor keeps none of them", || {
        daemon::descriptors(d.pid()) <= before
    });
    assert!(!marker.exists(), "something was started");
    assert_eq!(d.log.count("exec session="), 0);
    assert_eq!(d.log.count("lost process=gate"), 0);
}

/// Closes so that the other side is no longer connected.
fn left_with_reset(socket: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&socket, sockopt::Linger, &linger).unwrap();
    drop(socket);
}

/// A gate that kept a copy of a connection which the relay now serves gains
/// nothing by it, and the session does not notice.
#[test]
fn the_socket_of_a_running_session_opens_nothing() {
    if !may() {
        return;
    }
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let (marker, command) = marked(&d);
    let mut session = caller.accepted(d.port, "cat");
    session.send(&Message::Data(Stream::Main, b"one\n"));
    session.until(b"one\n");
    let relay = d.process("relay");
    let mut sockets = sockets_of(relay, SockType::Stream, libc::AF_INET);
    assert_eq!(sockets.len(), 1);
    let mut gate = Taken::from(&d);
    let mut thief = caller.clone();
    thief.cookie = Secret::random().unwrap();
    let (c, greeting) = gate.greet();
    let bytes = thief.client_hello(&greeting, &thief.request(&command)).0;
    gate.ask(&Question::ClientHello(c, &bytes), vec![sockets.remove(0)]);
    gate.denied(&d, c, "proof");
    session.send(&Message::Data(Stream::Main, b"two\n"));
    session.until(b"two\n");
    assert!(!marker.exists(), "something was started");
}

#[test]
fn questions_out_of_turn_start_nothing_and_the_monitor_goes_on() {
    if !may() {
        return;
    }
    let d = Daemon::start_as("limits.silent = 4\nlimits.reserved = 1\n", "");
    let caller = Caller::of(&d);
    let (marker, command) = marked(&d);
    let mut gate = Taken::from(&d);
    let from = [127, 0, 0, 1].into();
    // What nobody asked for is passed over, whatever its number.
    for c in [0, 1, u64::MAX] {
        gate.ask(&Question::Sealed(c, &hello()), vec![]);
        gate.ask(&Question::Gone(c), vec![]);
        gate.ask(&Question::ClientHello(c, b""), vec![]);
        gate.closed(c, "a ClientHello that is none");
        gate.ask(&Question::Hello(c, from, b""), vec![]);
        gate.closed(c, "a Hello that is none");
        gate.ask(&Question::Hello(c, from, &[0xff; 60_000]), vec![]);
        gate.closed(c, "a Hello of 60,000 bytes");
    }
    // A piece of a command where the whole was due, and the other way about.
    let (c, greeting) = gate.greet();
    gate.ask(&Question::Sealed(c, &hello()), vec![]);
    let long = vec![vec![b'x'; 5000]];
    let (follows, rest) = request::pack_words(long).unwrap();
    let (bytes, noise) = caller.client_hello(&greeting, &caller.request_of(follows));
    let (_peer, socket) = gate.stranger("127.0.0.1");
    let copy = socket.try_clone().unwrap();
    gate.ask(&Question::ClientHello(c, &bytes), vec![socket]);
    let order = gate.order();
    assert!(matches!(Order::decode(&order), Some(Order::Continue(..))));
    drop((noise, rest));
    // Asked for more, it answers with a ClientHello, and then with what it likes.
    gate.ask(&Question::ClientHello(c, &bytes), vec![copy]);
    gate.closed(c, "a ClientHello in place of a piece");
    gate.ask(&Question::Sealed(c, &[0; 4000]), vec![]);

    // A flood of Hellos: the monitor keeps at most so many.
    let mut kept = 0;
    for c in 1000..1100 {
        gate.ask(&Question::Hello(c, from, &hello()), vec![]);
        match Order::decode(&gate.order()) {
            Some(Order::ServerHello(..)) => kept += 1,
            Some(Order::Close(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((4..=8).contains(&kept), "{kept} were kept");
    for c in 1000..1100 {
        gate.ask(&Question::Gone(c), vec![]);
    }
    // It learned nothing that it did not have, and can still do its honest work.
    let (c, greeting) = gate.greet();
    let (mut peer, socket) = gate.stranger("127.0.0.1");
    let words = Command::Words(vec![command.into_bytes()]);
    let (bytes, noise) = caller.client_hello(&greeting, &caller.request_of(words));
    assert!(!marker.exists(), "something was started");
    gate.ask(&Question::ClientHello(c, &bytes), vec![socket]);
    let mut order = gate.order();
    while !matches!(Order::decode(&order), Some(Order::Taken(_))) {
        order = gate.order();
    }
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let stranger = Stranger {
        socket: peer.try_clone().unwrap(),
    };
    stranger.session(noise).finish();
    assert!(marker.exists());
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

/// What is no question ends this gate, and a new one serves.
#[test]
fn garbage_on_the_channel_costs_the_gate_its_place() {
    if !may() {
        return;
    }
    let d = Daemon::start();
    let (marker, _) = marked(&d);
    let honest = Question::Gone(1).encode();
    let cases: [(&str, Vec<u8>); 6] = [
        ("an unknown kind", vec![99, 0, 0]),
        ("cut short", honest[..5].to_vec()),
        ("bytes behind", [&honest[..], b"x"].concat()),
        (
            "a length beyond its message",
            vec![
                1, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255,
            ],
        ),
        ("an unknown complaint", {
            let mut q = vec![5, 0, 0, 0, 0, 0, 0, 0, 99];
            q.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
            q
        }),
        ("too long", vec![1; cosserver::channel::MESSAGE + 1]),
    ];
    for (what, bytes) in cases {
        let old = d.process("gate");
        let gate = Taken::from(&d);
        let lines = d.log.all().len();
        cosserver::sys::passing::send(gate.channel.as_fd(), &bytes, &[]).unwrap();
        gate.given_up();
        d.log.wait_from(lines, |l| l == "lost process=gate");
        d.log
            .wait_from(lines, |l| l.starts_with("started process=gate"));
        assert_ne!(d.process("gate"), old, "{what}");
        d.says(0, &["true"]);
    }
    assert!(!marker.exists());
    // None of them is left, not even as a zombie.
    daemon::until("two children", || daemon::children(d.pid()).len() == 2);
}

/// A gate that asks without end does not keep the monitor from the others.
#[test]
fn a_flood_of_questions_does_not_stop_the_monitor() {
    if !may() {
        return;
    }
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let mut session = caller.accepted(d.port, "read x; echo $x");
    let gate = Taken::from(&d);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let flood = Question::Gone(5).encode();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = cosserver::sys::passing::send(gate.channel.as_fd(), &flood, &[]);
            }
        });
        // The job's end goes through the monitor.
        session.send(&Message::Data(Stream::Main, b"done\n"));
        let (output, end) = session.finish();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(output, b"done\n");
        assert!(end.is_some());
    });
}

/// Whether a process's memory or environment has these bytes.
fn has(pid: i32, wanted: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    if environment.windows(wanted.len()).any(|w| w == wanted) {
        return true;
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
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
        if memory.seek(SeekFrom::Start(from)).is_ok() && memory.read_exact(&mut bytes).is_ok() {
            let mut rest = &bytes[..];
            while let Some(at) = rest.iter().position(|b| *b == wanted[0]) {
                rest = &rest[at..];
                if rest.starts_with(wanted) {
                    return true;
                }
                rest = &rest[1..];
            }
        }
    }
    false
}

#[test]
fn gate_and_relay_hold_no_secret() {
    if !may() {
        return;
    }
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let secret = ["said", "in", "the", "request"].join("-");
    let mut session = caller.accepted(d.port, &format!("echo ok; cat; : {secret}"));
    session.until(b"ok\n");
    caller.ask(d.port, "true").rest();
    let host = keys::load_host_key(&Place::of_dir(&d.server())).unwrap();
    let (gate, relay) = (d.process("gate"), d.process("relay"));
    assert!(
        has(d.pid(), host.private.expose()),
        "the search finds nothing"
    );
    for (name, pid) in [("gate", gate), ("relay", relay)] {
        assert!(!has(pid, host.private.expose()), "{name} has the host key");
        assert!(!has(pid, caller.cookie.expose()), "{name} has a cookie");
        assert!(
            !has(pid, caller.cookie.to_hex().as_bytes()),
            "{name} has a cookie"
        );
        assert!(!has(pid, secret.as_bytes()), "{name} has the request");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        // What its allocator is told, and nothing of ours.
        let told: &[u8] = b"GLIBC_TUNABLES=glibc.pthread.stack_cache_size=2097152\0";
        assert_eq!(environment, told, "{name} has another environment");
    }
    assert!(
        !has(d.pid(), caller.cookie.expose()),
        "the monitor keeps a cookie"
    );
}

#[test]
fn gate_and_relay_have_no_privilege_and_no_way_out() {
    if !may() {
        return;
    }
    let d = Daemon::start();
    let empty = fs::canonicalize(d.server().join("run/empty")).unwrap();
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    for name in ["gate", "relay"] {
        let pid = d.process(name);
        let says = |key: &str| daemon::status(pid, key);
        assert_eq!(says("Seccomp"), "2", "{name}");
        assert_eq!(says("NoNewPrivs"), "1", "{name}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(says(set), "0000000000000000", "{name} {set}");
        }
        for ids in ["Uid", "Gid"] {
            let of: Vec<String> = says(ids).split_whitespace().map(str::to_owned).collect();
            assert!(
                of.len() == 4 && of.iter().all(|n| *n == of[0] && n != "0"),
                "{name}: {of:?}"
            );
        }
        assert!(
            !says("Groups").split_whitespace().any(|g| g == "0"),
            "{name}"
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/root")).unwrap(),
            empty,
            "{name}"
        );
        assert_eq!(says("TracerPid"), "0");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // Sockets, the poll and its waker, /dev/null and the log: no file, no folder.
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap();
            let to = fs::read_link(entry.path()).unwrap();
            let to = to.to_str().unwrap();
            let number = entry.file_name();
            let plain = ["socket:", "anon_inode:[eventpoll]", "/dev/null"];
            assert!(
                plain.iter().any(|p| to.starts_with(p)) || number == "2",
                "{name} has {to}"
            );
        }
        let line = d.log.wait(&format!("started process={name}"));
        assert!(
            line.contains("chroot=true") && line.contains("seccomp=true"),
            "{line}"
        );
        let lsm = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        if lsm.contains("landlock") {
            assert!(line.contains("landlock=true"), "{line}");
        }
    }
}

/// The walls themselves: each of these calls ends the process that makes it.
#[test]
fn the_walls_end_who_runs_against_them() {
    use cosserver::sys::sandbox::{Role, enter};
    type Call = fn() -> libc::c_long;
    let calls: [(&str, Call); 9] = [
        ("open", || unsafe {
            libc::c_long::from(libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY))
        }),
        ("socket", || unsafe {
            libc::c_long::from(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0))
        }),
        ("fork", || unsafe {
            libc::syscall(libc::SYS_clone, 17, 0, 0, 0, 0)
        }),
        ("execve", || unsafe {
            let argv = [c"/bin/true".as_ptr(), std::ptr::null()];
            libc::c_long::from(libc::execve(argv[0], argv.as_ptr(), argv.as_ptr()))
        }),
        ("kill", || unsafe { libc::c_long::from(libc::kill(1, 0)) }),
        ("ptrace", || unsafe {
            libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0)
        }),
        ("setuid", || unsafe { libc::c_long::from(libc::setuid(0)) }),
        ("chroot", || unsafe {
            libc::c_long::from(libc::chroot(c"/".as_ptr()))
        }),
        ("unlink", || unsafe {
            libc::c_long::from(libc::unlink(c"/nothing".as_ptr()))
        }),
    ];
    for role in [Role::Gate, Role::Relay] {
        for (name, call) in calls {
            let child = match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let walls = enter(role, None);
                    let code = match walls {
                        Ok(w) if w.seccomp => {
                            call();
                            1
                        }
                        Ok(_) => 2,
                        Err(_) => 3,
                    };
                    unsafe { libc::_exit(code) }
                }
                ForkResult::Parent { child } => child,
            };
            match waitpid(child, None).unwrap() {
                WaitStatus::Signaled(_, Signal::SIGSYS, _) => {}
                WaitStatus::Exited(_, 2) => eprintln!("no seccomp here"),
                other => panic!("{role:?}: {name}: {other:?}"),
            }
        }
    }
}
